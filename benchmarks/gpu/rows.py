"""Rows that `benchmarks.gpu` measures, the most important first."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks import cases
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
    """Returns all rows for a device; with `quick` tiny ones.

    Args:
        code: checkouts of other projects by name; "videoprism" is google-deepmind's.
    """
    plan = _Plan(device, quick, code)
    found = [
        *plan.correctness(),
        plan.ceilings(),
        *plan.train(),
        *plan.forward(),
        *plan.attention(),
        *plan.latency(),
        *plan.parts(),
        *plan.choices(),
    ]
    return [dataclasses.replace(row, seconds=60) for row in found] if quick else found


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Makes rows; see `rows`."""

    device: str
    quick: bool
    code: Mapping[str, str]

    def correctness(self) -> list[Row]:
        # Clips, tokens, heads, head width, soft cap.
        shapes = {
            "1,568 tokens": (2, 1568, 12, 64, 0.0),
            "3,137 tokens": (1, 3137, 12, 64, 0.0),
            "197 tokens": (8, 197, 12, 64, 0.0),
            "160 tokens, width 80": (4, 160, 16, 80, 0.0),
            "256 tokens, soft cap 50": (8, 256, 12, 64, 50.0),
            "4,096 tokens, soft cap 50": (1, 4096, 12, 64, 50.0),
        }
        if self.quick:
            shapes = {
                "33 tokens": (2, 33, 2, 16, 0.0),
                "128 tokens, soft cap 5": (1, 128, 2, 16, 5.0),
            }
        names = ("clips", "tokens", "heads", "width", "softcap")
        options = {
            "attention": {k: dict(zip(names, shape, strict=True)) for k, shape in shapes.items()},
            "goldens": {name: {"golden": name} for name in checks.MODELS},
            "models": {
                name: {"case": name, "quick": self.quick} for name in ("VideoMAE-B", "VideoPrism-B")
            },
        }
        functions = {  # and seconds
            "attention": ("attention_errors", 60),
            "goldens": ("golden_errors", 70),
            "models": ("model_errors", 60),
        }
        return [
            Row(
                "Correctness",
                check,
                functions[check][1],
                {  # a process for each variant, as they do not take turns
                    name: Variant(f"benchmarks.gpu.checks:{functions[check][0]}", one, name)
                    for name, one in variants.items()
                },
            )
            for check, variants in options.items()
        ]

    def ceilings(self) -> Row:
        product, options = "benchmarks.peers:matmul", {"dtype": DTYPE, "on": self.device}
        options["size"] = 256 if self.quick else 8192
        copy = {"gib": 0.1 if self.quick else 1.0}
        variants = {
            "jax": Variant(product, {**options, "library": "jax"}),
            "torch": Variant(product, {**options, "library": "torch"}, "torch"),
            "copy": Variant("benchmarks.gpu.parts:copy", copy, "copy"),
        }
        return Row("Ceilings", "matrix product and copy", 35, variants, (0,))

    def train(self) -> list[Row]:
        return [
            self._beside("Train steps", "step", "VideoMAE-L", 170, (8, 16, 32)),
            self._beside("Train steps", "step", "VideoMAE-B pre-training", 130, (32, 64, 128)),
        ]

    def forward(self) -> list[Row]:
        batches = {
            "VideoMAE-B": (60, (8, 32, 64)),
            "VideoMAE-L": (80, (8, 32)),
            "ViViT-B": (60, (4, 16, 32)),
            "X-CLIP-B/16": (70, (8, 32, 64)),
            "VideoPrism-B": (70, (4, 16, 32)),
            "V-JEPA 2-L": (80, (1, 4, 8)),
        }
        return [
            self._beside("Forward passes", "forward", case, seconds, some)
            for case, (seconds, some) in batches.items()
        ]

    def latency(self) -> list[Row]:
        models = ("VideoMAE-B", "VideoMAE-L", "ViViT-B", "X-CLIP-B/16", "VideoPrism-B")
        return [
            self._beside("One clip at a time", "forward", case, 60, (1,), each=True)
            for case in models
        ]

    def attention(self) -> list[Row]:
        lengths = [(n, 0.0) for n in (1568, 160, 256, 16, 64, 128, 197, 392, 784, 3137, 8192)]
        lengths += [(n, 50.0) for n in (256, 16, 1024, 4096)]
        sizes, together = {"heads": 12, "width": 64}, 32768  # tokens of all clips
        if self.quick:
            lengths = [(16, 0.0), (128, 0.0), (128, 50.0)]
            sizes, together = {"heads": 2, "width": 64}, 256
        found = []
        for tokens, softcap in lengths:
            options = {"tokens": tokens, "clips": max(1, together // tokens), "softcap": softcap}
            name = f"{tokens:,} tokens" + f", soft cap {softcap:g}" * bool(softcap)
            variant = Variant("benchmarks.gpu.parts:attention_times", {**sizes, **options})
            found.append(Row("Attention by length", name, 25, {"vidjax": variant}))
        return found

    def parts(self) -> list[Row]:
        large = {"case": "VideoMAE-L", "quick": self.quick, "dtype": DTYPE, "batch": 16}
        base = {**large, "case": "VideoMAE-B", "batch": 32}
        size = {"tokens": 16 * 1568, "width": 1024}
        if self.quick:
            large["batch"] = base["batch"] = 2
            size = {"tokens": 64, "width": 48}
        parts = {
            "host to device, VideoMAE-B fine-tuning": (50, "host_to_device", base),
            "kernels, VideoMAE-L fine-tuning": (45, "kernels", large),
            "queries, keys and values, VideoMAE-L": (20, "query_key_value", size),
        }
        return [
            Row(
                "Parts of a train step",
                name,
                seconds,
                {"vidjax": Variant(f"benchmarks.gpu.parts:{function}", options)},
            )
            for name, (seconds, function, options) in parts.items()
        ]

    def choices(self) -> list[Row]:
        """Returns pairs of the train step as it is and with one thing changed."""
        changes: dict[str, dict[str, Any]] = {
            "attention=einsum": {"attention": "einsum"},
            "remat=dots": {"remat": "dots"},
            "remat=full": {"remat": "full"},
            "unroll=4": {"unroll": 4},
        }
        xla_flags = {
            "no Triton matrix products": "--xla_gpu_enable_triton_gemm=false",
            "cublasLt": "--xla_gpu_enable_cublaslt=true",
            "cuDNN's LayerNorm": "--xla_gpu_enable_cudnn_layer_norm=true",
            "all tilings tried": "--xla_gpu_exhaustive_tiling_search=true",
            "latency-hiding scheduler": "--xla_gpu_enable_latency_hiding_scheduler=true",
        }
        if self.quick:
            changes["unroll=2"] = {"unroll": 2}
            del changes["unroll=4"], xla_flags["all tilings tried"]
        plain = self._ours("step", "VideoMAE-L")
        changed = {
            name: self._ours("step", "VideoMAE-L", **options) for name, options in changes.items()
        }
        for name, text in xla_flags.items():
            changed[name] = dataclasses.replace(plain, env={"XLA_FLAGS": text})
        batches = (2,) if self.quick else (16,)
        return [
            Row(
                "Choices",
                name,
                60,
                {"as it is": plain, name: dataclasses.replace(one, worker=name)},
                batches,
            )
            for name, one in changed.items()
        ]

    def _beside(
        self, table: str, function: str, case: str, seconds: int, batches: tuple, **options: Any
    ) -> Row:
        """Returns a row of vidjax and the peers that have this model."""
        variants = {}
        if cases.CASES[case].ours:
            variants["vidjax"] = self._ours(function, case, **options)
        hf = self._ours(function, case, on=self.device, **options)
        # CUDA graphs where a clip comes alone.
        compiled = {"compiled": "reduce-overhead" if options else "default"}
        variants["transformers"] = dataclasses.replace(
            hf, function=f"benchmarks.peers:hf_{function}", worker="torch", at_last=compiled
        )
        if "VideoPrism" in case and "videoprism" in self.code:
            more = {**hf.options, **options, "code": self.code["videoprism"]}
            function = "benchmarks.peers:deepmind_forward"
            variants["google-deepmind"] = Variant(function, more, "google-deepmind")
        name = f"{case} fine-tuning" if (function, case) == ("step", "VideoMAE-L") else case
        return Row(
            table, name, seconds, variants, (1, 2) if self.quick and not options else batches
        )

    def _ours(self, function: str, case: str, **options: Any) -> Variant:
        common = {"case": case, "quick": self.quick, "dtype": DTYPE}
        return Variant(f"benchmarks.peers:vidjax_{function}", {**common, **options})
