"""Goldens of VideoPrism: encoder, video-text model, classifier, tokeniser and preprocessing."""

import dataclasses
import functools
import importlib
import itertools
import pathlib
import types

import numpy as np

from tests.goldens.makers import frame
from tests.goldens.makers.frame import Golden, Original, Texts
from tests.goldens.makers.originals import VIDEOPRISM

TEXTS = [
    "A person is Playing Drums!",
    "cat",
    "",
    "a video of water bottle drumming, in the kitchen -- at home",
    "Hello, World...",
]


def original_module(name: str):
    """Returns a module of the checkout; TensorFlow only opens files in it."""
    module = importlib.import_module(f"videoprism.{name}")
    module.gfile = types.SimpleNamespace(GFile=open)
    return module


def tokenizer():
    """Returns the original's tokeniser with the small vocabulary of its own tests."""
    tokenizers = original_module("tokenizers")
    folder = pathlib.Path(tokenizers.__file__).parent / "assets" / "testdata"
    return tokenizers.SentencePieceTokenizer(str(folder / "test_spm.model"))


@dataclasses.dataclass(frozen=True)
class VideoPrism(Golden):
    """A model; checkpoint.npz is a file as the original's `load_pretrained_weights` reads it.

    Attributes:
        model_class: Its name in encoders.py.
        sizes: Its fields.
        calls: By name of a call: the keyword arguments that are drawn for it, by their shapes,
            and those that another call has drawn, by its name.
        options: By name of a call: further keyword arguments, [] for none.
        names: Names of the positional results; the dict of intermediates comes after them.
    """

    model_class: str = ""
    sizes: dict = dataclasses.field(default_factory=dict)
    calls: dict = dataclasses.field(default_factory=dict)
    options: dict = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()
    originals: tuple[Original, ...] = (VIDEOPRISM,)
    packages: tuple[str, ...] = (
        "jax==0.10.2",
        "flax==0.12.8",
        "einshape==1.0",
        "sentencepiece==0.2.3",
        "huggingface_hub",
    )
    stand_ins: tuple[str, ...] = ("tensorflow",)

    def build(self, dtype: str = "float32"):
        encoders = original_module("encoders")
        fields = {"scan": True, **self.sizes}
        if "encoder_params" in fields:
            fields["encoder_params"] = {"scan": fields.pop("scan"), **fields["encoder_params"]}
        return getattr(encoders, self.model_class)(**fields, dtype=dtype, fprop_dtype=dtype)

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        import flax
        import jax

        inputs = {}
        for call, arguments in self.calls.items():
            for name, shape in arguments.items():
                if not isinstance(shape, str):
                    inputs[f"{call}/{name}"] = self.draw_input(name, shape, rng)
        for name in [name for name in inputs if name.endswith("text_token_ids")]:
            self.pad_texts(inputs, name.removesuffix("text_token_ids"))
        np.savez_compressed(folder / "inputs.npz", **inputs)
        first = next(iter(self.calls))
        initialise = functools.partial(self.build().init, train=False)
        shapes = jax.eval_shape(initialise, jax.random.key(0), **self.arguments(first, inputs))
        shapes = flax.traverse_util.flatten_dict(shapes, sep="/")
        weights = {}
        for name, leaf in shapes.items():
            stacked = leaf.shape[:1] if "x_layers" in name else ()
            shape = leaf.shape[len(stacked) :]
            layers = [
                frame.random_weights({name: shape}, rng, frame.flax_fan_in)[name]
                for _ in range(stacked[0] if stacked else 1)
            ]
            weights[name] = np.stack(layers) if stacked else layers[0]
            if name.endswith("/scale") and "per_dim" not in name:
                weights[name] -= 1  # the layer adds it
        np.savez_compressed(folder / "checkpoint.npz", **weights)

    def draw_input(self, name: str, shape: tuple, rng: np.random.Generator) -> np.ndarray:
        """Returns a video in 0..1, ids, or paddings (1 = padded frame) of the last frames."""
        if name == "frame_paddings":
            ends = rng.integers(1, shape[1], shape[0])
            return (np.arange(shape[1]) >= ends[:, None]).astype(np.float32)
        if name == "text_token_ids":
            return rng.integers(3, self.sizes["vocabulary_size"], shape).astype(np.int32)
        if name == "text_paddings":
            return np.zeros(shape, np.float32)
        return frame.random_video(shape, rng, unit=True)

    def pad_texts(self, inputs: dict, call: str) -> None:
        """Puts tokenised texts into the first rows and pads them and the last row with zeros."""
        ids, paddings = inputs[f"{call}text_token_ids"], inputs[f"{call}text_paddings"]
        texts = TEXTS[: len(ids) - 2]
        models = original_module("models")
        rows = models.tokenize_texts(tokenizer(), texts, ids.shape[1])
        ids[: len(texts)], paddings[: len(texts)] = rows
        paddings[-1, ids.shape[1] // 3 :] = 1
        ids[-1, ids.shape[1] // 3 :] = 0

    def arguments(self, call: str, inputs: dict) -> dict:
        """Returns the arrays of a call; where another call's are named, these."""
        given = self.calls[call].items()
        return {
            name: inputs[f"{source if isinstance(source, str) else call}/{name}"]
            for name, source in given
        }

    def compute(self, folder: pathlib.Path) -> dict:
        return frame.both_precisions(functools.partial(self.run, folder))

    def run(self, folder: pathlib.Path, dtype: str) -> dict:
        """Returns the outputs of one precision; float64 replaces the original's float32 casts."""
        import jax
        import jax.numpy as jnp

        modules = [original_module(name) for name in ("encoders", "layers")]
        numpy = types.ModuleType("jnp")
        numpy.__dict__.update(vars(jnp), float32=getattr(jnp, dtype))
        for module in modules:
            module.jnp = numpy
        outputs = {}
        with jax.enable_x64(dtype == "float64"):
            params = original_module("models").load_pretrained_weights(
                None, checkpoint_path=str(folder / "checkpoint.npz")
            )
            cast = functools.partial(
                jax.tree.map, lambda x: np.asarray(x, dtype) if x.dtype == np.float32 else x
            )
            inputs = dict(np.load(folder / "inputs.npz"))
            for call in self.calls:
                options = {"return_intermediate": False, **self.options.get(call, {})}
                apply = functools.partial(self.build(dtype).apply, train=False, **options)
                results = jax.jit(apply)(cast(params), **cast(self.arguments(call, inputs)))
                named = zip(self.names, results[:-1], strict=True)
                for name, value in itertools.chain(named, results[-1].items()):
                    if value is not None:
                        outputs[f"{call}/{name}"] = np.asarray(value)
        return outputs


@dataclasses.dataclass(frozen=True)
class Tokenizer(Texts):
    """Texts, canonical texts, and up to 64 ids with the start token and without an end."""

    originals: tuple[Original, ...] = (VIDEOPRISM,)
    packages: tuple[str, ...] = ("sentencepiece==0.2.3", "huggingface_hub")
    stand_ins: tuple[str, ...] = ("tensorflow", "einshape")

    def encoder(self):
        tokenise = functools.partial(original_module("models").tokenize_texts, tokenizer())
        canonicalise = original_module("utils").canonicalize_text

        def encode(text):
            encoded = {"canonical": canonicalise(text)}
            for key, canonical in (("ids", False), ("ids_canonicalised", True)):
                ids, paddings = tokenise([text], 64, canonicalize=canonical)
                encoded[key] = ids[paddings == 0].tolist()
            return encoded

        return encode


GOLDENS = {
    "videoprism_tokenizer": Tokenizer(source="videoprism_tokenizer"),
    "videoprism_video": VideoPrism(
        model_class="FactorizedEncoder",
        sizes={
            "patch_size": 8,
            "pos_emb_shape": (6, 5, 5),
            "model_dim": 36,
            "num_spatial_layers": 3,
            "num_temporal_layers": 2,
            "num_heads": 4,
            "mlp_dim": 144,
            "atten_logit_cap": 50.0,
        },
        calls={
            "native": {"inputs": (2, 6, 40, 40, 3)},
            "interp_space_up": {"inputs": (1, 6, 56, 56, 3)},
            "interp_space_down": {"inputs": (1, 6, 24, 24, 3)},
            "interp_time_down": {"inputs": (1, 4, 40, 40, 3)},
            "interp_time_up": {"inputs": (1, 9, 40, 40, 3)},
            "interp_both": {"inputs": (1, 5, 48, 48, 3)},
            "native_frame_paddings": {"inputs": "native", "frame_paddings": (2, 6)},
        },
        options={"native": {"return_intermediate": True}},
        names=("embeddings",),
    ),
    "videoprism_lvt": VideoPrism(
        model_class="FactorizedVideoCLIP",
        sizes={
            "patch_size": 8,
            "pos_emb_shape": (4, 3, 3),
            "num_spatial_layers": 3,
            "num_temporal_layers": 1,
            "mlp_dim": 128,
            "num_auxiliary_layers": 2,
            "vocabulary_size": 1000,
            "enable_causal_atten": True,
            "num_unimodal_layers": 4,
            "norm_policy": "pre",
            "model_dim": 32,
            "num_heads": 2,
            "atten_logit_cap": 50.0,
        },
        calls={
            "full": {
                "inputs": (2, 4, 24, 24, 3),
                "text_token_ids": (7, 64),
                "text_paddings": (7, 64),
            },
            "full_unnormalized": {
                "inputs": "full",
                "text_token_ids": "full",
                "text_paddings": "full",
            },
            "text_short": {"text_token_ids": (3, 11), "text_paddings": (3, 11)},
            "video_frame_paddings": {"inputs": "full", "frame_paddings": (2, 4)},
            "video_interp": {"inputs": (1, 7, 40, 40, 3)},
        },
        options={
            "full": {"return_intermediate": True},
            "full_unnormalized": {
                "normalize": False,
                "return_intermediate": ("frame_embeddings",),
            },
            "text_short": {"normalize": False},
            "video_frame_paddings": {"normalize": False},
            "video_interp": {"normalize": False, "return_intermediate": ("frame_embeddings",)},
        },
        names=("video_embeddings", "text_embeddings"),
    ),
    "videoprism_classifier": VideoPrism(
        model_class="FactorizedVideoClassifier",
        sizes={
            "encoder_params": {
                "patch_size": 6,
                "pos_emb_shape": (5, 4, 4),
                "model_dim": 36,
                "num_spatial_layers": 2,
                "num_temporal_layers": 1,
                "num_heads": 3,
                "mlp_dim": 144,
                "atten_logit_cap": 50.0,
            },
            "num_classes": 7,
        },
        calls={
            "native": {"inputs": (2, 5, 24, 24, 3)},
            "interp_both": {"inputs": (1, 8, 18, 18, 3)},
        },
        options={
            "native": {"return_intermediate": True},
            "interp_both": {"return_intermediate": True},
        },
        names=("logits",),
    ),
}
