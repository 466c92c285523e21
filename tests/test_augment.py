"""Device augmentation: exact values where there is no chance, statistics where there is."""

import colorsys
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vidjax import augment, masking
from vidjax.preprocessing import Preprocessing

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "preprocess_vivit" / "golden.npz"


def clips(batch=4, frames=2, side=16):
    """Normalised clips, each of one constant that names it."""
    video = jnp.arange(1, batch + 1, dtype=jnp.float32)[:, None, None, None, None]
    return jnp.broadcast_to(video, (batch, frames, side, side, 3))


# --- colours ------------------------------------------------------------------------------------


@jax.jit
def adjust(video, brightness=0.0, saturation=1.0, contrast=1.0, hue=0.0):
    numbers = dict(brightness=brightness, saturation=saturation, contrast=contrast, hue=hue)
    return augment.adjust_color(
        video, **{key: jnp.broadcast_to(value, len(video)) for key, value in numbers.items()}
    )


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("brightness_saturation", dict(brightness=-32 / 255, saturation=1.4)),
        ("saturation0.6", dict(saturation=0.6)),
        ("contrast1.4", dict(contrast=1.4)),
        ("hue0.2", dict(hue=0.2)),
        ("hue-0.13", dict(hue=-0.13)),
        ("all", dict(brightness=-0.12, saturation=1.35, contrast=1.4, hue=-0.17)),
    ],
)
def test_colours_are_tensorflows(name, numbers):
    golden = np.load(GOLDEN)
    video = golden["clip"][None] / np.float32(255)
    want = np.clip(golden[f"color/{name}"], 0, 1)
    np.testing.assert_allclose(adjust(video, **numbers)[0], want, atol=1e-6)


def test_saturation_and_hue_are_hsvs():
    video = np.random.default_rng(0).random((1, 2, 5, 5, 3), np.float32)
    video[0, 0, 0, 0] = 0.4  # grey has no hue
    video[0, 0, 0, 1] = 0.0
    found = np.asarray(adjust(video, saturation=1.3, hue=0.15)).reshape(-1, 3)
    for pixel, got in zip(video.reshape(-1, 3).tolist(), found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        want = colorsys.hsv_to_rgb((hue + 0.15) % 1, min(saturation * 1.3, 1), value)
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_contrast_is_about_the_mean_of_each_frame_and_channel():
    rng = np.random.default_rng(0)
    video = (rng.random((2, 3, 6, 7, 3)) * 0.4 + 0.3).astype(np.float32)
    mean = video.mean((2, 3), keepdims=True)
    factor = np.array([0.7, 1.4], np.float32)
    want = (video - mean) * factor[:, None, None, None, None] + mean
    np.testing.assert_allclose(adjust(video, contrast=factor), want, atol=1e-6)


jitter = jax.jit(augment.color_jitter)


def test_color_jitter_composes_with_normalise_and_may_do_nothing():
    video = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 4, 3), dtype=np.uint8)
    same = jitter(jax.random.key(0), video, 0.0, 0.0)
    assert same.dtype == jnp.float32
    np.testing.assert_allclose(same, video, atol=1e-4)
    grey = jitter(jax.random.key(0), video, 0.0, 1.0)
    luminance = video @ np.array([0.2989, 0.587, 0.114])
    np.testing.assert_allclose(grey, np.repeat(luminance[..., None], 3, -1), atol=1e-3)
    changed = jitter(jax.random.key(0), video.astype(np.float32), 1.0, 0.0)
    assert np.abs(changed - video).mean() > 5
    assert changed.min() >= 0 and changed.max() <= 255
    np.testing.assert_allclose(
        Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3).normalise(grey)[..., 0],
        luminance / 127.5 - 1,
        atol=1e-5,
    )


def test_color_jitter_has_its_probabilities_and_one_draw_a_clip():
    pixels = np.array([[[200, 120, 90], [120, 60, 80]]], np.uint8)
    video = np.broadcast_to(pixels, (4000, 2, 1, 2, 3))
    out = np.asarray(jitter(jax.random.key(0), video))
    np.testing.assert_allclose(out[:, 0], out[:, 1], atol=1e-4)  # all frames alike
    grey = np.ptp(out, axis=-1).max((1, 2, 3)) < 1e-3
    changed = np.abs(out - video).max((1, 2, 3, 4)) > 1e-3
    assert abs(grey.mean() - 0.1) < 0.02
    assert abs(changed[~grey].mean() - 0.8) < 0.02
    assert len(np.unique(out[changed & ~grey][:, 0, 0, 0, 0].round(3))) > 2000  # each its own
    luminance = video[0] @ np.array([0.2989, 0.587, 0.114])
    before = np.abs(out[grey][..., 0] - luminance).max((1, 2, 3)) > 1e-2
    assert abs(before.mean() - 0.8) < 0.06  # grey does not depend on the change before it


def test_color_jitter_covers_its_ranges_independently():
    # Of two reds, 10 levels apart, the four numbers can be read off again.
    reds = np.array([[[160, 110, 110], [170, 120, 120]]], np.uint8)
    video = np.broadcast_to(reds, (4000, 1, 1, 2, 3))
    out = np.asarray(jitter(jax.random.key(0), video, 1.0, 0.0))[:, 0, 0]  # [B, 2, 3]
    high, low = out.max(-1), out.min(-1)
    hues = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in out[:, 0].tolist()]
    numbers = {
        "brightness": (high.mean(1) - 165, 32),
        "saturation": ((high - low)[:, 0] / 50 - 1, 0.4),
        "contrast": ((high[:, 1] - high[:, 0]) / 10 - 1, 0.4),
        "hue": ((np.array(hues) + 0.5) % 1 - 0.5, 0.2),
    }
    for name, (drawn, limit) in numbers.items():
        assert limit * 0.99 < drawn.max() < limit * 1.001, name
        assert -limit * 1.001 < drawn.min() < -limit * 0.99, name
        assert abs(drawn.std() / limit - 3**-0.5) < 0.02, name  # uniform
    correlation = np.corrcoef([drawn for drawn, _ in numbers.values()])
    assert np.abs(correlation - np.eye(4)).max() < 0.06


ORDERS = np.array(list(itertools.permutations(range(4))))
adjust_frames = jax.jit(augment.adjust_frames)


def pillow_op(image, operation, amount):
    """Calls Pillow as torchvision does for a PIL image."""
    if operation < 3:
        name = ("Brightness", "Contrast", "Color")[operation]
        return getattr(ImageEnhance, name)(image).enhance(amount)
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.array(hue).astype(int) + int(amount * 255)) % 256
    turned = Image.fromarray(turned.astype(np.uint8))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def test_frames_change_as_pillow_changes_them_in_their_own_order():
    """4 clips of 6 frames with an order each. Pillow cuts fractions off, and counts 256 hues."""
    coarse = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((20, 15))
    amounts = np.float32([1.4, 0.6, 1.2, -0.1])
    video = np.broadcast_to(np.asarray(image), (4, 6, 15, 20, 3)) / np.float32(255)
    found = adjust_frames(video, ORDERS.reshape(4, 6, 4), np.broadcast_to(amounts, (4, 6, 4)))
    found = np.asarray(found * 255).reshape(24, 15, 20, 3)
    want = np.stack([np.asarray(image)] * 24)
    for frame, order in zip(want, ORDERS, strict=True):
        changed = image
        for operation in order:
            changed = pillow_op(changed, operation, float(amounts[operation]))
        frame[:] = changed
    error = np.abs(found[:, None] - want).mean((2, 3, 4))  # [ours, Pillow's]
    assert np.diag(error).max() < 1.6
    # Brightness and contrast, or either and hue, are not the same the other way round.
    assert (error < 1.6).sum(1).max() < 8 and np.median(error) > 3


@pytest.mark.parametrize("operation", range(4))
def test_each_operation_is_pillows(operation):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 15, 20, 3), dtype=np.uint8)
    frames[:, 0, :5] = 77  # grey has no hue
    values = np.float32([[0.07, -0.1]] if operation == 3 else [[1.37, 0.63]])
    amounts = np.tile(np.float32([1, 1, 1, 0]), (1, 2, 1))
    amounts[..., operation] = values
    order = np.tile(ORDERS[17], (1, 2, 1))
    found = adjust_frames(frames[None] / np.float32(255), order, amounts)[0] * 255
    for frame, value, ours in zip(frames, values[0].tolist(), np.asarray(found), strict=True):
        want = np.asarray(pillow_op(Image.fromarray(frame), operation, value))
        if operation < 3:
            assert (ours - want).min() > -0.51 and (ours - want).max() < 1.51
        else:  # two of Pillow's hues are up to 6 levels apart
            assert np.abs(ours - want).max() < 13 and np.abs(ours - want).mean() < 2
            pixels = (np.concatenate([frame, ours], -1)[:2] / 255).reshape(-1, 6)
            for *old, red, green, blue in pixels.tolist():
                hue, saturation, level = colorsys.rgb_to_hsv(*old)
                exact = colorsys.hsv_to_rgb((hue + value) % 1, saturation, level)
                np.testing.assert_allclose((red, green, blue), exact, atol=2e-6)
        assert np.abs(want.astype(int) - frame).mean() > 5


jitter_frames = jax.jit(augment.frame_jitter)


def test_frame_jitter_has_its_probabilities_and_draws_for_each_frame():
    pixels = np.array([[[200, 120, 90], [120, 60, 80]]], np.uint8)
    video = np.broadcast_to(pixels, (4000, 2, 1, 2, 3))
    out = np.asarray(jitter_frames(jax.random.key(0), video, 0.8, 0.2))
    assert out.dtype == np.float32 and out.min() >= 0 and out.max() <= 255
    grey = np.ptp(out, axis=-1).max((2, 3)) < 1e-3  # [B, T]
    changed = np.abs(out - video).max((2, 3, 4)) > 1e-3
    assert (grey[:, 0] == grey[:, 1]).all()  # of a clip, not of a frame
    assert abs(grey.mean() - 0.2) < 0.02
    changed = changed[~grey[:, 0]]
    assert (changed[:, 0] == changed[:, 1]).all()
    assert abs(changed.mean() - 0.8) < 0.02
    still = np.abs(out[:, 0] - out[:, 1]).max((1, 2, 3)) < 1e-3
    assert abs(still.mean() - 0.2) < 0.02  # the clips that stay as they are, and no others
    luma = pixels[0] @ np.array([0.299, 0.587, 0.114])
    before = np.abs(out[grey[:, 0]][:, 0, 0, :, 0] - luma).max(1) > 1e-2
    assert abs(before.mean() - 0.8) < 0.06  # grey does not depend on the change before it
    same = jitter_frames(jax.random.key(0), video, 0.0, 0.0)
    np.testing.assert_allclose(same, video, atol=1e-4)


def test_frame_jitter_covers_its_ranges_and_orders(monkeypatch):
    def drawn(key):
        taken = []
        monkeypatch.setattr(
            augment, "adjust_frames", lambda video, *numbers: (taken.extend(numbers), video)[1]
        )
        augment.frame_jitter(key, jnp.zeros((1000, 6, 1, 1, 3)))
        return taken

    order, amounts = map(np.asarray, jax.jit(drawn)(jax.random.key(0)))
    orders, counts = np.unique(order.reshape(-1, 4), axis=0, return_counts=True)
    assert np.array_equal(orders, ORDERS) and np.abs(counts - 250).max() < 70
    assert (order[:, 0] != order[:, 1]).any(-1).mean() > 0.9
    drawn = amounts.reshape(-1, 4) - [1, 1, 1, 0]
    limits = np.array([0.4, 0.4, 0.2, 0.1])
    assert (np.abs(drawn) <= limits + 1e-6).all()
    assert (drawn.max(0) > 0.99 * limits).all() and (drawn.min(0) < -0.99 * limits).all()
    assert np.abs(drawn.std(0) / limits - 3**-0.5).max() < 0.02  # uniform
    frames = np.concatenate([amounts[:, 0], amounts[:, 1], order[:, 0, :1]], 1)
    assert np.abs(np.corrcoef(frames.T) - np.eye(9)).max() < 0.13


# --- random erasing -----------------------------------------------------------------------------

ERASED = jnp.full((400, 2, 30, 40, 3), 9.0)
erase = jax.jit(augment.random_erasing)  # compiled once for both tests


def test_erasing_draws_one_box_a_clip_and_noise_for_each_pixel_of_each_frame():
    out = np.asarray(erase(jax.random.key(0), ERASED, 1.0))
    erased = (out != 9).all(-1)  # [B, T, H, W]
    assert (erased == (out != 9).any(-1)).all()  # all channels
    assert (erased == erased[:, :1]).all()  # the same box in all frames
    areas = erased[:, 0].mean((1, 2))
    assert 0.01 < areas.min() < 0.05 and 0.28 < areas.max() < 0.36
    for mask in erased[:, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert (mask == rows[:, None] & columns).all()  # a box
        ratio = rows.sum() / columns.sum()
        assert 0.2 < ratio < 5
    ratios = erased[:, 0].any(2).sum(1) / erased[:, 0].any(1).sum(1)
    assert (ratios > 1.8).mean() > 0.15 and (ratios < 1 / 1.8).mean() > 0.15
    reached = erased[:, 0].any(0)
    assert reached.any(1).all() and reached.any(0).all()  # boxes reach every side
    noise = out[erased]
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    first, second = (out[:, t][erased[:, t]].ravel() for t in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02  # fresh in each frame


def test_erasing_has_its_probability():
    for probability in (0.0, 0.25):
        out = erase(jax.random.key(1), ERASED, probability)
        assert abs((out != 9).any((1, 2, 3, 4)).mean() - probability) < 0.06


# --- mixup and cutmix ---------------------------------------------------------------------------


mix = jax.jit(augment.mix, static_argnames=("mixup", "cutmix", "switch"))


def test_soft_targets_smooth_within_each_group():
    targets = augment.soft_targets(jnp.arange(4), (10,), 0.1)
    assert targets.shape == (4, 10)
    np.testing.assert_allclose(np.diag(targets), 0.91, rtol=1e-6)  # 1 - s + s / C
    np.testing.assert_allclose(targets[0, 1:], 0.01, rtol=1e-5)  # s / C
    label = jnp.array([[2, 0], [299, 96]], jnp.int32)
    pairs = augment.soft_targets(label, (300, 97), 0.2)
    assert pairs.shape == (2, 397) and pairs.dtype == jnp.float32
    nouns, verbs = pairs[:, :300], pairs[:, 300:]
    for row, (noun, verb) in enumerate(label.tolist()):
        assert nouns[row, noun] == pytest.approx(0.8 + 0.2 / 300, abs=1e-6)
        assert verbs[row, verb] == pytest.approx(0.8 + 0.2 / 97, abs=1e-6)
    np.testing.assert_allclose(nouns.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(verbs.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.sort(nouns)[:, :-1], 0.2 / 300, rtol=1e-5)
    np.testing.assert_allclose(np.sort(verbs)[:, :-1], 0.2 / 97, rtol=1e-5)
    assert np.array_equal(augment.soft_targets(jnp.array([1, 0]), (2,)), [[0, 1], [1, 0]])


def test_mix_of_nothing_changes_nothing():
    targets = jnp.eye(4)
    video, same = augment.mix(jax.random.key(0), clips(), targets, mixup=0.0, cutmix=0.0)
    assert np.array_equal(video, clips()) and np.array_equal(same, targets)


def test_mixup_blends_with_the_reversed_batch_and_targets_follow():
    for seed in range(5):
        video, targets = mix(jax.random.key(seed), clips(), jnp.eye(4), cutmix=0.0)
        weight = float(targets[0, 0])
        assert 0 < weight < 1
        partner = np.array([4, 3, 2, 1])
        want = np.arange(1, 5) * weight + partner * (1 - weight)
        values = np.asarray(video).reshape(4, -1)
        np.testing.assert_allclose(values, np.repeat(want[:, None], values.shape[1], 1), rtol=1e-5)
        np.testing.assert_allclose(targets, np.eye(4) * weight + np.eye(4)[::-1] * (1 - weight))


def test_cutmix_pastes_one_box_and_weights_by_its_area():
    shares = []
    smooth = augment.soft_targets(jnp.arange(4), (4,), 0.2)
    for seed in range(60):
        video, targets = mix(jax.random.key(seed), clips(side=32), smooth, mixup=0.0)
        video = np.asarray(video)
        own = np.arange(1, 5)[:, None, None, None, None]
        pasted = video != own
        assert (video == np.where(pasted, 5 - own, own)).all()  # of the reversed batch, unblended
        box = pasted[0, 0, :, :, 0]
        assert (pasted == box[:, :, None]).all()  # the same in all clips, frames and channels
        assert (box == box.any(1)[:, None] & box.any(0)).all()
        on, off = 1 - 0.2 + 0.05, 0.05
        weight = (float(targets[0, 0]) - off) / (on - off)
        assert weight == pytest.approx(1 - box.mean(), abs=1e-6)  # the area really pasted
        shares.append(box.mean())
    assert min(shares) < 0.1 and max(shares) > 0.6


def test_mix_draws_as_told():
    def draw(key, probability):
        video, targets = augment.mix(key, clips(2, 1, 8), jnp.eye(2), probability=probability)
        return targets[0, 0], ((video[0] != 1) & (video[0] != 2)).any(), targets.sum(1)

    draw = jax.jit(jax.vmap(draw, in_axes=(0, None)))
    keys = jax.random.split(jax.random.key(0), 4000)
    weight, blended, total = draw(keys, 1.0)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    assert abs(float(blended.mean()) - 0.5) < 0.03  # switch
    mixup = np.asarray(weight[blended])
    assert abs(mixup.mean() - 0.5) < 0.03
    assert mixup.var() == pytest.approx(1 / 10.4, abs=0.005)  # Beta(.8, .8); Beta(1, 1): 1 / 12
    whole = (draw(keys, 0.25)[0] == 1.0).mean()
    assert 0.73 < float(whole) < 0.85  # 3/4, and cutmix boxes of less than two pixels


def test_groups_are_mixed_on_their_own():
    video, _ = mix(jax.random.key(0), clips(8), jnp.eye(8), cutmix=0.0)
    options = dict(cutmix=0.0, group=4)
    grouped, targets = augment.mix(jax.random.key(0), clips(8), jnp.eye(8), **options)
    for start, key in ((0, 0), (4, 1)):
        rows = slice(start, start + 4)
        rng = jax.random.split(jax.random.key(0), 2)[key]
        alone = augment.mix(rng, clips(8)[rows], jnp.eye(8)[rows], cutmix=0.0)
        np.testing.assert_allclose(grouped[rows], alone[0], rtol=1e-6)
        np.testing.assert_allclose(targets[rows], alone[1], rtol=1e-6)
    assert not np.allclose(grouped, video)
    for group in (0, 8):  # one group is the whole batch
        whole, _ = augment.mix(jax.random.key(0), clips(8), jnp.eye(8), cutmix=0.0, group=group)
        np.testing.assert_array_equal(whole, video)
    same, targets = augment.mix(jax.random.key(0), clips(), jnp.eye(4), group=1)
    assert np.array_equal(same, clips()) and np.array_equal(targets, np.eye(4))


def test_pixels_are_mixed_with_those_of_the_targets_partner():
    options = dict(cutmix=0.0, group=4, partners="permuted")
    video, targets = augment.mix(jax.random.key(1), clips(8), jnp.eye(8), **options)
    np.testing.assert_allclose(video[:, 0, 0, 0, 0], targets @ jnp.arange(1.0, 9.0), rtol=1e-5)


def original_weights(count, group, permute, side=32):
    """Weights of the clips themselves, [count, group], as timm's and X-CLIP's code draws them."""
    rng = np.random.default_rng(1)
    weights = np.ones((count, group))
    for row in weights:
        if rng.random() >= 0.5:
            weight = rng.beta(0.8, 0.8)
        else:
            cut = int(side * np.sqrt(1 - rng.beta(1.0, 1.0)))
            y, x = rng.integers(side, size=2)
            box = np.array([y - cut // 2, y + cut // 2, x - cut // 2, x + cut // 2])
            top, bottom, left, right = box.clip(0, side)
            weight = 1 - (bottom - top) * (right - left) / side**2
        order = rng.permutation(group) if permute else np.arange(group)[::-1]
        row[order != np.arange(group)] = weight
    return weights


@pytest.mark.parametrize(
    ("partners", "group", "alone"),
    [("reversed", 4, 0.0), ("reversed", 12, 0.0), ("permuted", 8, 1 / 8), ("permuted", 4, 1 / 4)],
)
def test_groups_have_the_originals_statistics(partners, group, alone):
    count, side = 4000, 32
    video = jnp.zeros((count * group, 1, side, side, 3))
    make = jax.jit(augment.mix, static_argnames=("group", "partners", "cutmix"))

    def mixed(**options):
        classes = jnp.tile(jnp.eye(group), (count, 1))
        options |= dict(group=group, partners=partners)
        targets = make(jax.random.key(0), video, classes, **options)[1]
        targets = np.asarray(targets).reshape(count, group, group)
        np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-5)
        return targets, np.diagonal(targets, axis1=1, axis2=2)

    # The weights of mixup are never 1: what stays whole is its own partner.
    targets, own = mixed(cutmix=0.0)
    assert (own > 1 - 1e-6).mean() == pytest.approx(alone, abs=0.01)
    others = (targets > 1e-6).mean(0)[~np.eye(group, dtype=bool)]
    if partners == "permuted":  # any other clip is the partner equally often
        np.testing.assert_allclose(others, 1 / group, atol=0.03)
    else:
        assert sorted(set(others)) == [0.0, 1.0]
    _, own = mixed()
    original = original_weights(count, group, partners == "permuted")
    ones = [np.isclose(x, 1, atol=1e-6).mean() for x in (own, original)]
    assert ones[0] == pytest.approx(ones[1], abs=0.015)
    # One weight for a group. Kolmogorov and Smirnov: two samples of 4000 weights differ by more
    # than 0.043 in one of a thousand cases.
    weights = [np.round(np.sort(x.min(1)), 6) for x in (own, original)]
    points = np.concatenate(weights)
    found, expected = (np.searchsorted(x, points, side="right") / count for x in weights)
    assert np.abs(found - expected).max() < 0.043
    whole = np.isclose(own, 1, atol=1e-6)
    np.testing.assert_allclose(np.where(whole, own.min(1, keepdims=True), own).std(1), 0, atol=1e-6)


def test_mix_keeps_the_dtype():
    video, targets = mix(jax.random.key(0), clips().astype(jnp.bfloat16), jnp.eye(4))
    assert video.dtype == jnp.bfloat16 and targets.dtype == jnp.float32


def test_mixing_and_masks_are_the_same_on_any_mesh():
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,), devices=devices[:2])
    video, label = clips(), jnp.arange(4)

    @jax.jit
    def step(rng, video, label):
        targets = augment.soft_targets(label, (4,), 0.1)
        options = dict(cutmix=0.0, group=2, partners="permuted")
        mixed = augment.mix(rng, augment.color_jitter(rng, video), targets, **options)
        return mixed, masking.tube_mask(rng, 4, (2, 4, 4), 0.5)

    alone = step(jax.random.key(0), video, label)
    rows = jax.NamedSharding(mesh, jax.P("data"))
    sharded = step(jax.random.key(0), jax.device_put(video, rows), jax.device_put(label, rows))
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(sharded), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
