"""VideoMAE V2 pre-training: VideoMAE with dual masking, in sizes up to giant.

    python -m vidjax.train --config=configs/videomaev2_pretrain.py:g --workdir=runs/videomaev2_g \
        --config.data.train=hybrid/train.manifest.jsonl --config.data.val=hybrid/val.manifest.jsonl

The encoder sees a tenth of the patches (tubes), the decoder predicts half of all (running cells).
Lists need no labels; the reference mixes several datasets (UnlabeledHybrid).
Argument: variant B, L, H or g, for each of which the reference has a script; `epochs`; `demo`.
Hardware: the reference used 32 (B), 48 (L) and 64 (H, g) GPUs with 32 videos each; the rates here
follow the batch size.
An epoch takes 4 clips of every video (config.data.repeats), which the model zoo counts as 4 epochs.
Published top-1 of g on Kinetics-400 after fine-tuning (16x5x3 views), for weights of the original
code; not measured here: 87.2.
Unlike VideoMAE's, the decoders of L and H have 4 layers, and that of H is 512 wide.
Unlike the reference, the model computes in bfloat16 (there float16 with loss scaling), and every
video is read with stride 4 (there those of Something-Something with 2).
Source: Wang et al. 2023 (arXiv:2303.16727), OpenGVLab/VideoMAEv2 scripts/pretrain and MODEL_ZOO.md.
"""

from vidjax import configlib

RECIPES = {
    "B": dict(lr=1e-3, batch_size=1024, epochs=200.0, warmup=20.0),
    "L": dict(lr=1e-3, batch_size=1536, epochs=300.0, warmup=30.0),
    "H": dict(
        lr=1e-3, batch_size=2048, epochs=300.0, warmup=30.0,
        decoder=dict(decoder_width=512, decoder_num_heads=8, decoder_mlp_dim=2048),
    ),
    "g": dict(lr=6e-4, batch_size=2048, epochs=300.0, warmup=30.0, clip_norm=0.02),
}  # fmt: skip


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B", epochs=0.0, demo=False)
    recipe = configlib.choose("variant", arg.variant, RECIPES)
    config = configlib.base()
    config.train_epochs = arg.epochs or recipe["epochs"]
    config.model.update(
        name="videomae", variant=arg.variant, head="reconstruct", eps=1e-6,
        decoder_depth=4, drop_path=0.0, dtype="bfloat16",
    )  # fmt: skip
    config.model.update(recipe.get("decoder", {}))
    if arg.variant in ("H", "g"):
        config.model.remat = "full"
    config.objective = dict(
        name="masked_autoencoding", mask_ratio=0.9, norm_pix=True, decoder_mask_ratio=0.5
    )
    config.data.update(
        name="custom", frames=16, stride=4, batch_size=recipe["batch_size"], repeats=4
    )
    config.optim.update(
        lr=recipe["lr"], min_lr=1e-5, lr_batch_size=256, warmup_epochs=recipe["warmup"],
        weight_decay=0.05, b2=0.95, clip_norm=recipe.get("clip_norm", 0.0),
    )  # fmt: skip
    config.evals.val = dict(name="loss", every=5_000)
    config.evals.pictures = dict(name="reconstruction", every=5_000)
    if arg.demo:
        configlib.use_pretraining_demo(config)
    return config
