"""Text towers: from token ids to text tokens, and to a vector for each text.

Shapes: K texts, L token ids of each, D width.
"""

import math

import jax.numpy as jnp
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.models.layers import positions
from vidjax.models.layers.blocks import Block, Speed, scan_blocks
from vidjax.models.layers.dense import Array, LayerNorm, look_up, record


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
        speed: see `Speed`.
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
    speed: Speed = Speed()

    @nn.compact
    def __call__(self, text: Array, mask: Array | None = None) -> Array:
        """Encodes ids [K, L] to tokens [K, L + 1, D]; the last one stands for the text.

        `mask` bool [K, L] is False at padding; None: there is none.
        """
        (texts, length), dtype = text.shape, self.speed.dtype
        init = nn.with_logical_partitioning(
            nn.initializers.normal(self.width**-0.5), (None, "embed")
        )
        table = self.param("token_embed", init, (self.vocab_size, self.width), jnp.float32)
        init = nn.with_logical_partitioning(
            nn.initializers.normal(self.width**-0.5), (None, None, "embed")
        )
        token = self.param("cls_token", init, (1, 1, self.width), jnp.float32)
        x = look_up(table.astype(dtype), text) * math.sqrt(self.width)
        x = x + positions.sinusoid(length, self.width, self.pos_exponent).astype(dtype)
        token = token.astype(dtype) * math.sqrt(self.width)
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
            dtype=dtype,
            attend=self.speed.attend(self.softcap),
            scale_offset=self.scale_offset,
            norm_out=self.norm_out,
            name="blocks",
        )
        x = scan_blocks(
            block,
            x,
            depth=self.depth,
            speed=self.speed,
            mask=sees,
            padding=padding,
        )
        if self.inner_norm:
            x = LayerNorm(self.eps, dtype, self.scale_offset, name="inner_norm")(x)
        return LayerNorm(self.eps, dtype, self.scale_offset, name="norm")(x)

    def pool(self, text: Array, mask: Array | None = None) -> Array:
        """Returns the class token [K, D] of each text."""
        return self(text, mask)[:, -1]


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
        speed: see `Speed`.
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
    speed: Speed = Speed()

    @nn.compact
    def __call__(self, text: Array, mask: Array | None = None) -> Array:
        """Encodes ids [K, L] to tokens [K, L, D], after the last norm.

        `mask` bool [K, L] is False at padding; None: there is none.

        Raises:
            UserError: L is more than context_length.
        """
        length, dtype = text.shape[1], self.speed.dtype
        if length > self.context_length:
            raise UserError(
                f"texts of {length} tokens are too long for a model that knows positions of "
                f"{self.context_length}; set the tokeniser's length to that at most"
            )

        def table(name: str, std: float, *shape: int) -> Array:
            axes = (None,) * (len(shape) - 1) + ("embed",)
            init = nn.with_logical_partitioning(nn.initializers.normal(std), axes)
            return self.param(name, init, shape, jnp.float32).astype(dtype)

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
            dtype=dtype,
            attend=self.speed.attend(),
            name="blocks",
        )
        x = scan_blocks(block, x, depth=self.depth, speed=self.speed, mask=sees)
        return LayerNorm(self.eps, dtype, name="norm")(x)

    def pool(self, text: Array, mask: Array | None = None) -> Array:
        """Returns the token [K, D] at each text's first end, see `end_id`."""
        tokens = self(text, mask)
        ends = text if self.end_id is None else text == self.end_id
        return tokens[jnp.arange(len(text)), ends.argmax(-1)]
