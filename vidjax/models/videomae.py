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
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax.models import positions
from vidjax.models.attention import attend
from vidjax.models.layers import (
    Array,
    Block,
    LayerNorm,
    Linear,
    PatchEmbed,
    fields_of,
    grid_of,
    record,
    scan_blocks,
    torch_uniform,
)

# Sizes of the papers; the decoder's depth is that of the released pre-training scripts. `g` is
# VideoMAE V2's giant, whose odd MLP widths are int(48 / 11 * width). `Ti` is ViT-Tiny: no weights
# were released for it, the demo uses it.
VARIANTS = {
    name: dict(
        zip(
            (
                *("width", "depth", "num_heads", "mlp_dim", "patch_size"),
                *("decoder_width", "decoder_depth", "decoder_num_heads", "decoder_mlp_dim"),
            ),
            sizes,
            strict=True,
        )
    )
    for name, sizes in {
        "Ti": (192, 12, 3, 768, (2, 16, 16), 96, 4, 3, 384),
        "S": (384, 12, 6, 1536, (2, 16, 16), 192, 4, 3, 768),
        "B": (768, 12, 12, 3072, (2, 16, 16), 384, 4, 6, 1536),
        "L": (1024, 24, 16, 4096, (2, 16, 16), 512, 12, 8, 2048),
        "H": (1280, 32, 16, 5120, (2, 16, 16), 640, 12, 8, 2560),
        "g": (1408, 40, 16, 6144, (2, 14, 14), 512, 4, 8, 2234),
    }.items()
}


class EncoderFields(nn.Module):
    """What describes the encoder.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes D, L, H and the MLP's hidden width.
        eps: LayerNorm's epsilon.
        patch_size: frames, rows and columns (t, h, w) of a tubelet.
        pos_grid: the grid (t, h, w) whose position table is resampled for clips with another
            grid, as VideoMAE V2 does; None recomputes the table, as VideoMAE does.
        drop_path: stochastic depth of the last block in training.
        remat, unroll: see `scan_blocks`.
        attention: how it is computed, see `attention.attend`.
        dtype: compute dtype; parameters are float32.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    eps: float
    patch_size: tuple[int, int, int] = (2, 16, 16)
    pos_grid: tuple[int, int, int] | None = None
    drop_path: float = 0.0
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: str = "float32"

    def position_table(self, grid: tuple[int, int, int], width: int) -> Array:
        """Position table [N, width] for a grid."""
        source = self.pos_grid or grid
        table = positions.sincos_1d(source[0] * source[1] * source[2], width)
        return jnp.asarray(positions.resample_grid(table, source, grid), self.dtype)


def make_blocks(
    num_heads: int, mlp_dim: int, eps: float, initializer: str, dtype: str, attention: str
) -> Block:
    """The block of the encoder and of the decoder, to be given to `scan_blocks`."""
    return Block(
        num_heads,
        mlp_dim,
        eps,
        "gelu",
        qkv_bias=(True, False, True),
        initializer=initializer,
        dtype=dtype,
        attend=functools.partial(attend, implementation=attention),
        name="blocks",
    )


class Encoder(EncoderFields, kw_only=True):
    """Patches, positions, blocks, and a LayerNorm if `final_norm`; `initializer` as of INITS."""

    final_norm: bool
    initializer: str

    @nn.compact
    def __call__(
        self,
        video: Array,
        *,
        keep: Array | None = None,
        train: bool = False,
        head_mask: Array | None = None,
    ) -> Array:
        """Encodes video [B, T, H, W, 3], or only its kept tokens [B, K], to [B, N or K, D]."""
        embed = PatchEmbed(self.width, self.patch_size, self.dtype, name="patch_embed")
        x = embed(video, keep=keep)  # [B, N or K, D]
        table = self.position_table(grid_of(video.shape, self.patch_size), self.width)
        x = x + (table if keep is None else table[keep])
        record(self, "hidden_states", "embeddings", x)
        x = scan_blocks(
            make_blocks(
                self.num_heads,
                self.mlp_dim,
                self.eps,
                self.initializer,
                self.dtype,
                self.attention,
            ),
            x,
            depth=self.depth,
            drop_path=self.drop_path if train else 0.0,
            head_mask=head_mask,
            remat=self.remat,
            unroll=self.unroll,
        )
        return LayerNorm(self.eps, self.dtype, name="norm")(x) if self.final_norm else x


def make_encoder(model: EncoderFields, *, final_norm: bool, initializer: str) -> Encoder:
    fields = fields_of(model, EncoderFields)
    return Encoder(**fields, final_norm=final_norm, initializer=initializer)


class Features(EncoderFields, kw_only=True):
    """The encoder alone. `final_norm` is False for a network that pools before it normalises."""

    final_norm: bool = True

    def setup(self) -> None:
        self.encoder = make_encoder(
            self, final_norm=self.final_norm, initializer="xavier_uniform_fused"
        )

    def __call__(
        self,
        video: Array,
        *,
        keep: Array | None = None,
        train: bool = False,
        head_mask: Array | None = None,
    ) -> Array:
        """Encodes normalised video [B, T, H, W, 3] to tokens [B, N, D], or [B, K, D] of `keep`.

        head_mask [L, H] scales each head's output.
        """
        return self.encoder(video, keep=keep, train=train, head_mask=head_mask)

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """The mean token [B, D] of normalised video [B, T, H, W, 3]."""
        return self(video, train=train).mean(1)

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": _one_patch(self)}


class Classifier(EncoderFields, kw_only=True):
    """The encoder, a pooled and normalised feature, a linear head.

    Attributes:
        num_classes: number of classes C; 0 has no head, the output is what it would see [B, D].
        groups: names and sizes of several answers in one output, such as (("noun", 300),
            ("verb", 97)), in its order; () is one answer.
        pool: "mean" normalises the mean over tokens (every released model); "first" takes token 0
            of the normalised tokens (the reference's use_mean_pooling=False).
        fc_norm_eps: epsilon of the norm after pooling; None: as `eps`.
        head_dropout: dropout before the head in training.
        head_scale: factor of the head's initial kernel.
    """

    num_classes: int
    groups: tuple[tuple[str, int], ...] = ()
    pool: str = "mean"
    fc_norm_eps: float | None = None
    head_dropout: float = 0.0
    head_scale: float = 0.001

    def setup(self) -> None:
        mean = self.pool == "mean"
        self.encoder = make_encoder(self, final_norm=not mean, initializer="normal")
        if mean:
            eps = self.eps if self.fc_norm_eps is None else self.fc_norm_eps
            self.fc_norm = LayerNorm(eps, self.dtype)
        self.dropout = nn.Dropout(self.head_dropout)
        init = nn.initializers.normal(0.02 * self.head_scale)
        axes = ("embed", "classes")
        if self.num_classes:
            self.head = Linear((self.num_classes,), axes, kernel_init=init, dtype=self.dtype)

    def embed(self, video: Array, *, train: bool = False, head_mask: Array | None = None) -> Array:
        """What the head sees of normalised video [B, T, H, W, 3]: [B, D]."""
        tokens = self.encoder(video, train=train, head_mask=head_mask)  # [B, N, D]
        if self.pool == "mean":
            return self.fc_norm(tokens.mean(1))
        return tokens[:, 0]

    def __call__(
        self, video: Array, *, train: bool = False, head_mask: Array | None = None
    ) -> Array:
        """Class scores [B, C] of normalised video [B, T, H, W, 3]; head_mask [L, H]."""
        features = self.embed(video, train=train, head_mask=head_mask)
        features = self.dropout(features, deterministic=not train)
        return self.head(features) if self.num_classes else features

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": _one_patch(self)}


class Decoder(nn.Module):
    """Blocks, a LayerNorm, and a projection of the last tokens to `num_pixels` values each."""

    depth: int
    num_heads: int
    mlp_dim: int
    num_pixels: int
    eps: float
    norm_eps: float
    remat: str
    unroll: int
    attention: str
    dtype: str

    @nn.compact
    def __call__(self, x: Array, num_predicted: int) -> Array:
        """Maps tokens [B, K + P, d] to the pixels of the last P: [B, P, num_pixels]."""
        block = make_blocks(
            self.num_heads,
            self.mlp_dim,
            self.eps,
            "xavier_uniform_fused",
            self.dtype,
            self.attention,
        )
        x = scan_blocks(block, x, depth=self.depth, remat=self.remat, unroll=self.unroll)
        x = LayerNorm(self.norm_eps, self.dtype, name="norm")(x[:, -num_predicted:])
        return Linear((self.num_pixels,), ("embed", "pixels"), dtype=self.dtype, name="head")(x)


class Reconstructor(EncoderFields, kw_only=True):
    """The masked autoencoder: encodes kept tokens, predicts the pixels of others.

    Attributes:
        decoder_width, decoder_depth, decoder_num_heads, decoder_mlp_dim: sizes of the decoder.
        decoder_norm_eps: epsilon of the decoder's last norm; None: as `eps`.
        final_norm: whether the encoder ends in a LayerNorm. It does in every release; it does not
            in a Hugging Face model made with its default `use_mean_pooling=True`.
    """

    decoder_width: int
    decoder_depth: int
    decoder_num_heads: int
    decoder_mlp_dim: int
    decoder_norm_eps: float | None = None
    final_norm: bool = True

    def setup(self) -> None:
        self.encoder = make_encoder(
            self, final_norm=self.final_norm, initializer="xavier_uniform_fused"
        )
        self.encoder_to_decoder = Linear(
            (self.decoder_width,),
            ("embed", "embed_decoder"),
            use_bias=False,
            kernel_init=torch_uniform(self.width),  # the reference leaves PyTorch's default here
            dtype=self.dtype,
        )
        # The reference truncates at one sigma; `stddev` is that of the untruncated normal.
        normal = nn.initializers.truncated_normal(0.02, lower=-1.0, upper=1.0)
        normal = nn.with_logical_partitioning(normal, (None, None, "embed"))
        self.mask_token = self.param("mask_token", normal, (1, 1, self.decoder_width), jnp.float32)
        t, h, w = self.patch_size
        self.decoder = Decoder(
            depth=self.decoder_depth,
            num_heads=self.decoder_num_heads,
            mlp_dim=self.decoder_mlp_dim,
            num_pixels=t * h * w * 3,
            eps=self.eps,
            norm_eps=self.eps if self.decoder_norm_eps is None else self.decoder_norm_eps,
            remat=self.remat,
            unroll=self.unroll,
            attention=self.attention,
            dtype=self.dtype,
        )

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """The encoder's mean token [B, D] of normalised video [B, T, H, W, 3], all of it seen."""
        return self.encoder(video, train=train).mean(1)

    def encode(
        self,
        video: Array,
        keep: Array,
        *,
        train: bool = False,
        head_mask: Array | None = None,
    ) -> Array:
        """Encodes the kept tokens [B, K] of video [B, T, H, W, 3]: [B, K, D]."""
        return self.encoder(video, keep=keep, train=train, head_mask=head_mask)

    def __call__(
        self,
        video: Array,
        keep: Array,
        predict: Array,
        *,
        train: bool = False,
        head_mask: Array | None = None,
    ) -> Array:
        """Predicts the pixels of tokens `predict` [B, P] from tokens `keep` [B, K].

        Args:
            video: normalised clips [B, T, H, W, 3]; only the kept patches are looked at.
            keep, predict: token indices, row-major over the grid.
            train: whether stochastic depth is on.
            head_mask: [L, H] factors for the outputs of the encoder's heads.

        Returns:
            [B, P, t * h * w * 3] in the order of `predict`; in a patch (t, h, w, c), c fastest.
        """
        x = self.encoder_to_decoder(self.encode(video, keep, train=train, head_mask=head_mask))
        table = self.position_table(grid_of(video.shape, self.patch_size), self.decoder_width)
        hidden = self.mask_token.astype(x.dtype) + table[predict]  # [B, P, d]
        x = jnp.concatenate([x + table[keep], hidden], axis=1)  # [B, K + P, d]
        return self.decoder(x, predict.shape[1])

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        return {"video": _one_patch(self), "keep": tokens, "predict": tokens}


def _one_patch(model: EncoderFields) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *model.patch_size, 3), jnp.float32)


def encoder_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a model of these fields makes of its encoder: see `vidjax.models.encoder_of`."""
    pools_first = fields["head"] == "classify" and fields.get("pool", "mean") == "mean"
    return {"final_norm": False} if pools_first else {}


HEADS = {None: Features, "classify": Classifier, "reconstruct": Reconstructor}

USES = {"classify": "predict"}
NOTED = ("eps", "fc_norm_eps", "patch_size", "pool")
DEMO = {
    "width": 128,
    "depth": 4,
    "num_heads": 4,
    "mlp_dim": 512,
    "patch_size": (2, 8, 8),
    "decoder_width": 64,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
    "decoder_mlp_dim": 256,
    "drop_path": 0.0,
    "head_dropout": 0.0,
}
