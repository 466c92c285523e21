"""Correctness on the device: attention's kernels, and models through them, beside references.

Variants of `benchmarks.gpu` that only report facts: {"errors": [...], "skipped": {form: why}}. An
error has its form, precision, what was compared, and its limit (None: for information).
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, peers
from benchmarks.origin import ROOT
from vidjax import models
from vidjax.errors import first_line
from vidjax.models.layers import attention

GOLDENS = ROOT / "tests" / "goldens"
FORMS = ("einsum", "blockwise", "cudnn", "tokamax")
# Dtype, jax.default_matmul_precision, and the largest error that any form may have. GPUs may round
# float32 operands to TF32 by default: that is einsum's, and for information.
PRECISIONS = {
    "bfloat16": ("bfloat16", None, 5e-2),
    "float32": ("float32", "highest", 2e-5),
    "float32, default precision": ("float32", None, None),
}
# Goldens that stand for their families: file, input, output, and the converter's hints.
MODELS: dict[str, tuple[str, str, str, dict[str, int]]] = {
    "videomae_finetune_meanpool": (
        "checkpoint-0.pth",
        "pixel_values",
        "logits",
        {"heads": 4, "frames": 10, "size": 32},
    ),
    "vivit_spacetime": ("checkpoint_100", "inputs", "logits", {"frames": 10, "size": 32}),
    "videoprism_video": ("checkpoint.npz", "native/inputs", "native/embeddings", {}),
    "xclip": ("checkpoint.pth", "pixel_values", "video_features", {}),
}
Errors = Mapping[str, float]


def attention_errors(
    clips: int, tokens: int, heads: int, width: int, softcap: float
) -> tuple[dict[str, Any], None]:
    """Relative L2 errors of attention's output and gradients beside einsum in float64.

    Args:
        width: of a head.
    """
    names = ("output", "query's gradient", "key's gradient", "value's gradient")
    rng = np.random.default_rng(0)
    shape = (clips, tokens, heads, width)
    numbers = [rng.standard_normal(shape, np.float32) for _ in range(4)]
    numbers[0] *= 2  # so that some keys matter more than others

    def run(form: str, dtype: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        def loss(qkv, cotangent):
            if form == "einsum":
                out, _ = attention.attend(*qkv, softcap=softcap, implementation=form)
            else:  # at any length, whatever `attention.LONG` says
                out = attention.FUSED[form](*qkv, softcap=softcap)
            return (out * cotangent).sum(), out

        *qkv, cotangent = (jnp.asarray(x, dtype) for x in inputs)
        grads, out = jax.jit(jax.grad(loss, has_aux=True))(qkv, cotangent)
        return [_exact(x) for x in (out, *grads)]

    rounded, expected = {}, {}
    for dtype in ("bfloat16", "float32"):  # the reference sees the numbers as the kernel does
        rounded[dtype] = [_exact(jnp.asarray(x, dtype)) for x in numbers]
        with jax.enable_x64(True):
            expected[dtype] = run("einsum", "float64", rounded[dtype])

    def errors(form: str, dtype: str) -> Errors:
        found = run(form, dtype, rounded[dtype])
        return {
            name: float(np.linalg.norm(x - y) / np.linalg.norm(y))
            for name, x, y in zip(names, found, expected[dtype], strict=True)
        }

    return _through_all_forms(errors, softcap)


def golden_errors(golden: str) -> tuple[dict[str, Any], None]:
    """Errors of a golden model's output, and of its gradients beside einsum in float64."""
    from converters import Options
    from converters.convert import convert
    from vidjax import load_model

    file, key, output, hints = MODELS[golden]
    with np.load(GOLDENS / golden / "inputs.npz") as stored:
        video = stored[key]
    if key == "pixel_values":  # X-CLIP's channels come after the frames, the others' before
        video = video.transpose((0, 1, 3, 4, 2) if golden == "xclip" else (0, 2, 3, 4, 1))
    with np.load(GOLDENS / golden / "outputs.npz") as stored:
        exact = output + "__f64"
        expected = stored[exact if exact in stored else output]
    with harness.scratch() as folder:
        source, options = str(GOLDENS / golden / file), Options(**hints)
        convert(source, folder / "model", options=options, say=lambda line: None)
        loaded = load_model(folder / "model")
    with jax.enable_x64(True):
        _, grads = _output_and_grads(loaded.model, loaded.params, video, "einsum", "float64")
    return _model_errors(loaded.model, loaded.params, video, (expected, grads), list(PRECISIONS))


def model_errors(case: str, quick: bool) -> tuple[dict[str, Any], None]:
    """Errors in bfloat16 of a model of full size, beside einsum in float32 without TF32."""
    job = peers.Job(case, quick, batch=1, dtype="float32")
    model, params = peers.our_model(job)
    video = job.clips()
    with jax.default_matmul_precision("highest"):
        expected = _output_and_grads(model, params, video, "einsum", "float32")
    return _model_errors(model, params, video, expected, ["bfloat16"])


def _model_errors(
    model: Any,
    params: Any,
    video: np.ndarray,
    expected: Sequence[np.ndarray],
    precisions: Sequence[str],
) -> tuple[dict[str, Any], None]:
    fused = dict(attention.FUSED)

    def errors(form: str, dtype: str) -> Errors:
        kernel = mock.Mock(side_effect=fused.get(form))
        short = dict.fromkeys(attention.LONG, 1)  # as goldens are
        with (
            mock.patch.dict(attention.FUSED, {form: kernel} if form in fused else {}),
            mock.patch.dict(attention.LONG, short),
        ):
            out, grads = _output_and_grads(model, params, video, form, dtype)
        if form in fused and not kernel.called:
            raise ValueError("takes none of this model's lengths")
        wanted, wanted_grads = expected
        largest = np.abs(out - wanted.reshape(out.shape)).max() / np.abs(wanted).max()
        share = np.linalg.norm(grads - wanted_grads) / np.linalg.norm(wanted_grads)
        return {"output (largest)": float(largest), "parameters' gradients": float(share)}

    return _through_all_forms(errors, model.config.get("softcap", 0.0), precisions)


def _output_and_grads(
    model: Any, params: Any, video: np.ndarray, form: str, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """A model's output, and the gradients of a weighted sum of it in one vector."""
    model = models.replace(model, attention=form, dtype=dtype)
    exact = "float64" if dtype == "float64" else "float32"

    def loss(params, video):
        out = peers.output_of(model, params, video)
        weights = jnp.cos(jnp.arange(out.size, dtype=exact)).reshape(out.shape)
        return (out * weights).sum(), out

    inputs = jax.tree.map(lambda x: np.asarray(x, exact), (params, video))
    grads, out = jax.jit(jax.grad(loss, has_aux=True))(*inputs)
    return _exact(out), np.concatenate([_exact(x).ravel() for x in jax.tree.leaves(grads)])


def _exact(x: Any) -> np.ndarray:
    return np.asarray(x).astype(np.float64)


def _through_all_forms(
    errors: Callable[[str, str], Errors], softcap: float, precisions: Sequence[str] = (*PRECISIONS,)
) -> tuple[dict[str, Any], None]:
    """Facts from `errors(form, dtype)`; a kernel may err at most twice as much as einsum does."""
    records, skipped = [], {}
    for name in precisions:
        dtype, precision, limit = PRECISIONS[name]
        plain: Errors = {}
        for form in FORMS[:1] if limit is None else FORMS:
            if form != "einsum" and (why := attention.obstacle(form, dtype, softcap)):
                skipped[f"{form}, {name}"] = why
                continue
            context = jax.default_matmul_precision(precision) if precision else None
            try:
                with context or contextlib.nullcontext():
                    found = errors(form, dtype)
            except Exception as error:  # such as a kernel that refuses the shape
                if form == "einsum":
                    raise
                skipped[f"{form}, {name}"] = f"{type(error).__name__}: {first_line(error)}"[:200]
                continue
            plain = plain or found
            for what, error in found.items():
                bound = limit and (
                    limit if form == "einsum" else min(limit, 2 * plain[what] + 1e-6)
                )
                records.append(
                    {"form": form, "precision": name, "what": what, "error": error, "limit": bound}
                )
    return {"errors": records, "skipped": skipped}, None
