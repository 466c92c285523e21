"""ViViT on Something-Something v2, from one of Kinetics-400: else as vivit_k400.py:L_encoder.

    python -m converters.convert --from=checkpoint --to=vivit_l_k400
    python -m vidjax.train --config=configs/vivit_ssv2.py --workdir=runs/vivit_l_ssv2 \
        --config.init=vivit_l_k400/ --config.data.train=ssv2/train.manifest.jsonl \
        --config.data.val=ssv2/val.manifest.jsonl

`config.init` is a converted or trained ViViT with a factorised encoder, whose position tables are
resized, or an image ViT, as in vivit_k400.py. The temporal encoder starts fresh unless it has 4
layers there too; the released Kinetics model has 24.
Argument: `frames`; `demo`. The model is L with a factorised encoder, on clips of 256 x 256.
Hardware: the reference trained on TPU pods; a batch has 64 videos whatever the hardware.
Published top-1/top-5 of the paper, for weights that were never released: 65.9/89.9.
Departures from the reference as in vivit_k400.py. Mixup draws one weight for each of the 32 shards,
as there for each device. The reference's published loader mirrors clips, which would make labels
such as "pushing something from left to right" wrong; a comment in it says that the one used for
this dataset did not, and neither do we.
Source: Arnab et al. 2021 (arXiv:2103.15691), google-research/scenic projects/vivit/configs.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, frames=32, demo=False)
    config = configlib.load_beside(__file__, f"vivit_k400.py:L_encoder,frames={arg.frames}")
    config.train_epochs = 35.0
    config.model.update(temporal_depth=4, drop_path=0.3)
    # Unset: the defaults, of which this factorisation reads only the pool.
    del config.model.attention_order, config.init_options.temporal_attention, config.model.pool
    config.objective.update(label_smoothing=0.3, mixup=0.3, color_jitter=0.0, grey=0.0)
    # An image has no temporal encoder, and the released Kinetics model's is deeper.
    config.init_missing = ("head/.*", "encoder/temporal/.*")
    config.data.update(
        name="ssv2", stride=1, size=256, short_side=288, flip=0.0, rand_augment="scenic-n2-m20"
    )
    config.optim.lr = 0.4
    if arg.demo:
        configlib.use_demo(config, steps=300, lr=0.1)
    return config
