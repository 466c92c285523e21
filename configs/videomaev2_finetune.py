"""VideoMAE V2 fine-tuning.

    python -m vidjax.train --config=configs/videomaev2_finetune.py:g_k710 --workdir=runs/g_k710 \
        --config.init=runs/videomaev2_g --config.data.train=k710/train.csv \
        --config.data.val=k710/val.csv

`config.init` is a converted checkpoint or the workdir of a pre-training run; for the recipes whose
name has two datasets it is a model fine-tuned on the first one, whose head is left out.
Argument: recipe, one of RECIPES below; `demo`.
Hardware: the reference used 64 (g_k400), 8 (UCF101, HMDB51), 16 (B_ssv2) or 32 GPUs; the rates here
follow the batch size.
Published top-1/top-5 (16x5x3 views; 16x2x3 on Something-Something), for weights of the original
code; not measured here: g_k710 83.8/96.4, g_k400 87.2/97.4, g_ssv2 77.0/95.9, g_k710_ucf101
99.6/100.0, g_k710_hmdb51 88.1/98.5. The model zoo has no scores of B, L and H fine-tuned like this.
Unlike the reference, the model computes in bfloat16 (there float16 with loss scaling). Its recipes
from K710 to K400 and K600 are not here: they keep the rows of the head whose classes both have.
Source: Wang et al. 2023 (arXiv:2303.16727), OpenGVLab/VideoMAEv2 scripts/finetune and MODEL_ZOO.md.
"""

from vidjax import configlib

H = dict(batch_size=128, gpu=4, layer_decay=0.8, drop_path=0.2)
G = dict(batch_size=96, gpu=3, layer_decay=0.9)
SMALL = dict(batch_size=24, gpu=3, layer_decay=0.9, drop_path=0.35, head_dropout=0.5)

# Rates are per 256 videos, of which 2 clips each are taken, which neither batch_size nor rate
# counts. mixup and cutmix draw for the clips of as many videos as a `gpu` of the reference has.
RECIPES = {
    "B_k400": dict(lr=7e-4, batch_size=512, gpu=16, epochs=90.0),
    "B_k710": dict(lr=7e-4, batch_size=512, gpu=16, epochs=90.0),
    "B_ssv2": dict(lr=2e-3, batch_size=256, gpu=16, epochs=25.0, layer_decay=0.65),
    "L_k400": dict(lr=2e-3, batch_size=192, gpu=6, epochs=35.0, drop_path=0.2),
    "L_ssv2": dict(lr=5e-4, batch_size=192, gpu=6, epochs=20.0, drop_path=0.2),
    "H_k400": dict(H, lr=1e-3, epochs=40.0, head_dropout=0.5),
    "H_k710": dict(H, lr=1e-3, epochs=40.0, head_dropout=0.5),
    "H_ssv2": dict(H, lr=5e-4, epochs=20.0),
    "g_k400": dict(G, lr=1e-3, batch_size=192, epochs=30.0, drop_path=0.2, weight_decay=0.1),
    "g_k710": dict(G, lr=1e-3, epochs=35.0, drop_path=0.3, weight_decay=0.1, clip_norm=5.0),
    "g_ssv2": dict(G, lr=3e-4, epochs=20.0, drop_path=0.25),
    "g_k710_ucf101": dict(SMALL, lr=1e-3, epochs=50.0),
    "g_k710_hmdb51": dict(SMALL, lr=5e-4, epochs=15.0, stride=2),
}  # fmt: skip


def get_config(arg=None):
    arg = configlib.parse_arg(arg, recipe="B_k400", demo=False)
    recipe = configlib.choose("recipe", arg.recipe, RECIPES)
    variant, data = arg.recipe[0], arg.recipe.rpartition("_")[2]
    ssv2 = data == "ssv2"
    config = configlib.load_beside(__file__, "videomae_k400_finetune.py:B")
    config.train_epochs = recipe["epochs"]
    config.model.update(
        variant=variant,
        drop_path=recipe.get("drop_path", 0.1),
        head_dropout=recipe.get("head_dropout", 0.0),
    )
    config.data.update(
        name=data,
        stride=recipe.get("stride", 4),
        sampling="segment" if ssv2 else "dense_linspace",
        batch_size=recipe["batch_size"],
        repeats=2,
        mix_group=2 * recipe["gpu"],
        flip=0.0 if ssv2 else 0.5,
    )
    config.optim.update(
        lr=recipe["lr"],
        min_lr=1e-6,
        weight_decay=recipe.get("weight_decay", 0.05),
        layer_decay=recipe.get("layer_decay", 0.75),
        clip_norm=recipe.get("clip_norm", 0.0),
    )
    config.evals.test.views = (2 if ssv2 else 5, 3)
    if arg.demo:
        configlib.use_demo(config, steps=500, lr=1e-3)
    return config
