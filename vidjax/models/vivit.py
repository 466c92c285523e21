"""ViViT (Arnab et al. 2021, arXiv:2103.15691): four ways to attend over space and time.

Reference: google-research/scenic projects/vivit/model.py and model_utils.py; transformers
models/vivit (5.23) for the joint model.
Shapes: B clips, T frames, N tokens on a (t, h, w) grid in row-major order, S = h * w tokens of a
time slice, D width, L layers, H heads. With a class token, it comes first.

Factorisations (the paper's models 1 to 4):
    joint           every token attends to every other one.
    encoder         a spatial encoder sees each time slice by itself, a temporal one what it makes
                    of the slices.
    self_attention  each block attends over time (same place), then over space (same time).
    dot_product     half of the heads attend over time, the others over space.

Numerics: learned positions, biases everywhere; tanh GELU and LayerNorm eps 1e-6 in all releases.
An image ViT is the joint model of one frame and patches (1, h, w).
Initial values are Scenic's, but for its MLP biases, which start at N(0, 1e-6) instead of 0.
Stochastic depth zeroes whole branches of a clip without scaling the others, unlike timm's, and
does nothing outside training; `self_attention` has none, as in Scenic. Dropout follows the
position table, every attention output and both MLP layers; Hugging Face has none between those
two, and both can drop attention weights, which is not done here: all such rates are 0 in every
release. In the spatial encoder all slices of a clip share the masks of both.
Clips with another grid than `pos_grid` are given the position table resampled, bicubic in space
and linear in time (PyTorch's, align_corners=False); the class token's row is kept. No reference
does so: Scenic resizes at the start of training only (see `adapt`), and Hugging Face's
`interpolate_pos_encoding` fails.
Recorded on request, by `model.apply(..., mutable=["hidden_states", "attention"])`, below
`encoder`, or `encoder/spatial` [B, t, S, ...] and `encoder/temporal` [B, t, ...]: `hidden_states`
embeddings [B, N, D] and blocks/output [L, B, N, D] (before the final norm); `attention`
blocks/attn/weights [L, B, H, N, N], but blocks/attn_time/weights [L, B, S, H, t, t] and
blocks/attn_space/weights [L, B, t, H, S, S] of `self_attention`, and of `dot_product` the two in
blocks/attn/weights/time and .../space, with half of the heads each.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.models import positions
from vidjax.models.attention import Attend, attend
from vidjax.models.layers import (
    ACTIVATIONS,
    Array,
    Attention,
    Block,
    LayerNorm,
    Linear,
    Mlp,
    PatchEmbed,
    dropout,
    fields_of,
    finish_block,
    grid_of,
    record,
    scan_blocks,
)

# Ti and S are image ViT's; no video weights were released for them. H was trained on JFT only.
VARIANTS = {
    name: dict(zip(("width", "depth", "num_heads", "mlp_dim"), sizes, strict=True))
    for name, sizes in {
        "Ti": (192, 12, 3, 768),
        "S": (384, 12, 6, 1536),
        "B": (768, 12, 12, 3072),
        "L": (1024, 24, 16, 4096),
        "H": (1280, 32, 16, 5120),
    }.items()
}

FACTORISATIONS = ("joint", "encoder", "self_attention", "dot_product")
POOLS: dict[str, Callable[[Array], Array]] = {  # [..., N, D] -> [..., D]
    "token": lambda x: x[..., 0, :],
    "mean": lambda x: x.mean(-2),
    "max": lambda x: x.max(-2),
    "sum": lambda x: x.sum(-2),
}


class EncoderFields(nn.Module):
    """What describes the encoder.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes D, L, H and the MLP's hidden width.
        eps: LayerNorm's epsilon.
        pos_grid: the grid (t, h, w) of tokens that the position table is made for.
        patch_size: frames, rows and columns (t, h, w) of a tubelet.
        factorisation: one of FACTORISATIONS, see the module.
        attention_order: of "self_attention": "time_space", the code's default, or "space_time",
            the paper's order.
        temporal_depth: of "encoder": layers of the temporal encoder; 0 averages over time instead
            (the paper's baseline).
        temporal_num_heads, temporal_mlp_dim: None: as the spatial encoder's.
        act: activation function, a key of layers.ACTIVATIONS; "gelu_tanh" in all releases.
        pool: "token" has a class token and reads it, "mean", "max" and "sum" combine all tokens
            (Scenic's gap, gmp, gsp). "self_attention" and "dot_product" have no class token.
        representation_size: width of a dense layer with tanh after pooling (Scenic's pre_logits,
            the pooler of Hugging Face's VivitModel); None: there is none.
        sampled_frames: of each clip, evenly spread, that are looked at (the paper's uniform frame
            sampling, with patches (1, h, w)), see `sampled_indices`; None: all.
        dropout, drop_path: rates in training; the latter is that of the last block.
        remat, unroll: see `scan_blocks`.
        attention: how it is computed, see `attention.attend`.
        dtype: compute dtype; parameters are float32.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    eps: float
    pos_grid: tuple[int, int, int]
    patch_size: tuple[int, int, int] = (2, 16, 16)
    factorisation: str = "joint"
    attention_order: str = "time_space"
    temporal_depth: int = 4
    temporal_num_heads: int | None = None
    temporal_mlp_dim: int | None = None
    act: str = "gelu_tanh"
    pool: str = "token"
    representation_size: int | None = None
    sampled_frames: int | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = (
            ("factorisation", FACTORISATIONS),
            ("act", tuple(ACTIVATIONS)),
            ("attention_order", ("time_space", "space_time")),
            ("pool", tuple(POOLS)),
        )
        for name, known in choices:
            if getattr(self, name) not in known:
                raise UserError(
                    f"model field {name} is {getattr(self, name)!r}; choose one of "
                    f"{', '.join(known)}"
                )
        for name in ("pos_grid", "patch_size"):
            value = getattr(self, name)
            if len(value) != 3 or min(value) < 1:
                raise UserError(
                    f"model field {name} is {value}; give (frames, rows, columns), each at least 1"
                )
        if self.temporal_depth < 0 or (self.sampled_frames or 1) < 1:
            raise UserError("model fields temporal_depth and sampled_frames must not be negative")
        space_time = self.factorisation == "self_attention"
        if self.pool == "token" and (space_time or self.factorisation == "dot_product"):
            raise UserError(
                f"ViViT with factorisation {self.factorisation!r} has no class token to pool by; "
                f"set the model's pool to mean, max or sum"
            )
        if space_time and self.drop_path:
            raise UserError(
                "ViViT with factorisation 'self_attention' has no stochastic depth; set the "
                "model's drop_path to 0"
            )
        if self.factorisation == "dot_product" and self.num_heads % 2:
            raise UserError(
                f"half of the heads attend over time with factorisation 'dot_product', so "
                f"num_heads must be even, not {self.num_heads}"
            )

    def token_grid(self, clip: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens (t, h, w) of a clip of (T, H, W) pixels."""
        frames = len(sampled_indices(clip[0], self.sampled_frames or clip[0]))
        return grid_of((1, frames, *clip[1:]), self.patch_size)


def sampled_indices(frames: int, count: int) -> np.ndarray:
    """Returns which of a clip's frames are looked at if `count` are asked for: all, if not fewer.

    These are the multiples of T / (count + 1), rounded down to a whole step, as in Scenic's
    projects/vivit/model.py (temporal_encode), whose arange has an integer dtype. Their number is
    that of the steps before rounding, in floating point: one more than `count` for some T.
    """
    if count >= frames:
        return np.arange(frames)
    step = frames / (count + 1)
    return int(step) * np.arange(1, math.ceil((frames - step) / step) + 1)


def attend_time_and_space(
    query: Array, key: Array, value: Array, *, slices: int, implementation: str = "auto"
) -> tuple[Array, Callable[[], dict[str, Array]]]:
    """The first half of the heads attend over time, the others over space.

    Args:
        query, key, value: [B, N, H, K] with N = slices * S tokens.
        slices: time slices t.
        implementation: see `attend`.

    Returns:
        [B, N, H, K], and a function that computes the weights: time [B, S, H/2, t, t] and space
        [B, t, H/2, S, S].
    """
    batch, tokens, heads, width = query.shape

    def part(x: Array, half: slice) -> Array:
        return x.reshape(batch, slices, tokens // slices, heads, width)[..., half, :]

    first, last = slice(heads // 2), slice(heads // 2, heads)
    in_time = (part(x, first).swapaxes(1, 2) for x in (query, key, value))
    in_space = (part(x, last) for x in (query, key, value))
    time, over_time = attend(*in_time, implementation=implementation)
    space, over_space = attend(*in_space, implementation=implementation)
    out = jnp.concatenate([time.swapaxes(1, 2), space], axis=-2)  # [B, t, S, H, K]
    return out.reshape(query.shape), lambda: {"time": over_time(), "space": over_space()}


class SpaceTimeBlock(nn.Module):
    """Attention over time, attention over space, MLP; each normalised before and added after.

    Its output is recorded as `hidden_states/output`.

    Attributes:
        slices: time slices t of the tokens.
        order: "time_space" or "space_time".
        dropout: of the branches' outputs and inside the MLP; 0 outside training.
        attend: see `Attention`.
    """

    num_heads: int
    mlp_dim: int
    eps: float
    slices: int
    order: str
    act: str
    dtype: Any = jnp.float32
    dropout: float = 0.0
    attend: Attend = attend

    @nn.compact
    def __call__(self, x: Array, *, drop_rate: None = None) -> Array:
        """Maps x [B, N, D] to [B, N, D]; `scan_blocks` gives every block a drop_rate."""
        batch, tokens, width = x.shape
        for axis in self.order.split("_"):
            y = LayerNorm(self.eps, self.dtype, name=f"norm_{axis}")(x)
            y = y.reshape(batch, self.slices, tokens // self.slices, width)
            options = dict(dtype=self.dtype, attend=self.attend)
            attn = Attention(self.num_heads, name=f"attn_{axis}", **options)
            y = attn(y.swapaxes(1, 2)).swapaxes(1, 2) if axis == "time" else attn(y)
            x = x + dropout(y.reshape(x.shape), self.dropout)
        mlp = Mlp(self.mlp_dim, self.act, dtype=self.dtype, dropout=self.dropout, name="mlp")
        x = x + mlp(LayerNorm(self.eps, self.dtype, name="norm_mlp")(x))
        return finish_block(self, x)


class Stage(EncoderFields):
    """Class token, positions, blocks, LayerNorm: one of the two stages of "encoder"."""

    @nn.compact
    def __call__(self, x: Array, grid: tuple[int, int, int], *, train: bool) -> Array:
        """Maps tokens [B, ..., N, D] of a grid (t, h, w) to [B, ..., N or 1 + N, D]."""
        return encode(self, x, grid, train=train)


class Encoder(EncoderFields):
    """From a video to tokens."""

    @nn.compact
    def __call__(self, video: Array, *, train: bool = False) -> Array:
        """Encodes normalised video [B, T, H, W, 3].

        Returns:
            Tokens [B, N or 1 + N, D] after the last norm; of the temporal encoder,
            [B, t or 1 + t, D], for factorisation "encoder".
        """
        grid = self.token_grid(video.shape[1:4])
        if self.sampled_frames:
            video = video[:, sampled_indices(video.shape[1], self.sampled_frames)]
        init = nn.initializers.lecun_normal()
        x = PatchEmbed(self.width, self.patch_size, self.dtype, init, name="patch_embed")(video)
        if self.factorisation != "encoder":
            return encode(self, x, grid, train=train)
        fields = fields_of(self, EncoderFields)
        t, h, w = self.pos_grid
        spatial = Stage(**fields | {"pos_grid": (1, h, w)}, name="spatial")
        x = x.reshape(x.shape[0], grid[0], -1, self.width)  # [B, t, S, D]
        x = POOLS[self.pool](spatial(x, (1, *grid[1:]), train=train))  # [B, t, D]
        if not self.temporal_depth:
            return x
        fields |= {
            "pos_grid": (t, 1, 1),
            "depth": self.temporal_depth,
            "num_heads": self.temporal_num_heads or self.num_heads,
            "mlp_dim": self.temporal_mlp_dim or self.mlp_dim,
        }
        return Stage(**fields, name="temporal")(x, (grid[0], 1, 1), train=train)


def encode(module: EncoderFields, x: Array, grid: tuple[int, int, int], *, train: bool) -> Array:
    """Class token, positions, blocks and LayerNorm, as parameters and submodules of `module`."""
    with_token, rate = module.pool == "token", module.dropout if train else 0.0
    old, dtype = module.pos_grid, module.dtype

    def param(name: str, init: Callable, *shape: int) -> Array:
        init = nn.with_logical_partitioning(init, (None, None, "embed"))
        return module.param(name, init, (1, *shape), jnp.float32)

    table = param(
        "pos_embed", nn.initializers.normal(0.02), int(np.prod(old)) + with_token, x.shape[-1]
    )[0]
    if with_token:
        token = param("cls_token", nn.initializers.zeros, 1, x.shape[-1]).astype(dtype)
        token = jnp.broadcast_to(token, (*x.shape[:-2], 1, x.shape[-1]))
        x = jnp.concatenate([token, x], axis=-2)
    rows = positions.resample_grid(table[with_token:], old, grid)
    x = x + jnp.concatenate([table[:with_token], rows]).astype(dtype)
    record(module, "hidden_states", "embeddings", x)
    x = dropout(x, rate)

    sizes = (module.num_heads, module.mlp_dim, module.eps)
    seen = functools.partial(attend, implementation=module.attention)
    if module.factorisation == "self_attention":
        order = module.attention_order
        fields = (grid[0], order, module.act, dtype, rate, seen)
        block = SpaceTimeBlock(*sizes, *fields, name="blocks")
    else:
        if module.factorisation == "dot_product":
            seen = functools.partial(
                attend_time_and_space, slices=grid[0], implementation=module.attention
            )
        options = {"dtype": dtype, "dropout": rate, "rescale_drop_path": False, "attend": seen}
        block = Block(*sizes, module.act, **options, name="blocks")
    x = scan_blocks(
        block,
        x,
        depth=module.depth,
        drop_path=module.drop_path if train else 0.0,
        remat=module.remat,
        unroll=module.unroll,
    )
    return LayerNorm(module.eps, dtype, name="norm")(x)


class Features(EncoderFields):
    """The encoder alone, with its pooler if `representation_size` is set."""

    def setup(self) -> None:
        self.encoder = Encoder(**fields_of(self, EncoderFields))
        if self.representation_size:
            size = (self.representation_size,)
            self.pre_logits = Linear(size, ("embed", None), dtype=self.dtype)

    def __call__(self, video: Array, *, train: bool = False) -> Array:
        """Encodes normalised video [B, T, H, W, 3] to tokens, see `Encoder`."""
        tokens = self.encoder(video, train=train)
        if self.is_initializing():
            self.pooled(tokens)  # makes its parameters
        return tokens

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """One vector for each normalised video [B, T, H, W, 3], what a head sees: [B, D or R]."""
        return self.pooled(self.encoder(video, train=train))

    def pooled(self, tokens: Array) -> Array:
        """That vector of the encoder's tokens [B, N, D]."""
        over_time = self.factorisation == "encoder" and not self.temporal_depth
        x = POOLS["mean" if over_time else self.pool](tokens)
        return jnp.tanh(self.pre_logits(x)) if self.representation_size else x

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": jax.ShapeDtypeStruct((1, *self.patch_size, 3), jnp.float32)}


class Classifier(Features, kw_only=True):
    """The encoder, a pooled feature, a linear head.

    Attributes:
        num_classes: number of classes C; 0 has no head, the output is what it would see.
        groups: names and sizes of several answers in one output, such as (("noun", 300),
            ("verb", 97)), in its order; () is one answer.
    """

    num_classes: int
    groups: tuple[tuple[str, int], ...] = ()

    def setup(self) -> None:
        super().setup()
        if self.num_classes:
            zeros = nn.initializers.zeros
            axes = ("embed", "classes")
            self.head = Linear((self.num_classes,), axes, kernel_init=zeros, dtype=self.dtype)

    def __call__(self, video: Array, *, train: bool = False) -> Array:
        """Class scores [B, C] of normalised video [B, T, H, W, 3]."""
        x = self.embed(video, train=train)
        return self.head(x) if self.num_classes else x


def adapt(
    params: dict[str, np.ndarray],
    source: Mapping[str, Any],
    model: EncoderFields,
    *,
    inflation: str = "central_frame",
    temporal_attention: str = "copy",
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Starts a model from another one: from an image ViT, another size, another factorisation.

    Scenic's projects/vivit/model_utils.py initialise_from_train_state, with two differences: the
    spatial encoder gets the image model's class token too (Scenic skips it, for its name differs),
    and positions are resized in time and space at once (Scenic tiles or resizes them).

    Args:
        params: by "/"-joined name.
        source: fields of the model that they are of.
        model: the one to start.
        inflation: of an image's patch embedding: "central_frame" puts it at frame t // 2 of a
            tubelet and zeros elsewhere, "average" at all frames, divided by t.
        temporal_attention: of "self_attention" from a model without it: "copy" starts it as the
            attention over space, "zero" the same but for its output, which is 0: so the model
            starts as the image model, and yet learns (with all of it 0, no gradient would flow).

    Returns:
        Parameters, and what was done. Positions are resized linearly with the corners in place,
        which repeats an image's for every time slice. What the source does not have (a temporal
        encoder, norm_time, a class token) is absent. Class token and pre_logits are left out where
        the model has none, the temporal encoder where the model's has another depth.

    Raises:
        UserError: the source's factorisation cannot become the model's, or an unknown option.
    """
    if source["name"] != "vivit":
        return params, []
    for name, value, known in (
        ("inflation", inflation, ("central_frame", "average")),
        ("temporal_attention", temporal_attention, ("copy", "zero")),
    ):
        if value not in known:
            raise UserError(
                f"config.init_options.{name} is {value!r}; choose one of {', '.join(known)}"
            )
    params, notes = dict(params), []

    def leave_out(start: str, why: str) -> None:
        if found := [path for path in params if path.startswith(start)]:
            for path in found:
                del params[path]
            notes.append(f"{start.rstrip('/')} left out: {why}")

    if not model.representation_size:
        leave_out("pre_logits/", "the model has no representation_size")
    if source["factorisation"] == "encoder" and source["temporal_depth"] != model.temporal_depth:
        leave_out(
            "encoder/temporal/",
            f"{source['temporal_depth']} layers there, {model.temporal_depth} here",
        )
    kernel, t = params["encoder/patch_embed/kernel"], model.patch_size[0]
    if kernel.shape[0] == 1 < t:
        kernel = np.asarray(kernel)
        inflated = np.repeat(kernel / t if inflation == "average" else 0 * kernel, t, axis=0)
        if inflation == "central_frame":
            inflated[t // 2] = kernel[0]
        params["encoder/patch_embed/kernel"] = inflated
        notes.append(f"patch embedding inflated to {t} frames ({inflation})")

    before, after = source["factorisation"], model.factorisation
    if before != after:
        if before != "joint" or (after == "encoder" and source["pos_grid"][0] != 1):
            raise UserError(
                f"a checkpoint with factorisation {before!r} and a position table for "
                f"{source['pos_grid']} tokens cannot start one with {after!r}; only an image ViT "
                f"can start them all, and a joint model all but 'encoder'"
            )
        params = _refactorise(params, after, temporal_attention)
        notes.append(f"factorisation {before} turned into {after}")

    had_token, has_token = source["pool"] == "token", model.pool == "token"
    for path in [path for path in params if path.endswith("/pos_embed")]:
        stage = path.removesuffix("pos_embed")
        old, new = tuple(source["pos_grid"]), model.pos_grid
        if stage == "encoder/spatial/":
            old, new = (1, *old[1:]), (1, *new[1:])
        elif stage == "encoder/temporal/":
            old, new = (old[0], 1, 1), (new[0], 1, 1)
        table = params[path][0]
        token, rows = table[:had_token], table[had_token:]
        if has_token and not had_token:
            token = np.zeros_like(rows[:1])
            notes.append(f"{path}: the class token's starts at 0")
        rows = positions.resample_grid(rows, old, new, ("linear_corners",) * 3)
        params[path] = np.concatenate([token, rows])[None] if has_token else rows[None]
        if not has_token:
            leave_out(f"{stage}cls_token", f"the model pools by {model.pool}")
        if old != new:
            notes.append(f"{path} resized from {old} to {new} tokens")
    return params, notes


def _refactorise(
    params: dict[str, np.ndarray], factorisation: str, temporal_attention: str
) -> dict[str, np.ndarray]:
    """Renames a joint model's parameters as those of another factorisation."""
    if factorisation == "encoder":
        stage = re.compile(r"encoder/(?=blocks/|norm/|pos_embed|cls_token)")
        return {stage.sub("encoder/spatial/", k): v for k, v in params.items()}
    if factorisation == "self_attention":
        names = {"norm1": "norm_space", "norm2": "norm_mlp", "attn": "attn_space"}
        inner = re.compile(r"(?<=encoder/blocks/)(norm1|norm2|attn)(?=/)")
        out = {inner.sub(lambda found: names[found[0]], k): v for k, v in params.items()}
        for path in [path for path in out if "/attn_space/" in path]:
            zero = temporal_attention == "zero" and "/out/" in path
            time = path.replace("/attn_space/", "/attn_time/")
            out[time] = np.zeros_like(out[path]) if zero else out[path]
        return out
    return params


HEADS = {None: Features, "classify": Classifier}

USES = {"classify": "predict"}
INHERITED = ("act",)
NOTED = (
    "eps",
    "patch_size",
    "pool",
    "attention_order",
    "sampled_frames",
    "representation_size",
)
STAGES = ("encoder/spatial/", "encoder/temporal/")
DEMO = {
    "width": 128,
    "depth": 4,
    "num_heads": 4,
    "mlp_dim": 512,
    "patch_size": (2, 8, 8),
    "temporal_depth": 2,
    "drop_path": 0.0,
}
