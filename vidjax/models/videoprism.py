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

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vidjax.models import positions
from vidjax.models.attention import attend
from vidjax.models.layers import (
    Array,
    AttentionPool,
    Block,
    LayerNorm,
    Linear,
    PatchEmbed,
    check_frame_patches,
    fields_of,
    grid_of,
    look_up,
    record,
    scan_blocks,
    take_tokens,
    unit,
)
from vidjax.models.text import ClassTokenTower, TwoTowers

# g was not released. Its text tower has 16 layers with norms after the branches, too.
VARIANTS = {
    "B": dict(width=768, depth=12, num_heads=12, mlp_dim=3072, text_depth=12),
    "L": dict(width=1024, depth=24, num_heads=16, mlp_dim=4096, text_depth=12),
    "g": dict(
        width=1408, depth=40, num_heads=16, mlp_dim=6144, text_depth=16, text_norm_out=True
    ),
}  # fmt: skip


class EncoderFields(nn.Module, kw_only=True):
    """What describes the encoder.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes D, L, H of the spatial layers, and the MLP's width.
        eps: LayerNorm's epsilon.
        scale_offset: added to the stored LayerNorm scales: 1, or 0 in KerasHub's files.
        pos_grid: the grid (t, h, w) of tokens that the position tables are made for.
        patch_size: (1, h, w) pixels.
        temporal_depth: layers along time.
        softcap: of attention logits; 0 is none.
        remat, unroll: see `scan_blocks`.
        attention: how it is computed, see `attention.attend`.
        dtype: compute dtype; parameters are float32.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    eps: float
    scale_offset: float = 1.0
    pos_grid: tuple[int, int, int]
    patch_size: tuple[int, int, int] = (1, 18, 18)
    temporal_depth: int = 4
    softcap: float = 50.0
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_frame_patches(self)

    def token_grid(self, clip: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens (t, h, w) of a clip of (T, H, W) pixels."""
        return grid_of((1, *clip), self.patch_size)

    def pooler(self, pool_dim: int | None) -> AttentionPool:
        """A pooler of that width, by default 4 D."""
        pool_dim = pool_dim or 4 * self.width
        return AttentionPool(self.num_heads, pool_dim, self.eps, self.scale_offset, self.dtype)

    def example_video(self) -> jax.ShapeDtypeStruct:
        """Shape of the smallest video with which the parameters can be initialised."""
        return jax.ShapeDtypeStruct((1, *self.patch_size, 3), jnp.float32)


def run_blocks(
    module: EncoderFields,
    x: Array,
    *,
    mask: Array | None = None,
    padding: Array | None = None,
    **sizes: int,
) -> Array:
    """Applies layers to tokens [B, ..., N, D], as submodule `blocks` of the module whose they are.

    mask and padding as in `Block`; `sizes` are depth, num_heads and mlp_dim, if not the module's.
    """
    sizes = {key: getattr(module, key) for key in ("depth", "num_heads", "mlp_dim")} | sizes
    block = Block(
        sizes["num_heads"],
        sizes["mlp_dim"],
        module.eps,
        "gelu",
        initializer="lecun_normal",
        dtype=module.dtype,
        attend=functools.partial(attend, softcap=module.softcap, implementation=module.attention),
        scale_offset=module.scale_offset,
        name="blocks",
    )
    return scan_blocks(
        block,
        x,
        depth=sizes["depth"],
        remat=module.remat,
        unroll=module.unroll,
        mask=mask,
        padding=padding,
    )


class Stage(EncoderFields):
    """Positions, layers, LayerNorm."""

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

        Of `keep` [B, K] only these N = K tokens of the grid are there.
        """
        # Wide enough that the order of frames shows: N(0, 0.02) leaves motion unlearned for long.
        init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), (None, None, "embed"))
        rows = int(np.prod(self.pos_grid))
        table = self.param("pos_embed", init, (1, rows, self.width), jnp.float32)[0]
        table = positions.resample_grid(table, self.pos_grid, grid, ("linear_antialias",) * 3)
        table = table.astype(self.dtype)
        x = x + (table if keep is None else look_up(table, keep)[:, None])
        record(self, "hidden_states", "embeddings", x)
        x = run_blocks(self, x, mask=mask, padding=padding)
        x = LayerNorm(self.eps, self.dtype, self.scale_offset, name="norm")(x)
        record(self, "hidden_states", "output", x)
        return x


class Encoder(EncoderFields):
    """From a video to tokens."""

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
        batch, frames = video.shape[:2]
        grid = self.token_grid(video.shape[1:4])
        patches = grid[1] * grid[2]
        everywhere = None
        if keep is not None:
            everywhere = jnp.arange(frames)[:, None] * patches + keep[:, None]  # [B, T, K]
            everywhere = everywhere.reshape(batch, -1)
        init = nn.initializers.lecun_normal()
        embed = PatchEmbed(self.width, self.patch_size, self.dtype, init, name="patch_embed")
        x = embed(video, keep=everywhere).reshape(batch, frames, -1, self.width)  # [B, T, S, D]

        in_frame, over_time = {}, {}
        if frame_padding is not None:
            padding = jnp.asarray(frame_padding, bool)
            in_frame = {"mask": ~padding[:, :, None, None], "padding": padding[:, :, None]}
            over_time = {"mask": ~padding[:, None, None], "padding": padding[:, None]}
        fields = fields_of(self, EncoderFields)
        t, h, w = self.pos_grid
        spatial = Stage(**fields | {"pos_grid": (1, h, w)}, name="spatial")
        x = spatial(x, (1, *grid[1:]), keep=keep, **in_frame)
        fields |= {"pos_grid": (t, 1, 1), "depth": self.temporal_depth}
        x = Stage(**fields, name="temporal")(x.swapaxes(1, 2), (frames, 1, 1), **over_time)
        return x.swapaxes(1, 2).reshape(batch, -1, self.width)


class Features(EncoderFields):
    """The encoder alone."""

    def setup(self) -> None:
        self.encoder = Encoder(**fields_of(self, EncoderFields))

    def __call__(
        self, video: Array, *, frame_padding: Array | None = None, train: bool = False
    ) -> Array:
        """Encodes video [B, T, H, W, 3] in [0, 1] to tokens [B, N, D], see `Encoder`."""
        return self.encoder(video, frame_padding=frame_padding)

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """The mean token [B, D], which says less than an attentive probe finds in the tokens."""
        return self(video).mean(1)

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": self.example_video()}


class Auxiliary(EncoderFields):
    """Layers that see all tokens of a video."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps tokens [B, N, D] to the same shape."""
        return run_blocks(self, x)


class VideoFields(EncoderFields, kw_only=True):
    """What describes a model with one vector for a video.

    Attributes:
        auxiliary_depth: layers over all tokens, between the encoder and the pooler.
        pool_dim: width of the pooler's heads together; None: 4 D.
        l2_eps: added to the sum of squares that a vector is normalised by.
    """

    auxiliary_depth: int = 2
    pool_dim: int | None = None
    l2_eps: float = 1e-12


class Video(VideoFields):
    """One unit vector for a video."""

    def setup(self) -> None:
        self.encoder = Encoder(**fields_of(self, EncoderFields))
        if self.auxiliary_depth:
            fields = fields_of(self, EncoderFields) | {"depth": self.auxiliary_depth}
            self.auxiliary = Auxiliary(**fields)
        self.pool = self.pooler(self.pool_dim)

    def __call__(
        self, video: Array, *, frame_padding: Array | None = None, train: bool = False
    ) -> Array:
        """Embeds video [B, T, H, W, 3] in [0, 1]: [B, D]; see `encode_video`."""
        return self.encode_video(video, frame_padding=frame_padding)

    def embed(
        self, video: Array, *, frame_padding: Array | None = None, train: bool = False
    ) -> Array:
        """The same."""
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
        """One vector for each frame of video [B, T, H, W, 3]: [B, T, D].

        The frames have seen each other; only the pooler looks at them one by one.
        """
        tokens = self.all_seeing(self.encoder(video, frame_padding=frame_padding))
        tokens = tokens.reshape(*video.shape[:2], -1, self.width)  # [B, T, S, D]
        return self.normalised(self.pool(tokens), normalise)

    def pooled(self, tokens: Array, *, normalise: bool = True) -> Array:
        """The vector [B, D] of the encoder's tokens [B, N, D]."""
        return self.normalised(self.pool(self.all_seeing(tokens)), normalise)

    def all_seeing(self, tokens: Array) -> Array:
        """The encoder's tokens after the auxiliary layers."""
        return self.auxiliary(tokens) if self.auxiliary_depth else tokens

    def normalised(self, x: Array, normalise: bool = True) -> Array:
        return unit(x, self.l2_eps) if normalise else x

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": self.example_video()}


class TextFields(nn.Module, kw_only=True):
    """What describes the text tower beside what it shares with the encoder.

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

    width: int
    num_heads: int
    eps: float
    scale_offset: float = 1.0
    softcap: float = 50.0
    l2_eps: float = 1e-12
    vocab_size: int
    text_depth: int = 12
    text_num_heads: int | None = None
    text_mlp_dim: int | None = None
    text_pos_exponent: float = 1.0
    text_norm_out: bool = False
    text_inner_norm: bool = False
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: str = "float32"

    def tower(self) -> ClassTokenTower:
        return ClassTokenTower(
            vocab_size=self.vocab_size,
            width=self.width,
            depth=self.text_depth,
            num_heads=self.text_num_heads or self.num_heads,
            mlp_dim=self.text_mlp_dim or 4 * self.width,
            eps=self.eps,
            scale_offset=self.scale_offset,
            softcap=self.softcap,
            pos_exponent=self.text_pos_exponent,
            norm_out=self.text_norm_out,
            inner_norm=self.text_inner_norm,
            remat=self.remat,
            unroll=self.unroll,
            attention=self.attention,
            dtype=self.dtype,
        )

    def encode_text(
        self, text: Array, mask: Array | None = None, *, normalise: bool = True
    ) -> Array:
        """Embeds token ids [J, L], mask [J, L] being False at padding: [J, D]."""
        x = self.text(text, mask)[:, -1]
        return unit(x, self.l2_eps) if normalise else x

    def example_text(self) -> jax.ShapeDtypeStruct:
        """Shape of the smallest text with which the parameters can be initialised."""
        return jax.ShapeDtypeStruct((1, 1), jnp.int32)


class Text(TextFields):
    """The text tower alone."""

    def setup(self) -> None:
        self.text = self.tower()

    def __call__(self, text: Array, mask: Array | None = None, *, train: bool = False) -> Array:
        """See `encode_text`."""
        return self.encode_text(text, mask)

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"text": self.example_text()}


class VideoText(Video, TextFields, TwoTowers, kw_only=True):
    """Videos and texts in one space; either can be left out by calling the other's method.

    Attributes:
        logit_scale: initial value of a learned scalar, the logarithm of what similarities are
            multiplied by; None: there is none, as in every release.
        logit_bias: likewise of what is then added.
    """

    logit_scale: float | None = None
    logit_bias: float | None = None

    def setup(self) -> None:
        super().setup()
        self.text = self.tower()
        for name in ("logit_scale", "logit_bias"):
            value = getattr(self, name)
            if value is not None:
                init = nn.initializers.constant(value)
                setattr(self, f"learned_{name}", self.param(name, init, (), jnp.float32))

    def __call__(
        self,
        video: Array,
        text: Array,
        mask: Array | None = None,
        *,
        temperature: float | None = None,
        frame_padding: Array | None = None,
        train: bool = False,
    ) -> Array:
        """Similarities [B, J] of videos [B, T, H, W, 3] in [0, 1] and texts [J, L].

        Cosines, times the learned scale if there is one, or divided by `temperature` if given
        (0.01 in the original's example, which then takes a softmax over the texts).
        """
        videos = self.video_features(video, frame_padding=frame_padding)
        return self.similarity(videos, self.text_features(text, mask), temperature=temperature)

    def calibration(self) -> tuple[Array | float, Array | float]:
        """What cosines are multiplied by, and what is added: learned, or 1 and 0."""
        scale = 1.0 if self.logit_scale is None else jnp.exp(self.learned_logit_scale)
        return scale, 0.0 if self.logit_bias is None else self.learned_logit_bias

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": self.example_video(), "text": self.example_text()}


class DistillerFields(VideoFields, kw_only=True):
    """What describes the second stage's networks beside student and teacher.

    Attributes:
        decoder_width, decoder_depth, decoder_num_heads, decoder_mlp_dim: of both decoders. The
            paper gives all but the number of heads.
    """

    decoder_width: int = 512
    decoder_depth: int = 4
    decoder_num_heads: int = 8
    decoder_mlp_dim: int = 2048


class Decoder(DistillerFields):
    """A few layers that predict the teacher's tokens from the student's.

    Given an `order`, absent tokens are replaced by a learned one, all are put in that order, and
    positions are added to the places: where a token is from it must tell itself. The paper does
    not say which positions, nor in which width: fixed 1-D sin-cos ones in the decoder's, here.
    """

    @nn.compact
    def __call__(self, x: Array, order: Array | None = None) -> Array:
        """Maps the student's tokens [B, M, D] to [B, N, D], N as of `order` [B, N], or N = M."""
        size = (self.decoder_width,)
        init = nn.initializers.lecun_normal()
        axes = ("embed", "embed_decoder")
        x = Linear(size, axes, kernel_init=init, dtype=self.dtype, name="embed")(x)
        if order is not None:
            normal = nn.with_logical_partitioning(
                nn.initializers.normal(0.02), (None, None, "embed_decoder")
            )
            token = self.param("mask_token", normal, (1, 1, *size), jnp.float32)
            tokens = order.shape[1]
            absent = (x.shape[0], tokens - x.shape[1], *size)
            x = jnp.concatenate([x, jnp.broadcast_to(token.astype(x.dtype), absent)], axis=1)
            x = take_tokens(x, order) + positions.sincos_1d(tokens, *size).astype(x.dtype)
        x = run_blocks(
            self,
            x,
            depth=self.decoder_depth,
            num_heads=self.decoder_num_heads,
            mlp_dim=self.decoder_mlp_dim,
        )
        x = LayerNorm(self.eps, self.dtype, self.scale_offset, name="norm")(x)
        axes = ("embed_decoder", "embed")
        return Linear((self.width,), axes, kernel_init=init, dtype=self.dtype, name="head")(x)


class Distiller(DistillerFields):
    """Student, its decoders and teacher of VideoPrism's second stage (arXiv:2402.13217, 3.3).

    The teacher is a model of stage 1, with auxiliary layers if it has any; it must be frozen.
    """

    def setup(self) -> None:
        self.encoder = Encoder(**fields_of(self, EncoderFields))
        fields = fields_of(self, DistillerFields)
        self.decoder, self.global_decoder = Decoder(**fields), Decoder(**fields)
        self.global_pool = self.pooler(self.pool_dim)
        self.teacher = Video(**fields_of(self, VideoFields))

    def __call__(
        self, video: Array, keep: Array, order: Array, *, train: bool = False
    ) -> tuple[Array, Array]:
        """What the student makes of patches `keep` [B, K] of video [B, T, H, W, 3] in [0, 1].

        Args:
            keep: the patches of a frame, the same in all frames.
            order: [B, N], a permutation of all tokens for each clip.

        Returns:
            All tokens of the teacher as predicted, [B, N, D], and its vector, [B, D].
        """
        if self.is_initializing():
            self.teacher(video)
        seen = self.encoder(video, keep=keep)
        return self.decoder(seen, order), self.global_pool(self.global_decoder(seen))

    def targets(self, video: Array) -> tuple[Array, Array]:
        """The teacher's tokens [B, N, D] of the whole video, and its vector [B, D]."""
        tokens = self.teacher.encoder(video)
        return tokens, self.teacher.pooled(tokens)

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """The student's mean token [B, D] of the whole video."""
        return self.encoder(video).mean(1)

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        return {"video": self.example_video(), "keep": tokens, "order": tokens}


class Classifier(EncoderFields, kw_only=True):
    """The encoder, an attention pooler, a linear head.

    Attributes:
        pool_dim: width of the pooler's heads together; None: D, as in the original's classifier.
            Hugging Face's has the width of the MLP.
        num_classes: number of classes C; 0 has no head, the output is what it would see.
        groups: names and sizes of several answers in one output, in its order; () is one answer.
    """

    pool_dim: int | None = None
    num_classes: int
    groups: tuple[tuple[str, int], ...] = ()

    def setup(self) -> None:
        self.encoder = Encoder(**fields_of(self, EncoderFields))
        self.pool = self.pooler(self.pool_dim or self.width)
        if self.num_classes:
            init = nn.initializers.lecun_normal()
            axes = ("embed", "classes")
            self.head = Linear((self.num_classes,), axes, kernel_init=init, dtype=self.dtype)

    def __call__(
        self, video: Array, *, frame_padding: Array | None = None, train: bool = False
    ) -> Array:
        """Class scores [B, C] of video [B, T, H, W, 3] in [0, 1]."""
        x = self.embed(video, frame_padding=frame_padding)
        return self.head(x) if self.num_classes else x

    def embed(
        self, video: Array, *, frame_padding: Array | None = None, train: bool = False
    ) -> Array:
        """What the head sees, [B, D]."""
        return self.pool(self.encoder(video, frame_padding=frame_padding))

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": self.example_video()}


def adapt(
    params: dict[str, np.ndarray], source: Mapping[str, Any], model: nn.Module
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Starts a model from another VideoPrism.

    A distiller's student and teacher both start as the source's encoder, and the teacher gets its
    other parts; position tables of other grids are resampled as in the forward pass.

    Args:
        params: by "/"-joined name.
        source: fields of the model that they are of.
        model: the one to start.

    Returns:
        Parameters, and what was done.
    """
    if source["name"] != "videoprism" or isinstance(model, Text):
        return params, []
    params, notes = dict(params), []
    if isinstance(model, Distiller) and source["head"] != "distil":
        parts = ("encoder/", "auxiliary/", "pool/")
        teacher = {f"teacher/{k}": v for k, v in params.items() if k.startswith(parts)}
        params = {k: v for k, v in params.items() if not k.startswith(parts[1:])} | teacher
        notes.append("the teacher is the checkpoint, the student starts as its encoder")
    old, new = tuple(source.get("pos_grid", model.pos_grid)), model.pos_grid
    if old != new:
        grids = {"spatial": [(1, *g[1:]) for g in (old, new)],
                 "temporal": [(g[0], 1, 1) for g in (old, new)]}  # fmt: skip
        for path in [path for path in params if path.endswith("/pos_embed")]:
            sizes = grids[path.split("/")[-2]]
            table = positions.resample_grid(params[path][0], *sizes, ("linear_antialias",) * 3)
            params[path] = table[None]
        notes.append(f"positions resampled from {old} to {new} tokens")
    return params, notes


HEADS: dict[str | None, Any] = {
    None: Features,
    "video": Video,
    "text": Text,
    "video_text": VideoText,
    "classify": Classifier,
    "distil": Distiller,
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
