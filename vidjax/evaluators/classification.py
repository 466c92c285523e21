"""Top-1 and top-5 accuracy over several views of each video, and the confusion matrix."""

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import numpy as np

from vidjax.errors import UserError
from vidjax.evaluators import Evaluation, Evaluator

_DRAWN = 100  # classes of a confusion matrix that is drawn
# Up to so many classes: pixels of a cell, and of letters. With more, cells have no numbers.
_CELLS = ((10, 48, 13), (30, 30, 11), (_DRAWN, 12, 10))
_LONGEST = 28  # letters of a class's name in the picture
_INKS = ("black", "white")  # on light and on dark cells
_DARK = np.array([8, 48, 107])  # of a cell with all videos of its class


@dataclasses.dataclass(frozen=True)
class Classification(Evaluator):
    """Averages the views of each video, then ranks its classes.

    Of several answers (Context.groups) each is ranked by itself, and all together by the product
    of their probabilities: Epic-Kitchens' action is its noun and its verb.

    Beside accuracies there are the mean over classes of their top-1, the 95% interval of top-1
    (Wilson's), what always answering the most frequent label would give ("chance"), and, of one
    answer with up to 100 classes, the picture "confusion".

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
        ranked = ranks(parts, labels, are_logits=self.average == "logits")
        metrics = accuracies(ranked) | certainty(ranked < 1, labels)
        for (name, _), part, label in zip(self.context.groups, parts, labels.T, strict=False):
            metrics |= {
                f"{name}_{key}": value
                for key, value in accuracies(ranks([part], label[:, None])).items()
            }
        counts = {"videos": float(read.sum()), "unreadable": float((~read).sum())}
        low, high, chance = (100 * metrics[key] for key in ("top1_low", "top1_high", "chance"))
        line = (
            f"{(ranked < 1).sum()} of {len(ranked)} right, {metrics['top1']:.1%} (95% interval "
            f"{low:.1f} to {high:.1f}); chance {chance:.1f}% (always the most frequent class)"
        )
        return Evaluation(metrics | counts, self._pictures(scores, labels, ranked < 1), [line])

    def _pictures(
        self, scores: np.ndarray, labels: np.ndarray, right: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Returns the confusion matrix; nothing of several answers, or of too many classes."""
        if labels.shape[1] > 1 or self.sizes[0] > _DRAWN or jax.process_index() > 0:
            return {}
        names = self.context.classes(self.split) or ()
        if len(names) != self.sizes[0]:
            names = [""] * self.sizes[0]
        image = figure(confusion(scores, labels[:, 0], right), names)
        return {"confusion": np.asarray(image)}

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


def certainty(right: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the uncertainty of an accuracy, and what to compare it with.

    Args:
        right: bool [videos].
        labels: [videos, answers].

    Returns:
        mean_class_top1: mean over the labels that occur of the share that is right.
        top1_low, top1_high: ends of the 95% interval of the share that is right (Wilson 1927),
            which a normal approximation would put beyond 1 for few videos.
        chance: share of the most frequent label.
    """
    _, of, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    videos, z = len(right), 1.96
    share = right.mean()
    middle = share + z**2 / (2 * videos)
    reach = z * np.sqrt(share * (1 - share) / videos + (z / (2 * videos)) ** 2)
    return {
        "mean_class_top1": float((np.bincount(of.reshape(-1), right) / counts).mean()),
        "top1_low": float((middle - reach) / (1 + z**2 / videos)),
        "top1_high": float((middle + reach) / (1 + z**2 / videos)),
        "chance": float(counts.max() / videos),
    }


def confusion(scores: np.ndarray, labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Counts videos by label (row) and answer (column), int [classes, classes].

    Args:
        scores: [videos, classes].
        labels: [videos].
        right: bool [videos]; where False the answer is the best other class, also in a tie.
    """
    scores = scores.copy()
    scores[~right, labels[~right]] = -np.inf
    out = np.zeros((scores.shape[1],) * 2, int)
    np.add.at(out, (labels, scores.argmax(1)), 1)
    return out


def figure(counts: np.ndarray, names: Sequence[str]):
    """Draws a confusion matrix [classes, classes] as a PIL image, large shares of a row dark."""
    from PIL import Image, ImageDraw, ImageFont

    cell, letters = next(sizes for most, *sizes in _CELLS if len(counts) <= most)
    font, gap = ImageFont.load_default(letters), 4
    names = [_drawable(name) or f"class {i}" for i, name in enumerate(names)]
    rows = [f"{name} ({n})" for name, n in zip(names, counts.sum(1), strict=True)]
    side = round(max(font.getlength(text) for text in rows)) + 2 * gap
    across = cell * len(counts)
    title = "rows: true class (videos), columns: answer"
    width = max(side + across, round(font.getlength(title))) + 2 * gap
    left, top = side, side + letters + 2 * gap
    canvas = Image.new("RGB", (width, top + across + gap), "white")
    # Names of columns are written as those of rows, and the strip is turned.
    strip = Image.new("RGB", (side, across), "white")
    draw, turned = ImageDraw.Draw(canvas), ImageDraw.Draw(strip)
    draw.text((gap, gap), title, fill="black", font=font)
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        middle = cell * i + cell // 2
        draw.text((left - gap, top + middle), row, fill="black", font=font, anchor="rm")
        turned.text((gap, middle), name, fill="black", font=font, anchor="lm")
    canvas.paste(strip.transpose(Image.Transpose.ROTATE_90), (left, top - side))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for (i, j), share in np.ndenumerate(shares):
        box = [left + cell * j, top + cell * i, left + cell * (j + 1), top + cell * (i + 1)]
        colour = tuple(np.round(255 + share * (_DARK - 255)).astype(int).tolist())
        draw.rectangle(box, fill=colour, outline="black" if i == j else "lightgrey")
        if counts[i, j] and len(counts) <= _CELLS[1][0]:
            place, ink = (box[0] + cell // 2, box[1] + cell // 2), _INKS[bool(share > 0.5)]
            draw.text(place, str(counts[i, j]), fill=ink, font=font, anchor="mm")
    return canvas


def _drawable(name: str) -> str:
    """Returns a name in the letters that Pillow's own font has, and not too long."""
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().strip()
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 2].rstrip()}.."


EVALUATOR = Classification
