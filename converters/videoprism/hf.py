"""Hugging Face folders of VideoPrism.

The files hold their table of text positions, made by a formula that is not the original's, or was
when the file was made; the table tells.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, formats, huggingface, processors
from converters.formats import (
    CONFIG,
    Source,
)
from converters.mapping import Ignore, Rule
from converters.videoprism import (
    architecture,
    hf_config,
    inputs,
    published,
)
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.models.layers.positions import sinusoid


@dataclass(frozen=True)
class Naming:
    """How one Hugging Face file spells the names.

    Attributes:
        encoder, video, text: before the names of the encoder, of what is above it, and of the text
            tower.
        buffers: which of the text positions' tensors are in the file.
    """

    encoder: str = ""
    video: str = ""
    text: str = ""
    buffers: Sequence[str] = ("position_embedding", "position_ids")


_NAMINGS = {
    None: Naming(),
    "video": Naming(encoder="vision_model."),
    "text": Naming(),
    "video_text": Naming("video_model.vision_model.", "video_model.", "text_model."),
    "classify": Naming(encoder="vision_model."),
}


def rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """The table of a Hugging Face file for the model that `build(**model)` makes."""
    encoder, video, text = naming.encoder, naming.video, naming.text

    def pair(source: str, target: str, layout: str = "", bias: str = "") -> list[Rule]:
        return [
            Rule(f"{source}.weight", f"{target}/kernel", layout),
            Rule(f"{source}.bias", f"{target}/bias", bias),
        ]

    def norm(source: str, target: str) -> list[Rule]:
        rules = pair(source, target)
        return [Rule(rules[0].source, f"{target}/scale"), rules[1]]

    def attention(source: str, target: str) -> list[Rule]:
        rules = pair(f"{source}.o_proj", f"{target}/out", "d (h k) -> h k d")
        for name in ("query", "key", "value"):
            layouts = "(h k) d -> d h k", "(h k) -> h k"
            rules += pair(f"{source}.{name[0]}_proj", f"{target}/{name}", *layouts)
        return rules

    def blocks(layers: str, target: str) -> list[Rule]:
        block, blocks = f"{layers}.{{i}}", f"{target}/blocks"
        rules = norm(f"{block}.layernorm_before", f"{blocks}/norm1")
        rules += norm(f"{block}.layernorm_after", f"{blocks}/norm2")
        rules += attention(f"{block}.attention", f"{blocks}/attn")
        for name in ("fc1", "fc2"):
            rules += pair(f"{block}.mlp.{name}", f"{blocks}/mlp/{name}", "o i -> i o")
        return rules

    head, rules = model["head"], []
    if head != "text":
        patches = f"{encoder}spatial_embeddings.patch_embeddings.projection"
        rules += pair(patches, "encoder/patch_embed", "d c t h w -> t h w c d")
        for stage, last in (("spatial", "layernorm1"), ("temporal", "layernorm2")):
            target = f"encoder/{stage}"
            table = f"{encoder}{stage}_embeddings.position_embeddings"
            rules.append(Rule(table, f"{target}/pos_embed"))
            if stage == "spatial" or model["temporal_depth"]:
                rules += blocks(f"{encoder}{stage}_layers", target)
            rules += norm(encoder + last, f"{target}/norm")
    if head in ("video", "video_text") and model["auxiliary_depth"]:
        rules += blocks(f"{video}auxiliary_layers", "auxiliary")
    if head in ("video", "video_text", "classify"):
        rules += [
            Rule(f"{video}head.pooling_attention_query", "pool/probe", "() a d -> a d"),
            Rule(f"{video}head.per_dim_scale", "pool/attn/per_dim_scale"),
            *attention(f"{video}head", "pool/attn"),
            *norm(f"{video}head_layernorm", "pool/norm"),
        ]
    if head in ("text", "video_text"):
        rules += [
            Rule(f"{text}embeddings.token_embedding.weight", "text/token_embed"),
            Rule(f"{text}embeddings.cls_emb", "text/cls_token"),
            *blocks(f"{text}layers", "text"),
            *norm(f"{text}layernorm", "text/norm"),
        ]
    if head == "classify" and model["num_classes"]:
        rules += pair(f"{video}classifier", "head", "o i -> i o")
    return rules


PATCH = "spatial_embeddings.patch_embeddings.projection.weight"
TEXT_TOKEN = "embeddings.cls_emb"


def describe(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "VideoPrism"), []
    encoders = [name.removesuffix(PATCH) for name in tensors if name.endswith(PATCH)]
    texts = [n.removesuffix(TEXT_TOKEN) for n in tensors if n.endswith(TEXT_TOKEN)]
    encoder, text = (found[0] if found else "" for found in (encoders, texts))
    video = encoder.removesuffix("vision_model.")
    known = [name for name in Naming.buffers if f"{text}embeddings.{name}" in tensors]
    naming = Naming(encoder, video, text, known if texts else [])
    parts = hf_config.parts_of(source, notes)

    model: dict[str, Any] = {"name": "videoprism", "scale_offset": 1.0, "l2_eps": 1e-6}
    stated = source.config is not None

    def heads(width: int, config: Mapping[str, Any]) -> int:
        found = config["num_attention_heads"] if stated else None
        return huggingface.num_heads("heads", width, options.heads, found, published.HEADS, notes)

    if encoders:
        width, channels, *patch = shape(encoder + PATCH)
        huggingface.check_channels(channels)
        mlp_dim = shape(f"{encoder}spatial_layers.0.mlp.fc1.weight")[0]
        model |= {
            "head": None,
            "width": width,
            "depth": formats.count(tensors, f"{encoder}spatial_layers."),
            "num_heads": heads(width, parts["vision_config"]),
            "mlp_dim": mlp_dim,
            "patch_size": patch,
            "temporal_depth": formats.count(tensors, f"{encoder}temporal_layers."),
        }
        model["pos_grid"] = _grid(
            shape(f"{encoder}temporal_embeddings.position_embeddings")[1],
            shape(f"{encoder}spatial_embeddings.position_embeddings")[1],
            patch,
            parts["vision_config"]["image_size"] if stated else None,
        )
        if f"{video}head.q_proj.weight" in tensors:
            model |= {"head": "video", "pool_dim": shape(f"{video}head.q_proj.weight")[0]}
            if f"{video}classifier.weight" in tensors:
                num_classes = shape(f"{video}classifier.weight")[0]
                if not num_classes:
                    raise UserError(
                        "the file's classifier has num_labels 0, with which transformers' "
                        "VideoPrism gives no values at all; save its vision_model alone"
                    )
                model |= {"head": "classify", "num_classes": num_classes}
            else:
                model["auxiliary_depth"] = formats.count(tensors, f"{video}auxiliary_layers.")
    if texts:
        vocab_size, width = shape(f"{text}embeddings.token_embedding.weight")
        text_heads = heads(width, parts["text_config"])
        model = {"width": width, "num_heads": text_heads} | model
        model |= {
            "head": "video_text" if encoders else "text",
            "vocab_size": vocab_size,
            "text_depth": formats.count(tensors, f"{text}layers."),
            "text_num_heads": text_heads,
            "text_mlp_dim": shape(f"{text}layers.0.mlp.fc1.weight")[0],
        }
        table = f"{text}embeddings.position_embedding"
        model["text_pos_exponent"] = 1 - 2 / width
        if table in tensors:
            model["text_pos_exponent"] = _text_pos_exponent(tensors[table])
        else:
            notes.append("no table of text positions in the file: transformers' formula is assumed")
        if model["text_pos_exponent"] == 1:
            notes.append("text positions by the original's formula, as the file's table shows")
        else:
            notes.append("text positions by transformers' formula, not the original's")
    if model["head"] in (None, "classify"):  # which normalise no vector
        del model["l2_eps"]
    model |= hf_config.numerics(parts, model)
    if stated:
        for part, sizes in hf_config.sizes_of(model).items():
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
        kept=hf_config.kept(source.config or {}, bool(texts)),
        classes=huggingface.classes(source.config, model, notes),
        notes=notes,
    )


def _grid(frames: int, patches: int, patch: Sequence[int], image_size: Any) -> list[int]:
    if image_size is None:
        rows = columns = architecture.side(patches, "the number of patches")
    else:
        sides = hf_config.sides(image_size)
        rows, columns = (side // step for side, step in zip(sides, patch[1:], strict=True))
    if rows * columns != patches:
        raise UserError(
            f"{CONFIG} has image_size {image_size}, {rows} x {columns} patches, but the position "
            f"table is for {patches}; fetch both anew from one place"
        )
    return [frames, rows, columns]


def _text_pos_exponent(table: np.ndarray) -> float:
    """The field by which this table [length, D] of text positions was made.

    Raises:
        UserError: by none that is known.
    """
    exact = table.astype(np.float64)
    # Rounding of the table's dtype; and of a float32 computation, whose angles reach 64.
    tolerance = 2e-5 if table.dtype == np.float32 else 8e-3
    for exponent in (1.0, 1 - 2 / table.shape[1]):
        if np.abs(sinusoid(*table.shape, exponent) - exact).max() < tolerance:
            return exponent
    raise UserError(
        "the file's table of text positions (position_embedding) is made neither by the original's "
        "formula nor by transformers'; if it was trained, VideoPrism here cannot hold it"
    )


def _ignored(naming: Naming) -> list[Ignore]:
    def not_counting(ids: np.ndarray) -> str | None:
        return None if np.array_equal(ids, np.arange(ids.size)[None]) else "not 0, 1, 2, ..."

    reason = "made anew by a formula that the model's card names"
    checks = {"position_embedding": None, "position_ids": not_counting}
    return [
        Ignore(f"{naming.text}embeddings.{name}", reason, check=checks[name], keep=True)
        for name in naming.buffers
    ]


def export(
    card: Card,
    naming: Mapping[str, Any] | None,
    originals: Mapping[str, bytes],
    left_out: list[str],
    notes: list[str],
) -> Export:
    model, head = card.model, card.model["head"]
    pool_dim, mlp_dim = architecture.pool_dim(model), model.get("mlp_dim", 0)
    known = mlp_dim - mlp_dim % model["num_heads"]  # heads of equal width
    architecture.refuse(
        {
            f"a pooler of width {pool_dim} instead of the MLP's {mlp_dim}": pool_dim
            not in (None, known),
            "norms after the branches of text layers": bool(model.get("text_norm_out")),
            "a second norm of texts": bool(model.get("text_inner_norm")),
            "no soft cap": not model["softcap"],
            "a classifier without classes": head == "classify" and not model["num_classes"],
        },
        "transformers",
        "export by --format=original",
    )
    if model.get("groups"):
        notes.append("transformers takes the groups of classes for one: split its logits yourself")
    files = {name: content for name, content in originals.items() if name != CONFIG}
    files |= {
        CONFIG: hf_config.write(card, originals.get(CONFIG)),
    }
    if head != "text":
        files |= processors.export(originals, card.preprocessing, inputs.PROCESSORS, notes)
    naming = Naming(**naming) if naming else _NAMINGS[head]
    computed = {}
    if head in ("text", "video_text"):
        text = json.loads(files[CONFIG])
        length = (hf_config.TEXT | text.get("text_config", text))["max_position_embeddings"]
        table = sinusoid(length, model["width"], model["text_pos_exponent"])
        tensors = {
            "position_embedding": table.astype(np.float32),
            "position_ids": np.arange(length)[None],
        }
        computed = {f"{naming.text}embeddings.{name}": tensors[name] for name in naming.buffers}
    return Export(
        rules(model, naming),
        "model.safetensors",
        files,
        notes,
        computed=computed,
        left_out=left_out,
        tokenizer=card.tokenizer and _TOKENIZERS[card.tokenizer["file"]],
    )


_TOKENIZERS = {"tokenizer.model": "spiece.model", "tokenizer.json": "tokenizer.json"}
