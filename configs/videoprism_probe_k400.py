"""An attentive probe of a frozen VideoPrism on Kinetics-400, as VideoGLUE does it.

    python -m converters.convert --from=videoprism_public_v1_base --to=videoprism_b
    python -m vidjax.train --config=configs/videoprism_probe_k400.py --workdir=runs/probe \
        --config.init=videoprism_b --config.data.train=k400/train.manifest.jsonl \
        --config.data.val=k400/val.manifest.jsonl

Argument: `frames`; `demo`, with --config.init=a run of videoprism_stage1.py:demo or stage2's, or
without, to see what random features are worth.
Hardware: the encoder runs forward only; a batch of 256 clips takes as much memory as its features.
Published top-1 for the released weights; not measured here: B 82.9, L 85.0 (both frozen).
Given by the papers: one attention pooler with the encoder's heads (12 in B), AdamW, cosine, batch
256. Chosen here, as they do not say: rate, epochs, weight decay, and 4x3 test views.
Source: Zhao et al. 2024 (arXiv:2402.13217), appendix; Yuan et al. 2023 (arXiv:2307.03166).
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, frames=16, demo=False)
    config = configlib.base()
    config.train_epochs = 30.0
    config.model.update(
        name="probe", head="classify", pool="attention", head_dropout=0.5,
        encoder={}, dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(name="classification", label_smoothing=0.0)
    config.init_missing = ("pooler/.*", "head/.*")
    config.data.update(
        name="k400", frames=arg.frames, stride=4, batch_size=256, size=288, short_side=288,
        resize="pil_lanczos", mean=(0.0,) * 3, std=(1.0,) * 3, augment="random_resized_crop",
        flip=0.5, rand_augment="rand-m7-n4-mstd0.5-inc1",
    )  # fmt: skip
    config.optim.update(lr=1e-3, warmup_epochs=2.5, weight_decay=1e-4, freeze=("backbone/.*",))
    config.evals.val = dict(name="classification", every=2_000)
    config.evals.test = dict(name="classification", views=(4, 3))
    if arg.demo:
        configlib.use_demo(config, steps=300, lr=3e-3, data="demo_captions")
        config.model.encoder = dict(  # unless config.init brings one
            name="videoprism", width=64, depth=2, num_heads=4, mlp_dim=256, temporal_depth=2,
            eps=1e-6, patch_size=(1, 8, 8), pos_grid=(8, 4, 4),
        )  # fmt: skip
    return config
