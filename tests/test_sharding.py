"""Where parameters and activations lie on the mesh, and that it never shows in the numbers."""

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from vidjax import sharding
from vidjax.models import layers
from vidjax.models.layers import attention
from vidjax.setup import Setup
from vidjax.training.program import Program

RNG = np.random.default_rng(0)


def mesh_config(data=1, fsdp=4, tensor=2, sequence=False):
    return ConfigDict({"data": data, "fsdp": fsdp, "tensor": tensor, "sequence": sequence})


@contextlib.contextmanager
def on_mesh(**sizes):
    """The mesh of such a config, and its rules."""
    cfg = mesh_config(**sizes)
    mesh = sharding.make_mesh(cfg)
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.rules(cfg)):
        yield mesh


def draw(name, x, rng):
    if x.dtype in ("bool", "float32"):
        return np.ones(x.shape, x.dtype)
    return rng.integers(0, 256 if name == "video" else 3, x.shape, x.dtype)


def losses(config, start=None, steps=3):
    """Losses of training on noise, and the state that it started from, if not from `start`.

    By SGD: Adam hides gradients of another scale, and makes steps of the rounding of small ones.
    """
    rng = np.random.default_rng(0)
    config.optim.name = "sgd"
    with on_mesh(**config.mesh):
        setup = Setup(config, without_lists=True)
        program = Program(setup, lambda step, factor=1.0: 0.1 * factor)
        start = start or jax.device_get(jax.jit(program.init)(jax.random.key(0)))
        state, found = jax.device_put(start, program.shardings), []
        for _ in range(steps):
            shapes = setup.example_batch(setup.clips_per_step)
            batch = {name: draw(name, x, rng) for name, x in shapes.items()}
            state, figures = program.train_step(state, sharding.put_batch(batch, setup.mesh))
            found.append(float(figures["loss"]))
    return found, start


# 27 tokens, which no two devices share evenly, and all that is random in training.
ODD = {
    **{"data.frames": 6, "data.size": 24, "data.short_side": 24},
    **{"model.drop_path": 0.5, "model.head_dropout": 0.3, "objective.mixup": 0.8},
    **{"objective.cutmix": 1.0, "objective.erase": 0.25},
}
TEXT = {
    **{"model.patch_size": (1, 8, 8), "model.temporal_depth": 1, "model.text_depth": 1},
    **{"data.text_length": 5, "objective.drop_tokens": 0.5},
}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("videomae_k400_finetune", ODD),
        pytest.param("videoprism_stage1", TEXT, marks=pytest.mark.slow),
    ],
)
def test_losses_agree_on_any_mesh(small, name, overrides):
    config = small(name)
    config.update_from_flattened_dict(overrides)
    expected, start = losses(config)
    assert np.ptp(expected) > 1e-3
    config.mesh.update(data=1, fsdp=4, tensor=2, sequence=True)
    np.testing.assert_allclose(losses(config, start)[0], expected, rtol=2e-6)


@pytest.mark.parametrize("sequence", [False, True])
def test_activations_lie_where_their_parameters_work(sequence, monkeypatch):
    found = {}

    def seen(name, x):
        jax.debug.inspect_array_sharding(
            x, callback=lambda place: found.update({name: place.shard_shape(x.shape)})
        )
        return x

    def attend(query, key, value):
        out, weights = attention.attend(
            seen("query", query), seen("key", key), seen("value", value)
        )
        return seen("attended", out), weights

    gelu = layers.ACTIVATIONS["gelu"]
    monkeypatch.setitem(layers.ACTIVATIONS, "gelu", lambda x: gelu(seen("hidden", x)))
    block = layers.Block(2, 32, 1e-6, "gelu", attend=attend)
    x = RNG.normal(size=(8, 6, 16)).astype(np.float32)

    def apply(params, x):
        x = layers.constrain(x, "tokens", "embed_act")
        return seen("output", block.apply(params, x))

    params = jax.jit(lambda: nn.meta.unbox(block.init(jax.random.key(0), x)))()
    expected = block.apply(params, x)
    found.clear()
    with on_mesh(sequence=sequence) as mesh:
        x = jax.device_put(x, jax.NamedSharding(mesh, sharding.BATCH))
        params = jax.device_put(
            params,
            sharding.param_shardings(jax.eval_shape(block.init, jax.random.key(0), x), mesh),
        )
        out = jax.jit(apply)(params, x)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    heads = (2, 6, 1, 8)  # clips over fsdp, heads over tensor
    assert {found[name] for name in ("query", "key", "value", "attended")} == {heads}
    assert found["hidden"] == (2, 6, 16)
    assert found["output"] == ((2, 3, 16) if sequence else (2, 6, 16))


def test_heads_stay_where_they_are_in_the_backward_pass():
    """Else logits, which are the largest arrays, are split anew, by tokens."""

    class Blocks(nn.Module):
        @nn.compact
        def __call__(self, x):
            block = layers.Block(2, 32, 1e-6, "gelu", name="blocks")
            return layers.scan_blocks(block, x, depth=2)

    model, x = Blocks(), jnp.zeros((8, 6, 16))
    boxed = jax.eval_shape(model.init, jax.random.key(0), x)
    with on_mesh(sequence=True) as mesh:
        places = sharding.param_shardings(boxed, mesh), jax.NamedSharding(mesh, sharding.BATCH)
        params, x = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            (jax.eval_shape(nn.meta.unbox, boxed), x),
            places,
        )
        grad = jax.jit(jax.grad(lambda params, x: jnp.sin(model.apply(params, x)).sum()))
        assert "all-to-all" not in grad.lower(params, x).compile().as_text()


def test_a_name_without_a_rule():
    with on_mesh(), pytest.raises(ValueError, match="did not match a rule"):
        jax.jit(lambda x: layers.constrain(x, "token", "embed_act"))(jnp.zeros((8, 4, 8)))


def test_sequence_splits_tokens_where_nothing_else_is_split():
    cfg = mesh_config(sequence=True)

    def spec(*axes):
        return nn.logical_to_mesh_axes(axes, sharding.rules(cfg))

    batch = ("data", "fsdp")
    assert spec("batch", "tokens", "embed_act") == PartitionSpec(batch, "tensor", None)
    assert spec("batch", "tokens", "mlp") == PartitionSpec(batch, None, "tensor")
    assert spec("batch", "tokens", "heads", "head_dim") == PartitionSpec(
        batch, None, "tensor", None
    )
    cfg.sequence = False
    assert sharding.rules(cfg) == sharding.RULES


def test_text_tables_are_looked_up_without_detours(capfd):
    """XLA's partitioner complains where it sees no way but to copy everything to every device."""
    table, ids = jnp.zeros((32, 16)), jnp.zeros((16, 8), jnp.int32)

    def loss(table, ids):
        return jnp.sin(layers.constrain(layers.look_up(table, ids), "tokens", "embed_act")).sum()

    cache = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)  # or nothing would be compiled
    try:
        with on_mesh(data=2, fsdp=2, tensor=2) as mesh:
            table = jax.device_put(table, jax.NamedSharding(mesh, PartitionSpec(None, "fsdp")))
            ids = jax.device_put(ids, jax.NamedSharding(mesh, sharding.BATCH))
            jax.jit(jax.grad(loss)).lower(table, ids).compile()
    finally:
        jax.config.update("jax_enable_compilation_cache", cache)
    assert "rematerialization" not in capfd.readouterr().err


def test_state_shrinks_with_fsdp(small):
    setup = Setup(small(ema_decay=0.9), without_lists=True)

    def bytes_on_device(fsdp):
        setup.mesh = sharding.make_mesh(mesh_config(data=8 // fsdp, fsdp=fsdp, tensor=1))
        state = Program(setup, lambda step: 1e-3).state
        assert jax.tree.structure(state.ema_params) == jax.tree.structure(state.params)
        arrays = jax.tree.leaves(state)
        size = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in arrays)
        whole = [x for x in arrays if x.sharding.is_fully_replicated]
        return size, sum(x.size * x.dtype.itemsize for x in whole)

    full, _ = bytes_on_device(1)
    for fsdp in (2, 4, 8):
        size, whole = bytes_on_device(fsdp)
        assert size == (full - whole) / fsdp + whole
        assert whole < full / 20  # biases of heads and of hidden channels, which have no `embed`
