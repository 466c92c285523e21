"""ViViT against numpy sketches of its factorisations; the goldens are in tests/converters."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidjax import models, pretrained
from vidjax.errors import UserError
from vidjax.models import vivit
from vidjax.models.layers import positions

TINY = dict(width=24, depth=2, num_heads=4, mlp_dim=48, eps=1e-6, patch_size=(2, 8, 8))
KINDS = [
    dict(factorisation="joint"),
    dict(factorisation="encoder", temporal_depth=2),
    dict(factorisation="self_attention", pool="mean"),
    dict(factorisation="dot_product", pool="mean"),
]
IDS = [kind["factorisation"] for kind in KINDS]


def make(head="classify", grid=(3, 2, 2), **fields):
    classes = {"num_classes": 5} if head else {}
    return models.build("vivit", head=head, **TINY | {"pos_grid": grid} | classes | fields)


def random_params(model, seed=0):
    """All random, also what starts constant."""
    rng = np.random.default_rng(seed)
    specs = pretrained.param_specs(model)
    return {path: rng.normal(0, 0.2, x.shape).astype(np.float32) for path, x in specs.items()}


def nest(flat):
    return {"params": traverse_util.unflatten_dict(dict(flat), sep="/")}


def clip(frames=6, size=16, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (2, frames, size, size, 3)).astype("float32")


def relative_error(found, expected):
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        (dict(variant="B", num_classes=400), 88_954_000),
        (dict(variant="B", num_classes=400, factorisation="encoder"), 115_062_928),
        (
            dict(variant="L", num_classes=400, factorisation="encoder", temporal_depth=24),
            606_827_920,
        ),
        (dict(variant="L", num_classes=174, factorisation="encoder"), 354_671_790),
        (
            dict(variant="B", num_classes=400, factorisation="self_attention", pool="mean"),
            117_319_312,
        ),
        (dict(variant="B", num_classes=400, factorisation="dot_product", pool="mean"), 88_952_464),
        # The paper's 86.7 M, and the image model's published 632 M with 1000 classes for ViT-H/14.
        (
            dict(variant="B", num_classes=400, factorisation="encoder", temporal_depth=0),
            86_696_080,
        ),
        (
            dict(variant="H", num_classes=1000, patch_size=(1, 14, 14), pos_grid=(1, 16, 16)),
            632_045_800,
        ),
    ],
)
def test_parameter_counts_of_the_published_sizes(fields, count):
    model = models.build("vivit", head="classify", eps=1e-6, **{"pos_grid": (16, 14, 14)} | fields)
    assert sum(math.prod(x.shape) for x in pretrained.param_specs(model).values()) == count


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_a_card_makes_the_same_model(kind):
    model = make(**kind, groups=(("noun", 3), ("verb", 2)), representation_size=7)
    assert models.build(**models.config_of(model)) == model


def test_the_clip_gives_the_position_grid():
    fields = {k: v for k, v in TINY.items() if k != "pos_grid"}
    model = models.build("vivit", clip=(8, 32, 16), **fields)
    assert model.config["pos_grid"] == (4, 4, 2)
    fields |= {"patch_size": (1, 8, 8), "sampled_frames": 3}
    assert models.build("vivit", clip=(8, 16, 16), **fields).config["pos_grid"] == (3, 2, 2)
    with pytest.raises(UserError, match="pos_grid"):
        models.build("vivit", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(factorisation="both"), "expected 'joint' or 'encoder'"),
        (dict(factorisation="dot_product"), "no class token"),
        (dict(factorisation="dot_product", pool="mean", num_heads=3), "must be even"),
        (dict(pool="gap"), "expected 'token' or 'mean'"),
        (dict(factorisation="self_attention", pool="mean", drop_path=0.1), "no stochastic depth"),
        (dict(patch_size=(8, 8)), "patch_size"),
        (dict(temporal_depth=-1), "temporal_depth is -1, expected an integer from 0"),
        (dict(groups=(("noun", 3), ("verb", 4))), "do not add up to num_classes 5"),
        (dict(factorisation="self_attention", pool="mean", attention_order="ts"), "time_space"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(UserError, match=message):
        make(**fields)


@pytest.mark.parametrize("pool", ["token", "mean", "max", "sum"])
def test_pools(pool):
    features = make(head=None, pool=pool, representation_size=7)
    params = random_params(features)
    tokens = np.asarray(jax.jit(features.apply)(nest(params), clip()))
    assert tokens.shape == (2, 12 + (pool == "token"), 24)
    pooled = {
        "token": tokens[:, 0],
        "mean": tokens.mean(1),
        "max": tokens.max(1),
        "sum": tokens.sum(1),
    }[pool]
    expected = np.tanh(pooled @ params["pre_logits/kernel"] + params["pre_logits/bias"])
    embed = jax.jit(lambda v, x: features.apply(v, x, method="embed"))
    assert relative_error(embed(nest(params), clip()), expected) < 1e-5


def test_half_of_the_heads_attend_over_time():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 1, 6, 4, 5)).astype(np.float32)  # 3 slices of 2 tokens, 4 heads
    out, weights = vivit.attend_time_and_space(q, k, v, slices=3)
    weights = weights()
    assert weights["time"].shape == (1, 2, 2, 3, 3) and weights["space"].shape == (1, 3, 2, 2, 2)
    expected = np.zeros((6, 4, 5))
    for token in range(6):
        same_place, same_time = (
            [token % 2 + 2 * t for t in range(3)],
            [token // 2 * 2, token // 2 * 2 + 1],
        )
        for head in range(4):
            seen = same_place if head < 2 else same_time
            logits = k[0, seen, head] @ q[0, token, head] / math.sqrt(5)
            share = np.exp(logits) / np.exp(logits).sum()
            expected[token, head] = share @ v[0, seen, head]
    assert relative_error(out[0], expected) < 1e-6
    # With one slice, the heads of time see one token each.
    one, _ = vivit.attend_time_and_space(q, k, v, slices=1)
    np.testing.assert_allclose(one[:, :, :2], v[:, :, :2], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_another_clip_gets_resampled_positions(kind):
    """A model whose stored table was resampled by hand agrees with the one that does it itself."""
    small, large = make(**kind), make(**kind, grid=(4, 3, 5))
    params = random_params(small)

    def resized(*kernels):
        out = dict(params)
        for path in [path for path in params if path.endswith("pos_embed")]:
            old, new = small.config["pos_grid"], large.config["pos_grid"]
            if "spatial" in path:
                old, new = (1, *old[1:]), (1, *new[1:])
            if "temporal" in path:
                old, new = (old[0], 1, 1), (new[0], 1, 1)
            table, token = params[path][0], int(small.config["pool"] == "token")
            rows = positions.resample_grid(table[token:], old, new, *kernels)
            out[path] = np.concatenate([table[:token], rows])[None]
        return out

    video = np.random.default_rng(2).uniform(-1, 1, (1, 8, 24, 40, 3)).astype(np.float32)
    apply = jax.jit(large.apply)
    expected = apply(nest(resized()), video)
    found = jax.jit(small.apply)(nest(params), video)
    assert relative_error(found, expected) < 2e-6
    other = apply(nest(resized(("linear_corners",) * 3)), video)
    assert relative_error(other, expected) > 1e-4


def test_uniform_frame_sampling():
    fields = dict(head=None, grid=(3, 2, 2), patch_size=(1, 8, 8), depth=1)
    model, plain = make(**fields, sampled_frames=3), make(**fields)
    params, video = random_params(model), clip(frames=16)
    found = jax.jit(model.apply)(nest(params), video)
    expected = jax.jit(plain.apply)(nest(params), video[:, [4, 8, 12]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # One more than are asked for, as in Scenic.
    for frames, expected in ((5, (6, 2, 2)), (20, (16, 2, 2))):
        fields = {"sampled_frames": frames, "patch_size": (1, 8, 8)}
        assert models.token_grid("vivit", fields, (16, 16, 16)) == expected


def test_sampled_frames_are_scenics():
    for frames in range(1, 66):
        for count in range(1, 70):
            found = vivit.sampled_indices(frames, count)
            # projects/vivit/model.py, temporal_encode
            step = frames / (count + 1) if count < frames else 1
            start = step if count < frames else 0
            scenic = jnp.arange(start, frames, step, dtype=jnp.int32)
            np.testing.assert_array_equal(found, scenic, err_msg=f"{frames} {count}")


def test_masks_are_those_of_the_reference():
    """Slices of a clip share masks, clips do not; kept branches are not scaled; none in eval."""
    kind = dict(factorisation="encoder", temporal_depth=0, depth=3, head=None)
    still = np.repeat(clip(frames=2)[:1], 3, axis=1)[:, [0, 3] * 3]  # three equal tubelets
    still = np.repeat(still, 4, axis=0)
    for rates in (dict(dropout=0.5), dict(drop_path=0.9)):
        model = make(**kind, **rates)
        params = nest(random_params(model))

        apply = jax.jit(model.apply)
        found = np.asarray(apply(params, still, rngs={"dropout": jax.random.key(3)}))
        np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-5)
        assert len({x.tobytes() for x in found[:, 0].round(4)}) > 1
        calm = apply(params, still)
        np.testing.assert_allclose(calm[0], calm[1], rtol=1e-5)


def test_stochastic_depth_does_not_scale():
    block = vivit.Block(4, 48, 1e-6, "gelu_tanh", rescale_drop_path=False)
    one = np.random.default_rng(0).normal(size=(1, 3, 24)).astype(np.float32)
    x = np.repeat(one, 64, axis=0)
    params = jax.jit(block.init)(jax.random.key(0), x)
    apply = jax.jit(lambda rate, key: block.apply(params, x, drop_rate=rate, rngs={"dropout": key}))
    whole = np.asarray(apply(jnp.float32(0.0), jax.random.key(0)))
    half = np.asarray(apply(jnp.float32(0.5), jax.random.key(0)))
    # A quarter of the clips keeps both branches, with their plain values; a quarter keeps none.
    assert sum(np.allclose(half[i], whole[i], rtol=1e-5) for i in range(64)) > 5
    assert sum(np.allclose(half[i], x[i], rtol=1e-5) for i in range(64)) > 5


def test_what_is_recorded():
    shapes = {}
    for kind in KINDS:
        model = make(head=None, **kind)
        params = nest(random_params(model))
        both = functools.partial(model.apply, mutable=["hidden_states", "attention"])
        _, seen = jax.eval_shape(both, params, clip())
        flat = traverse_util.flatten_dict(seen, sep="/")
        shapes[kind["factorisation"]] = {
            path.replace("/encoder/", "/"): x.shape for path, x in flat.items()
        }
    hidden = {
        "hidden_states/embeddings": (2, 12, 24),
        "hidden_states/blocks/output": (2, 2, 12, 24),
    }
    assert shapes["joint"] == {
        "hidden_states/embeddings": (2, 13, 24),
        "hidden_states/blocks/output": (2, 2, 13, 24),
        "attention/blocks/attn/weights": (2, 2, 4, 13, 13),
    }
    assert shapes["encoder"] == {
        "hidden_states/spatial/embeddings": (2, 3, 5, 24),
        "hidden_states/spatial/blocks/output": (2, 2, 3, 5, 24),
        "hidden_states/spatial/output": (2, 3, 5, 24),
        "attention/spatial/blocks/attn/weights": (2, 2, 3, 4, 5, 5),
        "hidden_states/temporal/embeddings": (2, 4, 24),
        "hidden_states/temporal/blocks/output": (2, 2, 4, 24),
        "hidden_states/temporal/output": (2, 4, 24),
        "attention/temporal/blocks/attn/weights": (2, 2, 4, 4, 4),
    }
    assert shapes["self_attention"] == hidden | {
        "attention/blocks/attn_time/weights": (2, 2, 4, 4, 3, 3),
        "attention/blocks/attn_space/weights": (2, 2, 3, 4, 4, 4),
    }
    assert shapes["dot_product"] == hidden | {
        "attention/blocks/attn/weights/time": (2, 2, 4, 2, 3, 3),
        "attention/blocks/attn/weights/space": (2, 2, 3, 2, 4, 4),
    }


def image_model(pool="token"):
    return make(grid=(1, 2, 2), patch_size=(1, 8, 8), pool=pool)


def start(params, source, model, **options):
    """Adapts `params` as `config.init` does, with fresh values where there are none."""
    adapted, notes = models.adapt(params, models.config_of(source), model, **options)
    fresh = random_params(model, seed=9)
    assert adapted.keys() <= fresh.keys()
    assert all(adapted[path].shape == fresh[path].shape for path in adapted if "head" not in path)
    return fresh | adapted, set(fresh) - set(adapted), notes


STILL = np.repeat(clip(frames=1), 6, axis=1)


def test_an_inflated_model_starts_as_the_image_model():
    """On a still clip, wherever attention cannot tell a frame from six equal ones."""
    image = image_model(pool="mean")
    params = random_params(image)
    frame = STILL[:, :1]
    expected = np.asarray(jax.jit(image.apply)(nest(params), frame))
    zero = dict(temporal_attention="zero")
    for kind, options in (
        (dict(factorisation="joint", pool="mean"), {}),
        (dict(factorisation="joint", pool="mean"), dict(inflation="average")),
        (dict(factorisation="self_attention", pool="mean"), zero),
        (dict(factorisation="self_attention", pool="mean", attention_order="space_time"), zero),
    ):
        model = make(**kind)
        started, fresh, _ = start(params, image, model, **options)
        assert all("norm_time" in path for path in fresh)
        assert relative_error(jax.jit(model.apply)(nest(started), STILL), expected) < 5e-6
    model = make(**KINDS[2])
    copied, *_ = start(params, image, model)  # here it can: temporal attention adds something
    assert relative_error(jax.jit(model.apply)(nest(copied), STILL), expected) > 1e-3


def test_the_spatial_encoder_starts_as_the_image_model_with_its_class_token():
    image = image_model()
    params = random_params(image)
    model = make(factorisation="encoder", temporal_depth=0)
    started, fresh, notes = start(params, image, model)
    assert not fresh and "encoder/spatial/cls_token" in started
    assert any("central_frame" in note for note in notes)
    expected = jax.jit(image.apply)(nest(params), STILL[:, :1])
    assert relative_error(jax.jit(model.apply)(nest(started), STILL), np.asarray(expected)) < 5e-6


def test_central_frame_is_the_second_of_two_and_average_all():
    image = image_model()
    params = random_params(image)
    kernel = params["encoder/patch_embed/kernel"][0]
    central, *_ = start(params, image, make())
    average, *_ = start(params, image, make(), inflation="average")
    np.testing.assert_array_equal(
        central["encoder/patch_embed/kernel"], np.stack([0 * kernel, kernel])
    )
    np.testing.assert_array_equal(
        average["encoder/patch_embed/kernel"], np.stack([kernel / 2, kernel / 2])
    )
    # Positions are tiled, time slowest: rows p and p + 4 are equal, the class token's is kept.
    table = central["encoder/pos_embed"][0]
    np.testing.assert_array_equal(table[0], params["encoder/pos_embed"][0, 0])
    np.testing.assert_array_equal(table[1:5], table[5:9])
    assert np.abs(table[1] - table[2]).max() > 0.01


def test_positions_are_resized_as_scenic_does():
    from scipy.ndimage import zoom

    source = make(factorisation="encoder", temporal_depth=2, grid=(3, 4, 4))
    model = make(factorisation="encoder", temporal_depth=2, grid=(5, 6, 6))
    params = random_params(source)
    started, fresh, notes = start(params, source, model)
    assert not fresh and sum("resized" in note for note in notes) == 2
    spatial = params["encoder/spatial/pos_embed"][0, 1:].reshape(4, 4, -1)
    expected = zoom(spatial, (6 / 4, 6 / 4, 1), order=1).reshape(36, -1)
    np.testing.assert_allclose(started["encoder/spatial/pos_embed"][0, 1:], expected, atol=1e-6)
    temporal = params["encoder/temporal/pos_embed"][0]
    expected = zoom(temporal[1:], (5 / 3, 1), order=1)
    np.testing.assert_allclose(started["encoder/temporal/pos_embed"][0, 1:], expected, atol=1e-6)
    np.testing.assert_array_equal(started["encoder/temporal/pos_embed"][0, 0], temporal[0])


def test_what_cannot_start_a_model():
    joint, encoder = make(), make(factorisation="encoder")
    with pytest.raises(UserError, match="only an image ViT"):
        start(random_params(joint), joint, encoder)
    with pytest.raises(UserError, match="did you mean 'inflation'"):
        start(random_params(joint), joint, joint, inflaton="average")
    with pytest.raises(UserError, match="central_frame, average"):
        start(random_params(joint), joint, joint, inflation="all")
    with pytest.raises(UserError, match="init_options for videomae"):
        other = models.build("videomae", "Ti", eps=1e-6)
        models.adapt({}, models.config_of(joint), other, inflation="average")


def test_what_is_left_out_is_said():
    source = make(factorisation="encoder", temporal_depth=3, representation_size=7)
    model = make(factorisation="encoder", temporal_depth=2, pool="mean")
    _, fresh, notes = start(random_params(source), source, model)
    assert {path.split("/")[1] for path in fresh} == {"temporal"}
    for start_of_note in ("pre_logits left out", "encoder/temporal left out: 3 layers there, 2",
                          "encoder/spatial/cls_token left out"):  # fmt: skip
        assert any(note.startswith(start_of_note) for note in notes)


def test_only_the_output_of_temporal_attention_starts_at_zero():
    """With query, key, value and output all 0, no gradient would reach any kernel."""
    image = image_model(pool="mean")
    params, fresh, _ = start(
        random_params(image), image, make(**KINDS[2]), temporal_attention="zero"
    )
    assert fresh == {"encoder/blocks/norm_time/scale", "encoder/blocks/norm_time/bias"}
    assert not params["encoder/blocks/attn_time/out/kernel"].any()
    assert params["encoder/blocks/attn_time/query/kernel"].any()
    model = make(**KINDS[2])
    grads = jax.jit(jax.grad(lambda v: jnp.square(model.apply(v, clip())).mean()))(nest(params))
    out = grads["params"]["encoder"]["blocks"]["attn_time"]["out"]["kernel"]
    assert float(jnp.abs(out).max()) > 0
