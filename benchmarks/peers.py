"""Variants of the same models here and in other projects: forward passes and train steps.

Functions that a `harness.Child` calls: each returns facts and a callable that does the work as
often as it is told, and then waits for its end. With a folder all have the same random weights:
drawn by transformers, saved, and converted by the real command; without one each draws its own.
"""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks import harness
from vidjax.card import read_card

Once = Callable[..., Mapping[str, float] | None]

LEARNING = {"lr": 1e-4, "weight_decay": 0.05, "b1": 0.9, "b2": 0.95, "eps": 1e-8}
# Of a GPU's memory, for each of two processes that take turns on it.
MEMORY_SHARE = 0.45


@dataclasses.dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        hf: its class in transformers.
        config: class of its configuration there, and values other than the default ones.
        ours: keywords of `vidjax.models.build`; None while vidjax has no such model.
        clip: frames, height and width.
        tiny, tiny_ours, tiny_clip: the same, smaller, for a quick run.
    """

    hf: str
    config: tuple[str, dict[str, Any]]
    ours: dict[str, Any] | None
    clip: tuple[int, int, int]
    tiny: dict[str, Any]
    tiny_ours: dict[str, Any]
    tiny_clip: tuple[int, int, int]

    def quick(self) -> "Case":
        name, values = self.config
        ours = self.ours and self.ours | self.tiny_ours
        return dataclasses.replace(
            self, config=(name, values | self.tiny), ours=ours, clip=self.tiny_clip
        )


_TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
}
_TINY_OURS = {"width": 48, "depth": 2, "num_heads": 4, "mlp_dim": 96}
_TINY_DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}
_TINY_DECODER_OURS = {
    "decoder_width": 32,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
    "decoder_mlp_dim": 64,
}
_TINY_PRISM = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 36,
    "num_frames": 4,
    "num_spatial_layers": 2,
    "num_temporal_layers": 1,
}
_TINY_XCLIP = {
    "vision_config": _TINY
    | {
        "patch_size": 16,
        "num_frames": 4,
        "mit_hidden_size": 64,
        "mit_intermediate_size": 96,
        "mit_num_attention_heads": 2,
    },
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "projection_dim": 64,
}
_CLASSIFY = {"head": "classify", "num_classes": 400, "eps": 1e-12}
_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
CASES = {
    "VideoMAE-B": Case(
        "VideoMAEForVideoClassification",
        ("VideoMAEConfig", {"num_labels": 400}),
        {"name": "videomae", "variant": "B"} | _CLASSIFY,
        (16, 224, 224),
        _TINY | {"num_frames": 4},
        _TINY_OURS,
        (4, 32, 32),
    ),
    "ViViT-B": Case(
        "VivitForVideoClassification",
        ("VivitConfig", {"num_labels": 400}),
        {"name": "vivit", "variant": "B", "patch_size": (2, 16, 16)} | _CLASSIFY | {"eps": 1e-6},
        (32, 224, 224),
        _TINY | {"num_frames": 4},
        _TINY_OURS,
        (4, 32, 32),
    ),
    "X-CLIP-B/16": Case(
        "XCLIPModel",
        ("XCLIPConfig", {"vision_config": {"patch_size": 16, "num_frames": 8}}),
        {"name": "xclip", "variant": "B/16", "head": "video_text", "eps": 1e-5},
        (8, 224, 224),
        _TINY_XCLIP,
        _TINY_OURS
        | {
            "embed_dim": 64,
            "text_width": 64,
            "text_depth": 2,
            "text_num_heads": 4,
            "text_mlp_dim": 96,
            "mit_num_heads": 2,
            "mit_mlp_dim": 96,
        },
        (4, 32, 32),
    ),
    "VideoPrism-B": Case(
        "VideoPrismVisionModel",
        ("VideoPrismVisionConfig", {}),
        {"name": "videoprism", "variant": "B", "eps": 1e-6, "patch_size": (1, 18, 18)},
        (16, 288, 288),
        _TINY_PRISM,
        _TINY_OURS | {"temporal_depth": 1},
        (4, 36, 36),
    ),
    "V-JEPA 2-L": Case(
        "VJEPA2Model",
        ("VJEPA2Config", _LARGE | {"frames_per_clip": 64, "crop_size": 256}),
        None,
        (64, 256, 256),
        _TINY
        | {
            "crop_size": 32,
            "frames_per_clip": 4,
            "pred_hidden_size": 48,
            "pred_num_hidden_layers": 1,
            "pred_num_attention_heads": 4,
        },
        {},
        (4, 32, 32),
    ),
    "VideoMAE-B pre-training": Case(
        "VideoMAEForPreTraining",
        ("VideoMAEConfig", {"use_mean_pooling": False}),
        {"name": "videomae", "variant": "B", "head": "reconstruct", "eps": 1e-12},
        (16, 224, 224),
        _TINY | _TINY_DECODER | {"num_frames": 4},
        _TINY_OURS | _TINY_DECODER_OURS,
        (4, 32, 32),
    ),
    "VideoMAE-L": Case(
        "VideoMAEForVideoClassification",
        ("VideoMAEConfig", _LARGE | {"num_labels": 400}),
        {"name": "videomae", "variant": "L"} | _CLASSIFY,
        (16, 224, 224),
        _TINY | {"num_frames": 4},
        _TINY_OURS,
        (4, 32, 32),
    ),
}


def case_of(name: str, quick: bool) -> Case:
    """The model of a name, or a tiny one like it."""
    return CASES[name].quick() if quick else CASES[name]


def hf_attention(case: str) -> str:
    """The fastest attention that transformers has for a model."""
    return "eager" if "VideoPrism" in case else "sdpa"


def _new_hf_model(case: Case, **options: Any) -> Any:
    """transformers' model with weights as it draws them."""
    import transformers

    config, values = case.config
    made = getattr(transformers, config)(**values)
    return getattr(transformers, case.hf)._from_config(made, **options)


def make(folder: str, case: str, quick: bool) -> None:
    """Writes folder/hf with random weights."""
    import torch

    torch.manual_seed(0)
    model = _new_hf_model(case_of(case, quick), attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 if "attention_query" in name else 0.03
            parameter.normal_(0, scale)
            if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
                parameter.add_(0 if "VideoPrism" in case else 1)  # which adds 1 itself
    model.save_pretrained(folder + "/hf")


def prepare(case: str, quick: bool, folder: pathlib.Path, formats: Iterable[str] = ()) -> None:
    """Makes folder/hf, folder/vidjax converted from it, and folder/FORMAT exported from that.

    Raises:
        UserError: one of the commands failed.
    """
    options = {"folder": str(folder), "case": case, "quick": quick}
    code = "import json, sys; from benchmarks import peers; peers.make(**json.loads(sys.argv[1]))"
    harness.whole_process([sys.executable, "-c", code, json.dumps(options)])
    convert = [sys.executable, "-m", "converters.convert"]
    harness.whole_process([*convert, f"--from={folder}/hf", f"--to={folder}/vidjax"])
    for name in formats:
        source = folder / "vidjax"
        if name == "keras":
            source = _with_whole_scales(source, folder / "vidjax_keras")
        to = [f"--to={folder}/{name}", f"--format={name}"]
        harness.whole_process([*convert, f"--from={source}", *to])


def _with_whole_scales(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """A VideoPrism folder anew, with LayerNorm scales as KerasHub stores them; returns `target`."""
    from flax import traverse_util

    from vidjax import pretrained

    stored, card = pretrained.open_params(source), read_card(source)
    params = {name: stored[name] + np.float32(name.endswith("/scale")) for name in stored}
    card = dataclasses.replace(card, model=card.model | {"scale_offset": 0.0})
    target.mkdir()
    pretrained.save_pretrained(target, traverse_util.unflatten_dict(params, sep="/"), card)
    return target


def clip(shape: tuple[int, ...], uint8: bool = False) -> np.ndarray:
    """The same random clips [B, T, H, W, 3] for all: normalised, or bytes."""
    rng = np.random.default_rng(0)
    if uint8:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.random(shape, np.float32)


def _save(output: np.ndarray, path: str) -> None:
    np.save(path, np.asarray(output, np.float32))


def random_params(model: Any) -> Any:
    """Random parameters of a linen module, on the device; scales are near 1."""
    import jax

    from vidjax import models

    rng = np.random.default_rng(0)

    def draw(path: tuple, like: jax.ShapeDtypeStruct) -> jax.Array:
        values = 0.02 * rng.standard_normal(like.shape, np.float32)
        return jax.device_put(values + np.float32(path[-1].key == "scale"))

    return jax.tree_util.tree_map_with_path(draw, models.abstract_params(model))


def our_model(case: Case, folder: str | None, dtype: str, **speed: Any) -> tuple[Any, Any]:
    """vidjax's model and its parameters in float32.

    Args:
        folder: holds `vidjax`, a converted model; None draws parameters.
        **speed: the fields `attention`, `remat` and `unroll`, where they are not the default.
    """
    from vidjax import load_model, models

    if folder is None:
        model = models.build(**case.ours, clip=case.clip, dtype=dtype)
        params = random_params(model)
    else:
        loaded = load_model(folder + "/vidjax", dtype)
        model, params = loaded.model, loaded.params
    return models.replace(model, **speed), params


def output_of(model: Any, params: Any, video: Any) -> Any:
    """Returns a forward pass's output; a model of videos and texts gives its videos' features."""
    method = (lambda m, v: m.video_features(v)[0]) if hasattr(model, "video_features") else None
    return model.apply({"params": params}, video, method=method)


def repeated(
    step: Callable[..., Any], *arguments: Any, output: str | None = None, each: bool = False
) -> Once:
    """A variant's work from a jitted function, whose result is saved once."""
    import jax

    if output:
        _save(step(*arguments), output)
        jax.clear_caches()  # so that the first run compiles

    def once(calls: int = 1) -> None:
        for _ in range(calls):
            out = step(*arguments)
            if each:
                jax.block_until_ready(out)
        jax.block_until_ready(out)

    return once


def vidjax_forward(
    case: str,
    quick: bool,
    batch: int,
    dtype: str,
    folder: str | None = None,
    output: str | None = None,
    each: bool = False,
    **speed: Any,
) -> tuple[dict, Once]:
    """The jitted forward pass with parameters in its own dtype.

    Args:
        case, quick: see `case_of`.
        batch: clips.
        folder, **speed: see `our_model`.
        output: file for the result.
        each: whether every call is waited for, as where a clip comes alone.
    """
    import jax

    from benchmarks import flops
    from vidjax import models

    case = case_of(case, quick)
    model, params = our_model(case, folder, dtype, **speed)
    # A matrix product in bfloat16 reads parameters in bfloat16: cast once, as the peers have them.
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    video = jax.device_put(clip((batch, *case.clip, 3)).astype(dtype))
    step = jax.jit(lambda params, video: output_of(model, params, video))
    once = repeated(step, params, video, output=output, each=each)
    einsum = models.replace(model, attention="einsum")
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    facts = {
        "flops": flops.matmul_flops(lambda p, v: output_of(einsum, p, v), shapes, video),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
    }
    return facts, once


def _hf_model(case: Case, folder: str | None, attention: str, on: str, dtype: str) -> Any:
    """transformers' model on the CPU or the GPU."""
    import torch
    import transformers

    torch.set_num_threads(harness.Settings().threads)
    options = {"attn_implementation": attention, "dtype": getattr(torch, dtype)}
    if on == "cpu":
        if folder is None:
            return _new_hf_model(case, **options)
        return getattr(transformers, case.hf).from_pretrained(folder + "/hf", **options)
    torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE)  # which starts CUDA
    torch.cuda.empty_cache()  # of what was there before this variant
    with torch.device("cuda"):
        return _new_hf_model(case, **options).to("cuda")


def _waited(on: str, each: bool, call: Callable[[], Any]) -> Once:
    """A variant's work from a function that PyTorch may do later."""
    import torch

    def once(calls: int = 1) -> None:
        for _ in range(calls):
            call()
            if each and on == "gpu":
                torch.cuda.synchronize()
        if on == "gpu":
            torch.cuda.synchronize()

    return once


def hf_forward(
    case: str,
    quick: bool,
    batch: int,
    dtype: str,
    attention: str,
    on: str,
    folder: str | None = None,
    output: str | None = None,
    compiled: str = "",
    each: bool = False,
) -> tuple[dict, Once]:
    """The forward pass of transformers' model, without gradients; see `vidjax_forward`.

    Args:
        attention: its implementation there.
        on: "cpu" or "gpu".
        compiled: mode of torch.compile, such as "default" or "reduce-overhead" (CUDA graphs).
    """
    import torch

    case = case_of(case, quick)
    model = _hf_model(case, folder, attention, on, dtype).eval()
    video = torch.from_numpy(clip((batch, *case.clip, 3)).transpose(0, 1, 4, 2, 3).copy())
    name = "pixel_values" if case.hf.startswith(("VideoMAE", "Vivit", "XCLIP")) else (
        "pixel_values_videos"
    )  # fmt: skip
    inputs = {name: video.to(model.device, model.dtype)}
    if case.hf == "VJEPA2Model":
        inputs["skip_predictor"] = True
    call = model.get_video_features if case.hf == "XCLIPModel" else model
    if compiled:
        call = torch.compile(call, mode=compiled)

    @torch.inference_mode()
    def run() -> Any:
        return call(**inputs)

    if output:
        out = run()
        fields = ("logits", "pooler_output") if case.hf == "XCLIPModel" else ("logits",)
        found = next((getattr(out, f) for f in fields if hasattr(out, f)), None)
        if found is None:
            found = out if torch.is_tensor(out) else out.last_hidden_state
        _save(found.float().cpu().numpy(), output)
    return {}, _waited(on, each, run)


def deepmind_forward(
    case: str,
    quick: bool,
    batch: int,
    dtype: str,
    code: str,
    folder: str | None = None,
    output: str | None = None,
    each: bool = False,
) -> tuple[dict, Once]:
    """google-deepmind/videoprism's encoder from a checkout; see `vidjax_forward`.

    Args:
        code: the checkout.
        folder: holds `original`, an exported model.
    """
    import jax
    import jax.numpy as jnp
    from flax import linen as nn
    from flax import traverse_util

    from vidjax import models

    sys.path.insert(0, code)
    from videoprism import encoders  # alone: its `models` wants TensorFlow

    case = case_of(case, quick)
    sizes = models.build(**case.ours, clip=case.clip)
    model = encoders.FactorizedEncoder(
        patch_size=sizes.patch_size[1],
        pos_emb_shape=sizes.pos_grid,
        model_dim=sizes.width,
        num_spatial_layers=sizes.depth,
        num_temporal_layers=sizes.temporal_depth,
        num_heads=sizes.num_heads,
        mlp_dim=sizes.mlp_dim,
        atten_logit_cap=sizes.softcap,
        scan=True,
        fprop_dtype=jnp.dtype(dtype),
    )
    video = jax.device_put(clip((batch, *case.clip, 3)).astype(dtype))
    if folder is None:
        state = jax.jit(model.init)(jax.random.key(0), video[:1])
        state = nn.meta.unbox(state)
    else:
        (path,) = pathlib.Path(folder, "original").glob("*.npz")
        with np.load(path, allow_pickle=False) as arrays:
            state = traverse_util.unflatten_dict(dict(arrays), sep="/")
    state = jax.device_put(jax.tree.map(lambda x: x.astype(dtype), state))
    step = jax.jit(lambda state, video: model.apply(state, video, train=False)[0])
    return {}, repeated(step, state, video, output=output, each=each)


def kerashub_forward(
    case: str, quick: bool, batch: int, dtype: str, code: str, folder: str, output: str
) -> tuple[dict, Once]:
    """KerasHub's VideoPrism on its JAX backend, from a checkout, with folder/keras's weights."""
    os.environ["KERAS_BACKEND"] = "jax"
    sys.path.insert(0, code)
    import jax
    import keras_hub

    model = keras_hub.models.VideoPrismBackbone.from_preset(f"{folder}/keras", dtype=dtype)
    state = [[x.value for x in group] for group in (model.trainable_variables,
                                                    model.non_trainable_variables)]  # fmt: skip
    video = jax.device_put(clip((batch, *case_of(case, quick).clip, 3)).astype(dtype))
    step = jax.jit(lambda state, video: model.stateless_call(*state, video, training=False)[0])
    return {}, repeated(step, state, video, output=output)


def vidjax_step(
    case: str, quick: bool, batch: int, dtype: str, folder: str | None = None, **speed: Any
) -> tuple[dict, Once]:
    """`make_train_step` on bytes: normalisation, masks, backward, AdamW; donated.

    Args:
        case, quick: see `case_of`.
        batch: clips.
        folder, **speed: see `our_model`.
    """
    import jax

    from benchmarks import flops
    from vidjax import models

    step, state, clips, objective = train_step(case_of(case, quick), batch, dtype, folder, **speed)
    clips = jax.device_put(clips)
    compiled = step.lower(state, clips).compile().memory_analysis()
    einsum = models.replace(objective.model, remat="none", attention="einsum")
    einsum = dataclasses.replace(objective, model=einsum)
    facts = {
        # The backward pass has two products for each: three times the forward pass, by convention.
        "flops": 3 * flops.matmul_flops(
            lambda params, clips: einsum.loss(params, clips, rng=jax.random.key(0))[0],
            state.params,
            clips,
        ),
        "planned_temporary_bytes": compiled.temp_size_in_bytes,
    }  # fmt: skip
    jax.clear_caches()

    def once(calls: int = 1) -> dict[str, float]:
        nonlocal state
        for _ in range(calls):
            state, figures = step(state, clips)
        jax.block_until_ready(state)
        return {"loss": float(figures["loss"])}

    return facts, once


def train_step(
    case: Case, batch: int, dtype: str, folder: str | None = None, **speed: Any
) -> tuple[Any, Any, dict[str, np.ndarray], Any]:
    """The jitted train step, its state, clips in bytes, and the objective; see `vidjax_step`."""
    import jax.numpy as jnp

    from vidjax import configlib
    from vidjax.objectives.classification import Classification
    from vidjax.objectives.masked_autoencoding import MaskedAutoencoding
    from vidjax.preprocessing import Preprocessing
    from vidjax.training import optim
    from vidjax.training.step import TrainState, make_train_step

    model, params = our_model(case, folder, dtype, **speed)
    pretraining = case.hf.endswith("PreTraining")
    objective = MaskedAutoencoding if pretraining else Classification
    objective = objective(model, Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3))
    config = configlib.base().optim
    config.update(**LEARNING)
    optimizer = optim.make_optimizer(config, lambda step: LEARNING["lr"])
    state = TrainState(jnp.int32(0), params, optimizer.init(params), {})
    clips = {"video": clip((batch, *case.clip, 3), uint8=True)}
    if not pretraining:
        clips["label"] = np.zeros(batch, np.int32)
    return make_train_step(objective, optimizer), state, clips, objective


def hf_step(
    case: str,
    quick: bool,
    batch: int,
    dtype: str,
    attention: str,
    on: str,
    folder: str | None = None,
    compiled: str = "",
) -> tuple[dict, Once]:
    """A train step of transformers' model on normalised clips with masks that are there already.

    See `hf_forward`; parameters are in float32, and products in bfloat16 by autocast.
    """
    import torch

    case = case_of(case, quick)
    where = "cuda" if on == "gpu" else "cpu"
    torch.set_float32_matmul_precision("high" if on == "gpu" else "highest")
    model = _hf_model(case, folder, attention, on, "float32").train()
    frames, height, width = case.clip
    pixels = clip((batch, frames, height, width, 3)).transpose(0, 1, 4, 2, 3)
    inputs = {"pixel_values": torch.from_numpy(pixels.copy()).to(where)}
    if case.hf.endswith("PreTraining"):
        grid = frames // 2, height // 16 * (width // 16)
        hidden = np.ones((batch, grid[1]), bool)
        keep = max(round(0.1 * grid[1]), 1)
        for row, rng in zip(hidden, np.random.default_rng(0).spawn(batch), strict=True):
            row[rng.permutation(grid[1])[:keep]] = False
        mask = np.repeat(hidden[:, None], grid[0], 1).reshape(batch, -1)
        inputs["bool_masked_pos"] = torch.from_numpy(mask).to(where)
    else:
        inputs["labels"] = torch.zeros(batch, dtype=torch.long, device=where)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING["lr"], weight_decay=LEARNING["weight_decay"],
        betas=(LEARNING["b1"], LEARNING["b2"]), eps=LEARNING["eps"], fused=True,
    )  # fmt: skip
    call = torch.compile(model, mode=compiled) if compiled else model

    def step() -> None:
        with torch.autocast(where, torch.bfloat16, enabled=dtype != "float32"):
            loss = call(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return {}, _waited(on, False, step)


def matmul(library: str, size: int, dtype: str, on: str) -> tuple[dict, Once]:
    """A square matrix product of random numbers: what the machine can do at best."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((2, size, size), np.float32)
    facts = {"flops": 2 * size**3}
    if library == "jax":
        import jax

        a, b = (jax.device_put(x.astype(dtype)) for x in numbers)
        return facts, repeated(jax.jit(lambda a, b: a @ b), a, b)
    import torch

    torch.set_num_threads(harness.Settings().threads)
    where = "cuda" if on == "gpu" else "cpu"
    a, b = (torch.from_numpy(x).to(where, getattr(torch, dtype)) for x in numbers)
    return facts, _waited(on, False, lambda: a @ b)
