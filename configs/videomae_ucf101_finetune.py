"""VideoMAE fine-tuning on UCF101.

    python -m vidjax.train --config=configs/videomae_ucf101_finetune.py --workdir=runs/ucf101_b \
        --config.init=videomae_base/ --config.data.train=ucf101/trainlist01.txt \
        --config.data.val=ucf101/testlist01.txt

`config.init` is a converted checkpoint or the workdir of a pre-training run.
Argument: `demo`.
Hardware: the reference used 8 GPUs; the rates here follow the batch size.
Published top-1 (16x5x3 views), for weights of the original code; not measured here: B 91.3 after
pre-training on UCF101 alone, 96.1 after pre-training on Kinetics-400.
Unlike the reference, which computes in float16 with loss scaling, the model computes in bfloat16.
Source: Tong et al. 2022 (arXiv:2203.12602), MCG-NJU/VideoMAE scripts/finetune and MODEL_ZOO.md.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, demo=False)
    config = configlib.base()
    config.train_epochs = 100.0
    config.model.update(
        name="videomae", variant="B", head="classify", eps=1e-6,
        fc_norm_eps=configlib.unset(float), pos_grid=configlib.unset(tuple),
        drop_path=0.2, head_dropout=0.5, dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(
        name="classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0, erase=0.25
    )
    # The head and its norm start fresh; the decoder and the last norm have no place here.
    config.init_missing = ("fc_norm/.*", "head/.*")
    config.init_unused = ("encoder/norm/.*", "encoder_to_decoder/.*", "mask_token", "decoder/.*")
    config.data.update(
        name="ucf101", frames=16, stride=4, sampling="dense_linspace",
        batch_size=128, repeats=2, mix_group=32,
        augment="random_resized_crop", flip=0.5, rand_augment="rand-m7-n4-mstd0.5-inc1",
    )  # fmt: skip
    config.optim.update(
        lr=5e-4, min_lr=1e-5, lr_batch_size=256, warmup_epochs=5.0,
        weight_decay=0.05, layer_decay=0.7,
    )  # fmt: skip
    config.evals.val = dict(name="classification", every=2_000)
    config.evals.test = dict(name="classification", views=(5, 3))
    if arg.demo:
        configlib.use_demo(config, steps=500, lr=1e-3)
    return config
