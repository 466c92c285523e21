import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vidjax import models
from vidjax.errors import UserError

TINY = dict(width=16, depth=2, num_heads=2, mlp_dim=32, eps=1e-6, patch_size=(2, 4, 4))
DECODER = dict(decoder_width=12, decoder_depth=1, decoder_num_heads=2, decoder_mlp_dim=24)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "mutable"))
def apply(model, variables, *args, **options):
    """Compiled as one program, which is much faster than op by op."""
    return model.apply(variables, *args, **options)


@functools.cache
def tiny(head, **fields):
    model = models.build("videomae", head=head, **TINY | fields)
    inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model.example_inputs())
    return model, nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), **inputs))


# Encoder with its norm, pre-training model, classifier of 400 classes: the published counts, and
# for VideoMAE V2's giant what its sizes give.
COUNTS = {
    "S": (21_879_936, 24_029_376, 22_033_936),
    "B": (86_227_200, 94_210_944, 86_534_800),
    "L": (303_860_736, 342_996_992, 304_270_736),
    "H": (631_607_040, 692_487_296, 632_119_440),
    "g": (1_011_610_752, 1_026_306_560, 1_012_174_352),
}


@pytest.mark.parametrize("variant", COUNTS)
def test_parameter_counts(variant):
    built = [
        models.build("videomae", variant, eps=1e-6),
        models.build("videomae", variant, head="reconstruct", eps=1e-6),
        models.build("videomae", variant, head="classify", eps=1e-6, num_classes=400),
    ]
    leaves = [jax.tree.leaves(models.abstract_params(model)) for model in built]
    assert tuple(sum(math.prod(x.shape) for x in part) for part in leaves) == COUNTS[variant]


def test_small_has_six_heads():
    assert models.build("videomae", "S", eps=1e-6).config["num_heads"] == 6


@pytest.mark.parametrize(
    ("head", "fields"),
    [(None, {}), ("classify", {"num_classes": 3}), ("reconstruct", DECODER)],
)
def test_config_of_is_json_and_builds_the_same_model(head, fields):
    model = models.build("videomae", head=head, **TINY, **fields)
    assert models.build(**json.loads(json.dumps(models.config_of(model)))) == model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="videomea", variant="B", eps=1e-6), "did you mean 'videomae'"),
        (dict(name="videomae", variant="XL", eps=1e-6), "there are"),
        (dict(name="videomae", variant="B", eps=1e-6, head="clasify"), "did you mean 'classify'"),
        (dict(name="videomae", variant="B", epss=1e-6), "did you mean 'eps'"),
        (dict(name="videomae", variant="B"), "needs eps"),
    ],
)
def test_wrong_names_are_answered(arguments, message):
    with pytest.raises(UserError, match=message):
        models.build(**arguments)


def test_reconstructor_sees_only_kept_tokens():
    model, variables = tiny("reconstruct", **DECODER)
    rng = np.random.default_rng(0)
    video = rng.normal(size=(1, 4, 8, 8, 3)).astype(np.float32)  # 2 x 2 x 2 tokens
    keep, predict = np.array([[0, 3, 6]]), np.array([[1, 2, 4, 5, 7]])
    pixels = apply(model, variables, video, keep, predict)
    assert pixels.shape == (1, 5, 2 * 4 * 4 * 3)
    other = video.copy()
    other[:, :2, :4, 4:] += 1.0  # token 1, which is hidden
    np.testing.assert_array_equal(apply(model, variables, other, keep, predict), pixels)
    other = video.copy()
    other[:, :2, :4, :4] += 1.0  # token 0, which is kept
    assert np.abs(apply(model, variables, other, keep, predict) - pixels).max() > 1e-4


def test_kept_tokens_keep_their_positions():
    model, variables = tiny(None)
    video = np.random.default_rng(0).normal(size=(1, 4, 8, 8, 3)).astype(np.float32)
    keep = np.array([[6, 1]])
    _, whole = apply(model, variables, video, mutable=("hidden_states",))
    _, part = apply(model, variables, video, keep=jnp.asarray(keep), mutable=("hidden_states",))
    embeddings = [x["hidden_states"]["encoder"]["embeddings"] for x in (whole, part)]
    np.testing.assert_allclose(embeddings[1][0], embeddings[0][0, keep[0]], atol=1e-6)


def test_mean_pooling_ignores_token_order_and_first_does_not():
    video = np.random.default_rng(0).normal(size=(1, 2, 8, 8, 3)).astype(np.float32)
    _, mean_variables = tiny("classify", num_classes=3, head_scale=1.0)
    assert "norm" not in mean_variables["params"]["encoder"]
    first, first_variables = tiny("classify", num_classes=3, head_scale=1.0, pool="first")
    assert "fc_norm" not in first_variables["params"]
    tokens, _ = tiny(None)
    encoded = apply(tokens, {"params": {"encoder": first_variables["params"]["encoder"]}}, video)
    features = apply(first, first_variables, video, method="embed")
    np.testing.assert_allclose(features, encoded[:, 0], atol=1e-6)


def test_other_clip_sizes_work_and_rests_are_cut_off():
    model, variables = tiny("classify", num_classes=3)
    for shape in ((1, 2, 4, 4, 3), (1, 8, 12, 16, 3)):
        assert apply(model, variables, jnp.zeros(shape)).shape == (1, 3)
    video = np.random.default_rng(0).normal(size=(1, 3, 9, 11, 3)).astype(np.float32)
    cut = apply(model, variables, video[:, :2, :8, :8])
    np.testing.assert_array_equal(apply(model, variables, video), cut)
    for shape in ((1, 1, 8, 8, 3), (1, 2, 3, 8, 3)):
        with pytest.raises(UserError, match="is smaller than a patch of 2x4x4; choose a larger"):
            apply(model, variables, jnp.zeros(shape))


def test_v2_resamples_the_table_of_its_own_grid():
    model, variables = tiny(None, pos_grid=(1, 2, 2))
    plain, _ = tiny(None)
    small, large = jnp.ones((1, 2, 8, 8, 3)), jnp.ones((1, 2, 16, 16, 3))
    same = [apply(m, variables, small) for m in (model, plain)]
    np.testing.assert_array_equal(*same)
    assert np.abs(apply(model, variables, large) - apply(plain, variables, large)).max() > 1e-2


def test_bfloat16_compute_is_near_float32():
    video = np.random.default_rng(0).normal(size=(1, 4, 8, 8, 3)).astype(np.float32)
    model, variables = tiny(None)
    half, _ = tiny(None, dtype="bfloat16")
    exact, rounded = apply(model, variables, video), apply(half, variables, video)
    assert rounded.dtype == jnp.bfloat16
    assert 1e-4 < np.abs(exact - rounded.astype(jnp.float32)).max() < 0.1
