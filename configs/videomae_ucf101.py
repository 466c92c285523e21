"""VideoMAE pre-training on UCF101, from nothing: else as videomae_k400.py.

    python -m vidjax.train --config=configs/videomae_ucf101.py --workdir=runs/videomae_ucf101 \
        --config.data.train=ucf101/trainlist01.txt --config.data.val=ucf101/testlist01.txt

Argument: `demo`.
Hardware: the reference used 8 GPUs with 24 clips each; the rates here follow the batch size.
Published top-1 on UCF101 after fine-tuning (16x5x3 views), for weights of the original code; not
measured here: B 91.3. The mask ratio is 0.75, not the 0.9 of the larger datasets.
Unlike the reference, the model computes in bfloat16 (there float16 with loss scaling), and it
trains for as many epochs as are named (the scripts say one more, 3201 for 3200).
Source: Tong et al. 2022 (arXiv:2203.12602), MCG-NJU/VideoMAE scripts/pretrain and MODEL_ZOO.md.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, demo=False)
    config = configlib.load_beside(__file__, "videomae_k400.py:B,epochs=3200")
    config.objective.mask_ratio = 0.75
    config.data.update(name="ucf101", batch_size=192)
    config.optim.lr = 3e-4
    if arg.demo:
        configlib.use_pretraining_demo(config)
    return config
