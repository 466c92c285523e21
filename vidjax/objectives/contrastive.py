"""Contrastive learning of videos and texts.

Reference: Radford et al. 2021 (CLIP, arXiv:2103.00020) for the softmax loss, Zhai et al. 2023
(SigLIP, arXiv:2303.15343) for the sigmoid one; VideoPrism's stage 1 (arXiv:2402.13217) for the
dropping of tokens.
Shapes: B clips, each with one text; the batch is the global one, whatever devices it lies on.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax import masking
from vidjax.errors import UserError
from vidjax.json_files import Rate
from vidjax.models.layers import grid_of
from vidjax.objectives import Objective

Array = jax.Array
LOSSES = ("softmax", "sigmoid")


def pairwise_loss(
    compare: Callable[[Any, Array], Array], videos: Any, texts: Array, *, kind: str, parts: int
) -> tuple[Array, Array]:
    """Contrastive loss of features of B videos and of B texts, row i of both belonging together.

    "softmax" is the mean cross-entropy of finding each video's text and each text's video;
    "sigmoid" is the sum over all pairs of the binary cross-entropies, divided by B.

    The B x B logits are never there at once: videos are taken in `parts` turns, in each of which
    every device compares its share of B / parts videos with all texts, and the backward pass
    computes them again. So a device holds B² / (parts · devices) logits.

    Args:
        compare: (videos, texts) -> logits [videos, texts].
        videos: arrays [B, ...].
        texts: [B, ...].
        kind, parts: see above.

    Returns:
        The loss, and the share of videos whose own text scores above all others.
    """
    batch = len(texts)
    if parts < 1 or batch % parts:
        raise UserError(f"config.objective.parts = {parts} must divide the batch of {batch} clips")
    texts = nn.with_logical_constraint(texts, (None,) * texts.ndim)  # on every device
    # Interleaved, so that every device has videos in every turn: [parts, B / parts, ...].
    turns = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), videos)
    rows = jnp.arange(batch).reshape(-1, parts).T

    @jax.checkpoint
    def turn(carry, videos_and_rows):
        videos, rows = videos_and_rows
        videos = jax.tree.map(
            lambda x: nn.with_logical_constraint(x, ("batch",) + (None,) * (x.ndim - 1)), videos
        )
        logits = compare(videos, texts).astype(jnp.float32)
        logits = nn.with_logical_constraint(logits, ("batch", None))
        own = jnp.take_along_axis(logits, rows[:, None], axis=1)[:, 0]
        over_videos, total, right = carry
        if kind == "sigmoid":
            total += jax.nn.softplus(logits).sum() - own.sum()  # -log sigmoid(±logit)
        else:
            total += (jax.nn.logsumexp(logits, axis=1) - 2 * own).sum()
            over_videos = jnp.logaddexp(over_videos, jax.nn.logsumexp(logits, axis=0))
        right += (jnp.sum(logits >= own[:, None], axis=1) == 1).sum()
        return (over_videos, total, right), None

    start = jnp.full(batch, -jnp.inf), jnp.float32(0), jnp.int32(0)
    (over_videos, total, right), _ = jax.lax.scan(turn, start, (turns, rows))
    if kind == "softmax":
        total = (total + over_videos.sum()) / 2
    return total / batch, right / batch


@dataclasses.dataclass(frozen=True)
class Contrastive(Objective):
    """Pulls each clip and its text together and all others apart, equal texts too.

    Attributes:
        model: with methods video_features, text_features, similarity, encode_video and calibration
            and the field logit_scale, such as VideoPrism and X-CLIP with head "video_text".
        loss_kind: "softmax" or "sigmoid", see `pairwise_loss`.
        temperature: what cosines are divided by if the model has no learned scale; that is not
            bounded, where CLIP keeps it below 100.
        drop_tokens: share of each frame's patches that training leaves out, the same ones in all
            frames; 0 needs nothing of the model. Otherwise it has token_grid, and video_features
            takes `keep`.
        parts: turns in which the videos of a batch are compared, see `pairwise_loss`.
    """

    reads: ClassVar[str] = "captions"
    demo: ClassVar[Mapping[str, Any]] = {"drop_tokens": 0.0}
    loss_kind: str = "softmax"
    temperature: float = 0.07
    drop_tokens: Rate = 0.0
    parts: int = 1

    def __post_init__(self):
        if self.loss_kind not in LOSSES:
            raise UserError(
                f"config.objective.loss_kind must be one of {', '.join(LOSSES)}, "
                f"not {self.loss_kind!r}"
            )
        encode = inspect.signature(type(self.model).encode_video)
        if self.drop_tokens and "keep" not in encode.parameters:
            raise UserError(
                f"this model cannot leave out patches; set config.objective.drop_tokens to 0, not "
                f"{self.drop_tokens}"
            )

    @classmethod
    def check(cls, config, *, training):
        super().check(config, training=training)
        if config.data.repeats > 1:
            raise UserError(
                f"config.data.repeats is {config.data.repeats}, but must be 1 to learn from texts: "
                f"the clips of a video have one text, which would be right for one of them only"
            )

    def init(self, rng, batch):
        video = self.normalised(batch["video"])
        return self.model.init(rng, video, batch["text"], batch["text_mask"])["params"]

    def loss(self, params, batch, *, rng, ema_params=None):
        video = self.normalised(batch["video"])
        options = {"rngs": {"dropout": rng}}
        if self.drop_tokens:
            _, h, w = grid_of(video.shape, self.model.patch_size)
            options["keep"], _ = masking.tube_mask(rng, len(video), (1, h, w), self.drop_tokens)
        apply = self._apply(params)
        loss, accuracy = pairwise_loss(
            functools.partial(self._compare, params),
            apply("video_features", video, **options),
            apply("text_features", batch["text"], batch["text_mask"]),
            kind=self.loss_kind,
            parts=self.parts,
        )
        learned = self.model.logit_scale is not None
        scale = apply("calibration")[0] if learned else 1.0 / self.temperature
        return loss, {"accuracy": accuracy, "scale": jnp.asarray(scale, jnp.float32)}

    @property
    def predict(self) -> Mapping[str, Callable]:
        return {
            "video_embedding": self.video_embedding,
            "text_embedding": self.text_embedding,
            "similarity": self.similarity,
        }

    def video_embedding(self, params, batch) -> Array:
        """Unit vectors [B, D] of the clips, float32."""
        video = self.normalised(batch["video"])
        return self._apply(params)("encode_video", video).astype(jnp.float32)

    def text_embedding(self, params, batch) -> Array:
        """Features [K, D] of `text` [K, L] with `text_mask`, float32; not all models' have unit
        length, but their direction is the embedding."""
        features = self._apply(params)("text_features", batch["text"], batch["text_mask"])
        return features.astype(jnp.float32)

    def similarity(self, params, batch, texts: Array) -> Array:
        """Scores [B, K] of the clips with texts given by their `text_embedding` [K, D]."""
        video = self.normalised(batch["video"])
        videos = self._apply(params)("video_features", video)
        videos = jax.tree.map(lambda x: x.astype(jnp.float32), videos)
        return self._compare(params, videos, texts).astype(jnp.float32)

    def _compare(self, params, videos, texts: Array) -> Array:
        temperature = self.temperature if self.model.logit_scale is None else None
        return self._apply(params)("similarity", videos, texts, temperature=temperature)

    def _apply(self, params) -> Callable:
        return lambda method, *args, **options: self.model.apply(
            {"params": params}, *args, method=method, **options
        )


OBJECTIVE = Contrastive
