"""Retrieval of videos by their captions, and of captions by their videos."""

import dataclasses
import functools
from typing import ClassVar

import jax
import numpy as np

from vidjax.errors import UserError
from vidjax.evaluators import Evaluation, Evaluator


@dataclasses.dataclass(frozen=True)
class Retrieval(Evaluator):
    """R@1, R@5, R@10, median and mean rank by cosine, in both directions.

    Of X-CLIP that is the cosine with texts that no video has bent, not the model's similarity.

    Text to video (t2v) asks once for each caption; video to text (v2t) once for each video, whose
    rank is that of its best caption. Ranks count from 1. Recall depends on the number of videos
    and captions, which are figures, too. Videos that cannot be read are neither asked for nor
    found, nor are their captions; they are counted.

    Attributes:
        split: which list; each of its videos needs a caption.
        views: temporal and spatial views of each video, whose unit embeddings are averaged.
    """

    needs: ClassVar[tuple[str, ...]] = ("video_embedding", "text_embedding")
    reads: ClassVar[str] = "captions"
    views: tuple[int, int] = (1, 1)

    @functools.cached_property
    def _video_embedding(self):
        return jax.jit(self.context.predict["video_embedding"])

    def run(self, params) -> Evaluation:
        captions = self.context.captions(self.split) if self.context.captions else ()
        if lacking := self.context.num_videos(self.split) - sum(map(bool, captions)):
            raise UserError(
                f"retrieval needs a caption for each video, which {lacking} videos of the "
                f"{self.split} split do not have; use a list with captions, such as a csv with "
                f"the columns path,caption"
            )
        videos, _, read = self.context.mean_over_views(
            self.split, self.views, functools.partial(self._video_embedding, params)
        )
        captions = [texts for texts, is_read in zip(captions, read, strict=True) if is_read]
        owners = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
        texts = self.context.embed_texts(params, [text for own in captions for text in own])
        t2v, v2t = ranks(_unit(texts), _unit(videos), owners)
        counts = {"videos": read.sum(), "captions": len(texts), "unreadable": (~read).sum()}
        metrics = {
            **{f"t2v_{key}": value for key, value in recalls(t2v).items()},
            **{f"v2t_{key}": value for key, value in recalls(v2t).items()},
            **{key: float(count) for key, count in counts.items()},
        }
        return Evaluation(metrics)


def ranks(
    texts: np.ndarray, videos: np.ndarray, owners: np.ndarray, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """How many wrong items score at least as well as the right one; 0 is best.

    Args:
        texts: unit vectors [K, D].
        videos: unit vectors [V, D].
        owners: which video each text is of, int [K]; every video has one at least.
        block: texts and videos that are scored at once: memory is O(block²).

    Returns:
        Of each text the rank of its video, int [K], and of each video the rank of its best text,
        int [V]; its other texts are not wrong.

    Ties and NaN count against: constant embeddings must not look right. Scores are float64
    products rounded to float32, on the host: in float32, equal vectors of 768 numbers get unequal
    scores by their place in a block, and accelerators multiply in fewer bits still. See
    benchmarks/studies/retrieval.md.
    """
    own = np.empty(len(texts), np.float32)
    for i in range(0, len(texts), block):
        rows = slice(i, i + block)
        pairs = texts[rows], videos[owners[rows]]
        own[rows] = np.einsum("kd,kd->k", *pairs, dtype=np.float64, casting="same_kind")
    best = np.full(len(videos), -np.inf, np.float32)
    with np.errstate(invalid="ignore"):  # of NaN
        np.maximum.at(best, owners, own)
    t2v, v2t = np.zeros(len(texts), int), np.zeros(len(videos), int)
    for i in range(0, len(texts), block):
        rows, owner = slice(i, i + block), owners[i : i + block]
        exact = texts[rows].astype(np.float64)
        for j in range(0, len(videos), block):
            columns = slice(j, j + block)
            scores = (exact @ videos[columns].T.astype(np.float64)).astype(np.float32)
            inside = np.flatnonzero((owner >= j) & (owner < j + block))
            scores[inside, owner[inside] - j] = own[rows][inside]  # to the last bit
            t2v[rows] += np.count_nonzero(~(scores < own[rows, None]), axis=1)
            v2t[columns] += np.count_nonzero(~(scores < best[columns]), axis=0)
    right = np.bincount(owners, ~(own < best[owners]), len(videos)).astype(int)
    return t2v - 1, v2t - right


def recalls(ranks: np.ndarray) -> dict[str, float]:
    """R@k as shares; median and mean rank, which count from 1."""
    figures = {f"r{k}": float((ranks < k).mean()) for k in (1, 5, 10)}
    return figures | {
        "median_rank": float(np.median(ranks) + 1),
        "mean_rank": float(ranks.mean() + 1),
    }


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


EVALUATOR = Retrieval
