"""The transformer block that all encoders share, and stacks of it.

Shapes: B clips, N tokens, D width, H heads, M MLP width, L layers.
Numerics are fields, structure is code: see `layers.dense` and `layers.attention`.
Training: dropout and stochastic depth are on exactly when `apply` is given a "dropout" key.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax.json_files import Size
from vidjax.models.layers.attention import IMPLEMENTATIONS, Attend, attend
from vidjax.models.layers.dense import ACTIVATIONS, Array, LayerNorm, Linear, constrain, record
from vidjax.models.layers.initializers import INITS
from vidjax.models.layers.logits import KEPT
from vidjax.models.layers.multihead import Attention, Rotate


def dropout(x: Array, rate: float) -> Array:
    """Zeroes a share of the values of [B, ..., N, D], scaling the others by 1/(1-rate).

    To be called inside a module; does nothing outside training. Axes between the first and the last
    two share one mask, as in Scenic's factorised encoder, where the frames of a clip are such an
    axis.
    """
    layer = nn.Dropout(rate, broadcast_dims=tuple(range(1, x.ndim - 2)))
    return layer(x, deterministic=not is_training(layer))


def is_training(module: nn.Module) -> bool:
    """Returns whether `apply` was given a "dropout" key: whether anything is dropped."""
    return module.has_rng("dropout")


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
        x = constrain(x, "tokens", "mlp")
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
        dropout: rate of the branches' outputs and inside the MLP.
        rescale_drop_path: see `drop_path`.
        attend: see `Attention`.
        scale_offset: see `LayerNorm`.
        norm_out: whether branches are normalised before they are added, too (primer_hybrid).
        rotate: see `Attention`.
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
    rotate: Rotate | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        drop_rate: Array | None = None,
        head_mask: Array | None = None,
        mask: Array | None = None,
        padding: Array | None = None,
        ids: Array | None = None,
    ) -> Array:
        """Maps x [B, ..., N, D] to the same shape.

        Args:
            drop_rate: [], its stochastic depth.
            head_mask, mask, ids: see `Attention`.
            padding: bool, broadcastable to [B, ..., N]: tokens that the MLP passes by.
        """

        def norm(name: str, x: Array) -> Array:
            return LayerNorm(self.eps, self.dtype, self.scale_offset, name=name)(x)

        def add(x: Array, branch: Array, name: str) -> Array:
            branch = norm(f"{name}_out", branch) if self.norm_out else branch
            x = x + drop_path(self, branch, drop_rate, rescale=self.rescale_drop_path)
            return constrain(x, "tokens", "embed_act")

        attn = Attention(
            self.num_heads,
            self.qkv_bias,
            self.initializer,
            self.dtype,
            self.attend,
            rotate=self.rotate,
            name="attn",
        )
        mlp = Mlp(self.mlp_dim, self.act, self.initializer, self.dtype, self.dropout, name="mlp")
        y = attn(norm("norm1", x), mask=mask, head_mask=head_mask, ids=ids)
        x = add(x, dropout(y, self.dropout), "norm1")
        y = mlp(norm("norm2", x))
        if padding is not None:
            y = jnp.where(padding[..., None], 0, y)
        return finish_block(self, add(x, y, "norm2"))


def finish_block(block: nn.Module, x: Array) -> Array:
    """Constrains a block's output [B, ..., N, D] to its mesh axes and records it."""
    x = constrain(x, "tokens", "embed_act")
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


@dataclasses.dataclass(frozen=True)
class Speed:
    """Fields of every model that change memory and speed; values change with `dtype` only.

    Attributes:
        remat: "none", "dots" (the backward pass recomputes all but products with weights and
            attention) or "full" (all but the blocks' inputs).
        unroll: layers per step of the compiled loop.
        attention: implementation, see `layers.attention`.
        dtype: compute dtype; parameters are float32.
    """

    remat: Literal[tuple(REMAT_POLICIES)] = "none"
    unroll: Size = 1
    attention: Literal[IMPLEMENTATIONS] = "auto"
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"

    def attend(self, softcap: float = 0.0) -> Attend:
        """Returns the attention function of a block."""
        return functools.partial(attend, softcap=softcap, implementation=self.attention)


def scan_blocks(
    block: nn.Module,
    x: Array,
    *,
    depth: int,
    speed: Speed = Speed(),
    drop_path: float = 0.0,
    head_mask: Array | None = None,
    **shared: Array | None,
) -> Array:
    """Applies `depth` copies of `block` in turn; their parameters are stacked on a first axis L.

    Args:
        block: a module called as block(x, drop_rate=[]), with head_mask=[H] too if there is one.
        x: tokens [B, ..., N, D].
        depth: number of layers L; 0 leaves x as it is, without parameters.
        speed: remat and unroll of it are used.
        drop_path: stochastic depth of the last layer in training; it grows linearly from 0.
        head_mask: [L, H] factors for the heads' outputs, or None.
        **shared: what every block is called with, such as a mask; None is left out.
    """

    def body(block, x, layer, shared):
        drop_rate, mask = layer
        masked = {} if mask is None else {"head_mask": mask}
        return block(x, drop_rate=drop_rate, **masked, **shared), None

    if not depth:
        return x
    if speed.remat != "none":
        body = nn.remat(body, policy=REMAT_POLICIES[speed.remat], prevent_cse=False)
    drops = drop_path and is_training(block)
    rates = jnp.linspace(0.0, drop_path, depth) if drops else None
    scan = nn.scan(
        body,
        variable_axes={"params": 0, "hidden_states": 0, "attention": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast),
        length=depth,
        unroll=speed.unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    given = {name: value for name, value in shared.items() if value is not None}
    return scan(block, constrain(x, "tokens", "embed_act"), (rates, head_mask), given)[0]
