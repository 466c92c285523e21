"""Suite `forward`: class scores or features of clips that are in memory, beside the peers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import cases, harness, page, peers
from benchmarks.suites import side_by_side

MODELS = ("VideoMAE-B", "ViViT-B", "X-CLIP-B/16", "VideoPrism-B")


def variants(
    case: str, folder: str, settings: harness.Settings, code: str | None
) -> dict[str, harness.Child]:
    """Starts the same forward pass in several projects.

    Args:
        code: checkout of google-deepmind/videoprism, if it has this model.
    """
    attention = cases.CASES[case].attention
    options: dict[str, dict[str, Any]] = {
        "vidjax": {"function": "vidjax"},
        f"hf {attention}": {"function": "hf"},
        f"hf {attention} compiled": {"function": "hf", "compiled": "default"},
    }
    if code:
        options["deepmind"] = {"function": "deepmind", "code": code}
    children = {}
    for name, one in options.items():
        if "compiled" not in one:  # whose first call is the one that compiles
            one["output"] = f"{folder}/{name}.npy"
        one |= {"case": case, "quick": settings.quick, "batch": 1, "dtype": "float32"}
        function = f"benchmarks.peers:{one.pop('function')}_forward"
        children[name] = harness.Child(function, folder=folder, **one)
    return children


def differences(folder: str, names: Mapping[str, Any]) -> dict[str, float]:
    """Returns the largest difference to each variant's output, as a share of its largest value."""
    ours = np.load(f"{folder}/vidjax.npy")
    found = {}
    for name in names:
        try:
            theirs = np.load(f"{folder}/{name}.npy")
        except FileNotFoundError:  # compiled ones do not write theirs
            continue
        difference = ours.reshape(theirs.shape) - theirs
        found[name] = float(np.abs(difference).max() / np.abs(theirs).max())
    return found


def run(settings: harness.Settings) -> dict[str, Any]:
    models = {}
    for name in MODELS:
        shape = (1, *cases.case_of(name, settings.quick).clip, 3)
        print(f"{name}, {shape}", flush=True)
        code = settings.peers.get("videoprism") if "VideoPrism" in name else None
        with harness.scratch() as folder:
            peers.prepare(name, settings.quick, folder, ["original"] if code else [])
            children = variants(name, str(folder), settings, code)
            measured = harness.interleave(children, settings.rounds)
            models[f"{name}, batch 1"] = {
                "shape": shape,
                "variants": measured,
                "differences": differences(str(folder), measured),
            }
    return {
        "dtype": "float32",
        "threads": settings.threads,
        "ceiling": side_by_side.ceiling(settings),
        "models": models,
    }


def render(report: Mapping[str, Any]) -> str:
    """Returns a table for each model."""
    parts = [side_by_side.setting(report)]
    for name, model in report["models"].items():
        batch, variants = model["shape"][0], model["variants"]
        shape = "x".join(map(str, model["shape"][1:4]))
        flops = variants["vidjax"]["facts"]["flops"] / batch
        difference = {name: f"{x:.1e}" for name, x in model["differences"].items()}
        extra = {
            variant: {"difference": difference.get(variant) if variant != "vidjax" else None}
            for variant in variants
        }
        parts.append(f"{name} of {shape}, {flops / 1e9:,.1f} GFLOP a clip:")
        time = ("ms a clip", 1e3 / batch)
        parts.append(side_by_side.table(report, variants, batch, time, extra))
    return "\n\n".join(parts)


def _beside_hf(report: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name.removesuffix(', batch 1')} "
        + page.times(
            side_by_side.ratio(model["variants"], "hf eager" if "VideoPrism" in name else "hf sdpa")
        )
        for name, model in report["models"].items()
    )


GOALS = {
    "forward, CPU float32: at least 1.0 x transformers' SDPA (eager for VideoPrism)": _beside_hf
}
