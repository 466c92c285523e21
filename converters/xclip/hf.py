"""Hugging Face folders of X-CLIP and CLIP."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters import Conversion, Export, Options, formats, huggingface, processors
from converters.formats import CONFIG, Source
from converters.mapping import Ignore, Rule
from converters.rules import attention, norm
from converters.xclip import hf_config, inputs, published
from converters.xclip.rules import CLASS_TOKEN, PATCHES, POSITIONS, blocks, prompts
from vidjax.card import Card

_CLASS, _TOKENS = "embeddings.class_embedding", "embeddings.token_embedding.weight"
_TEXT_NORM, _MESSAGE = "final_layer_norm.weight", ".message_fc.weight"
_BLOCK = ("layer_norm1", "layer_norm2", "self_attn", "mlp.fc1", "mlp.fc2")
_TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class Naming:
    """Spelling of the names in one Hugging Face file.

    Attributes:
        vision, text: before the names of the towers; "" in what newer versions of transformers
            write of a single tower.
        buffers: names of the tensors that count positions, in files of older versions.
    """

    vision: str = ""
    text: str = ""
    buffers: Sequence[str] = ()

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> "Naming":
        """Reads the spelling from the tensors' names."""
        prefixes = [
            next((name.removesuffix(end) for name in tensors if name.endswith(end)), "")
            for end in (_CLASS, _TOKENS)
        ]
        counts = dict.fromkeys(f"{prefix}embeddings.position_ids" for prefix in prefixes)
        return cls(*prefixes, [name for name in counts if name in tensors])


def rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """Returns the rules of a Hugging Face file for the model that `build(**model)` makes."""
    layers = functools.partial(blocks, names=_BLOCK, attention=attention)
    head, vision, text, rules = model["head"], naming.vision, naming.text, []
    is_clip = head in published.CLIP_IMAGES
    if head != "text":
        patches = f"{vision}embeddings.patch_embedding.weight"
        positions = f"{vision}embeddings.position_embedding.weight"
        rules += [
            Rule(patches, "encoder/patch_embed/kernel", PATCHES),
            Rule(vision + _CLASS, "encoder/cls_token", CLASS_TOKEN),
            Rule(positions, "encoder/pos_embed", POSITIONS),
            *norm(f"{vision}{'pre_layrnorm' if is_clip else 'pre_layernorm'}", "encoder/norm_pre"),
            *layers(f"{vision}encoder.layers", "encoder", has_messages=not is_clip),
            *norm(f"{vision}post_layernorm", "encoder/norm"),
        ]
    if head in published.TEXTS:
        positions = f"{text}embeddings.position_embedding.weight"
        rules += [
            Rule(text + _TOKENS, "text/token_embed"),
            Rule(positions, "text/pos_embed", POSITIONS),
            *layers(f"{text}encoder.layers", "text"),
            *norm(f"{text}final_layer_norm", "text/norm"),
        ]
    if head != "text" and model.get("embed_dim"):
        rules.append(Rule("visual_projection.weight", "video_proj/kernel", "o i -> i o"))
    if head != "image" and model.get("embed_dim"):
        rules.append(Rule("text_projection.weight", "text_proj/kernel", "o i -> i o"))
    if head in published.WHOLE:
        rules.append(Rule("logit_scale", "logit_scale"))
    if head == "video_text":
        rules += [
            Rule("mit.position_embedding", "mit/pos_embed"),
            *layers("mit.encoder.layers", "mit"),
            *norm("prompts_visual_layernorm", "prompts/norm_visual"),
            Rule("prompts_visual_projection", "prompts/proj/kernel"),
            *prompts("layernorm"),
        ]
    return rules


def recognises(source: Source) -> bool:
    names = source.tensors
    texts = [name.removesuffix(_TOKENS) for name in names if name.endswith(_TOKENS)]
    has_images = any(name.endswith(_CLASS) for name in names)
    return has_images or any(text + _TEXT_NORM in names for text in texts)


def describe(source: Source, options: Options) -> Conversion:
    tensors, notes, is_stated = source.tensors, [], source.config is not None
    naming, parts = Naming.of(tensors), hf_config.parts_of(source.config)
    if not is_stated:
        notes.append(f"no {CONFIG} beside the weights: the originals' numerics are assumed")
    model = {"name": "xclip"} | _sizes(tensors, naming)
    model |= published.num_heads(model, options, hf_config.num_heads(parts) if is_stated else {})
    if model["head"] in published.WHOLE:
        model["logit_scale"] = parts["model"]["logit_scale_init_value"]
    if model["head"] == "video_text":
        model["prompt_alpha"] = parts["model"]["prompt_alpha"]
        _note_heads(options, model, notes)
    model |= hf_config.numerics(parts, model)
    if is_stated:
        hf_config.check(parts, model)
        if model["head"] in published.TEXTS:
            text = parts["text_config"]
            model["end_id"] = hf_config.end_id(source.config, text, model, notes)
    return Conversion(
        format="hf",
        model=model,
        rules=rules(model, naming),
        ignore=[
            Ignore(name, "counts 0, 1, 2, ...", check=huggingface.counts, keep=True)
            for name in naming.buffers
        ],
        naming=asdict(naming),
        preprocessing=inputs.preprocessing("hf", source, options, model, notes),
        kept=huggingface.kept(parts["text_config"], hf_config.IDS),
        tokenizer=inputs.tokenizer("hf", source, options, model, notes),
        notes=notes,
    )


def _head(tensors: Mapping[str, Any]) -> str | None:
    has_frames, has_texts, has_messages = (
        any(name.endswith(end) for name in tensors) for end in (_CLASS, _TOKENS, _MESSAGE)
    )
    if not has_frames:
        return "text"
    if has_texts:
        return "video_text" if has_messages else "image_text"
    return None if has_messages else "image"


def _sizes(tensors: Mapping[str, Any], naming: Naming) -> dict[str, Any]:
    """Returns the head and the sizes that the tensors' names and shapes tell."""
    shape = formats.shapes(tensors, "X-CLIP or CLIP")
    stack = functools.partial(published.stack, tensors)
    vision, text, model = naming.vision, naming.text, {"head": _head(tensors)}
    if model["head"] != "text":
        width, channels, *patch = shape(f"{vision}embeddings.patch_embedding.weight")
        huggingface.check_channels(channels)
        rows = published.rows(shape(f"{vision}embeddings.position_embedding.weight")[0])
        model |= {"width": width, "patch_size": [1, *patch], "pos_grid": [1, rows, rows]}
        model |= stack(f"{vision}encoder.layers", "mlp.fc1")
    if model["head"] in published.TEXTS:
        model["vocab_size"], model["text_width"] = shape(text + _TOKENS)
        model["context_length"] = shape(f"{text}embeddings.position_embedding.weight")[0]
        model |= stack(f"{text}encoder.layers", "mlp.fc1", "text_")
    if model["head"] in published.WHOLE:
        model["embed_dim"] = shape("visual_projection.weight")[0]
    elif model["head"]:  # a tower that may have its projection (CLIPVisionModelWithProjection)
        name = {"image": "visual_projection.weight", "text": "text_projection.weight"}
        projection = name[model["head"]]
        model["embed_dim"] = shape(projection)[0] if projection in tensors else None
    if model["head"] == "video_text":
        model["pos_grid"] = [shape("mit.position_embedding")[1], rows, rows]
        model |= stack("mit.encoder.layers", "mlp.fc1", "mit_")
        model |= stack(published.PROMPTS, "mlp.0", "prompt_")
    return model


def _note_heads(options: Options, model: Mapping[str, Any], notes: list[str]) -> None:
    """Notes where config.json's heads are not the original code's."""
    original = published.original_heads(model)["mit_num_heads"]
    parts = {"mit": "the transformer over frames", "prompt": "the layers that make prompts"}
    wrong = [
        part
        for part in parts
        if getattr(options, f"{part}_heads") is None and model[f"{part}_num_heads"] != original
    ]
    if wrong:
        words = " and ".join(f"{parts[part]} {model[f'{part}_num_heads']}" for part in wrong)
        flags = " ".join(f"--{part}_heads={original}" for part in wrong)
        notes.append(
            f"WARNING: by config.json {words} heads, as transformers computes, where the original "
            f"code has {original}: with large models' weights logits then differ by about 0.1 of "
            f"the original's; to compute as the original does, convert with {flags}"
        )


def export(card: Card, naming: Mapping[str, Any] | None, originals: Mapping[str, bytes]) -> Export:
    model, notes, files = card.model, [], dict(originals)
    heads, computed_sizes = hf_config.ARCHITECTURES, {"prompt_mlp_dim": "embed_dim"}
    published.check_expressible(model, "transformers", heads, computed_sizes)
    if model["head"] == "video_text" and model.get("end_id"):
        notes.append(
            f"transformers' X-CLIP has texts end at their largest id, this model at "
            f"{model['end_id']}: their vectors differ if a text holds a larger one"
        )
    files[CONFIG] = hf_config.write(card, originals.get(CONFIG))
    if model["head"] != "text":
        files |= processors.export(
            originals,
            card.preprocessing,
            inputs.processors_of(model),
            notes,
            functools.partial(inputs.for_model, size=inputs.position_side(model)),
        )
    if card.tokenizer:
        files.setdefault(_TOKENIZER_CONFIG, _tokenizer_config(model))
    whole = Naming("vision_model.", "text_model.") if model.get("embed_dim") else Naming()
    spelling = Naming(**naming) if naming else whole
    lengths = {spelling.text: model.get("context_length")}
    if model["head"] != "text":
        lengths[spelling.vision] = model["pos_grid"][1] ** 2 + 1
    computed = {}
    for name in spelling.buffers:
        computed[name] = np.arange(lengths[name.removesuffix("embeddings.position_ids")])[None]
    return Export(
        rules(model, spelling),
        "model.safetensors",
        files,
        notes,
        computed=computed,
        tokenizer="tokenizer.json" if card.tokenizer else None,
    )


def _tokenizer_config(model: Mapping[str, Any]) -> bytes:
    is_clip = model["head"] in published.CLIP_IMAGES or (
        model["head"] == "text" and model.get("embed_dim")
    )
    config = {
        "processor_class": "CLIPProcessor" if is_clip else "XCLIPProcessor",
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": model["context_length"],
        "bos_token": "<|startoftext|>",
    }
    ends = dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    return huggingface.to_json(config | ends)
