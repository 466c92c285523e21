"""Variants beside vidjax's: the machine's ceiling, ratios, and their table."""

from collections.abc import Mapping
from typing import Any

from benchmarks import harness, page

Variants = Mapping[str, Mapping[str, Any]]


def ceiling(settings: harness.Settings) -> dict[str, Any]:
    """Measures FLOP/s of large square matrix products, by library."""
    options = {"size": 256 if settings.quick else 4096, "dtype": "float32"}
    children = {
        library: harness.Child("benchmarks.peers:matmul", library=library, **options)
        for library in ("jax", "torch")
    }
    measured = harness.interleave(children, settings.rounds)
    rates = {
        name: one["facts"]["flops"] / one["seconds"]["median"]
        for name, one in measured.items()
        if "failed" not in one
    }
    return {**options, "flops_per_second": rates}


def ratio(variants: Variants, peer: str, ours: str = "vidjax") -> float | None:
    """Returns how many times the peer's clips/s `ours` has; None if the peer is not there."""
    theirs = variants.get(peer, {"failed": ""})
    if "failed" in theirs:
        return None
    return theirs["seconds"]["median"] / variants[ours]["seconds"]["median"]


def setting(report: Mapping[str, Any]) -> str:
    """Returns a sentence on dtype, threads, and the ceiling that MFU is a share of."""
    size, best = report["ceiling"]["size"], max(report["ceiling"]["flops_per_second"].values())
    return (
        f"{report['dtype']}, {report['threads']} threads; MFU of a {size}³ product at "
        f"{best / 1e9:,.0f} GFLOP/s."
    )


def table(
    report: Mapping[str, Any],
    variants: Variants,
    batch: int,
    time: tuple[str, float],
    extra: Mapping[str, Mapping[str, Any]],
) -> str:
    """Returns a table of variants.

    Args:
        report: has `ceiling`.
        batch: clips of a run.
        time: title of the column, and the factor from seconds of a run.
        extra: values of further columns, by variant.
    """
    best = max(report["ceiling"]["flops_per_second"].values())
    flops = variants["vidjax"]["facts"]["flops"]
    title, factor = time
    rows = []
    for name, one in variants.items():
        if "failed" in one:
            rows.append({"variant": name, "failed": one["failed"]})
            continue
        median = one["seconds"]["median"]
        rows.append(
            {
                "variant": name,
                title: page.scaled(one["seconds"], factor),
                "clips/s": batch / median,
                "vidjax / it": ratio(variants, name),
                "MFU": f"{flops / median / best:.0%}",
                "first call s": one["first_seconds"],
                "peak GiB": one["peak_bytes"] / 2**30,
                **extra[name],
            }
        )
    return page.table(rows)
