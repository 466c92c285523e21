"""X-CLIP and CLIP: Hugging Face folders, and the state dicts of microsoft's and OpenAI's code.

Sources: microsoft/VideoX X-CLIP/models, clip and datasets/build.py; openai/CLIP model.py;
transformers models/x_clip and models/clip (5.23) and its convert_x_clip_original_pytorch_to_hf.py.
X-CLIP's parts that are CLIP's have CLIP's names in both homes, but for transformers' norm before
the image tower, which CLIP alone spells `pre_layrnorm`. Projections are matrices that vectors are
multiplied by in the originals, Linear layers in transformers; only X-CLIP's of the patches is such
a matrix in both.
Shapes: D width of images, W of texts, E of what they share, H heads of width K, N patches, L
layers, T frames.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters import (
    Conversion,
    Export,
    Option,
    Options,
    TokenizerFile,
    formats,
    huggingface,
    processors,
)
from converters.formats import CONFIG, MERGES, PREPROCESSOR, Source
from converters.mapping import Ignore, Rule
from converters.options import FRAMES, HEADS, PREPROCESSING, RAW_TEXT, SIZE, TOKENIZER
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.models.layers import ACTIVATIONS
from vidjax.preprocessing import Preprocessing
from vidjax.tokenizers import clip_tokenizer_json

FORMATS = ("hf", "original")
OPTIONS = (
    HEADS,
    Option("mit_heads", int, "X-CLIP: attention heads of the transformer over frames."),
    Option("prompt_heads", int, "X-CLIP: attention heads of texts that look at a video."),
    FRAMES,
    SIZE,
    PREPROCESSING,
    TOKENIZER,
    RAW_TEXT,
)
TRAIN = "configs/xclip_k400.py"

_PROCESSORS = processors.Family(
    image="CLIPImageProcessor",
    video="VideoMAEVideoProcessor",
    videos_first=False,
    new=(PREPROCESSOR, "VideoMAEImageProcessor"),
    also="VideoMAEImageProcessor",
)
_CLIP_PROCESSORS = replace(_PROCESSORS, new=(PREPROCESSOR, "CLIPImageProcessor"), also=None)

_HEAD_DIM = 64  # of every attention in the originals
_EPS, _ACT, _ALPHA, _SCALE = 1e-5, "quick_gelu", 0.1, 2.6592  # of the originals
_FRAMES, _SIZE = 8, 224  # where a model does not tell
_LEGACY_END, _CLIP_END = 2, 49407  # of transformers: the largest id of a text; CLIP's default
_HF_IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": _LEGACY_END}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
_HF_MODEL = {  # of transformers' XCLIPConfig, for what a config.json leaves out
    "projection_dim": 512,
    "prompt_layers": 2,
    "prompt_alpha": 0.1,
    "prompt_hidden_act": "quick_gelu",
    "prompt_num_attention_heads": 8,
    "logit_scale_init_value": 2.6592,
}
_HF_TOWERS = {  # of its parts, and of CLIPConfig's
    "text_config": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "mit_hidden_size": 512,
        "mit_intermediate_size": 2048,
        "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 8,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 32,
        "num_frames": 8,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
}
_HF_ARCHITECTURES = {  # and the model_type
    None: ("XCLIPVisionModel", "xclip_vision_model"),
    "image": ("CLIPVisionModel", "clip_vision_model"),
    "text": ("XCLIPTextModel", "xclip_text_model"),
    "video_text": ("XCLIPModel", "xclip"),
    "image_text": ("CLIPModel", "clip"),
}


@dataclass(frozen=True)
class HfNaming:
    """How one Hugging Face file spells the names.

    Attributes:
        vision, text: before the names of the towers; "" in what newer versions of transformers
            write of a single tower.
        buffers: names of the tensors that count positions, in files of older versions.
    """

    vision: str = ""
    text: str = ""
    buffers: Sequence[str] = ()


def _pair(source: str, target: str, layout: str = "", bias: str = "") -> list[Rule]:
    return [
        Rule(f"{source}.weight", f"{target}/kernel", layout),
        Rule(f"{source}.bias", f"{target}/bias", bias),
    ]


def _linear(source: str, target: str) -> list[Rule]:
    return _pair(source, target, "o i -> i o")


def _norm(source: str, target: str) -> list[Rule]:
    return [Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")]


def _prompt_rules(generator: str, norm: str) -> list[Rule]:
    """Of what both homes call the same, but for the norm."""
    layer, blocks = f"{generator}.decoder.{{i}}", "prompts/blocks"
    return [
        Rule(f"{generator}.alpha", "prompts/alpha"),
        *_norm(f"{generator}.{norm}", "prompts/norm"),
        *_norm(f"{layer}.norm1", f"{blocks}/norm1"),
        *_norm(f"{layer}.norm3", f"{blocks}/norm2"),
        *(
            Rule(
                f"{layer}.cross_attn.{name[0]}_proj.weight",
                f"{blocks}/attn/{name}/kernel",
                "(h k) d -> d h k",
            )
            for name in ("query", "key", "value")
        ),
        *_pair(f"{layer}.cross_attn.proj", f"{blocks}/attn/out", "d (h k) -> h k d"),
        *_linear(f"{layer}.mlp.0", f"{blocks}/mlp/fc1"),
        *_linear(f"{layer}.mlp.3", f"{blocks}/mlp/fc2"),
    ]


def hf_rules(model: Mapping[str, Any], naming: HfNaming) -> list[Rule]:
    """The table of a Hugging Face file for the model that `build(**model)` makes."""

    def attention(source: str, target: str) -> list[Rule]:
        rules = _pair(f"{source}.out_proj", f"{target}/out", "d (h k) -> h k d")
        for name in ("query", "key", "value"):
            layouts = "(h k) d -> d h k", "(h k) -> h k"
            rules += _pair(f"{source}.{name[0]}_proj", f"{target}/{name}", *layouts)
        return rules

    def blocks(tower: str, target: str, messages: bool = False) -> list[Rule]:
        block, blocks = f"{tower}encoder.layers.{{i}}", f"{target}/blocks"
        rules = [
            *_norm(f"{block}.layer_norm1", f"{blocks}/norm1"),
            *_norm(f"{block}.layer_norm2", f"{blocks}/norm2"),
            *attention(f"{block}.self_attn", f"{blocks}/attn"),
            *_linear(f"{block}.mlp.fc1", f"{blocks}/mlp/fc1"),
            *_linear(f"{block}.mlp.fc2", f"{blocks}/mlp/fc2"),
        ]
        if messages:
            rules += _linear(f"{block}.message_fc", f"{blocks}/message_fc")
            rules += _norm(f"{block}.message_ln", f"{blocks}/message_norm")
            rules += attention(f"{block}.message_attn", f"{blocks}/message_attn")
        return rules

    head, vision, text, rules = model["head"], naming.vision, naming.text, []
    clip = head in ("image", "image_text")
    if head != "text":
        patches, positions = f"{vision}embeddings.patch_embedding", "position_embedding.weight"
        rules += [
            Rule(f"{patches}.weight", "encoder/patch_embed/kernel", "d c (t h) w -> t h w c d"),
            Rule(f"{vision}embeddings.class_embedding", "encoder/cls_token", "(a b d) -> a b d"),
            Rule(f"{vision}embeddings.{positions}", "encoder/pos_embed", "(a n) d -> a n d"),
            *_norm(f"{vision}pre_layrnorm" if clip else f"{vision}pre_layernorm", _NORM_PRE),
            *blocks(vision, "encoder", messages=not clip),
            *_norm(f"{vision}post_layernorm", "encoder/norm"),
        ]
    if head not in (None, "image"):
        embeddings = f"{text}embeddings"
        rules += [
            Rule(f"{embeddings}.token_embedding.weight", "text/token_embed"),
            Rule(f"{embeddings}.position_embedding.weight", "text/pos_embed", "(a n) d -> a n d"),
            *blocks(text, "text"),
            *_norm(f"{text}final_layer_norm", "text/norm"),
        ]
    if head != "text" and model.get("embed_dim"):
        rules.append(Rule("visual_projection.weight", "video_proj/kernel", "o i -> i o"))
    if head != "image" and model.get("embed_dim"):
        rules.append(Rule("text_projection.weight", "text_proj/kernel", "o i -> i o"))
    if head in ("video_text", "image_text"):
        rules.append(Rule("logit_scale", "logit_scale"))
    if head == "video_text":
        rules += [
            Rule("mit.position_embedding", "mit/pos_embed"),
            *blocks("mit.", "mit"),
            *_norm("prompts_visual_layernorm", "prompts/norm_visual"),
            Rule("prompts_visual_projection", "prompts/proj/kernel"),
            *_prompt_rules("prompts_generator", "layernorm"),
        ]
    return rules


_NORM_PRE = "encoder/norm_pre"


def original_rules(model: Mapping[str, Any]) -> list[Rule]:
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
        return fused + _pair(f"{source}.out_proj", f"{target}/out", "d (h k) -> h k d")

    def blocks(layers: str, target: str, messages: bool = False) -> list[Rule]:
        block, blocks = f"{layers}.{{i}}", f"{target}/blocks"
        rules = [
            *_norm(f"{block}.ln_1", f"{blocks}/norm1"),
            *_norm(f"{block}.ln_2", f"{blocks}/norm2"),
            *attention(f"{block}.attn", f"{blocks}/attn"),
            *_linear(f"{block}.mlp.c_fc", f"{blocks}/mlp/fc1"),
            *_linear(f"{block}.mlp.c_proj", f"{blocks}/mlp/fc2"),
        ]
        if messages:
            rules += _linear(f"{block}.message_fc", f"{blocks}/message_fc")
            rules += _norm(f"{block}.message_ln", f"{blocks}/message_norm")
            rules += attention(f"{block}.message_attn", f"{blocks}/message_attn")
        return rules

    video = model["head"] == "video_text"
    rules = [
        Rule("visual.conv1.weight", "encoder/patch_embed/kernel", "d c (t h) w -> t h w c d"),
        Rule("visual.class_embedding", "encoder/cls_token", "(a b d) -> a b d"),
        Rule("visual.positional_embedding", "encoder/pos_embed", "(a n) d -> a n d"),
        *_norm("visual.ln_pre", _NORM_PRE),
        *blocks("visual.transformer.resblocks", "encoder", messages=video),
        *_norm("visual.ln_post", "encoder/norm"),
        Rule("visual.proj", "video_proj/kernel"),
        Rule("token_embedding.weight", "text/token_embed"),
        Rule("positional_embedding", "text/pos_embed", "(a n) d -> a n d"),
        *blocks("transformer.resblocks", "text"),
        *_norm("ln_final", "text/norm"),
        Rule("text_projection", "text_proj/kernel"),
        Rule("logit_scale", "logit_scale"),
    ]
    if video:
        rules += [
            Rule("mit.positional_embedding", "mit/pos_embed"),
            *blocks("mit.resblocks", "mit"),
            *_norm("prompts_visual_ln", "prompts/norm_visual"),
            Rule("prompts_visual_proj", "prompts/proj/kernel"),
            *_prompt_rules("prompts_generator", "norm"),
        ]
    return rules


_ORIGINAL_PATCH, _ORIGINAL_RESNET = "visual.conv1.weight", "visual.attnpool.positional_embedding"
_HF_CLASS, _HF_TOKENS = "embeddings.class_embedding", "embeddings.token_embedding.weight"
_HF_TEXT_NORM, _MESSAGE = "final_layer_norm.weight", ".message_fc.weight"


def recognises(source: Source) -> bool:
    """Whether the tensors are an X-CLIP's or a CLIP's, from either home."""
    names = source.tensors
    if _ORIGINAL_PATCH in names:
        return "ln_final.weight" in names
    texts = [name.removesuffix(_HF_TOKENS) for name in names if name.endswith(_HF_TOKENS)]
    return any(name.endswith(_HF_CLASS) for name in names) or any(
        f"{text}{_HF_TEXT_NORM}" in names for text in texts
    )


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' names and shapes, and from config.json.

    Raises:
        UserError: config.json or the options contradict the tensors, the towers differ in what is
            one value here, or the model is a CLIP of another kind.
    """
    if _ORIGINAL_PATCH in source.tensors:
        return _describe_original(source, options)
    return _describe_hf(source, options)


def _rows(positions: int) -> int:
    """Rows of the square of patches that a table with a class position is for."""
    rows = math.isqrt(positions - 1)
    if rows * rows != positions - 1:
        raise UserError(
            f"the table of positions is for {positions - 1} patches, no square number; X-CLIP's "
            "are square here"
        )
    return rows


def _describe_original(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "X-CLIP or CLIP"), []
    if _ORIGINAL_RESNET in tensors:
        raise UserError(
            "the file is a CLIP with a ResNet for images; X-CLIP is made of those with a "
            "transformer, such as ViT-B-32, ViT-B-16 and ViT-L-14"
        )
    width, _, *patch = shape(_ORIGINAL_PATCH)
    vocab_size, text_width = shape("token_embedding.weight")
    embed_dim = shape("text_projection")[1]
    rows = _rows(shape("visual.positional_embedding")[0])
    model: dict[str, Any] = {
        "name": "xclip",
        "head": "image_text",
        "eps": _EPS,
        "act": _ACT,
        "width": width,
        "depth": formats.count(tensors, "visual.transformer.resblocks."),
        "num_heads": _num_heads("heads", width, options.heads, None, notes),
        "mlp_dim": shape("visual.transformer.resblocks.0.mlp.c_fc.weight")[0],
        "patch_size": [1, *patch],
        "pos_grid": [1, rows, rows],
        "embed_dim": embed_dim,
        "text_width": text_width,
        "text_depth": formats.count(tensors, "transformer.resblocks."),
        "text_num_heads": _num_heads("heads", text_width, None, None, notes),
        "text_mlp_dim": shape("transformer.resblocks.0.mlp.c_fc.weight")[0],
        "vocab_size": vocab_size,
        "context_length": shape("positional_embedding")[0],
    }
    if any(name.endswith(_MESSAGE) for name in tensors):
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
            heads = _num_heads(f"{part}_heads", embed_dim, given, None, notes)
            model[f"{part}_num_heads"] = heads
    else:
        notes.append(f"the MLPs' activation is assumed to be {_ACT}, as in OpenAI's CLIPs")
    _check_heads_options(options, model)
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
        rules=original_rules(model),
        ignore=[_number(name, value) for name, value in facts.items()],
        naming={"facts": facts},
        preprocessing=_preprocessing("original", source, options, model, None, notes),
        tokenizer=_tokenizer("original", source, options, model, notes),
        notes=notes,
    )


def _num_heads(
    flag: str, width: int, given: int | None, stated: int | None, notes: list[str]
) -> int:
    return huggingface.num_heads(flag, width, given, stated or width // _HEAD_DIM, {}, notes)


def _check_heads_options(options: Options, model: Mapping[str, Any]) -> None:
    if model["head"] != "video_text" and (options.mit_heads or options.prompt_heads):
        raise UserError(
            "--mit_heads and --prompt_heads are about parts that only a whole X-CLIP has, and this "
            f"model is one with head {model['head']!r}"
        )


def _number(name: str, want: int) -> Ignore:
    def check(value: np.ndarray) -> str | None:
        return None if value.size == 1 and value.item() == want else f"{value}, not {want}"

    return Ignore(name, "told by the other tensors' shapes", check=check, keep=True)


def _describe_hf(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "X-CLIP or CLIP"), []
    prefixes = [
        [name.removesuffix(end) for name in tensors if name.endswith(end)]
        for end in (_HF_CLASS, _HF_TOKENS)
    ]
    has_vision, has_text = map(bool, prefixes)
    vision, text = (found[0] if found else "" for found in prefixes)
    messages = any(name.endswith(_MESSAGE) for name in tensors)
    head = "text"
    if has_vision and has_text:
        head = "video_text" if messages else "image_text"
    elif has_vision:
        head = None if messages else "image"
    counts = [f"{tower}embeddings.position_ids" for tower in (vision, text)]
    naming = HfNaming(vision, text, [name for name in dict.fromkeys(counts) if name in tensors])
    parts, stated = _hf_parts(source.config or {}), source.config is not None
    if not stated:
        notes.append(f"no {CONFIG} beside the weights: the originals' numerics are assumed")

    def heads(flag: str, width: int, part: str, key: str) -> int:
        given = None if part == "text_config" else getattr(options, flag)
        return _num_heads(flag, width, given, parts[part][key] if stated else None, notes)

    model: dict[str, Any] = {"name": "xclip", "head": head}
    if has_vision:
        width, channels, *patch = shape(f"{vision}embeddings.patch_embedding.weight")
        huggingface.check_channels(channels)
        rows = _rows(shape(f"{vision}embeddings.position_embedding.weight")[0])
        model |= {
            "width": width,
            "depth": formats.count(tensors, f"{vision}encoder.layers."),
            "num_heads": heads("heads", width, "vision_config", "num_attention_heads"),
            "mlp_dim": shape(f"{vision}encoder.layers.0.mlp.fc1.weight")[0],
            "patch_size": [1, *patch],
            "pos_grid": [1, rows, rows],
        }
    if has_text:
        vocab_size, text_width = shape(f"{text}embeddings.token_embedding.weight")
        model |= {
            "text_width": text_width,
            "text_depth": formats.count(tensors, f"{text}encoder.layers."),
            "text_num_heads": heads("heads", text_width, "text_config", "num_attention_heads"),
            "text_mlp_dim": shape(f"{text}encoder.layers.0.mlp.fc1.weight")[0],
            "vocab_size": vocab_size,
            "context_length": shape(f"{text}embeddings.position_embedding.weight")[0],
        }
    if head in ("video_text", "image_text"):
        model["embed_dim"] = embed_dim = shape("visual_projection.weight")[0]
        model["logit_scale"] = parts["model"]["logit_scale_init_value"]
    elif head:  # a tower that may have its projection (CLIPVisionModelWithProjection)
        name = {"image": "visual_projection.weight", "text": "text_projection.weight"}[head]
        model["embed_dim"] = shape(name)[0] if name in tensors else None
    if head == "video_text":
        frames = shape("mit.position_embedding")[1]
        mit = heads("mit_heads", embed_dim, "vision_config", "mit_num_attention_heads")
        prompt = heads("prompt_heads", embed_dim, "model", "prompt_num_attention_heads")
        model |= {
            "pos_grid": [frames, rows, rows],
            "mit_depth": formats.count(tensors, "mit.encoder.layers."),
            "mit_num_heads": mit,
            "mit_mlp_dim": shape("mit.encoder.layers.0.mlp.fc1.weight")[0],
            "prompt_depth": formats.count(tensors, "prompts_generator.decoder."),
            "prompt_num_heads": prompt,
            "prompt_mlp_dim": shape("prompts_generator.decoder.0.mlp.0.weight")[0],
            "prompt_alpha": parts["model"]["prompt_alpha"],
        }
        _note_heads(options, model, notes)
    _check_heads_options(options, model)
    model |= _hf_numerics(parts, model)
    num_frames = parts["vision_config"]["num_frames"]
    if stated:
        _check_config(parts, model)
        if has_text:
            model["end_id"] = _end_id(source.config, parts["text_config"], model, notes)
    return Conversion(
        format="hf",
        model=model,
        rules=hf_rules(model, naming),
        ignore=[Ignore(n, "counts 0, 1, 2, ...", check=_counts, keep=True) for n in naming.buffers],
        naming=asdict(naming),
        preprocessing=_preprocessing(
            "hf", source, options, model, num_frames if stated and head is None else None, notes
        ),
        kept=huggingface.kept(parts["text_config"], _HF_IDS),
        tokenizer=_tokenizer("hf", source, options, model, notes),
        notes=notes,
    )


def _counts(ids: np.ndarray) -> str | None:
    return None if np.array_equal(ids, np.arange(ids.size)[None]) else "not 0, 1, 2, ..."


def _note_heads(options: Options, model: Mapping[str, Any], notes: list[str]) -> None:
    """Says where config.json's heads are not the original code's."""
    original = model["embed_dim"] // _HEAD_DIM
    parts = {"mit": "the transformer over frames", "prompt": "the layers that make prompts"}
    wrong = [
        part
        for part in parts
        if getattr(options, f"{part}_heads") is None and model[f"{part}_num_heads"] != original
    ]
    if wrong:
        found = " and ".join(f"{parts[part]} {model[f'{part}_num_heads']}" for part in wrong)
        flags = " ".join(f"--{part}_heads={original}" for part in wrong)
        notes.append(
            f"WARNING: by config.json {found} heads, as transformers computes, where the original "
            f"code has {original}: with large models' weights logits then differ by about 0.1 of "
            f"the original's; to compute as the original does, convert with {flags}"
        )


def _end_id(
    config: Mapping[str, Any], text: Mapping[str, Any], model: Mapping[str, Any], notes: list[str]
) -> int | None:
    """Returns the id at which transformers' CLIP has texts end; None: at their largest id."""
    # X-CLIP's text tower alone has no projection.
    is_clip = model["head"] == "image_text" or config.get("model_type") == "clip_text_model"
    is_clip = is_clip or (model["head"] == "text" and model["embed_dim"])
    end, largest = text.get("eos_token_id", _CLIP_END), model["vocab_size"] - 1
    if not is_clip or end in (_LEGACY_END, largest):
        return None
    if isinstance(end, int) and 0 <= end < largest:
        notes.append(f"texts end at id {end}, and the vocabulary goes on to {largest}")
        return end
    notes.append(
        f"{CONFIG} has eos_token_id {end}, which is no id of a vocabulary of "
        f"{model['vocab_size']}: a text ends at its largest id here"
    )
    return None


def _hf_parts(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The whole ("model") and the towers by a config.json, its defaults filled in.

    A single tower's is flat. What old files have in `text_config_dict` replaces `text_config`, as
    in transformers.
    """
    nested = any(key.startswith(tuple(_HF_TOWERS)) for key in config)
    parts = {"model": _HF_MODEL | dict(config)}
    for part, defaults in _HF_TOWERS.items():
        old = config.get(f"{part}_dict")
        own = old if old is not None else config.get(part)
        parts[part] = defaults | ((own or {}) if nested else dict(config))
    return parts


def _hf_numerics(parts: Mapping[str, Mapping[str, Any]], model: Mapping[str, Any]) -> dict:
    """Epsilon and activation, which all towers here have in common."""
    towers = list(_hf_sizes(model))
    found = {}
    for ours, theirs in (("eps", "layer_norm_eps"), ("act", "hidden_act")):
        values = {part: parts[part][theirs] for part in towers if part != "model"}
        if ours == "act":
            if model["head"] == "video_text":
                values["prompts"] = parts["model"]["prompt_hidden_act"]
            values = {
                part: huggingface.activation({theirs: value}, ACTIVATIONS, "X-CLIP")
                for part, value in values.items()
            }
        if len(set(values.values())) > 1:
            words = ", ".join(f"{part} {value}" for part, value in values.items())
            raise UserError(
                f"{CONFIG} has different values of {theirs} ({words}); X-CLIP here has one for all"
            )
        found[ours] = next(iter(values.values()))
    return found


def _hf_sizes(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The model's sizes in the words of transformers, for the parts of config.json that it has."""
    head, sizes = model["head"], {}
    if model.get("embed_dim"):
        sizes["model"] = {"projection_dim": model["embed_dim"]}
    if head not in (None, "image"):
        sizes["text_config"] = {
            "vocab_size": model["vocab_size"],
            "hidden_size": model["text_width"],
            "intermediate_size": model["text_mlp_dim"] or 4 * model["text_width"],
            "num_hidden_layers": model["text_depth"],
            "max_position_embeddings": model["context_length"],
        }
    if head != "text":
        sizes["vision_config"] = {
            "hidden_size": model["width"],
            "intermediate_size": model["mlp_dim"],
            "num_hidden_layers": model["depth"],
            "patch_size": model["patch_size"][1],
        }
    if head == "video_text":
        sizes["model"]["prompt_layers"] = model["prompt_depth"]
        sizes["vision_config"] |= {
            "num_frames": model["pos_grid"][0],
            "mit_hidden_size": model["embed_dim"],
            "mit_intermediate_size": model["mit_mlp_dim"] or 4 * model["embed_dim"],
            "mit_num_hidden_layers": model["mit_depth"],
        }
    return sizes


def _check_config(parts: Mapping[str, Mapping[str, Any]], model: Mapping[str, Any]) -> None:
    """Raises UserError if config.json is not about these tensors."""
    for part, sizes in _hf_sizes(model).items():
        huggingface.contradictions(parts[part], sizes)
    if model["head"] != "text":
        side, rows = huggingface.square(parts["vision_config"]["image_size"]), model["pos_grid"][1]
        stated = side // model["patch_size"][1]
        if stated != rows:
            raise UserError(
                f"{CONFIG} has image_size {side}, {stated} x {stated} patches, but the position "
                f"table is for {rows} x {rows}; fetch both anew from one place"
            )


def _preprocessing(
    default: str,
    source: Source,
    options: Options,
    model: Mapping[str, Any],
    num_frames: int | None,
    notes: list[str],
) -> Preprocessing:
    """How the model gets its video: as its home prepares it, or as --preprocessing says.

    Args:
        num_frames: of a vision tower alone, by config.json; None where that does not tell.
    """
    head, size = model["head"], _SIZE
    clip = head in ("image", "image_text")
    if head != "text":
        size = model["pos_grid"][1] * model["patch_size"][1]
        if default == "hf" and source.config is not None:
            size = huggingface.square(_hf_parts(source.config)["vision_config"]["image_size"])
            huggingface.note_rest("pixels", size, model["patch_size"][1], notes)
    frames = model["pos_grid"][0] if head == "video_text" else num_frames
    if not (frames or options.frames or head == "text"):
        notes.append(f"clips of {_FRAMES} frames are assumed (--frames=)")
    for given, known, what in ((options.size, size, "pixels"), (options.frames, frames, "frames")):
        if given and known and given != known:
            notes.append(f"positions are for {known} {what}: for {given} they are resampled")
    size = options.size or size
    values = {
        "frames": options.frames or frames or _FRAMES,
        "stride": 1,
        "sampling": "segment",
        "size": size,
        "short_side": size,
        "resize": "pil_bicubic" if clip else "pil_bilinear",
        # CLIP knows no protocol of videos.
        "temporal_views": 1 if clip else 4,
        "spatial_views": 1 if clip else 3,
        **(_CLIP if clip else _IMAGENET),
    }
    kind = options.preprocessing or default
    stated = None
    if kind == "hf":
        only = frames if head == "video_text" and not options.frames else None
        family = _CLIP_PROCESSORS if clip else _PROCESSORS
        stated = processors.read(source.json, family, only, notes)
    if default == "hf" and not (stated or options.preprocessing):
        notes.append(f"no {PREPROCESSOR} beside the weights: the original's is assumed")
        kind = "original"
    if kind not in ("original", "hf"):
        raise UserError(f"--preprocessing={kind} is not known of X-CLIP; give original or hf")
    if stated:
        fields = _for_model(stated, size)
        if fields["size"] != stated["size"]:
            notes.append(
                f"its processor makes frames of {stated['size']} pixels, and the model wants "
                f"{size}: they are made so, in transformers set crop_size to {size}"
            )
        elif fields["size"] != size and head != "text" and not options.size:
            raise UserError(
                f"its processor makes frames of {fields['size']} pixels; expected {size}, which "
                f"the model takes. Correct crop_size, or give --size={fields['size']} or "
                "--preprocessing=original"
            )
        values |= fields | {"frames": values["frames"]}
        if options.size:
            values |= {"size": size, "short_side": size, "stretch_to": None}
    if clip or head == "text":
        return Preprocessing(**values)
    if kind == "original":
        # X-CLIP's datasets/build.py: one crop of a larger frame, or three of a smaller one.
        values |= {
            "resize": "mmcv_linear",
            "short_side": int(256 / 224 * size),
            "views_short_side": size,
        }
    else:
        notes.append(
            "the released weights were trained and measured with the original's frames (less of "
            "each, and no antialias), which differ a little (--preprocessing=original)"
        )
    return Preprocessing(**values)


def _for_model(stated: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Fields of Preprocessing by a processor that may leave crop_size at its class's 224.

    That of the published 336-pixel model does, which resizes to the model's size.
    """
    return {
        **stated,
        "size": size if stated["size"] < size == stated["short_side"] else stated["size"],
    }


_TOKENIZER_KINDS = (".json", ".txt.gz")


def _tokenizer(
    format: str, source: Source, options: Options, model: Mapping[str, Any], notes: list[str]
) -> TokenizerFile | None:
    """The vocabulary that --tokenizer names, or that lies beside the weights."""
    if model["head"] in (None, "image"):
        if options.tokenizer or options.raw_text is not None:
            raise UserError("--tokenizer and --raw_text are about texts, and this model reads none")
        return None
    path = Path(options.tokenizer) if options.tokenizer else source.tokenizer
    if path is None:
        notes.append(
            "no vocabulary beside the weights, so the model takes token ids only; the released "
            "models' is CLIP's (--tokenizer=bpe_simple_vocab_16e6.txt.gz, or a tokenizer.json)"
        )
        return None
    if not path.is_file() or not path.name.endswith(_TOKENIZER_KINDS):
        raise UserError(
            f"--tokenizer={path} is no tokenizer.json, vocab.json or bpe_simple_vocab_16e6.txt.gz; "
            "name such a file"
        )
    if path.name == "vocab.json" and not (path.parent / MERGES).is_file():
        raise UserError(f"{path} is half a vocabulary; put its {MERGES} beside it")
    original = format == "original"
    cleaned = original if options.raw_text is None else not options.raw_text
    if cleaned != original or not original:
        words = {True: "mended", False: "left as they are, as Hugging Face does (--noraw_text)"}
        notes.append(f"broken Unicode and HTML's entities in texts are {words[cleaned]}")
    card = {
        "file": "tokenizer.json",
        "length": model["context_length"],
        "canonicalise": cleaned,
        "pad": "zero" if original else "end",
        "truncate": False,
    }
    if path.name == "vocab.json":
        return TokenizerFile(path.parent, card, clip_tokenizer_json)
    if path.suffix == ".gz":
        return TokenizerFile(path, card, clip_tokenizer_json)
    return TokenizerFile(path, card)


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """How to write a model.

    Args:
        card: of the model.
        format: "hf", a folder of transformers; or "original", a state dict as microsoft's code
            (under "model") or OpenAI's (bare) reads it.
        originals: JSON files of the source the model was converted from; those that still hold
            are written again as they were.

    Raises:
        UserError: the format has no such model.
    """
    model, head = card.model, card.model["head"]
    who = {"hf": "transformers", "original": "the original code"}[format]
    heads = tuple(_HF_ARCHITECTURES) if format == "hf" else ("video_text", "image_text")
    if head not in heads:
        raise UserError(f"{who} has no model with head {head!r}{_elsewhere(format, head)}")
    # What is computed from other sizes there.
    widths = {"prompt_mlp_dim": "embed_dim"}
    if format == "original":
        widths |= {"mit_mlp_dim": "embed_dim", "text_mlp_dim": "text_width", "mlp_dim": "width"}
    reasons = [
        f"{key} {model[key]} instead of {4 * model[width]}"
        for key, width in widths.items()
        if model.get(key) not in (None, 4 * (model.get(width) or 0))
    ]
    _, *grid = model.get("pos_grid", (1, 1, 1))
    _, *patch = model.get("patch_size", (1, 1, 1))
    if len(set(grid)) > 1 or len(set(patch)) > 1:
        reasons.append(f"{grid[0]} x {grid[1]} patches of {patch[0]} x {patch[1]} pixels")
    if reasons:
        raise UserError(f"{who} has no X-CLIP with {' and '.join(reasons)}")
    same = card.provenance.get("format") == format
    naming = card.provenance["naming"] if same else None
    if format == "hf":
        return _export_hf(card, naming, originals if same else {})
    return _export_original(card, naming)


def _elsewhere(format: str, head: str | None) -> str:
    """The way out, if there is one."""
    return "; export by --format=hf" if format != "hf" and head in _HF_ARCHITECTURES else ""


def _export_original(card: Card, naming: Mapping[str, Any] | None) -> Export:
    model, notes = card.model, []
    video = model["head"] == "video_text"
    heads = {"num_heads": model["width"], "text_num_heads": model["text_width"]}
    if video:
        heads |= dict.fromkeys(("mit_num_heads", "prompt_num_heads"), model["embed_dim"])
    untold = {"eps": _EPS, "act": _ACT, "end_id": None}
    untold |= {key: width // _HEAD_DIM for key, width in heads.items()}
    untold |= {"mit_depth": 1, "prompt_depth": 2} if video else {}  # the loader's
    words = [f"{key} is {model[key]}" for key, value in untold.items() if model.get(key) != value]
    if words:
        notes.append(
            f"the file does not tell that {' and '.join(words)} here: the original code computes "
            "other outputs"
        )
    facts = naming["facts"] if naming else {}
    return Export(
        original_rules(model),
        "checkpoint.pth",
        notes=notes,
        computed={name: np.array(value) for name, value in facts.items()},
        wrapper="model" if video else None,
    )


def _export_hf(
    card: Card, naming: Mapping[str, Any] | None, originals: Mapping[str, bytes]
) -> Export:
    model, notes = card.model, []
    if model["head"] == "video_text" and model.get("end_id"):
        notes.append(
            f"transformers' X-CLIP has texts end at their largest id, this model at "
            f"{model['end_id']}: their vectors differ if a text holds a larger one"
        )
    files = dict(originals)
    files[CONFIG] = _hf_config(card, originals.get(CONFIG))
    files |= _hf_processor_files(card, originals, notes)
    if card.tokenizer:
        files.setdefault(_HF_TOKENIZER_CONFIG, _hf_tokenizer_config(model))
    whole = HfNaming("vision_model.", "text_model.") if model.get("embed_dim") else HfNaming()
    naming = HfNaming(**naming) if naming else whole
    lengths = {naming.text: model.get("context_length")}
    if model["head"] != "text":
        lengths[naming.vision] = model["pos_grid"][1] ** 2 + 1
    computed = {}
    for name in naming.buffers:
        computed[name] = np.arange(lengths[name.removesuffix("embeddings.position_ids")])[None]
    return Export(
        hf_rules(model, naming),
        "model.safetensors",
        files,
        notes,
        computed=computed,
        tokenizer="tokenizer.json" if card.tokenizer else None,
    )


def _hf_config(card: Card, original: bytes | None) -> bytes:
    model = card.model
    config = json.loads(original) if original else {}
    stated, parts = _hf_parts(config), _hf_sizes(model)
    for part, prefix in (("text_config", "text_"), ("vision_config", "")):
        if part in parts:
            parts[part] |= {
                "num_attention_heads": model[f"{prefix}num_heads"],
                "layer_norm_eps": model["eps"],
                "hidden_act": huggingface.hidden_act(model["act"], stated[part]["hidden_act"]),
            }
    if model.get("end_id"):
        parts["text_config"]["eos_token_id"] = model["end_id"]
    if vision := parts.get("vision_config"):
        side, patch = stated["vision_config"]["image_size"], model["patch_size"][1]
        holds = huggingface.square(side) // patch == model["pos_grid"][1]
        vision["image_size"] = side if holds else model["pos_grid"][1] * patch
        if model["head"] is None:
            vision["num_frames"] = card.preprocessing.frames
    if model["head"] == "video_text":
        vision["mit_num_attention_heads"] = model["mit_num_heads"]
        parts["model"] |= {
            "prompt_num_attention_heads": model["prompt_num_heads"],
            "prompt_hidden_act": huggingface.hidden_act(
                model["act"], stated["model"]["prompt_hidden_act"]
            ),
            "prompt_alpha": model["prompt_alpha"],
        }
    whole = model["head"] in ("video_text", "image_text")
    if whole:
        parts["model"]["logit_scale_init_value"] = model["logit_scale"]
    if original and all(
        stated[part].get(key) == value
        for part, want in parts.items()
        for key, value in want.items()
    ):
        return original
    if not original and "text_config" in parts:
        # transformers' CLIP then takes a text's largest id for its end, as all others do.
        ids = _HF_IDS | card.provenance.get("kept", {})
        if ids["eos_token_id"] != model["vocab_size"] - 1:
            ids["eos_token_id"] = _LEGACY_END
        parts["text_config"] = ids | parts["text_config"]
    architecture, kind = _HF_ARCHITECTURES[model["head"]]
    if model["head"] == "text" and (model.get("embed_dim") or model.get("end_id")):
        architecture, kind = "CLIPTextModel", "clip_text_model"  # X-CLIP's has neither
    if model.get("embed_dim") and not whole:
        architecture += "WithProjection"
    new = {"architectures": [architecture], "model_type": kind} | config
    if not whole:
        return huggingface.to_json(new | {k: v for want in parts.values() for k, v in want.items()})
    new |= parts["model"]
    for part in _HF_TOWERS:
        start = {"model_type": f"{kind}_{part.replace('config', 'model')}"}
        own = stated[part] if original else {}
        new[part] = start | own | parts[part]
        new.pop(f"{part}_dict", None)
    return huggingface.to_json(new)


_HF_TOKENIZER_CONFIG = "tokenizer_config.json"


def _hf_tokenizer_config(model: Mapping[str, Any]) -> bytes:
    end, head = "<|endoftext|>", model["head"]
    clip = head == "image_text" or (head == "text" and model.get("embed_dim"))
    return huggingface.to_json(
        {
            "processor_class": "CLIPProcessor" if clip else "XCLIPProcessor",
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": model["context_length"],
            "bos_token": "<|startoftext|>",
            **dict.fromkeys(("eos_token", "pad_token", "unk_token"), end),
        }
    )


def _hf_processor_files(
    card: Card, originals: Mapping[str, bytes], notes: list[str]
) -> dict[str, bytes]:
    """The JSON file that tells how frames are prepared; as it was, where it says it."""
    model = card.model
    if model["head"] == "text":
        return {}
    family = _CLIP_PROCESSORS if model["head"] in ("image", "image_text") else _PROCESSORS
    size = model["pos_grid"][1] * model["patch_size"][1]
    adapt = functools.partial(_for_model, size=size)
    return processors.export(originals, card.preprocessing, family, notes, adapt)
