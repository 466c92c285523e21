"""Softmax attention in blocks whose logits fit into caches, by XLA on any device.

The algorithm of FlashAttention (Dao et al. 2022, arXiv:2205.14135): a block is some queries by some
keys, and each row's largest logit and sum so far are carried from block to block. Neither pass
stores logits: the backward pass computes them again from the queries, the keys, and the logarithm
of each row's sum.
Shapes: G heads of all clips, N tokens that look at M (keys, values), K head width.
Numerics: logits, softmax and sums are in float32 (float64 when the queries are). Weights are
rounded to the values' dtype before they are applied, and divided by their sum after that.
Gradients of gradients and forward-mode differentiation do not exist; attention="einsum" has them.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vidjax.models.layers.logits import KEPT, capped_logits, product, scaled

Array = jax.Array

# Logits of a block, 8 MB of float32. On two cores with 32 MB of cache, 2^20 to 2^21 were fastest.
BLOCK = 2**21


def attend_blockwise(
    query: Array, key: Array, value: Array, *, softcap: float = 0.0, block: int = BLOCK
) -> Array:
    """Softmax attention of query [..., N, H, K] over key and value [..., M, H, K]: as `query`.

    Args:
        softcap: see `logits.attention_weights`.
        block: logits of a block, to the nearest equal parts of queries and keys.
    """

    def by_head(x: Array) -> Array:
        return jnp.swapaxes(x, -2, -3).reshape(-1, x.shape[-3], x.shape[-1])  # [G, N or M, K]

    out = _attend(by_head(query), by_head(key), by_head(value), softcap, block)
    *clips, tokens, heads, width = query.shape
    return jnp.swapaxes(out.reshape(*clips, heads, tokens, width), -2, -3)


def sizes(heads: int, queries: int, keys: int, block: int) -> tuple[int, int, int]:
    """Heads, queries and keys of a block."""
    by_keys = _part(keys, round(keys / math.sqrt(block)))
    by_queries = _part(queries, round(queries * by_keys / block))
    most = min(max(block // (queries * keys), 1), heads)
    return next(n for n in range(most, 0, -1) if heads % n == 0), by_queries, by_keys


def _part(tokens: int, parts: int) -> int:
    """Tokens of a part: all, or what fills vectors, without which a pass takes a tenth longer."""
    return tokens if parts <= 1 else -(-tokens // (16 * parts)) * 16


def _split(x: Array, together: int, size: int) -> Array:
    """[G, N, K] as [G / together, N / size, together, size, K], with zeros at the end of N."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0)))
    return x.reshape(-1, together, x.shape[1] // size, size, x.shape[2]).swapaxes(1, 2)


def _join(x: Array, tokens: int) -> Array:
    """Undoes `_split`."""
    groups, parts, together, size, width = x.shape
    return x.swapaxes(1, 2).reshape(groups * together, parts * size, width)[:, :tokens]


def _exist(keys: int, size: int) -> Array | None:
    """Returns whether each key is no zero of `_split`: bool [keys / size, size], or None."""
    return jnp.arange(keys + -keys % size).reshape(-1, size) < keys if keys % size else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend(query: Array, key: Array, value: Array, softcap: float, block: int) -> Array:
    """Attention of query [G, N, K] over key and value [G, M, K]."""
    return _forward(query, key, value, softcap, block)[0]


def _forward(query: Array, key: Array, value: Array, softcap: float, block: int):
    together, by_queries, by_keys = sizes(*query.shape[:2], key.shape[1], block)
    exist = _exist(key.shape[1], by_keys)

    def heads(group):
        queries, *keys = group
        parts = *keys, exist

        def rows(query):
            def look(part):
                key, value, exist = part
                logits = capped_logits(query, key, softcap)
                if exist is not None:
                    logits = jnp.where(exist, logits, -jnp.inf)
                largest = logits.max(-1, keepdims=True)
                weights = jnp.exp(logits - largest)
                out = product("gnm,gmk->gnk", weights.astype(value.dtype), value)
                return largest, weights.sum(-1, keepdims=True), out

            def more(so_far, part):
                both = so_far, look(part)
                now = jnp.maximum(*(largest for largest, *_ in both))
                a, b = ([jnp.exp(largest - now) * x for x in sums] for largest, *sums in both)
                return (now, *jax.tree.map(jnp.add, a, b)), None

            first = jax.tree.map(lambda x: x[0], parts)
            others = jax.tree.map(lambda x: x[1:], parts)
            (largest, total, out), _ = jax.lax.scan(more, look(first), others)
            return out / total, largest + jnp.log(total)

        return jax.lax.map(rows, queries)

    parts = [_split(scaled(query), together, by_queries)]
    parts += [_split(x, together, by_keys) for x in (key, value)]
    found = jax.lax.map(heads, parts)
    out, log_total = (checkpoint_name(_join(x, query.shape[1]), KEPT) for x in found)
    return out.astype(value.dtype), (query, key, value, out, log_total)


def _backward(softcap: float, block: int, saved: tuple[Array, ...], grad: Array):
    query, key, value, out, log_total = saved
    together, by_queries, by_keys = sizes(*query.shape[:2], key.shape[1], block)
    exist = _exist(key.shape[1], by_keys)

    def heads(group):
        rows_parts, keys, values = group

        def rows(sums, part):
            query, grad, log_total, mean = part

            def more(to_query, part):
                key, value, exist = part
                logits = capped_logits(query, key, softcap)
                weights = jnp.exp(logits - log_total)
                if exist is not None:
                    weights = jnp.where(exist, weights, 0.0)
                slope = weights * (product("gnk,gmk->gnm", grad, value) - mean)
                if softcap:
                    slope *= 1.0 - jnp.square(logits / softcap)
                slope, weights = slope.astype(query.dtype), weights.astype(query.dtype)
                to_query += product("gnm,gmk->gnk", slope, key)
                # As [g, K, m], which spares a transposition of the large operand.
                to_key = product("gnk,gnm->gkm", query, slope)
                return to_query, (to_key, product("gnk,gnm->gkm", grad, weights))

            zeros = jnp.zeros(query.shape, log_total.dtype)
            to_query, found = jax.lax.scan(more, zeros, (keys, values, exist))
            return jax.tree.map(jnp.add, sums, found), to_query

        like = (jnp.swapaxes(x, -1, -2) for x in (keys, values))
        zeros = tuple(jnp.zeros(x.shape, log_total.dtype) for x in like)
        return jax.lax.scan(rows, zeros, rows_parts)

    # Each row's mean of its weights' gradients, by its weights; from the output as it was before
    # it was rounded.
    mean = (out * grad).sum(-1, keepdims=True)
    parts = [_split(x, together, by_queries) for x in (scaled(query), grad, log_total, mean)]
    groups = [_split(x, together, by_keys) for x in (key, value)]
    (to_key, to_value), to_query = jax.lax.map(heads, (parts, *groups))
    to_query = scaled(_join(to_query, query.shape[1]))
    of_keys = (_join(jnp.swapaxes(x, -1, -2), key.shape[1]) for x in (to_key, to_value))
    found = to_query, *of_keys
    return tuple(x.astype(y.dtype) for x, y in zip(found, (query, key, value), strict=True))


_attend.defvjp(_forward, _backward)
