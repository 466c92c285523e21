"""Batch size x rule for the learning rate, for VideoMAE's pre-training on a pod: 11 runs.

    python -m experiments.launch --sweep=experiments/batch_lr_scaling.py:L,devices=256 \
        --workdir=/mnt/runs/scaling --target=xpk --tpu_type=v5litepod-256 \
        --set=data.train=gs://videos/k400/manifest.jsonl -- --cluster=tpus --docker-image=IMAGE

Every run sees as many videos, for 200 epochs. The rate of 256 videos is multiplied by
batch / 256 (rule "linear", the recipe's) or by its square root (rule "sqrt"); all end at the same.
--collect --against=data.batch_size,optim.lr shows what came of it.
Argument: variant S, B, L or H; `devices` of a run; `demo`, for one device.
Parameters and optimizer are split over as many devices as the variant needs to fit into 16 GB each.
A batch that is smaller than the number of devices is given to groups of them, which split heads and
MLPs; a larger one than 16 clips a device is cut into parts.
"""

import itertools
import math

from vidjax import configlib

BATCHES, RULES = (256, 512, 1024, 2048, 4096, 8192), ("linear", "sqrt")
FSDP = {"S": 1, "B": 1, "L": 4, "H": 8}
CLIPS = 16  # of a device at once


def sweep(arg=None):
    arg = configlib.parse_arg(arg, variant="B", devices=256, demo=False)
    fsdp = configlib.choose("variant", arg.variant, FSDP)
    config = f"configs/videomae_k400.py:{arg.variant},epochs=200"
    batches, devices, reference, first = BATCHES, arg.devices, 256, {}
    if arg.demo:
        config, batches, devices, reference = "configs/videomae_k400.py:demo", (8, 16, 32), 1, 8
        fsdp, first = 1, {"train_steps": 0, "train_epochs": 4.0}
    rate = configlib.load(config).optim.lr
    for batch, rule in itertools.product(batches, RULES):
        if batch == reference and rule == "sqrt":
            continue  # the same
        scale = batch / reference if rule == "linear" else math.sqrt(batch / reference)
        tensor = max(1, devices // batch)
        own = {
            "data.batch_size": batch,
            "optim.lr": rate * scale,
            "optim.lr_batch_size": 0,
            "grad_accum": max(1, batch * tensor // devices // CLIPS),
            "mesh.fsdp": min(fsdp, devices // tensor),
            "mesh.tensor": tensor,
        }
        yield dict(name=f"batch{batch}_{rule}", config=config, overrides=first | own)
