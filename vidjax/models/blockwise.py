"""Softmax attention in blocks whose logits fit into caches, by XLA on any device.

Neither pass stores logits: the backward pass computes them again from the queries, the keys, and
the logarithm of each row's sum (Dao et al. 2022, arXiv:2205.14135, without its loop over keys: a
block sees all keys, so each row's softmax is that of its largest logit).
Shapes: G heads of all clips, N tokens that look at M (keys, values), K head width.
Numerics: logits, softmax and sums are in float32 (float64 when the queries are). Weights are
rounded to the values' dtype before they are applied, and divided by their sum after that.
Gradients of gradients and forward-mode differentiation do not exist; attention="einsum" has them.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

Array = jax.Array

# Logits of a block, 8 MB of float32. On two cores with 32 MB of cache, 2^20 to 2^21 were fastest.
BLOCK = 2**21

# What `vidjax.models.layers.REMAT_POLICIES` may keep: see there.
KEPT = "attention"


def attend_blockwise(
    query: Array, key: Array, value: Array, *, softcap: float = 0.0, block: int = BLOCK
) -> Array:
    """Softmax attention of query [..., N, H, K] over key and value [..., M, H, K]: as `query`.

    Args:
        softcap: see `attention.attention_weights`.
        block: logits of a block, at most (but for a single query with more keys).
    """

    def by_head(x: Array) -> Array:
        return jnp.swapaxes(x, -2, -3).reshape(-1, x.shape[-3], x.shape[-1])  # [G, N or M, K]

    out = _attend(by_head(query), by_head(key), by_head(value), softcap, block)
    *clips, tokens, heads, width = query.shape
    return jnp.swapaxes(out.reshape(*clips, heads, tokens, width), -2, -3)


def sizes(heads: int, queries: int, keys: int, block: int) -> tuple[int, int]:
    """How many heads are taken at once, and into how many parts their queries are cut."""
    most = min(max(block // (queries * keys), 1), heads)
    together = next(n for n in range(most, 0, -1) if heads % n == 0)
    return together, min(-(-queries * keys // block), queries)


def _split(x: Array, together: int, parts: int) -> Array:
    """[G, N, K] as [G / together, parts, together, N / parts, K], with zeros at the end of N."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % parts), (0, 0)))
    return x.reshape(-1, together, parts, x.shape[1] // parts, x.shape[2]).swapaxes(1, 2)


def _join(x: Array, queries: int) -> Array:
    """Undoes `_split`."""
    groups, parts, together, rows, width = x.shape
    return x.swapaxes(1, 2).reshape(groups * together, parts * rows, width)[:, :queries]


def _product(spec: str, a: Array, b: Array) -> Array:
    exact = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(spec, a, b, preferred_element_type=exact)


def scaled(query: Array) -> Array:
    """Queries [..., K] over sqrt(K), as `capped_logits` takes them."""
    return query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)


def capped_logits(query: Array, key: Array, softcap: float) -> Array:
    """q·k of scaled queries [..., N, K] and keys [..., M, K]: [..., N, M]; bent by a soft cap."""
    # Not by matmul, which drops batch axes of one clip: then REMAT_POLICIES would keep the logits.
    logits = _product("...nk,...mk->...nm", query, key)
    return softcap * jnp.tanh(logits / softcap) if softcap else logits


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend(query: Array, key: Array, value: Array, softcap: float, block: int) -> Array:
    """Attention of query [G, N, K] over key and value [G, M, K]."""
    return _forward(query, key, value, softcap, block)[0]


def _forward(query: Array, key: Array, value: Array, softcap: float, block: int):
    cut = sizes(*query.shape[:2], key.shape[1], block)

    def heads(whole):
        queries, key, value = whole

        def rows(query):
            logits = capped_logits(query, key, softcap)
            largest = logits.max(-1, keepdims=True)
            weights = jnp.exp(logits - largest)
            total = weights.sum(-1, keepdims=True)
            out = _product("gnm,gmk->gnk", weights.astype(value.dtype), value) / total
            return out.astype(value.dtype), largest + jnp.log(total)

        return jax.lax.map(rows, queries)

    groups = [x.reshape(-1, cut[0], *x.shape[1:]) for x in (key, value)]
    found = jax.lax.map(heads, (_split(scaled(query), *cut), *groups))
    out, log_total = (checkpoint_name(_join(x, query.shape[1]), KEPT) for x in found)
    return out, (query, key, value, log_total)


def _backward(softcap: float, block: int, saved: tuple[Array, ...], grad: Array):
    query, key, value, log_total = saved
    cut = sizes(*query.shape[:2], key.shape[1], block)

    def heads(whole):
        parts, key, value = whole

        def rows(sums, part):
            query, grad, log_total = part
            logits = capped_logits(query, key, softcap)
            weights = jnp.exp(logits - log_total)
            slope = _product("gnk,gmk->gnm", grad, value)
            # Not from the output, as a loop over keys must do: it is rounded.
            slope = weights * (slope - (weights * slope).sum(-1, keepdims=True))
            if softcap:
                slope *= 1.0 - jnp.square(logits / softcap)
            slope, weights = slope.astype(query.dtype), weights.astype(query.dtype)
            more = _product("gnm,gnk->gmk", slope, query), _product("gnm,gnk->gmk", weights, grad)
            return jax.tree.map(jnp.add, sums, more), _product("gnm,gmk->gnk", slope, key)

        zeros = tuple(jnp.zeros(x.shape, log_total.dtype) for x in (key, value))
        return jax.lax.scan(rows, zeros, parts)

    parts = [_split(x, *cut) for x in (scaled(query), grad, log_total)]
    groups = [x.reshape(-1, cut[0], *x.shape[1:]) for x in (key, value)]
    (to_key, to_value), to_query = jax.lax.map(heads, (parts, *groups))
    found = scaled(_join(to_query, query.shape[1])), to_key, to_value
    like = query, key, value
    return tuple(x.reshape(y.shape).astype(y.dtype) for x, y in zip(found, like, strict=True))


_attend.defvjp(_forward, _backward)
