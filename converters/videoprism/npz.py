"""google-deepmind's npz files: a Flax tree.

The layers of a stack are one array each, layer first (`x_layers`).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from converters import Conversion, Export, Options, formats, huggingface
from converters.formats import (
    NPZ_SUFFIX,
    Source,
)
from converters.mapping import Rule
from converters.videoprism import architecture, inputs, published
from vidjax.card import Card
from vidjax.errors import UserError


@dataclass(frozen=True)
class Naming:
    """How one npz file spells the names.

    Attributes:
        root: before every name.
        encoder: before the video encoder's (after `root`): "" in a backbone's file, "encoder/" in
            a classifier's.
        scanned: whether the layers of a stack are one array.
    """

    root: str = "params/"
    encoder: str = "vision_encoder/"
    scanned: bool = True


def rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """The table of an npz file for the model that `build(**model)` makes."""
    root, encoder = naming.root, naming.root + naming.encoder
    layer, stacked = ("x_layers", "l ") if naming.scanned else ("x_layers_{i}", "")

    def norm(source: str, target: str) -> list[Rule]:
        return [Rule(f"{source}/{name}", f"{target}/{name}") for name in ("scale", "bias")]

    def linear(source: str, target: str, layout: str = "") -> list[Rule]:
        return [
            Rule(f"{source}/linear/kernel", f"{target}/kernel", layout),
            Rule(f"{source}/linear/bias", f"{target}/bias"),
        ]

    def attention(source: str, target: str, stacked: str) -> list[Rule]:
        post = f"{stacked}d h k -> {stacked}h k d"
        rules = []
        for theirs, ours, layout in (
            *((name, name, "") for name in ("query", "key", "value")),
            ("post", "out", post),
        ):
            rules.append(Rule(f"{source}/{theirs}/w", f"{target}/{ours}/kernel", layout))
            rules.append(Rule(f"{source}/{theirs}/b", f"{target}/{ours}/bias"))
        return rules

    def blocks(stack: str, target: str, norm_out: bool = False) -> list[Rule]:
        block, ff, blocks = f"{stack}/{layer}", f"{stack}/{layer}/ff_layer", f"{target}/blocks"
        before = "pre_layer_norm" if norm_out else "layer_norm"
        rules = norm(f"{block}/{before}", f"{blocks}/norm1")
        rules += norm(f"{ff}/{before}", f"{blocks}/norm2")
        if norm_out:
            rules += norm(f"{block}/post_layer_norm", f"{blocks}/norm1_out")
            rules += norm(f"{ff}/post_layer_norm", f"{blocks}/norm2_out")
        rules += attention(f"{block}/self_attention", f"{blocks}/attn", stacked)
        rules += linear(f"{ff}/ffn_layer1", f"{blocks}/mlp/fc1")
        return rules + linear(f"{ff}/ffn_layer2", f"{blocks}/mlp/fc2")

    head, rules = model["head"], []
    if head != "text":
        patches = "(t h w c) d -> t h w c d"
        rules += linear(f"{encoder}patch_projection", "encoder/patch_embed", patches)
        for stage in ("spatial", "temporal"):
            target = f"encoder/{stage}"
            table = f"{encoder}{stage}_pos_emb/emb_var"
            rules.append(Rule(table, f"{target}/pos_embed", "(a n) d -> a n d"))
            if stage == "spatial" or model["temporal_depth"]:
                rules += blocks(f"{encoder}{stage}_encoder/transformers_stack", target)
            rules += norm(f"{encoder}{stage}_ln", f"{target}/norm")
    if head in ("video", "video_text") and model["auxiliary_depth"]:
        rules += blocks(f"{root}auxiliary_encoder/transformers_stack", "auxiliary")
    if head in ("video", "video_text", "classify"):
        pooler = root + _pooler(head)
        attn = f"{pooler}/pooling_attention"
        rules.append(Rule(f"{pooler}/pooling_attention_query", "pool/probe"))
        rules += attention(attn, "pool/attn", "")
        rules.append(Rule(f"{attn}/per_dim_scale/per_dim_scale", "pool/attn/per_dim_scale"))
        rules += norm(f"{pooler}/pooling_attention_layer_norm", "pool/norm")
    if head in ("text", "video_text"):
        text = f"{root}text_encoder"
        rules += [
            Rule(f"{text}/token_emb/emb_var", "text/token_embed"),
            Rule(f"{text}/cls_emb", "text/cls_token"),
            *blocks(f"{text}/unimodal_transformer", "text", model["text_norm_out"]),
            *norm(f"{text}/unimodal_ln", "text/norm"),
        ]
    if head == "classify" and model["num_classes"]:
        rules += linear(f"{root}projection", "head")
    return rules


def _pooler(head: str) -> str:
    return "atten_pooler" if head == "classify" else "contrastive_vision_pooler"


PATCH, TEXT = "patch_projection/linear/kernel", "text_encoder/token_emb/emb_var"


def describe(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "VideoPrism"), []
    root = "params/" if all(name.startswith("params/") for name in tensors) else ""
    encoders = [name.removesuffix(PATCH) for name in tensors if name.endswith(PATCH)]
    stack = f"{root}text_encoder/unimodal_transformer"
    if encoders:
        stack = f"{encoders[0]}spatial_encoder/transformers_stack"
    naming = Naming(
        root,
        encoders[0].removeprefix(root) if encoders else Naming.encoder,
        any(name.startswith(f"{stack}/x_layers/") for name in tensors),
    )

    def sizes(stack: str) -> tuple[int, int, int]:
        """Layers, heads and MLP width."""
        block = f"{stack}/x_layers" + ("" if naming.scanned else "_0")
        kernel = shape(f"{block}/ff_layer/ffn_layer1/linear/kernel")
        depth = kernel[0] if naming.scanned else formats.count(tensors, f"{stack}/x_layers_")
        return depth, shape(f"{block}/self_attention/query/w")[-2], kernel[-1]

    model: dict[str, Any] = {
        "name": "videoprism",
        "eps": published.EPS,
        "scale_offset": 1.0,
        "softcap": published.SOFTCAP,
    }
    if encoders:
        patches, width = shape(encoders[0] + PATCH)
        depth, heads, mlp_dim = sizes(stack)
        side = architecture.side(patches // 3, "the number of a patch's pixels")
        rows = architecture.side(
            shape(f"{encoders[0]}spatial_pos_emb/emb_var")[0], "the number of patches"
        )
        model |= {
            "head": None,
            "width": width,
            "depth": depth,
            "num_heads": heads,
            "mlp_dim": mlp_dim,
            "patch_size": [1, side, side],
            "pos_grid": [shape(f"{encoders[0]}temporal_pos_emb/emb_var")[0], rows, rows],
            "temporal_depth": sizes(f"{encoders[0]}temporal_encoder/transformers_stack")[0],
        }
    for head in ("video", "classify"):
        query = f"{root}{_pooler(head)}/pooling_attention/query/w"
        if query in tensors:
            model |= {"head": head, "pool_dim": math.prod(shape(query)[1:])}
    if model.get("head") == "classify":
        model["num_classes"] = 0
        if f"{root}projection/linear/kernel" in tensors:
            model["num_classes"] = shape(f"{root}projection/linear/kernel")[1]
    elif model.get("head") == "video":
        stack = f"{root}auxiliary_encoder/transformers_stack"
        there = any(name.startswith(stack) for name in tensors)
        model["auxiliary_depth"] = sizes(stack)[0] if there else 0
    if root + TEXT in tensors:
        stack = f"{root}text_encoder/unimodal_transformer"
        depth, heads, mlp_dim = sizes(stack)
        vocab_size, width = shape(root + TEXT)
        model = {"width": width, "num_heads": heads} | model
        model |= {
            "head": "video_text" if encoders else "text",
            "vocab_size": vocab_size,
            "text_depth": depth,
            "text_num_heads": heads,
            "text_mlp_dim": mlp_dim,
            "text_norm_out": any("/pre_layer_norm/" in name for name in tensors),
        }
    if options.heads not in (None, model["num_heads"]):
        raise UserError(
            f"--heads={options.heads}, but the file has {model['num_heads']} heads; leave it out"
        )
    published.note(source, options, notes)
    return Conversion(
        format="original",
        model=model,
        rules=rules(model, naming),
        ignore=(),
        naming=asdict(naming),
        preprocessing=inputs.preprocessing("original", source, options, model, notes),
        tokenizer=inputs.tokenizer(source, options, model, published.LENGTH, notes),
        classes=huggingface.classes(None, model, notes),
        notes=notes,
    )


def export(
    card: Card, naming: Mapping[str, Any] | None, left_out: list[str], notes: list[str]
) -> Export:
    model, head = card.model, card.model["head"]
    heads, text_mlp_dim = architecture.text_sizes(model)
    widths = {"classify": model["width"], None: None, "text": None}
    width, pool_dim = widths.get(head, 4 * model["width"]), architecture.pool_dim(model)
    architecture.refuse(
        {
            f"a pooler of width {pool_dim} instead of {width}": pool_dim != width,
            f"{heads} heads for texts": heads not in (None, model["num_heads"]),
            f"text layers of width {text_mlp_dim}": text_mlp_dim not in (None, 4 * model["width"]),
        },
        "google-deepmind's code",
        "export by --format=hf",
    )
    untold = {"softcap": published.SOFTCAP, "eps": published.EPS, "text_pos_exponent": 1.0}
    words = [
        f"{key} is {model[key]:g}" for key in untold if model.get(key, untold[key]) != untold[key]
    ]
    if words:
        notes.append(
            f"the file does not tell that {' and '.join(words)} here: the original code computes "
            "slightly other outputs"
        )
    prefixes = {None: "", "classify": "encoder/"}
    naming = Naming(**naming) if naming else Naming(encoder=prefixes.get(head, "vision_encoder/"))
    return Export(rules(model, naming), f"checkpoint{NPZ_SUFFIX}", left_out=left_out, notes=notes)
