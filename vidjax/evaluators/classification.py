"""Top-1 and top-5 accuracy over several views of each video."""

import dataclasses
import functools
from typing import ClassVar

import jax
import numpy as np

from vidjax.errors import UserError
from vidjax.evaluators import Context, gather


@dataclasses.dataclass(frozen=True)
class Classification:
    """Averages the views of each video, then ranks its classes.

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
        logits = self.context.predict["logits"]
        if self.average == "logits":
            return jax.jit(logits)
        return jax.jit(lambda params, batch: jax.nn.softmax(logits(params, batch)))

    def run(self, params, step: int) -> dict[str, float]:
        num_videos = self.context.num_videos(self.split)
        scores = np.zeros((num_videos, self.context.num_classes))
        labels, views = np.full(num_videos, -1), np.zeros(num_videos, int)
        for batch in self.context.batches(self.split, tuple(self.views)):
            keys = ("video_id", "label", "weight")
            host = gather({k: batch[k] for k in keys} | {"scores": self._scores(params, batch)})
            real = host["weight"] > 0  # neither padding nor unreadable
            ids = host["video_id"][real]
            np.add.at(scores, ids, host["scores"][real])
            np.add.at(views, ids, 1)
            labels[ids] = host["label"][real]
        return top_k(scores, labels, views, self.views[0] * self.views[1])


def top_k(scores: np.ndarray, labels: np.ndarray, seen: np.ndarray, views: int) -> dict[str, float]:
    """Top-1 and top-5 of summed scores [videos, classes] of the videos that could be read.

    Args:
        scores: sums over the views of each video.
        labels: [videos]; ignored for videos that were not seen.
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
    read = seen > 0
    if not read.any():
        raise UserError("no video of the list could be read, so there is nothing to evaluate")
    scores, labels = scores[read], labels[read]
    own = np.take_along_axis(scores, labels[:, None], 1)
    # Ties count against the video: constant scores must not look right. The video's own class ties
    # with itself once.
    rank = (scores >= own).sum(1) - 1
    return {
        "top1": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()),
        "videos": float(read.sum()),
        "unreadable": float((~read).sum()),
    }


EVALUATOR = Classification
