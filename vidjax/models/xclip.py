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

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vidjax.json_files import Count, NotNegative, Rate, Size
from vidjax.models.layers import (
    ACTIVATIONS,
    Array,
    Attention,
    Block,
    LayerNorm,
    Linear,
    Mlp,
    PatchEmbed,
    Speed,
    at_least_float32,
    drop_path,
    finish_block,
    grid_of,
    positions,
    record,
    scan_blocks,
    torch_uniform,
    unit,
)
from vidjax.models.layers.attention import Attend, attend
from vidjax.models.layers.fields import set_by_head
from vidjax.models.layers.grids import by_frame
from vidjax.models.layers.heads import TextVectors, TwoTowers, Vectors
from vidjax.models.layers.patches import FramePatch, Grid
from vidjax.models.layers.text import EndTokenTower

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
        # The message's own output would be dropped: it need not ask.
        y = attention("attn")(tokens[:, :, :-1], context=tokens)
        x = x + drop_path(self, y, drop_rate)
        y = Mlp(self.mlp_dim, self.act, "torch", self.dtype, name="mlp")(norm("norm2", x))
        return finish_block(self, x + drop_path(self, y, drop_rate))


class Encoder(nn.Module):
    """From a video to tokens, and a vector for each frame.

    Attributes:
        width, depth, num_heads, mlp_dim: sizes D, L, H, and the MLP's width.
        patch_size: (1, h, w) pixels.
        pos_grid: (t, h, w): the number of frames that positions of frames are made for, and the
            patches of a frame.
        eps: LayerNorm's epsilon, of all towers.
        act: of all towers; "gelu" in some CLIPs of other authors.
        drop_path: stochastic depth of the last layer in training, see `scan_blocks`; whole clips
            drop a branch, where the original's frames each decide for themselves.
        speed: see `Speed`.
        messages: whether frames exchange messages; in CLIP they know nothing of each other.
    """

    width: Size
    depth: Size
    num_heads: Size
    mlp_dim: Size
    patch_size: FramePatch
    pos_grid: Grid
    eps: NotNegative
    act: Literal[tuple(ACTIVATIONS)] = "quick_gelu"
    drop_path: Rate = 0.0
    speed: Speed = Speed()
    messages: bool = set_by_head(True)
    on_grid = staticmethod(by_frame)

    @nn.compact
    def __call__(self, video: Array) -> tuple[Array, Array]:
        """Encodes video [B, T, H, W, 3], normalised.

        Returns:
            Tokens [B, T, N + 1, D] after the last layer, class tokens first, and the normalised
            class tokens [B, T, D].
        """
        (batch, frames), dtype = video.shape[:2], self.speed.dtype
        _, *grid = grid_of(video.shape, self.patch_size)
        embed = PatchEmbed(self.width, self.patch_size, dtype, use_bias=False, name="patch_embed")
        x = embed(video).reshape(batch, frames, -1, self.width)
        normal = nn.initializers.normal(self.width**-0.5)
        boxed = nn.with_logical_partitioning(normal, (None, None, "embed"))
        token = self.param("cls_token", boxed, (1, 1, self.width), jnp.float32).astype(dtype)
        _, h, w = self.pos_grid
        table = self.param("pos_embed", boxed, (1, h * w + 1, self.width), jnp.float32)[0]
        patches = positions.resample_grid(table[1:], (1, h, w), (1, *grid))
        table = jnp.concatenate([table[:1], patches]).astype(dtype)
        token = jnp.broadcast_to(token, (batch, frames, 1, self.width))
        x = jnp.concatenate([token, x], axis=2) + table
        x = LayerNorm(self.eps, dtype, name="norm_pre")(x)
        record(self, "hidden_states", "embeddings", x)
        sizes = (self.num_heads, self.mlp_dim, self.eps, self.act)
        options = {"dtype": dtype, "attend": self.speed.attend(), "name": "blocks"}
        if self.messages:
            block = CrossFrameBlock(*sizes, **options)
        else:
            block = Block(*sizes, initializer="torch", **options)
        x = scan_blocks(block, x, depth=self.depth, drop_path=self.drop_path, speed=self.speed)
        return x, LayerNorm(self.eps, dtype, name="norm")(x[:, :, 0])


def projection(width: int, embed_dim: int, dtype: Any) -> Linear:
    """Returns the layer that leads from a tower's width to what videos and texts share."""
    init = nn.initializers.normal(width**-0.5)
    return Linear((embed_dim,), ("embed", None), use_bias=False, kernel_init=init, dtype=dtype)


class Frames(Vectors):
    """A vision tower, frame by frame: X-CLIP's or CLIP's.

    Attributes:
        encoder: see `Encoder`.
        video_proj: projection of the frames' vectors, or None.
    """

    encoder: Encoder
    video_proj: Linear | None

    def __call__(self, video: Array) -> Array:
        """Encodes video [B, T, H, W, 3] to tokens [B, T * (N + 1), D], frame by frame."""
        tokens, _ = self.encode(video)
        return tokens.reshape(len(video), -1, tokens.shape[-1])

    def encode(self, video: Array) -> tuple[Array, Array]:
        """Returns tokens [B, T, N + 1, D] and the frames' vectors [B, T, E]."""
        tokens, vectors = self.encoder(video)
        return tokens, vectors if self.video_proj is None else self.video_proj(vectors)

    def frame_vectors(self, video: Array) -> Array:
        """Returns the normalised class tokens: [B, T, D], or projected [B, T, E]."""
        return self.encode(video)[1]

    def embed(self, video: Array) -> Array:
        """Returns the mean of `frame_vectors` over the frames: [B, D or E]."""
        return self.frame_vectors(video).mean(1)

    def encode_frames(self, video: Array, *, normalise: bool = True) -> Array:
        """Returns CLIP's vector of each frame of video [B, T, H, W, 3]: [B, T, E]."""
        return self.normalised(self.frame_vectors(video), normalise)

    def encode_video(self, video: Array, *, normalise: bool = True) -> Array:
        """Returns the mean of the frames' unit vectors, [B, E], of length 1 again if `normalise`.

        So for a video of one frame it is CLIP's vector of that image.
        """
        return self.normalised(self.encode_frames(video).mean(1), normalise)


def features(encoder: Encoder) -> Frames:
    """Makes X-CLIP's vision tower alone."""
    return Frames(None, encoder, None)


def image(encoder: Encoder, embed_dim: Size | None = None) -> Frames:
    """Makes CLIP's image tower alone.

    Args:
        encoder: see `Encoder`.
        embed_dim: width E of a projection (CLIPVisionModelWithProjection); None: there is none.
    """
    return Frames(None, encoder.clone(messages=False), _projection(encoder, embed_dim))


def _projection(encoder: Encoder, embed_dim: int | None) -> Linear | None:
    return embed_dim and projection(encoder.width, embed_dim, encoder.speed.dtype)


@dataclasses.dataclass(frozen=True)
class TextFields:
    """Fields of the text tower.

    Attributes:
        text_width, text_depth, text_num_heads, text_mlp_dim: sizes; the last is 4 W if None.
        vocab_size: number of token ids.
        context_length: tokens that positions are learned for.
        end_id: id that ends a text; None: the largest id of each text, as in the originals.
    """

    text_width: Size
    text_num_heads: Size
    text_depth: Count = 12
    text_mlp_dim: Size | None = None
    vocab_size: Size = 49_408
    context_length: Size = 77
    end_id: Count | None = None

    def parts(
        self, eps: float, act: str, speed: Speed, embed_dim: int | None
    ) -> dict[str, nn.Module | None]:
        """Returns the fields of `TextVectors`."""
        tower = EndTokenTower(
            vocab_size=self.vocab_size,
            context_length=self.context_length,
            width=self.text_width,
            depth=self.text_depth,
            num_heads=self.text_num_heads,
            mlp_dim=self.text_mlp_dim or 4 * self.text_width,
            eps=eps,
            act=act,
            end_id=self.end_id,
            speed=speed,
        )
        proj = embed_dim and projection(self.text_width, embed_dim, speed.dtype)
        return {"text": tower, "text_proj": proj}


def text(
    fields: TextFields,
    eps: NotNegative,
    act: Literal[tuple(ACTIVATIONS)] = "quick_gelu",
    speed: Speed = Speed(),  # noqa: B008 - frozen
    embed_dim: Size | None = None,
) -> TextVectors:
    """Makes the text tower alone, whose vectors keep their length.

    Args:
        fields: see `TextFields`.
        eps, act, speed: see `Encoder`.
        embed_dim: width E of a projection (CLIPTextModelWithProjection); None: there is none.
    """
    return TextVectors(l2_eps=None, **fields.parts(eps, act, speed, embed_dim))


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
        sizes = (self.num_heads, self.mlp_dim, self.eps, self.act)
        block = Block(*sizes, initializer="normal_fused", dtype=self.dtype, name="blocks")
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
    """Layers that add to texts what a video shows (VideoSpecificPrompt).

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
        """Makes of patches [B, T, N, D] of a video the context [B, N, E] that texts look at."""
        # The mean over frames before the projection, not after it: the same, T times cheaper.
        return self.proj(self.norm_visual(patches).mean(1))

    def __call__(self, texts: Array, context: Array) -> Array:
        """Returns the addition to texts [K, E] for each video: [B, K, E]."""
        x = jnp.broadcast_to(texts.astype(self.dtype), (len(context), *texts.shape))
        seen = self.norm(context)
        x = scan_blocks(self.blocks, x, depth=self.depth, context=seen)
        return x * self.share.astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class SharedFields:
    """Fields of models of video and text.

    Attributes:
        embed_dim: width E of what they share.
        logit_scale: initial value of the learned logarithm of what cosines are multiplied by.
    """

    embed_dim: Size
    logit_scale: float = 2.6592  # ln(1 / 0.07)

    def parts(self, encoder: Encoder, text: TextFields) -> dict[str, Any]:
        """Returns the fields of `ImageText`."""
        return {
            "l2_eps": 0.0,
            "logit_scale": self.logit_scale,
            "logit_bias": None,
            "encoder": encoder,
            "video_proj": _projection(encoder, self.embed_dim),
            **text.parts(encoder.eps, encoder.act, encoder.speed, self.embed_dim),
        }


class ImageText(TwoTowers, Frames):
    """CLIP, frame by frame: what X-CLIP's training starts from, and a baseline for it."""


def image_text(encoder: Encoder, text: TextFields, shared: SharedFields) -> ImageText:
    """Makes a CLIP."""
    return ImageText(**shared.parts(encoder.clone(messages=False), text))


class VideoText(ImageText):
    """X-CLIP: videos and texts, the texts as the video bends them.

    Attributes:
        mit: transformer over frames.
        prompts: layers in which texts see the video.
    """

    mit: Integration
    prompts: Prompts

    def video_features(self, video: Array) -> tuple[Array, Array]:
        """Returns what comparisons need of video [B, T, H, W, 3].

        Returns:
            Vectors [B, E], of any length, and contexts [B, N, E], which texts look at.
        """
        frames, context = self.frame_features(video)
        return self.mit(frames), context

    def frame_features(self, video: Array) -> tuple[Array, Array]:
        """Returns the frames' vectors before they are integrated, [B, T, E], and contexts."""
        tokens, frames = self.encode(video)
        return frames, self.prompts.context(tokens[:, :, 1:])

    def text_features(self, text: Array, mask: Array | None = None) -> Array:
        """Returns vectors [K, E] of texts [K, L], of any length, which no video has bent yet."""
        return super().encode_text(text, mask, normalise=False)

    def video_prompts(self, texts: Array, context: Array) -> Array:
        """Returns what videos add to text features [K, E], by contexts [B, N, E]: [B, K, E]."""
        return self.prompts(texts, context)

    def similarity(
        self, videos: tuple[Array, Array], texts: Array, *, temperature: float | None = None
    ) -> Array:
        """Returns similarities [B, K] of `video_features` and `text_features` [K, E]."""
        vectors, context = videos
        pair = vectors, texts + self.prompts(texts, context)  # [B, E], [B, K, E]
        pair = (unit(at_least_float32(x), 0.0) for x in pair)
        return self.calibrated(jnp.einsum("bd,bkd->bk", *pair, precision="highest"), temperature)

    def encode_video(self, video: Array, *, normalise: bool = True) -> Array:
        """Returns vectors [B, E] of video [B, T, H, W, 3], of length 1 if `normalise`."""
        return self.normalised(self.video_features(video)[0], normalise)

    def encode_text(
        self,
        text: Array,
        mask: Array | None = None,
        *,
        normalise: bool = True,
        context: Array | None = None,
    ) -> Array:
        """Embeds texts [K, L]: [K, E], or for videos of which a context is given [B, K, E].

        Only the latter's cosines with the video are what `__call__` gives.

        Args:
            mask: bool [K, L], False at padding.
            context: [B, N, E], of `video_features`.
        """
        x = self.text_features(text, mask)
        x = x if context is None else x + self.prompts(x, context)
        return self.normalised(x, normalise)


def video_text(
    encoder: Encoder,
    text: TextFields,
    shared: SharedFields,
    mit_num_heads: Size,
    prompt_num_heads: Size,
    mit_depth: Count = 1,
    mit_mlp_dim: Size | None = None,
    prompt_depth: Count = 2,
    prompt_mlp_dim: Size | None = None,
    prompt_alpha: float = 0.1,
) -> VideoText:
    """Makes an X-CLIP.

    Args:
        encoder, text, shared: see there.
        mit_depth, mit_num_heads, mit_mlp_dim: of the transformer over frames; the last is 4 E if
            None.
        prompt_depth, prompt_num_heads, prompt_mlp_dim: of the layers in which texts see the video.
        prompt_alpha: initial share of what these add.
    """
    numerics = {"eps": encoder.eps, "act": encoder.act, "dtype": encoder.speed.dtype}
    embed_dim = shared.embed_dim
    mit = Integration(
        frames=encoder.pos_grid[0],
        depth=mit_depth,
        num_heads=mit_num_heads,
        mlp_dim=mit_mlp_dim or 4 * embed_dim,
        **numerics,
    )
    prompts = Prompts(
        embed_dim=embed_dim,
        depth=prompt_depth,
        num_heads=prompt_num_heads,
        mlp_dim=prompt_mlp_dim or 4 * embed_dim,
        alpha=prompt_alpha,
        **numerics,
    )
    return VideoText(**shared.parts(encoder, text), mit=mit, prompts=prompts)


def adapt(
    params: dict[str, np.ndarray], source: Mapping[str, Any], target: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Starts an X-CLIP from CLIP, or from an X-CLIP for other clips.

    Names are the same; what only X-CLIP has must start fresh (`config.init_missing`). Positions of
    other sizes are resampled as in the forward pass.

    Arguments and results are those of `vidjax.models.adapt`.
    """
    if source["name"] != "xclip" or target["head"] == "text" or source["head"] == "text":
        return params, []
    params, notes = dict(params), []
    old, new = tuple(source["pos_grid"]), target["pos_grid"]
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


HEADS = {
    None: features,
    "image": image,
    "text": text,
    "video_text": video_text,
    "image_text": image_text,
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
