"""VideoMAE's tensors: their names in either format, and the model that they are of."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from converters import Conversion, Options, formats, huggingface
from converters.formats import Source
from converters.mapping import Ignore, Rule
from converters.rules import from_heads, linear, norm, patch_embed
from converters.videomae.published import DECODER_HEADS, HEADS, preprocessing
from vidjax.errors import UserError
from vidjax.lazy import spec_of
from vidjax.models.layers.positions import sincos_1d


@dataclass(frozen=True)
class Naming:
    """Spelling of the names in one file.

    Attributes:
        root: before every name, such as "module." of DistributedDataParallel.
        encoder: before the encoder's names (after `root`): "videomae.", "encoder.", "backbone.".
        bias: HF only, the query's bias: "q_bias" in published files, "query.bias" in some others.
    """

    root: str = ""
    encoder: str = ""
    bias: str = "q_bias"


@dataclass(frozen=True)
class Format:
    """The names of a format, after the prefixes of Naming, and what else is its own.

    Attributes:
        name: of the format.
        telling: end of a name that no other format has.
        patch, blocks, norm, decoder_blocks, head: layers; `head` is the classifier.
        norm1, attention, out, norm2, fc1, fc2: layers of a block.
        qkv: gives the rules of query's, key's and value's weights, by the attention's names.
        tables: of fixed positions in some files, that of the encoder first.
        key_biases: of the attention, in some files.
        read: gives what the shapes do not tell, in the words of config.json: layer_norm_eps,
            head_eps (of fc_norm and the decoder's norm), and if they are known num_frames,
            image_size, num_attention_heads and decoder_num_attention_heads. It checks that
            config.json is about the model.
        preprocessing: fields of Preprocessing where no file tells them.
    """

    name: str
    telling: str
    patch: str
    blocks: str
    norm: str
    decoder_blocks: str
    head: str
    norm1: str
    attention: str
    out: str
    norm2: str
    fc1: str
    fc2: str
    qkv: Callable[[str, str], list[Rule]]
    tables: tuple[str, ...]
    read: Callable[[Mapping[str, Any] | None, Mapping[str, Any], list[str]], dict[str, Any]]
    key_biases: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def patch_kernel(self) -> str:
        return f"{self.patch}.weight"


def _block(source: str, target: str, naming: Naming, format: Format) -> list[Rule]:
    attention, attn = f"{source}.{format.attention}", f"{target}/attn"
    value_bias = {"q_bias": "v_bias", "query.bias": "value.bias"}[naming.bias]
    return [
        *norm(f"{source}.{format.norm1}", f"{target}/norm1"),
        *format.qkv(attention, attn),
        Rule(f"{attention}.{naming.bias}", f"{attn}/query/bias", "(n h) -> n h"),
        Rule(f"{attention}.{value_bias}", f"{attn}/value/bias", "(n h) -> n h"),
        *from_heads(f"{source}.{format.out}", f"{attn}/out"),
        *norm(f"{source}.{format.norm2}", f"{target}/norm2"),
        *linear(f"{source}.{format.fc1}", f"{target}/mlp/fc1"),
        *linear(f"{source}.{format.fc2}", f"{target}/mlp/fc2"),
    ]


def rules(model: Mapping[str, Any], naming: Naming, format: Format) -> list[Rule]:
    """Returns the table of a file for the model that `build(**model)` makes."""
    root, encoder = naming.root, naming.root + naming.encoder
    rules = [
        *patch_embed(encoder + format.patch),
        *_block(f"{encoder}{format.blocks}.{{i}}", "encoder/blocks", naming, format),
    ]
    if has_final_norm(model):
        rules += norm(encoder + format.norm, "encoder/norm")
    if head_eps(model) == "fc_norm_eps":
        rules += norm(f"{root}fc_norm", "fc_norm")
    if model["head"] == "classify" and model["num_classes"]:
        rules += linear(root + format.head, "head")
    if model["head"] == "reconstruct":
        rules += [
            linear(f"{root}encoder_to_decoder", "encoder_to_decoder")[0],
            Rule(f"{root}mask_token", "mask_token"),
            *_block(f"{root}{format.decoder_blocks}.{{i}}", "decoder/blocks", naming, format),
            # Both references and our decoder order a patch's pixels (t, h, w, c).
            *norm(f"{root}decoder.norm", "decoder/norm"),
            *linear(f"{root}decoder.head", "decoder/head"),
        ]
    return rules


def has_final_norm(model: Mapping[str, Any]) -> bool:
    return model["pool"] == "first" if model["head"] == "classify" else model["final_norm"]


def head_eps(model: Mapping[str, Any]) -> str | None:
    """The field with the epsilon of fc_norm or the decoder's norm; None of a model without both."""
    if model["head"] == "classify":
        return "fc_norm_eps" if model["pool"] == "mean" else None
    return "decoder_norm_eps" if model["head"] == "reconstruct" else None


def epsilons(model: Mapping[str, Any]) -> tuple[float, float]:
    """The epsilon of the encoder's norms, and that of `head_eps`, which may follow it."""
    given = model[key] if (key := head_eps(model)) else None
    return model["eps"], model["eps"] if given is None else given


def export_notes(model: Mapping[str, Any]) -> list[str]:
    if model["pos_grid"] is None:
        return []
    return ["the resampled position table (pos_grid) is not part of the exported format"]


def recognises(source: Source, format: Format) -> bool:
    # ViViT has the same patch embedding in Hugging Face's format, but a class token, and VideoPrism
    # one of frames, and positions in the file.
    others = ("cls_token", "spatial_embeddings.position_embeddings", ".attn.qkv.bias")
    patches = [name for name in source.tensors if name.endswith(format.patch_kernel)]
    return (
        bool(patches)
        and any(name.endswith(format.telling) for name in source.tensors)
        and not any(name.endswith(others) for name in source.tensors)
        and len(spec_of(source.tensors, patches[0]).shape) == 5
    )


def describe(source: Source, options: Options, format: Format) -> Conversion:
    naming = _naming(source.tensors, format)
    _refuse_options(source.tensors, naming, format)
    model = _read_shapes(source.tensors, naming, format)
    notes: list[str] = []
    if model["head"] is None and model["final_norm"] and huggingface.has_no_classes(source.config):
        del model["final_norm"]
        model |= {"head": "classify", "pool": "first", "num_classes": 0}
    config = format.read(source.config, model, notes)

    def heads(flag: str, width: int, published: Mapping[int, int]) -> int:
        stated = config.get(flag.replace("heads", "num_attention_heads"))
        given = getattr(options, flag)
        return huggingface.num_heads(flag, width, given, stated, published, notes)

    model |= {"num_heads": heads("heads", model["width"], HEADS), "eps": config["layer_norm_eps"]}
    if model["head"] == "reconstruct":
        width = model["decoder_width"]
        model["decoder_num_heads"] = heads("decoder_heads", width, DECODER_HEADS)
    if key := head_eps(model):
        model[key] = config["head_eps"]
    if format.name == "hf" and model["width"] == 384 and model["num_heads"] == 16:
        notes.append(
            "WARNING: config.json says 16 heads, but VideoMAE-small was trained with 6 (a known "
            "error of the published files, which costs most of the accuracy): if this is that "
            "model, convert it with --heads=6"
        )
    kept = huggingface.kept(source.config, ("norm_pix_loss", "problem_type"))
    if format.name == "hf" and source.config is not None:
        kept["image_size"] = options.size or huggingface.square(config["image_size"])
    return Conversion(
        format=format.name,
        model=model,
        rules=rules(model, naming, format),
        ignore=_ignored(naming, format),
        naming=asdict(naming),
        preprocessing=preprocessing(source, options, model, config, format.preprocessing, notes),
        classes=huggingface.classes(source.config, model, notes),
        kept=kept,
        notes=notes,
    )


def _naming(tensors: Collection[str], format: Format) -> Naming:
    """Finds the prefixes, from where the patch embedding's kernel is."""
    kernel = format.patch_kernel
    prefix = next(n for n in tensors if n.endswith(kernel)).removesuffix(kernel)
    # The last word of the prefix is the encoder's own if heads or decoder lack it.
    root = prefix[: prefix[:-1].rfind(".") + 1]
    above = ("mask_token", "fc_norm.weight", f"{format.head}.weight")
    if not any(root + name in tensors for name in above):
        root = prefix
    old = any(name.endswith(".q_bias") for name in tensors)
    return Naming(root, prefix.removeprefix(root), "q_bias" if old else "query.bias")


def _refuse_options(tensors: Mapping[str, np.ndarray], naming: Naming, format: Format) -> None:
    """Raises UserError if the file's model has an option of its code that no release uses."""
    block = f"{naming.root}{naming.encoder}{format.blocks}.0."
    bias = f"{block}{format.attention}.{naming.bias}"
    options = {
        "no biases of query and value (qkv_bias=False)": bias not in tensors,
        "layer scale (init_values)": f"{block}gamma_1" in tensors,
        "cosine attention (cos_attn)": f"{block}attn.scale" in tensors,
    }
    for name in _position_tables(naming, format):
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


def _position_tables(naming: Naming, format: Format) -> Collection[str]:
    first, *others = format.tables
    names = (naming.encoder + first, *others)
    return dict.fromkeys(naming.root + name for name in names)


def _ignored(naming: Naming, format: Format) -> list[Ignore]:
    reason = "the fixed sine-cosine table, which the model computes"
    ignored = [Ignore(name, reason, optional=True) for name in _position_tables(naming, format)]
    reason = (
        "a key bias adds the same number to all scores of a query, which the softmax removes; "
        "the model has none, and an export will lack it"
    )
    blocks = (naming.encoder + format.blocks, format.decoder_blocks)
    return ignored + [
        Ignore(f"{naming.root}{block}.{{i}}.{format.attention}.{name}", reason, optional=True)
        for block in blocks
        for name in format.key_biases
    ]


def _read_shapes(
    tensors: Mapping[str, np.ndarray], naming: Naming, format: Format
) -> dict[str, Any]:
    """The keywords of `build` that the tensors' names and shapes tell."""
    root, encoder = naming.root, naming.root + naming.encoder
    shape = formats.shapes(tensors, f"VideoMAE ({format.name})")

    def blocks(layers: str, kind: str = "") -> dict[str, int]:
        mlp_dim = shape(f"{layers}.0.{format.fc1}.weight")[0]
        return {f"{kind}depth": formats.count(tensors, f"{layers}."), f"{kind}mlp_dim": mlp_dim}

    width, channels, *patch = shape(encoder + format.patch_kernel)
    huggingface.check_channels(channels)
    model = {"name": "videomae", "head": None, "width": width, "patch_size": patch}
    model |= blocks(encoder + format.blocks)
    final_norm, head = f"{encoder}{format.norm}.weight" in tensors, f"{root}{format.head}.weight"
    if f"{root}fc_norm.weight" in tensors or head in tensors:
        model |= {"head": "classify", "pool": "first" if final_norm else "mean"}
        return model | {"num_classes": shape(head)[0] if head in tensors else 0}
    model["final_norm"] = final_norm
    if f"{root}mask_token" in tensors:
        model |= {"head": "reconstruct", "decoder_width": shape(f"{root}mask_token")[-1]}
        model |= blocks(root + format.decoder_blocks, "decoder_")
    return model
