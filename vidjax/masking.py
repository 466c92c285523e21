"""Random masks of tokens, drawn on the device inside the jitted step: pure functions of a key.

Shapes: B clips; token grid (t, h, w), N = t * h * w tokens in row-major order, K kept, P predicted.
Every size is static and the batch axis comes first, so that all of it runs sharded over the batch.

Sources: MCG-NJU/VideoMAE masking_generator.py; OpenGVLab/VideoMAEv2 dataset/masking_generator.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vidjax.errors import UserError


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
    num_hidden = _check_hidden(int(ratio * h * w), h, w, ratio)
    order = jax.vmap(lambda key: jax.random.permutation(key, h * w))(jax.random.split(rng, batch))

    def tube(patches: Array) -> Array:  # [B, S] -> [B, t * S]
        slices = jnp.arange(t)[:, None] * (h * w)
        return (slices + jnp.sort(patches)[:, None, :]).reshape(batch, -1)

    return tube(order[:, num_hidden:]), tube(order[:, :num_hidden])


def _check_hidden(num_hidden: int, h: int, w: int, ratio: float) -> int:
    if not 0 < num_hidden < h * w:
        raise UserError(
            f"mask_ratio {ratio} hides {num_hidden} of {h}x{w} patches; choose a ratio that hides "
            f"at least one and keeps at least one"
        )
    return num_hidden


def block_mask(rng: Array, batch: int, grid: tuple[int, int], ratio: float) -> Array:
    """Hides blocks of neighbouring patches until `ratio` of a frame's are hidden.

    Like BEiT's and BEVT's blockwise masking (arXiv:2106.08254, 2112.01529), for static shapes: 32
    rectangles are drawn, each of 8 to 30% of the frame and of log-uniform aspect from 0.3 to
    1 / 0.3; patches are hidden in the order of the first rectangle that covers them, those of the
    last one, and any that none covers, in random order.

    Args:
        rng: PRNG key.
        batch: number of clips B.
        grid: rows and columns (h, w) of patches.
        ratio: share of the h * w patches to hide, rounded.

    Returns:
        keep [B, K]: ascending indices of the visible patches.

    Raises:
        UserError: if the ratio leaves no patch kept or none hidden.
    """
    h, w = grid
    num_hidden = _check_hidden(round(ratio * h * w), h, w, ratio)
    box_rng, order_rng = jax.random.split(rng)
    area, aspect, top, left = jax.random.uniform(box_rng, (4, batch, 32))
    area = (0.08 + 0.22 * area) * (h * w)
    aspect = jnp.exp((2 * aspect - 1) * np.log(1 / 0.3))
    height = jnp.clip(jnp.round(jnp.sqrt(area * aspect)), 1, h)
    width = jnp.clip(jnp.round(jnp.sqrt(area / aspect)), 1, w)
    top, left = jnp.floor(top * (h - height + 1)), jnp.floor(left * (w - width + 1))

    def covers(start: Array, size: Array, count: int) -> Array:  # [B, 32, count]
        place = jnp.arange(count)
        return (place >= start[..., None]) & (place < (start + size)[..., None])

    inside = covers(top, height, h)[..., :, None] & covers(left, width, w)[..., None, :]
    inside = inside.reshape(batch, 32, h * w)
    first = jnp.where(inside.any(1), inside.argmax(1), 32)  # [B, h * w]
    order = jnp.argsort(first + jax.random.uniform(order_rng, first.shape), axis=1)
    return jnp.sort(order[:, num_hidden:], axis=1)


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
