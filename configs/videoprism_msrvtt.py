"""VideoPrism on MSR-VTT: zero-shot retrieval, and fine-tuning for it.

    python -m converters.convert --from=videoprism_lvt_public_v1_base \
        --tokenizer=sentencepiece.model --to=lvt_b
    python -m vidjax.eval --config=configs/videoprism_msrvtt.py --checkpoint=lvt_b \
        --config.data.val=MSRVTT_JSFUSION_test.csv --config.data.root=msrvtt/videos

The list may be of MSR-VTT (the 1K-A split as above, or its json files), of VATEX or ActivityNet
Captions (with --config.data.name=vatex or activitynet), or your own: lines of `path,caption`.
With --config.data.train and `vidjax.train --config.init=lvt_b` it fine-tunes instead; no such
recipe was published, so rate, batch and epochs are guesses.
Argument: variant B or L; `frames`; `demo`, which continues from configs/videoprism_stage1.py:demo.
Published R@1 of B, text-to-video / video-to-text, for the released weights; not measured here:
MSR-VTT 1K-A 50.1 / 49.8, VATEX 56.2 / 73.1, ActivityNet 48.8 / 47.9.
Source: Zhao et al. 2024 (arXiv:2402.13217) and the README of google-deepmind/videoprism.
"""

from vidjax import configlib

FRAMES = {"B": 16, "L": 8}


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B", frames=0, demo=False)
    frames = arg.frames or configlib.choose("variant", arg.variant, FRAMES)
    config = configlib.base()
    config.train_epochs = 5.0
    config.model.update(
        name="videoprism", variant=arg.variant, head="video_text", eps=1e-6,
        temporal_depth=4, remat="full", dtype="bfloat16",
    )  # fmt: skip
    # 0.01 is the temperature of the original's example.
    config.objective = dict(name="contrastive", loss_kind="softmax", temperature=0.01, parts=1)
    config.data.update(
        name="msrvtt", frames=frames, sampling="linspace", batch_size=128, size=288,
        short_side=288, resize="pil_lanczos", mean=(0.0,) * 3, std=(1.0,) * 3,
        augment="center_crop",
    )  # fmt: skip
    config.optim.update(lr=1e-5, warmup_epochs=0.5, weight_decay=1e-4, clip_norm=1.0)
    config.evals.val = dict(name="retrieval", every=500)
    if arg.demo:
        configlib.use_demo(config, steps=50, lr=1e-4, data="demo_captions")
        config.model.update(logit_scale=2.6592, remat="none")
        config.data.update(batch_size=64, text_length=16)
    return config
