"""Top-1 and top-5 accuracy over several views of each video."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import numpy as np

from vidjax.errors import UserError
from vidjax.evaluators import Evaluation, Evaluator


@dataclasses.dataclass(frozen=True)
class Classification(Evaluator):
    """Averages the views of each video, then ranks its classes.

    Of several answers (Context.groups) each is ranked by itself, and all together by the product
    of their probabilities: Epic-Kitchens' action is its noun and its verb.

    Attributes:
        split: which list.
        views: temporal and spatial views of each video.
        average: "softmax" averages probabilities (VideoMAE), "logits" scores (ViViT).
    """

    needs: ClassVar[tuple[str, ...]] = ("logits",)  # first what gives the scores
    reads: ClassVar[str] = "labels"
    views: tuple[int, int] = (1, 1)
    average: str = "softmax"

    def __post_init__(self):
        if self.average not in ("softmax", "logits"):
            raise UserError(f"average must be 'softmax' or 'logits', not {self.average!r}")

    @property
    def sizes(self) -> list[int]:
        """Classes of each answer."""
        return [size for _, size in self.context.groups] or [self.context.num_classes]

    @functools.cached_property
    def _scores(self) -> Callable:
        """Jitted (params, batch, ...) -> what is averaged over the views [B, C]."""
        logits, cuts = self.context.predict[self.needs[0]], np.cumsum(self.sizes)[:-1]
        if self.average == "logits":
            return jax.jit(logits)

        def probabilities(*args):
            parts = jax.numpy.split(logits(*args), cuts, axis=1)
            return jax.numpy.concatenate([jax.nn.softmax(part) for part in parts], axis=1)

        return jax.jit(probabilities)

    def scorer(self, params) -> Callable:
        """batch -> scores [B, C]."""
        return functools.partial(self._scores, params)

    def run(self, params) -> Evaluation:
        scores, labels, read = self.context.mean_over_views(
            self.split, self.views, self.scorer(params)
        )
        self._check_labels(labels)
        parts = np.split(scores, np.cumsum(self.sizes)[:-1], axis=1)
        metrics = accuracies(ranks(parts, labels, are_logits=self.average == "logits"))
        for (name, _), part, label in zip(self.context.groups, parts, labels.T, strict=False):
            metrics |= {
                f"{name}_{key}": value
                for key, value in accuracies(ranks([part], label[:, None])).items()
            }
        counts = {"videos": float(read.sum()), "unreadable": float((~read).sum())}
        return Evaluation(metrics | counts)

    def _check_labels(self, labels: np.ndarray) -> None:
        """An index past the end or before the start would be looked up without a word."""
        if labels.shape[1] != len(self.sizes):
            raise UserError(
                f"videos of the {self.split} split have {labels.shape[1]} labels each, but the "
                f"model gives {len(self.sizes)} answers"
            )
        if labels.min() < 0 or (labels >= np.array(self.sizes)).any():
            raise UserError(
                f"labels of the {self.split} split go from {labels.min()} to {labels.max()}, but "
                f"must lie from 0 to {max(self.sizes) - 1}, the last class (-1 is no label)"
            )


def ranks(
    scores: Sequence[np.ndarray], labels: np.ndarray, *, are_logits: bool = False
) -> np.ndarray:
    """How many answers score at least as well as the right one, int [videos]; 0 is best.

    Args:
        scores: [videos, classes] of each answer; of several, a combination scores the product of
            its probabilities, which `are_logits` has to be made first.
        labels: [videos, answers].

    Ties and NaN count against the video: constant scores must not look right.
    """
    if len(scores) == 1:
        own = np.take_along_axis(scores[0], labels, 1)
        return (~(scores[0] < own)).sum(1) - 1  # it ties with itself once
    if are_logits:
        scores = [np.exp(x - x.max(1, keepdims=True)) for x in scores]
        scores = [x / x.sum(1, keepdims=True) for x in scores]
    out = np.empty(len(labels), int)
    for video, label in enumerate(labels):  # one by one: there are 29,100 actions
        product = functools.reduce(np.multiply.outer, [x[video] for x in scores])
        out[video] = (~(product < product[tuple(label)])).sum() - 1
    return out


def accuracies(ranks: np.ndarray) -> dict[str, float]:
    return {"top1": float((ranks < 1).mean()), "top5": float((ranks < 5).mean())}


EVALUATOR = Classification
