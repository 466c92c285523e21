"""ViViT in Hugging Face's folders."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from converters import Conversion, Export, Options, formats, huggingface, processors
from converters.formats import CONFIG, Source
from converters.mapping import Rule
from converters.rules import QKV, from_heads, linear, norm, patch_embed, to_heads
from converters.vivit import hints
from converters.vivit.published import ACT, EPS, HEADS, PROCESSORS, hf_preprocessing
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.lazy import spec_of
from vidjax.models.layers import ACTIVATIONS

_DEFAULTS = huggingface.VIT_BASE | {  # of transformers' VivitConfig
    "num_frames": 32,
    "tubelet_size": [2, 16, 16],
    "hidden_act": "gelu_fast",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "pooler_output_size": None,
    "pooler_act": "tanh",
}
_PATCH = "embeddings.patch_embeddings.projection"


@dataclass(frozen=True)
class Naming:
    """Spelling of the names in one file.

    Attributes:
        root: before every name, such as "module." of DistributedDataParallel.
        encoder: before the encoder's names (after `root`): "vivit." beside a classifier.
        layers: "encoder.layer" in published files, "layers" in transformers' memory.
    """

    root: str = ""
    encoder: str = ""
    layers: str = "encoder.layer"

    @property
    def fc1(self) -> str:
        return "mlp.fc1" if self.layers == "layers" else "intermediate.dense"


def rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """Returns the table of a Hugging Face file for the model that `build(**model)` makes."""
    encoder = naming.root + naming.encoder
    block, old = f"{encoder}{naming.layers}.{{i}}", naming.layers == "encoder.layer"
    attn, mlp = "encoder/blocks/attn", "encoder/blocks/mlp"
    rules = [
        Rule(f"{encoder}embeddings.cls_token", "encoder/cls_token"),
        Rule(f"{encoder}embeddings.position_embeddings", "encoder/pos_embed"),
        *patch_embed(encoder + _PATCH),
        *norm(f"{block}.layernorm_before", "encoder/blocks/norm1"),
        *norm(f"{block}.layernorm_after", "encoder/blocks/norm2"),
        *norm(f"{encoder}layernorm", "encoder/norm"),
    ]
    for name in QKV:
        spelled = f"attention.attention.{name}" if old else f"attention.{name[0]}_proj"
        rules += to_heads(f"{block}.{spelled}", f"{attn}/{name}")
    out = "attention.output.dense" if old else "attention.o_proj"
    rules += from_heads(f"{block}.{out}", f"{attn}/out")
    rules += linear(f"{block}.{naming.fc1}", f"{mlp}/fc1")
    rules += linear(f"{block}.{'output.dense' if old else 'mlp.fc2'}", f"{mlp}/fc2")
    if model["representation_size"]:
        rules += linear(f"{encoder}pooler.dense", "pre_logits")
    if model["head"] == "classify" and model["num_classes"]:
        rules += linear(f"{naming.root}classifier", "head")
    return rules


def recognises(source: Source) -> bool:
    prefix = _prefix(source.tensors)
    kernel = f"{prefix}{_PATCH}.weight"
    return prefix is not None and len(spec_of(source.tensors, kernel).shape) == 5


def _prefix(names: Collection[str]) -> str | None:
    kernel = f"{_PATCH}.weight"
    prefixes = [name.removesuffix(kernel) for name in names if name.endswith(kernel)]
    return next((p for p in prefixes if p + "embeddings.cls_token" in names), None)


def describe(source: Source, options: Options) -> Conversion:
    notes: list[str] = []
    prefix = _prefix(source.tensors)
    root = prefix.removesuffix("vivit.")
    new = f"{prefix}layers.0.layernorm_before.weight" in source.tensors
    naming = Naming(root, prefix.removeprefix(root), "layers" if new else "encoder.layer")
    shape = formats.shapes(source.tensors, "Hugging Face's ViViT")
    model = _read_shapes(source, naming, shape)
    config = _read_config(source.config, model, notes)
    model["num_heads"] = huggingface.num_heads(
        "heads", model["width"], options.heads, config.get("num_attention_heads"), HEADS, notes
    )
    model["eps"] = config["layer_norm_eps"]
    model["act"] = huggingface.activation(config, ACTIVATIONS, "ViViT")
    hints.check(model, options)
    tokens = shape(f"{prefix}embeddings.position_embeddings")[1] - 1
    frames = options.frames or config.get("num_frames")
    size = options.size or huggingface.square(config.get("image_size"))
    clip = hints.whole_clip(tokens, model["patch_size"], frames, size, notes)
    model["pos_grid"] = list(clip.grid)
    return Conversion(
        format="hf",
        model=model,
        rules=rules(model, naming),
        ignore=(),
        naming=asdict(naming),
        preprocessing=hf_preprocessing(source, options, model, clip, notes),
        kept=huggingface.kept(source.config, ("problem_type",)),
        classes=huggingface.classes(source.config, model, notes),
        notes=notes,
    )


def _read_shapes(
    source: Source, naming: Naming, shape: Callable[[str], tuple[int, ...]]
) -> dict[str, Any]:
    """The keywords of `build` that the tensors' names and shapes tell."""
    tensors, prefix = source.tensors, naming.root + naming.encoder
    layers = f"{prefix}{naming.layers}."
    width, channels, *patch = shape(f"{prefix}{_PATCH}.weight")
    huggingface.check_channels(channels)
    model = {
        "name": "vivit",
        "head": None,
        "width": width,
        "depth": formats.count(tensors, layers),
        "mlp_dim": shape(f"{layers}0.{naming.fc1}.weight")[0],
        "patch_size": patch,
        "factorisation": "joint",
        "pool": "token",
        "representation_size": None,
    }
    if f"{naming.root}classifier.weight" in tensors:
        num_classes = shape(f"{naming.root}classifier.weight")[0]
        model |= {"head": "classify", "num_classes": num_classes}
    elif f"{prefix}pooler.dense.weight" in tensors:
        model["representation_size"] = shape(f"{prefix}pooler.dense.weight")[0]
    elif huggingface.has_no_classes(source.config):
        model |= {"head": "classify", "num_classes": 0}
    return model


def _read_config(
    config: Mapping[str, Any] | None, model: Mapping[str, Any], notes: list[str]
) -> Mapping[str, Any]:
    """Returns config.json, checked against the tensors; without one, only what is sure."""
    if config is None:
        notes.append(f"no {CONFIG} beside the weights: all releases' tanh GELU and eps are assumed")
        return {"layer_norm_eps": EPS, "hidden_act": _DEFAULTS["hidden_act"]}
    config = _DEFAULTS | config
    if not config["qkv_bias"]:
        raise UserError(f"{CONFIG} has qkv_bias false; ViViT here has biases in every layer")
    if model["representation_size"] and config["pooler_act"] != "tanh":
        raise UserError(f"{CONFIG} has pooler_act {config['pooler_act']!r}; only tanh is known")
    stated = config | {"tubelet_size": list(config["tubelet_size"])}
    huggingface.contradictions(stated, _sizes(model))
    return config


def _sizes(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model's sizes in the words of transformers' VivitConfig."""
    return huggingface.sizes(model) | {"tubelet_size": list(model["patch_size"])}


def export(card: Card, naming: Mapping[str, Any] | None, originals: Mapping[str, bytes]) -> Export:
    model, notes = card.model, []
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
    files = {CONFIG: _config(card, originals.get(CONFIG))}
    files |= processors.export(originals, card.preprocessing, PROCESSORS, notes)
    naming = Naming(**naming) if naming else Naming(encoder="vivit." if model["head"] else "")
    return Export(rules(model, naming), "model.safetensors", files, notes)


def _config(card: Card, original: bytes | None) -> bytes:
    model, frames = card.model, card.preprocessing.frames
    stated = _DEFAULTS | (json.loads(original) if original else {})
    (t, h, w), patch = model["pos_grid"], model["patch_size"]
    # Sizes that leave a rest beside the patches are kept where they are known.
    known_frames = (frames, stated["num_frames"], t * patch[0])
    known_sides = (stated["image_size"], card.preprocessing.size, [h * patch[1], w * patch[2]])

    def holds(side: Any) -> bool:
        height, width = (side, side) if isinstance(side, int) else side
        return (height // patch[1], width // patch[2]) == (h, w)

    want = _sizes(model) | {
        "num_attention_heads": model["num_heads"],
        "layer_norm_eps": model["eps"],
        "hidden_act": huggingface.hidden_act(model.get("act", ACT), stated["hidden_act"]),
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
    return huggingface.config_json(original, want, _DEFAULTS, "vivit", architecture)
