"""Masks: exact counts, statistics, and the original code's patterns."""

import jax
import numpy as np
import pytest

from vidjax import masking
from vidjax.errors import UserError


@pytest.mark.parametrize(("ratio", "kept"), [(0.9, 160), (0.75, 392)])
def test_tube_mask_has_videomaes_counts(ratio, kept):
    make = jax.jit(masking.tube_mask, static_argnums=(1, 2, 3))
    keep, hidden = map(np.asarray, make(jax.random.key(0), 3, (8, 14, 14), ratio))
    assert keep.shape == (3, kept) and hidden.shape == (3, 1568 - kept)
    for row, other in zip(keep, hidden, strict=True):
        assert (np.diff(row) > 0).all() and (np.diff(other) > 0).all()
        assert sorted([*row, *other]) == list(range(1568))
        slices = row.reshape(8, -1) - 196 * np.arange(8)[:, None]
        assert (slices == slices[0]).all()  # the same patches in every slice
    assert not np.array_equal(keep[0], keep[1])  # a fresh mask for each clip


def test_tube_mask_rounds_the_hidden_patches_down():
    keep, hidden = masking.tube_mask(jax.random.key(0), 1, (2, 7, 7), 0.75)  # 36.75 of 49
    assert keep.shape == (1, 2 * 13) and hidden.shape == (1, 2 * 36)


def test_tube_mask_hides_every_patch_equally_often():
    _, hidden = masking.tube_mask(jax.random.key(0), 4000, (1, 4, 4), 0.75)
    share = np.bincount(np.asarray(hidden).ravel(), minlength=16) / 4000
    assert np.abs(share - 0.75).max() < 0.03


@pytest.mark.parametrize("ratio", [0.0, 0.02, 1.0])
def test_tube_mask_refuses_empty_sides(ratio):
    with pytest.raises(UserError, match="mask_ratio"):
        masking.tube_mask(jax.random.key(0), 1, (2, 4, 4), ratio)


def test_running_cell_mask_is_videomae_v2s():
    # Left out (1) in the 2x2 cell, slice by slice, as in masks that the original code drew.
    cycle = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1]])
    make = jax.jit(masking.running_cell_mask, static_argnums=(1, 2))
    decoded = np.asarray(make(jax.random.key(0), 64, (6, 4, 8)))
    assert decoded.shape == (64, 96)
    starts = set()
    for row in decoded:
        assert (np.diff(row) > 0).all()
        left_out = np.ones(6 * 4 * 8, int)
        left_out[row] = 0
        left_out = left_out.reshape(6, 4, 8)
        assert (left_out == np.tile(left_out[:, :2, :2], (1, 2, 4))).all()
        cells = left_out[:, :2, :2].reshape(6, 4)
        start = cycle.tolist().index(cells[0].tolist())
        assert (cells == cycle[(start + np.arange(6)) % 4]).all()
        starts.add(start)
    assert starts == {0, 1, 2, 3}


def test_running_cell_mask_of_other_ratios_and_grids():
    for ratio, left in ((0.25, 3), (0.75, 1), (0.9, 1)):
        assert masking.running_cell_mask(jax.random.key(0), 2, (8, 16, 16), ratio).shape == (
            2,
            8 * 64 * left,
        )
    for grid, ratio in (((2, 7, 4), 0.5), ((2, 4, 4), 0.2), ((2, 4, 4), 1.0)):
        with pytest.raises(UserError, match="running cell"):
            masking.running_cell_mask(jax.random.key(0), 1, grid, ratio)
