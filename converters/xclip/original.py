"""State dicts of microsoft's X-CLIP and OpenAI's CLIP."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, formats
from converters.formats import Source
from converters.mapping import Ignore, Rule
from converters.xclip import architecture, hf, inputs, published
from converters.xclip.rules import NORM_PRE, linear, norm, pair, prompts
from vidjax.card import Card
from vidjax.errors import UserError


def rules_of(model: Mapping[str, Any]) -> list[Rule]:
    """The table of microsoft's or OpenAI's file for the model that `build(**model)` makes."""

    def attention(source: str, target: str) -> list[Rule]:
        fused = [
            Rule(
                f"{source}.in_proj_{kind}",
                tuple(f"{target}/{name}/{ours}" for name in ("query", "key", "value")),
                layout,
            )
            for kind, ours, layout in (
                ("weight", "kernel", "(s h k) d -> s d h k"),
                ("bias", "bias", "(s h k) -> s h k"),
            )
        ]
        return fused + pair(f"{source}.out_proj", f"{target}/out", "d (h k) -> h k d")

    def blocks(layers: str, target: str, messages: bool = False) -> list[Rule]:
        block, blocks = f"{layers}.{{i}}", f"{target}/blocks"
        rules = [
            *norm(f"{block}.ln_1", f"{blocks}/norm1"),
            *norm(f"{block}.ln_2", f"{blocks}/norm2"),
            *attention(f"{block}.attn", f"{blocks}/attn"),
            *linear(f"{block}.mlp.c_fc", f"{blocks}/mlp/fc1"),
            *linear(f"{block}.mlp.c_proj", f"{blocks}/mlp/fc2"),
        ]
        if messages:
            rules += linear(f"{block}.message_fc", f"{blocks}/message_fc")
            rules += norm(f"{block}.message_ln", f"{blocks}/message_norm")
            rules += attention(f"{block}.message_attn", f"{blocks}/message_attn")
        return rules

    video = model["head"] == "video_text"
    rules = [
        Rule("visual.conv1.weight", "encoder/patch_embed/kernel", "d c (t h) w -> t h w c d"),
        Rule("visual.class_embedding", "encoder/cls_token", "(a b d) -> a b d"),
        Rule("visual.positional_embedding", "encoder/pos_embed", "(a n) d -> a n d"),
        *norm("visual.ln_pre", NORM_PRE),
        *blocks("visual.transformer.resblocks", "encoder", messages=video),
        *norm("visual.ln_post", "encoder/norm"),
        Rule("visual.proj", "video_proj/kernel"),
        Rule("token_embedding.weight", "text/token_embed"),
        Rule("positional_embedding", "text/pos_embed", "(a n) d -> a n d"),
        *blocks("transformer.resblocks", "text"),
        *norm("ln_final", "text/norm"),
        Rule("text_projection", "text_proj/kernel"),
        Rule("logit_scale", "logit_scale"),
    ]
    if video:
        rules += [
            Rule("mit.positional_embedding", "mit/pos_embed"),
            *blocks("mit.resblocks", "mit"),
            *norm("prompts_visual_ln", "prompts/norm_visual"),
            Rule("prompts_visual_proj", "prompts/proj/kernel"),
            *prompts("prompts_generator", "norm"),
        ]
    return rules


PATCH, _RESNET = "visual.conv1.weight", "visual.attnpool.positional_embedding"


def describe(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "X-CLIP or CLIP"), []
    if _RESNET in tensors:
        raise UserError(
            "the file is a CLIP with a ResNet for images; X-CLIP is made of those with a "
            "transformer, such as ViT-B-32, ViT-B-16 and ViT-L-14"
        )
    width, _, *patch = shape(PATCH)
    vocab_size, text_width = shape("token_embedding.weight")
    embed_dim = shape("text_projection")[1]
    rows = architecture.rows_of(shape("visual.positional_embedding")[0])
    model: dict[str, Any] = {
        "name": "xclip",
        "head": "image_text",
        "eps": published.EPS,
        "act": published.ACT,
        "width": width,
        "depth": formats.count(tensors, "visual.transformer.resblocks."),
        "num_heads": architecture.num_heads("heads", width, options.heads, None, notes),
        "mlp_dim": shape("visual.transformer.resblocks.0.mlp.c_fc.weight")[0],
        "patch_size": [1, *patch],
        "pos_grid": [1, rows, rows],
        "embed_dim": embed_dim,
        "text_width": text_width,
        "text_depth": formats.count(tensors, "transformer.resblocks."),
        "text_num_heads": architecture.num_heads("heads", text_width, None, None, notes),
        "text_mlp_dim": shape("transformer.resblocks.0.mlp.c_fc.weight")[0],
        "vocab_size": vocab_size,
        "context_length": shape("positional_embedding")[0],
    }
    if any(name.endswith(hf.MESSAGE) for name in tensors):
        model |= {
            "head": "video_text",
            "pos_grid": [shape("mit.positional_embedding")[1], rows, rows],
            "mit_depth": formats.count(tensors, "mit.resblocks."),
            "mit_mlp_dim": shape("mit.resblocks.0.mlp.c_fc.weight")[0],
            "prompt_depth": formats.count(tensors, "prompts_generator.decoder."),
            "prompt_mlp_dim": shape("prompts_generator.decoder.0.mlp.0.weight")[0],
        }
        for part in ("mit", "prompt"):
            given = getattr(options, f"{part}_heads")
            heads = architecture.num_heads(f"{part}_heads", embed_dim, given, None, notes)
            model[f"{part}_num_heads"] = heads
    else:
        notes.append(f"the MLPs' activation is assumed to be {published.ACT}, as in OpenAI's CLIPs")
    architecture.check_heads_options(options, model)
    # What OpenAI's archives say of themselves.
    facts = {
        "input_resolution": rows * patch[0],
        "context_length": model["context_length"],
        "vocab_size": vocab_size,
    }
    facts = {name: value for name, value in facts.items() if name in tensors}
    return Conversion(
        format="original",
        model=model,
        rules=rules_of(model),
        ignore=[_number(name, value) for name, value in facts.items()],
        naming={"facts": facts},
        preprocessing=inputs.preprocessing("original", source, options, model, None, notes),
        tokenizer=inputs.tokenizer("original", source, options, model, notes),
        notes=notes,
    )


def _number(name: str, want: int) -> Ignore:
    def check(value: np.ndarray) -> str | None:
        return None if value.size == 1 and value.item() == want else f"{value}, not {want}"

    return Ignore(name, "told by the other tensors' shapes", check=check, keep=True)


def export(card: Card, naming: Mapping[str, Any] | None) -> Export:
    model, notes = card.model, []
    video = model["head"] == "video_text"
    heads = {"num_heads": model["width"], "text_num_heads": model["text_width"]}
    if video:
        heads |= dict.fromkeys(("mit_num_heads", "prompt_num_heads"), model["embed_dim"])
    untold = {"eps": published.EPS, "act": published.ACT, "end_id": None}
    untold |= {key: width // published.HEAD_DIM for key, width in heads.items()}
    untold |= {"mit_depth": 1, "prompt_depth": 2} if video else {}  # the loader's
    words = [f"{key} is {model[key]}" for key, value in untold.items() if model.get(key) != value]
    if words:
        notes.append(
            f"the file does not tell that {' and '.join(words)} here: the original code computes "
            "other outputs"
        )
    facts = naming["facts"] if naming else {}
    return Export(
        rules_of(model),
        "checkpoint.pth",
        notes=notes,
        computed={name: np.array(value) for name, value in facts.items()},
        wrapper="model" if video else None,
    )
