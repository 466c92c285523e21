import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from vidjax import models, objectives
from vidjax.errors import UserError
from vidjax.models.layers import patchify
from vidjax.objectives.masked_autoencoding import pixel_targets, unpatchify
from vidjax.preprocessing import Preprocessing

INPUT = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SIZES = dict(width=16, depth=1, num_heads=2, mlp_dim=32, eps=1e-6, patch_size=(2, 4, 4))
DECODER = dict(decoder_width=12, decoder_depth=1, decoder_num_heads=2, decoder_mlp_dim=24)


def batch(size=4):
    rng = np.random.default_rng(0)
    return {
        "video": rng.integers(0, 256, (size, 4, 16, 16, 3), dtype=np.uint8),
        "label": rng.integers(0, 5, size).astype(np.int32),
        "video_id": np.arange(size, dtype=np.int32),
        "weight": np.ones(size, np.float32),
    }


@functools.cache
def started(name, model):
    """Parameters, which the fields of an objective do not change."""
    objective = objectives.build(name, model, INPUT)
    return nn.meta.unbox(jax.jit(objective.init)(jax.random.key(0), batch()))


@functools.partial(jax.jit, static_argnums=0)  # compiled once for all tests
def loss_of(objective, params, data, key):
    return objective.loss(params, data, rng=key)[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def predicted(objective, name, params, data):
    return objective.predict[name](params, data)


def masked(**fields):
    model = models.build("videomae", head="reconstruct", **SIZES, **DECODER)
    objective = objectives.build("masked_autoencoding", model, INPUT, **fields)
    return objective, started("masked_autoencoding", model)


def test_targets_are_normalised_per_patch_and_channel():
    rng = np.random.default_rng(0)
    video = rng.random((1, 2, 4, 8, 3)).astype(np.float32)
    tokens = np.array([[1]])
    found = np.asarray(pixel_targets(video, tokens, (2, 4, 4), norm_pix=True)).reshape(2, 4, 4, 3)
    patch = video[0, :, :, 4:].astype(np.float64)
    mean = patch.mean((0, 1, 2))
    std = patch.std((0, 1, 2), ddof=1) + 1e-6
    np.testing.assert_allclose(found, (patch - mean) / std, atol=2e-6)
    biased = (patch - mean) / patch.std((0, 1, 2))
    assert np.abs(found - biased).max() > 1e-2
    raw = pixel_targets(video, tokens, (2, 4, 4), norm_pix=False)
    np.testing.assert_array_equal(raw[0, 0], video[0, :, :, 4:].ravel())


def test_flat_patches_have_target_zero():
    flat = np.full((1, 2, 4, 4, 3), 0.3, np.float32)
    target = pixel_targets(flat, np.array([[0]]), (2, 4, 4), norm_pix=True)
    assert np.abs(target).max() < 0.1  # rounding over epsilon, not infinity


def test_unpatchify_undoes_patchify():
    video = np.random.default_rng(0).random((2, 4, 8, 12, 3)).astype(np.float32)
    back = unpatchify(patchify(video, (2, 4, 4)), video.shape, (2, 4, 4))
    np.testing.assert_array_equal(back, video)


def test_loss_counts_hidden_patches_and_mean_patch_loss_is_one():
    objective, params = masked(mask_ratio=0.75)
    keep, predict, weight = objective.masks(jax.random.key(1), (4, 4, 16, 16, 3))
    assert keep.shape == (4, 2 * 4) and predict.shape == (4, 2 * 12)
    assert not set(map(int, keep[0])) & set(map(int, predict[0]))
    assert weight.min() == 1
    losses = jax.jit(objective.clip_losses)(params, batch())
    # 32 pixels of a channel in a patch: the unbiased deviation leaves 31 / 32.
    np.testing.assert_allclose(losses["mean_patch_loss"], 31 / 32, rtol=1e-4)
    assert losses["loss"].shape == (4,)


def test_dual_masking_predicts_half_and_counts_what_was_hidden():
    objective, params = masked(mask_ratio=0.75, decoder_mask_ratio=0.5)
    keep, predict, weight = objective.masks(jax.random.key(1), (4, 4, 16, 16, 3))
    assert predict.shape == (4, 16)
    for row in range(4):
        hidden = [token not in set(map(int, keep[row])) for token in map(int, predict[row])]
        np.testing.assert_array_equal(weight[row], hidden)
    loss = loss_of(objective, params, batch(), jax.random.key(0))
    errors = jax.jit(objective.errors, static_argnames="train")
    error, _, weight = errors(params, batch(), jax.random.key(0), train=True)
    assert float(loss) == pytest.approx(float((error * weight).sum() / weight.sum()), rel=1e-5)


def test_masks_change_with_the_key():
    objective, params = masked()
    losses = [float(loss_of(objective, params, batch(), jax.random.key(i))) for i in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_reconstruction_shows_kept_patches_unchanged():
    objective, params = masked(mask_ratio=0.75)
    rows = jax.jit(objective.reconstruct)(params, batch())
    assert [name[2:] for name in rows] == [
        "original",
        "masked",
        "with true statistics",
        "as predicted",
    ]
    keep, _, _ = objective.masks(jax.random.key(0), (4, 4, 16, 16, 3))
    patches = {name: np.asarray(patchify(video, (2, 4, 4))) for name, video in rows.items()}
    for name in rows:
        for row in range(4):
            np.testing.assert_array_equal(
                patches[name][row, keep[row]], patches["1 original"][row, keep[row]]
            )
    assert all(v.min() >= 0 and v.max() <= 1 for v in rows.values())


def classification(**fields):
    model = models.build("videomae", head="classify", num_classes=5, head_scale=1.0, **SIZES)
    objective = objectives.build("classification", model, INPUT, **fields)
    return objective, started("classification", model)


def test_cross_entropy_with_smoothing():
    data = batch()
    objective, params = classification(label_smoothing=0.1)
    loss = loss_of(objective, params, data, jax.random.key(0))
    logits = np.asarray(predicted(objective, "logits", params, data), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full((4, 5), 0.1 / 5) + 0.9 * np.eye(5)[data["label"]]
    assert float(loss) == pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-5)
    clips = predicted(objective, "loss", params, data)["loss"]
    np.testing.assert_allclose(clips, -log_p[np.arange(4), data["label"]], rtol=1e-5)


@pytest.mark.parametrize("field", ["mixup", "cutmix", "erase"])
def test_augmentation_acts_in_training_only(field):
    plain, params = classification()
    augmented, _ = classification(**{field: 1.0})
    data = batch()
    losses = [float(loss_of(o, params, data, jax.random.key(0))) for o in (plain, augmented)]
    assert losses[0] != losses[1]
    logits = [predicted(o, "logits", params, data) for o in (plain, augmented)]
    np.testing.assert_array_equal(*logits)


def test_wrong_fields_are_answered():
    model = models.build("videomae", head="classify", num_classes=5, **SIZES)
    with pytest.raises(UserError, match=r"did you mean .*mixup"):
        objectives.build("classification", model, INPUT, mixupp=0.8)
    with pytest.raises(UserError, match="must be one of"):
        objectives.build("clasification", model, INPUT)


def test_several_answers_count_alike():
    sizes = SIZES | dict(pos_grid=(2, 4, 4), num_classes=5, groups=(("noun", 3), ("verb", 2)))
    model = models.build("vivit", head="classify", **sizes)
    objective = objectives.build("classification", model, INPUT)
    clips = batch() | {"label": np.array([[0, 1], [2, 0], [1, 1], [0, 0]], np.int32)}
    params = nn.meta.unbox(jax.jit(objective.init)(jax.random.key(0), clips))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), (16, 5))
    loss, figures = jax.jit(objective.loss)(params, clips, rng=jax.random.key(0))
    logits = np.asarray(jax.jit(objective.logits)(params, clips), np.float64)
    losses, right = [], []
    for part, label in (
        (logits[:, :3], clips["label"][:, 0]),
        (logits[:, 3:], clips["label"][:, 1]),
    ):
        log_p = part - np.log(np.exp(part).sum(1, keepdims=True))
        losses.append(-np.take_along_axis(log_p, label[:, None], 1).mean())
        right.append(part.argmax(1) == label)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(figures["accuracy"]) == np.mean(right[0] & right[1])
    per_clip = predicted(objective, "loss", params, clips)["loss"]
    assert float(per_clip.mean()) == pytest.approx(np.mean(losses), rel=1e-5)


def test_colours_change_before_normalisation():
    sizes = SIZES | dict(pos_grid=(2, 4, 4), num_classes=5)
    model = models.build("vivit", head="classify", **sizes)
    plain = objectives.build("classification", model, INPUT)
    grey = objectives.build("classification", model, INPUT, grey=1.0)
    clips = batch()
    params = nn.meta.unbox(jax.jit(plain.init)(jax.random.key(0), clips))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), (16, 5))
    luminance = clips["video"] @ np.array([0.2989, 0.587, 0.114])
    by_hand = clips | {"video": np.repeat(luminance[..., None], 3, axis=-1).astype(np.float32)}
    found, expected, coloured = (
        float(loss_of(objective, params, data, jax.random.key(0)))
        for objective, data in ((grey, clips), (plain, by_hand), (plain, clips))
    )
    assert found == pytest.approx(expected, rel=1e-4) != pytest.approx(coloured, rel=1e-4)
