"""Hugging Face folders of X-CLIP and CLIP."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, formats, huggingface
from converters.formats import CONFIG, Source
from converters.mapping import Ignore, Rule
from converters.xclip import architecture, hf_config, inputs, published
from converters.xclip.rules import NORM_PRE, linear, norm, pair, prompts
from vidjax.card import Card


@dataclass(frozen=True)
class Naming:
    """How one Hugging Face file spells the names.

    Attributes:
        vision, text: before the names of the towers; "" in what newer versions of transformers
            write of a single tower.
        buffers: names of the tensors that count positions, in files of older versions.
    """

    vision: str = ""
    text: str = ""
    buffers: Sequence[str] = ()


def rules_of(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """The table of a Hugging Face file for the model that `build(**model)` makes."""

    def attention(source: str, target: str) -> list[Rule]:
        rules = pair(f"{source}.out_proj", f"{target}/out", "d (h k) -> h k d")
        for name in ("query", "key", "value"):
            layouts = "(h k) d -> d h k", "(h k) -> h k"
            rules += pair(f"{source}.{name[0]}_proj", f"{target}/{name}", *layouts)
        return rules

    def blocks(tower: str, target: str, messages: bool = False) -> list[Rule]:
        block, blocks = f"{tower}encoder.layers.{{i}}", f"{target}/blocks"
        rules = [
            *norm(f"{block}.layer_norm1", f"{blocks}/norm1"),
            *norm(f"{block}.layer_norm2", f"{blocks}/norm2"),
            *attention(f"{block}.self_attn", f"{blocks}/attn"),
            *linear(f"{block}.mlp.fc1", f"{blocks}/mlp/fc1"),
            *linear(f"{block}.mlp.fc2", f"{blocks}/mlp/fc2"),
        ]
        if messages:
            rules += linear(f"{block}.message_fc", f"{blocks}/message_fc")
            rules += norm(f"{block}.message_ln", f"{blocks}/message_norm")
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
            *norm(f"{vision}pre_layrnorm" if clip else f"{vision}pre_layernorm", NORM_PRE),
            *blocks(vision, "encoder", messages=not clip),
            *norm(f"{vision}post_layernorm", "encoder/norm"),
        ]
    if head not in (None, "image"):
        embeddings = f"{text}embeddings"
        rules += [
            Rule(f"{embeddings}.token_embedding.weight", "text/token_embed"),
            Rule(f"{embeddings}.position_embedding.weight", "text/pos_embed", "(a n) d -> a n d"),
            *blocks(text, "text"),
            *norm(f"{text}final_layer_norm", "text/norm"),
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
            *norm("prompts_visual_layernorm", "prompts/norm_visual"),
            Rule("prompts_visual_projection", "prompts/proj/kernel"),
            *prompts("prompts_generator", "layernorm"),
        ]
    return rules


CLASS, TOKENS = "embeddings.class_embedding", "embeddings.token_embedding.weight"
TEXT_NORM, MESSAGE = "final_layer_norm.weight", ".message_fc.weight"


def describe(source: Source, options: Options) -> Conversion:
    tensors, shape, notes = source.tensors, formats.shapes(source.tensors, "X-CLIP or CLIP"), []
    prefixes = [
        [name.removesuffix(end) for name in tensors if name.endswith(end)]
        for end in (CLASS, TOKENS)
    ]
    has_vision, has_text = map(bool, prefixes)
    vision, text = (found[0] if found else "" for found in prefixes)
    messages = any(name.endswith(MESSAGE) for name in tensors)
    head = "text"
    if has_vision and has_text:
        head = "video_text" if messages else "image_text"
    elif has_vision:
        head = None if messages else "image"
    counts = [f"{tower}embeddings.position_ids" for tower in (vision, text)]
    naming = Naming(vision, text, [name for name in dict.fromkeys(counts) if name in tensors])
    parts, stated = hf_config.parts_of(source.config or {}), source.config is not None
    if not stated:
        notes.append(f"no {CONFIG} beside the weights: the originals' numerics are assumed")

    def heads(flag: str, width: int, part: str, key: str) -> int:
        given = None if part == "text_config" else getattr(options, flag)
        return architecture.num_heads(
            flag, width, given, parts[part][key] if stated else None, notes
        )

    model: dict[str, Any] = {"name": "xclip", "head": head}
    if has_vision:
        width, channels, *patch = shape(f"{vision}embeddings.patch_embedding.weight")
        huggingface.check_channels(channels)
        rows = architecture.rows_of(shape(f"{vision}embeddings.position_embedding.weight")[0])
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
    architecture.check_heads_options(options, model)
    model |= hf_config.numerics(parts, model)
    num_frames = parts["vision_config"]["num_frames"]
    if stated:
        hf_config.check(parts, model)
        if has_text:
            model["end_id"] = hf_config.end_id(source.config, parts["text_config"], model, notes)
    return Conversion(
        format="hf",
        model=model,
        rules=rules_of(model, naming),
        ignore=[Ignore(n, "counts 0, 1, 2, ...", check=_counts, keep=True) for n in naming.buffers],
        naming=asdict(naming),
        preprocessing=inputs.preprocessing(
            "hf", source, options, model, num_frames if stated and head is None else None, notes
        ),
        kept=huggingface.kept(parts["text_config"], hf_config.IDS),
        tokenizer=inputs.tokenizer("hf", source, options, model, notes),
        notes=notes,
    )


def _counts(ids: np.ndarray) -> str | None:
    return None if np.array_equal(ids, np.arange(ids.size)[None]) else "not 0, 1, 2, ..."


def _note_heads(options: Options, model: Mapping[str, Any], notes: list[str]) -> None:
    """Says where config.json's heads are not the original code's."""
    original = model["embed_dim"] // published.HEAD_DIM
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


def export(card: Card, naming: Mapping[str, Any] | None, originals: Mapping[str, bytes]) -> Export:
    model, notes = card.model, []
    if model["head"] == "video_text" and model.get("end_id"):
        notes.append(
            f"transformers' X-CLIP has texts end at their largest id, this model at "
            f"{model['end_id']}: their vectors differ if a text holds a larger one"
        )
    files = dict(originals)
    files[CONFIG] = hf_config.write(card, originals.get(CONFIG))
    files |= inputs.processor_files(card, originals, notes)
    if card.tokenizer:
        files.setdefault(_TOKENIZER_CONFIG, _tokenizer_config(model))
    whole = Naming("vision_model.", "text_model.") if model.get("embed_dim") else Naming()
    naming = Naming(**naming) if naming else whole
    lengths = {naming.text: model.get("context_length")}
    if model["head"] != "text":
        lengths[naming.vision] = model["pos_grid"][1] ** 2 + 1
    computed = {}
    for name in naming.buffers:
        computed[name] = np.arange(lengths[name.removesuffix("embeddings.position_ids")])[None]
    return Export(
        rules_of(model, naming),
        "model.safetensors",
        files,
        notes,
        computed=computed,
        tokenizer="tokenizer.json" if card.tokenizer else None,
    )


_TOKENIZER_CONFIG = "tokenizer_config.json"


def _tokenizer_config(model: Mapping[str, Any]) -> bytes:
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
