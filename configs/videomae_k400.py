"""VideoMAE pre-training on Kinetics-400.

    python -m vidjax.train --config=configs/videomae_k400.py:B --workdir=runs/videomae_b \
        --config.data.train=k400/train.manifest.jsonl --config.data.val=k400/val.manifest.jsonl

Argument: variant S, B, L or H; `epochs=800` or any other number; `demo`.
Hardware: the reference used 64 V100 for B; the rates here follow the batch size.
Published top-1 on Kinetics-400 after fine-tuning (16x5x3 views), for weights of the original code;
not measured here: S 79.0 (1600 epochs), B 80.0 (800) and 81.5 (1600), L 85.2, H 86.6 (1600).
Unlike the reference, the model computes in bfloat16 (there float16 with loss scaling), and it
trains for as many epochs as are named (the scripts say one more, 1601 for 1600).
Source: Tong et al. 2022 (arXiv:2203.12602), MCG-NJU/VideoMAE scripts/pretrain and MODEL_ZOO.md.
"""

from vidjax import configlib

BATCH_SIZE = {"S": 1024, "B": 2048, "L": 512, "H": 1024}


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B", epochs=1600.0, demo=False)
    batch_size = configlib.choose("variant", arg.variant, BATCH_SIZE)
    config = configlib.base()
    config.train_epochs = arg.epochs
    config.model.update(
        name="videomae", variant=arg.variant, head="reconstruct", eps=1e-6,
        drop_path=0.0, dtype="bfloat16",
    )  # fmt: skip
    # decoder_mask_ratio=0.5 is VideoMAE V2's dual masking.
    config.objective = dict(
        name="masked_autoencoding", mask_ratio=0.9, norm_pix=True, decoder_mask_ratio=0.0
    )
    config.data.update(name="k400", frames=16, stride=4, batch_size=batch_size)
    config.optim.update(
        lr=1.5e-4, min_lr=1e-5, lr_batch_size=256, warmup_epochs=40.0, weight_decay=0.05, b2=0.95
    )
    config.evals.val = dict(name="loss", every=5_000)
    config.evals.pictures = dict(name="reconstruction", every=5_000)
    if arg.demo:
        configlib.use_pretraining_demo(config)
    return config
