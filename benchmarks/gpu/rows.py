"""The rows that `benchmarks.gpu` measures, the most important first."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks import peers
from benchmarks.gpu import checks

DTYPE = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One side of a row, which a process measures.

    Attributes:
        function: "module:function"; see `harness.Child.call`.
        options: of the function.
        worker: name of the process; rows of one table that follow each other share it.
        at_last: options that replace others once the batch has been chosen, such as to compile.
        env: environment variables of the process.
    """

    function: str
    options: Mapping[str, Any]
    worker: str = "jax"
    at_last: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the page.

    Attributes:
        table: title of the table that it stands in.
        name: unique in the table.
        seconds: estimate for a GPU, until the row has been measured.
        variants: by name.
        batches: numbers of clips that each variant tries; empty: the variants only report facts.
    """

    table: str
    name: str
    seconds: int
    variants: Mapping[str, Variant]
    batches: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.table}: {self.name}"


def rows(device: str, quick: bool, code: Mapping[str, str]) -> list[Row]:
    """All rows for a device; with `quick` tiny ones.

    Args:
        code: checkouts of other projects by name; "videoprism" is google-deepmind's.
    """
    found = [
        *_correctness(quick),
        _ceilings(device, quick),
        *_train(device, quick),
        *_forward(device, quick, code),
        *_attention(quick),
        *_latency(device, quick, code),
        *_step(quick),
        *_choices(quick),
    ]
    return [dataclasses.replace(row, seconds=60) for row in found] if quick else found


def _correctness(quick: bool) -> list[Row]:
    check = "benchmarks.gpu.checks:"
    shapes = {  # clips, queries, keys, heads, head width, soft cap
        "1,568 tokens": (2, 1568, 1568, 12, 64, 0.0),
        "3,137 tokens": (1, 3137, 3137, 12, 64, 0.0),
        "197 tokens": (8, 197, 197, 12, 64, 0.0),
        "160 tokens, width 80": (4, 160, 160, 16, 80, 0.0),
        "256 tokens, soft cap 50": (8, 256, 256, 12, 64, 50.0),
        "4,096 tokens, soft cap 50": (1, 4096, 4096, 12, 64, 50.0),
    }
    if quick:
        shapes = {
            "33 tokens": (2, 33, 33, 2, 16, 0.0),
            "128 tokens, soft cap 5": (1, 128, 128, 2, 16, 5.0),
        }
    names = ("clips", "queries", "keys", "heads", "width", "softcap")
    attention = {
        name: Variant(check + "attention_errors", dict(zip(names, shape, strict=True)))
        for name, shape in shapes.items()
    }
    goldens = {name: Variant(check + "golden_errors", {"golden": name}) for name in checks.MODELS}
    models = {
        name: Variant(check + "model_errors", {"case": name, "quick": quick})
        for name in ("VideoMAE-B", "VideoPrism-B")
    }
    title = "Correctness"
    return [
        Row(title, "attention", 60, _apart(attention)),
        Row(title, "goldens", 70, _apart(goldens)),
        Row(title, "models", 60, _apart(models)),
    ]


def _apart(variants: Mapping[str, Variant]) -> dict[str, Variant]:
    """A process for each variant, as they do not take turns."""
    return {name: dataclasses.replace(v, worker=name) for name, v in variants.items()}


def _ceilings(device: str, quick: bool) -> Row:
    options = {"size": 256 if quick else 8192, "dtype": DTYPE, "on": device}
    gib = 0.1 if quick else 1.0
    variants = {
        "jax": Variant("benchmarks.peers:matmul", options | {"library": "jax"}),
        "torch": Variant("benchmarks.peers:matmul", options | {"library": "torch"}, "torch"),
        "copy": Variant("benchmarks.gpu.parts:copy", {"gib": gib}, "copy"),
    }
    return Row("Ceilings", "matrix product and copy", 35, variants, (0,))


def _ours(function: str, case: str, quick: bool, **options: Any) -> Variant:
    options = {"case": case, "quick": quick, "dtype": DTYPE} | options
    env = options.pop("env", {})
    return Variant(f"benchmarks.peers:{function}", options, f"jax {sorted(env.items())}", env=env)


def _hf(function: str, case: str, quick: bool, device: str, mode: str, **options: Any) -> Variant:
    options = {"case": case, "quick": quick, "dtype": DTYPE, "on": device} | options
    options["attention"] = peers.hf_attention(case)
    return Variant(f"benchmarks.peers:{function}", options, "torch", {"compiled": mode})


def _train(device: str, quick: bool) -> list[Row]:
    found = []
    for name, case, seconds, batches in (
        ("VideoMAE-L fine-tuning", "VideoMAE-L", 170, (8, 16, 32)),
        ("VideoMAE-B pre-training", "VideoMAE-B pre-training", 130, (32, 64, 128)),
    ):
        variants = {
            "vidjax": _ours("vidjax_step", case, quick),
            "transformers": _hf("hf_step", case, quick, device, "default"),
        }
        found.append(Row("Train steps", name, seconds, variants, (1, 2) if quick else batches))
    return found


def _forward(device: str, quick: bool, code: Mapping[str, str]) -> list[Row]:
    found = []
    for case, seconds, batches in (
        ("VideoMAE-B", 60, (8, 32, 64)),
        ("VideoMAE-L", 80, (8, 32)),
        ("ViViT-B", 60, (4, 16, 32)),
        ("X-CLIP-B/16", 70, (8, 32, 64)),
        ("VideoPrism-B", 70, (4, 16, 32)),
        ("V-JEPA 2-L", 80, (1, 4, 8)),
    ):
        variants = _forward_variants(case, device, quick, code, "default")
        found.append(Row("Forward passes", case, seconds, variants, (1, 2) if quick else batches))
    return found


def _latency(device: str, quick: bool, code: Mapping[str, str]) -> list[Row]:
    found = []
    for case in ("VideoMAE-B", "VideoMAE-L", "ViViT-B", "X-CLIP-B/16", "VideoPrism-B"):
        variants = _forward_variants(case, device, quick, code, "reduce-overhead", each=True)
        found.append(Row("One clip at a time", case, 60, variants, (1,)))
    return found


def _forward_variants(
    case: str, device: str, quick: bool, code: Mapping[str, str], mode: str, **options: Any
) -> dict[str, Variant]:
    variants = {"transformers": _hf("hf_forward", case, quick, device, mode, **options)}
    if peers.CASES[case].ours:
        variants = {"vidjax": _ours("vidjax_forward", case, quick, **options)} | variants
    if "VideoPrism" in case and "videoprism" in code:
        more = {"code": code["videoprism"], **options}
        original = _ours("deepmind_forward", case, quick, **more)
        variants["google-deepmind"] = dataclasses.replace(original, worker="google-deepmind")
    return variants


def _attention(quick: bool) -> list[Row]:
    together = 256 if quick else 32768  # tokens of all clips
    lengths = [(tokens, 0.0) for tokens in (1568, 160, 256, 16, 64, 128, 197, 392, 784, 3137, 8192)]
    lengths += [(tokens, 50.0) for tokens in (256, 16, 1024, 4096)]
    if quick:
        lengths = [(16, 0.0), (128, 0.0), (128, 50.0)]
    found = []
    for tokens, softcap in lengths:
        options = {
            "tokens": tokens,
            "clips": max(1, together // tokens),
            "heads": 2 if quick else 12,
            "width": 64,
            "softcap": softcap,
        }
        variant = Variant("benchmarks.gpu.parts:attention_times", options)
        name = f"{tokens:,} tokens" + f", soft cap {softcap:g}" * bool(softcap)
        found.append(Row("Attention by length", name, 25, {"vidjax": variant}))
    return found


def _step(quick: bool) -> list[Row]:
    options = {"case": "VideoMAE-L", "quick": quick, "dtype": DTYPE, "batch": 2 if quick else 16}
    base = options | {"case": "VideoMAE-B", "batch": 2 if quick else 32}
    size = {"tokens": 64, "width": 48} if quick else {"tokens": 16 * 1568, "width": 1024}
    parts = "benchmarks.gpu.parts:"
    title = "Parts of a train step"
    return [
        Row(title, "host to device, VideoMAE-B fine-tuning", 50,
            {"vidjax": Variant(parts + "host_to_device", base)}),
        Row(title, "kernels, VideoMAE-L fine-tuning", 45,
            {"vidjax": Variant(parts + "kernels", options)}),
        Row(title, "queries, keys and values, VideoMAE-L", 20,
            {"vidjax": Variant(parts + "query_key_value", size)}),
    ]  # fmt: skip


def _choices(quick: bool) -> list[Row]:
    """Pairs of the train step as it is and with one thing changed."""

    def flags(text: str) -> dict[str, Any]:
        return {"env": {"XLA_FLAGS": text}}

    changes: dict[str, dict[str, Any]] = {
        "attention=einsum": {"attention": "einsum"},
        "remat=dots": {"remat": "dots"},
        "remat=full": {"remat": "full"},
        "unroll=4": {"unroll": 4},
        "no Triton matrix products": flags("--xla_gpu_enable_triton_gemm=false"),
        "cublasLt": flags("--xla_gpu_enable_cublaslt=true"),
        "cuDNN's LayerNorm": flags("--xla_gpu_enable_cudnn_layer_norm=true"),
        "all tilings tried": flags("--xla_gpu_exhaustive_tiling_search=true"),
        "latency-hiding scheduler": flags("--xla_gpu_enable_latency_hiding_scheduler=true"),
    }
    if quick:
        changes["unroll=2"] = {"unroll": 2}
        del changes["unroll=4"], changes["all tilings tried"]
    found = []
    for name, change in changes.items():
        variants = {"as it is": _ours("vidjax_step", "VideoMAE-L", quick)}
        variants[name] = dataclasses.replace(
            _ours("vidjax_step", "VideoMAE-L", quick, **change), worker=name
        )
        found.append(Row("Choices", name, 60, variants, (2,) if quick else (16,)))
    return found
