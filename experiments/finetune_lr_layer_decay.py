"""Peak learning rate x layer decay of VideoMAE's fine-tuning on Kinetics-400: 12 runs.

    python -m experiments.launch --sweep=experiments/finetune_lr_layer_decay.py:B \
        --workdir=runs/finetune_b --set=init=videomae_base/ \
        --set=data.train=k400/train.manifest.jsonl --set=data.val=k400/val.manifest.jsonl

Argument: variant, as of configs/videomae_k400_finetune.py; `demo`.
Rates are half, once, twice and four times the recipe's; decays lie around its 0.75, where a larger
one moves the first layers more.
"""

import itertools

from vidjax import configlib

FACTORS, DECAYS = (0.5, 1.0, 2.0, 4.0), (0.65, 0.75, 0.85)


def sweep(arg=None):
    arg = configlib.parse_arg(arg, variant="B", demo=False)
    config = f"configs/videomae_k400_finetune.py:{arg.variant}" + (",demo" if arg.demo else "")
    rate = configlib.load(config).optim.lr
    for factor, decay in itertools.product(FACTORS, DECAYS):
        yield dict(
            name=f"lr{rate * factor:g}_decay{decay:g}",
            config=config,
            overrides={"optim.lr": rate * factor, "optim.layer_decay": decay},
        )
