"""Tokens of encoders on their grid: the layouts that there are.

Shapes: B clips, N = t * h * w tokens, S = h * w of a time slice, n class tokens, which come first
and are left out, D width, L blocks.

A layout is a function of what an encoder returns, of the `hidden_states` that it records, and of
the grid (t, h, w). It returns the tokens [B, t, h, w, D] that the encoder ends with, and the output
of each of its blocks, [L, B, t, h, w, D], before any norm that follows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from vidjax.models.layers.dense import Array
from vidjax.models.layers.patches import Grid


def by_clip(tokens: Array, states: Mapping[str, Any], grid: Grid) -> tuple[Array, Array]:
    """Layout of tokens [B, n + N, D]."""
    return _on(grid, tokens), _on(grid, states["blocks"]["output"])


def by_frame(tokens: Array, states: Mapping[str, Any], grid: Grid) -> tuple[Array, Array]:
    """Layout of tokens [B, t, n + S, D]."""
    return _on(grid[1:], tokens), _on(grid[1:], states["blocks"]["output"])


def in_stages(tokens: Array, states: Mapping[str, Any], grid: Grid) -> tuple[Array, Array]:
    """Layout of tokens [B, N, D] after blocks that see [B, t, S, D] and blocks of [B, S, t, D]."""
    blocks = [states["spatial"]["blocks"]["output"]]
    if "blocks" in states["temporal"]:
        blocks.append(states["temporal"]["blocks"]["output"].swapaxes(2, 3))
    return _on(grid, tokens), _on(grid[1:], jnp.concatenate(blocks))


def _on(sizes: Sequence[int], tokens: Array) -> Array:
    """Returns the last tokens of [..., D] on axes of these sizes, [..., *sizes, D]."""
    tokens = tokens[..., -math.prod(sizes) :, :]
    return tokens.reshape(*tokens.shape[:-2], *sizes, tokens.shape[-1])
