"""Attention in blocks against attention at once, values and gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import flops
from vidjax import models
from vidjax.models.layers import blockwise
from vidjax.models.layers.attention import attend, attention_weights

# Clips, queries, keys, heads, width, soft cap, logits of a block: heads, queries, keys of a block.
SHAPES = [
    (
        2,
        37,
        37,
        3,
        8,
        0.0,
        256,
        (1, 16, 32),
    ),  # the last block of keys has five, that of queries, too
    (2, 37, 37, 3, 8, 4.0, 256, (1, 16, 32)),
    (1, 32, 32, 2, 8, 0.0, 100, (1, 16, 16)),  # thirds of 16 would leave a part of zeros alone
    (2, 37, 21, 4, 8, 5.0, 2000, (2, 37, 21)),  # 8 heads in twos
    (1, 64, 64, 2, 8, 3.0, 1024, (1, 32, 32)),
    (1, 20, 100, 1, 8, 0.0, 1200, (1, 20, 48)),  # three parts of keys, all queries
    (3, 10, 10, 4, 8, 0.0, 10**6, (12, 10, 10)),
]


@pytest.mark.parametrize(
    ("clips", "queries", "keys", "heads", "width", "softcap", "block", "expected"), SHAPES
)
def test_values_and_gradients(clips, queries, keys, heads, width, softcap, block, expected):
    assert blockwise.sizes(clips * heads, queries, keys, block) == expected
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        query = jnp.asarray(3 * rng.standard_normal((clips, queries, heads, width)))
        key, value = jnp.asarray(rng.standard_normal((2, clips, keys, heads, width)))
        towards = rng.standard_normal(query.shape)

        def in_blocks(*qkv):
            return blockwise.attend_blockwise(*qkv, softcap=softcap, block=block)

        def at_once(*qkv):
            return attend(*qkv, softcap=softcap, implementation="einsum")[0]

        def both(function):
            out, pull = jax.vjp(function, query, key, value)
            return out, *pull(jnp.asarray(towards))

        for found, expected in zip(both(in_blocks), both(at_once), strict=True):
            assert found.dtype == expected.dtype == jnp.float64
            np.testing.assert_allclose(found, expected, atol=2e-14)


@pytest.mark.parametrize("block", [blockwise.BLOCK, 4096])
def test_bfloat16_is_as_exact_as_at_once(block):
    """Logits and sums in float32: the error is that of rounding weights and results once."""
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((3, 1, 300, 2, 16)) * np.reshape([4.0, 1, 1], (3, 1, 1, 1, 1))
    rounded = jnp.asarray(qkv, jnp.bfloat16)
    exact = [np.asarray(x, np.float64) for x in rounded]

    def loss(query, key, value, way):
        if way == "einsum":
            out = attend(query, key, value, implementation=way)[0]
        else:
            out = blockwise.attend_blockwise(query, key, value, block=block)
        return jnp.sum(out.astype(jnp.float32) ** 2)

    def gradients(qkv, way):
        return jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)(*qkv, way)

    with jax.enable_x64(True):
        expected = [np.asarray(x) for x in gradients(exact, "einsum")]
    errors = {
        way: [
            float(np.abs(np.asarray(x, np.float64) - y).max() / np.abs(y).max())
            for x, y in zip(gradients(rounded, way), expected, strict=True)
        ]
        for way in ("einsum", "blockwise")
    }
    assert all(a < 1.5 * b for a, b in zip(errors["blockwise"], errors["einsum"], strict=True))
    assert max(errors["blockwise"]) < 0.02


def test_no_logits_are_kept_for_the_backward_pass():
    x = jnp.zeros((1, 512, 2, 16))

    def loss(x, way):
        return attend(x, x, x, implementation=way)[0].sum()

    def largest(way):
        _, pull = jax.vjp(lambda x: loss(x, way), x)
        return max(leaf.size for leaf in jax.tree.leaves(pull))

    assert largest("blockwise") <= x.size
    assert largest("einsum") == 2 * 512 * 512


def test_large_logits_do_not_overflow():
    query = jnp.full((1, 32, 1, 2), 200.0)
    key = query.at[:, 16:].multiply(-1.0)
    value = jnp.arange(64.0).reshape(query.shape)
    found = blockwise.attend_blockwise(query, key, value, block=256)
    weights = attention_weights(query[:, :, 0], key[:, :, 0])
    np.testing.assert_allclose(found[:, :, 0], weights @ value[:, :, 0])


def test_remat_of_all_but_products_does_not_attend_twice():
    """Counted in matrix products: 288 tokens, so that attention is a large part of them."""
    counts = {}
    for remat in ("none", "dots", "full"):
        fields = {"head": "classify", "num_classes": 10, "eps": 1e-6, "depth": 2, "remat": remat}
        model = models.build("videomae", "Ti", **fields)

        def loss(params, video, model=model):
            return model.apply({"params": params}, video).sum()

        video = jax.ShapeDtypeStruct((1, 4, 192, 192, 3), jnp.float32)
        counts[remat] = flops.matmul_flops(jax.grad(loss), models.abstract_params(model), video)
    assert counts["dots"] == counts["none"] < counts["full"]
