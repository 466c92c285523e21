"""VideoMAE fine-tuning on Something-Something V2: else as videomae_k400_finetune.py.

    python -m vidjax.train --config=configs/videomae_ssv2_finetune.py:B --workdir=runs/ssv2_b \
        --config.init=videomae_base_ssv2/ --config.data.train=ssv2/train.manifest.jsonl \
        --config.data.val=ssv2/val.manifest.jsonl

`config.init` is a converted checkpoint or the workdir of a pre-training run.
Argument: variant S, B or B800 (from 800 epochs of pre-training); `demo`.
Hardware: the reference used 64 V100 for B; the rates here follow the batch size.
Published top-1/top-5 (16x2x3 views), for weights of the original code; not measured here:
S 66.8/90.3, B800 69.6/92.0, B 70.8/92.4. Clips are never flipped: left and right are classes.
Unlike the reference, which computes in float16 with loss scaling, the model computes in bfloat16.
Source: Tong et al. 2022 (arXiv:2203.12602), MCG-NJU/VideoMAE scripts/finetune and MODEL_ZOO.md.
"""

from vidjax import configlib

# Rates are per 256 videos. batch_size does not count the repeats, and neither does the rate.
# mix_group is the clips of one GPU of the reference's script.
RECIPES = {
    "S": dict(
        variant="S", lr=1e-3, batch_size=384, repeats=2, mix_group=24, epochs=40.0, layer_decay=0.7
    ),
    "B": dict(variant="B", lr=5e-4, batch_size=384, repeats=2, mix_group=12, epochs=30.0),
    "B800": dict(variant="B", lr=5e-4, batch_size=512, repeats=1, mix_group=8, epochs=50.0),
}  # fmt: skip


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B", demo=False)
    recipe = configlib.choose("variant", arg.variant, RECIPES)
    config = configlib.load_beside(__file__, "videomae_k400_finetune.py:B")
    config.train_epochs = recipe["epochs"]
    config.model.variant = recipe["variant"]
    config.data.update(
        name="ssv2", sampling="segment", flip=0.0,
        batch_size=recipe["batch_size"], repeats=recipe["repeats"], mix_group=recipe["mix_group"],
    )  # fmt: skip
    config.optim.update(lr=recipe["lr"], layer_decay=recipe.get("layer_decay", 0.75))
    config.evals.test.views = (2, 3)
    if arg.demo:
        configlib.use_demo(config, steps=500, lr=1e-3)
    return config
