"""VideoMAE in Hugging Face's folders."""

import json
from collections.abc import Mapping
from typing import Any

from converters import Export, huggingface, processors
from converters.formats import CONFIG
from converters.mapping import Rule
from converters.rules import QKV, to_heads_weight
from converters.videomae import architecture
from converters.videomae.architecture import Format, Naming
from converters.videomae.published import PROCESSORS
from vidjax.card import Card
from vidjax.errors import UserError

_HEAD_EPS = 1e-5
_DEFAULTS = huggingface.VIT_BASE | {  # of transformers' VideoMAEConfig
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
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
_ARCHITECTURES = {
    None: "VideoMAEModel",
    "classify": "VideoMAEForVideoClassification",
    "reconstruct": "VideoMAEForPreTraining",
}


def _qkv(source: str, target: str) -> list[Rule]:
    return [to_heads_weight(f"{source}.{name}", f"{target}/{name}") for name in QKV]


def _read(
    config: Mapping[str, Any] | None, model: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    if config is None:
        notes.append(f"no {CONFIG} beside the weights: LayerNorm's epsilon is assumed to be 1e-12")
        return {"layer_norm_eps": _DEFAULTS["layer_norm_eps"], "head_eps": _HEAD_EPS}
    config = _DEFAULTS | config
    huggingface.activation(config, ("gelu",), "VideoMAE")
    config["qv_bias"] = config.get("qkv_bias", config["qv_bias"])  # the older key
    pools = not architecture.has_final_norm(model)
    found = _sizes(model) | {"use_mean_pooling": pools, "qv_bias": True}
    huggingface.contradictions(config, found)
    return config | {"head_eps": _HEAD_EPS}


FORMAT = Format(
    name="hf",
    telling=".layernorm_before.weight",
    patch="embeddings.patch_embeddings.projection",
    blocks="encoder.layer",
    norm="layernorm",
    decoder_blocks="decoder.decoder_layers",
    head="classifier",
    norm1="layernorm_before",
    attention="attention.attention",
    out="attention.output.dense",
    norm2="layernorm_after",
    fc1="intermediate.dense",
    fc2="output.dense",
    qkv=_qkv,
    tables=("embeddings.position_embeddings", "position_embeddings"),
    key_biases=("key.bias", "k_bias"),
    read=_read,
    preprocessing={"resize": "pil_bilinear"},
)


def _sizes(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model's sizes in the words of transformers' VideoMAEConfig."""
    t, h, w = model["patch_size"]
    if h != w and model["head"] == "reconstruct":
        raise UserError(
            f"transformers' VideoMAEForPreTraining has square patches only, and this model has "
            f"{h}x{w}; export by --format=original"
        )
    sizes = huggingface.sizes(model)
    sizes |= {"tubelet_size": t, "patch_size": h if h == w else [h, w]}
    if model["head"] == "reconstruct":
        sizes |= huggingface.sizes(model, "decoder_", "decoder_")
    return sizes


def export(card: Card, naming: Naming | None, originals: Mapping[str, bytes]) -> Export:
    model, notes = card.model, architecture.export_notes(card.model)
    key, (_, head_eps) = architecture.head_eps(model), architecture.epsilons(model)
    if key and head_eps != _HEAD_EPS:
        notes.append(
            f"{key} is {head_eps:g} here but always {_HEAD_EPS:g} in transformers: outputs differ "
            "by about 1e-5"
        )
    files = {CONFIG: _config(card, originals.get(CONFIG))}
    files |= processors.export(originals, card.preprocessing, PROCESSORS, notes)
    naming = naming or Naming(encoder="videomae." if model["head"] else "")
    return Export(architecture.rules(model, naming, FORMAT), "model.safetensors", files, notes)


def _config(card: Card, original: bytes | None) -> bytes:
    model = card.model
    stated = _DEFAULTS | (json.loads(original) if original else {})
    # A run's frames are its model's; a converted model's are those of its own config.json.
    kept, size = dict(card.provenance.get("kept", {})), card.preprocessing.size
    kept["image_size"] = kept.get("image_size", size) if original else size
    want = _sizes(model) | {
        "num_attention_heads": model["num_heads"],
        "layer_norm_eps": model["eps"],
        "hidden_act": stated["hidden_act"],
        "use_mean_pooling": not architecture.has_final_norm(model),
        "num_frames": card.preprocessing.frames,
    }
    if model["head"] == "reconstruct":
        want["decoder_num_attention_heads"] = model["decoder_num_heads"]
    want |= kept
    if "norm_pix" in (objective := card.provenance.get("objective", {})):
        want["norm_pix_loss"] = objective["norm_pix"]
    if model["head"] == "classify":
        want["id2label"] = huggingface.id2label(card.classes, model["num_classes"])
    name = _ARCHITECTURES[model["head"]]
    return huggingface.config_json(original, want, _DEFAULTS, "videomae", name)
