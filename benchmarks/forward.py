"""Suite `forward`: class scores or features of clips that are in memory, beside the peers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import harness, peers

MODELS = ("VideoMAE-B", "ViViT-B", "X-CLIP-B/16", "VideoPrism-B")
# Checkouts that --peer may name, for VideoPrism: the variant and the format that it reads.
PEERS = {"videoprism": ("deepmind", "original"), "kerashub": ("kerashub", "keras")}


def ceiling(settings: harness.Settings) -> dict[str, Any]:
    """FLOP/s of large square matrix products, the better of two libraries."""
    options = {"size": 256 if settings.quick else 4096, "dtype": "float32", "on": "cpu"}
    children = {
        library: harness.Child("benchmarks.peers", "matmul", library=library, **options)
        for library in ("jax", "torch")
    }
    found = harness.interleave(children, settings.rounds)
    rates = {
        name: one["facts"]["flops"] / one["seconds"]["median"]
        for name, one in found.items()
        if "failed" not in one
    }
    return {"size": options["size"], "dtype": "float32", "flops_per_second": rates}


def variants(case: str, folder: str, settings: harness.Settings) -> dict[str, harness.Child]:
    """The same forward pass in several projects."""
    common = {
        "case": case,
        "quick": settings.quick,
        "batch": 1,
        "dtype": "float32",
        "folder": folder,
    }

    def child(name: str, function: str, **options: Any) -> harness.Child:
        options |= common | {"output": f"{folder}/{name}.npy"}
        return harness.Child("benchmarks.peers", function, **options)

    found = {"vidjax": child("vidjax", "vidjax_forward")}
    kind = peers.hf_attention(case)
    found[f"hf {kind}"] = child(f"hf {kind}", "hf_forward", attention=kind, on="cpu")
    found[f"hf {kind} compiled"] = harness.Child(
        "benchmarks.peers", "hf_forward", attention=kind, on="cpu", compiled="default", **common
    )
    for peer in _checkouts(case, settings):
        name, _ = PEERS[peer]
        found[name] = child(name, f"{name}_forward", code=settings.peers[peer])
    return found


def _checkouts(case: str, settings: harness.Settings) -> list[str]:
    """Those of PEERS that the user gave and that have this model."""
    return sorted(PEERS.keys() & settings.peers.keys()) if "VideoPrism" in case else []


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
    models = {}
    for name in MODELS:
        shape = (1, *peers.case_of(name, settings.quick).clip, 3)
        print(f"{name}, {shape}", flush=True)
        with harness.scratch() as folder:
            formats = [PEERS[peer][1] for peer in _checkouts(name, settings)]
            peers.prepare(name, settings.quick, folder, formats)
            children = variants(name, str(folder), settings)
            found = harness.interleave(children, settings.rounds, print)
            models[f"{name}, batch 1"] = {
                "shape": shape,
                "variants": found,
                "differences": differences(str(folder), found),
            }
    return {
        "dtype": "float32",
        "threads": settings.threads,
        "ceiling": ceiling(settings),
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
        "compilation and the first run. Peak: of the whole process."
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
                    harness.number(one["peak_bytes"] / 2**30),
                ]
            )
        shape = "x".join(map(str, model["shape"][1:4]))
        parts += [f"{name} of {shape}, {flops / batch / 1e9:,.1f} GFLOP a clip:",
                  harness.table(header, rows)]  # fmt: skip
    return "\n\n".join(parts)
