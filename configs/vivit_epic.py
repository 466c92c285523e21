"""ViViT on Epic-Kitchens-100: nouns and verbs at once, from a ViViT of Kinetics-400.

    python -m converters.convert --from=checkpoint --to=vivit_l_k400
    python -m vidjax.train --config=configs/vivit_epic.py --workdir=runs/vivit_l_epic \
        --config.init=vivit_l_k400/ --config.data.train=epic/EPIC_100_train.csv \
        --config.data.val=epic/EPIC_100_validation.csv --config.data.root=epic/clips

The csv files are the dataset's own; each row is a clip <narration_id>.mp4, cut beforehand from
its long video between start_timestamp and stop_timestamp.
`config.init` as in vivit_ssv2.py.
Argument: `frames`; `demo`, whose two answers are the kind of a motion and its direction. The model
is L with a factorised encoder; its 397 scores are 300 nouns and 97 verbs. An action is right if
both are.
Hardware: the reference trained on TPU pods; a batch has 64 videos whatever the hardware.
Published action top-1 (4x1 views), for weights of the original code; not measured here: 43.6.
Departures from the reference as in vivit_k400.py. Mixup draws one weight for each of the 32 shards,
as there for each device.
Source: Arnab et al. 2021 (arXiv:2103.15691), google-research/scenic projects/vivit/configs.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, frames=32, demo=False)
    config = configlib.load_beside(__file__, f"vivit_k400.py:L_encoder,frames={arg.frames}")
    config.train_epochs = 50.0
    config.model.update(temporal_depth=4, drop_path=0.2)
    # Unset: the defaults, of which this factorisation reads only the pool.
    del config.model.attention_order, config.init_options.temporal_attention, config.model.pool
    config.objective.update(label_smoothing=0.2, mixup=0.1, color_jitter=0.0, grey=0.0)
    # An image has no temporal encoder, and the released Kinetics model's is deeper.
    config.init_missing = ("head/.*", "encoder/temporal/.*")
    config.data.update(name="epic_kitchens", stride=1, rand_augment="scenic-n2-m15")
    config.optim.lr = 0.5
    config.evals.val.every = 1_000
    config.evals.test.views = (4, 1)
    if arg.demo:
        configlib.use_demo(config, steps=300, lr=0.1)
        config.data.name = "demo_pairs"
    return config
