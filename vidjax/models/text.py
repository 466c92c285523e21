"""Text towers, from token ids to text tokens, and what models of two towers do with the vectors.

Shapes: K texts, L token ids of each, D width.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.models import positions
from vidjax.models.attention import attend
from vidjax.models.layers import (
    Array,
    Block,
    LayerNorm,
    at_least_float32,
    look_up,
    record,
    scan_blocks,
)


class ClassTokenTower(nn.Module):
    """VideoPrism's text encoder: causal, ReLU, with a class token at the end of every text.

    Reference: google-deepmind/videoprism encoders.py (TextEncoder, after CoCa's, arXiv:2205.01917).
    Numerics: ids are looked up and multiplied by sqrt(D), so is the class token; sinusoids are
    added to the words only. Padded words are seen by no token; what they become themselves is as
    in the original, which passes them by the MLP.
    Recorded on request: `hidden_states` embeddings [K, L + 1, D] and blocks/output.

    Attributes:
        vocab_size, width, depth, num_heads, mlp_dim: sizes.
        eps, scale_offset: of the LayerNorms.
        softcap: of the attention logits.
        pos_exponent: see `positions.sinusoid`.
        norm_out: whether the blocks normalise their branches' outputs, too (the giant's).
        inner_norm: whether there are two norms after the last block (KerasHub's).
        remat, unroll: see `scan_blocks`.
        attention: how it is computed, see `attention.attend`.
    """

    vocab_size: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    eps: float
    scale_offset: float
    softcap: float
    pos_exponent: float
    norm_out: bool = False
    inner_norm: bool = False
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, text: Array, mask: Array | None = None) -> Array:
        """Encodes ids [K, L] to tokens [K, L + 1, D]; the last one stands for the text.

        `mask` bool [K, L] is False at padding; None: there is none.
        """
        texts, length = text.shape
        init = nn.with_logical_partitioning(
            nn.initializers.normal(self.width**-0.5), (None, "embed")
        )
        table = self.param("token_embed", init, (self.vocab_size, self.width), jnp.float32)
        init = nn.with_logical_partitioning(
            nn.initializers.normal(self.width**-0.5), (None, None, "embed")
        )
        token = self.param("cls_token", init, (1, 1, self.width), jnp.float32)
        x = look_up(table.astype(self.dtype), text) * math.sqrt(self.width)
        x = x + positions.sinusoid(length, self.width, self.pos_exponent).astype(self.dtype)
        token = token.astype(self.dtype) * math.sqrt(self.width)
        x = jnp.concatenate([x, jnp.broadcast_to(token, (texts, 1, self.width))], axis=1)
        record(self, "hidden_states", "embeddings", x)

        sees = jnp.tril(jnp.ones((length + 1, length + 1), bool))
        padding = None
        if mask is not None:
            real = jnp.pad(mask.astype(bool), ((0, 0), (0, 1)), constant_values=True)
            sees = sees & real[:, None, :] & real[:, :, None]  # [K, L + 1, L + 1]
            padding = ~real
        block = Block(
            self.num_heads,
            self.mlp_dim,
            self.eps,
            "relu",
            initializer="lecun_normal",
            dtype=self.dtype,
            attend=functools.partial(attend, softcap=self.softcap, implementation=self.attention),
            scale_offset=self.scale_offset,
            norm_out=self.norm_out,
            name="blocks",
        )
        x = scan_blocks(
            block,
            x,
            depth=self.depth,
            remat=self.remat,
            unroll=self.unroll,
            mask=sees,
            padding=padding,
        )
        if self.inner_norm:
            x = LayerNorm(self.eps, self.dtype, self.scale_offset, name="inner_norm")(x)
        return LayerNorm(self.eps, self.dtype, self.scale_offset, name="norm")(x)


class EndTokenTower(nn.Module):
    """CLIP's text encoder: causal, learned positions; a text's last token stands for it.

    Reference: openai/CLIP model.py (CLIP.encode_text). Padding follows the end of a text, so that
    no token of it sees padding, masked or not.
    Recorded on request: `hidden_states` embeddings [K, L, D] and blocks/output.

    Attributes:
        vocab_size, width, depth, num_heads, mlp_dim: sizes.
        context_length: tokens that positions are learned for.
        eps, act: numerics.
        end_id: id that ends a text; None: the largest id of each text.
        remat, unroll: see `scan_blocks`.
        attention: how it is computed, see `attention.attend`.
    """

    vocab_size: int
    context_length: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    eps: float
    act: str
    end_id: int | None = None
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, text: Array, mask: Array | None = None) -> Array:
        """Encodes ids [K, L] to tokens [K, L, D], after the last norm.

        `mask` bool [K, L] is False at padding; None: there is none.

        Raises:
            UserError: L is more than context_length.
        """
        length = text.shape[1]
        if length > self.context_length:
            raise UserError(
                f"texts of {length} tokens are too long for a model that knows positions of "
                f"{self.context_length}; set the tokeniser's length to that at most"
            )

        def table(name: str, std: float, *shape: int) -> Array:
            axes = (None,) * (len(shape) - 1) + ("embed",)
            init = nn.with_logical_partitioning(nn.initializers.normal(std), axes)
            return self.param(name, init, shape, jnp.float32).astype(self.dtype)

        tokens = table("token_embed", 0.02, self.vocab_size, self.width)
        places = table("pos_embed", 0.01, 1, self.context_length, self.width)
        x = look_up(tokens, text) + places[:, :length]
        record(self, "hidden_states", "embeddings", x)
        sees = jnp.tril(jnp.ones((length, length), bool))
        if mask is not None:
            sees = sees & mask.astype(bool)[:, None]  # [K, L, L]
        block = Block(
            self.num_heads,
            self.mlp_dim,
            self.eps,
            self.act,
            initializer="lecun_normal",
            dtype=self.dtype,
            attend=functools.partial(attend, implementation=self.attention),
            name="blocks",
        )
        x = scan_blocks(block, x, depth=self.depth, remat=self.remat, unroll=self.unroll, mask=sees)
        return LayerNorm(self.eps, self.dtype, name="norm")(x)

    def pool(self, text: Array, mask: Array | None = None) -> Array:
        """Returns the token [K, D] at each text's first end, see `end_id`."""
        tokens = self(text, mask)
        ends = text if self.end_id is None else text == self.end_id
        return tokens[jnp.arange(len(text)), ends.argmax(-1)]


class TwoTowers(nn.Module):
    """Comparing videos and texts that are embedded by themselves.

    To be inherited by a model with encode_video, encode_text (both giving unit vectors) and
    calibration.
    """

    def video_features(self, video: Array, **options: Any) -> Array:
        """What comparisons need of videos: their unit vectors [B, D]."""
        return self.encode_video(video, **options)

    def text_features(self, text: Array, mask: Array | None = None) -> Array:
        """What comparisons need of texts: their unit vectors [K, D]."""
        return self.encode_text(text, mask)

    def similarity(self, videos: Array, texts: Array, *, temperature: float | None = None) -> Array:
        """Similarities [B, K] of videos [B, D] and texts [K, D].

        Cosines as `calibration` scales and shifts them, or divided by `temperature` if given.
        """
        cosines = jnp.einsum(
            "bd,kd->bk",
            *map(at_least_float32, (videos, texts)),
            precision="highest",
        )
        if temperature is not None:
            return cosines / temperature
        scale, bias = self.calibration()
        return cosines * scale + bias
