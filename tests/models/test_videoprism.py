"""VideoPrism's structure; its numbers are compared with the original's in tests/converters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from vidjax import models
from vidjax.errors import UserError

RNG = np.random.default_rng(0)
SIZES = dict(width=16, depth=2, num_heads=2, mlp_dim=32, temporal_depth=1, patch_size=(1, 4, 4))
NUMERICS = dict(eps=1e-6, scale_offset=1.0)
TEXT = dict(vocab_size=20, text_depth=2)
VIDEO = RNG.random((2, 4, 12, 12, 3)).astype(np.float32)


def build(head=None, **fields):
    grid = {} if head == "text" else {"pos_grid": (4, 3, 3)}
    sizes = {k: v for k, v in SIZES.items() if head != "text" or k in ("width", "num_heads")}
    return models.build("videoprism", head=head, **sizes | NUMERICS | grid | fields)


def random_params(model):
    shapes, treedef = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(
        treedef, [jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32) for x in shapes]
    )


@functools.partial(jax.jit, static_argnums=(0, 1))  # once for all inputs of the same shapes
def apply(model, method, params, args, options):
    return model.apply({"params": params}, *args, method=method, **options)


def run(model, params, *args, method=None, **options):
    return apply(model, method, params, args, options)


@pytest.mark.parametrize(
    ("variant", "grid", "head", "parameters"),
    [
        ("B", (16, 16, 16), None, 114_365_184),
        ("L", (8, 16, 16), None, 353_965_056),
        ("B", (16, 16, 16), "video_text", 247_623_424),
        ("L", (8, 16, 16), "video_text", 579_877_120),
    ],
)
def test_published_sizes(variant, grid, head, parameters):
    text = {"vocab_size": 32_000} if head else {}
    model = models.build("videoprism", variant, head=head, pos_grid=grid, **NUMERICS, **text)
    leaves = jax.tree.leaves(models.abstract_params(model))
    assert sum(np.prod(x.shape) for x in leaves) == parameters


def test_scales_start_where_they_change_nothing():
    for offset, start in ((1.0, 0.0), (0.0, 1.0)):
        model = build(scale_offset=offset)
        params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), VIDEO))["params"]
        scale = params["encoder"]["spatial"]["blocks"]["norm1"]["scale"]
        np.testing.assert_array_equal(scale, np.full((2, 16), start))


def test_kept_patches():
    model = build("video")
    params = random_params(model)
    every = np.tile(np.arange(9), (2, 1))
    some = np.array([[0, 4, 8], [1, 2, 3]])
    whole = run(model, params, VIDEO, method="encode_video")
    found = run(model, params, VIDEO, keep=every, method="encode_video")
    np.testing.assert_allclose(found, whole, atol=1e-5)
    found = run(model, params, VIDEO, keep=some, method="encode_video")
    # What is not kept does not matter; what is kept does, where it is.
    hidden = VIDEO.copy()
    hidden[0, :, :4, 4:] = hidden[1, :, 8:] = 0.0
    np.testing.assert_array_equal(
        run(model, params, hidden, keep=some, method="encode_video"), found
    )
    hidden[0, 2, 5, 5] = 0.0
    changed = run(model, params, hidden, keep=some, method="encode_video")
    assert np.abs(changed - found)[0].max() > 1e-4
    np.testing.assert_array_equal(changed[1], found[1])


def test_padded_frames_are_not_seen():
    model = build()
    params = random_params(model)
    padding = np.array([[False, False, False, True], [False, True, False, False]])
    other = VIDEO.copy()
    other[0, 3] = other[1, 1] = 0.5
    pair = [run(model, params, x, frame_padding=padding) for x in (VIDEO, other)]
    tokens = [np.asarray(x).reshape(2, 4, 9, 16) for x in pair]
    np.testing.assert_array_equal(tokens[0][~padding], tokens[1][~padding])
    assert np.abs(tokens[0] - tokens[1])[padding].max() > 1e-3
    free = np.asarray(run(model, params, other)).reshape(2, 4, 9, 16)
    assert np.abs(free - tokens[1])[~padding].max() > 1e-3


def test_frames_see_each_other_only_along_time():
    model = build()
    params = random_params(model)
    other = VIDEO.copy()
    other[0, 1, :4, :4] = 0.0  # place 0 of frame 1: all of that frame, then all of each place
    change = np.abs(run(model, params, other) - run(model, params, VIDEO)).reshape(2, 4, 9, 16)
    assert change[0].max(-1).min() > 0 and not change[1].any()


def test_features_on_request():
    model = build("video_text", **TEXT)
    params = random_params(model)
    text = jnp.array([[3, 4, 5], [6, 7, 0]])
    _, seen = jax.jit(
        lambda p: model.apply({"params": p}, VIDEO, text, mutable=["hidden_states", "attention"])
    )(params)
    hidden, attention = seen["hidden_states"], seen["attention"]
    spatial, temporal = hidden["encoder"]["spatial"], hidden["encoder"]["temporal"]
    assert spatial["blocks"]["output"].shape == (2, 2, 4, 9, 16)
    assert spatial["output"].shape == spatial["embeddings"].shape == (2, 4, 9, 16)
    assert temporal["blocks"]["output"].shape == (1, 2, 9, 4, 16)
    assert hidden["auxiliary"]["blocks"]["output"].shape == (2, 2, 36, 16)
    assert hidden["text"]["blocks"]["output"].shape == (2, 2, 4, 16)
    assert attention["pool"]["attn"]["weights"].shape == (2, 2, 1, 36)
    assert attention["encoder"]["temporal"]["blocks"]["attn"]["weights"].shape == (1, 2, 9, 2, 4, 4)
    causal = attention["text"]["blocks"]["attn"]["weights"]
    assert not np.triu(causal[0, 0, 0], 1).any()


def test_similarity_and_its_scale():
    model = build("video_text", logit_scale=float(np.log(10)), logit_bias=-2.0, **TEXT)
    params = random_params(model) | {"logit_scale": jnp.log(10.0), "logit_bias": jnp.float32(-2)}
    text, mask = jnp.array([[3, 4], [5, 0], [6, 7]]), jnp.array([[1, 1], [1, 0], [1, 1]], bool)
    videos = run(model, params, VIDEO, method="encode_video")
    texts = run(model, params, text, mask, method="encode_text")
    np.testing.assert_allclose(np.linalg.norm(videos, axis=1), 1, atol=1e-5)
    cosines = np.asarray(videos) @ np.asarray(texts).T
    np.testing.assert_allclose(run(model, params, VIDEO, text, mask), 10 * cosines - 2, atol=1e-4)
    found = run(model, params, VIDEO, text, mask, temperature=0.01)
    np.testing.assert_allclose(found, 100 * cosines, rtol=1e-4, atol=1e-4)


def test_padding_of_texts_does_not_matter():
    model = build("text", **TEXT)
    params = random_params(model)
    short = run(model, params, jnp.array([[3, 4, 5]]))
    padded = run(
        model, params, jnp.array([[3, 4, 5, 9, 9]]), jnp.array([[1, 1, 1, 0, 0]], dtype=bool)
    )
    np.testing.assert_allclose(padded, short, atol=1e-6)
    unmasked = run(model, params, jnp.array([[3, 4, 5, 9, 9]]))
    assert np.abs(unmasked - short).max() > 1e-3


def test_the_giants_texts_are_normalised_after_the_branches_too():
    params = models.abstract_params(build("text", text_norm_out=True, **TEXT))
    assert {"norm1", "norm1_out", "norm2", "norm2_out", "attn", "mlp"} == set(
        params["text"]["blocks"]
    )


def test_other_grids_start_from_resampled_positions():
    source, model = build(), build(pos_grid=(2, 5, 5))
    params = traverse_util.flatten_dict(random_params(source), sep="/")
    found, notes = models.adapt(params, models.config_of(source), model)
    assert notes == ["positions resampled from (4, 3, 3) to (2, 5, 5) tokens"]
    video = RNG.random((1, 2, 20, 20, 3)).astype(np.float32)
    nested = [traverse_util.unflatten_dict(p, sep="/") for p in (params, found)]
    pair = run(source, nested[0], video), run(model, nested[1], video)
    np.testing.assert_allclose(*pair, atol=1e-5)


def test_distiller_starts_from_its_teacher():
    fields = dict(auxiliary_depth=1)
    source = build("video_text", **TEXT, **fields)
    model = build("distil", decoder_width=8, decoder_depth=1, decoder_num_heads=2, **fields)
    params = traverse_util.flatten_dict(random_params(source), sep="/")
    found, _ = models.adapt(params, models.config_of(source), model)
    want = traverse_util.flatten_dict(models.abstract_params(model), sep="/")
    fresh = {path.split("/")[0] for path in want.keys() - found.keys()}
    assert fresh == {"decoder", "global_decoder", "global_pool"}
    assert {path.split("/")[0] for path in found.keys() - want.keys()} == {"text"}
    for path, value in found.items():
        if path.startswith("encoder/"):
            np.testing.assert_array_equal(value, found[f"teacher/{path}"])
    whole = random_params(model) | traverse_util.unflatten_dict(
        {k: v for k, v in found.items() if k in want}, sep="/"
    )
    tokens, vector = run(model, whole, VIDEO, method="targets")
    nested = traverse_util.unflatten_dict(params, sep="/")
    expected = run(source, nested, VIDEO, method="encode_video")
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert tokens.shape == (2, 36, 16)


def test_distiller_hides_and_shuffles():
    model = build("distil", decoder_width=8, decoder_depth=1, decoder_num_heads=2)
    params = random_params(model)
    keep = np.array([[0, 4], [1, 2]])
    order = np.stack([RNG.permutation(36) for _ in range(2)])
    apply = jax.jit(lambda x, order: model.apply({"params": params}, x, keep, order))
    tokens, vector = apply(VIDEO, order)
    assert tokens.shape == (2, 36, 16) and vector.shape == (2, 16)
    hidden = VIDEO.copy()
    hidden[:, :, 8:] = 0.0  # row 2 is kept in neither clip
    for found, expected in zip(apply(hidden, order), (tokens, vector), strict=True):
        np.testing.assert_array_equal(found, expected)
    # The global branch knows neither order nor places.
    other_tokens, other_vector = apply(VIDEO, order[:, ::-1])
    np.testing.assert_array_equal(other_vector, vector)
    assert np.abs(other_tokens - tokens).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(patch_size=(2, 4, 4)), "of one frame"),
        (dict(pos_grid=(0, 3, 3)), "from 1 to"),
        (dict(num_heads=3), "does not divide the width"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(UserError, match=message):
        models.abstract_params(build(**fields))
