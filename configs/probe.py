"""A probe of any frozen encoder: what its features are worth on labelled videos.

    python -m vidjax.train --config=configs/probe.py:attention --workdir=runs/probe \
        --config.init=videomae_b/ --config.data.name=ucf101 \
        --config.data.train=ucf101/trainlist01.txt --config.data.val=ucf101/testlist01.txt

`config.init` is a converted or trained checkpoint of any family; the numerics of its input (mean,
std, resize) come with it, while frames, stride and size are `config.data`'s.
Argument: pool, "attention" (a learned query attends to all tokens) or "mean" (a linear layer on
the pooled feature); `frames`, `size`; `demo`, with --config.init=a demo run, or without, to see
what random features are worth.
Hardware: the encoder runs forward only.
No accuracy is published for this recipe as a whole; the attentive probe is VideoGLUE's
(arXiv:2307.03166).
"""

from vidjax import configlib

RATES = {"attention": 1e-3, "mean": 3e-3}


def get_config(arg=None):
    arg = configlib.parse_arg(arg, pool="attention", frames=16, size=224, demo=False)
    rate = configlib.choose("pool", arg.pool, RATES)
    config = configlib.base()
    config.train_epochs = 30.0
    config.model.update(
        name="probe", head="classify", pool=arg.pool, head_dropout=0.0, encoder={},
        dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(name="classification", label_smoothing=0.0)
    config.init_missing = ("pooler/.*", "norm/.*", "head/.*")
    config.data.update(
        name="custom", frames=arg.frames, size=arg.size, short_side=arg.size, batch_size=256,
        augment="random_resized_crop", flip=0.5,
    )  # fmt: skip
    config.optim.update(lr=rate, warmup_epochs=2.5, weight_decay=1e-4, freeze=("backbone/.*",))
    config.evals.val = dict(name="classification", every=2_000)
    config.evals.test = dict(name="classification", views=(4, 3))
    if arg.demo:
        configlib.use_demo(config, steps=300, lr=3e-3, encoder="videomae")
    return config
