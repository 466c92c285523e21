"""google-deepmind's npz files of VideoPrism, which hold a Flax tree.

The layers of a stack are one array each, layer first (`x_layers`), or numbered (`x_layers_0`).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from converters import Conversion, Export, Options, formats, huggingface, limits
from converters.formats import NPZ_SUFFIX, Source
from converters.mapping import Rule
from converters.rules import QKV, flax_dense, flax_norm
from converters.videoprism import inputs, published
from vidjax.card import Card

_PATCH, _TOKENS = "patch_projection/linear/kernel", "text_encoder/token_emb/emb_var"
_TEXT_STACK = "text_encoder/unimodal_transformer"


@dataclass(frozen=True)
class Naming:
    """Spelling of the names in one npz file.

    Attributes:
        root: before every name.
        encoder: before the video encoder's (after `root`): "" in a backbone's file, "encoder/" in
            a classifier's.
        scanned: whether the layers of a stack are one array.
    """

    root: str = "params/"
    encoder: str = "vision_encoder/"
    scanned: bool = True

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> "Naming":
        """Reads the spelling from the tensors' names."""
        root = "params/" if all(name.startswith("params/") for name in tensors) else ""
        encoders = [name.removesuffix(_PATCH) for name in tensors if name.endswith(_PATCH)]
        encoder = encoders[0].removeprefix(root) if encoders else cls.encoder
        stack = f"{encoder}spatial_encoder/transformers_stack" if encoders else _TEXT_STACK
        scanned = any(name.startswith(f"{root}{stack}/x_layers/") for name in tensors)
        return cls(root, encoder, scanned)


def rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """Returns the rules of an npz file for the model that `build(**model)` makes."""
    root, encoder = naming.root, naming.root + naming.encoder
    head, rules = model["head"], []

    def stack(name: str, target: str, norm_out: bool = False) -> list[Rule]:
        return _blocks(name, f"{target}/blocks", naming.scanned, norm_out)

    if head != "text":
        patches = f"{encoder}patch_projection/linear"
        rules += flax_dense(patches, "encoder/patch_embed", "(t h w c) d -> t h w c d")
        for stage in ("spatial", "temporal"):
            target = f"encoder/{stage}"
            table = f"{encoder}{stage}_pos_emb/emb_var"
            rules.append(Rule(table, f"{target}/pos_embed", "(a n) d -> a n d"))
            if stage == "spatial" or model["temporal_depth"]:
                rules += stack(f"{encoder}{stage}_encoder/transformers_stack", target)
            rules += flax_norm(f"{encoder}{stage}_ln", f"{target}/norm")
    if head in ("video", "video_text") and model["auxiliary_depth"]:
        rules += stack(f"{root}auxiliary_encoder/transformers_stack", "auxiliary")
    if head in ("video", "video_text", "classify"):
        pooler = root + _pooler(head)
        attention = f"{pooler}/pooling_attention"
        rules += [
            Rule(f"{attention}_query", "pool/probe"),
            *_attention(attention, "pool/attn"),
            Rule(f"{attention}/per_dim_scale/per_dim_scale", "pool/attn/per_dim_scale"),
            *flax_norm(f"{attention}_layer_norm", "pool/norm"),
        ]
    if model["head"] in published.TEXTS:
        rules += [
            Rule(root + _TOKENS, "text/token_embed"),
            Rule(f"{root}text_encoder/cls_emb", "text/cls_token"),
            *stack(root + _TEXT_STACK, "text", model["text_norm_out"]),
            *flax_norm(f"{root}text_encoder/unimodal_ln", "text/norm"),
        ]
    if head == "classify" and model["num_classes"]:
        rules += flax_dense(f"{root}projection/linear", "head")
    return rules


def _attention(source: str, target: str, stacked: str = "") -> list[Rule]:
    layouts = dict.fromkeys(QKV, "") | {"post": f"{stacked}d h k -> {stacked}h k d"}
    rules = []
    for name, layout in layouts.items():
        ours = f"{target}/{'out' if name == 'post' else name}"
        rules.append(Rule(f"{source}/{name}/w", f"{ours}/kernel", layout))
        rules.append(Rule(f"{source}/{name}/b", f"{ours}/bias"))
    return rules


def _blocks(stack: str, target: str, scanned: bool, norm_out: bool) -> list[Rule]:
    block, stacked = (f"{stack}/x_layers", "l ") if scanned else (f"{stack}/x_layers_{{i}}", "")
    ff, before = f"{block}/ff_layer", "pre_layer_norm" if norm_out else "layer_norm"
    rules = flax_norm(f"{block}/{before}", f"{target}/norm1")
    rules += flax_norm(f"{ff}/{before}", f"{target}/norm2")
    if norm_out:
        rules += flax_norm(f"{block}/post_layer_norm", f"{target}/norm1_out")
        rules += flax_norm(f"{ff}/post_layer_norm", f"{target}/norm2_out")
    rules += _attention(f"{block}/self_attention", f"{target}/attn", stacked)
    for name in ("1", "2"):
        rules += flax_dense(f"{ff}/ffn_layer{name}/linear", f"{target}/mlp/fc{name}")
    return rules


def _pooler(head: str) -> str:
    return "atten_pooler" if head == "classify" else "contrastive_vision_pooler"


def recognises(source: Source) -> bool:
    return any(name.endswith((_PATCH, _TOKENS)) for name in source.tensors)


def describe(source: Source, options: Options) -> Conversion:
    tensors, notes = source.tensors, []
    naming = Naming.of(tensors)
    model = {"name": "videoprism", "eps": published.EPS, "scale_offset": 1.0}
    model |= {"softcap": published.SOFTCAP} | _sizes(tensors, naming)
    limits.check_heads(options, model["num_heads"])
    published.note(source, options, notes)
    return Conversion(
        format="original",
        model=model,
        rules=rules(model, naming),
        ignore=(),
        naming=asdict(naming),
        preprocessing=inputs.preprocessing("original", source, options, model, notes),
        tokenizer=inputs.tokenizer(source, options, model, published.TEXT_LENGTH, notes),
        classes=huggingface.classes(None, model, notes),
        notes=notes,
    )


def _sizes(tensors: Mapping[str, Any], naming: Naming) -> dict[str, Any]:
    """Returns the head and the sizes that the tensors' names and shapes tell."""
    shape, root = formats.shapes(tensors, "VideoPrism"), naming.root
    encoder, model = root + naming.encoder, {}

    def stack(name: str, prefix: str = "") -> dict[str, int]:
        block = f"{name}/x_layers" + ("" if naming.scanned else "_0")
        kernel = shape(f"{block}/ff_layer/ffn_layer1/linear/kernel")
        count = formats.count(tensors, f"{name}/x_layers_")
        return {
            f"{prefix}depth": kernel[0] if naming.scanned else count,
            f"{prefix}num_heads": shape(f"{block}/self_attention/query/w")[-2],
            f"{prefix}mlp_dim": kernel[-1],
        }

    has_video = encoder + _PATCH in tensors
    if has_video:
        patch_pixels, width = shape(encoder + _PATCH)
        side = limits.side(patch_pixels // 3, "a patch's pixels", "VideoPrism")
        rows = limits.side(shape(f"{encoder}spatial_pos_emb/emb_var")[0], "patches", "VideoPrism")
        model = {"head": None, "width": width, "patch_size": [1, side, side]}
        model["pos_grid"] = [shape(f"{encoder}temporal_pos_emb/emb_var")[0], rows, rows]
        model |= stack(f"{encoder}spatial_encoder/transformers_stack")
        temporal = stack(f"{encoder}temporal_encoder/transformers_stack")
        model["temporal_depth"] = temporal["depth"]
    for head in ("video", "classify"):
        query = f"{root}{_pooler(head)}/pooling_attention/query/w"
        if query in tensors:
            model |= {"head": head, "pool_dim": math.prod(shape(query)[1:])}
    if model.get("head") == "classify":
        classifier = f"{root}projection/linear/kernel"
        model["num_classes"] = shape(classifier)[1] if classifier in tensors else 0
    elif model.get("head") == "video":
        name = f"{root}auxiliary_encoder/transformers_stack"
        is_there = any(tensor.startswith(name) for tensor in tensors)
        model["auxiliary_depth"] = stack(name)["depth"] if is_there else 0
    if root + _TOKENS in tensors:
        vocab_size, width = shape(root + _TOKENS)
        text = stack(root + _TEXT_STACK, "text_")
        model = {"width": width, "num_heads": text["text_num_heads"]} | model | text
        model["head"] = "video_text" if has_video else "text"
        model["vocab_size"] = vocab_size
        model["text_norm_out"] = any("/pre_layer_norm/" in name for name in tensors)
    return model


def export(card: Card, naming: Mapping[str, Any] | None, originals: Mapping[str, bytes]) -> Export:
    model, head, notes = card.model, card.model["head"], []
    pool_dim, width = published.pool_dim(model), model["width"]
    right_dim = published.pool_dim({"head": head, "width": width})
    reasons = {f"a pooler of width {pool_dim} instead of {right_dim}": pool_dim != right_dim}
    if model["head"] in published.TEXTS:
        heads, mlp_dim = published.text_sizes(model)
        reasons[f"{heads} heads for texts"] = heads != model["num_heads"]
        reasons[f"text layers of width {mlp_dim}"] = mlp_dim != 4 * width
    limits.refuse("google-deepmind's code", "VideoPrism", reasons, "export by --format=hf")
    assumed = {"softcap": published.SOFTCAP, "eps": published.EPS, "text_pos_exponent": 1.0}
    limits.note_untold(model, assumed, notes)
    encoders = {None: "", "classify": "encoder/"}
    spelling = Naming(**naming) if naming else Naming(encoder=encoders.get(head, Naming.encoder))
    return Export(rules(model, spelling), f"checkpoint{NPZ_SUFFIX}", notes=notes)
