"""What happens to clips on the device, inside the jitted step. Pure functions of their key.

Shapes: B clips, T frames, [B, T, H, W, 3]; C classes; token grid (t, h, w), N = t * h * w tokens
in row-major order, K kept, P predicted. Every size is static and the batch axis comes first, so
that all of it runs sharded over the batch.

Sources: MCG-NJU/VideoMAE random_erasing.py, mixup.py, masking_generator.py (after timm);
OpenGVLab/VideoMAEv2 dataset/masking_generator.py. The order is normalise, erase, mix.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vidjax.errors import UserError

_ERASING_TRIES = 10  # as many boxes are drawn until one fits


def normalise(
    video: Array,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    dtype: jnp.dtype = jnp.float32,
) -> Array:
    """uint8 video [..., 3] -> (video / 255 - mean) / std, computed in float32, given in dtype."""
    video = video.astype(jnp.float32) / 255
    return ((video - jnp.array(mean, jnp.float32)) / jnp.array(std, jnp.float32)).astype(dtype)


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


def mix(
    rng: Array,
    video: Array,
    label: Array,
    num_classes: int,
    *,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    switch: float = 0.5,
    probability: float = 1.0,
    smoothing: float = 0.1,
) -> tuple[Array, Array]:
    """Mixup or cutmix of the batch with itself in reverse order, and label smoothing.

    One choice, one weight and one box for the whole batch (timm's "batch" mode).

    Args:
        rng: PRNG key.
        video: [B, T, H, W, 3], normalised.
        label: int [B].
        num_classes: C.
        mixup, cutmix: alpha of the Beta(alpha, alpha) the weight is drawn from; 0 turns it off.
        switch: probability of cutmix where both are on.
        probability: of mixing at all.
        smoothing: s; the target is 1 - s + s / C for the class and s / C for the others.

    Returns:
        The mixed video and soft targets float32 [B, C] that sum to 1. Cutmix pastes one box in
        all frames and weights by the area that was really pasted.
    """
    height, width = video.shape[2:4]
    targets = jax.nn.one_hot(label, num_classes) * (1 - smoothing) + smoothing / num_classes
    if not (mixup or cutmix):
        return video, targets
    draw_rng, weight_rng = jax.random.split(rng)
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
    mixed = video * share + video[::-1] * (1 - share)
    return mixed, targets * weight + targets[::-1] * (1 - weight)


def tube_mask(
    rng: Array, batch: int, grid: tuple[int, int, int], ratio: float
) -> tuple[Array, Array]:
    """Hides the same random patches in every time slice of a clip (VideoMAE tube masking).

    Args:
        rng: PRNG key.
        batch: number of clips B.
        grid: tokens per axis (t, h, w).
        ratio: share of the h * w patches to hide, rounded down as in the reference.

    Returns:
        keep [B, K] and hidden [B, N - K]: ascending token indices. Index lists rather than a
        boolean mask, because XLA needs K to be static.

    Raises:
        UserError: if the ratio leaves no token kept or none hidden.
    """
    t, h, w = grid
    num_hidden = int(ratio * h * w)
    if not 0 < num_hidden < h * w:
        raise UserError(
            f"mask_ratio {ratio} hides {num_hidden} of {h}x{w} patches; choose a ratio that hides "
            f"at least one and keeps at least one"
        )
    order = jax.vmap(lambda key: jax.random.permutation(key, h * w))(jax.random.split(rng, batch))

    def tube(patches: Array) -> Array:  # [B, S] -> [B, t * S]
        slices = jnp.arange(t)[:, None] * (h * w)
        return (slices + jnp.sort(patches)[:, None, :]).reshape(batch, -1)

    return tube(order[:, num_hidden:]), tube(order[:, :num_hidden])


def running_cell_mask(
    rng: Array, batch: int, grid: tuple[int, int, int], ratio: float = 0.5
) -> Array:
    """The tokens that VideoMAE V2's decoder predicts (running cell masking, dual masking).

    Each time slice is tiled with a 2x2 cell in which int(4 * ratio) positions are left out; the
    cell turns by one position from slice to slice, from a random start.

    Args:
        rng: PRNG key.
        batch: number of clips B.
        grid: tokens per axis (t, h, w); h and w even.
        ratio: share of tokens left out of the decoder: 0.25, 0.5 or 0.75.

    Returns:
        Ascending indices [B, P] of the predicted tokens, P = N * (1 - int(4 * ratio) / 4). They
        include tokens that the encoder saw; the loss counts only those it did not.

    Raises:
        UserError: if h or w is odd, or the ratio leaves out nothing or everything.
    """
    t, h, w = grid
    num_out = int(4 * ratio)
    if h % 2 or w % 2 or not 0 < num_out < 4:
        raise UserError(
            f"running cell masking needs even h and w and a ratio of 0.25, 0.5 or 0.75, got a "
            f"{h}x{w} grid and {ratio}"
        )
    predicted = np.arange(4) >= num_out
    # [start, slice, position in the cell]; the + 1 is the reference's step before the first slice.
    turn = np.arange(4)[:, None, None] + np.arange(t)[:, None] + 1 + np.arange(4)
    cells = predicted[turn % 4].reshape(4, t, 2, 2)
    masks = np.tile(cells, (1, 1, h // 2, w // 2)).reshape(4, -1)
    table = jnp.array([np.flatnonzero(mask) for mask in masks])  # [4, P]
    return table[jax.random.randint(rng, (batch,), 0, 4)]


def _between(position: Array, start: Array, stop: Array) -> Array:
    return (position >= start) & (position < stop)
