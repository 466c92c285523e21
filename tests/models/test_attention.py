"""Every way to compute attention against the plainest one, on lengths that no kernel likes."""

import functools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vidjax import models, sharding
from vidjax.errors import UserError
from vidjax.models import layers
from vidjax.models.layers import attention

RNG = np.random.default_rng(0)


def relative_error(found, expected):
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def test_soft_cap_comes_before_the_mask():
    query, key = (2 * RNG.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    mask = np.tril(np.ones((5, 5), bool))
    mask[2] = False  # sees nothing, so everything alike
    logits = 5 * np.tanh(query @ key.T / 2 / 5)
    weights = np.where(mask, np.exp(logits - logits.max()), 0)
    weights[2] = 1
    weights /= weights.sum(1, keepdims=True)
    found = attention.attention_weights(query, key, mask=mask, softcap=5.0)
    np.testing.assert_allclose(found, weights, atol=1e-5)
    uncapped = attention.attention_weights(query, key, mask=mask)
    assert np.abs(uncapped - weights).max() > 1e-2


@pytest.mark.parametrize("tokens", [6, 130])  # few, and as many as without a mask are cut up
def test_masked_heads(tokens):
    q, k, v = (RNG.normal(size=(2, 3, tokens, 2, 4)).astype(np.float32) for _ in range(3))
    mask = RNG.random((2, 1, 1, tokens)) < 0.5
    found = jax.jit(lambda: attention.attend(q, k, v, mask=mask, softcap=2.0)[0])()
    heads = [np.swapaxes(x, -2, -3) for x in (q, k, v)]
    weights = jax.jit(functools.partial(attention.attention_weights, softcap=2.0))(
        *heads[:2], mask=mask[..., None, :, :]
    )
    expected = np.swapaxes(np.asarray(weights) @ heads[2], -2, -3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.asarray(weights)[np.broadcast_to(~mask[..., None, :, :], weights.shape)].any()


def draw(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.normal(size=shape), dtype)


def value_and_grads(*qkv, implementation, softcap=0.0):
    """Returns the output of attention, and the gradients of a weighted sum of it."""

    def loss(*qkv):
        out, _ = attention.attend(*qkv, softcap=softcap, implementation=implementation)
        weight = jnp.cos(jnp.arange(out.size)).reshape(out.shape)
        return (out.astype(jnp.float32) * weight).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*qkv)
    return [np.asarray(x, np.float32) for x in (out, *grads)]


@pytest.mark.parametrize(
    ("lengths", "heads", "softcap", "dtype"),
    [
        ((160, 160), (2, 64), 0.0, "float32"),
        ((77, 300), (1, 80), 2.0, "float32"),  # queries and keys of other numbers
        ((1568, 1568), (1, 64), 0.0, "bfloat16"),  # several blocks, the last ones padded
        pytest.param((1300, 1100), (1, 88), 2.0, "float32", marks=pytest.mark.slow),
        pytest.param((3137, 3137), (1, 64), 0.0, "float32", marks=pytest.mark.slow),
        pytest.param((4096, 4096), (1, 64), 50.0, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_splash_attention_is_attention(lengths, heads, softcap, dtype, splash):
    shapes = [(1, n, *heads) for n in (lengths[0], lengths[1], lengths[1])]
    qkv = [3 * draw(*shape, dtype=dtype) for shape in shapes]
    found = value_and_grads(*qkv, implementation="splash", softcap=softcap)
    assert splash[0] == shapes[0]
    exact = [x.astype(jnp.float32) for x in qkv]
    expected = value_and_grads(*exact, implementation="einsum", softcap=softcap)
    if dtype == "float32":
        tolerances = [1e-5] * 4
    else:  # at most twice what rounding does to the plain form
        plain = value_and_grads(*qkv, implementation="einsum", softcap=softcap)
        tolerances = [2 * relative_error(x, y) for x, y in zip(plain, expected, strict=True)]
        assert max(tolerances) < 4e-2
    for x, y, tolerance in zip(found, expected, tolerances, strict=True):
        assert relative_error(x, y) < tolerance


def test_block_sizes():
    for tokens in (160, 1568, 3137, 4096, 9248):
        size = attention.block_size(tokens)
        assert size % 128 == 0
        assert attention.whole(tokens, size) < 1.2 * tokens + 256


@pytest.mark.parametrize("remat", ["dots", pytest.param("full", marks=pytest.mark.slow)])
def test_splash_attention_in_recomputed_blocks(remat, splash):
    class Tower(nn.Module):
        implementation: str

        @nn.compact
        def __call__(self, x):
            attend = functools.partial(attention.attend, implementation=self.implementation)
            block = layers.Block(2, 32, 1e-6, "gelu", attend=attend, name="blocks")
            return layers.scan_blocks(block, x, depth=2, speed=layers.Speed(remat=remat))

    x = draw(2, 20, 16)
    params = nn.meta.unbox(Tower("einsum").init(jax.random.key(0), x))

    def grads(name):
        return jax.jit(jax.grad(lambda p: jnp.sin(Tower(name).apply(p, x)).sum()))(params)

    expected = grads("einsum")
    assert not splash
    found = grads("splash")
    assert splash
    size = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * size)
    _, recorded = Tower("splash").apply(params, x, mutable=["attention"])
    weights = recorded["attention"]["blocks"]["attn"]["weights"]
    np.testing.assert_allclose(weights.sum(-1), np.ones((2, 2, 2, 20)), atol=1e-5)


@pytest.mark.parametrize("sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_splash_attention_on_a_mesh(sizes, splash):
    """Each device has its own clips and heads; frames are an axis of their own."""
    qkv = [draw(8, 2, 20, 4, 8) for _ in range(3)]
    expected = value_and_grads(*qkv, implementation="einsum", softcap=3.0)
    axes = ("data", "fsdp", "tensor")
    mesh = jax.make_mesh(sizes, axes, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    spec = jax.P(("data", "fsdp"), None, None, "tensor")
    qkv = jax.device_put(qkv, jax.NamedSharding(mesh, spec))
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
        attend = functools.partial(attention.attend, softcap=3.0, implementation="splash")
        out = jax.jit(lambda *qkv: attend(*qkv)[0])(*qkv)
        assert out.sharding.is_equivalent_to(qkv[0].sharding, out.ndim)
        found = value_and_grads(*qkv, implementation="splash", softcap=3.0)
        splash.clear()
        odd = [draw(6, 20, 4, 8) for _ in range(3)]  # 6 clips do not divide
        value_and_grads(*odd, implementation="splash")
        assert not splash
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) < 1e-5
    with jax.set_mesh(mesh):  # and without rules nothing is known about clips and heads
        value_and_grads(*qkv, implementation="splash")
        assert not splash


CPU, TPU, HOPPER, AMPERE, TURING = ("cpu", 0), ("tpu", 0), ("gpu", 9.0), ("gpu", 8.0), ("gpu", 7.5)


@pytest.mark.parametrize(
    ("machine", "dtype", "softcap", "tokens", "masked", "expected"),
    [
        (CPU, "float32", 0.0, 100, False, "einsum"),
        (CPU, "float32", 50.0, 1568, True, "einsum"),
        (CPU, "float32", 50.0, 1568, False, "blockwise"),
        (TPU, "float16", 0.0, 3137, False, "einsum"),
        (TPU, "bfloat16", 0.0, 1568, False, "splash"),
        (TPU, "float32", 50.0, 3137, False, "splash"),
        (TPU, "bfloat16", 0.0, 1568, True, "einsum"),
        (TPU, "bfloat16", 0.0, 197, False, "einsum"),
        (TPU, "float16", 0.0, 1568, False, "einsum"),
        (HOPPER, "bfloat16", 0.0, 1568, False, "cudnn"),
        (AMPERE, "float16", 0.0, 160, False, "cudnn"),
        (TURING, "float16", 0.0, 1568, False, "einsum"),
        (HOPPER, "float32", 0.0, 1568, False, "einsum"),
        (HOPPER, "bfloat16", 0.0, 16, False, "einsum"),
        (HOPPER, "bfloat16", 0.0, 1568, True, "einsum"),
        (HOPPER, "bfloat16", 50.0, 4096, False, "tokamax"),
        (HOPPER, "bfloat16", 50.0, 4000, False, "einsum"),
        (AMPERE, "bfloat16", 50.0, 4096, False, "einsum"),
    ],
)
def test_choice(machine, dtype, softcap, tokens, masked, expected, monkeypatch):
    monkeypatch.setattr(attention, "machine", lambda: machine)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: name == "tokamax")
    x = jax.ShapeDtypeStruct((1, tokens, 2, 64), dtype)
    assert attention.choose("auto", x, x, masked=masked, softcap=softcap) == expected
    assert attention.choose("einsum", x, x, masked=masked, softcap=softcap) == "einsum"
    pooler = jax.ShapeDtypeStruct((1, 1, 2, 64), dtype)  # one query: no kernel pays
    assert attention.choose("auto", pooler, x, masked=False, softcap=softcap) == "einsum"


@pytest.mark.parametrize(
    ("name", "machine", "dtype", "softcap", "says"),
    [
        ("flash", CPU, "float32", 0.0, "one of auto, einsum, cudnn"),
        ("splash", CPU, "float32", 0.0, "not on a cpu; set it to auto or einsum or blockwise"),
        ("splash", TPU, "float16", 0.0, "bfloat16 or float32, not in float16"),
        ("cudnn", TPU, "bfloat16", 0.0, "set it to auto or einsum or splash or blockwise"),
        ("cudnn", TURING, "float16", 0.0, "since Ampere"),
        ("cudnn", HOPPER, "float32", 0.0, "bfloat16 or float16, not in float32"),
        ("cudnn", HOPPER, "bfloat16", 50.0, "has no soft cap"),
        ("tokamax", HOPPER, "bfloat16", 50.0, "pip install -e .[tokamax]"),
        ("tokamax", AMPERE, "bfloat16", 50.0, "Hopper"),
    ],
)
def test_implementations_that_cannot_run_here(name, machine, dtype, softcap, says, monkeypatch):
    monkeypatch.setattr(attention, "machine", lambda: machine)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: None)
    x = jnp.zeros((1, 4, 2, 8), dtype)  # also where it would not be used
    with pytest.raises(UserError, match=r"config\.model\.attention") as error:
        attention.attend(x, x, x, softcap=softcap, implementation=name)
    assert says in str(error.value)


def test_the_mesh_decides_which_machine():
    assert attention.machine() == ("cpu", 0.0)
    mesh = jax.sharding.AbstractMesh(
        (2,), ("data",), abstract_device=jax.sharding.AbstractDevice("TPU v5e", 1, "tpu")
    )
    with jax.sharding.use_abstract_mesh(mesh):
        assert attention.machine() == ("tpu", 0.0)


@pytest.mark.parametrize("tokens", [160, 197])  # as they are, and padded to an even number
def test_what_cudnn_is_asked(tokens, monkeypatch):
    asked, plain = [], jax.nn.dot_product_attention

    def by_xla(query, key, value, **options):
        asked.append((query.shape, options.pop("implementation")))
        return plain(query, key, value, **options, implementation="xla")

    monkeypatch.setattr(attention, "machine", lambda: HOPPER)
    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    query, key, value = (draw(2, 3, tokens, 2, 30) for _ in range(3))
    # Logits far below 0, so that a padded key would outweigh all others.
    qkv = [x.astype(jnp.bfloat16) for x in (1 + 0.1 * query, 0.1 * key - 1, value)]
    found = value_and_grads(*qkv, implementation="auto")
    assert asked[0] == ((6, attention.whole(tokens, 2), 2, 32), "cudnn")
    for a, b in zip(found, value_and_grads(*qkv, implementation="einsum"), strict=True):
        assert relative_error(a, b) < 3e-2


def test_what_tokamax_is_asked(monkeypatch):
    asked, plain = [], jax.nn.dot_product_attention

    def kernel(query, key, value, *, scale, logits_soft_cap, implementation):
        asked.append((query.shape, logits_soft_cap, implementation))
        return plain(query, key, value, scale=scale)

    monkeypatch.setattr(attention, "machine", lambda: HOPPER)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: name == "tokamax")
    monkeypatch.setitem(sys.modules, "tokamax", types.SimpleNamespace(dot_product_attention=kernel))
    qkv = [draw(2, 2, 128, 2, 16, dtype=jnp.bfloat16) for _ in range(3)]
    found = value_and_grads(*qkv, implementation="auto", softcap=1e4)  # bends nothing
    assert asked[0] == ((4, 128, 2, 16), 1e4, "mosaic")
    for a, b in zip(found, value_and_grads(*qkv, implementation="einsum"), strict=True):
        assert relative_error(a, b) < 3e-2


SIZES = dict(width=16, depth=1, num_heads=2, mlp_dim=16, eps=1e-6)
DECODER = dict(decoder_width=8, decoder_depth=1, decoder_num_heads=2, decoder_mlp_dim=8)
FRAMES = dict(**SIZES, pos_grid=(2, 2, 2), patch_size=(1, 8, 8))


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        (dict(name="videomae", head="reconstruct", **SIZES, **DECODER), 2),
        *(
            (dict(name="vivit", **FRAMES, pool="mean", factorisation=factorisation), 2)
            for factorisation in ("self_attention", "dot_product")
        ),
        (dict(name="vivit", **FRAMES, factorisation="encoder"), 2),
        (dict(name="xclip", **FRAMES), 2),
        (dict(name="videoprism", head="video", **FRAMES), 3),
        (
            dict(
                name="probe",
                head="classify",
                num_classes=3,
                pool="mean",
                encoder=dict(name="videomae", **SIZES),
            ),
            1,
        ),
    ],
    ids=lambda x: x["name"] if isinstance(x, dict) else "",
)
def test_models_hand_the_choice_on(fields, kinds, splash):
    """To every block that may see many tokens; and a checkpoint does not remember it."""
    plain = models.build(**fields)
    model = models.build(**fields, attention="splash")
    assert models.config_of(model) == models.config_of(plain)
    video = jnp.zeros((1, 2, 16, 16, 3))
    inputs = {key: jnp.zeros(x.shape, x.dtype) for key, x in model.example_inputs().items()}
    inputs["video"] = video

    def shapes(model):
        splash.clear()
        jax.eval_shape(lambda: model.init(jax.random.key(0), **inputs))
        return set(splash)

    # What is left out are poolers, which nobody tells.
    found = shapes(model) - shapes(models.build(**fields, attention="einsum"))
    assert len(found) == kinds, found
