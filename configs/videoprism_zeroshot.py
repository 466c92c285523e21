"""Zero-shot classification by a video-text VideoPrism: the class whose name fits best.

    python -m vidjax.eval --config=configs/videoprism_zeroshot.py --checkpoint=lvt_b \
        --config.data.name=k400 --config.data.val=k400/val.csv \
        --config.data.classes=k400/classes.txt

Any labelled list will do, with --config.data.name=custom for classes of your own. Names go into the
templates of `--config.evals.val.templates="('a video of {}.', '{}')"`, of which several are an
ensemble: the mean of their unit vectors.
Argument: `frames` (16 for B, 8 for L); `demo`, for a run of configs/videoprism_stage1.py:demo.
Published top-1 on K400 for the released weights; not measured here: B 69.2, L 72.4 (the paper says
that it used CLIP's templates, not which).
Source: Zhao et al. 2024 (arXiv:2402.13217) and the README of google-deepmind/videoprism.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, frames=16, demo=False)
    config = configlib.base()
    config.train_steps = 1  # it only evaluates
    config.model.update(
        name="videoprism", variant="B", head="video_text", eps=1e-6, temporal_depth=4,
        dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(name="contrastive", temperature=0.01)
    config.data.update(
        name="k400", frames=arg.frames, sampling="linspace", batch_size=32, size=288,
        short_side=288, resize="pil_lanczos", mean=(0.0,) * 3, std=(1.0,) * 3,
        augment="center_crop",
    )  # fmt: skip
    config.evals.val = dict(name="zero_shot", templates=("a video of {}.",))
    if arg.demo:
        configlib.use_demo(config, steps=1, lr=1e-4, data="demo_captions")
        colours = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
        config.evals.val.templates = tuple(f"a {colour} shape {{}}" for colour in colours)
    return config
