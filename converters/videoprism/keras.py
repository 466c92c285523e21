"""KerasHub's presets of VideoPrism.

The four encoders are numbered by their place in the graph: spatial, temporal, text, then auxiliary,
the only one without a norm. Its text encoder has one norm more than the original's.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, formats, huggingface
from converters.formats import (
    CONFIG,
    IMAGE_CONVERTER,
    KERAS_TOKENIZER,
    KERAS_WEIGHTS,
    Source,
)
from converters.mapping import Rule
from converters.videoprism import (
    architecture,
    image_converter,
    inputs,
    published,
)
from vidjax.card import Card
from vidjax.errors import UserError

_DEFAULTS = {  # of VideoPrismBackbone, for what a config.json leaves out
    "vocabulary_size": 0,
    "num_text_layers": 0,
    "attention_logit_soft_cap": None,
    "layer_norm_epsilon": 1e-6,
    "image_shape": [288, 288, 3],
}
_INNER_NORM = "layers/video_prism_encoder_2/layer_norm"


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """The table of KerasHub's h5 file for the model that `build(**model)` makes."""
    layers = "layers/video_prism_"

    def variables(source: str, *targets: str) -> list[Rule]:
        return [Rule(f"{source}/vars/{k}", target) for k, target in enumerate(targets)]

    def dense(source: str, target: str) -> list[Rule]:
        return variables(source, f"{target}/kernel", f"{target}/bias")

    def norm(source: str, target: str) -> list[Rule]:
        return variables(source, f"{target}/scale", f"{target}/bias")

    def attention(source: str, target: str) -> list[Rule]:
        names = {"query": "query", "key": "key", "value": "value", "output": "out"}
        return [
            rule
            for name, ours in names.items()
            for rule in dense(f"{source}/{name}_dense", f"{target}/{ours}")
        ]

    def blocks(encoder: str, target: str) -> list[Rule]:
        block = f"{layers}{encoder}/encoder_layers/video_prism_encoder_block{{_i}}"
        blocks = f"{target}/blocks"
        return [
            *norm(f"{block}/layer_norm_1", f"{blocks}/norm1"),
            *norm(f"{block}/layer_norm_2", f"{blocks}/norm2"),
            *attention(f"{block}/mha", f"{blocks}/attn"),
            *dense(f"{block}/mlp/dense_1", f"{blocks}/mlp/fc1"),
            *dense(f"{block}/mlp/dense_2", f"{blocks}/mlp/fc2"),
        ]

    patches, pooler = f"{layers}patching_and_embedding", f"{layers}atten_token_pooling_layer"
    embed, table = "encoder/patch_embed", "(a n) d -> a n d"
    rules = [
        Rule(f"{patches}/patch_embedding/vars/0", f"{embed}/kernel", "(t h w c) d -> t h w c d"),
        Rule(f"{patches}/patch_embedding/vars/1", f"{embed}/bias"),
        Rule(f"{patches}/position_embedding/vars/0", "encoder/spatial/pos_embed", table),
        Rule(f"{layers}temporal_embedding/embedding/vars/0", "encoder/temporal/pos_embed", table),
        *blocks("encoder", "encoder/spatial"),
        *norm(f"{layers}encoder/layer_norm", "encoder/spatial/norm"),
        *(blocks("encoder_1", "encoder/temporal") if model["temporal_depth"] else ()),
        *norm(f"{layers}encoder_1/layer_norm", "encoder/temporal/norm"),
    ]
    if model["head"] == "video_text":
        rules += [
            *variables(f"{layers}embedding/token_embedding", "text/token_embed"),
            *variables(f"{layers}embedding/class_token", "text/cls_token"),
            *blocks("encoder_2", "text"),
            *(norm(_INNER_NORM, "text/inner_norm") if model["text_inner_norm"] else ()),
            *norm("layers/layer_normalization", "text/norm"),
            *(blocks("encoder_3", "auxiliary") if model["auxiliary_depth"] else ()),
            *variables(pooler, "pool/probe"),
            *attention(f"{pooler}/pooling_attention", "pool/attn"),
            *variables(
                f"{pooler}/pooling_attention/per_dim_scale_layer", "pool/attn/per_dim_scale"
            ),
            *norm(f"{pooler}/layer_norm", "pool/norm"),
        ]
    return rules


PATCH = "layers/video_prism_patching_and_embedding/patch_embedding/vars/0"


def describe(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "VideoPrism"), []
    if source.config is None:
        notes.append(f"no {CONFIG} beside the weights: all releases' numerics are assumed")
    released = {"attention_logit_soft_cap": published.SOFTCAP} if source.config is None else {}
    config = _DEFAULTS | released | (source.config or {}).get("config", {})

    def sizes(encoder: str) -> tuple[int, int, int]:
        """Layers, heads and MLP width."""
        blocks = f"layers/video_prism_{encoder}/encoder_layers/"
        block = f"{blocks}video_prism_encoder_block"
        heads = shape(f"{block}/mha/query_dense/vars/0")[1]
        return formats.count(tensors, blocks), heads, shape(f"{block}/mlp/dense_1/vars/0")[1]

    patches, width = shape(PATCH)
    depth, heads, mlp_dim = sizes("encoder")
    side = architecture.side(patches // 3, "the number of a patch's pixels")
    table = "layers/video_prism_patching_and_embedding/position_embedding/vars/0"
    rows = architecture.side(shape(table)[0], "the number of patches")
    model: dict[str, Any] = {
        "name": "videoprism",
        "head": None,
        "width": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_dim": mlp_dim,
        "eps": config["layer_norm_epsilon"],
        "scale_offset": 0.0,
        "softcap": config["attention_logit_soft_cap"] or 0.0,
        "patch_size": [1, side, side],
        "pos_grid": [
            shape("layers/video_prism_temporal_embedding/embedding/vars/0")[0],
            rows,
            rows,
        ],
        "temporal_depth": sizes("encoder_1")[0],
    }
    tokens = "layers/video_prism_embedding/token_embedding/vars/0"
    if tokens in tensors:
        text_depth, text_heads, text_mlp_dim = sizes("encoder_2")
        there = any(name.startswith("layers/video_prism_encoder_3/") for name in tensors)
        pooler = "layers/video_prism_atten_token_pooling_layer/pooling_attention"
        model |= {
            "head": "video_text",
            "auxiliary_depth": sizes("encoder_3")[0] if there else 0,
            "pool_dim": math.prod(shape(f"{pooler}/query_dense/vars/0")[1:]),
            "vocab_size": shape(tokens)[0],
            "text_depth": text_depth,
            "text_num_heads": text_heads,
            "text_mlp_dim": text_mlp_dim,
            "text_inner_norm": f"{_INNER_NORM}/vars/0" in tensors,
        }
    if options.heads not in (None, heads):
        raise UserError(f"--heads={options.heads}, but the file has {heads} heads; leave it out")
    if source.config is not None:
        huggingface.contradictions(config, _sizes(model))
    notes.append(
        "LayerNorm scales are kept as KerasHub's files have them (1 + the original's): exports to "
        "its format only"
    )
    published.note(source, options, notes)
    return Conversion(
        format="keras",
        model=model,
        rules=rules(model),
        ignore=(),
        naming={},
        preprocessing=inputs.preprocessing("keras", source, options, model, notes),
        tokenizer=inputs.tokenizer(source, options, model, published.LENGTH, notes),
        notes=notes,
    )


def _sizes(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model's sizes in the words of KerasHub's VideoPrismBackbone."""
    _, patch, _ = model["patch_size"]
    t, h, w = model["pos_grid"]
    text = model["head"] == "video_text"
    sizes = {
        "num_frames": t,
        "patch_size": patch,
        "hidden_dim": model["width"],
        "intermediate_dim": model["mlp_dim"],
        "num_heads": model["num_heads"],
        "num_spatial_layers": model["depth"],
        "num_temporal_layers": model["temporal_depth"],
        "vocabulary_size": model["vocab_size"] if text else 0,
        "num_text_layers": model["text_depth"] if text else 0,
        "image_shape": [h * patch, w * patch, 3],
    }
    return sizes | ({"num_auxiliary_layers": model["auxiliary_depth"]} if text else {})


def export(
    card: Card, originals: Mapping[str, bytes], left_out: list[str], notes: list[str]
) -> Export:
    model, head = card.model, card.model["head"]
    heads, text_mlp_dim = architecture.text_sizes(model)
    _, h, w = model["patch_size"] if head != "text" else (1, 1, 1)
    architecture.refuse(
        {
            f"head {head!r}": head not in (None, "video_text"),
            f"patches of {h}x{w}": h != w,
            "another pooler's width than 4 times the model's": architecture.pool_dim(model)
            not in (None, 4 * model["width"]),
            "other layers for texts": heads not in (None, model["num_heads"])
            or text_mlp_dim not in (None, model["mlp_dim"])
            or bool(model.get("text_norm_out")),
            "Hugging Face's text positions": model.get("text_pos_exponent", 1.0) != 1.0,
        },
        "KerasHub",
        "export by --format=hf or --format=original, where the model was trained for that",
    )
    files = dict(originals)
    files[CONFIG] = _config(model, originals.get(CONFIG))
    files.setdefault("metadata.json", huggingface.to_json(_METADATA))
    files[IMAGE_CONVERTER] = image_converter.write(card, originals.get(IMAGE_CONVERTER), notes)
    computed = {}
    if head and not model["text_inner_norm"]:
        values = np.ones(model["width"], np.float32), np.zeros(model["width"], np.float32)
        computed = {f"{_INNER_NORM}/vars/{k}": value for k, value in enumerate(values)}
    tokenizer = None
    if card.tokenizer and card.tokenizer["file"] == "tokenizer.model":
        tokenizer = KERAS_TOKENIZER
        files.setdefault("tokenizer.json", huggingface.to_json(_TOKENIZER))
    elif card.tokenizer:
        notes.append(
            "KerasHub wants a SentencePiece vocabulary, and the model has a tokenizer.json"
        )
    return Export(
        rules(model),
        KERAS_WEIGHTS,
        files,
        notes,
        computed=computed,
        left_out=left_out,
        tokenizer=tokenizer,
    )


_TOKENIZER = {
    "module": "keras_hub.src.models.video_prism.video_prism_tokenizer",
    "class_name": "VideoPrismTokenizer",
    "config": {"name": "video_prism_tokenizer", "proto": None, "config_file": "tokenizer.json"},
    "registered_name": "keras_hub>VideoPrismTokenizer",
}
_METADATA = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0", "tasks": []}


def _config(model: Mapping[str, Any], original: bytes | None) -> bytes:
    file = json.loads(original) if original else {}
    old = file.get("config", {})
    want = {"num_auxiliary_layers": 0} | _sizes(model)
    want |= {
        "attention_logit_soft_cap": model["softcap"] or None,
        "layer_norm_epsilon": model["eps"],
    }
    stated = _DEFAULTS | {"num_auxiliary_layers": 0} | old
    if original and all(stated.get(key) == value for key, value in want.items()):
        return original
    name = "VideoPrismBackbone"
    start = {
        "module": "keras_hub.src.models.video_prism.video_prism_backbone",
        "class_name": name,
        "config": {},
        "registered_name": f"keras_hub>{name}",
    }
    return huggingface.to_json(start | file | {"config": old | want})
