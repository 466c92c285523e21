"""Goldens of ViViT's four factorisations, by Scenic."""

import dataclasses
import functools
import pathlib

import numpy as np

from tests.goldens.makers import frame
from tests.goldens.makers.frame import Golden, Original
from tests.goldens.makers.originals import SCENIC

SEEN = {"pre_logits": ("pre_logits",), "encoder_output": ("Transformer", "encoder_norm")}


@dataclasses.dataclass(frozen=True)
class ViViT(Golden):
    """A `ViViTClassificationModel`.

    Attributes:
        clip: [T, H, W] of the inputs.
        num_classes: Number of classes.
        model: Fields of Scenic's `config.model`.
        files: What is written: "params.npz" (the tree alone), "checkpoint_153" (a TrainState by
            Scenic's `save_checkpoint`) and "checkpoint_100" (the layout of the older flax.optim,
            as the published files have it).
    """

    clip: tuple[int, int, int] = (10, 32, 32)
    num_classes: int = 0
    model: dict = dataclasses.field(default_factory=dict)
    files: tuple[str, ...] = ("params.npz",)
    originals: tuple[Original, ...] = (SCENIC,)
    packages: tuple[str, ...] = (
        "jax==0.10.2",
        "flax==0.12.8",
        "optax==0.2.8",
        "ml_collections==1.1.0",
        "immutabledict>=4.2",
    )
    stand_ins: tuple[str, ...] = ("tensorflow", "tensorflow_datasets", "clu")

    def build(self, dtype: str = "float32"):
        import ml_collections
        from scenic.projects.vivit import model

        temporal = {"method": "3d_conv", "kernel_init_method": "central_frame_initializer"}
        fields = {
            "patches": {"size": [8, 8, 2]},  # height, width, time
            "representation_size": None,
            "attention_dropout_rate": 0.0,
            "dropout_rate": 0.0,
            "temporal_encoding_config": temporal,
            **self.model,
        }
        config = ml_collections.ConfigDict({"model": fields, "model_dtype_str": dtype})
        facts = {"num_classes": self.num_classes, "target_is_onehot": True}
        return model.ViViTClassificationModel(config, facts).flax_model

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        import flax
        import jax

        video = frame.random_video((2, *self.clip, 3), rng) / 2
        np.savez_compressed(folder / "inputs.npz", inputs=video)
        initialise = functools.partial(self.build().init, train=False)
        shapes = jax.eval_shape(initialise, jax.random.key(0), video)["params"]
        shapes = flax.traverse_util.flatten_dict(dict(shapes), sep="/")
        shapes = {name: leaf.shape for name, leaf in shapes.items()}
        weights = frame.random_weights(shapes, rng, frame.flax_fan_in)
        params = flax.traverse_util.unflatten_dict(weights, sep="/")
        if "params.npz" in self.files:
            np.savez_compressed(folder / "params.npz", **weights)
        if "checkpoint_100" in self.files:
            state = {
                "accum_train_time": 12,
                "global_step": 100,
                "model_state": {},
                "optimizer": {
                    "state": {"param_states": {}, "step": np.array(100, np.int32)},
                    "target": params,
                },
                "rng": np.array([0, 1], np.uint32),
            }
            (folder / "checkpoint_100").write_bytes(flax.serialization.msgpack_serialize(state))
        if "checkpoint_153" in self.files:
            self.save_train_state(folder, params)

    def save_train_state(self, folder: pathlib.Path, params: dict) -> None:
        """Writes checkpoint_153 as Scenic's training does."""
        import flax
        import optax
        from scenic.train_lib import train_utils

        flax.config.update("flax_use_orbax_checkpointing", False)
        optimizer = optax.sgd(0.1)
        state = train_utils.TrainState(
            tx=optimizer,
            opt_state=optimizer.init(params),
            params=params,
            global_step=153,
            model_state={},
            rng=np.array([0, 1], np.uint32),
            metadata={"chrono": {"accum_train_time": 12.5}},
        )
        train_utils.save_checkpoint(str(folder), state)

    def params(self, folder: pathlib.Path) -> dict:
        import flax

        if "params.npz" in self.files:
            arrays = dict(np.load(folder / "params.npz"))
            return flax.traverse_util.unflatten_dict(arrays, sep="/")
        return flax.serialization.msgpack_restore((folder / self.files[0]).read_bytes())["params"]

    def compute(self, folder: pathlib.Path) -> dict:
        return frame.both_precisions(functools.partial(self.run, folder))

    def run(self, folder: pathlib.Path, dtype: str) -> dict:
        import flax
        import jax

        with jax.enable_x64(dtype == "float64"):
            cast = functools.partial(jax.tree.map, lambda x: np.asarray(x, dtype))
            apply = functools.partial(
                self.build(dtype).apply,
                train=False,
                capture_intermediates=lambda module, _: module.path in SEEN.values(),
                mutable=["intermediates"],
            )
            logits, state = jax.jit(apply)(
                {"params": cast(self.params(folder))},
                cast(np.load(folder / "inputs.npz")["inputs"]),
            )
            seen = flax.traverse_util.flatten_dict(state["intermediates"])
            outputs = {
                name: np.asarray(seen[*path, "__call__"][0])
                for name, path in SEEN.items()
                if (*path, "__call__") in seen
            }
            return outputs | {"logits": np.asarray(logits)}


GOLDENS = {
    "vivit_spacetime": ViViT(
        num_classes=7,
        model={
            "hidden_size": 42,
            "num_heads": 3,
            "mlp_dim": 168,
            "num_layers": 2,
            "classifier": "token",
            "attention_config": {"type": "spacetime"},
        },
        files=("params.npz", "checkpoint_100"),
    ),
    "vivit_factorised_encoder": ViViT(
        num_classes=6,
        model={
            "hidden_size": 36,
            "classifier": "token",
            "attention_config": {"type": "factorized_encoder"},
            "spatial_transformer": {"num_heads": 4, "num_layers": 3, "mlp_dim": 144},
            "temporal_transformer": {"num_heads": 3, "num_layers": 2, "mlp_dim": 144},
        },
        files=("checkpoint_153",),
    ),
    "vivit_factorised_self_attention": ViViT(
        clip=(6, 32, 32),
        num_classes=9,
        model={
            "hidden_size": 40,
            "num_heads": 5,
            "mlp_dim": 160,
            "num_layers": 2,
            "classifier": "gap",
            "attention_config": {
                "type": "factorized_self_attention_block",
                "attention_order": "time_space",
                "attention_kernel_init_method": "xavier",
            },
        },
    ),
    "vivit_factorised_dot_product": ViViT(
        num_classes=5,
        model={
            "hidden_size": 40,
            "num_heads": 4,
            "mlp_dim": 160,
            "num_layers": 3,
            "classifier": "gap",
            "attention_config": {"type": "factorized_dot_product_attention"},
        },
    ),
}
