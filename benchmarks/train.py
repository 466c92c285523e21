"""Suite `train`: train steps beside the peers, remat policies, and what a run waits for."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks import forward, harness, peers, reading

TASK, BATCH = "VideoMAE-B pre-training", 2
# A real run on videos of 340x256 pixels, all else as in the recipe but for the batch.
LOOP = (
    "--config=configs/videomae_k400.py:B",
    "--config.log_every=4",
    "--config.optim.warmup_epochs=1.0",
)


def loop(settings: harness.Settings, steps: int) -> dict[str, Any]:
    """What metrics.jsonl of a real run says, the first report left out."""
    sizes = [
        f"--config.train_steps={steps}",
        f"--config.data.batch_size={BATCH}",
        "--config.model.dtype=float32",
    ]
    if settings.quick:
        sizes += ["--config.model.variant=S", "--config.data.frames=2"]
    with harness.scratch() as folder:
        videos = reading.make_videos(folder, 12, count=8, frames=300, height=256, width=340)
        (folder / "videos.txt").write_text("".join(f"{path} 0\n" for path, _ in videos))
        command = [sys.executable, "-m", "vidjax.train", *LOOP, *sizes]
        files = [f"--config.data.{split}={folder}/videos.txt" for split in ("train", "val")]
        harness.whole_process([*command, *files, f"--workdir={folder}/run"])
        lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    reports = [one for one in reports if "waiting_for_data" in one][1:]
    keys = ("clips_per_second", "waiting_for_data", "seconds_data", "seconds_compute")
    return {"command": command[2:], "steps": steps} | {
        key: harness.summary(one[key] for one in reports) for key in keys
    }


def run(settings: harness.Settings) -> dict[str, Any]:
    waiting = loop(settings, 8 if settings.quick else 20)
    shape = [BATCH, *peers.case_of(TASK, settings.quick).clip, 3]
    print(f"{TASK}, {shape}", flush=True)
    with harness.scratch() as folder:
        peers.prepare(TASK, settings.quick, folder)
        options = {
            "case": TASK,
            "quick": settings.quick,
            "batch": BATCH,
            "dtype": "float32",
            "folder": str(folder),
        }
        children = {}
        for remat in ("none", "dots", "full"):
            name = "vidjax" if remat == "none" else f"vidjax remat {remat}"
            children[name] = harness.Child(
                "benchmarks.peers", "vidjax_step", remat=remat, **options
            )
        options |= {"attention": "sdpa", "on": "cpu"}
        for name, compiled in (("hf sdpa", ""), ("hf sdpa compiled", "default")):
            children[name] = harness.Child(
                "benchmarks.peers", "hf_step", compiled=compiled, **options
            )
        variants = harness.interleave(children, settings.rounds, print)
    return {
        "dtype": "float32",
        "threads": settings.threads,
        "ceiling": forward.ceiling(settings),
        "tasks": {TASK: {"shape": shape, "variants": variants}},
        "loop": waiting,
    }


def render(report: Mapping[str, Any]) -> str:
    best = max(report["ceiling"]["flops_per_second"].values())
    parts = [
        f"Train steps with AdamW in {report['dtype']}, the same random weights, "
        f"{report['threads']} threads, a process each, taking turns; medians (minimum to maximum). "
        "vidjax's step starts from bytes and normalises, draws masks and watches for values that "
        "are not finite; the peers start from normalised clips and masks. MFU: three times the "
        "forward pass's matrix products, whatever remat computes twice, over the time, as a share "
        f"of a measured {report['ceiling']['size']}³ product ({best / 1e9:,.0f} GFLOP/s). "
        "Temporaries: as XLA plans them."
    ]
    header = ["variant", "s a step", "clips/s", "vidjax / it", "MFU", "first step s", "peak GiB",
              "temporaries GiB"]  # fmt: skip
    for name, task in report["tasks"].items():
        rows, batch, ours = [], task["shape"][0], task["variants"]["vidjax"]
        count = ours["facts"]["flops"]
        for variant, one in task["variants"].items():
            if "failed" in one:
                rows.append([variant, f"failed: {one['failed'][:80]}", *["-"] * 6])
                continue
            seconds, temporary = one["seconds"], one["facts"].get("planned_temporary_bytes")
            rows.append(
                [
                    variant,
                    harness.spread(seconds),
                    harness.number(batch / seconds["median"]),
                    harness.number(seconds["median"] / ours["seconds"]["median"]),
                    f"{count / seconds['median'] / best:.0%}",
                    harness.number(one["first_seconds"]),
                    harness.number(one["peak_bytes"] / 2**30),
                    harness.number(temporary and temporary / 2**30),
                ]
            )
        shape = "x".join(map(str, task["shape"][1:4]))
        parts += [
            f"{name}, batch {batch} of {shape}, {count / 1e12:.2f} TFLOP a step:",
            harness.table(header, rows),
        ]
    one = report["loop"]
    waiting = one["waiting_for_data"]
    parts.append(
        f"A real run, `python -m {' '.join(one['command'])}`, {one['steps']} steps: waiting for "
        f"data {waiting['median']:.1%} of the time ({waiting['min']:.1%} to {waiting['max']:.1%} "
        f"in a report of 4 steps), {harness.number(one['clips_per_second']['median'])} clips/s."
    )
    return "\n\n".join(parts)
