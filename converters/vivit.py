"""ViViT: Hugging Face folders, Scenic's checkpoints, and image ViTs as flat npz files.

Sources: transformers/models/vivit (5.23) and the names in the published files, which differ from
its modules' (`attention.attention.query` in files, `attention.q_proj` in memory);
google-research/scenic projects/vivit; google-research/vision_transformer's npz files.
Flax trees are named as the tree's keys, "/"-joined. Before Linen, the submodules of a block were
numbered whatever their class (LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2,
MlpBlock_3), in Linen per class; the names are read from the file.
An image ViT becomes the joint model of one frame and patches (1, h, w).
Shapes: D width, n heads, h head width (D = n h), M MLP width; `o i` are output and input features.
Numerics: tanh GELU and LayerNorm's epsilon 1e-6 in all releases.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters import Conversion, Export, Option, Options, formats, huggingface, processors
from converters.formats import CONFIG, NPZ_SUFFIX, PREPROCESSOR, Source
from converters.mapping import Ignore, Rule
from converters.options import FRAMES, HEADS, INPUT_RANGE, SIZE
from converters.rules import (
    QKV,
    flax_attention,
    flax_dense,
    flax_norm,
    from_heads,
    linear,
    norm,
    patch_embed,
    to_heads,
)
from vidjax.card import Card
from vidjax.data.datasets import DATASETS
from vidjax.errors import UserError
from vidjax.models.layers import ACTIVATIONS
from vidjax.models.vivit import sampled_indices
from vidjax.preprocessing import Preprocessing

FORMATS = ("hf", "original", "npz")
OPTIONS = (
    HEADS,
    FRAMES,
    SIZE,
    Option(
        "factorisation",
        ("joint", "encoder", "self_attention", "dot_product"),
        "ViViT: how it attends over space and time; files of joint and dot_product look the same.",
    ),
    Option(
        "attention_order",
        ("time_space", "space_time"),
        "ViViT: what a block of factorisation self_attention attends over first.",
    ),
    Option("pool", ("mean", "max", "sum"), "ViViT: pooling of a model without class token."),
    INPUT_RANGE,
)
TRAIN = "configs/vivit_k400.py"

_PROCESSORS = processors.Family(
    image="VivitImageProcessor",
    video="VivitVideoProcessor",
    videos_first=True,
    new=(PREPROCESSOR, "VivitImageProcessor"),
)


@dataclass(frozen=True)
class Protocol:
    """How Scenic's config of a dataset samples and evaluates."""

    name: str
    stride: int = 2
    spatial_views: int = 3
    groups: tuple[tuple[str, int], ...] = ()


K400, K600 = Protocol("Kinetics-400"), Protocol("Kinetics-600")
SSV2 = Protocol("Something-Something v2", stride=1)
EPIC = Protocol("Epic-Kitchens", stride=1, spatial_views=1, groups=DATASETS["epic_kitchens"].groups)
# By the number of classes, where nothing else tells.
PROTOCOLS = {400: K400, 600: K600, 174: SSV2, 397: EPIC}


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: what it is, and of which dataset."""

    what: str
    data: Protocol


_BUCKET = "vivit/{}/checkpoint"  # in storage.googleapis.com/scenic-bucket
CHECKPOINTS = {
    "google/vivit-b-16x2-kinetics400": Checkpoint("ViViT-B/16x2 joint", K400),
    _BUCKET.format("kinetics_400/vivit_base_16x2_unfactorized"): Checkpoint(
        "ViViT-B/16x2 joint", K400
    ),
    _BUCKET.format("kinetics_400/vivit_base_16x2_fe"): Checkpoint(
        "ViViT-B/16x2 factorised encoder", K400
    ),
    _BUCKET.format("kinetics_400/vivit_large_16x2_fe"): Checkpoint(
        "ViViT-L/16x2 factorised encoder", K400
    ),
    _BUCKET.format("kinetics_600/vivit_large_16x2_fe"): Checkpoint(
        "ViViT-L/16x2 factorised encoder", K600
    ),
    _BUCKET.format("epic_kitchens/vivit_large_16x2_fe"): Checkpoint(
        "ViViT-L/16x2 factorised encoder", EPIC
    ),
}

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # by width
_EPS = 1e-6
_FRAMES, _SIZE = 32, 224  # of every release
_ACT = "gelu_tanh"  # of every release
_HF_DEFAULTS = {  # of transformers' VivitConfig, for what a config.json leaves out
    "image_size": 224,
    "num_frames": 32,
    "tubelet_size": [2, 16, 16],
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_fast",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "pooler_output_size": None,
    "pooler_act": "tanh",
}
_HF_KEPT = ("problem_type",)  # of config.json: how the model is trained on
_ROOTS = (
    *("optimizer/target/params/", "optimizer/target/", "opt/target/params/", "opt/target/"),
    *("params/params/", "params/", ""),
)

_STAGES = ("Transformer", "SpatialTransformer")  # one of them is there


@dataclass(frozen=True)
class HfNaming:
    """How one Hugging Face file spells the names.

    Attributes:
        root: before every name, such as "module." of DistributedDataParallel.
        encoder: before the encoder's names (after `root`): "vivit." beside a classifier.
        layers: "encoder.layer" in published files, "layers" in transformers' memory.
    """

    root: str = ""
    encoder: str = ""
    layers: str = "encoder.layer"


@dataclass(frozen=True)
class FlaxNaming:
    """How one Flax tree spells the names; the defaults are current Scenic's.

    Attributes:
        root: before every name.
        norms, attention, mlp, dense: submodules of a block, and of its MLP.
        positions: the position table, below the encoder; "" where it lies beside it (big_vision).
        head: the classifier.
        flat_kernel: whether the patch embedding is a 2-D convolution.
    """

    root: str = ""
    norms: tuple[str, ...] = ("LayerNorm_0", "LayerNorm_1")
    attention: str = "MultiHeadDotProductAttention_0"
    mlp: str = "MlpBlock_0"
    dense: tuple[str, ...] = ("Dense_0", "Dense_1")
    positions: str = "posembed_input/"
    head: str = "output_projection"
    flat_kernel: bool = False


_SPACE_TIME_NORMS = ("LayerNorm_time", "LayerNorm_space", "LayerNorm_mlp")


def hf_rules(model: Mapping[str, Any], naming: HfNaming) -> list[Rule]:
    """The table of a Hugging Face file for the model that `build(**model)` makes."""
    encoder = naming.root + naming.encoder
    block, old = f"{encoder}{naming.layers}.{{i}}", naming.layers == "encoder.layer"

    rules = [
        Rule(f"{encoder}embeddings.cls_token", "encoder/cls_token"),
        Rule(f"{encoder}embeddings.position_embeddings", "encoder/pos_embed"),
        *patch_embed(f"{encoder}embeddings.patch_embeddings.projection"),
        *norm(f"{block}.layernorm_before", "encoder/blocks/norm1"),
        *norm(f"{block}.layernorm_after", "encoder/blocks/norm2"),
        *norm(f"{encoder}layernorm", "encoder/norm"),
    ]
    attn, mlp = "encoder/blocks/attn", "encoder/blocks/mlp"
    for name in QKV:
        spelled = f"attention.attention.{name}" if old else f"attention.{name[0]}_proj"
        rules += to_heads(f"{block}.{spelled}", f"{attn}/{name}")
    out = "attention.output.dense" if old else "attention.o_proj"
    rules += from_heads(f"{block}.{out}", f"{attn}/out")
    rules += linear(f"{block}.{'intermediate.dense' if old else 'mlp.fc1'}", f"{mlp}/fc1")
    rules += linear(f"{block}.{'output.dense' if old else 'mlp.fc2'}", f"{mlp}/fc2")
    if model["representation_size"]:
        rules += linear(f"{encoder}pooler.dense", "pre_logits")
    if model["head"] == "classify" and model["num_classes"]:
        rules += linear(f"{naming.root}classifier", "head")
    return rules


def flax_rules(model: Mapping[str, Any], naming: FlaxNaming) -> list[Rule]:
    """The table of a Flax tree for the model that `build(**model)` makes."""
    root = naming.root

    def stage(name: str, target: str) -> list[Rule]:
        block, blocks = f"{root}{name}/encoderblock_{{i}}", f"{target}/blocks"
        place = f"{root}{name}/{naming.positions}" if naming.positions else root
        rules = [Rule(f"{place}pos_embedding", f"{target}/pos_embed")]
        if model["pool"] == "token":
            cls = "cls" if name == "Transformer" else f"cls_{name}"
            rules.append(Rule(f"{root}{cls}", f"{target}/cls_token"))
        if model["factorisation"] == "self_attention":
            norms = ("norm_time", "norm_space", "norm_mlp")
            for axis in ("time", "space"):
                source = f"{block}/MultiHeadDotProductAttention_{axis}"
                rules += flax_attention(source, f"{blocks}/attn_{axis}")
        else:
            norms = ("norm1", "norm2")
            rules += flax_attention(f"{block}/{naming.attention}", f"{blocks}/attn")
        for source, ours in zip(naming.norms, norms, strict=True):
            rules += flax_norm(f"{block}/{source}", f"{blocks}/{ours}")
        for source, dense in zip(naming.dense, ("fc1", "fc2"), strict=True):
            rules += flax_dense(f"{block}/{naming.mlp}/{source}", f"{blocks}/mlp/{dense}")
        return rules + flax_norm(f"{root}{name}/encoder_norm", f"{target}/norm")

    kernel = "(t h) w c d -> t h w c d" if naming.flat_kernel else ""
    rules = flax_dense(f"{root}embedding", "encoder/patch_embed", kernel)
    if model["factorisation"] != "encoder":
        rules += stage("Transformer", "encoder")
    else:
        rules += stage("SpatialTransformer", "encoder/spatial")
        if model["temporal_depth"]:
            rules += stage("TemporalTransformer", "encoder/temporal")
    if model["representation_size"]:
        rules += flax_dense(f"{root}pre_logits", "pre_logits")
    if model["head"] == "classify" and model["num_classes"]:
        rules += flax_dense(f"{root}{naming.head}", "head")
    return rules


def recognises(source: Source) -> bool:
    """Whether the tensors are a ViViT's, or an image ViT's in a Flax tree."""
    names = source.tensors
    if _flax_root(names) is not None:
        return True
    prefix = _hf_prefix(names)
    return prefix is not None and names[prefix + _HF_PATCH].ndim == 5


_HF_PATCH = "embeddings.patch_embeddings.projection.weight"


def _hf_prefix(names: Collection[str]) -> str | None:
    prefixes = [name.removesuffix(_HF_PATCH) for name in names if name.endswith(_HF_PATCH)]
    return next((p for p in prefixes if p + "embeddings.cls_token" in names), None)


def _flax_root(names: Collection[str]) -> str | None:
    """What is before the names of the weights: a train state holds the optimizer's too."""
    for root in _ROOTS:
        norms = [f"{root}{stage}/encoder_norm/scale" for stage in _STAGES]
        if f"{root}embedding/kernel" in names and any(norm in names for norm in norms):
            return root
    return None


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' names and shapes, and asks for what they lack.

    Raises:
        UserError: config.json or the options contradict the tensors, the model has parts that
            ViViT has not, or nothing tells its frames' number and size.
    """
    root = _flax_root(source.tensors)
    return _describe_hf(source, options) if root is None else _describe_flax(source, options, root)


@dataclass(frozen=True)
class _Clip:
    """What one clip is: the token grid of the position table, and the pixels."""

    grid: tuple[int, int, int]
    frames: int
    size: int


def _describe_hf(source: Source, options: Options) -> Conversion:
    tensors, notes = source.tensors, []
    prefix = _hf_prefix(tensors)
    root = prefix.removesuffix("vivit.")
    new = f"{prefix}layers.0.layernorm_before.weight" in tensors
    naming = HfNaming(root, prefix.removeprefix(root), "layers" if new else "encoder.layer")

    shape = formats.shapes(tensors, "Hugging Face's ViViT")
    layers = f"{prefix}{naming.layers}."
    width, channels, *patch = shape(prefix + _HF_PATCH)
    huggingface.check_channels(channels)
    fc1 = "mlp.fc1" if new else "intermediate.dense"
    model = {
        "name": "vivit",
        "head": None,
        "width": width,
        "depth": formats.count(tensors, layers),
        "mlp_dim": shape(f"{layers}0.{fc1}.weight")[0],
        "patch_size": patch,
        "factorisation": "joint",
        "pool": "token",
        "representation_size": None,
    }
    if f"{root}classifier.weight" in tensors:
        model |= {"head": "classify", "num_classes": shape(f"{root}classifier.weight")[0]}
    elif f"{prefix}pooler.dense.weight" in tensors:
        model["representation_size"] = shape(f"{prefix}pooler.dense.weight")[0]
    elif huggingface.has_no_classes(source.config):
        model |= {"head": "classify", "num_classes": 0}
    config = _hf_config_of(source, model, notes)
    model["num_heads"] = huggingface.num_heads(
        "heads", width, options.heads, config.get("num_attention_heads"), _HEADS, notes
    )
    model["eps"] = config["layer_norm_eps"]
    model["act"] = huggingface.activation(config, ACTIVATIONS, "ViViT")
    _check_hints(model, options)
    tokens = shape(f"{prefix}embeddings.position_embeddings")[1] - 1
    frames = options.frames or config.get("num_frames")
    size = options.size or huggingface.square(config.get("image_size"))
    clip = _whole_clip(tokens, patch, frames, size, notes)
    model["pos_grid"] = list(clip.grid)
    return Conversion(
        format="hf",
        model=model,
        rules=hf_rules(model, naming),
        ignore=(),
        naming=asdict(naming),
        preprocessing=_hf_preprocessing(source, options, model, clip, notes),
        kept=huggingface.kept(source.config, _HF_KEPT),
        classes=huggingface.classes(source.config, model, notes),
        notes=notes,
    )


def _hf_config_of(source: Source, model: Mapping[str, Any], notes: list[str]) -> Mapping[str, Any]:
    """What config.json says, checked against the tensors; of none, only what is sure."""
    if source.config is None:
        notes.append(f"no {CONFIG} beside the weights: all releases' tanh GELU and eps are assumed")
        return {"layer_norm_eps": _EPS, "hidden_act": _HF_DEFAULTS["hidden_act"]}
    config = _HF_DEFAULTS | source.config
    if not config["qkv_bias"]:
        raise UserError(f"{CONFIG} has qkv_bias false; ViViT here has biases in every layer")
    if model["representation_size"] and config["pooler_act"] != "tanh":
        raise UserError(f"{CONFIG} has pooler_act {config['pooler_act']!r}; only tanh is known")
    huggingface.contradictions(
        config | {"tubelet_size": list(config["tubelet_size"])}, _hf_sizes(model)
    )
    return config


def _hf_sizes(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model's sizes in the words of transformers' VivitConfig."""
    return huggingface.sizes(model) | {"tubelet_size": list(model["patch_size"])}


def _describe_flax(source: Source, options: Options, root: str) -> Conversion:
    tensors, notes = source.tensors, []
    _refuse_other_vits(tensors, root)

    def shape(name: str) -> tuple[int, ...]:
        if root + name not in tensors:
            raise UserError(f"the file looks like ViViT, but has no {root}{name}")
        return tensors[root + name].shape

    factorised = f"{root}SpatialTransformer/encoder_norm/scale" in tensors
    stage = "SpatialTransformer" if factorised else "Transformer"
    naming, space_time = _flax_naming(tensors, root, stage)

    def sizes(stage: str) -> tuple[int, int, int]:
        """Layers, heads and MLP width."""
        blocks = rf"{re.escape(root + stage)}/encoderblock_(\d+)/.*"
        found = {match[1] for name in tensors if (match := re.fullmatch(blocks, name))}
        block = f"{stage}/encoderblock_0"
        heads = shape(f"{block}/{naming.attention}/query/kernel")
        if len(heads) != 3:
            raise UserError(
                f"{block}/{naming.attention}/query/kernel has shape {heads}; expected (width, "
                "heads, head width)"
            )
        return len(found), heads[1], shape(f"{block}/{naming.mlp}/{naming.dense[0]}/kernel")[1]

    *patch, _, width = shape("embedding/kernel")
    depth, heads, mlp_dim = sizes(stage)
    if options.heads not in (None, heads):
        raise UserError(f"--heads={options.heads}, but the file has {heads} heads; leave it out")
    token = f"{root}cls_SpatialTransformer" in tensors if factorised else f"{root}cls" in tensors
    if factorised:
        factorisation = "encoder"
    elif space_time:
        factorisation = "self_attention"
    else:
        factorisation = "joint"
    model = {
        "name": "vivit",
        "head": None,
        "width": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_dim": mlp_dim,
        "eps": _EPS,
        "patch_size": [1, *patch] if naming.flat_kernel else patch,
        "factorisation": factorisation,
        "pool": "token" if token else options.pool or "mean",
        "representation_size": None,
    }
    if f"{root}pre_logits/kernel" in tensors:
        model["representation_size"] = shape("pre_logits/kernel")[1]
    if f"{root}{naming.head}/kernel" in tensors:
        model |= {"head": "classify", "num_classes": shape(f"{naming.head}/kernel")[1]}
    place = f"{stage}/{naming.positions}" if naming.positions else ""
    tokens = shape(f"{place}pos_embedding")[1] - token

    if factorised:
        slices = None
        model["temporal_depth"] = 0
        if f"{root}TemporalTransformer/encoder_norm/scale" in tensors:
            numbers = sizes("TemporalTransformer")
            names = ("temporal_depth", "temporal_num_heads", "temporal_mlp_dim")
            model |= dict(zip(names, numbers, strict=True))
            slices = shape("TemporalTransformer/posembed_input/pos_embedding")[1] - token
        clip = _sliced_clip(tokens, slices, model["patch_size"], naming, options, notes)
    elif naming.flat_kernel:
        clip = _flat_clip(tokens, model["patch_size"], naming, options, notes)
    else:
        clip = _whole_clip(tokens, patch, options.frames, options.size, notes)
    model["pos_grid"] = list(clip.grid)
    if naming.flat_kernel and clip.frames > 1 and (not factorised or slices):
        model["sampled_frames"] = _sampled_frames(clip, notes)
    image = naming.flat_kernel and clip.frames == 1
    if image:
        notes.append("an image model: one frame, to start training a video model from")
    _apply_hints(model, options, image, notes)
    return Conversion(
        format="npz" if source.files[0].suffix == NPZ_SUFFIX else "original",
        model=model,
        rules=flax_rules(model, naming),
        ignore=_outside(tensors, root),
        naming=asdict(naming),
        preprocessing=_flax_preprocessing(source, options, model, clip, image, notes),
        classes=huggingface.classes(None, model, notes),
        notes=notes,
    )


def _refuse_other_vits(names: Collection[str], root: str) -> None:
    def has(start: str) -> bool:
        return any(name.startswith(root + start) for name in names)

    if has("conv_root") or has("block1/") or has("ResNet"):
        raise UserError("a ViT on top of a ResNet is no ViViT; take one without")
    if has("MAPHead_0/"):
        raise UserError(
            "a ViT with an attention pooling head (MAPHead_0) is no ViViT; take one with a class "
            "token or mean pooling"
        )
    tables = [f"{stage}/posembed_input/" for stage in _STAGES]
    if has("pos_embedding") and has("cls"):
        raise UserError(
            "this ViT (of big_vision) adds no position to its class token, which ViViT does; take "
            "a checkpoint of vision_transformer, or one without a class token"
        )
    if not any(has(table) for table in (*tables, "pos_embedding")):
        raise UserError("this ViT has no learned position table, which ViViT needs")


def _flax_naming(tensors: Mapping[str, Any], root: str, stage: str) -> tuple[FlaxNaming, bool]:
    """The names in this tree, from its first block; and whether its attention is over two axes."""

    def below(path: str) -> list[str]:
        found = {n.removeprefix(path).split("/")[0] for n in tensors if n.startswith(path)}
        return sorted(found, key=lambda n: [int(w) if w.isdigit() else w for w in n.split("_")])

    def some(names: list[str], start: str, count: int) -> tuple[str, ...]:
        found = tuple(name for name in names if name.startswith(start))
        if len(found) != count:
            raise UserError(
                f"{root}{stage}/encoderblock_0 is no ViT block: of {start}, {count} are expected "
                f"among {', '.join(names) or 'nothing'}"
            )
        return found

    block = f"{root}{stage}/encoderblock_0/"
    names = below(block)
    space_time = "MultiHeadDotProductAttention_time" in names
    mlp = some(names, "MlpBlock", 1)[0]
    attentions = some(names, "MultiHeadDotProductAttention", 2 if space_time else 1)
    norms = some(names, "LayerNorm", 3 if space_time else 2)
    naming = FlaxNaming(
        root=root,
        norms=_SPACE_TIME_NORMS if space_time else norms,
        attention=attentions[0],
        mlp=mlp,
        dense=some(below(f"{block}{mlp}/"), "Dense", 2),
        positions="" if f"{root}pos_embedding" in tensors else "posembed_input/",
        head="head" if f"{root}head/kernel" in tensors else "output_projection",
        flat_kernel=tensors[f"{root}embedding/kernel"].ndim == 4,
    )
    return naming, space_time


def _outside(names: Collection[str], root: str) -> list[Ignore]:
    """What a train state holds beside the weights."""
    path = root.split("/")[:-1]
    others: dict[str, None] = {}
    for name in names:
        if not name.startswith(root):
            words = name.split("/")
            depth = next(k for k, word in enumerate(words) if path[k] != word)
            others["/".join(words[: depth + 1])] = None
    reason = f"no weights, but the training run's {', '.join(others)}"
    return [Ignore(other + end, reason, True) for other in others for end in ("", "/*")]


def _check_hints(model: Mapping[str, Any], options: Options) -> None:
    """Raises UserError if the options contradict what the file tells."""
    given, found = options.factorisation, model["factorisation"]
    same_names = {"joint", "dot_product"}
    if given not in (None, found) and not (
        {given, found} <= same_names and model["pool"] != "token"
    ):
        raise UserError(
            f"--factorisation={given}, but the file's tensors are those of {found!r}"
            + (" with a class token" if model["pool"] == "token" else "")
        )
    if options.pool and model["pool"] == "token":
        raise UserError(f"--pool={options.pool}, but the file has a class token; leave it out")
    if options.attention_order and found != "self_attention":
        raise UserError(
            f"--attention_order is about factorisation self_attention, and the file's is {found!r}"
        )


def _apply_hints(model: dict[str, Any], options: Options, image: bool, notes: list[str]) -> None:
    """Adds to the model what files do not tell: from the options, or assumed with a note."""
    _check_hints(model, options)
    if model["pool"] != "token" and not options.pool:
        notes.append("no class token: the mean over tokens is assumed (--pool=)")
    if model["factorisation"] == "self_attention":
        model["attention_order"] = options.attention_order or "time_space"
        if not options.attention_order:
            notes.append(
                "attention over time, then over space, is assumed, Scenic's default; the paper "
                "describes the other order (--attention_order=)"
            )
    if model["factorisation"] == "joint" and model["pool"] != "token":
        model["factorisation"] = options.factorisation or "joint"
        if not (options.factorisation or image):
            notes.append(
                "joint attention is assumed; files of the factorised dot-product model look the "
                "same (--factorisation=dot_product)"
            )


def _side(tokens: int, patch: tuple[int, ...] | list[int]) -> int | None:
    """The side in pixels of a square frame with this many patches; None if there is none."""
    _, h, w = patch
    side = math.isqrt(tokens * h * w)
    return side if side and not (side % h or side % w) and side * side == tokens * h * w else None


def _fits(tokens: int, patch: tuple[int, ...] | list[int]) -> str:
    """The clips of square frames that a position table may be made for, in flags."""
    counts = (n for n in range(1, tokens + 1) if tokens % n == 0)
    fits = [(n * patch[0], _side(tokens // n, patch)) for n in counts]
    words = [f"--frames={frames} --size={side}" for frames, side in fits if side]
    return " or ".join(words) or "no square frames at all"


def _whole_clip(
    tokens: int,
    patch: list[int],
    frames: int | None,
    size: int | None,
    notes: list[str],
) -> _Clip:
    """The clip of a joint position table; either number may be left to follow from the other."""
    t, h, w = patch
    if frames and not size:
        size = _side(tokens // (frames // t or 1), patch)
    elif size and not frames:
        frames = t * (tokens // ((size // h) * (size // w) or 1))
    elif not (size or frames):
        frames, size = _FRAMES, _SIZE
        notes.append(f"clips of {frames} frames, {size} pixels are assumed (--frames=, --size=)")
    grid = (frames // t, (size or 0) // h, (size or 0) // w)
    if size:
        for what, have, step in (("frames", frames, t), ("pixels", size, h)):
            huggingface.note_rest(what, have, step, notes)
    if math.prod(grid) != tokens:
        asked = f"{frames} frames" + (f" of {size} pixels" if size else "")
        raise UserError(
            f"the position table is for {tokens} patches of {t}x{h}x{w}, which {asked} do not "
            f"have; it fits {_fits(tokens, patch)}"
        )
    return _Clip(grid, frames, size)


def _sliced_clip(
    tokens: int,
    slices: int | None,
    patch: list[int],
    naming: FlaxNaming,
    options: Options,
    notes: list[str],
) -> _Clip:
    """The clip of a factorised encoder: one table tells the size, the other the slices."""
    size = _side(tokens, patch)
    if size is None or options.size not in (None, size):
        asked = f"--size={options.size}" if size else "square frames"
        raise UserError(
            f"the spatial position table is for {tokens} patches of {patch[1]}x{patch[2]}, which "
            f"{asked} does not fit; it fits {f'--size={size}' if size else 'no square frames'}"
        )
    # With uniform frame sampling a clip may have any number of frames.
    frames = slices * patch[0] if slices and not naming.flat_kernel else None
    if frames and options.frames not in (None, frames):
        raise UserError(
            f"the temporal position table is for {slices} slices of {patch[0]} frames, which "
            f"--frames={options.frames} does not fit; it fits --frames={frames}"
        )
    if not (frames or options.frames):
        notes.append(f"clips of {_FRAMES} frames are assumed (--frames=)")
    frames = frames or options.frames or _FRAMES
    return _Clip((slices or frames // patch[0], size // patch[1], size // patch[2]), frames, size)


def _flat_clip(
    tokens: int, patch: list[int], naming: FlaxNaming, options: Options, notes: list[str]
) -> _Clip:
    """The clip of 2-D patches in one table: one frame, or frames sampled from a video."""
    _, h, w = patch
    side = _side(tokens, patch)
    size = options.size or _SIZE
    count, rest = divmod(tokens, (size // h) * (size // w) or tokens + 1)
    image = side is not None and options.frames in (None, 1) and options.size in (None, side)
    video = not rest and count > 1 and (options.frames or max(_FRAMES, count)) >= count
    if image and video and naming.head != "head":  # vision_transformer's name
        raise UserError(
            f"the position table is for {tokens} patches of {h}x{w}: either of one image of {side} "
            f"pixels (--frames=1), or of {count} frames of {size} pixels, sampled from a clip "
            f"(--frames={_FRAMES})"
        )
    if image:
        return _Clip((1, side // h, side // w), 1, side)
    if not video:
        raise UserError(
            f"the position table is for {tokens} patches of {h}x{w}, which --frames="
            f"{options.frames or _FRAMES} --size={size} does not fit; it fits "
            f"{_fits(tokens, patch)}"
        )
    frames = options.frames or max(_FRAMES, count)
    if not options.frames:
        notes.append(f"clips of {frames} frames are assumed (--frames=)")
    return _Clip((count, size // h, size // w), frames, size)


def _sampled_frames(clip: _Clip, notes: list[str]) -> int:
    """Returns the field with which as many frames are looked at as the table has slices.

    Raises:
        UserError: there is none for clips of so many frames.
    """
    wanted = clip.grid[0]
    fits = [n for n in (wanted, wanted - 1) if len(sampled_indices(clip.frames, n)) == wanted]
    if not fits:
        raise UserError(
            f"Scenic never takes {wanted} frames, for which the position table is made, evenly "
            f"from a clip of {clip.frames}; give the frames of its training's clips as --frames=..."
        )
    indices = ", ".join(map(str, sampled_indices(clip.frames, fits[0])))
    notes.append(
        f"2-D patches: {wanted} frames, evenly spread over a clip of {clip.frames}, are looked at "
        f"(uniform frame sampling): {indices}"
    )
    return fits[0]


def _protocol(
    source: Source, options: Options, model: dict[str, Any], notes: list[str]
) -> Protocol:
    """That of the model's dataset, by its place in the releases or its number of classes."""
    path = source.files[0].as_posix()
    key = next((k for k in CHECKPOINTS if k == options.hub_id or path.endswith(f"/{k}")), None)
    named = bool((source.config or {}).get("id2label"))  # then the classes are known to be others
    if key:
        data = CHECKPOINTS[key].data
        notes.append(f"published as {CHECKPOINTS[key].what}, {data.name}")
    elif model.get("num_classes") in PROTOCOLS and not (model["num_classes"] == 397 and named):
        data = PROTOCOLS[model["num_classes"]]
        notes.append(f"sampling and views are taken as {data.name}'s, by the number of classes")
    else:
        data = K400
        notes.append("sampling and views of Kinetics-400 are assumed: stride 2, 4x3 views")
    if data.groups and sum(count for _, count in data.groups) == model.get("num_classes"):
        model["groups"] = [list(group) for group in data.groups]
        words = " and ".join(f"{count} {name}s" for name, count in data.groups)
        notes.append(f"the classes are taken as {data.name}'s {words}")
    return data


def _scenic_protocol(data: Protocol) -> dict[str, Any]:
    return {
        "sampling": "dense_cycle",
        "stride": data.stride,
        "temporal_views": 4,
        "spatial_views": data.spatial_views,
        "view_average": "logits",
    }


def _flax_preprocessing(
    source: Source,
    options: Options,
    model: dict[str, Any],
    clip: _Clip,
    image: bool,
    notes: list[str],
) -> Preprocessing:
    values = {
        "frames": clip.frames,
        "size": clip.size,
        "resize": "tf_bilinear",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }
    if image:
        views = {"temporal_views": 1, "spatial_views": 1}
        values |= _scenic_protocol(K400) | views | {"short_side": clip.size}
        why = "as image ViTs are trained"
    else:
        # 256 for crops of 224, 288 for 256 in Scenic's configs.
        values |= _scenic_protocol(_protocol(source, options, model, notes))
        values["short_side"] = clip.size + 32
        why = "as Scenic trains"
    if options.input_range:
        values |= _by_range(options.input_range)
        why = f"by --input_range, instead of [-1, 1] {why}"
    notes.append(f"input range {_range(values)}, {why}")
    return Preprocessing(**values)


def _hf_preprocessing(
    source: Source, options: Options, model: dict[str, Any], clip: _Clip, notes: list[str]
) -> Preprocessing:
    values = {
        "frames": clip.frames,
        "size": clip.size,
        "short_side": clip.size + 32,
        "resize": "pil_bilinear",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }
    values |= _scenic_protocol(_protocol(source, options, model, notes))
    why = f"as Scenic trained the released weights; there is no {PREPROCESSOR}"
    only = None if options.frames else clip.frames
    stated = processors.read(source.json, _PROCESSORS, only, notes)
    if stated:
        values |= stated | {"frames": clip.frames}
        why = "the net effect of its processor's file"
        if options.size and options.size != values["size"]:
            changes = {"short_side": options.size + 32, "stretch_to": None}
            values |= {"size": options.size} | changes
        huggingface.note_crop(values["size"], clip.size, notes)
    if options.input_range:
        old = _range(values)
        values |= _by_range(options.input_range)
        why = f"by --input_range, instead of {old}, {why}"
    elif _range(values) != "[-1, 1]":
        why += (
            ". WARNING: Scenic trained the released weights on [-1, 1], and transformers' "
            "processor rescales to that range and then normalises once more; for weights of "
            "Scenic convert with --input_range=-1,1"
        )
    notes.append(f"input range {_range(values)}, {why}")
    return Preprocessing(**values)


def _by_range(ends: tuple[float, float]) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of values in [0, 1] that lead to this range."""
    low, high = ends
    return {"mean": (-low / (high - low),) * 3, "std": (1 / (high - low),) * 3}


def _range(values: Mapping[str, Any]) -> str:
    """What black and white become; over all channels, where they differ."""
    mean, std = np.array(values["mean"]), np.array(values["std"])
    return f"[{(-mean / std).min():.6g}, {((1 - mean) / std).max():.6g}]"


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """How to write a model.

    Args:
        card: of the model.
        format: "hf", a folder of transformers; "original", Scenic's msgpack file; or "npz", the
            same names in a flat npz file.
        originals: JSON files of the source the model was converted from; those that still hold
            are written again as they were.

    Raises:
        UserError: Hugging Face's ViViT has no such model.
    """
    same = card.provenance.get("format") == format
    naming = card.provenance["naming"] if same else None
    if format == "hf":
        return _export_hf(card, HfNaming(**naming) if naming else None, originals if same else {})
    model = card.model
    if naming:
        naming = FlaxNaming(**naming)
    else:
        space_time = model["factorisation"] == "self_attention"
        naming = FlaxNaming(
            root="params/" if format == "original" else "",
            norms=_SPACE_TIME_NORMS if space_time else FlaxNaming.norms,
            mlp="MlpBlock" if space_time else FlaxNaming.mlp,
            flat_kernel=model["patch_size"][0] == 1,
        )
    notes = []
    if model["eps"] != _EPS:
        notes.append(
            f"LayerNorm's epsilon is {model['eps']:g} here but always {_EPS:g} in Scenic: outputs "
            "differ slightly"
        )
    if (act := model.get("act", _ACT)) != _ACT:
        notes.append(f"the activation is {act} here but always {_ACT} in Scenic: outputs differ")
    untold = {
        "factorisation": model["factorisation"] == "dot_product",
        "attention_order": model["factorisation"] == "self_attention",
        "pool": model["pool"] != "token",
        "sampled_frames": bool(model["sampled_frames"]),
    }
    words = [f"{key}={model[key]}" for key, value in untold.items() if value]
    if words:
        notes.append(f"the file does not tell {', '.join(words)}: a config of Scenic must")
    # Read by Scenic's restore_pretrained_checkpoint.
    beside = {"global_step": 0, "model_state": None, "rng": None}
    return Export(
        flax_rules(model, naming),
        "checkpoint.npz" if format == "npz" else "checkpoint",
        notes=notes,
        beside=beside if naming.root else {},
    )


def _export_hf(card: Card, naming: HfNaming | None, originals: Mapping[str, bytes]) -> Export:
    model, facts, notes = card.model, card.preprocessing, []
    reasons = {
        f"factorisation {model['factorisation']!r}": model["factorisation"] != "joint",
        f"pool {model['pool']!r}": model["pool"] != "token",
        "uniform frame sampling": bool(model["sampled_frames"]),
        "pre-logits below a classifier": model["head"] and model["representation_size"],
    }
    if wrong := [reason for reason, holds in reasons.items() if holds]:
        raise UserError(
            f"transformers has no ViViT with {' and '.join(wrong)}, only the joint model with a "
            "class token; export by --format=original (Scenic) or --format=npz"
        )
    if model.get("groups"):
        notes.append("transformers takes the groups of classes for one: split its logits yourself")
    files = {
        CONFIG: _hf_config(card, originals.get(CONFIG)),
        **processors.export(originals, facts, _PROCESSORS, notes),
    }
    naming = naming or HfNaming(encoder="vivit." if model["head"] else "")
    return Export(hf_rules(model, naming), "model.safetensors", files, notes)


def _hf_config(card: Card, original: bytes | None) -> bytes:
    model, facts = card.model, card.preprocessing
    stated = _HF_DEFAULTS | (json.loads(original) if original else {})
    (t, h, w), patch = model["pos_grid"], model["patch_size"]
    # Sizes that leave a rest beside the patches are kept where they are known.
    known_frames = (facts.frames, stated["num_frames"], t * patch[0])
    known_sides = (stated["image_size"], facts.size, [h * patch[1], w * patch[2]])

    def holds(side: Any) -> bool:
        height, width = (side, side) if isinstance(side, int) else side
        return (height // patch[1], width // patch[2]) == (h, w)

    want = _hf_sizes(model) | {
        "num_attention_heads": model["num_heads"],
        "layer_norm_eps": model["eps"],
        "hidden_act": huggingface.hidden_act(model.get("act", _ACT), stated["hidden_act"]),
        "qkv_bias": True,
        "num_channels": 3,
        "num_frames": next(n for n in known_frames if n // patch[0] == t),
        "image_size": next(side for side in known_sides if holds(side)),
    }
    want |= card.provenance.get("kept", {})
    if model["head"] == "classify":
        want["id2label"] = huggingface.id2label(card.classes, model["num_classes"])
    elif model["representation_size"] not in (None, model["width"]):
        want["pooler_output_size"] = model["representation_size"]
    architecture = "VivitForVideoClassification" if model["head"] else "VivitModel"
    return huggingface.config_json(original, want, _HF_DEFAULTS, "vivit", architecture)
