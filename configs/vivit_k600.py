"""ViViT on Kinetics-600, from an ImageNet ViT.

    python -m converters.convert --from=ViT-L_16.npz --to=vit_l16
    python -m vidjax.train --config=configs/vivit_k600.py --workdir=runs/vivit_l_k600 \
        --config.init=vit_l16/ --config.data.train=k600/train.manifest.jsonl \
        --config.data.val=k600/val.manifest.jsonl

`config.init` as in vivit_k400.py.
Argument: `frames`; `demo`. The model is L with a factorised encoder.
Hardware: the reference trained on TPU pods; a batch has 64 videos whatever the hardware.
Published top-1 (4x3 views), for weights of the original code; not measured here: 81.6.
Departures from the reference as in vivit_k400.py.
Source: Arnab et al. 2021 (arXiv:2103.15691), google-research/scenic projects/vivit/configs.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, frames=32, demo=False)
    config = configlib.base()
    config.train_epochs = 30.0
    config.model.update(
        name="vivit", variant="L", head="classify", eps=1e-6,
        factorisation="encoder", temporal_depth=24,
        **configlib.unset_keys(pos_grid=tuple, patch_size=tuple, sampled_frames=int),
        drop_path=0.0, dropout=0.0, dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(
        name="classification", label_smoothing=0.0, mixup=0.0, color_jitter=0.8, grey=0.1
    )
    config.init_missing = ("head/.*", "encoder/temporal/.*")
    config.init_options = dict(inflation="central_frame")
    config.data.update(
        name="k600", frames=arg.frames, stride=2, sampling="dense_cycle", batch_size=64,
        size=224, short_side=256, resize="tf_bilinear", mean=(0.5,) * 3, std=(0.5,) * 3,
        augment="scale_jitter", flip=0.5,
    )  # fmt: skip
    config.optim.update(
        name="sgd", momentum=0.9, lr=0.05, warmup_epochs=2.5, clip_norm=1.0, clip_parts=32
    )
    config.evals.val = dict(name="classification", every=5_000)
    config.evals.test = dict(name="classification", views=(4, 3), average="logits")
    if arg.demo:
        configlib.use_demo(config, steps=300, lr=0.1)
    return config
