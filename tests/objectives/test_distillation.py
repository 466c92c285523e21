import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vidjax import models, objectives
from vidjax.objectives.distillation import cosine_distance
from vidjax.preprocessing import Preprocessing

INPUT = Preprocessing(mean=(0,) * 3, std=(1,) * 3)

BATCH = {"video": np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16, 3)).astype(np.uint8)}


def make(**fields):
    model = models.build(
        "videoprism", head="distil", width=16, depth=1, num_heads=2, mlp_dim=32, temporal_depth=1,
        patch_size=(1, 4, 4), pos_grid=(2, 4, 4), eps=1e-6, scale_offset=1.0, auxiliary_depth=0,
        decoder_width=8, decoder_depth=1, decoder_num_heads=2, decoder_mlp_dim=16,
    )  # fmt: skip
    return objectives.build("distillation", model, INPUT, **fields)


def test_cosine_distance():
    x = jnp.array([[1.0, 0.0], [2.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    y = jnp.array([[5.0, 0.0], [-1.0, -1.0], [0.0, 3.0], [1.0, 0.0]])
    np.testing.assert_allclose(cosine_distance(x, y), [0, 2, 1, 1], atol=1e-6)


@pytest.fixture(scope="module")
def step():
    """An objective, its parameters, and their loss, figures and gradient."""
    objective = make(global_weight=3.0)
    params = nn.meta.unbox(jax.jit(objective.init)(jax.random.key(0), BATCH))
    value_and_grad = jax.value_and_grad(objective.loss, has_aux=True)
    return objective, params, *jax.jit(value_and_grad)(params, BATCH, rng=jax.random.key(1))


def test_loss_is_local_plus_global(step):
    objective, params, (loss, figures), _ = step
    np.testing.assert_allclose(loss, figures["local"] + 3 * figures["global"], rtol=1e-6)
    keep, order = objective.draw(jax.random.key(1), BATCH["video"].shape)
    assert keep.shape == (3, 6)  # 35% of 16, rounded
    video = jnp.asarray(BATCH["video"], jnp.float32) / 255
    apply = jax.jit(lambda *args: objective.model.apply({"params": params}, *args))
    tokens, _ = apply(video, keep, order)
    targets = functools.partial(objective.model.apply, method="targets")
    there, _ = jax.jit(targets)({"params": params}, video)
    # Of all tokens, not of the hidden ones only.
    np.testing.assert_allclose(figures["local"], cosine_distance(tokens, there).mean(), rtol=1e-5)


def test_the_teacher_gets_no_gradient(step):
    _, _, _, grad = step
    assert not any(x.any() for x in jax.tree.leaves(grad["teacher"]))
    for part in ("encoder", "decoder", "global_decoder", "global_pool"):
        assert any(x.any() for x in jax.tree.leaves(grad[part])), part


def test_orders_are_permutations():
    shape = BATCH["video"].shape
    _, order = make().draw(jax.random.key(0), shape)
    assert order.shape == (3, 32) and len({tuple(row) for row in np.asarray(order)}) == 3
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(32), (3, 1)))
    # Without, every token that is kept is given where it is from.
    keep, order = make(shuffle=False).draw(jax.random.key(0), shape)
    for kept, places in zip(np.asarray(keep), np.asarray(order), strict=True):
        seen = np.concatenate([kept, 16 + kept])  # in both frames
        np.testing.assert_array_equal(places[seen], np.arange(len(seen)))
        assert sorted(places) == list(range(32))
