"""ViViT's golden checkpoints, image models, and made folders of Hugging Face's layout."""

import functools

import numpy as np

from converters import formats, vivit
from tests.support import converting, hugging_face
from tests.support.goldens import GOLDENS

CASES = {
    "vivit_spacetime": dict(frames=10, size=32),
    "vivit_factorised_encoder": {},
    "vivit_factorised_self_attention": dict(frames=6, size=32, attention_order="time_space"),
    "vivit_factorised_dot_product": dict(frames=10, size=32, factorisation="dot_product"),
}
FILES = {"vivit_spacetime": "checkpoint_100", "vivit_factorised_encoder": "checkpoint_153"}

# Saving costs half a second a folder: what the command does, but in memory.
described = functools.partial(converting.described, vivit)
written = functools.partial(converting.written, vivit)


def checkpoint(case):
    return GOLDENS / case / FILES.get(case, "params.npz")


def weights_of(case):
    """The golden's weights by the names of Scenic's current tree."""
    tensors = formats.read(checkpoint(case))
    roots = ("optimizer/target/", "params/", "")
    root = next(root for root in roots if root + "embedding/kernel" in tensors)
    return {n.removeprefix(root): tensors[n] for n in tensors if n.startswith(root)}


PRE_LINEN = {
    "LayerNorm_1": "LayerNorm_2",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "MlpBlock_0": "MlpBlock_3",
}


def pre_linen(tensors):
    return {"/".join(PRE_LINEN.get(w, w) for w in n.split("/")): t for n, t in tensors.items()}


def flat(tensors, tokens, seed=0):
    """A golden's weights with a 2-D kernel and a position table for so many patches."""
    table = "Transformer/posembed_input/pos_embedding"
    positions = np.random.default_rng(seed).standard_normal(
        (1, tokens + ("cls" in tensors), tensors[table].shape[-1]), np.float32
    )
    return tensors | {"embedding/kernel": tensors["embedding/kernel"][0], table: positions}


def image_vit(tokens=9, prefix=""):
    """A file as vision_transformer's of ImageNet-21k: names before Linen, pre-logits, `head`."""
    tensors = pre_linen(flat(weights_of("vivit_spacetime"), tokens))
    rng = np.random.default_rng(1)
    for name in ("kernel", "bias"):
        tensors[f"head/{name}"] = tensors.pop(f"output_projection/{name}")
        shape = (42, 42) if name == "kernel" else (42,)
        tensors[f"pre_logits/{name}"] = rng.standard_normal(shape, np.float32)
    return {prefix + name: tensor for name, tensor in tensors.items()}


# Hugging Face folders, made without transformers: names and shapes as in published files.

D, M, DEPTH, HEADS, CLASSES, TOKENS = 16, 24, 2, 4, 3, 2 * 2 * 2


def hf_tensors(head, layers="encoder.layer", pooler=True):
    """A random file of VivitModel (None) or VivitForVideoClassification."""
    rng, old = np.random.default_rng(0), layers == "encoder.layer"
    root = "vivit." if head else ""
    shapes = {
        f"{root}embeddings.cls_token": (1, 1, D),
        f"{root}embeddings.position_embeddings": (1, TOKENS + 1, D),
        f"{root}embeddings.patch_embeddings.projection.weight": (D, 3, 2, 4, 4),
        f"{root}embeddings.patch_embeddings.projection.bias": (D,),
        f"{root}layernorm.weight": (D,),
        f"{root}layernorm.bias": (D,),
    }
    linears = {
        "attention.attention.query" if old else "attention.q_proj": (D, D),
        "attention.attention.key" if old else "attention.k_proj": (D, D),
        "attention.attention.value" if old else "attention.v_proj": (D, D),
        "attention.output.dense" if old else "attention.o_proj": (D, D),
        "intermediate.dense" if old else "mlp.fc1": (M, D),
        "output.dense" if old else "mlp.fc2": (D, M),
        "layernorm_before": (D,),
        "layernorm_after": (D,),
    }
    for i in range(DEPTH):
        for name, shape in linears.items():
            shapes[f"{root}{layers}.{i}.{name}.weight"] = shape
            shapes[f"{root}{layers}.{i}.{name}.bias"] = shape[:1]
    if head:
        shapes |= {"classifier.weight": (CLASSES, D), "classifier.bias": (CLASSES,)}
    elif pooler:
        shapes |= {"pooler.dense.weight": (D, D), "pooler.dense.bias": (D,)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def hf_config(**changes):
    return {
        "architectures": ["VivitForVideoClassification"],
        "model_type": "vivit",
        "hidden_size": D,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": M,
        "tubelet_size": [2, 4, 4],
        "image_size": 8,
        "num_frames": 4,
        "hidden_act": "gelu_fast",
        "layer_norm_eps": 1e-6,
        "video_size": [32, 224, 224],  # in the published file, of an older VivitConfig
        "id2label": {"0": "jump", "1": "run", "2": "swim"},
    } | changes


PROCESSOR = {  # the published one
    "crop_size": {"height": 8, "width": 8},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "VivitImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "offset": True,
    "resample": 2,
    "rescale_factor": 0.00784313725490196,
    "size": {"shortest_edge": 10},
}


HF_CONFIG = hf_config()


def hf_folder(folder, tensors=None, config=HF_CONFIG, processor=PROCESSOR):
    return hugging_face.write(folder, tensors or hf_tensors("classify"), config, processor)
