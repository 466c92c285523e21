"""Top-1 and top-5 accuracy over several views of each video."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import numpy as np

from vidjax.errors import UserError
from vidjax.evaluators import Context, gather


@dataclasses.dataclass(frozen=True)
class Classification:
    """Averages the views of each video, then ranks its classes.

    Of several answers (Context.groups) each is ranked by itself, and all together by the product
    of their probabilities: Epic-Kitchens' action is its noun and its verb.

    Attributes:
        split: which list.
        views: temporal and spatial views of each video.
        average: "softmax" averages probabilities (VideoMAE), "logits" scores (ViViT).
    """

    needs: ClassVar[str] = "logits"
    context: Context
    split: str = "val"
    views: tuple[int, int] = (1, 1)
    average: str = "softmax"

    def __post_init__(self):
        if self.average not in ("softmax", "logits"):
            raise UserError(f"average must be 'softmax' or 'logits', not {self.average!r}")

    @functools.cached_property
    def _scores(self):
        logits, sizes = self.context.predict["logits"], self._sizes
        if self.average == "logits":
            return jax.jit(logits)

        def probabilities(params, batch):
            parts = jax.numpy.split(logits(params, batch), np.cumsum(sizes)[:-1], axis=1)
            return jax.numpy.concatenate([jax.nn.softmax(part) for part in parts], axis=1)

        return jax.jit(probabilities)

    @property
    def _sizes(self) -> list[int]:
        """Classes of each answer."""
        return [size for _, size in self.context.groups] or [self.context.num_classes]

    def run(self, params, step: int) -> dict[str, float]:
        num_videos, sizes = self.context.num_videos(self.split), self._sizes
        scores = np.zeros((num_videos, self.context.num_classes))
        labels, views = np.full((num_videos, len(sizes)), -1), np.zeros(num_videos, int)
        for batch in self.context.batches(self.split, tuple(self.views)):
            keys = ("video_id", "label", "weight")
            host = gather({k: batch[k] for k in keys} | {"scores": self._scores(params, batch)})
            real = host["weight"] > 0  # neither padding nor unreadable
            ids = host["video_id"][real]
            np.add.at(scores, ids, host["scores"][real])
            np.add.at(views, ids, 1)
            labels[ids] = host["label"][real].reshape(-1, len(sizes))
        read = check_views(views, self.views[0] * self.views[1])
        scores, labels = scores[read] / (self.views[0] * self.views[1]), labels[read]
        parts = np.split(scores, np.cumsum(sizes)[:-1], axis=1)
        figures = accuracies(ranks(parts, labels, are_logits=self.average == "logits"))
        for (name, _), part, label in zip(self.context.groups, parts, labels.T, strict=False):
            figures |= {
                f"{name}_{key}": value
                for key, value in accuracies(ranks([part], label[:, None])).items()
            }
        return figures | {"videos": float(read.sum()), "unreadable": float((~read).sum())}


def check_views(seen: np.ndarray, views: int) -> np.ndarray:
    """Which videos could be read, bool [videos].

    Args:
        seen: views counted per video [videos]: all of them, or 0 for an unreadable video.
        views: how many each video must have.

    Raises:
        RuntimeError: a video was counted too often or only in part: a broken loader.
        UserError: no video could be read.
    """
    wrong = (seen != views) & (seen != 0)
    if wrong.any():
        raise RuntimeError(
            f"{wrong.sum()} of {len(seen)} videos were counted {sorted(set(seen[wrong]))} times "
            f"instead of {views}"
        )
    if not seen.any():
        raise UserError("no video of the list could be read, so there is nothing to evaluate")
    return seen > 0


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
