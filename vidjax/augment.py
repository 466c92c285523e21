"""Augmentation of clips on the device, inside the jitted step: pure functions of a random key.

Shapes: B clips, T frames, [B, T, H, W, 3]; C classes. Every size is static and the batch axis comes
first, so that all of it runs sharded over the batch.

Sources: MCG-NJU/VideoMAE random_erasing.py, mixup.py (after timm); google-deepmind/dmvr
processors.py (color_default_augm); microsoft/VideoX X-CLIP/datasets/pipeline.py, which calls
torchvision's and Pillow's colour operations. The order is colour jitter, normalise, erase, mix.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_LUMINANCE = np.float32([0.2989, 0.587, 0.114])  # of red, green, blue: tf.image's
_LUMA = np.float32([0.299, 0.587, 0.114])  # Pillow's
_ORDERS = np.array(list(itertools.permutations(range(4))))  # of four operations, [24, 4]
_ERASING_TRIES = 10  # as many boxes are drawn until one fits
PARTNERS = {  # (key, clips) -> an index of the clips that they are mixed with
    "reversed": lambda rng, count: slice(None, None, -1),
    "permuted": jax.random.permutation,
}


def color_jitter(rng: Array, video: Array, probability: float = 0.8, grey: float = 0.1) -> Array:
    """ViViT's colour augmentation, before normalisation: float32 in 0..255, as `normalise` takes.

    Args:
        rng: PRNG key.
        video: uint8 or float in 0..255, [B, T, H, W, 3].
        probability: that a clip's colours change: brightness by up to 32 levels, saturation and
            contrast by a factor from 0.6 to 1.4, hue by up to 0.2 of a turn, all uniform.
        grey: probability that a clip then becomes grey, whether its colours changed or not.

    Returns:
        The video; each clip has one draw for all of its frames. (DMVR color_default_augm.)
    """
    video = video.astype(jnp.float32) / 255
    draws = jax.random.uniform(rng, (6, len(video)))
    chance, grey_chance, brightness, saturation, contrast, hue = draws
    jittered = adjust_color(
        video,
        brightness=(2 * brightness - 1) * (32 / 255),
        saturation=0.6 + 0.8 * saturation,
        contrast=0.6 + 0.8 * contrast,
        hue=(2 * hue - 1) * 0.2,
    )
    video = jnp.where(_per_clip(chance < probability), jittered, video)
    luminance = jnp.dot(video, _LUMINANCE, precision="highest")[..., None]
    return jnp.where(_per_clip(grey_chance < grey), luminance, video) * 255


def adjust_color(
    video: Array, *, brightness: Array, saturation: Array, contrast: Array, hue: Array
) -> Array:
    """Changes a video in [0, 1], [B, T, H, W, 3], in this order, by one number for each clip [B].

    The numbers are those of tf.image: brightness is added; saturation is a factor on HSV's, which
    is kept at most 1; contrast is a factor on the distance from each frame's and channel's mean;
    hue is added, in turns. Values are cut to [0, 1] after all of it only, as in the reference.
    """
    video = video + _per_clip(brightness)
    high, low = video.max(-1, keepdims=True), video.min(-1, keepdims=True)
    reach = jnp.where(high > low, high - low, 1.0)
    # Brightness may have made values negative: saturation high - low over high is then above 1.
    old = jnp.where(high > 0, (high - low) / jnp.where(high > 0, high, 1.0), 0.0)
    new = jnp.clip(old * _per_clip(saturation), 0.0, 1.0)
    video = high - (high - video) * (new * high / reach)

    mean = video.mean((2, 3), keepdims=True)
    video = (video - mean) * _per_clip(contrast) + mean
    return jnp.clip(_turn_hue(video, _per_clip(hue)), 0.0, 1.0)


def frame_jitter(rng: Array, video: Array, probability: float = 0.8, grey: float = 0.2) -> Array:
    """X-CLIP's colour augmentation, before normalisation: float32 in 0..255, as `normalise` takes.

    Args:
        rng: PRNG key.
        video: uint8 or float in 0..255, [B, T, H, W, 3].
        probability: that a clip's colours change: brightness and contrast by a factor from 0.6 to
            1.4, saturation from 0.8 to 1.2, hue by up to 0.1 of a turn, all uniform, in a random
            order. Numbers and order are drawn anew for each frame, unlike all else here: the
            reference gives torchvision's ColorJitter one frame after the other.
        grey: probability that a clip then becomes grey, whether its colours changed or not.

    Returns:
        The video. The reference rounds to whole levels after each operation.
    """
    video = video.astype(jnp.float32) / 255
    batch, frames = video.shape[:2]
    # One draw of all numbers, and of two axes: a third one takes seconds more to compile (CPU).
    draws = jax.random.uniform(rng, (batch, frames * 7)).reshape(batch, frames, 7)
    chance, grey_chance = draws[:, 0, 5], draws[:, 0, 6]
    order = jnp.array(_ORDERS)[(draws[..., 4] * len(_ORDERS)).astype(jnp.int32)]  # [B, T, 4]
    spread = np.float32([0.4, 0.4, 0.2, 0.1])
    amounts = np.float32([1, 1, 1, 0]) + spread * (2 * draws[..., :4] - 1)
    jittered = adjust_frames(video, order, amounts)
    video = jnp.where(_per_clip(chance < probability), jittered, video)
    return jnp.where(_per_clip(grey_chance < grey), _luma(video), video) * 255


def adjust_frames(video: Array, order: Array, amounts: Array) -> Array:
    """Changes each frame of a video in [0, 1], [B, T, H, W, 3], by numbers of its own.

    Args:
        video: float32.
        order: int [B, T, 4], a permutation: the operations in the order in which they happen.
        amounts: [B, T, 4], of operation 0 to 3: brightness, contrast and saturation are factors on
            the distance from black, from the frame's mean grey and from each pixel's grey; hue is
            added, in turns. As torchvision has them, with Pillow's weights of grey.

    Returns:
        The video, cut to [0, 1] after each operation, as images are.
    """

    def step(video: Array, operation: Array) -> tuple[Array, None]:  # operation [B, T]
        amount = jnp.take_along_axis(amounts, operation[..., None], -1)[..., 0]
        operation, amount = (x[..., None, None, None] for x in (operation, amount))
        luma = _luma(video)
        origin = jnp.where(operation == 1, luma.mean((2, 3), keepdims=True), luma)
        origin = jnp.where(operation == 0, 0.0, origin)
        blended = origin + amount * (video - origin)
        changed = jnp.where(operation == 3, _turn_hue(video, amount), blended)
        return jnp.clip(changed, 0.0, 1.0), None

    # One compiled step for the four.
    return jax.lax.scan(step, video, jnp.moveaxis(order, -1, 0))[0]


def _luma(video: Array) -> Array:
    return jnp.dot(video, _LUMA, precision="highest")[..., None]


def _turn_hue(video: Array, turns: Array) -> Array:
    """Adds `turns`, which broadcasts, to the hue of HSV."""
    high, low = video.max(-1, keepdims=True), video.min(-1, keepdims=True)
    reach = jnp.where(high > low, high - low, 1.0)
    red, green, blue = jnp.split((video - low) / reach, 3, axis=-1)  # 0 the lowest, 1 the highest
    sixth = jnp.where(green >= blue, 2 + blue - red, 4 + red - green)
    sixth = jnp.where((red >= green) & (red >= blue), green - blue, sixth)  # of a turn, red is 0
    sixth = (sixth + 6 * turns) % 6
    distance = jnp.abs((sixth + np.float32([3, 1, 5])) % 6 - 3)  # from red 0, green 2, blue 4
    return low + (high - low) * jnp.clip(2 - distance, 0, 1)


def random_erasing(rng: Array, video: Array, probability: float = 0.25) -> Array:
    """Replaces one box per clip by noise N(0, 1), fresh for each pixel, channel and frame.

    Args:
        rng: PRNG key.
        video: normalised, [B, T, H, W, 3]. The box is the same in all frames.
        probability: that a clip is erased at all.

    Returns:
        The video. The box has 2% to 1/3 of the frame's area and a log-uniform aspect from 0.3 to
        1 / 0.3; a clip for which ten boxes in a row do not fit stays whole, as in timm.
    """
    batch, _, height, width, _ = video.shape
    box_rng, noise_rng = jax.random.split(rng)
    # One draw of all numbers: each further one costs compile time.
    chance, area, aspect, place_y, place_x = jax.random.uniform(box_rng, (5, batch, _ERASING_TRIES))
    area = (0.02 + (1 / 3 - 0.02) * area) * (height * width)
    aspect = jnp.exp((2 * aspect - 1) * np.log(1 / 0.3))
    heights = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)  # [B, tries]
    widths = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    tops = jnp.floor(place_y * (height - heights + 1)).astype(jnp.int32)
    lefts = jnp.floor(place_x * (width - widths + 1)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = fits.argmax(axis=1)[:, None]
    box_height, box_width, top, left = (
        jnp.take_along_axis(drawn, first, axis=1) for drawn in (heights, widths, tops, lefts)
    )  # [B, 1]
    erase = (chance[:, :1] < probability) & fits.any(axis=1, keepdims=True)
    rows = _between(jnp.arange(height), top, top + box_height)  # [B, H]
    columns = _between(jnp.arange(width), left, left + box_width)  # [B, W]
    box = erase[:, :, None] & rows[:, :, None] & columns[:, None, :]  # [B, H, W]
    noise = jax.random.normal(noise_rng, video.shape, video.dtype)
    return jnp.where(box[:, None, :, :, None], noise, video)


def soft_targets(label: Array, sizes: tuple[int, ...], smoothing: float = 0.0) -> Array:
    """Labels as distributions, float32 [B, C], C = sum(sizes).

    Args:
        label: int [B], or [B, G] with one label for each of G groups of classes.
        sizes: number of classes of each group, such as (300, 97).
        smoothing: s; in each group of c classes the target is 1 - s + s / c for the class and s / c
            for the others, so that each group sums to 1.
    """
    labels = label.reshape(len(label), len(sizes))
    parts = [
        jax.nn.one_hot(labels[:, group], size) * (1 - smoothing) + smoothing / size
        for group, size in enumerate(sizes)
    ]
    return jnp.concatenate(parts, axis=1)


def mix(
    rng: Array,
    video: Array,
    targets: Array,
    *,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    switch: float = 0.5,
    probability: float = 1.0,
    group: int = 0,
    partners: str = "reversed",
) -> tuple[Array, Array]:
    """Mixup or cutmix of the clips of each group with each other.

    One choice, one weight and one box for a group (timm's "batch" mode, in which each worker's
    batch is a group). A clip whose partner is itself stays as it is.

    Args:
        rng: PRNG key.
        video: [B, T, H, W, 3], normalised.
        targets: [B, C], such as of `soft_targets`.
        mixup, cutmix: alpha of the Beta(alpha, alpha) the weight is drawn from; 0 turns it off.
        switch: probability of cutmix where both are on.
        probability: of mixing at all.
        group: neighbouring clips that draw together and are mixed with each other; 0: all of them.
            It must divide the number of clips.
        partners: one of PARTNERS: the group's clips in reverse order (timm, Scenic), or in a random
            one (X-CLIP), in which a clip is its own partner once in `group` times.

    Returns:
        The mixed video and targets [B, C]. Cutmix pastes one box in all frames and weights by the
        area that was really pasted.
    """
    if not (mixup or cutmix) or group == 1:
        return video, targets
    if group and group < len(video):
        groups = [x.reshape(-1, group, *x.shape[1:]) for x in (video, targets)]
        mix_group = functools.partial(
            mix,
            mixup=mixup,
            cutmix=cutmix,
            switch=switch,
            probability=probability,
            partners=partners,
        )
        mixed = jax.vmap(mix_group)(jax.random.split(rng, len(video) // group), *groups)
        return tuple(x.reshape(-1, *x.shape[2:]) for x in mixed)
    height, width = video.shape[2:4]
    draw_rng, weight_rng, order_rng = jax.random.split(rng, 3)
    order = PARTNERS[partners](order_rng, len(video))
    which, chance, y, x = jax.random.uniform(draw_rng, (4,))
    use_cutmix = which < (switch if mixup and cutmix else float(bool(cutmix)))
    alpha = jnp.where(use_cutmix, cutmix, mixup)
    weight = jax.random.beta(weight_rng, alpha, alpha)
    weight = jnp.where(chance < probability, weight, 1.0)

    # The box may hang over the edge; timm cuts it there and corrects the weight.
    side = jnp.sqrt(1 - weight)
    half_height = (height * side).astype(jnp.int32) // 2
    half_width = (width * side).astype(jnp.int32) // 2
    y, x = jnp.floor(y * height), jnp.floor(x * width)
    rows = _between(jnp.arange(height), y - half_height, y + half_height)
    columns = _between(jnp.arange(width), x - half_width, x + half_width)
    box = rows[:, None] & columns[None, :]  # [H, W]

    share = jnp.where(use_cutmix, 1.0 - box, weight)  # [H, W], of the clip itself
    weight = jnp.where(use_cutmix, 1 - box.mean(), weight)
    share = share[:, :, None].astype(video.dtype)
    mixed = video * share + video[order] * (1 - share)
    return mixed, targets * weight + targets[order] * (1 - weight)


def _per_clip(values: Array) -> Array:
    """[B] -> [B, 1, 1, 1, 1]."""
    return values[:, None, None, None, None]


def _between(position: Array, start: Array, stop: Array) -> Array:
    return (position >= start) & (position < stop)
