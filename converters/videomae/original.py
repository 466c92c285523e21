"""VideoMAE's original .pth files, of V1 and V2."""

from collections.abc import Mapping
from typing import Any

from converters import Export
from converters.rules import fused_weight
from converters.videomae import architecture
from converters.videomae.architecture import Format, Naming
from vidjax.card import Card

_EPS = 1e-6


def _read(
    config: Mapping[str, Any] | None, model: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    # OpenGVLab's hub repositories have a config.json with the original's keyword arguments.
    stated = (config or {}).get("model_config", {})
    return {
        "layer_norm_eps": _EPS,
        "head_eps": _EPS,
        "num_attention_heads": stated.get("num_heads"),
        "decoder_num_attention_heads": stated.get("decoder_num_heads"),
        "num_frames": stated.get("num_frames") or stated.get("all_frames"),
        "image_size": stated.get("img_size"),
    }


FORMAT = Format(
    name="original",
    telling=".attn.qkv.weight",
    patch="patch_embed.proj",
    blocks="blocks",
    norm="norm",
    decoder_blocks="decoder.blocks",
    head="head",
    norm1="norm1",
    attention="attn",
    out="attn.proj",
    norm2="norm2",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    qkv=lambda source, target: [fused_weight(f"{source}.qkv.weight", target)],
    tables=("pos_embed", "pos_embed", "decoder.pos_embed"),
    read=_read,
)


def export(card: Card, naming: Naming | None, originals: Mapping[str, bytes]) -> Export:
    model, notes = card.model, architecture.export_notes(card.model)
    naming = naming or Naming(encoder="encoder." if model["head"] == "reconstruct" else "")
    eps, head_eps = architecture.epsilons(model)
    if (eps, head_eps) != (_EPS, _EPS):
        notes.append(
            f"LayerNorm's epsilons are {eps:g} and {head_eps:g} here but always {_EPS:g} in the "
            "original code: outputs differ by about 1e-5"
        )
    return Export(architecture.rules(model, naming, FORMAT), "checkpoint.pth", notes=notes)
