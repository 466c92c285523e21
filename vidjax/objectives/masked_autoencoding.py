"""Masked autoencoding of videos (VideoMAE, and VideoMAE V2's dual masking).

Reference: MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, engine_for_pretraining.py.
Shapes: N tokens, K kept, P predicted, pt * ph * pw pixels in a patch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vidjax import masking
from vidjax.json_files import Rate
from vidjax.models.layers import grid_of, patchify, take_tokens
from vidjax.objectives import Objective

Array = jax.Array


def pixel_targets(
    video: Array, tokens: Array, patch_size: tuple[int, int, int], *, norm_pix: bool
) -> Array:
    """The pixels to be predicted.

    Args:
        video: [B, T, H, W, 3], float, in [0, 1].
        tokens: indices [B, P] of the patches.
        patch_size: (t, h, w).
        norm_pix: normalise each patch and channel by the mean and (unbiased) deviation of its
            own pixels; epsilon is added to the deviation, not to the variance.

    Returns:
        [B, P, t * h * w * 3], channel fastest.
    """
    patches = patchify(video, patch_size)
    patches = take_tokens(patches, tokens)
    if not norm_pix:
        return patches
    mean, std = patch_statistics(patches)
    pixels = patches.reshape(*patches.shape[:2], -1, 3)
    return ((pixels - mean) / std).reshape(patches.shape)


def patch_statistics(patches: Array) -> tuple[Array, Array]:
    """Mean and deviation [B, P, 1, 3] of the pixels of patches [B, P, t * h * w * 3]."""
    pixels = patches.reshape(*patches.shape[:2], -1, 3)
    std = jnp.sqrt(jnp.var(pixels, axis=2, keepdims=True, ddof=1)) + 1e-6
    return pixels.mean(2, keepdims=True), std


@dataclasses.dataclass(frozen=True)
class MaskedAutoencoding(Objective):
    """Encodes some patches, predicts the pixels of others; the loss is their squared error.

    Attributes:
        model: a Reconstructor.
        preprocessing: normalises inputs; targets are the pixels themselves.
        mask_ratio: share of each frame's patches that is hidden, the same ones in every frame.
        norm_pix: see `pixel_targets`.
        decoder_mask_ratio: 0 predicts every hidden patch. Otherwise VideoMAE V2's dual masking: a
            running-cell mask leaves this share of all patches out of the decoder, and the loss
            counts the decoded patches that were hidden.
    """

    demo: ClassVar[Mapping[str, Any]] = {"mask_ratio": 0.75}
    mask_ratio: Rate = 0.9
    norm_pix: bool = True
    decoder_mask_ratio: Rate = 0.0

    def masks(self, rng: Array, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """Draws masks for a video [B, T, H, W, 3]: keep [B, K], predict [B, P], weight [B, P]."""
        batch, grid = shape[0], grid_of(shape, self.model.patch_size)
        tube_rng, cell_rng = jax.random.split(rng)
        keep, hidden = masking.tube_mask(tube_rng, batch, grid, self.mask_ratio)
        if not self.decoder_mask_ratio:
            return keep, hidden, jnp.ones(hidden.shape)
        decoded = masking.running_cell_mask(cell_rng, batch, grid, self.decoder_mask_ratio)
        is_hidden = jnp.ones((batch, grid[0] * grid[1] * grid[2]))
        is_hidden = is_hidden.at[jnp.arange(batch)[:, None], keep].set(0.0)
        return keep, decoded, jnp.take_along_axis(is_hidden, decoded, axis=1)

    def init(self, rng, batch):
        video = self.normalised(batch["video"])
        keep, predict, _ = self.masks(rng, batch["video"].shape)
        return self.model.init(rng, video, keep, predict)["params"]

    def errors(self, params, batch, rng: Array, *, train: bool) -> tuple[Array, Array, Array]:
        """Squared error of each predicted patch, the error of its mean colour, and its weight.

        All [B, P]. Predicting the mean is what a network can do that has learned nothing but
        brightness; with norm_pix its error is 1 (511 / 512 of it) for any patch that is not flat.
        """
        mask_rng, dropout_rng = jax.random.split(rng)
        keep, predict, weight = self.masks(mask_rng, batch["video"].shape)
        video = self.normalised(batch["video"])
        rngs = {"dropout": dropout_rng} if train else None
        pixels = self.model.apply({"params": params}, video, keep, predict, rngs=rngs)
        target = pixel_targets(
            batch["video"].astype(jnp.float32) / 255.0,
            predict,
            self.model.patch_size,
            norm_pix=self.norm_pix,
        )
        error = jnp.square(pixels.astype(jnp.float32) - target).mean(-1)
        spread = jnp.var(target.reshape(*target.shape[:2], -1, 3), axis=2).mean(-1)
        return error, spread, weight

    def loss(self, params, batch, *, rng, ema_params=None):
        error, _, weight = self.errors(params, batch, rng, train=True)
        return (error * weight).sum() / weight.sum(), {}

    @property
    def predict(self) -> Mapping[str, Callable]:
        return {"loss": self.clip_losses, "reconstruction": self.reconstruct}

    def clip_losses(self, params, batch) -> dict[str, Array]:
        """Loss [B] of each clip under fixed masks, and the loss of predicting each patch's mean."""
        error, spread, weight = self.errors(params, batch, jax.random.key(0), train=False)
        total = weight.sum(-1)
        return {
            "loss": (error * weight).sum(-1) / total,
            "mean_patch_loss": (spread * weight).sum(-1) / total,
        }

    def reconstruct(self, params, batch) -> dict[str, Array]:
        """Pictures of a fixed mask's reconstruction, each video [B, T, H, W, 3] in [0, 1].

        With norm_pix the network predicts patches of zero mean and unit deviation. "with true
        statistics" scales them by the hidden pixels' own mean and deviation, as the reference's
        figures do, so it shows brightness and contrast that were not predicted; "as predicted"
        shows them around mid-grey.
        """
        video = batch["video"].astype(jnp.float32) / 255.0
        keep, predict, _ = self.masks(jax.random.key(0), video.shape)
        normalised = self.normalised(batch["video"])
        pixels = self.model.apply({"params": params}, normalised, keep, predict)
        patches = patchify(video, self.model.patch_size)
        rows = jnp.arange(video.shape[0])[:, None]

        def paste(values):
            canvas = jnp.full_like(patches, 0.5).at[rows, keep].set(take_tokens(patches, keep))
            canvas = canvas.at[rows, predict].set(values)
            return jnp.clip(unpatchify(canvas, video.shape, self.model.patch_size), 0.0, 1.0)

        # jit sorts the keys of what it returns: the numbers keep the rows in order.
        pictures = {"1 original": video, "2 masked": paste(0.5)}
        pixels = pixels.astype(jnp.float32)
        if not self.norm_pix:
            return pictures | {"3 as predicted": paste(pixels)}
        mean, std = patch_statistics(take_tokens(patches, predict))
        scaled = pixels.reshape(*predict.shape, -1, 3) * std + mean
        return pictures | {
            "3 with true statistics": paste(scaled.reshape(pixels.shape)),
            "4 as predicted": paste(0.5 + 0.15 * pixels),
        }


def unpatchify(patches: Array, shape: tuple[int, ...], patch_size: tuple[int, int, int]) -> Array:
    """Undoes `patchify` for a video of shape [B, T, H, W, C]."""
    grid = grid_of(shape, patch_size)
    x = patches.reshape(shape[0], *grid, *patch_size, shape[-1])
    return x.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(shape)


OBJECTIVE = MaskedAutoencoding
