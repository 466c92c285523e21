"""Dense layers, LayerNorm, activations, and how their values lie on a mesh.

Shapes: B clips, N tokens, D width.
Numerics: LayerNorm statistics are computed in float32 (float64 when the input is float64),
everything else in `dtype`. LayerNorm takes two passes over the row: the one-pass variance
E[x²] - E[x]² loses three digits on rows whose mean is ten times their spread. `eps` has no default:
it is a fact of a checkpoint (1e-6, 1e-5 and 1e-12 all exist).
Sharding: every parameter names its logical axes (`embed heads head_dim mlp`; scan adds `layers`),
and so do activations (`constrain`); `vidjax.sharding` maps the names to mesh axes.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax.models.layers.initializers import INITS, Initializer

Array = jax.Array


def gelu(x: Array) -> Array:
    """Exact GELU. Through erf, not erfc as in `jax.nn.gelu`: the same to rounding, and faster."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
}


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


def constrain(x: Array, *axes: str) -> Array:
    """Constrains the sharding of x [B, ..., *axes] to logical axes; does nothing without a mesh.

    XLA's own choice follows the parameters: it splits widths and has to move whole activations.
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
