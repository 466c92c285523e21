"""ViViT in Scenic's checkpoints, and image ViTs as flat npz files: Flax trees.

Names are the tree's keys, "/"-joined. Before Linen, the submodules of a block were numbered
whatever their class (LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2, MlpBlock_3), in
Linen per class; the names are read from the file.
An image ViT becomes the joint model of one frame and patches (1, h, w).
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from converters import Conversion, Export, Options, formats, huggingface, limits
from converters.formats import NPZ_SUFFIX, Source
from converters.mapping import Ignore, Rule
from converters.rules import flax_attention, flax_dense, flax_norm
from converters.vivit import hints
from converters.vivit.published import ACT, EPS, flax_preprocessing
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays, spec_of

_ROOTS = (
    "optimizer/target/params/",
    "optimizer/target/",
    "opt/target/params/",
    "opt/target/",
    "params/params/",
    "params/",
    "",
)
_STAGES = ("Transformer", "SpatialTransformer")  # one of them is there
_SPACE_TIME_NORMS = ("LayerNorm_time", "LayerNorm_space", "LayerNorm_mlp")


@dataclass(frozen=True)
class Naming:
    """Spelling of the names in one Flax tree; the defaults are current Scenic's.

    Attributes:
        root: before every name.
        norms, attention, mlp, dense: submodules of a block, and of its MLP.
        positions: the position table, below the encoder; "" where it lies beside it (big_vision).
        head: the classifier.
        flat_kernel: whether the patch embedding is a 2-D convolution.
    """

    root: str = ""
    norms: tuple[str, ...] = ("LayerNorm_0", "LayerNorm_1")
    attention: str = "MultiHeadDotProductAttention_0"
    mlp: str = "MlpBlock_0"
    dense: tuple[str, ...] = ("Dense_0", "Dense_1")
    positions: str = "posembed_input/"
    head: str = "output_projection"
    flat_kernel: bool = False


def rules(model: Mapping[str, Any], naming: Naming) -> list[Rule]:
    """Returns the table of a Flax tree for the model that `build(**model)` makes."""
    root = naming.root

    def stage(name: str, target: str) -> list[Rule]:
        block, blocks = f"{root}{name}/encoderblock_{{i}}", f"{target}/blocks"
        place = f"{root}{name}/{naming.positions}" if naming.positions else root
        rules = [Rule(f"{place}pos_embedding", f"{target}/pos_embed")]
        if model["pool"] == "token":
            cls = "cls" if name == "Transformer" else f"cls_{name}"
            rules.append(Rule(f"{root}{cls}", f"{target}/cls_token"))
        if model["factorisation"] == "self_attention":
            norms = ("norm_time", "norm_space", "norm_mlp")
            for axis in ("time", "space"):
                source = f"{block}/MultiHeadDotProductAttention_{axis}"
                rules += flax_attention(source, f"{blocks}/attn_{axis}")
        else:
            norms = ("norm1", "norm2")
            rules += flax_attention(f"{block}/{naming.attention}", f"{blocks}/attn")
        for source, ours in zip(naming.norms, norms, strict=True):
            rules += flax_norm(f"{block}/{source}", f"{blocks}/{ours}")
        for source, dense in zip(naming.dense, ("fc1", "fc2"), strict=True):
            rules += flax_dense(f"{block}/{naming.mlp}/{source}", f"{blocks}/mlp/{dense}")
        return rules + flax_norm(f"{root}{name}/encoder_norm", f"{target}/norm")

    kernel = "(t h) w c d -> t h w c d" if naming.flat_kernel else ""
    rules = flax_dense(f"{root}embedding", "encoder/patch_embed", kernel)
    if model["factorisation"] != "encoder":
        rules += stage("Transformer", "encoder")
    else:
        rules += stage("SpatialTransformer", "encoder/spatial")
        if model["temporal_depth"]:
            rules += stage("TemporalTransformer", "encoder/temporal")
    if model["representation_size"]:
        rules += flax_dense(f"{root}pre_logits", "pre_logits")
    if model["head"] == "classify" and model["num_classes"]:
        rules += flax_dense(f"{root}{naming.head}", "head")
    return rules


def recognises(source: Source) -> bool:
    return _root(source.tensors) is not None


def _root(names: Collection[str]) -> str | None:
    """Returns the prefix of the weights' names: a train state holds the optimizer's too."""
    for root in _ROOTS:
        norms = [f"{root}{stage}/encoder_norm/scale" for stage in _STAGES]
        if f"{root}embedding/kernel" in names and any(norm in names for norm in norms):
            return root
    return None


class _Shapes(dict[str, tuple[int, ...]]):
    """Shapes of a file's weights by their names after the root."""

    def __init__(self, tensors: LazyArrays, root: str):
        names = [name for name in tensors if name.startswith(root)]
        super().__init__({name.removeprefix(root): spec_of(tensors, name).shape for name in names})
        self.root = root

    def __missing__(self, name: str) -> tuple[int, ...]:
        raise UserError(f"the file looks like ViViT, but has no {self.root}{name}")


def describe(source: Source, options: Options) -> Conversion:
    root, notes = _root(source.tensors), []
    shapes = _Shapes(source.tensors, root)
    _refuse_other_vits(shapes)
    factorised = "SpatialTransformer/encoder_norm/scale" in shapes
    stage = "SpatialTransformer" if factorised else "Transformer"
    naming = _naming(shapes, stage)
    model = _read_shapes(shapes, naming, stage, options)
    clip = _clip(shapes, naming, stage, model, options, notes)
    model["pos_grid"] = list(clip.grid)
    image = naming.flat_kernel and clip.frames == 1
    if naming.flat_kernel and not image and (not factorised or model["temporal_depth"]):
        model["sampled_frames"] = hints.sampled_frames(clip, notes)
    if image:
        notes.append("an image model: one frame, to start training a video model from")
    hints.apply(model, options, image, notes)
    return Conversion(
        format="npz" if source.files[0].suffix == NPZ_SUFFIX else "original",
        model=model,
        rules=rules(model, naming),
        ignore=_outside(source.tensors, root),
        naming=asdict(naming),
        preprocessing=flax_preprocessing(source, options, model, clip, notes),
        classes=huggingface.classes(None, model, notes),
        notes=notes,
    )


def _read_shapes(shapes: _Shapes, naming: Naming, stage: str, options: Options) -> dict[str, Any]:
    """The keywords of `build` that the weights' names and shapes tell, and --pool."""

    def sizes(stage: str) -> tuple[int, int, int]:
        """Layers, heads and MLP width."""
        block = f"{stage}/encoderblock_0"
        query, fc1 = f"{block}/{naming.attention}/query", f"{block}/{naming.mlp}/{naming.dense[0]}"
        heads = shapes[f"{query}/kernel"]
        if len(heads) != 3:
            raise UserError(
                f"{query}/kernel has shape {heads}; expected (width, heads, head width)"
            )
        depth = formats.count(shapes, f"{stage}/encoderblock_")
        return depth, heads[1], shapes[f"{fc1}/kernel"][1]

    *patch, _, width = shapes["embedding/kernel"]
    depth, heads, mlp_dim = sizes(stage)
    limits.check_heads(options, heads)
    factorised = stage == "SpatialTransformer"
    token = "cls_SpatialTransformer" if factorised else "cls"
    model = {
        "name": "vivit",
        "head": None,
        "width": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_dim": mlp_dim,
        "eps": EPS,
        "patch_size": [1, *patch] if naming.flat_kernel else patch,
        "factorisation": "self_attention" if naming.norms == _SPACE_TIME_NORMS else "joint",
        "pool": "token" if token in shapes else options.pool or "mean",
        "representation_size": None,
    }
    if "pre_logits/kernel" in shapes:
        model["representation_size"] = shapes["pre_logits/kernel"][1]
    if (head := f"{naming.head}/kernel") in shapes:
        model |= {"head": "classify", "num_classes": shapes[head][1]}
    if factorised:
        model |= {"factorisation": "encoder", "temporal_depth": 0}
    if factorised and "TemporalTransformer/encoder_norm/scale" in shapes:
        names = ("temporal_depth", "temporal_num_heads", "temporal_mlp_dim")
        model |= dict(zip(names, sizes("TemporalTransformer"), strict=True))
    return model


def _clip(
    shapes: _Shapes,
    naming: Naming,
    stage: str,
    model: Mapping[str, Any],
    options: Options,
    notes: list[str],
) -> hints.Clip:
    patch, token = model["patch_size"], model["pool"] == "token"
    place = f"{stage}/{naming.positions}" if naming.positions else ""
    tokens = shapes[f"{place}pos_embedding"][1] - token
    if model["factorisation"] == "encoder":
        slices = None
        if model["temporal_depth"]:
            slices = shapes["TemporalTransformer/posembed_input/pos_embedding"][1] - token
        return hints.sliced_clip(tokens, slices, patch, options, notes)
    if naming.flat_kernel:
        is_image = naming.head == "head"  # vision_transformer's name
        return hints.flat_clip(tokens, patch, is_image, options, notes)
    return hints.whole_clip(tokens, patch, options.frames, options.size, notes)


def _refuse_other_vits(names: Collection[str]) -> None:
    def has(start: str) -> bool:
        return any(name.startswith(start) for name in names)

    if has("conv_root") or has("block1/") or has("ResNet"):
        raise UserError("a ViT on top of a ResNet is no ViViT; take one without")
    if has("MAPHead_0/"):
        raise UserError(
            "a ViT with an attention pooling head (MAPHead_0) is no ViViT; take one with a class "
            "token or mean pooling"
        )
    tables = [f"{stage}/posembed_input/" for stage in _STAGES]
    if has("pos_embedding") and has("cls"):
        raise UserError(
            "this ViT (of big_vision) adds no position to its class token, which ViViT does; take "
            "a checkpoint of vision_transformer, or one without a class token"
        )
    if not any(has(table) for table in (*tables, "pos_embedding")):
        raise UserError("this ViT has no learned position table, which ViViT needs")


def _naming(shapes: _Shapes, stage: str) -> Naming:
    """Finds the names in a tree's first block."""

    def below(path: str) -> list[str]:
        found = {n.removeprefix(path).split("/")[0] for n in shapes if n.startswith(path)}
        return sorted(found, key=lambda n: [int(w) if w.isdigit() else w for w in n.split("_")])

    def some(names: list[str], start: str, count: int) -> tuple[str, ...]:
        found = tuple(name for name in names if name.startswith(start))
        if len(found) != count:
            raise UserError(
                f"{shapes.root}{stage}/encoderblock_0 is no ViT block: of {start}, {count} are "
                f"expected among {', '.join(names) or 'nothing'}"
            )
        return found

    block = f"{stage}/encoderblock_0/"
    names = below(block)
    space_time = "MultiHeadDotProductAttention_time" in names
    mlp = some(names, "MlpBlock", 1)[0]
    attentions = some(names, "MultiHeadDotProductAttention", 2 if space_time else 1)
    norms = some(names, "LayerNorm", 3 if space_time else 2)
    return Naming(
        root=shapes.root,
        norms=_SPACE_TIME_NORMS if space_time else norms,
        attention=attentions[0],
        mlp=mlp,
        dense=some(below(f"{block}{mlp}/"), "Dense", 2),
        positions="" if "pos_embedding" in shapes else "posembed_input/",
        head="head" if "head/kernel" in shapes else "output_projection",
        flat_kernel=len(shapes["embedding/kernel"]) == 4,
    )


def _outside(names: Collection[str], root: str) -> list[Ignore]:
    """Returns entries for what a train state holds beside the weights."""
    path = root.split("/")[:-1]
    others: dict[str, None] = {}
    for name in names:
        if not name.startswith(root):
            words = name.split("/")
            depth = next(k for k, word in enumerate(words) if path[k] != word)
            others["/".join(words[: depth + 1])] = None
    reason = f"no weights, but the training run's {', '.join(others)}"
    return [Ignore(other + end, reason, True) for other in others for end in ("", "/*")]


def export(card: Card, format: str, naming: Mapping[str, Any] | None) -> Export:
    model, notes = card.model, []
    if naming:
        naming = Naming(**naming)
    else:
        space_time = model["factorisation"] == "self_attention"
        naming = Naming(
            root="params/" if format == "original" else "",
            norms=_SPACE_TIME_NORMS if space_time else Naming.norms,
            mlp="MlpBlock" if space_time else Naming.mlp,
            flat_kernel=model["patch_size"][0] == 1,
        )
    if model["eps"] != EPS:
        notes.append(
            f"LayerNorm's epsilon is {model['eps']:g} here but always {EPS:g} in Scenic: outputs "
            "differ slightly"
        )
    if (act := model.get("act", ACT)) != ACT:
        notes.append(f"the activation is {act} here but always {ACT} in Scenic: outputs differ")
    untold = {
        "factorisation": model["factorisation"] == "dot_product",
        "attention_order": model["factorisation"] == "self_attention",
        "pool": model["pool"] != "token",
        "sampled_frames": bool(model["sampled_frames"]),
    }
    words = [f"{key}={model[key]}" for key, value in untold.items() if value]
    if words:
        notes.append(f"the file does not tell {', '.join(words)}: a config of Scenic must")
    # Read by Scenic's restore_pretrained_checkpoint.
    beside = {"global_step": 0, "model_state": None, "rng": None}
    return Export(
        rules(model, naming),
        f"checkpoint{NPZ_SUFFIX}" if format == "npz" else "checkpoint",
        notes=notes,
        beside=beside if naming.root else {},
    )
