import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from vidjax import masking, models, objectives, sharding
from vidjax.errors import UserError
from vidjax.objectives.contrastive import pairwise_loss
from vidjax.preprocessing import Preprocessing

INPUT = Preprocessing(mean=(0,) * 3, std=(1,) * 3)

RNG = np.random.default_rng(0)


def unit(*shape):
    x = RNG.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cosines(scale, bias):
    return lambda videos, texts: scale * jnp.dot(videos, texts.T) + bias


def reference(video, text, scale, bias, kind):
    logits = scale * video.astype(np.float64) @ text.T + bias
    size = len(logits)
    if kind == "sigmoid":
        signs = 2 * np.eye(size) - 1
        return np.log1p(np.exp(-signs * logits)).sum() / size
    rows = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    columns = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    return (rows.mean() + columns.mean()) / 2


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_loss_and_gradient_do_not_depend_on_parts_or_devices(kind):
    video, text = unit(16, 8), unit(16, 8)
    expected = reference(video, text, 5.0, -1.0, kind)

    def loss(video, text, parts):
        return pairwise_loss(cosines(5.0, -1.0), video, text, kind=kind, parts=parts)[0]

    grad = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)
    plain = grad(video, text, 1)
    np.testing.assert_allclose(plain[0], expected, rtol=1e-6)
    mesh = sharding.make_mesh(ConfigDict({"data": 4, "fsdp": 2, "tensor": 1}))
    for parts in (1, 2):
        with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
            put = [jax.device_put(x, NamedSharding(mesh, sharding.BATCH)) for x in (video, text)]
            found = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)(*put, parts)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), found, plain)


def test_share_of_texts_found():
    text = unit(8, 16)
    video = text.copy()
    video[[0, 1]] = video[[1, 0]]
    found = pairwise_loss(cosines(10.0, 0.0), video, text, kind="softmax", parts=2)[1]
    np.testing.assert_allclose(found, 6 / 8)
    same = np.tile(text[:1], (8, 1))  # ties are no finds
    assert pairwise_loss(cosines(10.0, 0.0), same, same, kind="softmax", parts=2)[1] == 0


def test_no_device_holds_all_logits():
    batch, width = 2048, 16
    mesh = sharding.make_mesh(ConfigDict({"data": 8, "fsdp": 1, "tensor": 1}))

    def peak(parts):
        def loss(video, text):
            return pairwise_loss(cosines(5.0, 0.0), video, text, kind="softmax", parts=parts)[0]

        with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
            sharded = NamedSharding(mesh, sharding.BATCH)
            x = jax.ShapeDtypeStruct((batch, width), jnp.float32, sharding=sharded)
            compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = 4 * batch**2
    assert peak(1) < whole  # some arrays of an eighth each
    assert peak(8) < whole / 8


@pytest.fixture(scope="module")
def task():
    fields = dict(
        width=16, depth=1, num_heads=2, mlp_dim=32, temporal_depth=1, patch_size=(1, 4, 4),
        pos_grid=(2, 4, 4), eps=1e-6, scale_offset=1.0, vocab_size=20, text_depth=1,
        auxiliary_depth=0,
    )  # fmt: skip
    batch = {
        "video": RNG.integers(0, 256, (4, 2, 16, 16, 3)).astype(np.uint8),
        "text": RNG.integers(0, 20, (4, 5)).astype(np.int32),
        "text_mask": np.ones((4, 5), bool),
    }
    return lambda **more: models.build("videoprism", head="video_text", **fields | more), batch


@pytest.fixture(scope="module")
def params(task):
    """Parameters of a model without a learned scale."""
    build, batch = task
    objective = objectives.build("contrastive", build(), INPUT)
    return nn.meta.unbox(jax.jit(objective.init)(jax.random.key(0), batch))


def test_the_models_scale_is_used_and_learned(task, params):
    build, batch = task
    fixed = objectives.build("contrastive", build(), INPUT, temperature=0.5)
    learned = objectives.build("contrastive", build(logit_scale=0.0), INPUT)
    loss = jax.jit(lambda p: fixed.loss(p, batch, rng=jax.random.key(1)))

    def scaled(logit_scale, params):
        whole = params | {"logit_scale": logit_scale}
        return learned.loss(whole, batch, rng=jax.random.key(1))[0]

    same, gradient = jax.jit(jax.value_and_grad(scaled))(jnp.log(2.0), params)
    np.testing.assert_allclose(same, loss(params)[0], rtol=1e-6)
    assert float(gradient) != 0
    vectors = jax.jit(fixed.predict["video_embedding"])(params, batch)
    texts = jax.jit(fixed.predict["text_embedding"])(params, batch)
    found = jax.jit(fixed.predict["similarity"])(params, batch, texts)
    np.testing.assert_allclose(found, 2 * np.asarray(vectors) @ np.asarray(texts).T, atol=1e-5)


def test_dropped_tokens(task, params):
    build, batch = task
    objective = objectives.build("contrastive", build(), INPUT, drop_tokens=0.5)
    key = jax.random.key(1)
    keep, _ = masking.tube_mask(key, 4, (1, 4, 4), 0.5)
    assert keep.shape == (4, 8)

    def embed(params, keep):
        video = jnp.asarray(batch["video"], jnp.float32) / 255
        apply = functools.partial(objective.model.apply, {"params": params})
        text = apply(batch["text"], batch["text_mask"], method="encode_text")
        return apply(video, keep=keep, method="encode_video"), text

    videos, texts = jax.jit(embed)(params, keep)
    scaled = cosines(1 / objective.temperature, 0.0)
    expected = pairwise_loss(scaled, videos, texts, kind="softmax", parts=1)[0]
    found = jax.jit(lambda p: objective.loss(p, batch, rng=key)[0])(params)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    every = np.tile(np.arange(16), (4, 1))  # evaluation sees all
    whole = jax.jit(objective.predict["video_embedding"])(params, batch)
    np.testing.assert_allclose(whole, jax.jit(embed)(params, every)[0], atol=1e-5)
    assert np.abs(whole - videos).max() > 1e-4


def test_wrong_choices(task):
    build, _ = task
    with pytest.raises(UserError, match="softmax, sigmoid, not 'triplet'"):
        objectives.build("contrastive", build(), INPUT, loss_kind="triplet")
    with pytest.raises(UserError, match="parts = 3 must divide"):
        pairwise_loss(cosines(1.0, 0.0), unit(4, 2), unit(4, 2), kind="softmax", parts=3)
