"""VideoMAE and VideoMAE V2: Hugging Face folders and the original .pth files.

Sources: transformers/models/videomae (5.23) and the names in the published files, which differ
from its modules' (`q_bias` in files, `query.bias` in memory); MCG-NJU/VideoMAE and
OpenGVLab/VideoMAEv2, modeling_pretrain.py, modeling_finetune.py.
Shapes: D width, n heads, h head width (D = n h), m MLP width; `o i` are output and input features.
Numerics: Hugging Face has layer_norm_eps (1e-12 published) in blocks and encoder norm, but
PyTorch's default 1e-5 in fc_norm and the decoder's norm; the originals have 1e-6 throughout.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters import Conversion, Export, Option, Options, formats, huggingface, processors
from converters.formats import CONFIG, PREPROCESSOR, Source
from converters.mapping import Ignore, Rule, spec_of
from converters.options import FRAMES, HEADS, SIZE
from converters.rules import (
    QKV,
    from_heads,
    fused_weight,
    linear,
    norm,
    patch_embed,
    to_heads_weight,
)
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.models.positions import sincos_1d
from vidjax.preprocessing import Preprocessing

FORMATS = ("hf", "original")
OPTIONS = (
    HEADS,
    Option("decoder_heads", int, "Number of attention heads of the decoder."),
    FRAMES,
    SIZE,
)
TRAIN = "configs/videomae_k400_finetune.py"

_PROCESSORS = processors.Family(
    image="VideoMAEImageProcessor",
    video="VideoMAEVideoProcessor",
    videos_first=True,
    new=(PREPROCESSOR, "VideoMAEImageProcessor"),
)


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: what it is, and the facts of its data that the files lack."""

    what: str
    sampling: str = "dense"
    stride: int = 4
    temporal_views: int = 5


def _ssv2(what: str, finetuned: bool) -> Checkpoint:
    sampling, views = ("segment", 2) if finetuned else ("dense", 5)
    return Checkpoint(what, sampling, stride=2, temporal_views=views)


CHECKPOINTS = {
    "MCG-NJU/videomae-base": Checkpoint("ViT-B, pre-trained on K400, 1600 epochs"),
    "MCG-NJU/videomae-base-short": Checkpoint("ViT-B, pre-trained on K400, 800 epochs"),
    "MCG-NJU/videomae-large": Checkpoint("ViT-L, pre-trained on K400, 1600 epochs"),
    "MCG-NJU/videomae-base-ssv2": _ssv2("ViT-B, pre-trained on SSv2, 2400 epochs", False),
    "MCG-NJU/videomae-base-short-ssv2": _ssv2("ViT-B, pre-trained on SSv2, 800 epochs", False),
    "MCG-NJU/videomae-small-finetuned-kinetics": Checkpoint("ViT-S, fine-tuned on K400"),
    "MCG-NJU/videomae-base-finetuned-kinetics": Checkpoint("ViT-B, fine-tuned on K400"),
    "MCG-NJU/videomae-base-short-finetuned-kinetics": Checkpoint("ViT-B, fine-tuned on K400"),
    "MCG-NJU/videomae-large-finetuned-kinetics": Checkpoint("ViT-L, fine-tuned on K400"),
    "MCG-NJU/videomae-huge-finetuned-kinetics": Checkpoint("ViT-H, fine-tuned on K400"),
    "MCG-NJU/videomae-small-finetuned-ssv2": _ssv2("ViT-S, fine-tuned on SSv2", True),
    "MCG-NJU/videomae-base-finetuned-ssv2": _ssv2("ViT-B, fine-tuned on SSv2", True),
    "MCG-NJU/videomae-base-short-finetuned-ssv2": _ssv2("ViT-B, fine-tuned on SSv2", True),
    "OpenGVLab/VideoMAE2/distill/vit_s_k710_dl_from_giant.pth": Checkpoint(
        "V2 ViT-S, distilled from the giant on K710"
    ),
    "OpenGVLab/VideoMAE2/distill/vit_b_k710_dl_from_giant.pth": Checkpoint(
        "V2 ViT-B, distilled from the giant on K710"
    ),
}

# Tensor shapes do not tell the number of heads; these are the published models' by width.
_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
_DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}

_HF_DEFAULTS = {  # of transformers' VideoMAEConfig, for what a config.json leaves out
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "tubelet_size": 2,
    "num_frames": 16,
    "qv_bias": True,
    "use_mean_pooling": True,
    "decoder_num_attention_heads": 6,
    "decoder_hidden_size": 384,
    "decoder_num_hidden_layers": 4,
    "decoder_intermediate_size": 1536,
}
_HF_KEPT = ("norm_pix_loss", "problem_type")  # of config.json: how the model is trained on
_HF_FIXED_EPS = 1e-5
_ORIGINAL_EPS = 1e-6


@dataclass(frozen=True)
class Naming:
    """How one file spells the names.

    Attributes:
        root: before every name, such as "module." of DistributedDataParallel.
        encoder: before the encoder's names (after `root`): "videomae.", "encoder.", "backbone.".
        bias: HF only, the query's bias: "q_bias" in published files, "query.bias" in some others.
    """

    root: str = ""
    encoder: str = ""
    bias: str = "q_bias"


def _hf_blocks(source: str, target: str, bias: str) -> list[Rule]:
    attention, attn = f"{source}.attention.attention", f"{target}/attn"
    value_bias = {"q_bias": "v_bias", "query.bias": "value.bias"}[bias]
    return [
        *norm(f"{source}.layernorm_before", f"{target}/norm1"),
        *[to_heads_weight(f"{attention}.{name}", f"{attn}/{name}") for name in QKV],
        Rule(f"{attention}.{bias}", f"{attn}/query/bias", "(n h) -> n h"),
        Rule(f"{attention}.{value_bias}", f"{attn}/value/bias", "(n h) -> n h"),
        *from_heads(f"{source}.attention.output.dense", f"{attn}/out"),
        *norm(f"{source}.layernorm_after", f"{target}/norm2"),
        *linear(f"{source}.intermediate.dense", f"{target}/mlp/fc1"),
        *linear(f"{source}.output.dense", f"{target}/mlp/fc2"),
    ]


def _original_blocks(source: str, target: str) -> list[Rule]:
    attention, attn = f"{source}.attn", f"{target}/attn"
    return [
        *norm(f"{source}.norm1", f"{target}/norm1"),
        fused_weight(f"{attention}.qkv.weight", attn),
        Rule(f"{attention}.q_bias", f"{attn}/query/bias", "(n h) -> n h"),
        Rule(f"{attention}.v_bias", f"{attn}/value/bias", "(n h) -> n h"),
        *from_heads(f"{attention}.proj", f"{attn}/out"),
        *norm(f"{source}.norm2", f"{target}/norm2"),
        *linear(f"{source}.mlp.fc1", f"{target}/mlp/fc1"),
        *linear(f"{source}.mlp.fc2", f"{target}/mlp/fc2"),
    ]


def hf_rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """The table of a Hugging Face file for the model that `build(**model)` makes."""
    root, encoder = naming.root, naming.root + naming.encoder
    rules = [
        *patch_embed(f"{encoder}embeddings.patch_embeddings.projection"),
        *_hf_blocks(f"{encoder}encoder.layer.{{i}}", "encoder/blocks", naming.bias),
    ]
    if _has_final_norm(model):
        rules += norm(f"{encoder}layernorm", "encoder/norm")
    if model["head"] == "classify":
        if model["pool"] == "mean":
            rules += norm(f"{root}fc_norm", "fc_norm")
        if model["num_classes"]:
            rules += linear(f"{root}classifier", "head")
    if model["head"] == "reconstruct":
        blocks = _hf_blocks(f"{root}decoder.decoder_layers.{{i}}", "decoder/blocks", naming.bias)
        rules += [*_bridge(root), *blocks, *_decoder_end(root)]
    return rules


def original_rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """The table of an original file (V1 and V2) for the model that `build(**model)` makes."""
    root, encoder = naming.root, naming.root + naming.encoder
    rules = [
        *patch_embed(f"{encoder}patch_embed.proj"),
        *_original_blocks(f"{encoder}blocks.{{i}}", "encoder/blocks"),
    ]
    if _has_final_norm(model):
        rules += norm(f"{encoder}norm", "encoder/norm")
    if model["head"] == "classify":
        if model["pool"] == "mean":
            rules += norm(f"{root}fc_norm", "fc_norm")
        if model["num_classes"]:
            rules += linear(f"{root}head", "head")
    if model["head"] == "reconstruct":
        blocks = _original_blocks(f"{root}decoder.blocks.{{i}}", "decoder/blocks")
        rules += [*_bridge(root), *blocks, *_decoder_end(root)]
    return rules


def _bridge(root: str) -> list[Rule]:
    return [
        Rule(f"{root}encoder_to_decoder.weight", "encoder_to_decoder/kernel", "o i -> i o"),
        Rule(f"{root}mask_token", "mask_token"),
    ]


def _decoder_end(root: str) -> list[Rule]:
    # Both references and our decoder order a patch's pixels (t, h, w, c): nothing to permute.
    return [
        *norm(f"{root}decoder.norm", "decoder/norm"),
        *linear(f"{root}decoder.head", "decoder/head"),
    ]


def _has_final_norm(model: Mapping[str, Any]) -> bool:
    return model["pool"] == "first" if model["head"] == "classify" else model["final_norm"]


def _refuse_options(format: str, tensors: Mapping[str, np.ndarray], naming: Naming) -> None:
    """Raises UserError if the file's model has an option of its code that no release uses."""
    block = f"{naming.root}{naming.encoder}{_NAMES[format].block}.0."
    bias = f"attention.attention.{naming.bias}" if format == "hf" else "attn.q_bias"
    options = {
        "no biases of query and value (qkv_bias=False)": block + bias not in tensors,
        "layer scale (init_values)": f"{block}gamma_1" in tensors,
        "cosine attention (cos_attn)": f"{block}attn.scale" in tensors,
    }
    for name in _position_tables(format, naming):
        if name in tensors:
            table = tensors[name]
            error = np.abs(table.astype(np.float32) - sincos_1d(*table.shape[-2:])).max()
            options[
                f"learned or resampled positions ({name} differs from the fixed sine-cosine table "
                f"by {error:.2g})"
            ] = not error <= np.finfo(table.dtype).eps
    if found := [option for option, holds in options.items() if holds]:
        raise UserError(
            f"the file's VideoMAE has {' and '.join(found)}, which no release has and VideoMAE "
            "here does not compute; there is no way to convert it"
        )


def _position_tables(format: str, naming: Naming) -> Collection[str]:
    root, encoder = naming.root, naming.root + naming.encoder
    names = [f"{encoder}pos_embed", f"{root}pos_embed", f"{root}decoder.pos_embed"]
    if format == "hf":
        names = [f"{encoder}embeddings.position_embeddings", f"{root}position_embeddings"]
    return dict.fromkeys(names)


def _ignored(format: str, naming: Naming) -> list[Ignore]:
    root, encoder = naming.root, naming.root + naming.encoder
    reason = "the fixed sine-cosine table, which the model computes"
    ignored = [Ignore(name, reason, True) for name in _position_tables(format, naming)]
    if format == "hf":
        reason = (
            "a key bias adds the same number to all scores of a query, which the softmax removes; "
            "the model has none, and an export will lack it"
        )
        blocks = (f"{encoder}encoder.layer", f"{root}decoder.decoder_layers")
        ignored += [
            Ignore(f"{block}.{{i}}.attention.attention.{name}", reason, optional=True)
            for block in blocks
            for name in ("key.bias", "k_bias")
        ]
    return ignored


@dataclass(frozen=True)
class _Names:
    """Where the shapes are read, in one format."""

    patch: str
    block: str
    fc1: str
    norm: str
    head: str
    decoder_block: str


_NAMES = {
    "hf": _Names(
        patch="embeddings.patch_embeddings.projection.weight",
        block="encoder.layer",
        fc1="intermediate.dense.weight",
        norm="layernorm.weight",
        head="classifier.weight",
        decoder_block="decoder.decoder_layers",
    ),
    "original": _Names(
        patch="patch_embed.proj.weight",
        block="blocks",
        fc1="mlp.fc1.weight",
        norm="norm.weight",
        head="head.weight",
        decoder_block="decoder.blocks",
    ),
}


def recognises(source: Source) -> bool:
    """Whether the tensors have VideoMAE's names, in either format."""
    return _format(source.tensors) is not None


def _format(names: Mapping[str, np.ndarray]) -> str | None:
    # ViViT has the same patch embedding in Hugging Face's format, but a class token, and VideoPrism
    # one of frames, and positions in the file.
    telling = {"hf": ".layernorm_before.weight", "original": ".attn.qkv.weight"}
    others = ("cls_token", "spatial_embeddings.position_embeddings", ".attn.qkv.bias")
    for format, ending in telling.items():
        patches = [name for name in names if name.endswith(_NAMES[format].patch)]
        found = patches and any(name.endswith(ending) for name in names)
        if found and not any(name.endswith(others) for name in names):
            return format if len(spec_of(names, patches[0]).shape) == 5 else None
    return None


def _naming(format: str, names: Collection[str]) -> Naming:
    """Finds the prefixes, from where the patch embedding's kernel is."""
    key = _NAMES[format]
    prefix = next(n for n in names if n.endswith(key.patch)).removesuffix(key.patch)
    # The last word of the prefix is the encoder's own if heads or decoder lack it.
    root = prefix[: prefix[:-1].rfind(".") + 1]
    if not any(root + name in names for name in ("mask_token", "fc_norm.weight", key.head)):
        root = prefix
    old = any(name.endswith(".q_bias") for name in names)
    return Naming(root, prefix.removeprefix(root), "q_bias" if old else "query.bias")


@dataclass(frozen=True)
class _Facts:
    """What the shapes do not tell; None: unknown."""

    eps: float
    head_eps: float
    heads: int | None = None
    decoder_heads: int | None = None
    frames: int | None = None
    size: int | None = None


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' shapes, and from config.json what they lack.

    Raises:
        UserError: config.json contradicts the tensors, has another activation than GELU, or
            nothing tells the number of heads.
    """
    format = _format(source.tensors)
    naming = _naming(format, source.tensors)
    _refuse_options(format, source.tensors, naming)
    model = _read_shapes(format, source.tensors, naming)
    notes: list[str] = []
    if model["head"] is None and model["final_norm"] and huggingface.has_no_classes(source.config):
        del model["final_norm"]
        model |= {"head": "classify", "pool": "first", "num_classes": 0}
    facts = (_hf_facts if format == "hf" else _original_facts)(source.config, model, options, notes)

    heads = huggingface.num_heads(
        "heads", model["width"], options.heads, facts.heads, _HEADS, notes
    )
    model |= {"num_heads": heads, "eps": facts.eps}
    if model["head"] == "classify" and model["pool"] == "mean":
        model["fc_norm_eps"] = facts.head_eps
    if model["head"] == "reconstruct":
        model["decoder_num_heads"] = huggingface.num_heads(
            "decoder_heads",
            model["decoder_width"],
            options.decoder_heads,
            facts.decoder_heads,
            _DECODER_HEADS,
            notes,
        )
        model["decoder_norm_eps"] = facts.head_eps
    if format == "hf" and model["width"] == 384 and heads == 16:
        notes.append(
            "WARNING: config.json says 16 heads, but VideoMAE-small was trained with 6 (a known "
            "error of the published files, which costs most of the accuracy): if this is that "
            "model, convert it with --heads=6"
        )
    return Conversion(
        format=format,
        model=model,
        rules=(hf_rules if format == "hf" else original_rules)(model, naming),
        ignore=_ignored(format, naming),
        naming=asdict(naming),
        preprocessing=_preprocessing(source, format, options, facts, model, notes),
        classes=huggingface.classes(source.config, model, notes),
        kept=huggingface.kept(source.config, _HF_KEPT)
        | ({"image_size": facts.size} if facts.size and format == "hf" else {}),
        notes=notes,
    )


def _read_shapes(format: str, tensors: Mapping[str, np.ndarray], naming: Naming) -> dict[str, Any]:
    """The keywords of `build` that the tensors' names and shapes tell."""
    key, root, encoder = _NAMES[format], naming.root, naming.root + naming.encoder

    shape = formats.shapes(tensors, f"VideoMAE ({format})")

    def blocks(prefix: str) -> tuple[int, int]:
        return formats.count(tensors, f"{prefix}."), shape(f"{prefix}.0.{key.fc1}")[0]

    width, channels, t, h, w = shape(encoder + key.patch)
    huggingface.check_channels(channels)
    depth, mlp_dim = blocks(encoder + key.block)
    model = {"name": "videomae", "head": None, "width": width, "depth": depth, "mlp_dim": mlp_dim}
    model["patch_size"] = [t, h, w]
    final_norm = encoder + key.norm in tensors
    if root + "mask_token" in tensors:
        decoder_depth, decoder_mlp_dim = blocks(root + key.decoder_block)
        return model | {
            "head": "reconstruct",
            "final_norm": final_norm,
            "decoder_width": shape(root + "mask_token")[-1],
            "decoder_depth": decoder_depth,
            "decoder_mlp_dim": decoder_mlp_dim,
        }
    if root + "fc_norm.weight" in tensors or root + key.head in tensors:
        return model | {
            "head": "classify",
            "pool": "first" if final_norm else "mean",
            "num_classes": shape(root + key.head)[0] if root + key.head in tensors else 0,
        }
    return model | {"final_norm": final_norm}


def _hf_facts(
    config: Mapping[str, Any] | None,
    model: Mapping[str, Any],
    options: Options,
    notes: list[str],
) -> _Facts:
    if config is None:
        notes.append(f"no {CONFIG} beside the weights: LayerNorm's epsilon is assumed to be 1e-12")
        return _Facts(_HF_DEFAULTS["layer_norm_eps"], _HF_FIXED_EPS)
    config = _HF_DEFAULTS | config
    huggingface.activation(config, ("gelu",), "VideoMAE")
    config["qv_bias"] = config.get("qkv_bias", config["qv_bias"])  # the older key
    found = _hf_sizes(model) | {"use_mean_pooling": not _has_final_norm(model), "qv_bias": True}
    huggingface.contradictions(config, found)
    return _Facts(
        config["layer_norm_eps"],
        _HF_FIXED_EPS,
        config["num_attention_heads"],
        config["decoder_num_attention_heads"],
        config["num_frames"],
        options.size or huggingface.square(config["image_size"]),
    )


def _original_facts(
    config: Mapping[str, Any] | None,
    model: Mapping[str, Any],
    options: Options,
    notes: list[str],
) -> _Facts:
    # OpenGVLab's hub repositories have a config.json with the original's keyword arguments.
    stated = (config or {}).get("model_config", {})
    return _Facts(
        _ORIGINAL_EPS,
        _ORIGINAL_EPS,
        stated.get("num_heads"),
        stated.get("decoder_num_heads"),
        stated.get("num_frames") or stated.get("all_frames"),
        stated.get("img_size"),
    )


def _hf_sizes(model: Mapping[str, Any]) -> dict[str, int]:
    """The model's sizes in the words of transformers' VideoMAEConfig."""
    t, h, w = model["patch_size"]
    if h != w and model["head"] == "reconstruct":
        raise UserError(
            f"transformers' VideoMAEForPreTraining has square patches only, and this model has "
            f"{h}x{w}; export by --format=original"
        )
    sizes = huggingface.sizes(model) | {
        "tubelet_size": t,
        "patch_size": h if h == w else [h, w],
    }
    if model["head"] == "reconstruct":
        sizes |= huggingface.sizes(model, "decoder_", "decoder_")
    return sizes


def _preprocessing(
    source: Source,
    format: str,
    options: Options,
    facts: _Facts,
    model: Mapping[str, Any],
    notes: list[str],
) -> Preprocessing:
    ssv2 = model["head"] == "classify" and model["num_classes"] == 174
    known = CHECKPOINTS.get(options.hub_id) or (_ssv2("", True) if ssv2 else Checkpoint(""))
    frames, size = options.frames or facts.frames, options.size or facts.size
    if not (frames and size):
        frames, size = frames or 16, size or 224
        notes.append(f"clips of {frames} frames, {size} pixels are assumed (--frames=, --size=)")
    values = {
        "frames": frames,
        "size": size,
        "short_side": size,
        "stride": known.stride,
        "sampling": known.sampling,
        "temporal_views": known.temporal_views,
    }
    for what, have, step in (
        ("frames", frames, model["patch_size"][0]),
        ("pixels", size, model["patch_size"][1]),
    ):
        huggingface.note_rest(what, have, step, notes)
    stated = processors.read(source.json, _PROCESSORS, None if options.frames else frames, notes)
    if stated:
        values |= stated | {"frames": frames}
        if options.size:
            values |= {"size": size, "short_side": size, "stretch_to": None}
        huggingface.note_crop(values["size"], size if facts.size else values["size"], notes)
    elif format == "hf":
        values["resize"] = "pil_bilinear"
        notes.append(f"no {PREPROCESSOR}: ImageNet's mean and deviation are assumed")
    return Preprocessing(**values)


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """How to write a model as a Hugging Face folder ("hf") or as the original's .pth ("original").

    Args:
        card: of the model.
        format: "hf" or "original".
        originals: JSON files of the source the model was converted from; those that still hold
            are written again as they were.
    """
    model, notes = card.model, []
    if model["pos_grid"] is not None:
        notes.append("the resampled position table (pos_grid) is not part of the exported format")
    same = card.provenance.get("format") == format
    if same:
        naming = Naming(**card.provenance["naming"])
    elif format == "hf":
        naming = Naming(encoder="videomae." if model["head"] else "")
    else:
        naming = Naming(encoder="encoder." if model["head"] == "reconstruct" else "")
    head_eps = {"classify": "fc_norm_eps", "reconstruct": "decoder_norm_eps"}.get(model["head"])
    given = model[head_eps] if head_eps and model.get("pool") != "first" else None
    found = (model["eps"], model["eps"] if given is None else given)
    if format == "hf":
        if found[1] != _HF_FIXED_EPS and head_eps and model.get("pool") != "first":
            notes.append(
                f"{head_eps} is {found[1]:g} here but always {_HF_FIXED_EPS:g} in transformers: "
                "outputs differ by about 1e-5"
            )
        files = {
            CONFIG: _hf_config(card, originals.get(CONFIG) if same else None),
            **processors.export(originals if same else {}, card.preprocessing, _PROCESSORS, notes),
        }
        return Export(hf_rules(model, naming), "model.safetensors", files, notes)
    if set(found) != {_ORIGINAL_EPS}:
        notes.append(
            f"LayerNorm's epsilons are {found[0]:g} and {found[1]:g} here but always "
            f"{_ORIGINAL_EPS:g} in the original code: outputs differ by about 1e-5"
        )
    return Export(original_rules(model, naming), "checkpoint.pth", notes=notes)


def _hf_config(card: Card, original: bytes | None) -> bytes:
    model = card.model
    stated = _HF_DEFAULTS | (json.loads(original) if original else {})
    # A run's frames are its model's; a converted model's are those of its own config.json.
    kept, size = dict(card.provenance.get("kept", {})), card.preprocessing.size
    kept["image_size"] = kept.get("image_size", size) if original else size
    want = _hf_sizes(model) | {
        "num_attention_heads": model["num_heads"],
        "layer_norm_eps": model["eps"],
        "hidden_act": stated["hidden_act"],
        "use_mean_pooling": not _has_final_norm(model),
        "num_frames": card.preprocessing.frames,
    }
    if model["head"] == "reconstruct":
        want["decoder_num_attention_heads"] = model["decoder_num_heads"]
    want |= kept
    if "norm_pix" in (objective := card.provenance.get("objective", {})):
        want["norm_pix_loss"] = objective["norm_pix"]
    if model["head"] == "classify":
        want["id2label"] = huggingface.id2label(card.classes, model["num_classes"])
    architecture = {
        None: "VideoMAEModel",
        "classify": "VideoMAEForVideoClassification",
        "reconstruct": "VideoMAEForPreTraining",
    }[model["head"]]
    return huggingface.config_json(original, want, _HF_DEFAULTS, "videomae", architecture)
