"""ViViT on Kinetics-600, from an ImageNet ViT: else as vivit_k400.py:L_encoder.

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
    config = configlib.load_beside(__file__, f"vivit_k400.py:L_encoder,frames={arg.frames}")
    # Unset: the defaults, of which this factorisation reads only the pool.
    del config.model.attention_order, config.init_options.temporal_attention, config.model.pool
    config.init_missing = ("head/.*", "encoder/temporal/.*")
    config.data.name = "k600"
    config.optim.lr = 0.05
    config.evals.val.every = 5_000
    if arg.demo:
        configlib.use_demo(config, steps=300, lr=0.1)
    return config
