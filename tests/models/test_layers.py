"""Layers against short numpy references, on inputs where the nearest wrong numerics show."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.models import layers

RNG = np.random.default_rng(0)


def params_of(module, *args):
    """Random parameters, also where the initial ones are constant."""
    params = nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *args))["params"]
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    leaves = [rng.normal(0.2, 0.3, x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(treedef, leaves)


@functools.partial(jax.jit, static_argnums=0, static_argnames="mutable")
def apply(module, params, *args, **options):
    """Compiled as one program, which is much faster than op by op."""
    return module.apply({"params": params}, *args, **options)


def relative_error(found, expected):
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def norm_reference(x, scale, bias, eps):
    x = np.asarray(x, np.float64)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * scale + bias


def attention_reference(x, p, num_heads):
    x, out = np.asarray(x, np.float64), 0
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)
    for h in range(num_heads):
        q, k, v = (
            x @ p[n]["kernel"][:, h] + (p[n]["bias"][h] if "bias" in p[n] else 0)
            for n in ("query", "key", "value")
        )
        logits = q @ k.T / math.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out = out + weights @ v @ p["out"]["kernel"][h]
    return out + p["out"]["bias"]


@pytest.mark.parametrize("eps", [1e-6, 1e-12])
def test_layer_norm_on_rows_of_low_variance(eps):
    x = 1e-3 * RNG.normal(size=(4, 64)).astype(np.float32)  # variance is about eps
    module = layers.LayerNorm(eps)
    p = params_of(module, x)
    expected = norm_reference(x, p["scale"], p["bias"], eps)
    assert relative_error(apply(module, p, x), expected) < 1e-6
    other = layers.LayerNorm({1e-6: 1e-12, 1e-12: 1e-6}[eps])
    assert relative_error(apply(other, p, x), expected) > 1e-2


def test_layer_norm_takes_two_passes():
    x = (100 + RNG.normal(size=(4, 64))).astype(np.float32)
    p = {"scale": jnp.ones(64), "bias": jnp.zeros(64)}
    expected = norm_reference(x, 1, 0, 1e-6)
    assert relative_error(layers.LayerNorm(1e-6).apply({"params": p}, x), expected) < 2e-5
    fast = nn.LayerNorm(epsilon=1e-6, use_fast_variance=True).apply({"params": p}, x)
    assert relative_error(fast, expected) > 2e-4


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    expected = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(np.float64)])
    assert relative_error(layers.ACTIVATIONS["gelu"](x), expected) < 2e-7
    assert relative_error(layers.ACTIVATIONS["gelu_tanh"](x), expected) > 5e-5


def test_attention_with_large_logits_and_no_key_bias():
    x = 6 * RNG.normal(size=(2, 7, 24)).astype(np.float32)
    module = layers.Attention(num_heads=3, qkv_bias=(True, False, True))
    p = params_of(module, x)
    assert "bias" not in p["key"]
    assert p["query"]["kernel"].shape == (24, 3, 8)
    expected = np.stack([attention_reference(row, p, 3) for row in x])
    assert relative_error(apply(module, p, x), expected) < 2e-6


def test_attention_keeps_softmax_in_float32():
    x = RNG.normal(size=(1, 64, 32)).astype(np.float32)
    module = layers.Attention(num_heads=4, dtype=jnp.bfloat16)
    p = params_of(module, x)
    _, out = apply(module, p, x, mutable=("attention",))
    weights = out["attention"]["weights"]
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)


def test_head_mask_removes_one_head():
    x = RNG.normal(size=(1, 5, 16)).astype(np.float32)
    module = layers.Attention(num_heads=2)
    p = params_of(module, x)
    without = jax.tree.map(lambda a: a, p)
    without["out"]["kernel"] = p["out"]["kernel"] * [[[1.0]], [[0.0]]]
    masked = apply(module, p, x, head_mask=jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(masked, apply(module, without, x), atol=1e-6)


def test_patchify_orders_pixels_as_time_row_column_channel():
    video = np.arange(2 * 4 * 6 * 3).reshape(1, 2, 4, 6, 3).astype(np.float32)
    patches = np.asarray(layers.patchify(video, (2, 2, 3)))
    assert patches.shape == (1, 4, 36)
    np.testing.assert_array_equal(patches[0, 1], video[0, :, :2, 3:].ravel())
    np.testing.assert_array_equal(patches[0, 2], video[0, :, 2:, :3].ravel())


def test_patch_embed_is_a_strided_convolution():
    video = RNG.normal(size=(2, 4, 6, 6, 3)).astype(np.float32)
    module = layers.PatchEmbed(width=5, patch_size=(2, 3, 3))
    p = params_of(module, video)
    convolved = jax.lax.conv_general_dilated(
        video, p["kernel"], (2, 3, 3), "VALID", dimension_numbers=("NTHWC", "THWIO", "NTHWC")
    )
    expected = np.asarray(convolved).reshape(2, -1, 5) + p["bias"]
    assert relative_error(apply(module, p, video), expected) < 2e-6
    keep = np.array([[3, 0], [1, 7]])
    kept = apply(module, p, video, keep=keep)
    np.testing.assert_allclose(kept, np.take_along_axis(expected, keep[:, :, None], 1), atol=1e-5)


def test_clip_that_does_not_divide_into_patches():
    with pytest.raises(UserError, match="multiples"):
        layers.patchify(jnp.zeros((1, 3, 4, 4, 3)), (2, 2, 2))


def make_scan(**options):
    class Tower(nn.Module):
        @nn.compact
        def __call__(self, x, head_mask=None):
            block = layers.Block(2, 16, 1e-6, "gelu", name="blocks")
            speed = layers.Speed(**options)
            return layers.scan_blocks(
                block, x, depth=3, drop_path=0.5, head_mask=head_mask, speed=speed
            )

    return Tower


def test_scan_equals_a_loop_over_blocks():
    x = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    tower = make_scan()()
    p = params_of(tower, x)
    y = x
    block = layers.Block(2, 16, 1e-6, "gelu")
    for i in range(3):
        y = apply(block, jax.tree.map(lambda a, i=i: a[i], p["blocks"]), y)
    found, recorded = apply(tower, p, x, mutable=("hidden_states", "attention"))
    np.testing.assert_allclose(found, y, atol=1e-5)
    hidden = recorded["hidden_states"]["blocks"]["output"]
    assert hidden.shape == (3, 2, 5, 8)
    np.testing.assert_array_equal(hidden[-1], found)
    assert recorded["attention"]["blocks"]["attn"]["weights"].shape == (3, 2, 2, 5, 5)
    assert isinstance(apply(tower, p, x), jax.Array)  # nothing recorded unasked


@functools.cache
def start_and_gradient(**options):
    x = np.random.default_rng(3).normal(size=(2, 5, 8)).astype(np.float32)
    tower = make_scan(**options)()
    init = nn.meta.unbox(jax.jit(tower.init)(jax.random.key(3), x))
    return init, jax.jit(jax.grad(lambda v: jnp.sum(tower.apply(v, x) ** 2)))(init)


@pytest.mark.parametrize("options", [{"remat": "full"}, {"remat": "dots"}, {"unroll": 3}])
def test_remat_and_unroll_change_nothing(options):
    init, grads = zip(start_and_gradient(), start_and_gradient(**options), strict=True)
    jax.tree.map(np.testing.assert_array_equal, *init)
    size = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6 * size), *grads)


def test_stochastic_depth_grows_with_depth_and_keeps_the_mean():
    x = np.ones((512, 1, 8), np.float32)
    tower = make_scan()()
    p = params_of(tower, x)
    # Each branch adds 1 to every value: norms give 0 * scale + bias, the outputs' biases are 1.
    p = jax.tree.map(np.zeros_like, p)
    p["blocks"]["attn"]["out"]["bias"] = np.ones((3, 8), np.float32)
    _, recorded = apply(
        tower, p, x, rngs={"dropout": jax.random.key(0)}, mutable=("hidden_states",)
    )
    outputs = np.asarray(recorded["hidden_states"]["blocks"]["output"])[:, :, 0, 0]
    added = np.diff(np.concatenate([np.ones((1, 512)), outputs]), axis=0)
    np.testing.assert_array_equal(added[0], 1.0)  # rate 0
    np.testing.assert_allclose(np.unique(added[2]), [0.0, 2.0], atol=1e-6)  # rate 0.5, rescaled
    assert abs((added[1] == 0).mean() - 0.25) < 0.06
    assert abs(added[2].mean() - 1.0) < 0.2


def test_attention_pool():
    tokens = RNG.normal(size=(2, 3, 7, 8)).astype(np.float32)
    pool = layers.AttentionPool(num_heads=2, pool_dim=12, eps=1e-6, scale_offset=1.0)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params_of(pool, tokens))
    attn, out = p["attn"], 0
    for h in range(2):
        q, k, v = (
            x @ attn[n]["kernel"][:, h] + attn[n]["bias"][h]
            for n, x in (("query", p["probe"]), ("key", tokens), ("value", tokens))
        )
        q = q * np.log1p(np.exp(attn["per_dim_scale"])) / math.log(2) / math.sqrt(6)
        weights = np.exp(q @ np.swapaxes(k, -1, -2))
        weights /= weights.sum(-1, keepdims=True)
        out = out + weights @ v @ attn["out"]["kernel"][h]
    x = (out + attn["out"]["bias"])[..., 0, :]
    expected = norm_reference(x, p["norm"]["scale"] + 1, p["norm"]["bias"], 1e-6)
    found = apply(pool, jax.tree.map(np.float32, p), tokens)
    assert relative_error(found, expected) < 5e-6


def test_padded_tokens_pass_the_mlp_by():
    x = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    block = layers.Block(2, 16, 1e-6, "relu", scale_offset=1.0)
    p = params_of(block, x)
    padding = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]], bool)
    found = apply(block, p, x, padding=padding)
    without = jax.tree.map(lambda a: a, p)
    without["mlp"] = jax.tree.map(np.zeros_like, p["mlp"])
    np.testing.assert_array_equal(found[0, 3:], apply(block, without, x)[0, 3:])
    np.testing.assert_array_equal(found[~padding], apply(block, p, x)[~padding])


def rotate_by_row(query, key, ids):
    """Rotary positions of one axis: channels k and k + K/2 of a token turn by ids / 10^k."""

    def turn(x):
        angle = ids[..., None, None] / 10.0 ** np.arange(x.shape[-1] // 2)
        a, b = jnp.split(x, 2, axis=-1)
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    return turn(query), turn(key)


def test_rotary_positions_are_of_the_tokens_that_are_kept():
    class Tower(nn.Module):
        @nn.compact
        def __call__(self, x, ids):
            block = layers.Block(2, 16, 1e-6, "gelu", rotate=rotate_by_row, name="blocks")
            return layers.scan_blocks(block, x, depth=2, ids=ids)

    x = RNG.normal(size=(2, 6, 8)).astype(np.float32)
    keep = np.array([[4, 0, 3], [1, 5, 2]])
    kept = np.take_along_axis(x, keep[:, :, None], 1)
    p = params_of(Tower(), kept, keep)
    found = apply(Tower(), p, kept, keep)
    # Their order is of no account, nor where they start, but how far they are from each other is.
    order = np.array([2, 0, 1])
    moved = apply(Tower(), p, kept[:, order], keep[:, order])
    np.testing.assert_allclose(moved, found[:, order], atol=1e-5)
    np.testing.assert_allclose(apply(Tower(), p, kept, keep + 7), found, atol=1e-4)
    assert np.abs(apply(Tower(), p, kept, np.arange(3) + 0 * keep) - found).max() > 1e-2


def test_rotary_attention_against_a_reference():
    x = RNG.normal(size=(1, 5, 8)).astype(np.float32)
    ids = np.array([[0, 3, 4, 7, 9]])
    module = layers.Attention(num_heads=2, rotate=rotate_by_row)
    p = params_of(layers.Attention(num_heads=2), x)
    q, k, v = (
        np.einsum("nd,dhk->nhk", x[0], p[n]["kernel"]) + p[n]["bias"]
        for n in ("query", "key", "value")
    )
    # Pairs of channels as complex numbers, which a rotation multiplies by e^(i angle).
    turns = np.exp(1j * ids[0][:, None, None] / 10.0 ** np.arange(2))
    q, k = ((y[..., :2] + 1j * y[..., 2:]) * turns for y in (q, k))
    logits = np.einsum("nhk,mhk->hnm", q, k.conj()).real / math.sqrt(4)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("hnm,mhk,hkd->nd", weights, v, p["out"]["kernel"]) + p["out"]["bias"]
    assert relative_error(apply(module, p, x, ids=ids)[0], expected) < 2e-6
