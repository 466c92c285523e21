"""The same models here and in other projects, with the same random weights, as variants.

Functions that a `harness.Child` calls: each returns facts and a callable that does the work once.
The weights are drawn by transformers, saved, and converted by the real command.
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

Once = Callable[[], Mapping[str, float] | None]


@dataclasses.dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        hf: its class in transformers.
        config: class of its configuration, and values other than the default ones.
        clip: frames, height and width.
        tiny: values of the configuration for a quick run, with clips `tiny_clip`.
    """

    hf: str
    config: tuple[str, dict[str, Any]]
    clip: tuple[int, int, int]
    tiny: dict[str, Any]
    tiny_clip: tuple[int, int, int]

    def quick(self) -> "Case":
        name, values = self.config
        return dataclasses.replace(
            self, config=(name, values | self.tiny), clip=self.tiny_clip, tiny={}
        )


_TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
}
_TINY_DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
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
CASES = {
    "VideoMAE-B": Case(
        "VideoMAEForVideoClassification",
        ("VideoMAEConfig", {"num_labels": 400}),
        (16, 224, 224),
        _TINY | {"num_frames": 4},
        (4, 32, 32),
    ),
    "ViViT-B": Case(
        "VivitForVideoClassification",
        ("VivitConfig", {"num_labels": 400}),
        (32, 224, 224),
        _TINY | {"num_frames": 4},
        (4, 32, 32),
    ),
    "X-CLIP-B/16": Case(
        "XCLIPModel",
        ("XCLIPConfig", {"vision_config": {"patch_size": 16, "num_frames": 8}}),
        (8, 224, 224),
        {},
        (8, 224, 224),
    ),
    "VideoPrism-B": Case(
        "VideoPrismVisionModel", ("VideoPrismVisionConfig", {}), (16, 288, 288), _TINY_PRISM,
        (4, 36, 36),
    ),
    "VideoMAE-B pre-training": Case(
        "VideoMAEForPreTraining",
        ("VideoMAEConfig", {"use_mean_pooling": False}),
        (16, 224, 224),
        _TINY | _TINY_DECODER | {"num_frames": 4},
        (4, 32, 32),
    ),
    "VideoMAE-L": Case(
        "VideoMAEForVideoClassification",
        (
            "VideoMAEConfig",
            {
                "num_labels": 400,
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
        ),
        (16, 224, 224),
        _TINY | {"num_frames": 4},
        (4, 32, 32),
    ),
}  # fmt: skip


def make(folder: str, hf: str, config: str, values: Mapping[str, Any]) -> None:
    """Writes folder/hf with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, config)(**values)
    model = getattr(transformers, hf)._from_config(made, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 if "attention_query" in name else 0.03
            parameter.normal_(0, scale)
            if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
                parameter.add_(0 if "VideoPrism" in hf else 1)  # which adds 1 itself
    model.save_pretrained(folder + "/hf")


def prepare(case: Case, folder: pathlib.Path, formats: Iterable[str] = ()) -> None:
    """Makes folder/hf, folder/vidjax converted from it, and folder/FORMAT exported from that.

    Raises:
        UserError: one of the commands failed.
    """
    options = {"folder": str(folder), "hf": case.hf}
    options |= dict(zip(("config", "values"), case.config, strict=True))
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

    stored, card = pretrained.open_params(source), pretrained.read_card(source)
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


def device_peak() -> dict[str, float]:
    """The most that jax has had on its device; nothing where it does not count (CPU)."""
    import jax

    stats = jax.devices()[0].memory_stats()
    return {"device_peak_bytes": stats["peak_bytes_in_use"]} if stats else {}


def _jitted(step: Callable[..., Any], *arguments: Any, output: str) -> Once:
    """A variant's work from a jitted function, whose result is saved once."""
    import jax

    _save(step(*arguments), output)
    jax.clear_caches()  # so that the first run compiles

    def once() -> dict[str, float]:
        jax.block_until_ready(step(*arguments))
        return device_peak()

    return once


def vidjax_forward(folder: str, shape: list[int], dtype: str, output: str) -> tuple[dict, Once]:
    """The jitted forward pass of the model in folder/vidjax, with parameters in its own dtype."""
    import jax

    from benchmarks import flops
    from vidjax import load_model

    loaded = load_model(folder + "/vidjax", dtype)
    video = clip(tuple(shape))

    def method(model, video):
        return model.video_features(video)[0] if loaded.card.model["head"] == "video_text" else (
            model(video)
        )  # fmt: skip

    def apply(params, video):
        return loaded.model.apply({"params": params}, video, method=method)

    # A matrix product in bfloat16 reads parameters in bfloat16: cast once, as the peers have them.
    params = jax.tree.map(lambda x: x.astype(dtype), loaded.params)
    on_device = jax.device_put(video.astype(dtype))
    step = jax.jit(apply)

    once = _jitted(step, params, on_device, output=output)
    einsum = loaded.model.clone(attention="einsum")
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    facts = {
        "flops": flops.matmul_flops(
            lambda p, v: einsum.apply({"params": p}, v, method=method), shapes, on_device
        ),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
    }
    return facts, once


def hf_forward(
    folder: str,
    shape: list[int],
    dtype: str,
    output: str,
    hf: str,
    attention: str,
    compiled: bool,
    threads: int,
    on: str,
) -> tuple[dict, Once]:
    """The forward pass of transformers' model in folder/hf, without gradients."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = getattr(transformers, hf).from_pretrained(
        folder + "/hf", attn_implementation=attention, dtype=getattr(torch, dtype)
    )
    model = model.eval().to("cuda" if on == "gpu" else "cpu")
    name = "pixel_values_videos" if "VideoPrism" in hf else "pixel_values"
    video = torch.from_numpy(clip(tuple(shape)).transpose(0, 1, 4, 2, 3).copy())
    inputs = {name: video.to(model.device, model.dtype)}
    call = model.get_video_features if hf == "XCLIPModel" else model
    if compiled:
        # With CUDA graphs, whose calls cost the host nothing.
        call = torch.compile(call, mode="max-autotune" if on == "gpu" else None)

    def run() -> Any:
        with torch.inference_mode():
            out = call(**inputs)
        if on == "gpu":
            torch.cuda.synchronize()
        return out

    def once() -> dict[str, float]:
        run()
        return {"device_peak_bytes": torch.cuda.max_memory_allocated()} if on == "gpu" else {}

    if not compiled:  # whose first run is to compile
        out = run()
        fields = ("logits", "pooler_output") if hf == "XCLIPModel" else ("logits",)
        found = next((getattr(out, f) for f in fields if hasattr(out, f)), None)
        if found is None:
            found = out if torch.is_tensor(out) else out.last_hidden_state
        _save(found.float().cpu().numpy(), output)
    return {"threads": torch.get_num_threads()}, once


def deepmind_forward(
    folder: str, shape: list[int], dtype: str, output: str, code: str
) -> tuple[dict, Once]:
    """google-deepmind/videoprism's encoder from a checkout, with folder/original's weights."""
    import jax
    import jax.numpy as jnp
    from flax import traverse_util

    sys.path.insert(0, code)
    from videoprism import encoders  # alone: its `models` wants TensorFlow

    sizes = json.loads(pathlib.Path(folder, "vidjax", "model.json").read_text())["model"]
    model = encoders.FactorizedEncoder(
        patch_size=sizes["patch_size"][1],
        pos_emb_shape=tuple(sizes["pos_grid"]),
        model_dim=sizes["width"],
        num_spatial_layers=sizes["depth"],
        num_temporal_layers=sizes["temporal_depth"],
        num_heads=sizes["num_heads"],
        mlp_dim=sizes["mlp_dim"],
        atten_logit_cap=sizes["softcap"],
        scan=True,
        fprop_dtype=jnp.dtype(dtype),
    )
    (path,) = pathlib.Path(folder, "original").glob("*.npz")
    with np.load(path, allow_pickle=False) as arrays:
        state = traverse_util.unflatten_dict(dict(arrays), sep="/")
    state = jax.device_put(jax.tree.map(lambda x: x.astype(dtype), state))
    video = jax.device_put(clip(tuple(shape)).astype(dtype))
    step = jax.jit(lambda state, video: model.apply(state, video, train=False)[0])
    return {}, _jitted(step, state, video, output=output)


def kerashub_forward(
    folder: str, shape: list[int], dtype: str, output: str, code: str
) -> tuple[dict, Once]:
    """KerasHub's VideoPrism on its JAX backend, from a checkout, with folder/keras's weights."""
    os.environ["KERAS_BACKEND"] = "jax"
    sys.path.insert(0, code)
    import jax
    import keras_hub

    model = keras_hub.models.VideoPrismBackbone.from_preset(f"{folder}/keras", dtype=dtype)
    state = [[x.value for x in group] for group in (model.trainable_variables,
                                                    model.non_trainable_variables)]  # fmt: skip
    video = jax.device_put(clip(tuple(shape)).astype(dtype))
    step = jax.jit(lambda state, video: model.stateless_call(*state, video, training=False)[0])
    return {}, _jitted(step, state, video, output=output)


def matmul(library: str, size: int, dtype: str, threads: int, on: str) -> tuple[dict, Once]:
    """A square matrix product of random numbers: what the machine can do at best."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((2, size, size), np.float32)
    facts = {"flops": 2 * size**3}
    if library == "jax":
        import jax

        a, b = (jax.device_put(x.astype(dtype)) for x in numbers)
        product = jax.jit(lambda a, b: a @ b)
        return facts, lambda: jax.block_until_ready(product(a, b)) and None
    import torch

    torch.set_num_threads(threads)
    where = "cuda" if on == "gpu" else "cpu"
    a, b = (torch.from_numpy(x).to(where, getattr(torch, dtype)) for x in numbers)

    def once() -> None:
        a @ b
        if on == "gpu":
            torch.cuda.synchronize()

    return facts, once
