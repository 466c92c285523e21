"""VideoMAE's golden checkpoints, and made folders of Hugging Face's layout."""

import numpy as np

from converters import formats
from tests.support import hugging_face
from tests.support.goldens import GOLDENS

CASES = {
    "videomae_pretrain": dict(heads=4, decoder_heads=5, frames=16, size=18),
    "videomae_finetune_meanpool": dict(heads=4, frames=10, size=32),
    "videomae_finetune_nopool": dict(heads=2, frames=6, size=36),
    "videomaev2_pretrain": dict(heads=5, decoder_heads=2, frames=12, size=24),
    "videomaev2_finetune": dict(heads=3, frames=8, size=28),
}


def checkpoint(case):
    return GOLDENS / case / "checkpoint-0.pth"


def tensors_of(case):
    return dict(formats.read(checkpoint(case)))


# Hugging Face folders, made without transformers: names and shapes as in published files.

D, M, DEPTH, HEADS, CLASSES = 16, 24, 2, 4, 3
DD, DM = 12, 20


def hf_tensors(head, mean_pooling=True, bias="q_bias", seed=0):
    """A random file of VideoMAEModel (None), ForVideoClassification or ForPreTraining."""
    rng = np.random.default_rng(seed)

    def blocks(prefix, d, m):
        value = {"q_bias": "v_bias", "query.bias": "value.bias"}[bias]
        attention = f"{prefix}.attention.attention"
        return {
            f"{prefix}.layernorm_before.weight": (d,),
            f"{prefix}.layernorm_before.bias": (d,),
            f"{attention}.query.weight": (d, d),
            f"{attention}.key.weight": (d, d),
            f"{attention}.value.weight": (d, d),
            f"{attention}.{bias}": (d,),
            f"{attention}.{value}": (d,),
            f"{prefix}.attention.output.dense.weight": (d, d),
            f"{prefix}.attention.output.dense.bias": (d,),
            f"{prefix}.layernorm_after.weight": (d,),
            f"{prefix}.layernorm_after.bias": (d,),
            f"{prefix}.intermediate.dense.weight": (m, d),
            f"{prefix}.intermediate.dense.bias": (m,),
            f"{prefix}.output.dense.weight": (d, m),
            f"{prefix}.output.dense.bias": (d,),
        }

    root = "videomae." if head else ""
    patch = f"{root}embeddings.patch_embeddings.projection"
    shapes = {f"{patch}.weight": (D, 3, 2, 4, 4), f"{patch}.bias": (D,)}
    for i in range(DEPTH):
        shapes |= blocks(f"{root}encoder.layer.{i}", D, M)
    if not mean_pooling:
        shapes |= {f"{root}layernorm.weight": (D,), f"{root}layernorm.bias": (D,)}
    if head == "classify":
        if mean_pooling:
            shapes |= {"fc_norm.weight": (D,), "fc_norm.bias": (D,)}
        shapes |= {"classifier.weight": (CLASSES, D), "classifier.bias": (CLASSES,)}
    if head == "reconstruct":
        shapes |= {"encoder_to_decoder.weight": (DD, D), "mask_token": (1, 1, DD)}
        shapes |= blocks("decoder.decoder_layers.0", DD, DM)
        shapes |= {"decoder.norm.weight": (DD,), "decoder.norm.bias": (DD,)}
        shapes |= {"decoder.head.weight": (96, DD), "decoder.head.bias": (96,)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def hf_config(mean_pooling=True, **changes):
    return {
        "architectures": ["VideoMAEForVideoClassification"],
        "model_type": "videomae",
        "hidden_size": D,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": M,
        "patch_size": 4,
        "image_size": 8,
        "num_frames": 4,
        "use_mean_pooling": mean_pooling,
        "decoder_hidden_size": DD,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 3,
        "decoder_intermediate_size": DM,
        "id2label": {"0": "jump", "1": "run", "2": "swim"},
        "norm_pix_loss": True,
    } | changes


PROCESSOR = {
    "crop_size": {"height": 8, "width": 8},
    "size": {"shortest_edge": 10},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.1],
    "resample": 2,
}


HF_CONFIG = hf_config()


def hf_folder(folder, tensors=None, config=HF_CONFIG, processor=PROCESSOR):
    return hugging_face.write(folder, tensors or hf_tensors("classify"), config, processor)
