"""Suite `scaling`: growth of VideoMAE's cost, beside the count of operations."""

import math
from collections.abc import Mapping
from typing import Any

from benchmarks import harness, page

# What grows, from the same clip of 16x224x224 pixels, batch 1 and size S.
GROWTH = {
    "batch": (1, 2, 4, 8),
    "frames": (8, 16, 32, 64, 128),
    "resolution": (112, 160, 224, 320, 448),
    "size": ("Ti", "S", "B", "L", "H"),
}
_QUICK = {"batch": (1, 2), "frames": (4, 8), "resolution": (32, 48), "size": ("Ti", "S")}


def points(settings: harness.Settings) -> dict[str, dict[str, Any]]:
    """Returns by name: what grows, its value, size of the model, and shape of the clips."""
    base = {"batch": 1, "frames": 16, "resolution": 224, "size": "S"}
    if settings.quick:
        base |= {"frames": 4, "resolution": 32}
    found = {}
    for axis, values in (_QUICK if settings.quick else GROWTH).items():
        for value in values:
            at = base | {axis: value}
            found[f"{axis} {value}"] = {
                "axis": axis,
                "value": value,
                "variant": at["size"],
                "shape": [at["batch"], at["frames"], at["resolution"], at["resolution"], 3],
            }
    return found


def run(settings: harness.Settings) -> dict[str, Any]:
    found = {}
    for axis in GROWTH:  # the points of an axis take turns
        chosen = {k: v for k, v in points(settings).items() if v["axis"] == axis}
        print(axis, flush=True)
        children = {
            name: harness.Child(
                "benchmarks.peers:vidjax_forward",
                case="VideoMAE-B",
                quick=False,
                dtype="float32",
                size=point["variant"],
                batch=point["shape"][0],
                shape=point["shape"][1:4],
            )
            for name, point in chosen.items()
        }
        measured = harness.interleave(children, settings.rounds)
        found |= {name: chosen[name] | measured[name] for name in chosen}
    return {"dtype": "float32", "threads": settings.threads, "points": found}


def rows(report: Mapping[str, Any], axis: str) -> list[dict[str, float]]:
    """Returns value, operations and seconds of a clip, and their exponents, by point of an axis.

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


def render(report: Mapping[str, Any]) -> str:
    """Returns a table for each axis."""
    parts = [f"{report['dtype']}, {report['threads']} threads."]
    for axis in GROWTH:
        found = rows(report, axis)
        first = found[0]["seconds"] / found[0]["flops"]
        lines = []
        for row in found:
            size = f" ({row['parameters'] / 1e6:.0f} M)" if axis == "size" else ""
            line = {
                axis: f"{row['value']}{size}",
                "GFLOP a clip": row["flops"] / 1e9,
                "s a clip": row["seconds"],
                "clips/s": 1 / row["seconds"],
                "GFLOP/s": row["flops"] / row["seconds"] / 1e9,
                "time / GFLOP": f"{row['seconds'] / row['flops'] / first:.2f}",
                "exponent": None,
                "of the operations": None,
                "first call s": row["first_seconds"],
                "peak GiB": row["peak_bytes"] / 2**30,
            }
            if "seconds_exponent" in row:
                line["exponent"] = f"{row['seconds_exponent']:.2f}"
                line["of the operations"] = f"{row['flops_exponent']:.2f}"
            lines.append(line)
        parts.append(page.table(lines))
    return "\n\n".join(parts)


def _growth(report: Mapping[str, Any]) -> str:
    found = []
    for axis in GROWTH:
        rates = [row["seconds"] / row["flops"] for row in rows(report, axis)]
        found.append(f"{axis} {min(rates) / rates[0]:.2f} to {max(rates) / rates[0]:.2f}")
    return "time / GFLOP of the smallest: " + ", ".join(found)


GOALS = {
    "growth: clips/s flat in the batch, cost in frames and resolution within 10% of the "
    "operations": _growth
}
