"""Position tables and their resampling to other grids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.lru_cache(maxsize=16)
def sincos_1d(num_positions: int, width: int) -> np.ndarray:
    """Interleaved sine-cosine table [N, D] over the flattened token index, float32.

    Channel j of position p is sin (even j) or cos (odd j) of p / 10000^(2 floor(j/2) / D). Computed
    in float64 and rounded, as in MCG-NJU/VideoMAE modeling_finetune.py: a float32 computation is
    off by 1e-4. It is one-dimensional, not separable over (t, h, w).
    """
    channel = np.arange(width)
    angle = np.arange(num_positions)[:, None] / 10000.0 ** (2 * (channel // 2) / width)
    return np.where(channel % 2, np.cos(angle), np.sin(angle)).astype(np.float32)


@functools.lru_cache(maxsize=16)
def sinusoid(num_positions: int, width: int, exponent: float) -> np.ndarray:
    """Table [N, D], first D/2 sines, then D/2 cosines, float64.

    Position p has the angles p / 10000^e, e being D/2 even steps from 0 to `exponent`: 1 in
    google-deepmind/videoprism encoders.py (PositionalEmbedding, tensor2tensor's formula),
    1 - 2/D in transformers models/videoprism.
    """
    rates = 10000.0 ** -np.linspace(0.0, exponent, width // 2)
    angle = np.arange(num_positions)[:, None] * rates
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Cubic convolution kernel with PyTorch's and OpenCV's a = -0.75 (Keys' paper has -0.5)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


_KERNELS = {"linear": (_linear, 1), "cubic": (_cubic, 2), "linear_corners": (_linear, 1)}


def resample_matrix(old: int, new: int, kernel: str) -> np.ndarray:
    """Matrix [new, old] that resamples one axis of a table, float64.

    `kernel` is "linear" or "cubic" as in `torch.nn.functional.interpolate` with
    align_corners=False and no antialiasing (samples beyond the border repeat it), or
    "linear_corners", which keeps the first and the last row where they are, as in
    `scipy.ndimage.zoom(order=1)`, or "linear_antialias", whose kernel grows when the table
    shrinks, as in `jax.image.resize` and PyTorch's antialias=True. The identity when old == new.
    """
    if kernel == "linear_antialias":
        centre = (np.arange(new) + 0.5) * old / new - 0.5
        weights = _linear((centre[:, None] - np.arange(old)) / max(old / new, 1.0))
        return weights / weights.sum(1, keepdims=True)  # taps beyond the border are left out
    weight, reach = _KERNELS[kernel]
    if kernel == "linear_corners":
        centre = np.arange(new) * ((old - 1) / max(new - 1, 1))
    else:
        centre = (np.arange(new) + 0.5) * old / new - 0.5
    if kernel == "linear":  # PyTorch clamps the centre here, and the taps for "cubic"
        centre = np.maximum(centre, 0.0)
    first = np.floor(centre).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(1 - reach, reach + 1):
        column = np.clip(first + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), column), weight(centre - (first + tap)))
    return matrix


Grid = tuple[int, int, int]


def resample_grid(
    table: np.ndarray | jax.Array,
    old: Grid,
    new: Grid,
    kernels: tuple[str, str, str] = ("linear", "cubic", "cubic"),
) -> np.ndarray | jax.Array:
    """Resamples a table [t*h*w, D] to another grid, along time, rows and columns.

    Linear in time and bicubic in space as in OpenGVLab/VideoMAEv2 run_class_finetuning.py when
    frames or size change. Computed in float64 for numpy tables, in the table's dtype for others.
    The table itself when the grids are equal.
    """
    if old == new:
        return table
    numpy = isinstance(table, np.ndarray)
    xp, dtype = (np, np.float64) if numpy else (jnp, table.dtype)
    matrices = (
        resample_matrix(*sizes).astype(dtype) for sizes in zip(old, new, kernels, strict=True)
    )
    grid = table.astype(dtype).reshape(*old, -1)
    grid = xp.einsum("at,bh,cw,thwd->abcd", *matrices, grid, optimize=True)
    return grid.reshape(-1, table.shape[-1]).astype(table.dtype)


def stage_grid(path: str, grid: Grid) -> Grid:
    """Returns the grid of a position table: of frames or of patches where stages have their own.

    Args:
        path: of the parameter, such as "encoder/spatial/pos_embed".
        grid: tokens (t, h, w) of a clip.
    """
    t, h, w = grid
    return {"spatial": (1, h, w), "temporal": (t, 1, 1)}.get(path.split("/")[-2], (t, h, w))
