"""From pixels to tokens.

Shapes: B clips, T frames, N tokens on a (t, h, w) grid in row-major order, K kept, D width.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.json_files import Must, Size
from vidjax.models.layers.dense import Array
from vidjax.models.layers.initializers import Initializer, torch_uniform

# Frames, rows and columns, of a grid of tokens or of a patch.
Grid = tuple[Size, Size, Size]
FramePatch = Annotated[Grid, Must("of one frame", lambda sizes: sizes[0] == 1)]


def patchify(video: Array, patch_size: tuple[int, int, int]) -> Array:
    """Cuts video [B, T, H, W, C] into patches [B, N, pt * ph * pw * C].

    Patches are row-major over (t, h, w), and so are the values inside one, channels last.

    Raises:
        UserError: the video does not divide into patches.
    """
    (batch, *size, channels), (t, h, w) = video.shape, patch_size
    if size[0] % t or size[1] % h or size[2] % w:
        raise UserError(
            f"video [B, T, H, W, C] = {video.shape} does not divide into {t}x{h}x{w} patches; "
            f"choose frames, height and width that are multiples of them"
        )
    grid = grid_of(video.shape, patch_size)
    x = video.reshape(batch, grid[0], t, grid[1], h, grid[2], w, channels)
    return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, t * h * w * channels)


def take_tokens(x: Array, index: Array) -> Array:
    """Rows `index` [B, K] of tokens x [B, N, D]: [B, K, D].

    Whole rows are gathered; take_along_axis would fetch value by value, which is slow on CPUs.
    """
    return jax.vmap(lambda row, i: row[i])(x, index)


def grid_of(shape: Sequence[int], patch_size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Tokens per axis (t, h, w) of a video of shape [B, T, H, W, C]."""
    return tuple(n // p for n, p in zip(shape[1:4], patch_size, strict=True))


class PatchEmbed(nn.Module):
    """Projects tubelets to tokens: a strided 3-D convolution, written as one matrix product.

    Frames and pixels at the end that fill no patch are cut off, as without padding.
    `kernel_init` is PyTorch's default for kernel and bias if None; with another the bias is 0.
    CLIP has none (`use_bias`).
    """

    width: int
    patch_size: tuple[int, int, int]
    dtype: Any = jnp.float32
    kernel_init: Initializer | None = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, video: Array, *, keep: Array | None = None) -> Array:
        """Maps video [B, T, H, W, C] to tokens [B, N, D], or to those of `keep` [B, K] only."""
        shape = (*self.patch_size, video.shape[-1], self.width)
        t, h, w = (n - n % p for n, p in zip(video.shape[1:4], self.patch_size, strict=True))
        if not t * h * w:
            clip, patch = ("x".join(map(str, x)) for x in (video.shape[1:4], self.patch_size))
            raise UserError(
                f"a clip of {clip} (frames, height, width) is smaller than a patch of {patch}; "
                f"choose a larger one"
            )
        video = video[:, :t, :h, :w]
        patches = patchify(video.astype(self.dtype), self.patch_size)  # [B, N, P]
        inits = self.kernel_init, nn.initializers.zeros
        if self.kernel_init is None:
            inits = (torch_uniform(patches.shape[-1]),) * 2
        kernel_init = nn.with_logical_partitioning(inits[0], (None, None, None, None, "embed"))
        kernel = self.param("kernel", kernel_init, shape, jnp.float32)
        if keep is not None:  # before the projection: 9 of 10 patches need none
            patches = take_tokens(patches, keep)  # [B, K, P]
        x = patches @ kernel.reshape(-1, self.width).astype(self.dtype)
        if not self.use_bias:
            return x
        bias_init = nn.with_logical_partitioning(inits[1], ("embed",))
        bias = self.param("bias", bias_init, (self.width,), jnp.float32)
        return x + bias.astype(self.dtype)
