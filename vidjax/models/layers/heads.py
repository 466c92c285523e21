"""Heads that encoders of several families have; a family's own stand in its module.

A head takes an encoder: a module that maps normalised video [B, T, H, W, 3] to tokens [B, N, D].
Shapes: B clips, N tokens, D width, C classes, K texts of L token ids.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from vidjax.errors import UserError
from vidjax.json_files import Count
from vidjax.models.layers.blocks import is_training
from vidjax.models.layers.dense import Array, Linear, at_least_float32, unit
from vidjax.models.layers.initializers import Initializer


def mean_token(tokens: Array) -> Array:
    """Returns the mean [..., D] of tokens [..., N, D]."""
    return tokens.mean(-2)


def first_token(tokens: Array) -> Array:
    """Returns token 0 [..., D] of tokens [..., N, D]."""
    return tokens[..., 0, :]


def all_tokens(tokens: Array) -> Array:
    """Returns the tokens [..., N, D] as they are, for a layer that pools them."""
    return tokens


class Model(nn.Module):
    """A model as `vidjax.models.build` makes it.

    Attributes:
        config: keywords of `build` that make it again, all fields spelled out.
    """

    config: Mapping[str, Any] = dataclasses.field(default=FrozenDict(), kw_only=True)

    @property
    def dtype(self) -> str:
        """Compute dtype."""
        return self.config["dtype"]

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a patch; (1, 1, 1) where no video is seen."""
        return self.config.get("encoder", self.config).get("patch_size", (1, 1, 1))

    @nn.nowrap
    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns shapes of the smallest inputs with which the parameters can be initialised."""
        parameters = inspect.signature(type(self).__call__).parameters.values()
        names = [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD]
        video = jax.ShapeDtypeStruct((1, *self.patch_size, 3), jnp.float32)
        ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        return {name: video if name == "video" else ids for name in names if name != "self"}


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Pooling of tokens to a vector.

    Attributes:
        reduce: function from tokens [B, N, D] to a vector [B, D], or what `layer` maps to one.
        name, layer: module applied after it, and its name beside the encoder; None: there is none.
    """

    reduce: Callable[[Array], Array]
    name: str = ""
    layer: nn.Module | None = None


class Features(Model):
    """An encoder, and a vector for each clip.

    Attributes:
        encoder: see the module.
        pooling: see `Pooling`.
    """

    encoder: nn.Module
    pooling: Pooling

    def setup(self) -> None:
        if self.pooling.layer is not None:
            setattr(self, self.pooling.name, self.pooling.layer.clone())

    def __call__(self, video: Array, **options: Any) -> Array:
        """Encodes normalised video [B, T, H, W, 3] to tokens [B, N, D], with encoder `options`."""
        tokens = self.encoder(video, **options)
        if self.is_initializing():
            self.pooled(tokens)
        return tokens

    def embed(self, video: Array, **options: Any) -> Array:
        """Returns a vector [B, D] for each normalised video [B, T, H, W, 3]."""
        return self.pooled(self.encoder(video, **options))

    def pooled(self, tokens: Array) -> Array:
        """Returns the vectors [B, D] of tokens [B, N, D]."""
        x = self.pooling.reduce(tokens)
        return x if self.pooling.layer is None else getattr(self, self.pooling.name)(x)


@dataclasses.dataclass(frozen=True)
class Classes:
    """Fields of every classifier.

    Attributes:
        num_classes: number of classes C; 0 has no head, the output is what it would see [B, D].
        groups: names and sizes of several answers in one output, such as (("noun", 300),
            ("verb", 97)), in its order; () is one answer.
    """

    num_classes: Count
    groups: tuple[tuple[str, Count], ...] = ()

    def __post_init__(self) -> None:
        if self.groups and sum(size for _, size in self.groups) != self.num_classes:
            raise UserError(
                f"groups {self.groups} of classes do not add up to num_classes "
                f"{self.num_classes}; correct one of them"
            )


class Classifier(Features):
    """A linear layer on the vectors of an encoder.

    Attributes:
        classes: see `Classes`.
        kernel_init: initializer of the layer's kernel.
        head_dropout: rate of dropout before the layer.
    """

    classes: Classes
    kernel_init: Initializer
    head_dropout: float = 0.0

    def setup(self) -> None:
        super().setup()
        self.dropout = nn.Dropout(self.head_dropout)
        if self.classes.num_classes:
            size, axes = (self.classes.num_classes,), ("embed", "classes")
            self.head = Linear(size, axes, kernel_init=self.kernel_init, dtype=self.dtype)

    def __call__(self, video: Array, **options: Any) -> Array:
        """Returns class scores [B, C] of normalised video [B, T, H, W, 3]."""
        x = self.embed(video, **options)
        x = self.dropout(x, deterministic=not is_training(self))
        return self.head(x) if self.classes.num_classes else x


class Vectors(Model):
    """Models that give one vector for a video or a text.

    Attributes:
        l2_eps: added to the sum of squares that a vector is divided by the root of; None: vectors
            keep their length.
    """

    l2_eps: float | None

    def normalised(self, x: Array, normalise: bool = True) -> Array:
        """Returns vectors x [..., D] of length 1 if `normalise`."""
        return unit(x, self.l2_eps) if normalise and self.l2_eps is not None else x


class TextVectors(Vectors):
    """A text tower.

    Attributes:
        text: see `layers.text`.
        text_proj: projection of its vectors, or None.
    """

    text: nn.Module
    text_proj: nn.Module | None

    def __call__(self, text: Array, mask: Array | None = None) -> Array:
        """See `encode_text`."""
        return self.encode_text(text, mask)

    def encode_text(
        self, text: Array, mask: Array | None = None, *, normalise: bool = True
    ) -> Array:
        """Embeds token ids [K, L], mask bool [K, L] being False at padding: [K, D]."""
        x = self.text.pool(text, mask)
        x = self.text_proj(x) if self.text_proj is not None else x
        return self.normalised(x, normalise)


class TwoTowers(TextVectors):
    """Videos and texts in one space; either can be left out by calling the other's method.

    A model of this kind also has `encode_video`: video [B, T, H, W, 3] -> vectors [B, D].

    Attributes:
        logit_scale: initial value of a learned scalar, the logarithm of what similarities are
            multiplied by; None: there is none.
        logit_bias: likewise of what is then added.
    """

    logit_scale: float | None
    logit_bias: float | None

    def setup(self) -> None:
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
        **options: Any,
    ) -> Array:
        """Returns similarities [B, K] of normalised video [B, T, H, W, 3] and texts [K, L].

        Cosines times the learned scale if there is one, or divided by `temperature` if given.
        `mask` bool [K, L] is False at padding; `options` are those of `video_features`.
        """
        videos, texts = self.video_features(video, **options), self.text_features(text, mask)
        return self.similarity(videos, texts, temperature=temperature)

    def embed(self, video: Array, **options: Any) -> Array:
        """Returns unit vectors [B, D] of video [B, T, H, W, 3]: `encode_video`."""
        return self.encode_video(video, **options)

    def video_features(self, video: Array, **options: Any) -> Any:
        """Returns what comparisons need of videos: unit vectors [B, D]."""
        return self.encode_video(video, **options)

    def text_features(self, text: Array, mask: Array | None = None) -> Array:
        """Returns what comparisons need of texts: unit vectors [K, D]."""
        return self.encode_text(text, mask)

    def similarity(self, videos: Any, texts: Array, *, temperature: float | None = None) -> Array:
        """Returns similarities [B, K] of `video_features` and `text_features`, see `__call__`."""
        videos, texts = map(at_least_float32, (videos, texts))
        cosines = jnp.einsum("bd,kd->bk", videos, texts, precision="highest")
        return self.calibrated(cosines, temperature)

    def calibrated(self, cosines: Array, temperature: float | None) -> Array:
        """Returns cosines divided by `temperature`, or as `calibration` scales and shifts them."""
        if temperature is not None:
            return cosines / temperature
        scale, bias = self.calibration()
        return cosines * scale + bias

    def calibration(self) -> tuple[Array | float, Array | float]:
        """Returns logit scale and bias: learned, or 1 and 0."""
        scale = 1.0 if self.logit_scale is None else jnp.exp(self.learned_logit_scale)
        return scale, 0.0 if self.logit_bias is None else self.learned_logit_bias
