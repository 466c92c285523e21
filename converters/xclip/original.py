"""State dicts of microsoft's X-CLIP, under "model", and of OpenAI's CLIP, bare."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, formats, limits
from converters.formats import Source
from converters.mapping import Ignore, Rule
from converters.rules import from_heads, fused_bias, fused_weight, norm
from converters.xclip import hf_config, inputs, published
from converters.xclip.rules import CLASS_TOKEN, PATCHES, POSITIONS, blocks, prompts
from vidjax.card import Card
from vidjax.errors import UserError

_PATCH, _RESNET = "visual.conv1.weight", "visual.attnpool.positional_embedding"
_IMAGES, _TEXTS, _MIT = "visual.transformer.resblocks", "transformer.resblocks", "mit.resblocks"
_BLOCK = ("ln_1", "ln_2", "attn", "mlp.c_fc", "mlp.c_proj")


def rules(model: Mapping[str, Any]) -> list[Rule]:
    """Returns the rules of microsoft's or OpenAI's file for the model of `build(**model)`."""
    layers = functools.partial(blocks, names=_BLOCK, attention=_attention)
    is_video = model["head"] == "video_text"
    rules = [
        Rule(_PATCH, "encoder/patch_embed/kernel", PATCHES),
        Rule("visual.class_embedding", "encoder/cls_token", CLASS_TOKEN),
        Rule("visual.positional_embedding", "encoder/pos_embed", POSITIONS),
        *norm("visual.ln_pre", "encoder/norm_pre"),
        *layers(_IMAGES, "encoder", has_messages=is_video),
        *norm("visual.ln_post", "encoder/norm"),
        Rule("visual.proj", "video_proj/kernel"),
        Rule("token_embedding.weight", "text/token_embed"),
        Rule("positional_embedding", "text/pos_embed", POSITIONS),
        *layers(_TEXTS, "text"),
        *norm("ln_final", "text/norm"),
        Rule("text_projection", "text_proj/kernel"),
        Rule("logit_scale", "logit_scale"),
    ]
    if is_video:
        rules += [
            Rule("mit.positional_embedding", "mit/pos_embed"),
            *layers(_MIT, "mit"),
            *norm("prompts_visual_ln", "prompts/norm_visual"),
            Rule("prompts_visual_proj", "prompts/proj/kernel"),
            *prompts("norm"),
        ]
    return rules


def _attention(source: str, target: str) -> list[Rule]:
    return [
        fused_weight(f"{source}.in_proj_weight", target),
        fused_bias(f"{source}.in_proj_bias", target),
        *from_heads(f"{source}.out_proj", f"{target}/out"),
    ]


def recognises(source: Source) -> bool:
    return _PATCH in source.tensors and "ln_final.weight" in source.tensors


def describe(source: Source, options: Options) -> Conversion:
    tensors, notes = source.tensors, []
    if _RESNET in tensors:
        raise UserError(
            "the file is a CLIP with a ResNet for images; X-CLIP is made of those with a "
            "transformer, such as ViT-B-32, ViT-B-16 and ViT-L-14"
        )
    model = {"name": "xclip", "eps": published.EPS, "act": published.ACT} | _sizes(tensors)
    model |= published.num_heads(model, options, {})
    if model["head"] in published.CLIP_IMAGES:
        notes.append(f"the MLPs' activation is assumed to be {published.ACT}, as in OpenAI's CLIPs")
    # What OpenAI's archives say of themselves.
    facts = {
        "input_resolution": model["pos_grid"][1] * model["patch_size"][1],
        "context_length": model["context_length"],
        "vocab_size": model["vocab_size"],
    }
    facts = {name: value for name, value in facts.items() if name in tensors}
    return Conversion(
        format="original",
        model=model,
        rules=rules(model),
        ignore=[_number(name, value) for name, value in facts.items()],
        naming={"facts": facts},
        preprocessing=inputs.preprocessing("original", source, options, model, notes),
        tokenizer=inputs.tokenizer("original", source, options, model, notes),
        notes=notes,
    )


def _sizes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the head and the sizes that the tensors' names and shapes tell."""
    shape = formats.shapes(tensors, "X-CLIP or CLIP")
    stack = functools.partial(published.stack, tensors)
    width, _, *patch = shape(_PATCH)
    vocab_size, text_width = shape("token_embedding.weight")
    rows = published.rows(shape("visual.positional_embedding")[0])
    model = {
        "head": "image_text",
        "width": width,
        "patch_size": [1, *patch],
        "pos_grid": [1, rows, rows],
        "embed_dim": shape("text_projection")[1],
        "text_width": text_width,
        "vocab_size": vocab_size,
        "context_length": shape("positional_embedding")[0],
    }
    model |= stack(_IMAGES, "mlp.c_fc") | stack(_TEXTS, "mlp.c_fc", "text_")
    if any(name.endswith(".message_fc.weight") for name in tensors):
        frames = shape("mit.positional_embedding")[1]
        model |= {"head": "video_text", "pos_grid": [frames, rows, rows]}
        model |= stack(_MIT, "mlp.c_fc", "mit_") | stack(published.PROMPTS, "mlp.0", "prompt_")
    return model


def _number(name: str, want: int) -> Ignore:
    def check(value: np.ndarray) -> str | None:
        return None if value.size == 1 and value.item() == want else f"{value}, not {want}"

    return Ignore(name, "told by the other tensors' shapes", check=check, keep=True)


def export(card: Card, naming: Mapping[str, Any] | None, originals: Mapping[str, bytes]) -> Export:
    model, notes = card.model, []
    published.check_expressible(
        model,
        "the original code",
        heads=("video_text", "image_text"),
        computed={
            "prompt_mlp_dim": "embed_dim",
            "mit_mlp_dim": "embed_dim",
            "text_mlp_dim": "text_width",
            "mlp_dim": "width",
        },
        otherwise="export by --format=hf" if model["head"] in hf_config.ARCHITECTURES else "",
    )
    assumed = {"eps": published.EPS, "act": published.ACT, "end_id": None}
    assumed |= published.original_heads(model)
    assumed |= {"mit_depth": 1, "prompt_depth": 2}  # the loader's
    limits.note_untold(model, assumed, notes)
    facts = naming["facts"] if naming else {}
    return Export(
        rules(model),
        "checkpoint.pth",
        notes=notes,
        computed={name: np.array(value) for name, value in facts.items()},
        wrapper="model" if model["head"] == "video_text" else None,
    )
