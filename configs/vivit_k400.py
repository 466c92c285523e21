"""ViViT on Kinetics-400, from an ImageNet ViT.

    python -m converters.convert --from=ViT-B_16.npz --to=vit_b16
    python -m vidjax.train --config=configs/vivit_k400.py:B --workdir=runs/vivit_b \
        --config.init=vit_b16/ --config.data.train=k400/train.manifest.jsonl \
        --config.data.val=k400/val.manifest.jsonl

`config.init` is an image ViT, which is inflated to video (the reference's are trained on
ImageNet-21k), or a converted or trained ViViT of the same factorisation and width.
Argument: variant B (joint), B_encoder, L_encoder; B_self_attention and B_dot_product, for which no
recipe was published, have B's; `frames`; `demo`.
Hardware: the reference trained on TPU pods; a batch has 64 videos whatever the hardware.
Published top-1 (4x3 views), for weights of the original code; not measured here: B 79.9,
B_encoder 78.4, L_encoder 80.3.
The reference clips the gradient of each device before their mean, and does not say how many devices
it had. Here there are 32 shards of 2 clips (config.optim.clip_parts) whatever the hardware: with
fewer clips on a device, its mixup, which stays on the device, would do nothing.
Unlike the reference, frames are resized once (there twice), the spatial encoder starts with the
image model's class token (there with zeros), the rate reaches its peak one step earlier, and the
model computes in bfloat16 (--config.model.dtype=float32 is theirs).
Source: Arnab et al. 2021 (arXiv:2103.15691), google-research/scenic projects/vivit/configs.
"""

from vidjax import configlib

RECIPES = {
    "B": dict(variant="B", factorisation="joint", lr=0.1),
    "B_encoder": dict(variant="B", factorisation="encoder", lr=0.05),
    "B_self_attention": dict(variant="B", factorisation="self_attention", pool="mean", lr=0.1),
    "B_dot_product": dict(variant="B", factorisation="dot_product", pool="mean", lr=0.1),
    # The released weights have 24 temporal layers; the paper says 4 for all its models.
    "L_encoder": dict(variant="L", factorisation="encoder", temporal_depth=24, lr=0.1),
}


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B", frames=32, demo=False)
    recipe = configlib.choose("variant", arg.variant, RECIPES)
    config = configlib.base()
    config.train_epochs = 30.0
    config.model.update(
        name="vivit", variant=recipe["variant"], head="classify", eps=1e-6,
        factorisation=recipe["factorisation"], pool=recipe.get("pool", "token"),
        temporal_depth=recipe.get("temporal_depth", 4), attention_order="time_space",
        drop_path=0.0, dropout=0.0, dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(
        name="classification", label_smoothing=0.0, mixup=0.0, color_jitter=0.8, grey=0.1
    )
    # An image has no temporal encoder, no norm_time and other classes.
    config.init_missing = ("head/.*", "encoder/temporal/.*", "encoder/blocks/norm_time/.*")
    config.init_options = dict(inflation="central_frame", temporal_attention="copy")
    config.data.update(
        name="k400", frames=arg.frames, stride=2, sampling="dense_cycle", batch_size=64,
        size=224, short_side=256, resize="tf_bilinear", mean=(0.5,) * 3, std=(0.5,) * 3,
        augment="scale_jitter", flip=0.5,
    )  # fmt: skip
    config.optim.update(
        name="sgd", momentum=0.9, lr=recipe["lr"], warmup_epochs=2.5, clip_norm=1.0, clip_parts=32
    )
    config.evals.val = dict(name="classification", every=2_000)
    config.evals.test = dict(name="classification", views=(4, 3), average="logits")
    if arg.demo:
        configlib.use_demo(config, steps=300, lr=0.1)
    return config
