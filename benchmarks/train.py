"""Suite `train`: train steps beside the peers, remat policies, and what a run waits for."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import flops, forward, harness, peers, reading

# Clips in a batch by device.
TASKS = {
    "VideoMAE-B pre-training": {"batch": {"cpu": 2, "gpu": 64}},
    "VideoMAE-B": {"batch": {"gpu": 16}},
    "VideoMAE-L": {"batch": {"gpu": 16}},
}
# A real run on videos of 340x256 pixels, all else as in the recipe but for the batch.
LOOP = (
    "--config=configs/videomae_k400.py:B",
    "--config.log_every=4",
    "--config.optim.warmup_epochs=1.0",
)
LEARNING = {"lr": 1e-4, "weight_decay": 0.05, "b1": 0.9, "b2": 0.95, "eps": 1e-8}


def vidjax_step(
    folder: str, kind: str, shape: list[int], dtype: str, remat: str = "none"
) -> tuple[dict, peers.Once]:
    """`vidjax.train.make_train_step` on bytes: normalisation, masks, backward, AdamW; donated."""
    import jax
    import jax.numpy as jnp

    from vidjax import configlib, load_model, optim
    from vidjax.objectives.classification import Classification
    from vidjax.objectives.masked_autoencoding import MaskedAutoencoding
    from vidjax.train import TrainState, make_train_step

    loaded = load_model(folder + "/vidjax", dtype)
    model = loaded.model.clone(remat=remat)
    objective = MaskedAutoencoding if kind == "reconstruct" else Classification
    objective = objective(model, mean=(0.5,) * 3, std=(0.5,) * 3)
    config = configlib.base().optim
    config.update(**LEARNING)
    optimizer = optim.make_optimizer(config, lambda step: LEARNING["lr"])
    state = TrainState(jnp.int32(0), loaded.params, optimizer.init(loaded.params), {})
    del loaded
    batch = {"video": peers.clip(tuple(shape), uint8=True)}
    if kind == "classify":
        batch["label"] = np.zeros(shape[0], np.int32)
    step = make_train_step(objective, optimizer)
    batch = jax.device_put(batch)
    compiled = step.lower(state, batch).compile().memory_analysis()
    einsum = dataclasses.replace(objective, model=model.clone(remat="none", attention="einsum"))

    def loss(params, batch):
        return einsum.loss(params, batch, rng=jax.random.key(0))[0]

    facts = {
        # The backward pass has two products for each: three times the forward pass, by convention.
        "flops": 3 * flops.matmul_flops(loss, state.params, batch),
        "planned_temporary_bytes": compiled.temp_size_in_bytes,
    }
    jax.clear_caches()

    def once() -> dict[str, float]:
        nonlocal state
        state, figures = step(state, batch)
        jax.block_until_ready(state)
        return {"loss": float(figures["loss"]), **peers.device_peak()}

    return facts, once


def hf_step(
    folder: str, hf: str, shape: list[int], dtype: str, attention: str, compiled: bool,
    threads: int, on: str,
) -> tuple[dict, peers.Once]:  # fmt: skip
    """A train step of transformers' model on normalised clips with masks that are there already."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    where = "cuda" if on == "gpu" else "cpu"
    torch.set_float32_matmul_precision("high" if on == "gpu" else "highest")
    model = getattr(transformers, hf).from_pretrained(folder + "/hf", attn_implementation=attention)
    model = model.train().to(where)
    pixels = torch.from_numpy(peers.clip(tuple(shape)).transpose(0, 1, 4, 2, 3).copy()).to(where)
    inputs = {"pixel_values": pixels}
    if hf.endswith("PreTraining"):
        grid = shape[1] // 2, shape[2] // 16 * (shape[3] // 16)
        hidden = np.ones((shape[0], grid[1]), bool)
        keep = max(round(0.1 * grid[1]), 1)
        for row, rng in zip(hidden, np.random.default_rng(0).spawn(shape[0]), strict=True):
            row[rng.permutation(grid[1])[:keep]] = False
        mask = np.repeat(hidden[:, None], grid[0], 1).reshape(shape[0], -1)
        inputs["bool_masked_pos"] = torch.from_numpy(mask).to(where)
    else:
        inputs["labels"] = torch.zeros(shape[0], dtype=torch.long, device=where)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING["lr"], weight_decay=LEARNING["weight_decay"],
        betas=(LEARNING["b1"], LEARNING["b2"]), eps=LEARNING["eps"], fused=True,
    )  # fmt: skip
    call = torch.compile(model) if compiled else model
    lower = dtype != "float32"

    def once() -> dict[str, float]:
        with torch.autocast(where, torch.bfloat16, enabled=lower):
            loss = call(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found = {"loss": loss.item()}  # which waits for the device
        if on == "gpu":
            torch.cuda.synchronize()
            found["device_peak_bytes"] = torch.cuda.max_memory_allocated()
        return found

    return {"threads": torch.get_num_threads()}, once


def loop(settings: harness.Settings, steps: int) -> dict[str, Any]:
    """What metrics.jsonl of a real run says, the first report left out."""
    batch = TASKS["VideoMAE-B pre-training"]["batch"][settings.device]
    sizes = [f"--config.train_steps={steps}", f"--config.data.batch_size={batch}"]
    if settings.device == "cpu":
        sizes.append("--config.model.dtype=float32")
    if settings.quick:
        sizes += ["--config.model.variant=S", "--config.data.frames=2"]
    with harness.scratch() as folder:
        videos = reading.make_videos(folder, 12, count=8, frames=300, height=256, width=340)
        (folder / "videos.txt").write_text("".join(f"{path} 0\n" for path, _ in videos))
        command = [sys.executable, "-m", "vidjax.train", *LOOP, *sizes]
        files = [f"--config.data.{split}={folder}/videos.txt" for split in ("train", "val")]
        harness.whole_process([*command, *files, f"--workdir={folder}/run"], device=settings.device)
        lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    reports = [one for one in reports if "waiting_for_data" in one][1:]
    keys = ("clips_per_second", "waiting_for_data", "seconds_data", "seconds_compute")
    return {"command": command[2:], "steps": steps} | {
        key: harness.summary(one[key] for one in reports) for key in keys
    }


def run(settings: harness.Settings) -> dict[str, Any]:
    dtype = "float32" if settings.device == "cpu" else "bfloat16"
    waiting = loop(settings, 8 if settings.quick else 20)
    tasks = {}
    for name, task in TASKS.items():
        if settings.device not in task["batch"]:
            continue
        case = peers.CASES[name].quick() if settings.quick else peers.CASES[name]
        shape = [task["batch"][settings.device], *case.clip, 3]
        kind = "reconstruct" if "pre-training" in name else "classify"
        print(f"{name}, {shape}, {dtype}", flush=True)
        with harness.scratch() as folder:
            peers.prepare(case, folder)
            common = {"folder": str(folder), "shape": shape, "dtype": dtype}
            children = {}
            for remat in ("none", "dots", "full"):
                label = "vidjax" if remat == "none" else f"vidjax remat {remat}"
                children[label] = harness.Child(
                    "benchmarks.train", "vidjax_step", device=settings.device, kind=kind,
                    remat=remat, **common,
                )  # fmt: skip
            for compiled in (False, True):
                label = "hf sdpa" + " compiled" * compiled
                children[label] = harness.Child(
                    "benchmarks.train", "hf_step", device=settings.device, hf=case.hf,
                    attention="sdpa", compiled=compiled, threads=settings.threads,
                    on=settings.device, **common,
                )  # fmt: skip
            variants = harness.interleave(children, settings.rounds, print)
        tasks[name] = {"shape": shape, "variants": variants}
    return {
        "dtype": dtype,
        "threads": settings.threads,
        "ceiling": forward.ceiling(settings, dtype),
        "tasks": tasks,
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
                    harness.memory(one),
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
