"""Suite `train`: train steps beside the peers, remat policies, and what a run waits for."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks import cases, harness, page, peers, videos
from benchmarks.suites import side_by_side

CASE, BATCH = "VideoMAE-B pre-training", 2
REMATS = {"none": "vidjax", "dots": "vidjax remat dots", "full": "vidjax remat full"}
# A real run on videos of 340x256 pixels, all else as in the recipe but for the batch.
LOOP = (
    "--config=configs/videomae_k400.py:B",
    "--config.log_every=4",
    "--config.optim.warmup_epochs=1.0",
    f"--config.data.batch_size={BATCH}",
    "--config.model.dtype=float32",
)


def loop(settings: harness.Settings, steps: int) -> dict[str, Any]:
    """Returns the metrics of a real run, the first report left out."""
    options = [*LOOP, f"--config.train_steps={steps}"]
    if settings.quick:
        options += ["--config.model.variant=S", "--config.data.frames=2"]
    with harness.scratch() as folder:
        made = videos.make_videos(folder, 12, count=8, frames=300, height=256, width=340)
        (folder / "videos.txt").write_text("".join(f"{path} 0\n" for path, _ in made))
        command = [sys.executable, "-m", "vidjax.train", *options]
        files = [f"--config.data.{split}={folder}/videos.txt" for split in ("train", "val")]
        harness.whole_process([*command, *files, f"--workdir={folder}/run"])
        lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    reports = [one for one in map(json.loads, lines) if "waiting_for_data" in one][1:]
    keys = ("clips_per_second", "waiting_for_data", "seconds_data", "seconds_compute")
    return {"command": command[2:], "steps": steps, **harness.summaries(reports, keys)}


def run(settings: harness.Settings) -> dict[str, Any]:
    waiting = loop(settings, 8 if settings.quick else 20)
    shape = [BATCH, *cases.case_of(CASE, settings.quick).clip, 3]
    print(f"{CASE}, {shape}", flush=True)
    with harness.scratch() as folder:
        peers.prepare(CASE, settings.quick, folder)
        options = {
            "case": CASE,
            "quick": settings.quick,
            "batch": BATCH,
            "dtype": "float32",
            "folder": str(folder),
        }
        children = {
            name: harness.Child("benchmarks.peers:vidjax_step", remat=remat, **options)
            for remat, name in REMATS.items()
        }
        for name, compiled in (("hf sdpa", ""), ("hf sdpa compiled", "default")):
            children[name] = harness.Child("benchmarks.peers:hf_step", compiled=compiled, **options)
        variants = harness.interleave(children, settings.rounds)
    return {
        "dtype": "float32",
        "threads": settings.threads,
        "ceiling": side_by_side.ceiling(settings),
        "tasks": {CASE: {"shape": shape, "variants": variants}},
        "loop": waiting,
    }


def render(report: Mapping[str, Any]) -> str:
    """Returns a table of steps, and a sentence on the run."""
    parts = [side_by_side.setting(report)]
    for name, measured in report["tasks"].items():
        batch, variants = measured["shape"][0], measured["variants"]
        shape = "x".join(map(str, measured["shape"][1:4]))
        count = variants["vidjax"]["facts"]["flops"]
        extra = {}
        for variant, one in variants.items():
            planned = one.get("facts", {}).get("planned_temporary_bytes")
            extra[variant] = {"temporaries GiB": planned and planned / 2**30}
        parts.append(f"{name}, batch {batch} of {shape}, {count / 1e12:.2f} TFLOP a step:")
        parts.append(side_by_side.table(report, variants, batch, ("s a step", 1.0), extra))
    one = report["loop"]
    parts.append(
        f"A real run, `python -m {' '.join(one['command'])}`, {one['steps']} steps: waiting for "
        f"data {_waiting(report)} of the time (the range is that of reports of 4 steps), "
        f"{page.number(one['clips_per_second']['median'])} clips/s."
    )
    return "\n\n".join(parts)


def _waiting(report: Mapping[str, Any]) -> str:
    waiting = report["loop"]["waiting_for_data"]
    return f"{waiting['median']:.1%} ({waiting['min']:.1%} to {waiting['max']:.1%})"


def _beside_hf(report: Mapping[str, Any]) -> str:
    variants = report["tasks"][CASE]["variants"]
    return "; ".join(
        f"remat {remat} {page.times(side_by_side.ratio(variants, 'hf sdpa', name))}"
        for remat, name in REMATS.items()
    )


GOALS = {
    "VideoMAE-B pre-training step, CPU: at least 1.2 x transformers with AdamW": _beside_hf,
    "a run waits for data less than 2% of the time": _waiting,
}
