"""The goals for speed beside what was measured, from the files of results."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import harness

Reports = Mapping[tuple[str, str], Mapping[str, Any]]  # by suite and device
NOT_MEASURED = "not measured"


def ratio(variants: Mapping[str, Any], peer: str, ours: str = "vidjax") -> float | None:
    """How many times the peer's clips/s `ours` has; None if the peer is not there."""
    theirs = variants.get(peer, {"failed": ""})
    if "failed" in theirs:
        return None
    return theirs["seconds"]["median"] / variants[ours]["seconds"]["median"]


def _remats(variants: Mapping[str, Any], peer: str) -> str:
    found = {"none": "vidjax", "dots": "vidjax remat dots", "full": "vidjax remat full"}
    return "; ".join(
        f"remat {remat} {times(ratio(variants, peer, name))}" for remat, name in found.items()
    )


def times(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.2f} x"


def _forward(report: Mapping[str, Any], peer: str, *, prism: str | None = None) -> str:
    found = []
    for name, model in report["models"].items():
        wanted = (prism or peer) if "VideoPrism" in name else peer
        found.append(f"{name.removesuffix(', batch 1')} {times(ratio(model['variants'], wanted))}")
    return "; ".join(found)


def _growth(report: Mapping[str, Any]) -> str:
    from benchmarks import scaling

    found = []
    for axis in ("batch", "frames", "resolution", "size"):
        rows = scaling.rows(report, axis)
        rates = [row["seconds"] / row["flops"] for row in rows]
        found.append(f"{axis} {min(rates) / rates[0]:.2f} to {max(rates) / rates[0]:.2f}")
    return "time / GFLOP of the smallest: " + ", ".join(found)


def _compilation(report: Mapping[str, Any]) -> str:
    found = {
        depth: one["scan"]["figures"]["compile"]["median"]
        for depth, one in report["depth"]["by_depth"].items()
        if "failed" not in one["scan"]
    }
    return ", ".join(f"depth {depth}: {seconds:.1f} s" for depth, seconds in found.items())


def _reading(report: Mapping[str, Any]) -> str:
    bare = report["one_core"]["decord"].get("figures", {})

    def ratios(variant: str, group: str) -> str:
        figures = report["one_core"][variant].get("figures", {})
        found = [
            bare[key]["median"] / wall["median"]
            for key, wall in figures.items()
            if key.startswith(group + "/") and key.endswith("/ms") and key in bare
        ]
        return f"{min(found):.2f} to {max(found):.2f} x" if found else NOT_MEASURED

    return "; ".join(
        f"{group}: {ratios('vidjax', group)}, through decord {ratios('vidjax, decord', group)}"
        for group in report["groups"]
    )


def _waiting(report: Mapping[str, Any]) -> str:
    found = report["loop"]["waiting_for_data"]
    return f"{found['median']:.1%} ({found['min']:.1%} to {found['max']:.1%})"


def _memory(report: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} {one['bytes_per_clip']:,.0f} ± {one['error']:,.0f} bytes a clip"
        for name, one in report["memory"].items()
        if "failed" not in one
    )


def _peaks(report: Mapping[str, Any]) -> str:
    base, size = report["start"]["peak_bytes"]["median"], report["file_bytes"]
    return "; ".join(
        f"{name} {(max(both[c]['peak_bytes']['max'] for c in both) - base) / size:.2f} x"
        for name, both in report["ways"].items()
        if not name.startswith("cp ")
    )


def _copies(report: Mapping[str, Any]) -> str:
    copy = report["ways"]["cp of the file"]["warm"]["seconds"]["median"]
    return "; ".join(
        f"{name} {both['warm']['seconds']['median'] / copy:.1f} x"
        for name, both in report["ways"].items()
        if not name.startswith("cp ")
    )


def _import(report: Mapping[str, Any]) -> str:
    seconds = {k: v["seconds"] for k, v in report["imports"]["processes"].items()}
    # Python alone may come out slower, by noise.
    return f"{max(seconds['vidjax']['median'] - seconds['json']['median'], 0.0):.2f} s"


def _second_start(report: Mapping[str, Any]) -> str:
    def seconds(words: Mapping[str, Any]) -> tuple[float, float]:
        """The first step, and what of it is not the step itself: tracing, compiling, loading."""
        loaded, first, second = (words[key]["median"] for key in ("loaded", "first", "second"))
        return first - loaded, (first - loaded) - (second - first)

    found = []
    for name, both in report["first"].items():
        if "failed" not in both and name.startswith("vidjax"):
            whole, beside = (
                later / first
                for later, first in zip(seconds(both["later"]), seconds(both["first"]), strict=True)
            )
            found.append(f"{name} {whole:.2f} of the first, {beside:.2f} without the step itself")
    return "; ".join(found)


# Suite, device, goal, what was measured.
ROWS: list[tuple[str, str, str, Callable[[Mapping[str, Any]], str]]] = [
    ("forward", "cpu", "forward, CPU float32: at least 1.0 x transformers' SDPA (eager for "
     "VideoPrism)", lambda r: _forward(r, "hf sdpa", prism="hf eager")),
    ("train", "cpu", "VideoMAE-B pre-training step, CPU: at least 1.2 x transformers with AdamW",
     lambda r: _remats(r["tasks"]["VideoMAE-B pre-training"]["variants"], "hf sdpa")),
    ("scaling", "cpu", "growth: clips/s flat in the batch, cost in frames and resolution within "
     "10% of the operations", _growth),
    ("startup", "cpu", "compilation time independent of depth", _compilation),
    ("data", "cpu", "decode + sample + crop: at least 0.9 x decord alone, by core", _reading),
    ("train", "cpu", "a run waits for data less than 2% of the time", _waiting),
    ("data", "cpu", "memory flat over 10,000 clips", _memory),
    ("convert", "cpu", "conversion of 1.2 GB: peak at most 1.3 x the file above the start",
     _peaks),
    ("convert", "cpu", "conversion of 1.2 GB: at most 3 x the time of copying it", _copies),
    ("startup", "cpu", "`import vidjax` in less than 0.3 s (above Python's own start)", _import),
    ("startup", "cpu", "a second start's first step in less than a third of the first",
     _second_start),
]  # fmt: skip


def render(reports: Reports) -> str:
    """The table of goals."""
    rows = [
        [goal, measured(reports[suite, device]) if (suite, device) in reports else NOT_MEASURED]
        for suite, device, goal, measured in ROWS
    ]
    return harness.table(["goal", "measured"], rows)
