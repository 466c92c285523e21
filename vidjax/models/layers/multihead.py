"""Multi-head attention with its projections, and pooling by it.

Shapes: B clips, N tokens, D width, H heads, K head width (D / H).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.models.layers.attention import Attend, attend
from vidjax.models.layers.dense import Array, LayerNorm, Linear, constrain, record
from vidjax.models.layers.initializers import INITS

# (query, key [..., N, H, K], ids int [..., N]) -> both, rotated by where the tokens stand.
Rotate = Callable[[Array, Array, Array], tuple[Array, Array]]


class Attention(nn.Module):
    """Multi-head attention: of tokens to each other, or to other tokens.

    Attributes:
        num_heads: number of heads H.
        qkv_bias: whether query, key and value have a bias.
        initializer: key of INITS.
        attend: attention function; returns (output, lazy weights), the weights recorded on
            request.
        head_dim: width K of a head; None: the tokens' width D / H.
        per_dim_scale: whether query channels have learned factors softplus(s) / ln 2, 1 at first
            (VideoPrism's pooler).
        rotate: rotary positions, of attention of tokens to each other.
    """

    num_heads: int
    qkv_bias: tuple[bool, bool, bool] = (True, True, True)
    initializer: str = "xavier_uniform"
    dtype: Any = jnp.float32
    attend: Attend = attend
    head_dim: int | None = None
    per_dim_scale: bool = False
    rotate: Rotate | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        context: Array | None = None,
        mask: Array | None = None,
        head_mask: Array | None = None,
        ids: Array | None = None,
    ) -> Array:
        """Maps x [..., N, D] to the same shape, the leading axes being independent.

        Args:
            context: tokens [..., M, D] to look at; None: x itself.
            mask: bool, broadcastable to [..., N, M]: which of them each token sees; None: all.
            head_mask: [H], scales each head's output (0 removes it).
            ids: int [..., N], where each token stands on the grid, for `rotate`.
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
        query, key, value = (
            constrain(x, "tokens", "heads", "head_dim") for x in (query, key, value)
        )
        if self.per_dim_scale:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("head_dim",))
            scale = self.param("per_dim_scale", zeros, query.shape[-1:], jnp.float32)
            # 1 / ln 2 to the digits that all implementations have.
            query = query * (1.442695041 * jax.nn.softplus(scale)).astype(self.dtype)
        if self.rotate is not None:
            query, key = self.rotate(query, key, ids)
        seen = {} if mask is None else {"mask": mask}
        x, weights = self.attend(query, key, value, **seen)
        x = constrain(x, "tokens", "heads", "head_dim")  # or logits could be split by tokens
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
