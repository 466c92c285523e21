"""VideoMAE (Tong et al. 2022, arXiv:2203.12602) and VideoMAE V2 (Wang et al. 2023, 2303.16727).

Reference: MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, modeling_finetune.py, modeling_pretrain.py.
Shapes: B clips, T frames, N tokens on a (t, h, w) grid in row-major order, K kept tokens, P
predicted tokens, D width, d decoder width, L layers, H heads. There is no class token.
Numerics: fixed 1-D sin-cos positions over the flattened grid; exact GELU; query and value biases
but no key bias; LayerNorm eps is 1e-6 in the original releases, and in Hugging Face's 1e-12 for
the blocks and 1e-5 for the norms of the heads, so it has no default.
Recorded on request, by `model.apply(..., mutable=["hidden_states", "attention"])`:
`hidden_states` encoder/embeddings [B, N, D] and encoder/blocks/output [L, B, N, D] (before the
final norm), `attention` encoder/blocks/attn/weights [L, B, H, N, N]; also under `decoder`.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from vidjax.json_files import Count, NotNegative, Rate, Size
from vidjax.models.layers import (
    Array,
    Block,
    LayerNorm,
    Linear,
    PatchEmbed,
    Speed,
    grid_of,
    positions,
    record,
    scan_blocks,
    torch_uniform,
)
from vidjax.models.layers.fields import set_by_head
from vidjax.models.layers.grids import by_clip
from vidjax.models.layers.heads import (
    Classes,
    Classifier,
    Features,
    Model,
    Pooling,
    first_token,
    mean_token,
)
from vidjax.models.layers.patches import Grid

Sizes = tuple[int, int, int, int]


_normal = functools.cache(nn.initializers.normal)  # so that equal models are equal


def _sizes(encoder: Sizes, decoder: Sizes, patch_size: Grid = (2, 16, 16)) -> dict[str, Any]:
    fields = ("width", "depth", "num_heads", "mlp_dim")
    return {
        "patch_size": patch_size,
        **dict(zip(fields, encoder, strict=True)),
        **{f"decoder_{field}": size for field, size in zip(fields, decoder, strict=True)},
    }


# Sizes of the papers; the decoder's depth is that of the released pre-training scripts. `g` is
# VideoMAE V2's giant, whose odd MLP widths are int(48 / 11 * width). `Ti` is ViT-Tiny: no weights
# were released for it, the demo uses it.
VARIANTS = {
    "Ti": _sizes((192, 12, 3, 768), (96, 4, 3, 384)),
    "S": _sizes((384, 12, 6, 1536), (192, 4, 3, 768)),
    "B": _sizes((768, 12, 12, 3072), (384, 4, 6, 1536)),
    "L": _sizes((1024, 24, 16, 4096), (512, 12, 8, 2048)),
    "H": _sizes((1280, 32, 16, 5120), (640, 12, 8, 2560)),
    "g": _sizes((1408, 40, 16, 6144), (512, 4, 8, 2234), patch_size=(2, 14, 14)),
}


def make_blocks(num_heads: int, mlp_dim: int, eps: float, initializer: str, speed: Speed) -> Block:
    """Returns the block of the encoder and of the decoder, to be given to `scan_blocks`."""
    return Block(
        num_heads,
        mlp_dim,
        eps,
        "gelu",
        qkv_bias=(True, False, True),
        initializer=initializer,
        dtype=speed.dtype,
        attend=speed.attend(),
        name="blocks",
    )


class Encoder(nn.Module):
    """Patches, positions, blocks, LayerNorm.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes D, L, H and the MLP's hidden width.
        eps: LayerNorm's epsilon.
        patch_size: frames, rows and columns (t, h, w) of a tubelet.
        pos_grid: the grid (t, h, w) whose position table is resampled for clips with another
            grid, as VideoMAE V2 does; None recomputes the table, as VideoMAE does.
        drop_path: stochastic depth of the last block in training.
        speed: see `Speed`.
        final_norm: whether there is a LayerNorm after the blocks.
        initializer: of the blocks, a key of INITS.
    """

    width: Size
    depth: Size
    num_heads: Size
    mlp_dim: Size
    eps: NotNegative
    patch_size: Grid = (2, 16, 16)
    pos_grid: Grid | None = None
    drop_path: Rate = 0.0
    speed: Speed = Speed()
    final_norm: bool = set_by_head(True)
    initializer: str = set_by_head("xavier_uniform_fused")
    on_grid = staticmethod(by_clip)

    @nn.compact
    def __call__(
        self, video: Array, *, keep: Array | None = None, head_mask: Array | None = None
    ) -> Array:
        """Encodes normalised video [B, T, H, W, 3] to tokens [B, N, D].

        Args:
            keep: int [B, K], the only tokens that are encoded, to [B, K, D]; None: all.
            head_mask: [L, H], scales each head's output.
        """
        dtype = self.speed.dtype
        x = PatchEmbed(self.width, self.patch_size, dtype, name="patch_embed")(video, keep=keep)
        table = self.position_table(grid_of(video.shape, self.patch_size), self.width)
        x = x + (table if keep is None else table[keep])
        record(self, "hidden_states", "embeddings", x)
        x = scan_blocks(
            make_blocks(self.num_heads, self.mlp_dim, self.eps, self.initializer, self.speed),
            x,
            depth=self.depth,
            drop_path=self.drop_path,
            head_mask=head_mask,
            speed=self.speed,
        )
        return LayerNorm(self.eps, dtype, name="norm")(x) if self.final_norm else x

    @nn.nowrap
    def position_table(self, grid: tuple[int, int, int], width: int) -> Array:
        """Returns the position table [N, width] of a grid, the encoder's or the decoder's."""
        source = self.pos_grid or grid
        table = positions.sincos_1d(source[0] * source[1] * source[2], width)
        return jnp.asarray(positions.resample_grid(table, source, grid), self.speed.dtype)


def features(encoder: Encoder, final_norm: bool = True) -> Features:
    """Makes the encoder alone; `final_norm` is False if a network pools before it normalises."""
    return Features(encoder.clone(final_norm=final_norm), Pooling(mean_token))


def classify(
    encoder: Encoder,
    classes: Classes,
    pool: Literal["mean", "first"] = "mean",
    fc_norm_eps: NotNegative | None = None,
    head_dropout: Rate = 0.0,
    head_scale: float = 0.001,
) -> Classifier:
    """Makes a classifier.

    Args:
        encoder, classes: see there.
        pool: "mean" normalises the mean over tokens (every released model); "first" takes token 0
            of the normalised tokens (the reference's use_mean_pooling=False).
        fc_norm_eps: epsilon of the norm after pooling; None: as `eps`.
        head_dropout: dropout before the head in training.
        head_scale: factor of the head's initial kernel.
    """
    mean = pool == "mean"
    eps = encoder.eps if fc_norm_eps is None else fc_norm_eps
    norm = LayerNorm(eps, encoder.speed.dtype)
    return Classifier(
        encoder.clone(final_norm=not mean, initializer="normal"),
        Pooling(mean_token, "fc_norm", norm) if mean else Pooling(first_token),
        classes,
        kernel_init=_normal(0.02 * head_scale),
        head_dropout=head_dropout,
    )


class Decoder(nn.Module):
    """Blocks, a LayerNorm, and a projection of the last tokens to `num_pixels` values each.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes.
        num_pixels: values of a patch.
        eps, norm_eps: epsilon of the blocks' LayerNorms, and of the last one.
        speed: see `Speed`.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    num_pixels: int
    eps: float
    norm_eps: float
    speed: Speed

    @nn.compact
    def __call__(self, x: Array, num_predicted: int) -> Array:
        """Maps tokens [B, K + P, d] to the pixels of the last P: [B, P, num_pixels]."""
        initializer = "xavier_uniform_fused"
        block = make_blocks(self.num_heads, self.mlp_dim, self.eps, initializer, self.speed)
        x = scan_blocks(block, x, depth=self.depth, speed=self.speed)
        dtype = self.speed.dtype
        x = LayerNorm(self.norm_eps, dtype, name="norm")(x[:, -num_predicted:])
        return Linear((self.num_pixels,), ("embed", "pixels"), dtype=dtype, name="head")(x)


class Reconstructor(Model):
    """The masked autoencoder: encodes kept tokens, predicts the pixels of others."""

    encoder: Encoder
    decoder: Decoder

    def setup(self) -> None:
        width = self.decoder.width
        self.encoder_to_decoder = Linear(
            (width,),
            ("embed", "embed_decoder"),
            use_bias=False,
            # The reference leaves PyTorch's default here.
            kernel_init=torch_uniform(self.encoder.width),
            dtype=self.dtype,
        )
        # The reference truncates at one sigma; `stddev` is that of the untruncated normal.
        normal = nn.initializers.truncated_normal(0.02, lower=-1.0, upper=1.0)
        normal = nn.with_logical_partitioning(normal, (None, None, "embed"))
        self.mask_token = self.param("mask_token", normal, (1, 1, width), jnp.float32)

    def embed(self, video: Array) -> Array:
        """Returns the encoder's mean token [B, D] of all of normalised video [B, T, H, W, 3]."""
        return mean_token(self.encoder(video))

    def encode(self, video: Array, keep: Array, *, head_mask: Array | None = None) -> Array:
        """Encodes the kept tokens [B, K] of video [B, T, H, W, 3]: [B, K, D]."""
        return self.encoder(video, keep=keep, head_mask=head_mask)

    def __call__(
        self, video: Array, keep: Array, predict: Array, *, head_mask: Array | None = None
    ) -> Array:
        """Predicts the pixels of tokens `predict` [B, P] from tokens `keep` [B, K].

        Args:
            video: normalised clips [B, T, H, W, 3]; only the kept patches are looked at.
            keep, predict: token indices, row-major over the grid.
            head_mask: [L, H] factors for the outputs of the encoder's heads.

        Returns:
            [B, P, t * h * w * 3] in the order of `predict`; in a patch (t, h, w, c), c fastest.
        """
        x = self.encoder_to_decoder(self.encode(video, keep, head_mask=head_mask))
        grid = grid_of(video.shape, self.encoder.patch_size)
        table = self.encoder.position_table(grid, self.decoder.width)
        hidden = self.mask_token.astype(x.dtype) + table[predict]  # [B, P, d]
        x = jnp.concatenate([x + table[keep], hidden], axis=1)  # [B, K + P, d]
        return self.decoder(x, predict.shape[1])


def reconstruct(
    encoder: Encoder,
    decoder_width: Size,
    decoder_depth: Count,
    decoder_num_heads: Size,
    decoder_mlp_dim: Size,
    decoder_norm_eps: NotNegative | None = None,
    final_norm: bool = True,
) -> Reconstructor:
    """Makes a masked autoencoder.

    Args:
        encoder: see there.
        decoder_width, decoder_depth, decoder_num_heads, decoder_mlp_dim: sizes of the decoder.
        decoder_norm_eps: epsilon of the decoder's last norm; None: as `eps`.
        final_norm: whether the encoder ends in a LayerNorm. It does in every release; it does not
            in a Hugging Face model made with its default `use_mean_pooling=True`.
    """
    decoder = Decoder(
        decoder_width,
        decoder_depth,
        decoder_num_heads,
        decoder_mlp_dim,
        num_pixels=3 * math.prod(encoder.patch_size),
        eps=encoder.eps,
        norm_eps=encoder.eps if decoder_norm_eps is None else decoder_norm_eps,
        speed=encoder.speed,
    )
    return Reconstructor(encoder.clone(final_norm=final_norm), decoder)


def encoder_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a model with `fields` decides of its encoder, see `models.encoder_of`."""
    pools_first = fields["head"] == "classify" and fields.get("pool", "mean") == "mean"
    return {"final_norm": False} if pools_first else {}


HEADS = {None: features, "classify": classify, "reconstruct": reconstruct}

USES = {"classify": "predict"}
NOTED = ("eps", "fc_norm_eps", "patch_size", "pool")
# Patches are small beside the shapes, and clips short: in few steps the model learns the places of
# patches on a wide grid of few frames better than on a narrow grid of many.
DEMO_CLIP = {"size": 64, "stride": 1}
DEMO = {
    "width": 96,
    "depth": 4,
    "num_heads": 3,
    "mlp_dim": 384,
    "patch_size": (4, 8, 8),
    "eps": 1e-6,
    "decoder_width": 96,
    "decoder_depth": 2,
    "decoder_num_heads": 3,
    "decoder_mlp_dim": 384,
    "drop_path": 0.0,
    "head_dropout": 0.0,
}
