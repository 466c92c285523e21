"""VideoPrism's first stage: videos and texts by contrastive learning.

    python -m vidjax.train --config=configs/videoprism_stage1.py:B --workdir=runs/stage1 \
        --config.data.train=clips.jsonl --config.data.val=val.jsonl \
        --config.data.tokenizer=sentencepiece.model

Lists hold lines of {"path": ..., "captions": [...]} (or csv with the columns path and caption).
`config.init` may be a converted VideoPrism with texts, to go on from.
Argument: variant B, L or g; `frames`; `demo`.
Hardware: the reference trained on TPU pods; 4096 videos a step whatever the hardware
(--config.objective.parts=8 and --config.grad_accum bound the memory; the latter compares clips
within their part only).
Published zero-shot R@1 text-to-video (MSR-VTT 1K), for weights of the original authors, whose data
is not public; not measured here: B 51.4.
Unlike the reference, the spatial layers do not start from CoCa's image tower, one list is read
rather than several in turn, and the scale of the similarities starts at 1 / 0.07 (the paper does
not say). The paper gives the text tower's rate as 1e-4 for B and 5e-5 for g, the rest 5e-4.
Source: Zhao et al. 2024 (arXiv:2402.13217), section 3.2 and appendix.
"""

from vidjax import configlib

TEXT_RATES = {"B": 0.2, "L": 0.2, "g": 0.1}


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B", frames=8, demo=False)
    rate = configlib.choose("variant", arg.variant, TEXT_RATES)
    config = configlib.base()
    config.train_steps = 200_000
    config.model.update(
        name="videoprism", variant=arg.variant, head="video_text", eps=1e-6,
        auxiliary_depth=0, logit_scale=2.6592, temporal_depth=4,
        remat="full", dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(name="contrastive", loss_kind="softmax", drop_tokens=0.5, parts=1)
    config.data.update(
        name="custom", frames=arg.frames, sampling="linspace", batch_size=4096, size=288,
        short_side=288, resize="pil_lanczos", mean=(0.0,) * 3, std=(1.0,) * 3,
        augment="center_crop",
    )  # fmt: skip
    config.optim.update(
        name="adafactor", schedule="linear", lr=5e-4, warmup_steps=20_000, weight_decay=1e-4,
        rates=(("text/.*", rate),),
    )  # fmt: skip
    config.evals.val = dict(name="retrieval", every=5_000)
    if arg.demo:
        configlib.use_demo(config, steps=600, lr=2e-3, data="demo_captions")
        config.model.remat = "none"
        config.data.update(batch_size=64, text_length=16)
        config.optim.update(name="adamw", rates=(), clip_norm=1.0, b2=0.95, warmup_epochs=4.0)
    return config
