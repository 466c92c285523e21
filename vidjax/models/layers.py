"""The blocks that all encoders share; numerics are fields, structure is code.

Shapes: B clips, N tokens, D width, H heads, K head width (D / H), M MLP width, L layers.
Numerics: LayerNorm statistics, attention logits and softmax are computed in float32 (float64 when
the input is float64), everything else in `dtype`. LayerNorm takes two passes over the row: the
one-pass variance E[x²] - E[x]² loses three digits on rows whose mean is ten times their spread.
`eps` has no default: it is a fact of a checkpoint (1e-6, 1e-5 and 1e-12 all exist).
Sharding: every parameter names its logical axes (`embed heads head_dim mlp`; scan adds `layers`),
and so do activations (`place`); `vidjax.sharding` maps the names to mesh axes.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.models.attention import Attend, attend
from vidjax.models.blockwise import KEPT

Array = jax.Array
Initializer = Callable[..., Array]


def gelu(x: Array) -> Array:
    """Exact GELU. Through erf, not erfc as in `jax.nn.gelu`: the same to rounding, and faster."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
}

# A kernel initializer for Linear layers and one for the query, key and value projections.
# VideoMAE's pre-training code draws xavier-uniform values for its fused (3D, D) projection, whose
# limit sqrt(6 / 4D) is narrower than that of three (D, D) ones, as Scenic has them; VideoMAE's
# fine-tuning code draws N(0, 0.02) throughout (its truncation at ±100 sigma never binds).
INITS: dict[str, tuple[Initializer, Initializer]] = {
    "xavier_uniform": (nn.initializers.xavier_uniform(), nn.initializers.xavier_uniform()),
    "xavier_uniform_fused": (
        nn.initializers.xavier_uniform(),
        nn.initializers.variance_scaling(0.5, "fan_avg", "uniform"),
    ),
    "normal": (nn.initializers.normal(0.02), nn.initializers.normal(0.02)),
    # PyTorch's own: uniform within ±1/sqrt(fan_in), and in MultiheadAttention the fused one. X-CLIP
    # draws its new layers over frames from the latter and N(0, 0.02).
    "torch": (
        nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        nn.initializers.variance_scaling(0.5, "fan_avg", "uniform"),
    ),
    "normal_fused": (
        nn.initializers.normal(0.02),
        nn.initializers.variance_scaling(0.5, "fan_avg", "uniform"),
    ),
    "lecun_normal": (nn.initializers.lecun_normal(), nn.initializers.lecun_normal()),
}


def torch_uniform(fan_in: int) -> Initializer:
    """PyTorch's default for convolutions and Linear layers: uniform within ±1/sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / fan_in**0.5

    return init


def field_specs(kind: type[nn.Module]) -> dict[str, dataclasses.Field]:
    """The fields of a class of modules by name, without those that linen adds."""
    return {f.name: f for f in dataclasses.fields(kind) if f.name not in ("parent", "name")}


def fields_of(module: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    """The values that `module` has for the fields of `kind`, its own class or a base of it."""
    return {name: getattr(module, name) for name in field_specs(kind)}


def check_frame_patches(model: nn.Module) -> None:
    """Raises UserError unless `pos_grid` and `patch_size` are (frames, rows, columns), and patches
    of one frame each."""
    for name in ("pos_grid", "patch_size"):
        value = getattr(model, name)
        if len(value) != 3 or min(value) < 1:
            raise UserError(
                f"model field {name} is {value}; give (frames, rows, columns), each at least 1"
            )
    if model.patch_size[0] != 1:
        raise UserError(f"this model's patches are of one frame each, not {model.patch_size}")


def at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def unit(x: Array, eps: float) -> Array:
    """x / sqrt(Σx² + eps) over the last axis, in float32 at least."""
    exact = at_least_float32(x)
    square = jnp.square(exact).sum(-1, keepdims=True)
    return (exact * jax.lax.rsqrt(square + eps)).astype(x.dtype)


def record(module: nn.Module, collection: str, name: str, value: Array) -> None:
    """Stores `value` when the caller made `collection` mutable; costs nothing otherwise."""
    module.sow(collection, name, value, init_fn=lambda: None, reduce_fn=lambda _, new: new)


def place(x: Array, *axes: str) -> Array:
    """Says where x [B, ..., *axes] lies on the mesh; does nothing without a mesh.

    `axes` are logical names. What XLA would choose by itself follows the parameters: it splits
    widths and then has to move whole activations.
    """
    between = (None,) * (x.ndim - 1 - len(axes))
    unknown = nn.spmd.RulesFallback.RAISE_ERROR
    return nn.with_logical_constraint(x, ("batch", *between, *axes), fallback=unknown)


def look_up(table: Array, ids: Array) -> Array:
    """Rows `ids` [...] of a table [V, D] of parameters: [..., D].

    The table, whose width is split, is made whole first: else the rows would be split by their
    width, and no cheap way leads from there to rows split by clips.
    """
    return nn.with_logical_constraint(table, (None, None))[ids]


class LayerNorm(nn.Module):
    """Normalises the last axis, then scales and shifts it.

    Attributes:
        scale_offset: added to the stored scale, which starts at 1 without it. VideoPrism's files
            hold scale - 1.
    """

    eps: float
    dtype: Any = jnp.float32
    scale_offset: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        ones = nn.initializers.constant(1.0 - self.scale_offset)
        ones = nn.with_logical_partitioning(ones, ("embed",))
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
        scale = self.param("scale", ones, x.shape[-1:], jnp.float32)
        if self.scale_offset:
            scale = scale + self.scale_offset
        bias = self.param("bias", zeros, x.shape[-1:], jnp.float32)
        x = at_least_float32(x)
        x = x - x.mean(-1, keepdims=True)
        variance = jnp.square(x).mean(-1, keepdims=True)
        return (x * jax.lax.rsqrt(variance + self.eps) * scale + bias).astype(self.dtype)


class Linear(nn.Module):
    """A dense layer, possibly over several axes at once.

    Attributes:
        features: sizes of the new axes.
        axes: logical names of the contracted (last) axes, then of the new ones.
        use_bias: whether there is a bias.
        kernel_init: sees the kernel as a matrix, so fans count all axes of a side together.
        bias_init: of the bias.
    """

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    use_bias: bool = True
    kernel_init: Initializer = INITS["xavier_uniform"][0]
    dtype: Any = jnp.float32
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array) -> Array:
        num_in = len(self.axes) - len(self.features)
        shape = (*x.shape[-num_in:], *self.features)

        def kernel_init(key, shape, dtype):
            matrix = math.prod(shape[:num_in]), math.prod(shape[num_in:])
            return self.kernel_init(key, matrix, dtype).reshape(shape)

        boxed = nn.with_logical_partitioning(kernel_init, self.axes)
        kernel = self.param("kernel", boxed, shape, jnp.float32)
        contract = tuple(range(x.ndim - num_in, x.ndim)), tuple(range(num_in))
        y = jax.lax.dot_general(
            x.astype(self.dtype), kernel.astype(self.dtype), (contract, ((), ()))
        )
        if self.use_bias:
            init = nn.with_logical_partitioning(self.bias_init, self.axes[num_in:])
            y += self.param("bias", init, self.features, jnp.float32).astype(self.dtype)
        return y


class Attention(nn.Module):
    """Multi-head attention: of tokens to each other, or to other tokens.

    Attributes:
        num_heads: number of heads H.
        qkv_bias: whether query, key and value have a bias.
        initializer: key of INITS.
        attend: which tokens each head looks at, and how; what its second result computes is
            recorded on request.
        head_dim: width K of a head; None: the tokens' width D / H.
        per_dim_scale: whether query channels have learned factors softplus(s) / ln 2, 1 at first
            (VideoPrism's pooler).
    """

    num_heads: int
    qkv_bias: tuple[bool, bool, bool] = (True, True, True)
    initializer: str = "xavier_uniform"
    dtype: Any = jnp.float32
    attend: Attend = attend
    head_dim: int | None = None
    per_dim_scale: bool = False

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        context: Array | None = None,
        mask: Array | None = None,
        head_mask: Array | None = None,
    ) -> Array:
        """Maps x [..., N, D] to the same shape, the leading axes being independent.

        Args:
            context: tokens [..., M, D] to look at; None: x itself.
            mask: bool, broadcastable to [..., N, M]: which of them each token sees; None: all.
            head_mask: [H], scales each head's output (0 removes it).
        """
        width = x.shape[-1]
        if width % self.num_heads and not self.head_dim:
            raise UserError(f"num_heads {self.num_heads} does not divide the width {width}")
        kernel_init, qkv_init = INITS[self.initializer]
        context = x if context is None else context
        query, key, value = (
            Linear(
                (self.num_heads, self.head_dim or width // self.num_heads),
                ("embed", "heads", "head_dim"),
                use_bias=use_bias,
                kernel_init=qkv_init,
                dtype=self.dtype,
                name=name,
            )(source)  # [..., N or M, H, K]
            for name, source, use_bias in zip(
                ("query", "key", "value"), (x, context, context), self.qkv_bias, strict=True
            )
        )
        query, key, value = (place(x, "tokens", "heads", "head_dim") for x in (query, key, value))
        if self.per_dim_scale:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("head_dim",))
            scale = self.param("per_dim_scale", zeros, query.shape[-1:], jnp.float32)
            # 1 / ln 2 to the digits that all implementations have.
            query = query * (1.442695041 * jax.nn.softplus(scale)).astype(self.dtype)
        seen = {} if mask is None else {"mask": mask}
        x, weights = self.attend(query, key, value, **seen)
        x = place(x, "tokens", "heads", "head_dim")  # or logits could be split by tokens
        if self.is_mutable_collection("attention"):
            record(self, "attention", "weights", weights())
        if head_mask is not None:
            x = x * head_mask[:, None].astype(self.dtype)
        axes = ("heads", "head_dim", "embed")
        return Linear((width,), axes, kernel_init=kernel_init, dtype=self.dtype, name="out")(x)


class AttentionPool(nn.Module):
    """One vector for a set of tokens: a learned query attends to them; then LayerNorm.

    VideoPrism's AttenTokenPoolingLayer (layers.py); no residual connection, no MLP, no soft cap.

    Attributes:
        num_heads: number of heads H.
        pool_dim: width of all heads together.
        eps, scale_offset: of the LayerNorm.
    """

    num_heads: int
    pool_dim: int
    eps: float
    scale_offset: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """Pools tokens [..., N, D] to [..., D]."""
        if self.pool_dim % self.num_heads:
            raise UserError(
                f"num_heads {self.num_heads} does not divide the pooler's width {self.pool_dim}"
            )
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0), (None, "embed"))
        probe = self.param("probe", init, (1, tokens.shape[-1]), jnp.float32)
        probe = jnp.broadcast_to(
            probe.astype(self.dtype), (*tokens.shape[:-2], 1, tokens.shape[-1])
        )
        attn = Attention(
            self.num_heads,
            initializer="lecun_normal",
            dtype=self.dtype,
            head_dim=self.pool_dim // self.num_heads,
            per_dim_scale=True,
            name="attn",
        )
        x = attn(probe, context=tokens)[..., 0, :]
        return LayerNorm(self.eps, self.dtype, self.scale_offset, name="norm")(x)


def dropout(x: Array, rate: float) -> Array:
    """Zeroes a share of the values of [B, ..., N, D], scaling the others by 1/(1-rate).

    To be called inside a module. Axes between the first and the last two share one mask, as in
    Scenic's factorised encoder, where the frames of a clip are such an axis.
    """
    shared = tuple(range(1, x.ndim - 2))
    return nn.Dropout(rate, broadcast_dims=shared, deterministic=rate == 0.0)(x)


class Mlp(nn.Module):
    """fc2(act(fc1(x))), from D to `mlp_dim` and back; `dropout` after both layers."""

    mlp_dim: int
    act: str
    initializer: str = "xavier_uniform"
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        options = dict(kernel_init=INITS[self.initializer][0], dtype=self.dtype)
        width = x.shape[-1]
        x = Linear((self.mlp_dim,), ("embed", "mlp"), name="fc1", **options)(x)
        x = dropout(ACTIVATIONS[self.act](x), self.dropout)
        x = place(x, "tokens", "mlp")
        return dropout(Linear((width,), ("mlp", "embed"), name="fc2", **options)(x), self.dropout)


def drop_path(module: nn.Module, x: Array, rate: Array | None, *, rescale: bool = True) -> Array:
    """Stochastic depth: zeroes a branch [B, ...] for whole clips.

    With `rescale` the other clips' are multiplied by 1/(1-rate), as in timm's DropPath and
    VideoMAE; Scenic's ViViT leaves them. `rate` is None outside training, when nothing happens.
    """
    if rate is None:
        return x
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    kept = jax.random.bernoulli(module.make_rng("dropout"), 1.0 - rate, shape)
    return x * (kept / (1.0 - rate) if rescale else kept).astype(x.dtype)


class Block(nn.Module):
    """Pre-norm transformer block: x += attn(norm1(x)); x += mlp(norm2(x)).

    Its output is recorded as `hidden_states/output`.

    Attributes:
        dropout: of the branches' outputs and inside the MLP; 0 outside training.
        rescale_drop_path: see `drop_path`.
        attend: see `Attention`.
        scale_offset: see `LayerNorm`.
        norm_out: whether branches are normalised before they are added, too (primer_hybrid).
    """

    num_heads: int
    mlp_dim: int
    eps: float
    act: str
    qkv_bias: tuple[bool, bool, bool] = (True, True, True)
    initializer: str = "xavier_uniform"
    dtype: Any = jnp.float32
    dropout: float = 0.0
    rescale_drop_path: bool = True
    attend: Attend = attend
    scale_offset: float = 0.0
    norm_out: bool = False

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        drop_rate: Array | None = None,
        head_mask: Array | None = None,
        mask: Array | None = None,
        padding: Array | None = None,
    ) -> Array:
        """Maps x [B, ..., N, D] to the same shape.

        Args:
            drop_rate: [], its stochastic depth.
            head_mask, mask: see `Attention`.
            padding: bool, broadcastable to [B, ..., N]: tokens that the MLP passes by.
        """

        def norm(name: str, x: Array) -> Array:
            return LayerNorm(self.eps, self.dtype, self.scale_offset, name=name)(x)

        def add(x: Array, branch: Array, name: str) -> Array:
            branch = norm(f"{name}_out", branch) if self.norm_out else branch
            x = x + drop_path(self, branch, drop_rate, rescale=self.rescale_drop_path)
            return place(x, "tokens", "embed_act")

        attn = Attention(
            self.num_heads, self.qkv_bias, self.initializer, self.dtype, self.attend, name="attn"
        )
        mlp = Mlp(self.mlp_dim, self.act, self.initializer, self.dtype, self.dropout, name="mlp")
        y = attn(norm("norm1", x), mask=mask, head_mask=head_mask)
        x = add(x, dropout(y, self.dropout), "norm1")
        y = mlp(norm("norm2", x))
        if padding is not None:
            y = jnp.where(padding[..., None], 0, y)
        return finish_block(self, add(x, y, "norm2"))


def finish_block(block: nn.Module, x: Array) -> Array:
    """Places a block's output [B, ..., N, D] on the mesh and records it."""
    x = place(x, "tokens", "embed_act")
    record(block, "hidden_states", "output", x)
    return x


# What the backward pass may keep instead of recomputing it.
REMAT_POLICIES = {
    "none": None,
    # Products with weights, and what attention needs that stores no logits: a third of a step else.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(KEPT),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def scan_blocks(
    block: nn.Module,
    x: Array,
    *,
    depth: int,
    drop_path: float = 0.0,
    head_mask: Array | None = None,
    remat: str = "none",
    unroll: int = 1,
    **shared: Array | None,
) -> Array:
    """Applies `depth` copies of `block` in turn; their parameters are stacked on a first axis L.

    Args:
        block: a module called as block(x, drop_rate=[]), with head_mask=[H] too if there is one.
        x: tokens [B, ..., N, D].
        depth: number of layers L; 0 leaves x as it is, without parameters.
        drop_path: stochastic depth of the last layer; it grows linearly from 0. 0 outside training.
        head_mask: [L, H] factors for the heads' outputs, or None.
        remat: "none", "dots" (recompute all but products with weights and attention) or "full"
            (all but the blocks' inputs) in the backward pass. Changes memory and speed, never
            values.
        unroll: layers per step of the compiled loop.
        **shared: what every block is called with, such as a mask; None is left out.
    """

    def body(block, x, layer, shared):
        drop_rate, mask = layer
        masked = {} if mask is None else {"head_mask": mask}
        return block(x, drop_rate=drop_rate, **masked, **shared), None

    if not depth:
        return x
    if remat != "none":
        body = nn.remat(body, policy=REMAT_POLICIES[remat], prevent_cse=False)
    rates = jnp.linspace(0.0, drop_path, depth) if drop_path else None
    scan = nn.scan(
        body,
        variable_axes={"params": 0, "hidden_states": 0, "attention": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast),
        length=depth,
        unroll=unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    given = {name: value for name, value in shared.items() if value is not None}
    return scan(block, place(x, "tokens", "embed_act"), (rates, head_mask), given)[0]


def patchify(video: Array, patch_size: tuple[int, int, int]) -> Array:
    """Cuts video [B, T, H, W, C] into patches [B, N, pt * ph * pw * C].

    Patches are row-major over (t, h, w), and so are the values inside one, channels last.

    Raises:
        UserError: the video does not divide into patches.
    """
    (batch, *size, channels), (t, h, w) = video.shape, patch_size
    if size[0] % t or size[1] % h or size[2] % w:
        raise UserError(
            f"video [B, T, H, W, C] = {video.shape} does not divide into {t}x{h}x{w} patches; "
            f"choose frames, height and width that are multiples of them"
        )
    grid = grid_of(video.shape, patch_size)
    x = video.reshape(batch, grid[0], t, grid[1], h, grid[2], w, channels)
    return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, t * h * w * channels)


def take_tokens(x: Array, index: Array) -> Array:
    """Rows `index` [B, K] of tokens x [B, N, D]: [B, K, D].

    Whole rows are gathered; take_along_axis would fetch value by value, which is slow on CPUs.
    """
    return jax.vmap(lambda row, i: row[i])(x, index)


def grid_of(shape: Sequence[int], patch_size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Tokens per axis (t, h, w) of a video of shape [B, T, H, W, C]."""
    return tuple(n // p for n, p in zip(shape[1:4], patch_size, strict=True))


class PatchEmbed(nn.Module):
    """Projects tubelets to tokens: a strided 3-D convolution, written as one matrix product.

    Frames and pixels at the end that fill no patch are cut off, as without padding.
    `kernel_init` is PyTorch's default for kernel and bias if None; with another the bias is 0.
    CLIP has none (`use_bias`).
    """

    width: int
    patch_size: tuple[int, int, int]
    dtype: Any = jnp.float32
    kernel_init: Initializer | None = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, video: Array, *, keep: Array | None = None) -> Array:
        """Maps video [B, T, H, W, C] to tokens [B, N, D], or to those of `keep` [B, K] only."""
        shape = (*self.patch_size, video.shape[-1], self.width)
        t, h, w = (n - n % p for n, p in zip(video.shape[1:4], self.patch_size, strict=True))
        if not t * h * w:
            clip, patch = ("x".join(map(str, x)) for x in (video.shape[1:4], self.patch_size))
            raise UserError(
                f"a clip of {clip} (frames, height, width) is smaller than a patch of {patch}; "
                f"choose a larger one"
            )
        video = video[:, :t, :h, :w]
        patches = patchify(video.astype(self.dtype), self.patch_size)  # [B, N, P]
        inits = self.kernel_init, nn.initializers.zeros
        if self.kernel_init is None:
            inits = (torch_uniform(patches.shape[-1]),) * 2
        kernel_init = nn.with_logical_partitioning(inits[0], (None, None, None, None, "embed"))
        kernel = self.param("kernel", kernel_init, shape, jnp.float32)
        if keep is not None:  # before the projection: 9 of 10 patches need none
            patches = take_tokens(patches, keep)  # [B, K, P]
        x = patches @ kernel.reshape(-1, self.width).astype(self.dtype)
        if not self.use_bias:
            return x
        bias_init = nn.with_logical_partitioning(inits[1], ("embed",))
        bias = self.param("bias", bias_init, (self.width,), jnp.float32)
        return x + bias.astype(self.dtype)
