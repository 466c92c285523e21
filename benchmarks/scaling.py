"""Suite `scaling`: how the cost of VideoMAE grows, beside the count of operations."""

import math
from collections.abc import Mapping
from typing import Any

from benchmarks import flops, harness, peers

# What grows, from the same clip of 16x224x224 pixels, batch 1 and size S.
GROWTH = {
    "batch": (1, 2, 4, 8),
    "frames": (8, 16, 32, 64, 128),
    "resolution": (112, 160, 224, 320, 448),
    "size": ("Ti", "S", "B", "L", "H"),
}
_QUICK = {"batch": (1, 2), "frames": (4, 8), "resolution": (32, 48), "size": ("Ti", "S")}


def points(settings: harness.Settings) -> dict[str, dict[str, Any]]:
    """By name: what grows, its value, size of the model, and shape of the clips."""
    found = {}
    base = {"batch": 1, "frames": 16, "resolution": 224, "size": "S"}
    if settings.quick:
        base |= {"frames": 4, "resolution": 32}
    for axis, values in (_QUICK if settings.quick else GROWTH).items():
        for value in values:
            at = base | {axis: value}
            shape = (at["batch"], at["frames"], at["resolution"], at["resolution"], 3)
            found[f"{axis} {value}"] = {
                "axis": axis, "value": value, "variant": at["size"], "shape": shape,
            }  # fmt: skip
    return found


def forward(variant: str, shape: list[int]) -> tuple[dict, peers.Once]:
    """The jitted forward pass of a VideoMAE classifier with random weights."""
    import jax

    from vidjax import models

    model = models.build("videomae", variant, head="classify", num_classes=400, eps=1e-6)
    params = peers.random_params(model)
    video = jax.device_put(peers.clip(tuple(shape)))
    step = jax.jit(lambda params, video: model.apply({"params": params}, video))
    einsum = models.replace(model, attention="einsum")
    facts = {
        "flops": flops.matmul_flops(lambda p, v: einsum.apply({"params": p}, v), params, video),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
    }

    return facts, lambda: jax.block_until_ready(step(params, video)) and None


def run(settings: harness.Settings) -> dict[str, Any]:
    found = {}
    for axis in GROWTH:  # the points of an axis take turns
        chosen = {k: v for k, v in points(settings).items() if v["axis"] == axis}
        print(axis, flush=True)
        children = {
            name: harness.Child(
                "benchmarks.scaling",
                "forward",
                variant=point["variant"],
                shape=list(point["shape"]),
            )
            for name, point in chosen.items()
        }
        measured = harness.interleave(children, settings.rounds, print)
        found |= {name: chosen[name] | measured[name] for name in chosen}
    report = {"dtype": "float32", "threads": settings.threads, "points": found}
    if not settings.quick:
        plot(report, harness.RESULTS / "scaling_cpu.png")
    return report


def rows(report: Mapping[str, Any], axis: str) -> list[dict[str, float]]:
    """Of the points of an axis: value, operations and seconds of a clip, and their exponents.

    Exponents are those between a point and the one before it: of seconds and of operations, as
    powers of what grows (of parameters, for sizes).
    """
    found = []
    for point in report["points"].values():
        if point["axis"] != axis or "failed" in point:
            continue
        batch = point["shape"][0]
        row = {
            "value": point["value"],
            "x": point["facts"]["parameters"] if axis == "size" else point["value"],
            "parameters": point["facts"]["parameters"],
            "flops": point["facts"]["flops"] / batch,
            "seconds": point["seconds"]["median"] / batch,
            "first_seconds": point["first_seconds"],
            "peak_bytes": point["peak_bytes"],
        }
        if found:
            for key in ("flops", "seconds"):
                before = found[-1]
                rise = math.log(row[key] / before[key]) / math.log(row["x"] / before["x"])
                row[f"{key}_exponent"] = rise
        found.append(row)
    return found


def plot(report: Mapping[str, Any], path: Any) -> None:
    """Seconds a clip over what grows, and operations at the rate of the first point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(16, 4))
    names = {"batch": "clips in a batch", "frames": "frames", "resolution": "height and width",
             "size": "million parameters"}  # fmt: skip
    for axis, (key, name) in zip(axes, names.items(), strict=True):
        points = rows(report, key)
        xs = [p["x"] / 1e6 if key == "size" else p["x"] for p in points]
        axis.loglog(xs, [p["seconds"] for p in points], "o-", label="measured")
        reference = next((p for p in points if p["value"] in (16, 224, "S")), points[0])
        rate = reference["seconds"] / reference["flops"]
        axis.loglog(xs, [p["flops"] * rate for p in points], "k--", label="by operations")
        axis.set_xlabel(name)
        seconds = [p["seconds"] for p in points]
        axis.set_ylim(min(seconds) / 2, max(seconds) * 2)  # a few per cent shall look like that
        axis.set_xticks(xs, [f"{x:.3g}" for x in xs], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds a clip")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def render(report: Mapping[str, Any]) -> str:
    parts = [
        f"VideoMAE's forward pass in {report['dtype']} from 16x224x224 pixels and size S, one "
        f"thing growing at a time, {report['threads']} threads; medians. GFLOP are counted "
        "(matrix products). `time / GFLOP` is relative to the first row: 1 where the operations "
        "explain the time. Exponents are between a row and the one before, measured and of the "
        "operations.",
        "![growth](results/scaling_cpu.png)",
    ]
    for axis in GROWTH:
        found = rows(report, axis)
        header = [axis, "GFLOP a clip", "s a clip", "clips/s", "GFLOP/s", "time / GFLOP",
                  "exponent", "of the operations", "first call s", "peak GiB"]  # fmt: skip
        first = found[0]["seconds"] / found[0]["flops"]
        lines = [
            [
                str(row["value"])
                + (f" ({row['parameters'] / 1e6:.0f} M)" if axis == "size" else ""),
                harness.number(row["flops"] / 1e9),
                harness.number(row["seconds"]),
                harness.number(1 / row["seconds"]),
                harness.number(row["flops"] / row["seconds"] / 1e9),
                f"{row['seconds'] / row['flops'] / first:.2f}",
                f"{row['seconds_exponent']:.2f}" if "seconds_exponent" in row else "-",
                f"{row['flops_exponent']:.2f}" if "flops_exponent" in row else "-",
                harness.number(row["first_seconds"]),
                harness.number(row["peak_bytes"] / 2**30),
            ]
            for row in found
        ]
        parts.append(harness.table(header, lines))
    return "\n\n".join(parts)
