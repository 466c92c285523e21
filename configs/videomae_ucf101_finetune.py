"""VideoMAE fine-tuning on UCF101: else as videomae_k400_finetune.py.

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
    config = configlib.load_beside(__file__, "videomae_k400_finetune.py:B")
    config.train_epochs = 100.0
    config.model.update(drop_path=0.2, head_dropout=0.5)
    config.data.update(name="ucf101", batch_size=128, repeats=2, mix_group=32)
    config.optim.update(lr=5e-4, min_lr=1e-5, layer_decay=0.7)
    if arg.demo:
        configlib.use_demo(config, steps=500, lr=1e-3)
    return config
