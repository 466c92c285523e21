"""X-CLIP on Kinetics-400, fully supervised: clips are compared with the names of the classes.

    python -m vidjax.train --config=configs/xclip_k400.py:B/16 --workdir=runs/xclip_b16 \
        --config.init=clip_b16/ --config.data.train=k400/train.csv --config.data.val=k400/val.csv \
        --config.data.classes=kinetics_400_labels.csv

`config.init` is a converted CLIP (converters.convert --from=openai/clip-vit-base-patch16).
Messages, frame integration and prompts start fresh and learn ten times as fast; texts and scale are
kept.
Argument: variant B/32, B/16, L/14 or L/14@336; `frames`, 8 or 16 in the paper; `demo`.
Hardware: the reference trained on 8 V100 and more; rates are for 256 videos a step, whatever it is.
Published top-1/top-5 (4x3 views), for weights of the original code; not measured here:
B/32 80.4/95.0 (8 frames), 81.1/95.5 (16); B/16 83.8/95.7, 84.7/96.8; L/14 87.1/97.6 (8);
L/14@336 87.7/97.4 (16).
Mixup and cutmix mix the 8, 4 or 1 clips that the reference's configs give a GPU at once, each with
a random one of them: an eighth or a quarter of the clips stay as they are, and all of L/14@336's.
Unlike the reference, the temporal views are interleaved (there random), the rate is not one step
late, and the model computes in bfloat16 (there partly in float16, with loss scaling).
Source: Ni et al. 2022 (arXiv:2208.02816), microsoft/VideoX X-CLIP/configs/k400.
"""

from vidjax import configlib

SIZES = {"B/32": 224, "B/16": 224, "L/14": 224, "L/14@336": 336}
MIX_GROUPS = {"B/32": 8, "B/16": 8, "L/14": 4, "L/14@336": 1}


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B/32", frames=8, demo=False)
    size = configlib.choose("variant", arg.variant, SIZES)
    config = configlib.base()
    config.train_epochs = 30.0
    config.model.update(
        name="xclip", variant=arg.variant.partition("@")[0], head="video_text", eps=1e-5,
        dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(
        name="text_classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0,
        color_jitter=0.8, grey=0.2, jitter_frames=True,
    )  # fmt: skip
    config.init_missing = (".*/message_.*", "mit/.*", "prompts/.*")
    config.data.update(
        name="k400", frames=arg.frames, sampling="segment", batch_size=256, size=size,
        short_side=size * 256 // 224, views_short_side=size, resize="mmcv_linear",
        augment="corner_crop", flip=0.5, min_frames=1, mix_partners="permuted",
        # B/16 has half as many clips on a GPU from 16 frames on.
        mix_group=4 if arg.variant == "B/16" and arg.frames > 8 else MIX_GROUPS[arg.variant],
    )  # fmt: skip
    config.optim.update(
        schedule="timm_cosine", lr=8e-6, min_lr=8e-8, warmup_epochs=5.0, b2=0.98,
        weight_decay=1e-3, freeze=("text/.*", "text_proj/.*", "logit_scale"),
        rates=((".*/message_.*|mit/.*|prompts/.*", 10.0),),
    )  # fmt: skip
    config.evals.val = dict(name="zero_shot", every=2_000, templates=("{}",), average="softmax")
    config.evals.test = dict(name="zero_shot", views=(4, 3), templates=("{}",), average="softmax")
    if arg.demo:
        configlib.use_demo(config, steps=500, lr=1e-3, data="demo_captions")
        config.data.update(sampling="segment", batch_size=64)
        # There is no CLIP to start from, so only the text tower stays as it is. Positions start
        # near 0, and without them no motion shows, so they learn fast.
        config.optim.update(
            freeze=("text/.*",), rates=(("mit/pos_embed", 20.0), ("encoder/pos_embed", 10.0)),
            clip_norm=1.0, warmup_epochs=4.0,
        )  # fmt: skip
    return config
