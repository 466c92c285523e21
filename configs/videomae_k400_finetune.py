"""VideoMAE fine-tuning on Kinetics-400.

    python -m vidjax.train --config=configs/videomae_k400_finetune.py:B --workdir=runs/k400_b \
        --config.init=videomae_base/ --config.data.train=k400/train.manifest.jsonl \
        --config.data.val=k400/val.manifest.jsonl

`config.init` is a converted checkpoint or the workdir of a pre-training run.
Argument: variant S, B, B800 (from 800 epochs of pre-training), L or H; `demo`.
Hardware: the reference used 64 V100 for B; the rates here follow the batch size.
Published top-1/top-5 (16x5x3 views), for weights of the original code; not measured here:
S 79.0/93.8, B800 80.0/94.4, B 81.5/95.1, L 85.2/96.8, H 86.6/97.1.
Unlike the reference, which computes in float16 with loss scaling, the model computes in bfloat16.
Source: Tong et al. 2022 (arXiv:2203.12602), MCG-NJU/VideoMAE scripts/finetune and MODEL_ZOO.md.
"""

from vidjax import configlib

# Rates are per 256 videos. batch_size does not count the repeats, and neither does the rate.
# mix_group is the clips of one GPU of the reference's script.
RECIPES = {
    "S": dict(variant="S", lr=5e-4, batch_size=384, repeats=2, mix_group=24, epochs=150.0),
    "B": dict(variant="B", lr=5e-4, batch_size=384, repeats=2, mix_group=12, epochs=75.0),
    "B800": dict(variant="B", lr=1e-3, batch_size=512, repeats=1, mix_group=8, epochs=100.0),
    "L": dict(variant="L", lr=2e-3, batch_size=128, repeats=2, mix_group=4, epochs=35.0),
    "H": dict(
        variant="H", lr=1e-3, batch_size=512, repeats=2, mix_group=16, epochs=50.0,
        drop_path=0.2, head_dropout=0.5, min_lr=1e-5,
    ),
}  # fmt: skip


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B", demo=False)
    recipe = configlib.choose("variant", arg.variant, RECIPES)
    config = configlib.base()
    config.train_epochs = recipe["epochs"]
    config.model.update(
        name="videomae", variant=recipe["variant"], head="classify", eps=1e-6, dtype="bfloat16",
        drop_path=recipe.get("drop_path", 0.1), head_dropout=recipe.get("head_dropout", 0.0),
    )  # fmt: skip
    config.objective = dict(
        name="classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0, erase=0.25
    )
    # The head and its norm start fresh; the decoder and the last norm have no place here.
    config.init_missing = ("fc_norm/.*", "head/.*")
    config.init_unused = ("encoder/norm/.*", "encoder_to_decoder/.*", "mask_token", "decoder/.*")
    config.data.update(
        name="k400", frames=16, stride=4, sampling="dense_linspace",
        batch_size=recipe["batch_size"], repeats=recipe["repeats"], mix_group=recipe["mix_group"],
        augment="random_resized_crop", flip=0.5, rand_augment="rand-m7-n4-mstd0.5-inc1",
    )  # fmt: skip
    config.optim.update(
        lr=recipe["lr"], min_lr=recipe.get("min_lr", 1e-6), lr_batch_size=256, warmup_epochs=5.0,
        weight_decay=0.05, layer_decay=0.75,
    )  # fmt: skip
    config.evals.val = dict(name="classification", every=2_000)
    config.evals.test = dict(name="classification", views=(5, 3))
    if arg.demo:
        configlib.use_demo(config, steps=500, lr=1e-3)
    return config
