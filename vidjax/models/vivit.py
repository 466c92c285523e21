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
embeddings [B, N, D] and blocks/output [L, B, N, D] (before the final norm), and below the last two
`output` (after it); `attention` blocks/attn/weights [L, B, H, N, N], but blocks/attn_time/weights
[L, B, S, H, t, t] and blocks/attn_space/weights [L, B, t, H, S, S] of `self_attention`, and of
`dot_product` the two in blocks/attn/weights/time and .../space, with half of the heads each.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.json_files import Count, NotNegative, Rate, Size
from vidjax.models.layers import (
    ACTIVATIONS,
    Array,
    Attention,
    Block,
    LayerNorm,
    Linear,
    Mlp,
    PatchEmbed,
    Speed,
    dropout,
    finish_block,
    grid_of,
    positions,
    record,
    scan_blocks,
)
from vidjax.models.layers.attention import Attend, attend
from vidjax.models.layers.grids import by_clip, by_frame
from vidjax.models.layers.heads import (
    Classes,
    Classifier,
    Features,
    Pooling,
    first_token,
    mean_token,
)
from vidjax.models.layers.patches import Grid

# Ti and S are image ViT's; no video weights were released for them. H was trained on JFT only.
VARIANTS = {
    "Ti": {"width": 192, "depth": 12, "num_heads": 3, "mlp_dim": 768},
    "S": {"width": 384, "depth": 12, "num_heads": 6, "mlp_dim": 1536},
    "B": {"width": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096},
    "H": {"width": 1280, "depth": 32, "num_heads": 16, "mlp_dim": 5120},
}

POOLS: dict[str, Callable[[Array], Array]] = {  # [..., N, D] -> [..., D]
    "token": first_token,
    "mean": mean_token,
    "max": lambda x: x.max(-2),
    "sum": lambda x: x.sum(-2),
}


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
        dropout: rate of the branches' outputs and inside the MLP.
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


@dataclasses.dataclass(frozen=True)
class Stage:
    """Layers of an encoder, or of one of the two of factorisation "encoder".

    Attributes:
        pos_grid: the grid (t, h, w) of tokens that the position table is made for.
        with_token: whether there is a class token.
        depth and all others: as of `Encoder`.
    """

    depth: int
    num_heads: int
    mlp_dim: int
    eps: float
    act: str
    pos_grid: tuple[int, int, int]
    with_token: bool
    factorisation: str
    attention_order: str
    dropout: float
    drop_path: float
    speed: Speed

    def blocks(self, slices: int) -> nn.Module:
        """Returns the block for tokens of that many time slices, to be given to `scan_blocks`."""
        sizes, dtype = (self.num_heads, self.mlp_dim, self.eps), self.speed.dtype
        if self.factorisation == "self_attention":
            return SpaceTimeBlock(
                *sizes,
                slices=slices,
                order=self.attention_order,
                act=self.act,
                dtype=dtype,
                dropout=self.dropout,
                attend=self.speed.attend(),
                name="blocks",
            )
        seen = self.speed.attend()
        if self.factorisation == "dot_product":
            seen = functools.partial(
                attend_time_and_space, slices=slices, implementation=self.speed.attention
            )
        return Block(
            *sizes,
            self.act,
            dtype=dtype,
            dropout=self.dropout,
            rescale_drop_path=False,
            attend=seen,
            name="blocks",
        )


def encode(module: nn.Module, stage: Stage, x: Array, grid: tuple[int, int, int]) -> Array:
    """Applies a stage to x [B, ..., N, D] on a grid (t, h, w): [B, ..., N or 1 + N, D].

    Its parameters and submodules are those of `module`, whose compact method calls this.
    """
    dtype, with_token = stage.speed.dtype, stage.with_token

    def param(name: str, init: Callable, *shape: int) -> Array:
        init = nn.with_logical_partitioning(init, (None, None, "embed"))
        return module.param(name, init, (1, *shape), jnp.float32)

    rows = math.prod(stage.pos_grid) + with_token
    table = param("pos_embed", nn.initializers.normal(0.02), rows, x.shape[-1])[0]
    if with_token:
        token = param("cls_token", nn.initializers.zeros, 1, x.shape[-1]).astype(dtype)
        token = jnp.broadcast_to(token, (*x.shape[:-2], 1, x.shape[-1]))
        x = jnp.concatenate([token, x], axis=-2)
    resampled = positions.resample_grid(table[with_token:], stage.pos_grid, grid)
    x = x + jnp.concatenate([table[:with_token], resampled]).astype(dtype)
    record(module, "hidden_states", "embeddings", x)
    x = scan_blocks(
        stage.blocks(grid[0]),
        dropout(x, stage.dropout),
        depth=stage.depth,
        drop_path=stage.drop_path,
        speed=stage.speed,
    )
    return LayerNorm(stage.eps, dtype, name="norm")(x)


class SubEncoder(nn.Module):
    """One of the two encoders of factorisation "encoder"."""

    stage: Stage

    @nn.compact
    def __call__(self, x: Array, grid: tuple[int, int, int]) -> Array:
        """Applies the stage, see `encode`."""
        x = encode(self, self.stage, x, grid)
        record(self, "hidden_states", "output", x)
        return x


class Encoder(nn.Module):
    """From a video to tokens.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes D, L, H and the MLP's hidden width.
        eps: LayerNorm's epsilon.
        pos_grid: the grid (t, h, w) of tokens that the position table is made for.
        patch_size: frames, rows and columns (t, h, w) of a tubelet.
        factorisation: see the module.
        attention_order: of "self_attention": "time_space", the code's default, or "space_time",
            the paper's order.
        temporal_depth: of "encoder": layers of the temporal encoder; 0 averages over time instead
            (the paper's baseline).
        temporal_num_heads, temporal_mlp_dim: None: as the spatial encoder's.
        act: activation function; "gelu_tanh" in all releases.
        pool: "token" has a class token and reads it, "mean", "max" and "sum" combine all tokens
            (Scenic's gap, gmp, gsp). "self_attention" and "dot_product" have no class token.
        sampled_frames: of each clip, evenly spread, that are looked at (the paper's uniform frame
            sampling, with patches (1, h, w)), see `sampled_indices`; None: all.
        dropout, drop_path: rates in training; the latter is that of the last block.
        speed: see `Speed`.
    """

    width: Size
    depth: Size
    num_heads: Size
    mlp_dim: Size
    eps: NotNegative
    pos_grid: Grid
    patch_size: Grid = (2, 16, 16)
    factorisation: Literal["joint", "encoder", "self_attention", "dot_product"] = "joint"
    attention_order: Literal["time_space", "space_time"] = "time_space"
    temporal_depth: Count = 4
    temporal_num_heads: Size | None = None
    temporal_mlp_dim: Size | None = None
    act: Literal[tuple(ACTIVATIONS)] = "gelu_tanh"
    pool: Literal[tuple(POOLS)] = "token"
    sampled_frames: Size | None = None
    dropout: Rate = 0.0
    drop_path: Rate = 0.0
    speed: Speed = Speed()

    def __post_init__(self) -> None:
        super().__post_init__()
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

    @nn.compact
    def __call__(self, video: Array) -> Array:
        """Encodes normalised video [B, T, H, W, 3].

        Returns:
            Tokens [B, N or 1 + N, D] after the last norm; of the temporal encoder,
            [B, t or 1 + t, D], for factorisation "encoder".
        """
        grid = token_grid({key: getattr(self, key) for key in _GRID_FIELDS}, video.shape[1:4])
        if self.sampled_frames:
            video = video[:, sampled_indices(video.shape[1], self.sampled_frames)]
        dtype, init = self.speed.dtype, nn.initializers.lecun_normal()
        x = PatchEmbed(self.width, self.patch_size, dtype, init, name="patch_embed")(video)
        if self.factorisation != "encoder":
            return encode(self, self.stage(self.pos_grid), x, grid)
        t, h, w = self.pos_grid
        x = x.reshape(x.shape[0], grid[0], -1, self.width)  # [B, t, S, D]
        x = SubEncoder(self.stage((1, h, w)), name="spatial")(x, (1, *grid[1:]))
        x = POOLS[self.pool](x)  # [B, t, D]
        if not self.temporal_depth:
            return x
        stage = dataclasses.replace(
            self.stage((t, 1, 1)),
            depth=self.temporal_depth,
            num_heads=self.temporal_num_heads or self.num_heads,
            mlp_dim=self.temporal_mlp_dim or self.mlp_dim,
        )
        return SubEncoder(stage, name="temporal")(x, (grid[0], 1, 1))

    @nn.nowrap
    def on_grid(self, tokens: Array, states: Mapping[str, Any], grid: Grid) -> tuple[Array, Array]:
        """Puts tokens and blocks on the grid, see `layers.grids`.

        Those of factorisation "encoder" are the spatial encoder's, as the temporal encoder's have
        no place in a frame.
        """
        if self.factorisation != "encoder":
            return by_clip(tokens, states, grid)
        return by_frame(states["spatial"]["output"], states["spatial"], grid)

    @nn.nowrap
    def stage(self, pos_grid: tuple[int, int, int]) -> Stage:
        """Returns the encoder's layers on a grid of that size."""
        return Stage(
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            eps=self.eps,
            act=self.act,
            pos_grid=pos_grid,
            with_token=self.pool == "token",
            factorisation=self.factorisation,
            attention_order=self.attention_order,
            dropout=self.dropout,
            drop_path=self.drop_path,
            speed=self.speed,
        )


_GRID_FIELDS = ("patch_size", "sampled_frames")


def token_grid(fields: Mapping[str, Any], clip: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns the tokens (t, h, w) of a clip of (T, H, W) pixels in a model with `fields`."""
    frames = len(sampled_indices(clip[0], fields["sampled_frames"] or clip[0]))
    return grid_of((1, frames, *clip[1:]), fields["patch_size"])


class PreLogits(Linear):
    """A dense layer with tanh."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [..., D] to [..., R]."""
        return jnp.tanh(super().__call__(x))


def _pooling(encoder: Encoder, representation_size: int | None) -> Pooling:
    over_time = encoder.factorisation == "encoder" and not encoder.temporal_depth
    reduce = mean_token if over_time else POOLS[encoder.pool]
    if not representation_size:
        return Pooling(reduce)
    layer = PreLogits((representation_size,), ("embed", None), dtype=encoder.speed.dtype)
    return Pooling(reduce, "pre_logits", layer)


def features(encoder: Encoder, representation_size: Size | None = None) -> Features:
    """Makes the encoder alone.

    Args:
        encoder: see `Encoder`.
        representation_size: width R of a dense layer with tanh after pooling (Scenic's pre_logits,
            the pooler of Hugging Face's VivitModel); None: there is none.
    """
    return Features(encoder, _pooling(encoder, representation_size))


def classify(
    encoder: Encoder, classes: Classes, representation_size: Size | None = None
) -> Classifier:
    """Makes a classifier; see `features`, and `Classes`."""
    pooling = _pooling(encoder, representation_size)
    return Classifier(encoder, pooling, classes, kernel_init=nn.initializers.zeros)


def adapt(
    params: dict[str, np.ndarray],
    source: Mapping[str, Any],
    target: Mapping[str, Any],
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
        target: fields of the one to start.
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
    if not target["representation_size"]:
        notes += _leave_out(params, "pre_logits/", "the model has no representation_size")
    there, here = source["temporal_depth"], target["temporal_depth"]
    if source["factorisation"] == "encoder" and there != here:
        notes += _leave_out(params, "encoder/temporal/", f"{there} layers there, {here} here")
    kernel, t = params["encoder/patch_embed/kernel"], target["patch_size"][0]
    if kernel.shape[0] == 1 < t:
        params["encoder/patch_embed/kernel"] = _inflated(np.asarray(kernel), t, inflation)
        notes.append(f"patch embedding inflated to {t} frames ({inflation})")

    before, after = source["factorisation"], target["factorisation"]
    if before != after:
        if before != "joint" or (after == "encoder" and source["pos_grid"][0] != 1):
            raise UserError(
                f"a checkpoint with factorisation {before!r} and a position table for "
                f"{source['pos_grid']} tokens cannot start one with {after!r}; only an image ViT "
                f"can start them all, and a joint model all but 'encoder'"
            )
        params = _refactorise(params, after, temporal_attention)
        notes.append(f"factorisation {before} turned into {after}")

    return params, notes + _resize_positions(params, source, target)


def _leave_out(params: dict[str, np.ndarray], start: str, why: str) -> list[str]:
    """Removes the parameters whose names begin with `start`; returns a note if there were any."""
    paths = [path for path in params if path.startswith(start)]
    for path in paths:
        del params[path]
    return [f"{start.rstrip('/')} left out: {why}"] if paths else []


def _inflated(kernel: np.ndarray, frames: int, inflation: str) -> np.ndarray:
    """Returns an image's patch embedding [1, h, w, 3, D] as one of tubelets [t, h, w, 3, D]."""
    average = inflation == "average"
    inflated = np.repeat(kernel / frames if average else 0 * kernel, frames, axis=0)
    if not average:
        inflated[frames // 2] = kernel[0]
    return inflated


def _resize_positions(
    params: dict[str, np.ndarray], source: Mapping[str, Any], target: Mapping[str, Any]
) -> list[str]:
    """Makes position tables and class tokens those of the target; returns what was done."""
    notes = []
    had_token, has_token = source["pool"] == "token", target["pool"] == "token"
    for path in [path for path in params if path.endswith("/pos_embed")]:
        old, new = (
            positions.stage_grid(path, tuple(fields["pos_grid"])) for fields in (source, target)
        )
        table = params[path][0]
        token, rows = table[:had_token], table[had_token:]
        if has_token and not had_token:
            token = np.zeros_like(rows[:1])
            notes.append(f"{path}: the class token's starts at 0")
        rows = positions.resample_grid(rows, old, new, ("linear_corners",) * 3)
        params[path] = np.concatenate([token, rows])[None] if has_token else rows[None]
        if not has_token:
            start = f"{path.removesuffix('pos_embed')}cls_token"
            notes += _leave_out(params, start, f"the model pools by {target['pool']}")
        if old != new:
            notes.append(f"{path} resized from {old} to {new} tokens")
    return notes


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


HEADS = {None: features, "classify": classify}

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
