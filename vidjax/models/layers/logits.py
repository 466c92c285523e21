"""Logits of attention, and their softmax.

Shapes: N queries, M keys, K head width.
"""

import jax
import jax.numpy as jnp

Array = jax.Array

# Name of what `vidjax.models.layers.REMAT_POLICIES` may keep of attention.
KEPT = "attention"


def product(spec: str, a: Array, b: Array) -> Array:
    """Computes an einsum that accumulates in float32 at least."""
    exact = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(spec, a, b, preferred_element_type=exact)


def scaled(query: Array) -> Array:
    """Queries [..., K] over sqrt(K), as `capped_logits` takes them."""
    return query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)


def capped_logits(query: Array, key: Array, softcap: float) -> Array:
    """q·k of scaled queries [..., N, K] and keys [..., M, K]: [..., N, M]; bent by a soft cap."""
    # Not by matmul, which drops batch axes of one clip: then REMAT_POLICIES would keep the logits.
    logits = product("...nk,...mk->...nm", query, key)
    return softcap * jnp.tanh(logits / softcap) if softcap else logits


def attention_weights(
    query: Array, key: Array, *, mask: Array | None = None, softcap: float = 0.0
) -> Array:
    """softmax(q·k / sqrt(K)) of query [..., N, K] and key [..., M, K]: [..., N, M].

    In float32, or float64 if the query is.

    Args:
        mask: bool, broadcastable to [..., N, M]: which keys a query sees. A query that sees none
            looks at all keys alike.
        softcap: c > 0 bends the logits l to c·tanh(l / c), before they are masked.
    """
    logits = capped_logits(scaled(query), key, softcap)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    return jax.nn.softmax(logits, axis=-1)
