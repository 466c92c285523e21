"""X-CLIP (Ni et al. 2022, arXiv:2208.02816), and CLIP (arXiv:2103.00020), which it starts from.

Reference: microsoft/VideoX X-CLIP/models; transformers models/x_clip and models/clip (5.23).
Shapes: B clips, T frames, N = h * w patches of a frame, D width, E width of what videos and texts
share, K texts, W text width, L layers, H heads.

CLIP's image tower looks at each frame, and in every layer the frames of a video also exchange one
message token each. A transformer integrates the frames' vectors, and texts are bent towards the
video before they are compared with it, so a text has another vector for each video.

Numerics: quick GELU x·sigmoid(1.702x); LayerNorm eps 1e-5; vectors are divided by their length,
without an epsilon; a text's vector is taken where its largest id is, the end of text (or where
`end_id` is, in CLIPs whose vocabulary goes on after it). Attention is along one frame's tokens, one
video's messages, or a video's patches; never over clips.
Clips of another size get the patches' positions resampled, bicubic as in transformers'
`interpolate_pos_encoding`, and those of another length the frames' positions, linear, which no
reference does.
Initial values of the parts that X-CLIP adds are the original's. CLIP's own parts, which it never
trains from nothing, begin with usual widths that are not CLIP's.
Recorded on request, by `model.apply(..., mutable=["hidden_states", "attention"])`: `hidden_states`
encoder/embeddings [B, T, N + 1, D] and encoder/blocks/output [L, B, T, N + 1, D],
mit/blocks/output [L, B, T, E], prompts/blocks/output [L, B, K, E], and of texts of J tokens
text/embeddings [K, J, W] and text/blocks/output [L, K, J, W]; `attention` likewise,
.../blocks/attn/weights, and encoder/blocks/message_attn/weights [L, B, H, T, T].
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vidjax.models import positions
from vidjax.models.attention import Attend, attend
from vidjax.models.layers import (
    Array,
    Attention,
    Block,
    LayerNorm,
    Linear,
    Mlp,
    PatchEmbed,
    at_least_float32,
    check_frame_patches,
    drop_path,
    fields_of,
    finish_block,
    grid_of,
    record,
    scan_blocks,
    torch_uniform,
    unit,
)
from vidjax.models.text import EndTokenTower, TwoTowers

_TEXT_B = dict(embed_dim=512, text_width=512, text_num_heads=8)
_TEXT_L = dict(embed_dim=768, text_width=768, text_num_heads=12)
_SIZES = {  # of vision towers; text towers have 12 layers
    "B": dict(width=768, depth=12, num_heads=12, mlp_dim=3072, **_TEXT_B),
    "L": dict(width=1024, depth=24, num_heads=16, mlp_dim=4096, **_TEXT_L),
}
# Heads of the parts that X-CLIP adds are E / 64, as in the original; transformers' L has 8.
VARIANTS = {
    "B/32": dict(patch_size=(1, 32, 32), mit_num_heads=8, prompt_num_heads=8, **_SIZES["B"]),
    "B/16": dict(patch_size=(1, 16, 16), mit_num_heads=8, prompt_num_heads=8, **_SIZES["B"]),
    "L/14": dict(patch_size=(1, 14, 14), mit_num_heads=12, prompt_num_heads=12, **_SIZES["L"]),
}
TOKENIZER = "clip"  # the kind of vocabulary that its texts need


class EncoderFields(nn.Module, kw_only=True):
    """What describes the vision tower.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes D, L, H, and the MLP's width.
        patch_size: (1, h, w) pixels.
        pos_grid: (t, h, w): the number of frames that positions of frames are made for, and the
            patches of a frame.
        eps: LayerNorm's epsilon, of all towers.
        act: of all towers; "gelu" in some CLIPs of other authors.
        drop_path: stochastic depth of the last layer in training, see `scan_blocks`; whole clips
            drop a branch, where the original's frames each decide for themselves.
        remat, unroll: see `scan_blocks`.
        attention: how it is computed, see `attention.attend`.
        dtype: compute dtype; parameters are float32.
    """

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    patch_size: tuple[int, int, int]
    pos_grid: tuple[int, int, int]
    eps: float
    act: str = "quick_gelu"
    drop_path: float = 0.0
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_frame_patches(self)

    def token_grid(self, clip: tuple[int, int, int]) -> tuple[int, int, int]:
        """Patches (t, h, w) of a clip of (T, H, W) pixels."""
        return grid_of((1, *clip), self.patch_size)

    def example_video(self) -> jax.ShapeDtypeStruct:
        """Shape of the smallest video with which the parameters can be initialised."""
        return jax.ShapeDtypeStruct((1, *self.patch_size, 3), jnp.float32)


class CrossFrameBlock(nn.Module):
    """A transformer layer whose frames exchange messages (X-CLIP's CrossFramelAttentionBlock).

    Each frame makes a message of its class token, the messages of a video attend to each other, and
    the frame's tokens attend to themselves and to its message, which is then dropped.
    """

    num_heads: int
    mlp_dim: int
    eps: float
    act: str
    dtype: Any = jnp.float32
    attend: Attend = attend

    @nn.compact
    def __call__(self, x: Array, *, drop_rate: Array | None = None) -> Array:
        """Maps x [B, T, N + 1, D], class tokens first, to the same shape."""

        def norm(name: str, x: Array) -> Array:
            return LayerNorm(self.eps, self.dtype, name=name)(x)

        def attention(name: str) -> Attention:
            options = dict(initializer="torch", dtype=self.dtype, attend=self.attend)
            return Attention(self.num_heads, name=name, **options)

        width = x.shape[-1]
        message = Linear(
            (width,),
            ("embed", None),
            kernel_init=torch_uniform(width),
            bias_init=torch_uniform(width),
            dtype=self.dtype,
            name="message_fc",
        )(x[:, :, 0])  # [B, T, D], of class tokens as they are, not normalised
        y = attention("message_attn")(norm("message_norm", message))
        message = message + drop_path(self, y, drop_rate)

        tokens = norm("norm1", jnp.concatenate([x, message[:, :, None]], axis=2))
        # What the message itself would see is dropped: it need not ask.
        y = attention("attn")(tokens[:, :, :-1], context=tokens)
        x = x + drop_path(self, y, drop_rate)
        y = Mlp(self.mlp_dim, self.act, "torch", self.dtype, name="mlp")(norm("norm2", x))
        return finish_block(self, x + drop_path(self, y, drop_rate))


class Encoder(EncoderFields):
    """From a video to tokens, and a vector for each frame."""

    def block(self) -> nn.Module:
        fields = self.num_heads, self.mlp_dim, self.eps, self.act
        seen = functools.partial(attend, implementation=self.attention)
        return CrossFrameBlock(*fields, dtype=self.dtype, attend=seen, name="blocks")

    @nn.compact
    def __call__(self, video: Array, *, train: bool = False) -> tuple[Array, Array]:
        """Encodes video [B, T, H, W, 3], normalised.

        Returns:
            Tokens [B, T, N + 1, D] after the last layer, class tokens first, and the normalised
            class tokens [B, T, D].
        """
        batch, frames = video.shape[:2]
        _, *grid = self.token_grid(video.shape[1:4])
        std = self.width**-0.5
        x = PatchEmbed(self.width, self.patch_size, self.dtype, use_bias=False, name="patch_embed")(
            video
        ).reshape(batch, frames, -1, self.width)
        normal = nn.initializers.normal(std)
        boxed = nn.with_logical_partitioning(normal, (None, None, "embed"))
        token = self.param("cls_token", boxed, (1, 1, self.width), jnp.float32).astype(self.dtype)
        _, h, w = self.pos_grid
        table = self.param("pos_embed", boxed, (1, h * w + 1, self.width), jnp.float32)[0]
        patches = positions.resample_grid(table[1:], (1, h, w), (1, *grid))
        table = jnp.concatenate([table[:1], patches]).astype(self.dtype)
        token = jnp.broadcast_to(token, (batch, frames, 1, self.width))
        x = jnp.concatenate([token, x], axis=2) + table
        x = LayerNorm(self.eps, self.dtype, name="norm_pre")(x)
        record(self, "hidden_states", "embeddings", x)
        x = scan_blocks(
            self.block(),
            x,
            depth=self.depth,
            drop_path=self.drop_path if train else 0.0,
            remat=self.remat,
            unroll=self.unroll,
        )
        return x, LayerNorm(self.eps, self.dtype, name="norm")(x[:, :, 0])


class ImageEncoder(Encoder):
    """CLIP's image tower: frames know nothing of each other."""

    def block(self) -> nn.Module:
        fields = self.num_heads, self.mlp_dim, self.eps, self.act
        seen = functools.partial(attend, implementation=self.attention)
        options = dict(initializer="torch", dtype=self.dtype, attend=seen)
        return Block(*fields, name="blocks", **options)


def projection(width: int, embed_dim: int, dtype: Any) -> Linear:
    """Returns the layer that leads from a tower's width to what videos and texts share."""
    init = nn.initializers.normal(width**-0.5)
    return Linear((embed_dim,), ("embed", None), use_bias=False, kernel_init=init, dtype=dtype)


class Features(EncoderFields):
    """X-CLIP's vision tower alone."""

    def setup(self) -> None:
        self.encoder = Encoder(**fields_of(self, EncoderFields))

    def __call__(self, video: Array, *, train: bool = False) -> Array:
        """Encodes video [B, T, H, W, 3] to tokens [B, T * (N + 1), D], frame by frame."""
        tokens, _ = self.encoder(video, train=train)
        return tokens.reshape(len(video), -1, self.width)

    def frame_vectors(self, video: Array) -> Array:
        """The normalised class tokens [B, T, D]."""
        return self.encoder(video)[1]

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """Their mean over the frames, [B, D]."""
        return self.encoder(video, train=train)[1].mean(1)

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": self.example_video()}


class Image(Features, kw_only=True):
    """CLIP's image tower alone, frame by frame.

    Attributes:
        embed_dim: width E of a projection (CLIPVisionModelWithProjection); None: there is none.
    """

    embed_dim: int | None = None

    def setup(self) -> None:
        self.encoder = ImageEncoder(**fields_of(self, EncoderFields))
        if self.embed_dim:
            self.video_proj = projection(self.width, self.embed_dim, self.dtype)

    def __call__(self, video: Array, *, train: bool = False) -> Array:
        """Encodes video [B, T, H, W, 3] to tokens [B, T * (N + 1), D], frame by frame."""
        if self.is_initializing():
            self.frame_vectors(video)  # makes the projection's parameters
        return super().__call__(video, train=train)

    def frame_vectors(self, video: Array, *, train: bool = False) -> Array:
        """Returns the normalised class tokens: [B, T, D], or projected [B, T, E]."""
        x = self.encoder(video, train=train)[1]
        return self.video_proj(x) if self.embed_dim else x

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """Returns the mean of `frame_vectors` over the frames: [B, D or E]."""
        return self.frame_vectors(video, train=train).mean(1)


class TextFields(nn.Module, kw_only=True):
    """What describes the text tower.

    Attributes:
        text_width, text_depth, text_num_heads, text_mlp_dim: sizes; the last is 4 W if None.
        vocab_size: number of token ids.
        context_length: tokens that positions are learned for.
        end_id: id that ends a text; None: the largest id of each text, as in the originals.
    """

    text_width: int
    text_num_heads: int
    text_depth: int = 12
    text_mlp_dim: int | None = None
    vocab_size: int = 49_408
    context_length: int = 77
    end_id: int | None = None
    eps: float
    act: str = "quick_gelu"
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: str = "float32"

    def tower(self) -> EndTokenTower:
        return EndTokenTower(
            vocab_size=self.vocab_size,
            context_length=self.context_length,
            width=self.text_width,
            depth=self.text_depth,
            num_heads=self.text_num_heads,
            mlp_dim=self.text_mlp_dim or 4 * self.text_width,
            eps=self.eps,
            act=self.act,
            end_id=self.end_id,
            remat=self.remat,
            unroll=self.unroll,
            attention=self.attention,
            dtype=self.dtype,
        )

    def example_text(self) -> jax.ShapeDtypeStruct:
        """Shape of the smallest text with which the parameters can be initialised."""
        return jax.ShapeDtypeStruct((1, 1), jnp.int32)


class Text(TextFields, kw_only=True):
    """The text tower alone.

    Attributes:
        embed_dim: width E of a projection (CLIPTextModelWithProjection); None: there is none.
    """

    embed_dim: int | None = None

    def setup(self) -> None:
        self.text = self.tower()
        if self.embed_dim:
            self.text_proj = projection(self.text_width, self.embed_dim, self.dtype)

    def __call__(self, text: Array, mask: Array | None = None, *, train: bool = False) -> Array:
        """See `encode_text`."""
        return self.encode_text(text, mask)

    def encode_text(self, text: Array, mask: Array | None = None) -> Array:
        """Returns the end tokens of ids [K, L] after the last norm: [K, W], or projected [K, E]."""
        x = self.text.pool(text, mask)
        return self.text_proj(x) if self.embed_dim else x

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"text": self.example_text()}


class Integration(nn.Module):
    """One vector for the vectors of a video's frames (MultiframeIntegrationTransformer).

    Attributes:
        frames: that positions are learned for.
        depth, num_heads, mlp_dim: of its layers.
    """

    frames: int
    depth: int
    num_heads: int
    mlp_dim: int
    eps: float
    act: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frames: Array) -> Array:
        """Maps frames' vectors [B, T, E] to [B, E]."""
        num_frames, width = frames.shape[1:]
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, None, "embed"))
        table = self.param("pos_embed", init, (1, self.frames, width), jnp.float32)[0]
        table = positions.resample_grid(table, (self.frames, 1, 1), (num_frames, 1, 1))
        block = Block(
            self.num_heads,
            self.mlp_dim,
            self.eps,
            self.act,
            initializer="normal_fused",
            dtype=self.dtype,
            name="blocks",
        )
        x = scan_blocks(block, frames + table.astype(self.dtype), depth=self.depth)
        return (x + frames).mean(1)  # the frames as they came, without positions


class PromptBlock(nn.Module):
    """A layer in which texts look at a video (PromptGeneratorLayer)."""

    num_heads: int
    mlp_dim: int
    eps: float
    act: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, context: Array, drop_rate: Array | None = None) -> Array:
        """Maps texts x [B, K, E], looking at patches [B, N, E], to the same shape."""
        attn = Attention(self.num_heads, (False,) * 3, "normal", self.dtype, name="attn")
        mlp = Mlp(self.mlp_dim, self.act, "normal", self.dtype, name="mlp")
        y = attn(LayerNorm(self.eps, self.dtype, name="norm1")(x), context=context)
        x = x + drop_path(self, y, drop_rate)
        y = mlp(LayerNorm(self.eps, self.dtype, name="norm2")(x))
        return finish_block(self, x + drop_path(self, y, drop_rate))


class Prompts(nn.Module):
    """What a video adds to texts (VideoSpecificPrompt).

    Attributes:
        embed_dim: E.
        depth, num_heads, mlp_dim: of its layers.
        alpha: initial value of each channel's learned share.
    """

    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    alpha: float
    eps: float
    act: str
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.norm_visual = LayerNorm(self.eps, self.dtype)
        self.proj = Linear(
            (self.embed_dim,),
            ("embed", None),
            use_bias=False,
            kernel_init=nn.initializers.normal(1.0),  # not scaled, as in the original
            dtype=self.dtype,
        )
        self.norm = LayerNorm(self.eps, self.dtype)
        self.blocks = PromptBlock(
            self.num_heads, self.mlp_dim, self.eps, self.act, dtype=self.dtype
        )
        init = nn.with_logical_partitioning(nn.initializers.constant(self.alpha), ("embed",))
        self.share = self.param("alpha", init, (self.embed_dim,), jnp.float32)

    def context(self, patches: Array) -> Array:
        """What texts look at: patches [B, T, N, D] of a video become [B, N, E]."""
        # The mean over frames before the projection, not after it: the same, T times cheaper.
        return self.proj(self.norm_visual(patches).mean(1))

    def __call__(self, texts: Array, context: Array) -> Array:
        """What is added to texts [K, E] for each video: [B, K, E]."""
        x = jnp.broadcast_to(texts.astype(self.dtype), (len(context), *texts.shape))
        x = scan_blocks(self.blocks, x, depth=self.depth, context=self.norm(context))
        return x * self.share.astype(self.dtype)


class SharedFields(EncoderFields, TextFields, kw_only=True):
    """What describes a model of video and text.

    Attributes:
        embed_dim: width E of what they share.
        logit_scale: initial value of the learned logarithm of what cosines are multiplied by.
    """

    embed_dim: int
    logit_scale: float = 2.6592  # ln(1 / 0.07)

    def make_shared(self) -> None:
        """Text tower, projections and scale; to be called in `setup`."""
        self.text = self.tower()
        self.video_proj, self.text_proj = (
            projection(width, self.embed_dim, self.dtype) for width in (self.width, self.text_width)
        )
        init = nn.initializers.constant(self.logit_scale)
        self.learned_logit_scale = self.param("logit_scale", init, (), jnp.float32)

    def __call__(
        self,
        video: Array,
        text: Array,
        mask: Array | None = None,
        *,
        temperature: float | None = None,
        train: bool = False,
    ) -> Array:
        """Similarities [B, K] of videos [B, T, H, W, 3], normalised, and texts [K, L].

        Cosines times the learned scale, or divided by `temperature` if given.
        """
        videos, texts = self.video_features(video, train=train), self.text_features(text, mask)
        return self.similarity(videos, texts, temperature=temperature)

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """Unit vectors [B, E] of video [B, T, H, W, 3]: `encode_video`."""
        return self.encode_video(video)

    def text_vectors(self, text: Array, mask: Array | None) -> Array:
        """Texts [K, L] in the shared width, [K, E], of any length."""
        return self.text_proj(self.text.pool(text, mask))

    def calibration(self) -> tuple[Array, float]:
        """What cosines are multiplied by, and what is added."""
        return jnp.exp(self.learned_logit_scale), 0.0

    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return {"video": self.example_video(), "text": self.example_text()}


class VideoText(SharedFields, kw_only=True):
    """X-CLIP: videos and texts, the texts as the video bends them.

    Attributes:
        mit_depth, mit_num_heads, mit_mlp_dim: of the transformer over frames; the last is 4 E if
            None.
        prompt_depth, prompt_num_heads, prompt_mlp_dim: of the layers in which texts see the video.
        prompt_alpha: initial share of what these add.
    """

    mit_depth: int = 1
    mit_num_heads: int
    mit_mlp_dim: int | None = None
    prompt_depth: int = 2
    prompt_num_heads: int
    prompt_mlp_dim: int | None = None
    prompt_alpha: float = 0.1

    def setup(self) -> None:
        self.encoder = Encoder(**fields_of(self, EncoderFields))
        self.make_shared()
        numerics = dict(eps=self.eps, act=self.act, dtype=self.dtype)
        self.mit = Integration(
            frames=self.pos_grid[0],
            depth=self.mit_depth,
            num_heads=self.mit_num_heads,
            mlp_dim=self.mit_mlp_dim or 4 * self.embed_dim,
            **numerics,
        )
        self.prompts = Prompts(
            embed_dim=self.embed_dim,
            depth=self.prompt_depth,
            num_heads=self.prompt_num_heads,
            mlp_dim=self.prompt_mlp_dim or 4 * self.embed_dim,
            alpha=self.prompt_alpha,
            **numerics,
        )

    def video_features(self, video: Array, *, train: bool = False) -> tuple[Array, Array]:
        """What comparisons need of video [B, T, H, W, 3]: vectors [B, E] and contexts [B, N, E].

        Of any length; the contexts are what texts look at.
        """
        frames, context = self.frame_features(video, train=train)
        return self.mit(frames), context

    def frame_features(self, video: Array, *, train: bool = False) -> tuple[Array, Array]:
        """Vectors of the frames before they are integrated, [B, T, E], and contexts [B, N, E]."""
        tokens, frames = self.encoder(video, train=train)
        return self.video_proj(frames), self.prompts.context(tokens[:, :, 1:])

    def text_features(self, text: Array, mask: Array | None = None) -> Array:
        """Vectors [K, E] of texts [K, L], of any length, which no video has bent yet."""
        return self.text_vectors(text, mask)

    def video_prompts(self, texts: Array, context: Array) -> Array:
        """What videos add to text features [K, E], by their contexts [B, N, E]: [B, K, E]."""
        return self.prompts(texts, context)

    def similarity(
        self, videos: tuple[Array, Array], texts: Array, *, temperature: float | None = None
    ) -> Array:
        """Similarities [B, K] of `video_features` and `text_features` [K, E], see `__call__`."""
        vectors, context = videos
        pair = vectors, texts + self.prompts(texts, context)  # [B, E], [B, K, E]
        pair = (unit(at_least_float32(x), 0.0) for x in pair)
        cosines = jnp.einsum("bd,bkd->bk", *pair, precision="highest")
        scale, _ = self.calibration()
        return cosines * scale if temperature is None else cosines / temperature

    def encode_video(self, video: Array, *, normalise: bool = True) -> Array:
        """Vectors [B, E] of video [B, T, H, W, 3], of length 1 if `normalise`."""
        vectors, _ = self.video_features(video)
        return unit(vectors, 0.0) if normalise else vectors

    def encode_text(
        self,
        text: Array,
        mask: Array | None = None,
        *,
        normalise: bool = True,
        context: Array | None = None,
    ) -> Array:
        """Vectors of texts [K, L]: [K, E], or for videos of which a context is given [B, K, E].

        Only the latter's cosines with the video are what `__call__` gives.

        Args:
            mask: bool [K, L], False at padding.
            context: [B, N, E], of `video_features`.
        """
        x = self.text_features(text, mask)
        x = x if context is None else x + self.prompts(x, context)
        return unit(x, 0.0) if normalise else x


class ImageText(SharedFields, TwoTowers, kw_only=True):
    """CLIP, frame by frame: what X-CLIP's training starts from, and a baseline for it."""

    def setup(self) -> None:
        self.encoder = ImageEncoder(**fields_of(self, EncoderFields))
        self.make_shared()

    def encode_frames(self, video: Array, *, normalise: bool = True, train: bool = False) -> Array:
        """CLIP's vector of each frame of video [B, T, H, W, 3]: [B, T, E]."""
        x = self.video_proj(self.encoder(video, train=train)[1])
        return unit(x, 0.0) if normalise else x

    def encode_video(self, video: Array, *, normalise: bool = True, train: bool = False) -> Array:
        """The mean of the frames' unit vectors, [B, E], of length 1 again if `normalise`.

        So of a video of one frame it is CLIP's vector of that image.
        """
        x = self.encode_frames(video, train=train).mean(1)
        return unit(x, 0.0) if normalise else x

    def encode_text(
        self, text: Array, mask: Array | None = None, *, normalise: bool = True
    ) -> Array:
        """Vectors [K, E] of texts [K, L], mask [K, L] being False at padding."""
        x = self.text_vectors(text, mask)
        return unit(x, 0.0) if normalise else x


def adapt(
    params: dict[str, np.ndarray], source: Mapping[str, Any], model: nn.Module
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Starts an X-CLIP from CLIP, or from an X-CLIP for other clips.

    Names are the same; what only X-CLIP has must start fresh (`config.init_missing`). Positions of
    other sizes are resampled as in the forward pass.

    Args:
        params: by "/"-joined name.
        source: fields of the model that they are of.
        model: the one to start.

    Returns:
        Parameters, and what was done.
    """
    if source["name"] != "xclip" or isinstance(model, Text) or source["head"] == "text":
        return params, []
    params, notes = dict(params), []
    old, new = tuple(source["pos_grid"]), model.pos_grid
    if old[1:] != new[1:]:
        table = params["encoder/pos_embed"][0]
        patches = positions.resample_grid(table[1:], (1, *old[1:]), (1, *new[1:]))
        params["encoder/pos_embed"] = np.concatenate([table[:1], patches])[None]
        notes.append(f"positions of patches resampled from {old[1:]} to {new[1:]}")
    if "mit/pos_embed" in params and old[0] != new[0]:
        table = params["mit/pos_embed"][0]
        table = positions.resample_grid(table, (old[0], 1, 1), (new[0], 1, 1))
        params["mit/pos_embed"] = table[None]
        notes.append(f"positions of frames resampled from {old[0]} to {new[0]}")
    return params, notes


HEADS: dict[str | None, Any] = {
    None: Features,
    "image": Image,
    "text": Text,
    "video_text": VideoText,
    "image_text": ImageText,
}

USES = {"image": "embed", "video_text": "compare", "text": None}
INHERITED = ("eps", "act", "end_id", "mit_num_heads", "prompt_num_heads")
NOTED = ("patch_size",)
DEMO = {
    "width": 64,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 256,
    "patch_size": (1, 8, 8),
    "embed_dim": 64,
    "text_width": 64,
    "text_depth": 2,
    "text_num_heads": 4,
    "mit_num_heads": 4,
    "prompt_num_heads": 4,
    "drop_path": 0.0,
}
