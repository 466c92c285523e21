"""Hugging Face folders of VideoPrism.

The files hold their table of text positions, made by a formula that is not the original's, or was
when the file was made; the table tells.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, formats, huggingface, limits, processors
from converters.formats import CONFIG, Source
from converters.mapping import Ignore, Rule
from converters.rules import attention, linear, norm, patch_embed
from converters.videoprism import hf_config, inputs, published
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.models.layers.positions import sinusoid

_PATCH = "spatial_embeddings.patch_embeddings.projection.weight"
_CLASS_TOKEN = "embeddings.cls_emb"
_TOKENIZERS = {"tokenizer.model": "spiece.model", "tokenizer.json": "tokenizer.json"}


@dataclass(frozen=True)
class Naming:
    """Spelling of the names in one Hugging Face file.

    Attributes:
        encoder, video, text: before the names of the encoder, of what is above it, and of the text
            tower.
        buffers: which of the text positions' tensors are in the file.
    """

    encoder: str = ""
    video: str = ""
    text: str = ""
    buffers: Sequence[str] = ("position_embedding", "position_ids")

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> "Naming":
        """Reads the spelling from the tensors' names."""
        encoders = [name.removesuffix(_PATCH) for name in tensors if name.endswith(_PATCH)]
        texts = [n.removesuffix(_CLASS_TOKEN) for n in tensors if n.endswith(_CLASS_TOKEN)]
        encoder, text = (prefixes[0] if prefixes else "" for prefixes in (encoders, texts))
        buffers = [name for name in cls.buffers if texts and f"{text}embeddings.{name}" in tensors]
        return cls(encoder, encoder.removesuffix("vision_model."), text, buffers)


_NAMINGS = {
    None: Naming(),
    "video": Naming(encoder="vision_model."),
    "text": Naming(),
    "video_text": Naming("video_model.vision_model.", "video_model.", "text_model."),
    "classify": Naming(encoder="vision_model."),
}


def rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """Returns the rules of a Hugging Face file for the model that `build(**model)` makes."""
    encoder, video, text = naming.encoder, naming.video, naming.text
    head, rules = model["head"], []
    if head != "text":
        rules += patch_embed(f"{encoder}spatial_embeddings.patch_embeddings.projection")
        for stage, last in (("spatial", "layernorm1"), ("temporal", "layernorm2")):
            target = f"encoder/{stage}"
            table = f"{encoder}{stage}_embeddings.position_embeddings"
            rules.append(Rule(table, f"{target}/pos_embed"))
            if stage == "spatial" or model["temporal_depth"]:
                rules += _blocks(f"{encoder}{stage}_layers", target)
            rules += norm(encoder + last, f"{target}/norm")
    if head in ("video", "video_text") and model["auxiliary_depth"]:
        rules += _blocks(f"{video}auxiliary_layers", "auxiliary")
    if head in ("video", "video_text", "classify"):
        rules += [
            Rule(f"{video}head.pooling_attention_query", "pool/probe", "() a d -> a d"),
            Rule(f"{video}head.per_dim_scale", "pool/attn/per_dim_scale"),
            *attention(f"{video}head", "pool/attn", out="o_proj"),
            *norm(f"{video}head_layernorm", "pool/norm"),
        ]
    if model["head"] in published.TEXTS:
        rules += [
            Rule(f"{text}embeddings.token_embedding.weight", "text/token_embed"),
            Rule(text + _CLASS_TOKEN, "text/cls_token"),
            *_blocks(f"{text}layers", "text"),
            *norm(f"{text}layernorm", "text/norm"),
        ]
    if head == "classify" and model["num_classes"]:
        rules += linear(f"{video}classifier", "head")
    return rules


def _blocks(layers: str, target: str) -> list[Rule]:
    block = f"{layers}.{{i}}"
    return [
        *norm(f"{block}.layernorm_before", f"{target}/blocks/norm1"),
        *norm(f"{block}.layernorm_after", f"{target}/blocks/norm2"),
        *attention(f"{block}.attention", f"{target}/blocks/attn", out="o_proj"),
        *linear(f"{block}.mlp.fc1", f"{target}/blocks/mlp/fc1"),
        *linear(f"{block}.mlp.fc2", f"{target}/blocks/mlp/fc2"),
    ]


def recognises(source: Source) -> bool:
    return any(name.endswith((_PATCH, _CLASS_TOKEN)) for name in source.tensors)


def describe(source: Source, options: Options) -> Conversion:
    tensors, notes, is_stated = source.tensors, [], source.config is not None
    naming = Naming.of(tensors)
    if not is_stated:
        notes.append(f"no {CONFIG} beside the weights: all releases' numerics are assumed")
    parts = hf_config.parts_of(source.config)
    model = {"name": "videoprism", "scale_offset": 1.0}
    model |= _sizes(tensors, naming, parts["vision_config"]["image_size"] if is_stated else None)

    def num_heads(part: str) -> int:
        stated = parts[part]["num_attention_heads"] if is_stated else None
        width, given = model["width"], options.heads
        return huggingface.num_heads("heads", width, given, stated, published.HEADS, notes)

    if model["head"] != "text":
        model["num_heads"] = num_heads("vision_config")
    if model["head"] in published.TEXTS:
        model["text_num_heads"] = num_heads("text_config")
        model.setdefault("num_heads", model["text_num_heads"])
        model["text_pos_exponent"] = _text_pos_exponent(tensors, naming, model["width"], notes)
    if model["head"] not in (None, "classify"):  # which normalise no vector
        model["l2_eps"] = 1e-6
    model |= hf_config.numerics(parts, model)
    if is_stated:
        for part, sizes in hf_config.sizes(model).items():
            huggingface.contradictions(parts[part], sizes)
    published.note(source, options, notes)
    length = parts["text_config"]["max_position_embeddings"]
    return Conversion(
        format="hf",
        model=model,
        rules=rules(model, naming),
        ignore=_ignored(naming),
        naming=asdict(naming),
        preprocessing=inputs.preprocessing("hf", source, options, model, notes),
        tokenizer=inputs.tokenizer(source, options, model, length, notes),
        kept=hf_config.kept(source.config or {}, model["head"] in published.TEXTS),
        classes=huggingface.classes(source.config, model, notes),
        notes=notes,
    )


def _sizes(tensors: Mapping[str, Any], naming: Naming, image_size: Any) -> dict[str, Any]:
    """Returns the head and the sizes that tensors tell, with config.json's image_size."""
    shape, model = formats.shapes(tensors, "VideoPrism"), {"head": "text"}
    encoder, video, text = naming.encoder, naming.video, naming.text
    if encoder + _PATCH in tensors:
        width, channels, *patch = shape(encoder + _PATCH)
        huggingface.check_channels(channels)
        frames, patches = (
            shape(f"{encoder}{stage}_embeddings.position_embeddings")[1]
            for stage in ("temporal", "spatial")
        )
        model = {
            "head": None,
            "width": width,
            "depth": formats.count(tensors, f"{encoder}spatial_layers."),
            "mlp_dim": shape(f"{encoder}spatial_layers.0.mlp.fc1.weight")[0],
            "patch_size": patch,
            "temporal_depth": formats.count(tensors, f"{encoder}temporal_layers."),
            "pos_grid": [frames, *hf_config.grid(patches, patch, image_size)],
        }
        query, classifier = f"{video}head.q_proj.weight", f"{video}classifier.weight"
        if query in tensors:
            model |= {"head": "video", "pool_dim": shape(query)[0]}
            if classifier in tensors:
                model |= {"head": "classify", "num_classes": shape(classifier)[0]}
                if not model["num_classes"]:
                    raise UserError(
                        "the file's classifier has num_labels 0, with which transformers' "
                        "VideoPrism gives no values at all; save its vision_model alone"
                    )
            else:
                model["auxiliary_depth"] = formats.count(tensors, f"{video}auxiliary_layers.")
    if text + _CLASS_TOKEN in tensors:
        vocab_size, width = shape(f"{text}embeddings.token_embedding.weight")
        model = {"width": width} | model
        model |= {
            "head": "text" if model["head"] == "text" else "video_text",
            "vocab_size": vocab_size,
            "text_depth": formats.count(tensors, f"{text}layers."),
            "text_mlp_dim": shape(f"{text}layers.0.mlp.fc1.weight")[0],
        }
    return model


def _text_pos_exponent(
    tensors: Mapping[str, np.ndarray], naming: Naming, width: int, notes: list[str]
) -> float:
    """Returns the exponent of the file's table [length, D] of text positions."""
    name, hf_exponent = f"{naming.text}embeddings.position_embedding", 1 - 2 / width
    if name not in tensors:
        notes.append("no table of text positions in the file: transformers' formula is assumed")
        notes.append("text positions by transformers' formula, not the original's")
        return hf_exponent
    table = tensors[name]
    exact = table.astype(np.float64)
    # Rounding of the table's dtype; and of a float32 computation, whose angles reach 64.
    tolerance = 2e-5 if table.dtype == np.float32 else 8e-3
    formulas = {
        1.0: "text positions by the original's formula, as the file's table shows",
        hf_exponent: "text positions by transformers' formula, not the original's",
    }
    for exponent, note in formulas.items():
        if np.abs(sinusoid(*table.shape, exponent) - exact).max() < tolerance:
            notes.append(note)
            return exponent
    raise UserError(
        "the file's table of text positions (position_embedding) is made neither by the original's "
        "formula nor by transformers'; if it was trained, VideoPrism here cannot hold it"
    )


def _ignored(naming: Naming) -> list[Ignore]:
    reason = "made anew by a formula that the model's card names"
    checks = {"position_embedding": None, "position_ids": huggingface.counts}
    return [
        Ignore(f"{naming.text}embeddings.{name}", reason, check=checks[name], keep=True)
        for name in naming.buffers
    ]


def export(card: Card, naming: Mapping[str, Any] | None, originals: Mapping[str, bytes]) -> Export:
    model, head, notes = card.model, card.model["head"], []
    pool_dim, mlp_dim = published.pool_dim(model), model.get("mlp_dim", 0)
    divisible = mlp_dim - mlp_dim % model["num_heads"]  # heads of equal width
    reasons = {
        f"a pooler of width {pool_dim} instead of the MLP's {mlp_dim}": pool_dim
        not in (None, divisible),
        "norms after the branches of text layers": model.get("text_norm_out"),
        "a second norm of texts": model.get("text_inner_norm"),
        "no soft cap": not model["softcap"],
        "a classifier without classes": model.get("num_classes") == 0,
    }
    limits.refuse("transformers", "VideoPrism", reasons, "export by --format=original")
    if model.get("groups"):
        notes.append("transformers takes the groups of classes for one: split its logits yourself")
    files = dict(originals)
    files[CONFIG] = hf_config.write(card, originals.get(CONFIG))
    if head != "text":
        files |= processors.export(originals, card.preprocessing, published.PROCESSORS, notes)
    spelling = Naming(**naming) if naming else _NAMINGS[head]
    computed = {}
    if model["head"] in published.TEXTS:
        text = hf_config.parts_of(json.loads(files[CONFIG]))["text_config"]
        length = text["max_position_embeddings"]
        table = sinusoid(length, model["width"], model["text_pos_exponent"])
        tensors = {
            "position_embedding": table.astype(np.float32),
            "position_ids": np.arange(length)[None],
        }
        prefix = f"{spelling.text}embeddings."
        computed = {prefix + name: tensors[name] for name in spelling.buffers}
    return Export(
        rules(model, spelling),
        "model.safetensors",
        files,
        notes,
        computed=computed,
        tokenizer=card.tokenizer and _TOKENIZERS[card.tokenizer["file"]],
    )
