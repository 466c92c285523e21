"""VideoPrism (Zhao et al. 2024, arXiv:2402.13217): video encoder, video-text model, classifier.

Reference: google-deepmind/videoprism encoders.py and layers.py; transformers models/videoprism
(5.23); keras_hub models/video_prism.
Shapes: B clips, T frames, S = h * w patches of a frame, K of them kept, N = T * S tokens, D width,
L layers, H heads; J texts. Tokens are ordered by frame, then by row and column.

The encoder looks at each frame by itself, then along time at each place. Of a video-text model two
more layers see all tokens at once, and an attention pooler makes one vector of them.

Numerics: input in [0, 1]; learned positions; exact GELU (ReLU in the text tower); LayerNorm eps
1e-6, its scale stored as scale - 1 in the original's and Hugging Face's files (`scale_offset` 1)
and as it is in KerasHub's (0); attention logits l become 50·tanh(l / 50) everywhere but in the
pooler; vectors are divided by sqrt(Σx² + l2_eps).
Clips with another grid than `pos_grid` are given resampled positions, linear with antialias, as in
the original; Hugging Face does so on request only, and wants square tables.
Initial values are Hugging Face's; in the original attention kernels start narrower by sqrt(H), as
its initializer takes a head axis for an input axis.
Recorded on request, by `model.apply(..., mutable=["hidden_states", "attention"])`: `hidden_states`
encoder/spatial [B, T, S, D] and encoder/temporal [B, S, T, D], each as `embeddings`, blocks/output
(L of them first; before the norm, as in Hugging Face's last_spatial_hidden_state) and `output`
(after it, as in the original's spatial_features); auxiliary/blocks/output [L, B, N, D]; of texts,
text/embeddings and text/blocks/output. `attention` likewise, .../blocks/attn/weights, and
pool/attn/weights [B, H, 1, N].
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vidjax.json_files import Count, NotNegative, Size
from vidjax.models.layers import (
    Array,
    AttentionPool,
    Block,
    LayerNorm,
    Linear,
    PatchEmbed,
    Speed,
    grid_of,
    look_up,
    positions,
    record,
    scan_blocks,
    take_tokens,
)
from vidjax.models.layers.grids import in_stages
from vidjax.models.layers.heads import (
    Classes,
    Classifier,
    Features,
    Model,
    Pooling,
    TextVectors,
    TwoTowers,
    Vectors,
    all_tokens,
    mean_token,
)
from vidjax.models.layers.patches import FramePatch, Grid
from vidjax.models.layers.text import ClassTokenTower

_lecun_normal = nn.initializers.lecun_normal()

# g was not released. Its text tower has 16 layers with norms after the branches, too.
VARIANTS = {
    "B": {"width": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072, "text_depth": 12},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096, "text_depth": 12},
    "g": {
        "width": 1408,
        "depth": 40,
        "num_heads": 16,
        "mlp_dim": 6144,
        "text_depth": 16,
        "text_norm_out": True,
    },
}


@dataclasses.dataclass(frozen=True)
class Numerics:
    """Fields of all of VideoPrism's layers.

    Attributes:
        eps: LayerNorm's epsilon.
        scale_offset: added to the stored LayerNorm scales: 1, or 0 in KerasHub's files.
        softcap: of attention logits; 0 is none.
        speed: see `Speed`.
    """

    eps: NotNegative
    scale_offset: float = 1.0
    softcap: NotNegative = 50.0
    speed: Speed = Speed()  # noqa: RUF009 - frozen

    def norm(self, name: str) -> LayerNorm:
        """Returns a LayerNorm."""
        return LayerNorm(self.eps, self.speed.dtype, self.scale_offset, name=name)

    def pooler(self, num_heads: int, pool_dim: int) -> AttentionPool:
        """Returns an attention pooler whose heads have `pool_dim` channels together."""
        dtype = self.speed.dtype
        return AttentionPool(num_heads, pool_dim, self.eps, self.scale_offset, dtype)


@dataclasses.dataclass(frozen=True)
class Layers:
    """A stack of transformer layers.

    Attributes:
        depth, num_heads, mlp_dim: sizes.
        numerics: see `Numerics`.
    """

    depth: int
    num_heads: int
    mlp_dim: int
    numerics: Numerics

    def __call__(
        self, x: Array, *, mask: Array | None = None, padding: Array | None = None
    ) -> Array:
        """Applies the layers to tokens [B, ..., N, D]; mask and padding as in `Block`.

        They are the submodule `blocks` of the module whose compact method calls this.
        """
        numerics = self.numerics
        block = Block(
            self.num_heads,
            self.mlp_dim,
            numerics.eps,
            "gelu",
            initializer="lecun_normal",
            dtype=numerics.speed.dtype,
            attend=numerics.speed.attend(numerics.softcap),
            scale_offset=numerics.scale_offset,
            name="blocks",
        )
        depth, speed = self.depth, numerics.speed
        return scan_blocks(block, x, depth=depth, speed=speed, mask=mask, padding=padding)


class Stage(nn.Module):
    """Positions, layers, LayerNorm.

    Attributes:
        layers: see `Layers`.
        pos_grid: the grid (t, h, w) of tokens that the position table is made for.
    """

    layers: Layers
    pos_grid: tuple[int, int, int]

    @nn.compact
    def __call__(
        self,
        x: Array,
        grid: tuple[int, int, int],
        *,
        keep: Array | None = None,
        mask: Array | None = None,
        padding: Array | None = None,
    ) -> Array:
        """Maps tokens [B, R, N, D] of a grid (t, h, w), R times a clip, to the same shape.

        With `keep` [B, K], x holds only those N = K tokens of the grid.
        """
        # Wide enough that the order of frames shows: N(0, 0.02) leaves motion unlearned for long.
        init = nn.with_logical_partitioning(_lecun_normal, (None, None, "embed"))
        shape = (1, math.prod(self.pos_grid), x.shape[-1])
        table = self.param("pos_embed", init, shape, jnp.float32)[0]
        table = positions.resample_grid(table, self.pos_grid, grid, ("linear_antialias",) * 3)
        table = table.astype(x.dtype)
        x = x + (table if keep is None else look_up(table, keep)[:, None])
        record(self, "hidden_states", "embeddings", x)
        x = self.layers.numerics.norm("norm")(self.layers(x, mask=mask, padding=padding))
        record(self, "hidden_states", "output", x)
        return x


class Encoder(nn.Module):
    """From a video to tokens.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes D, L, H of the spatial layers, and the MLP's width.
        numerics: see `Numerics`.
        pos_grid: the grid (t, h, w) of tokens that the position tables are made for.
        patch_size: (1, h, w) pixels.
        temporal_depth: layers along time.
    """

    width: Size
    depth: Size
    num_heads: Size
    mlp_dim: Size
    numerics: Numerics
    pos_grid: Grid
    patch_size: FramePatch = (1, 18, 18)
    temporal_depth: Count = 4
    on_grid = staticmethod(in_stages)

    @nn.compact
    def __call__(
        self, video: Array, *, keep: Array | None = None, frame_padding: Array | None = None
    ) -> Array:
        """Encodes video [B, T, H, W, 3] in [0, 1] to tokens [B, N, D], after the last norm.

        Args:
            keep: patches [B, K] of a frame, the same in all frames, that are looked at; N is then
                T * K. None: all.
            frame_padding: bool [B, T], True for frames that fill the clip up: other frames do not
                see them.
        """
        (batch, frames), dtype = video.shape[:2], self.numerics.speed.dtype
        grid = grid_of(video.shape, self.patch_size)
        everywhere = None
        if keep is not None:
            first = jnp.arange(frames) * math.prod(grid[1:])  # of each frame
            everywhere = (first[:, None] + keep[:, None]).reshape(batch, -1)  # [B, T * K]
        embed = PatchEmbed(self.width, self.patch_size, dtype, _lecun_normal, name="patch_embed")
        x = embed(video, keep=everywhere).reshape(batch, frames, -1, self.width)  # [B, T, S, D]

        in_frame, over_time = {}, {}
        if frame_padding is not None:
            padding = jnp.asarray(frame_padding, bool)
            in_frame = {"mask": ~padding[:, :, None, None], "padding": padding[:, :, None]}
            over_time = {"mask": ~padding[:, None, None], "padding": padding[:, None]}
        t, h, w = self.pos_grid
        spatial = Stage(self.layers(self.depth), (1, h, w), name="spatial")
        x = spatial(x, (1, *grid[1:]), keep=keep, **in_frame)
        temporal = Stage(self.layers(self.temporal_depth), (t, 1, 1), name="temporal")
        x = temporal(x.swapaxes(1, 2), (frames, 1, 1), **over_time)
        return x.swapaxes(1, 2).reshape(batch, -1, self.width)

    @nn.nowrap
    def layers(self, depth: int) -> Layers:
        """Returns layers as wide as the encoder's."""
        return Layers(depth, self.num_heads, self.mlp_dim, self.numerics)


def features(encoder: Encoder) -> Features:
    """Makes the encoder alone.

    Its vector is the mean token, which says less than an attentive probe finds in the tokens.
    """
    return Features(encoder, Pooling(mean_token))


def classify(encoder: Encoder, classes: Classes, pool_dim: Size | None = None) -> Classifier:
    """Makes a classifier: encoder, attention pooler, linear head.

    Args:
        encoder, classes: see there.
        pool_dim: width of the pooler's heads together; None: D, as in the original's classifier.
            Hugging Face's has the width of the MLP.
    """
    pooler = encoder.numerics.pooler(encoder.num_heads, pool_dim or encoder.width)
    pooling = Pooling(all_tokens, "pool", pooler)
    return Classifier(encoder, pooling, classes, kernel_init=_lecun_normal)


class Auxiliary(nn.Module):
    """Layers that see all tokens of a video."""

    layers: Layers

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps tokens [B, N, D] to the same shape."""
        return self.layers(x)


class Video(Vectors):
    """One unit vector for a video.

    Attributes:
        encoder: see `Encoder`.
        auxiliary: layers between the encoder and the pooler, or None.
        pool: the pooler.
    """

    encoder: Encoder
    auxiliary: Auxiliary | None
    pool: AttentionPool

    def __call__(self, video: Array, *, frame_padding: Array | None = None) -> Array:
        """Embeds video [B, T, H, W, 3] in [0, 1]: [B, D]; see `encode_video`."""
        return self.encode_video(video, frame_padding=frame_padding)

    def embed(self, video: Array, *, frame_padding: Array | None = None) -> Array:
        """Embeds video [B, T, H, W, 3] in [0, 1]: [B, D]; see `encode_video`."""
        return self.encode_video(video, frame_padding=frame_padding)

    def encode_video(
        self,
        video: Array,
        *,
        normalise: bool = True,
        keep: Array | None = None,
        frame_padding: Array | None = None,
    ) -> Array:
        """Embeds video [B, T, H, W, 3] in [0, 1]: [B, D], of length 1 if `normalise`.

        `keep` and `frame_padding` are the encoder's. Padded frames take part in the layers after
        it, as in the original.
        """
        tokens = self.encoder(video, keep=keep, frame_padding=frame_padding)
        return self.pooled(tokens, normalise=normalise)

    def encode_frames(
        self, video: Array, *, normalise: bool = True, frame_padding: Array | None = None
    ) -> Array:
        """Returns a vector for each frame of video [B, T, H, W, 3]: [B, T, D].

        The frames have seen each other; only the pooler looks at them one by one.
        """
        tokens = self.all_seeing(self.encoder(video, frame_padding=frame_padding))
        tokens = tokens.reshape(*video.shape[:2], -1, tokens.shape[-1])  # [B, T, S, D]
        return self.normalised(self.pool(tokens), normalise)

    def pooled(self, tokens: Array, *, normalise: bool = True) -> Array:
        """Returns the vector [B, D] of the encoder's tokens [B, N, D]."""
        return self.normalised(self.pool(self.all_seeing(tokens)), normalise)

    def all_seeing(self, tokens: Array) -> Array:
        """Returns the encoder's tokens after the auxiliary layers."""
        return tokens if self.auxiliary is None else self.auxiliary(tokens)


@dataclasses.dataclass(frozen=True)
class VideoFields:
    """Fields of a model with one vector for a video.

    Attributes:
        auxiliary_depth: layers over all tokens, between the encoder and the pooler.
        pool_dim: width of the pooler's heads together; None: 4 D.
        l2_eps: added to the sum of squares that a vector is normalised by.
    """

    auxiliary_depth: Count = 2
    pool_dim: Size | None = None
    l2_eps: NotNegative = 1e-12

    def parts(self, encoder: Encoder) -> dict[str, Any]:
        """Returns the fields of `Video`."""
        depth = self.auxiliary_depth
        return {
            "l2_eps": self.l2_eps,
            "encoder": encoder,
            "auxiliary": Auxiliary(encoder.layers(depth)) if depth else None,
            "pool": self.pooler(encoder),
        }

    def pooler(self, encoder: Encoder) -> AttentionPool:
        """Returns a pooler of the encoder's tokens."""
        return encoder.numerics.pooler(encoder.num_heads, self.pool_dim or 4 * encoder.width)


def video(encoder: Encoder, fields: VideoFields) -> Video:
    """Makes a model with one unit vector for a video."""
    return Video(**fields.parts(encoder))


@dataclasses.dataclass(frozen=True)
class TextFields:
    """Fields of the text tower.

    Attributes:
        vocab_size: number of token ids.
        text_depth: layers.
        text_num_heads, text_mlp_dim: None: as many heads as the encoder has, and 4 D.
        text_pos_exponent: of the sinusoids: 1 in the original and in KerasHub, 1 - 2/D in Hugging
            Face's code.
        text_norm_out: whether its layers normalise their branches' outputs, too.
        text_inner_norm: whether it has a second norm, before the last one: KerasHub's has, which is
            the identity (but for its normalising again) until somebody trains it.
    """

    vocab_size: Size
    text_depth: Count = 12
    text_num_heads: Size | None = None
    text_mlp_dim: Size | None = None
    text_pos_exponent: float = 1.0
    text_norm_out: bool = False
    text_inner_norm: bool = False

    def tower(self, width: int, num_heads: int, numerics: Numerics) -> ClassTokenTower:
        """Returns a tower as wide as the encoder."""
        return ClassTokenTower(
            vocab_size=self.vocab_size,
            width=width,
            depth=self.text_depth,
            num_heads=self.text_num_heads or num_heads,
            mlp_dim=self.text_mlp_dim or 4 * width,
            eps=numerics.eps,
            scale_offset=numerics.scale_offset,
            softcap=numerics.softcap,
            pos_exponent=self.text_pos_exponent,
            norm_out=self.text_norm_out,
            inner_norm=self.text_inner_norm,
            speed=numerics.speed,
        )


def text(
    width: Size, num_heads: Size, numerics: Numerics, fields: TextFields, l2_eps: float = 1e-12
) -> TextVectors:
    """Makes the text tower alone.

    Args:
        width, num_heads: of the encoder that it belongs to.
        numerics, fields: see there.
        l2_eps: see `VideoFields`.
    """
    return TextVectors(l2_eps, fields.tower(width, num_heads, numerics), text_proj=None)


class VideoText(TwoTowers, Video):
    """Videos and texts in one space, see both."""


def video_text(
    encoder: Encoder,
    video: VideoFields,
    text: TextFields,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
) -> VideoText:
    """Makes a model of videos and texts.

    Args:
        encoder, video, text: see there.
        logit_scale, logit_bias: see `TwoTowers`; no release has them. The original's example
            divides cosines by 0.01, then takes a softmax over the texts.
    """
    return VideoText(
        **video.parts(encoder),
        text=text.tower(encoder.width, encoder.num_heads, encoder.numerics),
        text_proj=None,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
    )


class Decoder(nn.Module):
    """A few layers that predict the teacher's tokens from the student's.

    Given an `order`, absent tokens are replaced by a learned one, all are put in that order, and
    positions are added to the places: where a token is from it must tell itself. The paper does
    not say which positions, nor in which width: fixed 1-D sin-cos ones in the decoder's, here.

    Attributes:
        width: of the decoder.
        layers: see `Layers`.
    """

    width: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Array, order: Array | None = None) -> Array:
        """Maps the student's tokens [B, M, D] to [B, N, D], N as of `order` [B, N], or N = M."""
        size, out = (self.width,), x.shape[-1:]
        options = {"kernel_init": _lecun_normal, "dtype": self.layers.numerics.speed.dtype}
        x = Linear(size, ("embed", "embed_decoder"), name="embed", **options)(x)
        if order is not None:
            normal, axes = nn.initializers.normal(0.02), (None, None, "embed_decoder")
            normal = nn.with_logical_partitioning(normal, axes)
            token = self.param("mask_token", normal, (1, 1, *size), jnp.float32)
            tokens = order.shape[1]
            absent = (x.shape[0], tokens - x.shape[1], *size)
            x = jnp.concatenate([x, jnp.broadcast_to(token.astype(x.dtype), absent)], axis=1)
            x = take_tokens(x, order) + positions.sincos_1d(tokens, *size).astype(x.dtype)
        x = self.layers.numerics.norm("norm")(self.layers(x))
        return Linear(out, ("embed_decoder", "embed"), name="head", **options)(x)


class Distiller(Model):
    """Student, its decoders and teacher of VideoPrism's second stage (arXiv:2402.13217, 3.3).

    The teacher is a model of stage 1, with auxiliary layers if it has any; it must be frozen.
    """

    encoder: Encoder
    decoder: Decoder
    global_decoder: Decoder
    global_pool: AttentionPool
    teacher: Video

    def __call__(self, video: Array, keep: Array, order: Array) -> tuple[Array, Array]:
        """Returns the student's predictions from patches `keep` of video [B, T, H, W, 3].

        Args:
            video: in [0, 1].
            keep: [B, K], the patches of a frame, the same in all frames.
            order: [B, N], a permutation of all tokens for each clip.

        Returns:
            All tokens of the teacher as predicted, [B, N, D], and its vector, [B, D].
        """
        if self.is_initializing():
            self.teacher(video)
        seen = self.encoder(video, keep=keep)
        return self.decoder(seen, order), self.global_pool(self.global_decoder(seen))

    def targets(self, video: Array) -> tuple[Array, Array]:
        """Returns the teacher's tokens [B, N, D] of the whole video, and its vector [B, D]."""
        tokens = self.teacher.encoder(video)
        return tokens, self.teacher.pooled(tokens)

    def embed(self, video: Array) -> Array:
        """Returns the student's mean token [B, D] of the whole video."""
        return mean_token(self.encoder(video))


def distil(
    encoder: Encoder,
    video: VideoFields,
    decoder_width: Size = 512,
    decoder_depth: Count = 4,
    decoder_num_heads: Size = 8,
    decoder_mlp_dim: Size = 2048,
) -> Distiller:
    """Makes the networks of the second stage.

    Args:
        encoder, video: of student and teacher.
        decoder_width, decoder_depth, decoder_num_heads, decoder_mlp_dim: of both decoders. The
            paper gives all but the number of heads.
    """
    layers = Layers(decoder_depth, decoder_num_heads, decoder_mlp_dim, encoder.numerics)
    return Distiller(
        encoder,
        Decoder(decoder_width, layers),
        Decoder(decoder_width, layers),
        video.pooler(encoder),
        Video(**video.parts(encoder.clone())),
    )


def adapt(
    params: dict[str, np.ndarray], source: Mapping[str, Any], target: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Starts a model from another VideoPrism.

    A distiller's student and teacher both start as the source's encoder, and the teacher gets its
    other parts; position tables of other grids are resampled as in the forward pass.

    Arguments and results are those of `vidjax.models.adapt`.
    """
    if source["name"] != "videoprism" or target["head"] == "text":
        return params, []
    params, notes = dict(params), []
    if target["head"] == "distil" and source["head"] != "distil":
        parts = ("encoder/", "auxiliary/", "pool/")
        teacher = {f"teacher/{k}": v for k, v in params.items() if k.startswith(parts)}
        params = {k: v for k, v in params.items() if not k.startswith(parts[1:])} | teacher
        notes.append("the teacher is the checkpoint, the student starts as its encoder")
    new = target["pos_grid"]
    old = tuple(source.get("pos_grid", new))
    if old != new:
        for path in [path for path in params if path.endswith("/pos_embed")]:
            grids = (positions.stage_grid(path, grid) for grid in (old, new))
            table = positions.resample_grid(params[path][0], *grids, ("linear_antialias",) * 3)
            params[path] = table[None]
        notes.append(f"positions resampled from {old} to {new} tokens")
    return params, notes


HEADS = {
    None: features,
    "video": video,
    "text": text,
    "video_text": video_text,
    "classify": classify,
    "distil": distil,
}

USES = {"classify": "predict", "video": "embed", "video_text": "compare", "text": None}
INHERITED = ("scale_offset", "softcap", "l2_eps", "text_pos_exponent", "auxiliary_depth")
NOTED = ("eps", "patch_size")
STAGES = ("encoder/spatial/", "encoder/temporal/")
DEMO = {
    "width": 64,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 256,
    "patch_size": (1, 8, 8),
    "temporal_depth": 2,
    "text_depth": 2,
    "decoder_width": 64,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
    "decoder_mlp_dim": 256,
}
