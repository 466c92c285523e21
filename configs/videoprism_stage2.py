"""VideoPrism's second stage: masked video modelling with a teacher of the first stage.

    python -m vidjax.train --config=configs/videoprism_stage2.py:B --workdir=runs/stage2 \
        --config.init=runs/stage1 --config.data.train=clips.csv --config.data.val=val.csv

`config.init` is the first stage's run, or a converted VideoPrism with head "video" or "video_text":
it is the teacher, and the student starts as its encoder. Lists need neither labels nor captions.
Argument: variant B, L or g; `frames`; `demo`, with --config.init=a demo run of the first stage.
Hardware: the reference trained on TPU pods; 4096 videos a step whatever the hardware.
Published K400 / SSv2 of a frozen B, for weights of the original authors; not measured here: 84.2 /
63.6, and 83.8 / 55.4 before this stage.
What the paper does not say, and what was chosen: see vidjax/objectives/distillation.py.
Source: Zhao et al. 2024 (arXiv:2402.13217), section 3.3 and appendix.
"""

from vidjax import configlib

VARIANTS = {"B": {}, "L": {}, "g": {}}


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B", frames=8, demo=False)
    configlib.choose("variant", arg.variant, VARIANTS)
    config = configlib.base()
    config.train_steps = 300_000
    config.model.update(
        name="videoprism", variant=arg.variant, head="distil", eps=1e-6,
        temporal_depth=4, decoder_width=512, decoder_depth=4,
        decoder_num_heads=8, decoder_mlp_dim=2048,
        remat="full", dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(name="distillation", mask_ratio=0.65, shuffle=True, global_weight=1.0)
    config.init_missing = ("decoder/.*", "global_decoder/.*", "global_pool/.*")
    config.init_unused = ("text/.*", "logit_scale", "logit_bias")
    config.data.update(
        name="custom", frames=arg.frames, sampling="linspace", batch_size=4096, size=288,
        short_side=288, resize="pil_lanczos", mean=(0.0,) * 3, std=(1.0,) * 3,
        augment="center_crop",
    )  # fmt: skip
    config.optim.update(
        name="adafactor", lr=5e-4, min_lr=1e-5, warmup_steps=25_000, weight_decay=0.05,
        freeze=("teacher/.*",),
    )  # fmt: skip
    config.evals.val = dict(name="loss", every=5_000)
    if arg.demo:
        configlib.use_demo(config, steps=200, lr=1e-3, data="demo_captions")
        config.model.remat = "none"
        config.optim.name = "adamw"
    return config
