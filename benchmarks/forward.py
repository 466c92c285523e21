"""Suite `forward`: class scores or features of clips that are in memory, beside the peers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import harness, peers

MODELS = ("VideoMAE-B", "ViViT-B", "X-CLIP-B/16", "VideoPrism-B")
# Checkouts that --peer may name, for VideoPrism: the variant and the format that it reads.
PEERS = {"videoprism": ("deepmind", "original"), "kerashub": ("kerashub", "keras")}
BATCHES = {"cpu": (1,), "gpu": (1, 8, 32)}


def ceiling(settings: harness.Settings, dtype: str) -> dict[str, Any]:
    """FLOP/s of large square matrix products, the better of two libraries."""
    size = 256 if settings.quick else 4096 if settings.device == "cpu" else 8192
    children = {
        library: harness.Child(
            "benchmarks.peers", "matmul", device=settings.device, library=library, size=size,
            dtype=dtype, threads=settings.threads, on=settings.device,
        )
        for library in ("jax", "torch")
    }  # fmt: skip
    found = harness.interleave(children, settings.rounds)
    rates = {
        name: one["facts"]["flops"] / one["seconds"]["median"]
        for name, one in found.items()
        if "failed" not in one
    }
    return {"size": size, "dtype": dtype, "flops_per_second": rates}


def variants(
    case: peers.Case, folder: str, shape: tuple[int, ...], dtype: str, settings: harness.Settings
) -> dict[str, harness.Child]:
    """The same forward pass in several projects."""
    device = settings.device
    common = {"folder": folder, "shape": list(shape), "dtype": dtype}

    def child(name: str, function: str, **options: Any) -> harness.Child:
        output = f"{folder}/{name}.npy"
        return harness.Child(
            "benchmarks.peers", function, device=device, **common, output=output, **options
        )

    found = {"vidjax": child("vidjax", "vidjax_forward")}
    kind = "eager" if "VideoPrism" in case.hf else "sdpa"  # which transformers does not have there
    for compiled in (False, True):
        name = f"hf {kind}" + " compiled" * compiled
        found[name] = child(
            name, "hf_forward", hf=case.hf, attention=kind, compiled=compiled,
            threads=settings.threads, on=device,
        )  # fmt: skip
    for peer in _checkouts(case, settings):
        name, _ = PEERS[peer]
        found[name] = child(name, f"{name}_forward", code=settings.peers[peer])
    return found


def _checkouts(case: peers.Case, settings: harness.Settings) -> list[str]:
    """Those of PEERS that the user gave and that have this model."""
    return sorted(PEERS.keys() & settings.peers.keys()) if "VideoPrism" in case.hf else []


def differences(folder: str, names: Mapping[str, Any]) -> dict[str, float]:
    """Largest difference to each variant's output, of the largest value of its output."""
    ours = np.load(f"{folder}/vidjax.npy")
    found = {}
    for name in names:
        try:
            theirs = np.load(f"{folder}/{name}.npy")
        except FileNotFoundError:  # compiled ones do not write theirs
            continue
        ours_here = ours.reshape(theirs.shape)
        found[name] = float(np.abs(ours_here - theirs).max() / np.abs(theirs).max())
    return found


def run(settings: harness.Settings) -> dict[str, Any]:
    dtype = "float32" if settings.device == "cpu" else "bfloat16"
    models = {}
    for name in MODELS:
        case = peers.CASES[name].quick() if settings.quick else peers.CASES[name]
        with harness.scratch() as folder:
            formats = [PEERS[peer][1] for peer in _checkouts(case, settings)]
            peers.prepare(case, folder, formats)
            for batch in (1,) if settings.quick else BATCHES[settings.device]:
                shape = (batch, *case.clip, 3)
                print(f"{name}, {shape}, {dtype}", flush=True)
                children = variants(case, str(folder), shape, dtype, settings)
                found = harness.interleave(children, settings.rounds, print)
                models[f"{name}, batch {batch}"] = {
                    "shape": shape,
                    "variants": found,
                    "differences": differences(str(folder), found),
                }
    return {
        "dtype": dtype,
        "threads": settings.threads,
        "ceiling": ceiling(settings, dtype),
        "models": models,
    }


def render(report: Mapping[str, Any]) -> str:
    best = max(report["ceiling"]["flops_per_second"].values())
    parts = [
        f"The forward pass in {report['dtype']} of clips that are in memory, all variants with the "
        f"same random weights, {report['threads']} threads, a process each, taking turns; medians "
        "(minimum to maximum). `vidjax / it` above 1: vidjax is faster, and by round, as the "
        "medians' ratio. The difference is the largest one of the outputs, as a share of the "
        "largest value. MFU: counted matrix products over the time, as a share of a measured "
        f"{report['ceiling']['size']}³ product ({best / 1e9:,.0f} GFLOP/s). First call: "
        "compilation and the first run. Peak: of the whole process"
        + ("." if report["device"] == "cpu" else ", and on the device.")
    ]
    header = ["variant", "ms a clip", "clips/s", "vidjax / it", "MFU", "difference", "first call s",
              "peak GiB"]  # fmt: skip
    for name, model in report["models"].items():
        rows, batch = [], model["shape"][0]
        ours = model["variants"]["vidjax"]
        flops = ours["facts"]["flops"]
        for variant, one in model["variants"].items():
            if "failed" in one:
                rows.append([variant, f"failed: {one['failed'][:80]}", *["-"] * 6])
                continue
            seconds = one["seconds"]
            difference = model["differences"].get(variant)
            rows.append(
                [
                    variant,
                    harness.spread(seconds, 1e3 / batch),
                    harness.number(batch / seconds["median"]),
                    harness.number(seconds["median"] / ours["seconds"]["median"]),
                    f"{flops / seconds['median'] / best:.0%}",
                    "-" if difference is None or variant == "vidjax" else f"{difference:.1e}",
                    harness.number(one["first_seconds"]),
                    harness.memory(one),
                ]
            )
        shape = "x".join(map(str, model["shape"][1:4]))
        parts += [f"{name} of {shape}, {flops / batch / 1e9:,.1f} GFLOP a clip:",
                  harness.table(header, rows)]  # fmt: skip
    return "\n\n".join(parts)
