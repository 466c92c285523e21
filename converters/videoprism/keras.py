"""KerasHub's presets of VideoPrism.

The four encoders are numbered by their place in the graph: spatial, temporal, text, then auxiliary,
the only one without a norm. The text encoder has one norm more than the original's.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, formats, huggingface, limits
from converters.formats import CONFIG, IMAGE_CONVERTER, KERAS_TOKENIZER, KERAS_WEIGHTS, Source
from converters.mapping import Rule
from converters.rules import QKV
from converters.videoprism import inputs, keras_json, published
from vidjax.card import Card

_LAYERS = "layers/video_prism_"
_PATCHES, _POOLER = f"{_LAYERS}patching_and_embedding", f"{_LAYERS}atten_token_pooling_layer"
_PATCH, _POSITIONS = f"{_PATCHES}/patch_embedding/vars/0", f"{_PATCHES}/position_embedding/vars/0"
_TIMES, _TOKENS = f"{_LAYERS}temporal_embedding/embedding", f"{_LAYERS}embedding/token_embedding"
_INNER_NORM = f"{_LAYERS}encoder_2/layer_norm"


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """Returns the rules of KerasHub's h5 file for the model that `build(**model)` makes."""
    embed, table = "encoder/patch_embed", "(a n) d -> a n d"
    rules = [
        Rule(_PATCH, f"{embed}/kernel", "(t h w c) d -> t h w c d"),
        Rule(f"{_PATCHES}/patch_embedding/vars/1", f"{embed}/bias"),
        Rule(_POSITIONS, "encoder/spatial/pos_embed", table),
        Rule(f"{_TIMES}/vars/0", "encoder/temporal/pos_embed", table),
        *_blocks("encoder", "encoder/spatial"),
        *_norm(f"{_LAYERS}encoder/layer_norm", "encoder/spatial/norm"),
    ]
    if model["temporal_depth"]:
        rules += _blocks("encoder_1", "encoder/temporal")
    rules += _norm(f"{_LAYERS}encoder_1/layer_norm", "encoder/temporal/norm")
    if model["head"] != "video_text":
        return rules
    rules += _variables(_TOKENS, "text/token_embed")
    rules += _variables(f"{_LAYERS}embedding/class_token", "text/cls_token")
    rules += _blocks("encoder_2", "text")
    if model["text_inner_norm"]:
        rules += _norm(_INNER_NORM, "text/inner_norm")
    rules += _norm("layers/layer_normalization", "text/norm")
    if model["auxiliary_depth"]:
        rules += _blocks("encoder_3", "auxiliary")
    attention = f"{_POOLER}/pooling_attention"
    return [
        *rules,
        *_variables(_POOLER, "pool/probe"),
        *_attention(attention, "pool/attn"),
        *_variables(f"{attention}/per_dim_scale_layer", "pool/attn/per_dim_scale"),
        *_norm(f"{_POOLER}/layer_norm", "pool/norm"),
    ]


def _variables(source: str, *targets: str) -> list[Rule]:
    return [Rule(f"{source}/vars/{k}", target) for k, target in enumerate(targets)]


def _dense(source: str, target: str) -> list[Rule]:
    return _variables(source, f"{target}/kernel", f"{target}/bias")


def _norm(source: str, target: str) -> list[Rule]:
    return _variables(source, f"{target}/scale", f"{target}/bias")


def _attention(source: str, target: str) -> list[Rule]:
    names = [(name, name) for name in QKV] + [("output", "out")]
    return [
        r for theirs, ours in names for r in _dense(f"{source}/{theirs}_dense", f"{target}/{ours}")
    ]


def _blocks(encoder: str, target: str) -> list[Rule]:
    block = f"{_LAYERS}{encoder}/encoder_layers/video_prism_encoder_block{{_i}}"
    return [
        *_norm(f"{block}/layer_norm_1", f"{target}/blocks/norm1"),
        *_norm(f"{block}/layer_norm_2", f"{target}/blocks/norm2"),
        *_attention(f"{block}/mha", f"{target}/blocks/attn"),
        *_dense(f"{block}/mlp/dense_1", f"{target}/blocks/mlp/fc1"),
        *_dense(f"{block}/mlp/dense_2", f"{target}/blocks/mlp/fc2"),
    ]


def recognises(source: Source) -> bool:
    return _PATCH in source.tensors


def describe(source: Source, options: Options) -> Conversion:
    notes = []
    if source.config is None:
        notes.append(f"no {CONFIG} beside the weights: all releases' numerics are assumed")
        config = keras_json.DEFAULTS | {"attention_logit_soft_cap": published.SOFTCAP}
    else:
        config = keras_json.DEFAULTS | source.config.get("config", {})
    model = {"name": "videoprism", "eps": config["layer_norm_epsilon"], "scale_offset": 0.0}
    model["softcap"] = config["attention_logit_soft_cap"] or 0.0
    model |= _sizes(source.tensors)
    limits.check_heads(options, model["num_heads"])
    if source.config is not None:
        huggingface.contradictions(config, keras_json.sizes(model))
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
        tokenizer=inputs.tokenizer(source, options, model, published.TEXT_LENGTH, notes),
        notes=notes,
    )


def _sizes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the head and the sizes that the tensors' names and shapes tell."""
    shape = formats.shapes(tensors, "VideoPrism")

    def stack(encoder: str, prefix: str = "") -> dict[str, int]:
        blocks = f"{_LAYERS}{encoder}/encoder_layers/"
        block = f"{blocks}video_prism_encoder_block"
        return {
            f"{prefix}depth": formats.count(tensors, blocks),
            f"{prefix}num_heads": shape(f"{block}/mha/query_dense/vars/0")[1],
            f"{prefix}mlp_dim": shape(f"{block}/mlp/dense_1/vars/0")[1],
        }

    patch_pixels, width = shape(_PATCH)
    side = limits.side(patch_pixels // 3, "a patch's pixels", "VideoPrism")
    rows = limits.side(shape(_POSITIONS)[0], "patches", "VideoPrism")
    model = {"head": None, "width": width, "patch_size": [1, side, side]}
    model["pos_grid"] = [shape(f"{_TIMES}/vars/0")[0], rows, rows]
    model |= stack("encoder")
    model["temporal_depth"] = stack("encoder_1")["depth"]
    if f"{_TOKENS}/vars/0" in tensors:
        has_auxiliary = any(name.startswith(f"{_LAYERS}encoder_3/") for name in tensors)
        query = f"{_POOLER}/pooling_attention/query_dense/vars/0"
        model |= stack("encoder_2", "text_")
        model |= {
            "head": "video_text",
            "auxiliary_depth": stack("encoder_3")["depth"] if has_auxiliary else 0,
            "pool_dim": math.prod(shape(query)[1:]),
            "vocab_size": shape(f"{_TOKENS}/vars/0")[0],
            "text_inner_norm": f"{_INNER_NORM}/vars/0" in tensors,
        }
    return model


def export(card: Card, naming: Mapping[str, Any] | None, originals: Mapping[str, bytes]) -> Export:
    model, head, notes = card.model, card.model["head"], []
    _check_expressible(model)
    files = dict(originals)
    files[CONFIG] = keras_json.config(model, originals.get(CONFIG))
    files.setdefault("metadata.json", huggingface.to_json(keras_json.METADATA))
    converter = originals.get(IMAGE_CONVERTER)
    files[IMAGE_CONVERTER] = keras_json.converter(card.preprocessing, converter, notes)
    computed = {}
    if head and not model["text_inner_norm"]:
        values = np.ones(model["width"], np.float32), np.zeros(model["width"], np.float32)
        computed = {f"{_INNER_NORM}/vars/{k}": value for k, value in enumerate(values)}
    vocabulary = None
    if card.tokenizer and card.tokenizer["file"] == "tokenizer.model":
        vocabulary = KERAS_TOKENIZER
        files.setdefault("tokenizer.json", keras_json.tokenizer())
    elif card.tokenizer:
        notes.append("KerasHub wants a SentencePiece vocabulary; the model has a tokenizer.json")
    return Export(
        rules(model), KERAS_WEIGHTS, files, notes, computed=computed, tokenizer=vocabulary
    )


def _check_expressible(model: Mapping[str, Any]) -> None:
    head, width = model["head"], model["width"]
    _, h, w = model.get("patch_size", (1, 1, 1))
    reasons = {
        f"head {head!r}": head not in (None, "video_text"),
        f"patches of {h}x{w}": h != w,
        "another pooler's width than 4 times the model's": published.pool_dim(model)
        not in (None, 4 * width),
    }
    if model["head"] in published.TEXTS:
        expected = (model["num_heads"], model.get("mlp_dim", 4 * width))
        reasons["other layers for texts"] = (
            published.text_sizes(model) != expected or model["text_norm_out"]
        )
        reasons["Hugging Face's text positions"] = model["text_pos_exponent"] != 1.0
    otherwise = "export by --format=hf or --format=original, where the model was trained for that"
    limits.refuse("KerasHub", "VideoPrism", reasons, otherwise)
