"""A classifier of your own videos, tens of them or more, from any checkpoint.

    python -m vidjax.train --config=configs/my_videos.py:videomae_b --workdir=runs/mine \
        --config.data.train=videos

`videos` is a folder with a folder of videos for each class, or any list with labels. A fifth of
each class is held out and validated on, unless config.data.val names a list: excerpts of one
recording belong on one side, which only a list can tell. Clips are sampled, sized and normalised as
the checkpoint's.
Argument: the checkpoint, of any family (a path with a comma or an equals sign is given as
--config.init instead); `full` trains the encoder, too, at a tenth of the rate and less in lower
layers; `demo`: 8 videos of each of the demo's classes.
Flips are off, as a mirrored video may be of another class (--config.data.flip=0.5 where it is not).
Hardware: one GPU or TPU, there with --config.model.dtype=bfloat16; on a CPU small encoders, or few
steps (--config.train_steps=50).
No accuracy is published for this recipe; the attentive head is VideoGLUE's (arXiv:2307.03166).
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, checkpoint="", full=False, demo=False)
    config = configlib.base()
    config.init = arg.checkpoint
    config.init_missing = ("pooler/.*", "norm/.*", "head/.*")
    config.train_epochs = 30.0
    config.min_steps = 300
    config.model.update(name="probe", head="classify", pool="attention", encoder={})
    config.objective = dict(name="classification", label_smoothing=0.1)
    config.data.update(
        name="custom", val_share=0.2, batch_size=16, augment="multi_scale_crop", flip=0.0,
        max_bad_share=0.5,  # a single bad video is a large share of a few
        cache="1GB",
    )  # fmt: skip
    config.optim.update(lr=1e-3, warmup_steps=30, weight_decay=0.05, clip_norm=1.0)
    if arg.full:
        config.optim.update(rates=(("backbone/.*", 0.1),), layer_decay=0.75)
    else:
        config.optim.freeze = ("backbone/.*",)
    config.evals.val = dict(name="classification", every=100)
    if arg.demo:
        configlib.use_demo(config, steps=300, lr=1e-3, batch_size=16, encoder="videomae")
        config.data.update(shots=8, val_share=0.0)
    else:
        configlib.unset_input(config)
    return config
