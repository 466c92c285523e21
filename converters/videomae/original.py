"""VideoMAE's original .pth files, of V1 and V2."""

from collections.abc import Mapping
from typing import Any

from converters import Export, Options
from converters.mapping import Rule
from converters.rules import from_heads, fused_weight, linear, norm
from converters.videomae import architecture
from converters.videomae.architecture import Format, Naming, Stated
from vidjax.card import Card

_EPS = 1e-6


def _block(source: str, target: str, naming: Naming) -> list[Rule]:
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


def _read(
    config: Mapping[str, Any] | None,
    model: Mapping[str, Any],
    options: Options,
    notes: list[str],
) -> Stated:
    # OpenGVLab's hub repositories have a config.json with the original's keyword arguments.
    stated = (config or {}).get("model_config", {})
    return Stated(
        eps=_EPS,
        head_eps=_EPS,
        heads=stated.get("num_heads"),
        decoder_heads=stated.get("decoder_num_heads"),
        frames=stated.get("num_frames") or stated.get("all_frames"),
        size=stated.get("img_size"),
    )


FORMAT = Format(
    name="original",
    telling=".attn.qkv.weight",
    patch="patch_embed.proj",
    blocks="blocks",
    norm="norm",
    decoder_blocks="decoder.blocks",
    head="head",
    attention="attn",
    fc1="mlp.fc1",
    tables=("pos_embed", "pos_embed", "decoder.pos_embed"),
    block=_block,
    read=_read,
)


def export(card: Card, naming: Naming | None, notes: list[str]) -> Export:
    model = card.model
    naming = naming or Naming(encoder="encoder." if model["head"] == "reconstruct" else "")
    eps, head_eps = architecture.epsilons(model)
    if (eps, head_eps) != (_EPS, _EPS):
        notes.append(
            f"LayerNorm's epsilons are {eps:g} and {head_eps:g} here but always {_EPS:g} in the "
            "original code: outputs differ by about 1e-5"
        )
    return Export(architecture.rules(model, naming, FORMAT), "checkpoint.pth", notes=notes)
