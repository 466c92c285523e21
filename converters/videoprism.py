"""VideoPrism: google-deepmind's npz files, Hugging Face folders, KerasHub presets.

Sources: google-deepmind/videoprism models.py and encoders.py; transformers models/videoprism
(5.23); keras_hub models/video_prism (0.32), its names in a file by Keras 3.15.
The npz files hold a Flax tree; the layers of a stack are one array each, layer first (`x_layers`).
KerasHub's four encoders are numbered by their place in the graph: spatial, temporal, text, then
auxiliary, the only one without a norm. Its text encoder has one norm more than the original's.
The LayerNorm scales of npz and Hugging Face's files are added to 1, KerasHub's are used as they are
(`scale_offset`): 1 + scale rounds, so neither is written from the other.
Hugging Face's files hold their table of text positions, made by a formula that is not the
original's, or was when the file was made; the table tells.
Shapes: D width, H heads of width K (of the pooler: its own), L layers.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, TokenizerFile, formats, huggingface, processors
from converters.formats import (
    CONFIG,
    IMAGE_CONVERTER,
    KERAS_TOKENIZER,
    KERAS_WEIGHTS,
    NPZ_SUFFIX,
    VIDEO_PREPROCESSOR,
    Source,
)
from converters.mapping import Ignore, Rule
from converters.options import FRAMES, HEADS, PREPROCESSING, RAW_TEXT, SIZE, TOKENIZER
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.models.layers.positions import sinusoid
from vidjax.preprocessing import Preprocessing

FORMATS = ("hf", "original", "keras")
OPTIONS = (HEADS, FRAMES, SIZE, PREPROCESSING, TOKENIZER, RAW_TEXT)
TRAIN = "configs/videoprism_probe_k400.py"

_PROCESSORS = processors.Family(
    image="LlavaOnevisionVideoProcessor",
    video="LlavaOnevisionVideoProcessor",
    videos_first=True,
    new=(VIDEO_PREPROCESSOR, "LlavaOnevisionVideoProcessor"),
)


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: what it is, and where its npz file is on the Hugging Face hub."""

    what: str
    hub: str
    file: str


CHECKPOINTS = {  # by the original's name, which is KerasHub's preset's, too
    "videoprism_public_v1_base": Checkpoint(
        "VideoPrism-B", "google/videoprism-base-f16r288", "flax_base_f16r288_repeated.npz"
    ),
    "videoprism_public_v1_large": Checkpoint(
        "VideoPrism-L", "google/videoprism-large-f8r288", "flax_large_f8r288_repeated.npz"
    ),
    "videoprism_lvt_public_v1_base": Checkpoint(
        "VideoPrism-LvT-B",
        "google/videoprism-lvt-base-f16r288",
        "flax_lvt_base_f16r288_repeated.npz",
    ),
    "videoprism_lvt_public_v1_large": Checkpoint(
        "VideoPrism-LvT-L",
        "google/videoprism-lvt-large-f8r288",
        "flax_lvt_large_f8r288_repeated.npz",
    ),
}
_KAGGLE = "kaggle://keras/videoprism/keras/"
HUB_FILES = {
    alias: f"{entry.hub}/{entry.file}"
    for name, entry in CHECKPOINTS.items()
    for alias in (name, _KAGGLE + name, f"{_KAGGLE}{name}/1")
}

_HEADS = {768: 12, 1024: 16, 1408: 16}  # by width
_EPS, _SOFTCAP = 1e-6, 50.0  # of every release
_LENGTH = 64  # tokens of a text
_FRAMES, _SIZE = 16, 288  # what a text tower's card says of video
# transformers' names of what the towers compute: the exact GELU, and ReLU.
_ACTIVATIONS = {"vision_config": ("gelu_python", "gelu"), "text_config": ("relu",)}
_HF_VISION = {  # of transformers' VideoPrismVisionConfig, for what a config.json leaves out
    "image_size": 288,
    "num_frames": 16,
    "tubelet_size": [1, 18, 18],
    "num_channels": 3,
    "hidden_size": 768,
    "num_spatial_layers": 12,
    "num_temporal_layers": 4,
    "num_auxiliary_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_python",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "attn_logit_softcapping": 50.0,
    "apply_l2norm": True,
}
_HF_TEXT = {  # of its VideoPrismTextConfig
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "relu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "attn_logit_softcapping": 50.0,
    "apply_l2norm": True,
}
_HF_ARCHITECTURES = {
    None: "VideoPrismVisionModel",
    "video": "VideoPrismVideoModel",
    "text": "VideoPrismTextModel",
    "video_text": "VideoPrismClipModel",
    "classify": "VideoPrismForVideoClassification",
}
_KERAS = {  # of VideoPrismBackbone, for what a config.json leaves out
    "vocabulary_size": 0,
    "num_text_layers": 0,
    "attention_logit_soft_cap": None,
    "layer_norm_epsilon": 1e-6,
    "image_shape": [288, 288, 3],
}
_KERAS_INNER_NORM = "layers/video_prism_encoder_2/layer_norm"


@dataclass(frozen=True)
class NpzNaming:
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


@dataclass(frozen=True)
class HfNaming:
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


_HF_NAMINGS = {
    None: HfNaming(),
    "video": HfNaming(encoder="vision_model."),
    "text": HfNaming(),
    "video_text": HfNaming("video_model.vision_model.", "video_model.", "text_model."),
    "classify": HfNaming(encoder="vision_model."),
}


def npz_rules(model: Mapping[str, Any], naming: NpzNaming) -> list[Rule]:
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
        pooler = root + _npz_pooler(head)
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


def _npz_pooler(head: str) -> str:
    return "atten_pooler" if head == "classify" else "contrastive_vision_pooler"


def hf_rules(model: Mapping[str, Any], naming: HfNaming) -> list[Rule]:
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


def keras_rules(model: Mapping[str, Any]) -> list[Rule]:
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
            *(norm(_KERAS_INNER_NORM, "text/inner_norm") if model["text_inner_norm"] else ()),
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


_NPZ_PATCH, _NPZ_TEXT = "patch_projection/linear/kernel", "text_encoder/token_emb/emb_var"
_HF_PATCH = "spatial_embeddings.patch_embeddings.projection.weight"
_HF_TEXT_TOKEN = "embeddings.cls_emb"
_KERAS_PATCH = "layers/video_prism_patching_and_embedding/patch_embedding/vars/0"


def recognises(source: Source) -> bool:
    """Whether the tensors are a VideoPrism's, from any of its homes."""
    ends = (_NPZ_PATCH, _NPZ_TEXT, _HF_PATCH, _HF_TEXT_TOKEN, _KERAS_PATCH)
    return any(name.endswith(ends) for name in source.tensors)


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' names and shapes, and from config.json.

    Raises:
        UserError: config.json or the options contradict the tensors, the text positions are of an
            unknown formula, or the model has parts that VideoPrism has not.
    """
    if _KERAS_PATCH in source.tensors:
        return _describe_keras(source, options)
    if any(name.endswith((_NPZ_PATCH, _NPZ_TEXT)) for name in source.tensors):
        return _describe_npz(source, options)
    return _describe_hf(source, options)


def _side(count: int, what: str) -> int:
    """The root of a square number."""
    side = math.isqrt(count)
    if side * side != count:
        raise UserError(f"{what} is {count}, no square number; VideoPrism's are square here")
    return side


def _describe_npz(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "VideoPrism"), []
    root = "params/" if all(name.startswith("params/") for name in tensors) else ""
    encoders = [name.removesuffix(_NPZ_PATCH) for name in tensors if name.endswith(_NPZ_PATCH)]
    stack = f"{root}text_encoder/unimodal_transformer"
    if encoders:
        stack = f"{encoders[0]}spatial_encoder/transformers_stack"
    naming = NpzNaming(
        root,
        encoders[0].removeprefix(root) if encoders else NpzNaming.encoder,
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
        "eps": _EPS,
        "scale_offset": 1.0,
        "softcap": _SOFTCAP,
    }
    if encoders:
        patches, width = shape(encoders[0] + _NPZ_PATCH)
        depth, heads, mlp_dim = sizes(stack)
        side = _side(patches // 3, "the number of a patch's pixels")
        rows = _side(shape(f"{encoders[0]}spatial_pos_emb/emb_var")[0], "the number of patches")
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
        query = f"{root}{_npz_pooler(head)}/pooling_attention/query/w"
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
    if root + _NPZ_TEXT in tensors:
        stack = f"{root}text_encoder/unimodal_transformer"
        depth, heads, mlp_dim = sizes(stack)
        vocab_size, width = shape(root + _NPZ_TEXT)
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
    _published(source, options, notes)
    return Conversion(
        format="original",
        model=model,
        rules=npz_rules(model, naming),
        ignore=(),
        naming=asdict(naming),
        preprocessing=_preprocessing("original", source, options, model, notes),
        tokenizer=_tokenizer(source, options, model, _LENGTH, notes),
        classes=huggingface.classes(None, model, notes),
        notes=notes,
    )


def _published(source: Source, options: Options, notes: list[str]) -> None:
    for name, entry in CHECKPOINTS.items():
        if options.hub_id in (name, entry.hub) or source.files[0].name == entry.file:
            notes.append(f"published as {entry.what} ({name})")


def _describe_hf(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "VideoPrism"), []
    encoders = [name.removesuffix(_HF_PATCH) for name in tensors if name.endswith(_HF_PATCH)]
    texts = [n.removesuffix(_HF_TEXT_TOKEN) for n in tensors if n.endswith(_HF_TEXT_TOKEN)]
    encoder, text = (found[0] if found else "" for found in (encoders, texts))
    video = encoder.removesuffix("vision_model.")
    known = [name for name in HfNaming.buffers if f"{text}embeddings.{name}" in tensors]
    naming = HfNaming(encoder, video, text, known if texts else [])
    parts = _hf_parts(source, notes)

    model: dict[str, Any] = {"name": "videoprism", "scale_offset": 1.0, "l2_eps": 1e-6}
    stated = source.config is not None

    def heads(width: int, config: Mapping[str, Any]) -> int:
        found = config["num_attention_heads"] if stated else None
        return huggingface.num_heads("heads", width, options.heads, found, _HEADS, notes)

    if encoders:
        width, channels, *patch = shape(encoder + _HF_PATCH)
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
        model["pos_grid"] = _hf_grid(
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
    model |= _hf_numerics(parts, model)
    if stated:
        for part, sizes in _hf_sizes(model).items():
            huggingface.contradictions(parts[part], sizes)
    _published(source, options, notes)
    length = parts["text_config"]["max_position_embeddings"]
    return Conversion(
        format="hf",
        model=model,
        rules=hf_rules(model, naming),
        ignore=_hf_ignored(naming),
        naming=asdict(naming),
        preprocessing=_preprocessing("hf", source, options, model, notes),
        tokenizer=_tokenizer(source, options, model, length, notes),
        kept=_hf_kept(source.config or {}, bool(texts)),
        classes=huggingface.classes(source.config, model, notes),
        notes=notes,
    )


def _hf_kept(config: Mapping[str, Any], has_text: bool) -> dict[str, Any]:
    """Returns what config.json says that neither tensors nor outputs depend on."""
    if not has_text:
        return huggingface.kept(config, ("problem_type",))
    keys = ("max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id")
    return huggingface.kept(config.get("text_config") or config, keys)


def _hf_parts(source: Source, notes: list[str]) -> dict[str, dict[str, Any]]:
    """The video and the text part of config.json: of a single tower's, the whole file is both."""
    config = source.config
    if config is None:
        notes.append(f"no {CONFIG} beside the weights: all releases' numerics are assumed")
        config = {}
    flat = {} if "vision_config" in config or "text_config" in config else config
    return {
        "vision_config": _HF_VISION | (config.get("vision_config") or flat),
        "text_config": _HF_TEXT | (config.get("text_config") or flat),
    }


def _sides(image_size: Any) -> Sequence[int]:
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def _hf_grid(frames: int, patches: int, patch: Sequence[int], image_size: Any) -> list[int]:
    if image_size is None:
        rows = columns = _side(patches, "the number of patches")
    else:
        sides = _sides(image_size)
        rows, columns = (side // step for side, step in zip(sides, patch[1:], strict=True))
    if rows * columns != patches:
        raise UserError(
            f"{CONFIG} has image_size {image_size}, {rows} x {columns} patches, but the position "
            f"table is for {patches}; fetch both anew from one place"
        )
    return [frames, rows, columns]


def _hf_numerics(parts: Mapping[str, Mapping[str, Any]], model: Mapping[str, Any]) -> dict:
    """Epsilon and soft cap, after a check of what has one way here."""
    towers = {part: parts[part] for part in _hf_sizes(model)}
    for part, config in towers.items():
        wrong = {
            "hidden_act": config["hidden_act"] not in _ACTIVATIONS[part],
            "qkv_bias": not config["qkv_bias"],
            "apply_l2norm": model.get("l2_eps") and not config["apply_l2norm"],
        }
        if reasons := [f"{key} {config[key]!r}" for key, holds in wrong.items() if holds]:
            raise UserError(
                f"{CONFIG} ({part}) has {' and '.join(reasons)}; VideoPrism here computes "
                f"hidden_act {_ACTIVATIONS[part][0]!r}, qkv_bias True and apply_l2norm True only"
            )
    found = {}
    for ours, theirs in (("eps", "layer_norm_eps"), ("softcap", "attn_logit_softcapping")):
        values = [config[theirs] or 0.0 for config in towers.values()]
        if len(set(values)) > 1:
            raise UserError(
                f"{CONFIG} has another {theirs} for video ({values[0]}) than for text "
                f"({values[1]}); VideoPrism here has one"
            )
        found[ours] = values[0]
    return found


def _hf_sizes(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The model's sizes in the words of transformers, for the parts of config.json that it has."""
    head, sizes = model["head"], {}
    if head != "text":
        sizes["vision_config"] = {
            "hidden_size": model["width"],
            "num_spatial_layers": model["depth"],
            "num_temporal_layers": model["temporal_depth"],
            "intermediate_size": model["mlp_dim"],
            "tubelet_size": list(model["patch_size"]),
            "num_frames": model["pos_grid"][0],
        }
        if head in ("video", "video_text"):
            sizes["vision_config"]["num_auxiliary_layers"] = model["auxiliary_depth"]
    if head in ("text", "video_text"):
        sizes["text_config"] = {
            "vocab_size": model["vocab_size"],
            "hidden_size": model["width"],
            "intermediate_size": model["text_mlp_dim"] or 4 * model["width"],
            "num_hidden_layers": model["text_depth"],
        }
    return sizes


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


def _hf_ignored(naming: HfNaming) -> list[Ignore]:
    def not_counting(ids: np.ndarray) -> str | None:
        return None if np.array_equal(ids, np.arange(ids.size)[None]) else "not 0, 1, 2, ..."

    reason = "made anew by a formula that the model's card names"
    checks = {"position_embedding": None, "position_ids": not_counting}
    return [
        Ignore(f"{naming.text}embeddings.{name}", reason, check=checks[name], keep=True)
        for name in naming.buffers
    ]


def _describe_keras(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "VideoPrism"), []
    if source.config is None:
        notes.append(f"no {CONFIG} beside the weights: all releases' numerics are assumed")
    released = {"attention_logit_soft_cap": _SOFTCAP} if source.config is None else {}
    config = _KERAS | released | (source.config or {}).get("config", {})

    def sizes(encoder: str) -> tuple[int, int, int]:
        """Layers, heads and MLP width."""
        blocks = f"layers/video_prism_{encoder}/encoder_layers/"
        block = f"{blocks}video_prism_encoder_block"
        heads = shape(f"{block}/mha/query_dense/vars/0")[1]
        return formats.count(tensors, blocks), heads, shape(f"{block}/mlp/dense_1/vars/0")[1]

    patches, width = shape(_KERAS_PATCH)
    depth, heads, mlp_dim = sizes("encoder")
    side = _side(patches // 3, "the number of a patch's pixels")
    table = "layers/video_prism_patching_and_embedding/position_embedding/vars/0"
    rows = _side(shape(table)[0], "the number of patches")
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
            "text_inner_norm": f"{_KERAS_INNER_NORM}/vars/0" in tensors,
        }
    if options.heads not in (None, heads):
        raise UserError(f"--heads={options.heads}, but the file has {heads} heads; leave it out")
    if source.config is not None:
        huggingface.contradictions(config, _keras_sizes(model))
    notes.append(
        "LayerNorm scales are kept as KerasHub's files have them (1 + the original's): exports to "
        "its format only"
    )
    _published(source, options, notes)
    return Conversion(
        format="keras",
        model=model,
        rules=keras_rules(model),
        ignore=(),
        naming={},
        preprocessing=_preprocessing("keras", source, options, model, notes),
        tokenizer=_tokenizer(source, options, model, _LENGTH, notes),
        notes=notes,
    )


def _keras_sizes(model: Mapping[str, Any]) -> dict[str, Any]:
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


def _preprocessing(
    default: str,
    source: Source,
    options: Options,
    model: Mapping[str, Any],
    notes: list[str],
) -> Preprocessing:
    """How the model gets its video: as its home prepares it, or as --preprocessing says."""
    frames, sides = _FRAMES, (_SIZE, _SIZE)
    if model["head"] != "text":
        frames, *sides = (
            n * p for n, p in zip(model["pos_grid"], model["patch_size"], strict=True)
        )
        if default == "hf" and source.config is not None:
            sides = _sides(_hf_parts(source, [])["vision_config"]["image_size"])
            for side, step in zip(sides, model["patch_size"][1:], strict=True):
                huggingface.note_rest("pixels", side, step, notes)
    size = min(sides)
    if len(set(sides)) > 1 and not options.size:
        notes.append(
            f"positions are for frames of {sides[0]} x {sides[1]} pixels, and frames are prepared "
            f"square, as {size} x {size}: positions are resampled (--size= chooses another square)"
        )
    values = {
        "frames": frames,
        "stride": 1,
        "sampling": "linspace",
        "size": size,
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "temporal_views": 1,
        "spatial_views": 1,
    }
    kind = options.preprocessing or default
    stated = processors.read(source.json, _PROCESSORS, None, notes) if kind == "hf" else None
    if default == "hf" and not (stated or options.preprocessing):
        notes.append("no processor's JSON file beside the weights: the original's is assumed")
        kind = "original"
    if kind == "original":
        values |= {"fit": "crop", "resize": "pil_lanczos"}
    elif kind == "hf":
        values |= {"fit": "stretch", "resize": "pil_bicubic"} | (stated or {})
    else:
        converter = source.json.get(IMAGE_CONVERTER)
        values |= {"fit": "crop_first", "resize": "pil_bilinear"} | _read_converter(converter)
    if kind != "original":
        notes.append(
            "the released weights were made with the original's frames (LANCZOS, cropped), which "
            "differ a little (--preprocessing=original)"
        )
    if (values["frames"], values["size"]) != (frames, size):
        notes.append(
            f"frames are prepared as {values['frames']} of {values['size']} pixels, and positions "
            f"are for {frames} of {size}: they are resampled"
        )
    if options.frames:
        values["frames"] = options.frames
    if options.size or not stated:
        values["size"] = options.size or values["size"]
        values |= {"short_side": values["size"], "stretch_to": None}
    return Preprocessing(**values)


def _read_converter(file: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of Preprocessing from KerasHub's image_converter.json; {} without one."""
    if file is None:
        return {}
    config = file.get("config", {})
    if "image_size" not in config:
        raise UserError(f"{IMAGE_CONVERTER} has no config.image_size; fetch it again")
    filters = {"bilinear": "pil_bilinear", "bicubic": "pil_bicubic", "lanczos3": "pil_lanczos"}
    kind = config.get("interpolation", "bilinear")
    if kind not in filters or not config.get("antialias") or config.get("pad_to_aspect_ratio"):
        raise UserError(
            f"{IMAGE_CONVERTER} has interpolation {kind!r}, antialias {config.get('antialias')}, "
            f"pad_to_aspect_ratio {config.get('pad_to_aspect_ratio')}; known are "
            f"{', '.join(filters)}, with antialias and without padding (or --preprocessing=)"
        )

    def channels(value: Any) -> list[float]:
        value = value if isinstance(value, list) else [value]
        return value * 3 if len(value) == 1 else value

    # It computes p * scale + offset of pixels p in 0..255.
    scale = channels(1.0 if config.get("scale") is None else config["scale"])
    offset = channels(config.get("offset") or 0.0)
    pairs = list(zip(scale, offset, strict=True))
    return {
        "size": min(config["image_size"]),
        "resize": filters[kind],
        "fit": "crop_first" if config.get("crop_to_aspect_ratio", True) else "stretch",
        # The factors are rounded in the file.
        "mean": tuple(0.0 - round(o / (255 * s), 12) for s, o in pairs),
        "std": tuple(round(1 / (255 * s), 12) for s, _ in pairs),
    }


def _tokenizer(
    source: Source, options: Options, model: Mapping[str, Any], length: int, notes: list[str]
) -> TokenizerFile | None:
    """The vocabulary that --tokenizer names, or that lies beside the weights."""
    if model["head"] not in ("text", "video_text"):
        if options.tokenizer or options.raw_text is not None:
            raise UserError("--tokenizer and --raw_text are about texts, and this model reads none")
        return None
    path = Path(options.tokenizer) if options.tokenizer else source.tokenizer
    if path is None:
        notes.append(
            "no vocabulary beside the weights, so the model takes token ids only; the released "
            "models' is cc_en.32000's sentencepiece.model (--tokenizer=FILE)"
        )
        return None
    kinds = {".model": ".model", ".spm": ".model", ".json": ".json"}
    if not path.is_file() or path.suffix not in kinds:
        raise UserError(
            f"--tokenizer={path} is no SentencePiece .model and no tokenizer.json; name such a file"
        )
    if not options.raw_text:
        notes.append(
            "texts are tokenised as by the original, without punctuation and capitals; Hugging "
            "Face and KerasHub leave them as they are (--raw_text)"
        )
    card = {"length": length, "canonicalise": not options.raw_text}
    return TokenizerFile(path, {"file": f"tokenizer{kinds[path.suffix]}", **card})


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """How to write a model.

    Args:
        card: of the model.
        format: "hf", a folder of transformers; "original", google-deepmind's npz file; or "keras",
            a preset of KerasHub.
        originals: JSON files of the source the model was converted from; those that still hold
            are written again as they were.

    Raises:
        UserError: the format has no such model, or wants LayerNorm scales in another form.
    """
    model, same = card.model, card.provenance.get("format") == format
    naming = card.provenance["naming"] if same else None
    if model["head"] not in _HF_ARCHITECTURES:
        raise UserError(f"no published format has a VideoPrism with head {model['head']!r}")
    _check_scales(model, format)
    notes = []
    scalars = [key for key in ("logit_scale", "logit_bias") if model.get(key) is not None]
    if scalars:
        notes.append(f"{' and '.join(scalars)} are left out: no published format has them")
    originals = originals if same else {}
    match format:
        case "hf":
            return _export_hf(card, naming, originals, scalars, notes)
        case "keras":
            return _export_keras(card, originals, scalars, notes)
    return _export_npz(card, naming, scalars, notes)


def _check_scales(model: Mapping[str, Any], format: str) -> None:
    wanted = 0.0 if format == "keras" else 1.0
    if model["scale_offset"] != wanted:
        forms = {0.0: "as they are used", 1.0: "less 1"}
        raise UserError(
            f"--format={format} holds LayerNorm scales {forms[wanted]}, and this model's are held "
            f"{forms[model['scale_offset']]}: changing them would round them; convert the same "
            "checkpoint from a home of that format instead"
        )


def _refuse(reasons: Mapping[str, bool], who: str, otherwise: str) -> None:
    if wrong := [reason for reason, holds in reasons.items() if holds]:
        raise UserError(f"{who} has no VideoPrism with {' and '.join(wrong)}; {otherwise}")


def _pool_dim(model: Mapping[str, Any]) -> int | None:
    """The pooler's width, spelled out; None of a model without a pooler."""
    widths = {"classify": model["width"], "video": 4 * model["width"]}
    default = widths | {"video_text": widths["video"]}
    return model.get("pool_dim") or default.get(model["head"])


def _text_sizes(model: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Heads and MLP width of the text tower, spelled out; None of a model without one."""
    if model["head"] not in ("text", "video_text"):
        return None, None
    return model["text_num_heads"] or model["num_heads"], model["text_mlp_dim"] or 4 * model[
        "width"
    ]


def _export_npz(
    card: Card, naming: Mapping[str, Any] | None, left_out: list[str], notes: list[str]
) -> Export:
    model, head = card.model, card.model["head"]
    heads, text_mlp_dim = _text_sizes(model)
    widths = {"classify": model["width"], None: None, "text": None}
    width = widths.get(head, 4 * model["width"])
    _refuse(
        {
            f"a pooler of width {_pool_dim(model)} instead of {width}": _pool_dim(model) != width,
            f"{heads} heads for texts": heads not in (None, model["num_heads"]),
            f"text layers of width {text_mlp_dim}": text_mlp_dim not in (None, 4 * model["width"]),
        },
        "google-deepmind's code",
        "export by --format=hf",
    )
    untold = {"softcap": _SOFTCAP, "eps": _EPS, "text_pos_exponent": 1.0}
    words = [
        f"{key} is {model[key]:g}" for key in untold if model.get(key, untold[key]) != untold[key]
    ]
    if words:
        notes.append(
            f"the file does not tell that {' and '.join(words)} here: the original code computes "
            "slightly other outputs"
        )
    prefixes = {None: "", "classify": "encoder/"}
    naming = (
        NpzNaming(**naming) if naming else NpzNaming(encoder=prefixes.get(head, "vision_encoder/"))
    )
    return Export(
        npz_rules(model, naming), f"checkpoint{NPZ_SUFFIX}", left_out=left_out, notes=notes
    )


def _export_hf(
    card: Card,
    naming: Mapping[str, Any] | None,
    originals: Mapping[str, bytes],
    left_out: list[str],
    notes: list[str],
) -> Export:
    model, head = card.model, card.model["head"]
    pool_dim, mlp_dim = _pool_dim(model), model.get("mlp_dim", 0)
    known = mlp_dim - mlp_dim % model["num_heads"]  # heads of equal width
    _refuse(
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
        CONFIG: _hf_config(card, originals.get(CONFIG)),
    }
    if head != "text":
        files |= processors.export(originals, card.preprocessing, _PROCESSORS, notes)
    naming = HfNaming(**naming) if naming else _HF_NAMINGS[head]
    computed = {}
    if head in ("text", "video_text"):
        text = json.loads(files[CONFIG])
        length = (_HF_TEXT | text.get("text_config", text))["max_position_embeddings"]
        table = sinusoid(length, model["width"], model["text_pos_exponent"])
        tensors = {
            "position_embedding": table.astype(np.float32),
            "position_ids": np.arange(length)[None],
        }
        computed = {f"{naming.text}embeddings.{name}": tensors[name] for name in naming.buffers}
    return Export(
        hf_rules(model, naming),
        "model.safetensors",
        files,
        notes,
        computed=computed,
        left_out=left_out,
        tokenizer=card.tokenizer and _HF_TOKENIZERS[card.tokenizer["file"]],
    )


_HF_TOKENIZERS = {"tokenizer.model": "spiece.model", "tokenizer.json": "tokenizer.json"}


def _hf_config(card: Card, original: bytes | None) -> bytes:
    model, parts, head = card.model, _hf_sizes(card.model), card.model["head"]
    heads, _ = _text_sizes(model)
    config = json.loads(original) if original else {}
    nested = model["head"] == "video_text" or "vision_config" in config or "text_config" in config
    defaults = {"vision_config": _HF_VISION, "text_config": _HF_TEXT}
    for part, want in parts.items():
        stated = defaults[part] | (config.get(part, {}) if nested else config)
        want |= {
            "num_attention_heads": heads if part == "text_config" else model["num_heads"],
            "layer_norm_eps": model["eps"],
            "attn_logit_softcapping": model["softcap"],
            "hidden_act": stated["hidden_act"],
            "qkv_bias": True,
            "apply_l2norm": stated["apply_l2norm"],
        }
        if part == "vision_config":
            want |= {"num_channels": 3, "image_size": _hf_image_size(card, stated["image_size"])}
        elif not original and card.tokenizer:
            want["max_position_embeddings"] = card.tokenizer["length"]
        if part == "text_config" or head == "classify":
            want |= card.provenance.get("kept", {})
    if not nested:
        (part, want), *_ = parts.items()
        if model["head"] == "classify":
            want["id2label"] = huggingface.id2label(card.classes, model["num_classes"])
        kind = f"videoprism_{part.replace('config', 'model')}"
        return huggingface.config_json(
            original, want, defaults[part], kind, _HF_ARCHITECTURES[model["head"]]
        )
    changed = {}
    for part, want in parts.items():
        old = config.get(part, {})
        stated = defaults[part] | old
        new = {k: v for k, v in want.items() if not original or not huggingface.same(stated[k], v)}
        if new:
            kind = f"videoprism_{part.replace('config', 'model')}"
            changed[part] = {"model_type": kind} | old | new
    if original and not changed:
        return original
    architecture = {"architectures": [_HF_ARCHITECTURES["video_text"]], "model_type": "videoprism"}
    return huggingface.to_json(architecture | config | changed)


def _hf_image_size(card: Card, stated: Any) -> Any:
    """The side of the frames that the positions are for; as it is stated, where that is right."""
    _, h, w = card.model["pos_grid"]
    _, *patch = card.model["patch_size"]
    if [side // step for side, step in zip(_sides(stated), patch, strict=True)] == [h, w]:
        return stated
    return h * patch[0] if h * patch[0] == w * patch[1] else [h * patch[0], w * patch[1]]


def _export_keras(
    card: Card, originals: Mapping[str, bytes], left_out: list[str], notes: list[str]
) -> Export:
    model, head = card.model, card.model["head"]
    heads, text_mlp_dim = _text_sizes(model)
    _, h, w = model["patch_size"] if head != "text" else (1, 1, 1)
    _refuse(
        {
            f"head {head!r}": head not in (None, "video_text"),
            f"patches of {h}x{w}": h != w,
            "another pooler's width than 4 times the model's": _pool_dim(model)
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
    files[CONFIG] = _keras_config(model, originals.get(CONFIG))
    files.setdefault("metadata.json", huggingface.to_json(_KERAS_METADATA))
    files[IMAGE_CONVERTER] = _keras_converter(card, originals.get(IMAGE_CONVERTER), notes)
    computed = {}
    if head and not model["text_inner_norm"]:
        values = np.ones(model["width"], np.float32), np.zeros(model["width"], np.float32)
        computed = {f"{_KERAS_INNER_NORM}/vars/{k}": value for k, value in enumerate(values)}
    tokenizer = None
    if card.tokenizer and card.tokenizer["file"] == "tokenizer.model":
        tokenizer = KERAS_TOKENIZER
        files.setdefault("tokenizer.json", huggingface.to_json(_KERAS_TOKENIZER))
    elif card.tokenizer:
        notes.append(
            "KerasHub wants a SentencePiece vocabulary, and the model has a tokenizer.json"
        )
    return Export(
        keras_rules(model),
        KERAS_WEIGHTS,
        files,
        notes,
        computed=computed,
        left_out=left_out,
        tokenizer=tokenizer,
    )


_KERAS_TOKENIZER = {
    "module": "keras_hub.src.models.video_prism.video_prism_tokenizer",
    "class_name": "VideoPrismTokenizer",
    "config": {"name": "video_prism_tokenizer", "proto": None, "config_file": "tokenizer.json"},
    "registered_name": "keras_hub>VideoPrismTokenizer",
}
_KERAS_METADATA = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0", "tasks": []}


def _keras_config(model: Mapping[str, Any], original: bytes | None) -> bytes:
    file = json.loads(original) if original else {}
    old = file.get("config", {})
    want = {"num_auxiliary_layers": 0} | _keras_sizes(model)
    want |= {
        "attention_logit_soft_cap": model["softcap"] or None,
        "layer_norm_epsilon": model["eps"],
    }
    stated = _KERAS | {"num_auxiliary_layers": 0} | old
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


def _keras_converter(card: Card, original: bytes | None, notes: list[str]) -> bytes:
    facts = card.preprocessing
    if original:
        stated = _read_converter(json.loads(original))
        if all(getattr(facts, key) == value for key, value in stated.items()):
            return original
    filters = {"pil_bilinear": "bilinear", "pil_bicubic": "bicubic", "pil_lanczos": "lanczos3"}
    if facts.fit == "crop" or facts.resize not in filters:
        notes.append(
            f"KerasHub crops before it resizes, and this model's frames are made by fit "
            f"{facts.fit!r} and resize {facts.resize!r}: its inputs differ slightly"
        )
    name = "VideoPrismImageConverter"
    config = {
        "image_size": [facts.size] * 2,
        "scale": [1 / (255 * s) for s in facts.std],
        "offset": [-m / s for m, s in zip(facts.mean, facts.std, strict=True)],
        "interpolation": filters.get(facts.resize, "bilinear"),
        "antialias": True,
        "crop_to_aspect_ratio": facts.fit != "stretch",
        "pad_to_aspect_ratio": False,
    }
    return huggingface.to_json(
        {
            "module": "keras_hub.src.models.video_prism.video_prism_image_converter",
            "class_name": name,
            "config": config,
            "registered_name": f"keras_hub>{name}",
        }
    )
