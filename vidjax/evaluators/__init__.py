"""Evaluators, one file each: entries of `config.evals`, run in training and by `vidjax.eval`.

An evaluator is given named functions of (params, batch) and makes its own passes over the data;
it knows no model. It returns metrics, summed on the host over all processes, and pictures; what
becomes of them is its caller's.
"""

import collections
import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

Batches = Iterator[dict[str, jax.Array]]
_TEXTS = 256  # embedded at once


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of an evaluator, or of several.

    Attributes:
        metrics: numbers by name.
        pictures: uint8 [H, W, 3] by name; processes other than the first may leave them out.
        lines: the main results in words, for the end of a run.
    """

    metrics: Mapping[str, float]
    pictures: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    lines: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Context:
    """Data and services that evaluators get from the loop.

    Attributes:
        predict: named functions of the objective.
        batches: (split, views) -> one pass over a split's clips, each video `temporal x spatial`
            times, padded at the end with weight 0.
        num_videos: split -> number of videos.
        num_classes: of the data; 0 when there are no labels.
        groups: names and sizes of several answers in one output, such as (("noun", 300),
            ("verb", 97)); labels are then [B, number of groups].
        captions: split -> captions of each video; None when the data has none.
        tokenize: texts -> token ids int32 [K, L] and mask bool [K, L], True at real tokens; None
            when the model reads no text.
        classes: split -> names of the classes of its list in label order, None where they are not
            known.
        put: places a batch that every process has whole on the mesh.
        parts: that a batch is split into on the mesh; must divide its rows.
    """

    predict: Mapping[str, Callable]
    batches: Callable[[str, tuple[int, int]], Batches]
    num_videos: Callable[[str], int]
    num_classes: int
    groups: tuple[tuple[str, int], ...] = ()
    captions: Callable[[str], Sequence[tuple[str, ...]]] | None = None
    tokenize: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]] | None = None
    classes: Callable[[str], tuple[str, ...] | None] = lambda split: None
    put: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]] = jax.device_put
    parts: int = 1

    @functools.cached_property
    def _text_embedding(self) -> Callable:
        return jax.jit(self.predict["text_embedding"])  # one program for all evaluators

    def embed_texts(self, params: Any, texts: Sequence[str]) -> np.ndarray:
        """predict["text_embedding"] of texts, in their order: float32 [K, D] on every host.

        Raises:
            UserError: the model reads no text.
        """
        if self.tokenize is None:
            raise UserError("texts cannot be embedded: the model has no tokeniser")
        out = []
        rows = -(-min(len(texts), _TEXTS) // self.parts) * self.parts
        for start in range(0, len(texts), rows):
            ids, mask = map(np.asarray, self.tokenize(texts[start : start + rows]))
            fill = (0, rows - len(ids)), (0, 0)  # once more the last text, so that all are real
            ids, mask = np.pad(ids, fill, mode="edge"), np.pad(mask, fill, mode="edge")
            vectors = self._text_embedding(params, self.put({"text": ids, "text_mask": mask}))
            out.append(gather({"vectors": vectors})["vectors"])
        return np.concatenate(out)[: len(texts)]

    def mean_over_views(
        self, split: str, views: tuple[int, int], outputs: Callable[[Mapping], jax.Array]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One pass over a split, in which the views of each video are averaged.

        Args:
            split: which list.
            views: temporal and spatial views of each video.
            outputs: batch -> [B, N].

        Returns:
            Means float64 [videos that could be read, N], their labels [videos, answers], and which
            videos of the list could be read, bool [all videos].

        Raises:
            UserError, RuntimeError: as `check_views`.
        """
        num_videos, num_views = self.num_videos(split), views[0] * views[1]
        sums = labels = None
        seen = np.zeros(num_videos, int)
        for batch in self.batches(split, tuple(views)):
            keys = ("video_id", "label", "weight")
            host = gather({k: batch[k] for k in keys} | {"outputs": outputs(batch)})
            label = host["label"].reshape(len(host["label"]), -1)
            if sums is None:
                sums = np.zeros((num_videos, host["outputs"].shape[1]))
                labels = np.full((num_videos, label.shape[1]), -1)
            real = host["weight"] > 0  # neither padding nor unreadable
            ids = host["video_id"][real]
            np.add.at(sums, ids, host["outputs"][real])
            np.add.at(seen, ids, 1)
            labels[ids] = label[real]
        read = check_views(seen, num_views)
        return sums[read] / num_views, labels[read], read


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Base of all evaluators.

    Attributes:
        needs: names of the objective's functions that it calls.
        reads: what each video of its list must have: "labels", "captions", or nothing.
        any_classes: whether the classes of its list may be others than those of training.
        context: see Context.
        split: which list.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[Literal["labels", "captions"] | None] = None
    any_classes: ClassVar[bool] = False
    context: Context
    split: str = "val"

    def run(self, params: Any) -> Evaluation:
        """Evaluates `params`."""
        raise NotImplementedError


def find(key: str, entry: Mapping[str, Any]) -> type[Evaluator]:
    """Returns the class of the evaluator that an entry of `config.evals` names.

    Raises:
        UserError: there is no such module.
    """
    names = [m.name for m in pkgutil.iter_modules(__path__)]
    name = entry.get("name")
    if name not in names:
        raise UserError(f"config.evals.{key}.name must be one of {names}, not {name!r}")
    return importlib.import_module(f"{__name__}.{name}").EVALUATOR


def build(evals: Mapping[str, Any], context: Context) -> dict[str, tuple[Evaluator, int]]:
    """Makes the evaluators of `config.evals`: name -> (evaluator, steps between its runs).

    Each entry has a `name`, the module of this package; `every`, the steps between two runs (0:
    only after the last step); and fields of the module's EVALUATOR.

    Raises:
        UserError: unknown evaluator or field, or an objective without the figures it needs.
    """
    out = {}
    for key, entry in evals.items():
        fields = dict(entry)
        name, every = fields.pop("name", None), fields.pop("every", 0)
        evaluator = find(key, entry)
        known = [f.name for f in dataclasses.fields(evaluator) if f.init and f.name != "context"]
        if unknown := set(fields) - set(known):
            raise UserError(
                f"config.evals.{key} has unknown keys {sorted(unknown)}; it has {known}"
            )
        if missing := set(evaluator.needs) - set(context.predict):
            raise UserError(
                f"config.evals.{key} ({name}) needs an objective that predicts "
                f"{' and '.join(map(repr, sorted(missing)))}; this one predicts "
                f"{sorted(context.predict)}"
            )
        out[key] = evaluator(context=context, **fields), every
    return out


def run_all(evaluators: Mapping[str, tuple[Evaluator, int]], params: Any) -> Evaluation:
    """Runs the evaluators of `build`, one after the other.

    Returns:
        Metrics are called key/name, and lines begin with the key. Pictures keep their names; those
        that several evaluators have are called key/name, too.
    """
    found = {key: evaluator.run(params) for key, (evaluator, _) in evaluators.items()}
    counts = collections.Counter(name for one in found.values() for name in one.pictures)
    metrics, pictures, lines = {}, {}, []
    for key, one in found.items():
        metrics |= {f"{key}/{name}": value for name, value in one.metrics.items()}
        lines += [f"{key}: {line}" for line in one.lines]
        for name, image in one.pictures.items():
            pictures[name if counts[name] == 1 else f"{key}/{name}"] = image
    return Evaluation(metrics, pictures, lines)


def split_of(entry: Mapping[str, Any]) -> str:
    """Returns the split that an entry of `config.evals` is evaluated on."""
    return entry.get("split", "val")


def describe(key: str, entry: Mapping[str, Any], preprocessing: Preprocessing) -> str:
    """Returns a line that says what an entry of `config.evals` measures, and how."""
    views, every, split = entry.get("views", (1, 1)), entry.get("every", 0), split_of(entry)
    short_side = (views[1] > 1 and preprocessing.views_short_side) or preprocessing.short_side
    fit = f"short side {short_side}," if preprocessing.fit == "crop" else preprocessing.fit
    return (
        f"{key}: {entry['name']} on {split}, {preprocessing.frames} frames "
        f"{preprocessing.sampling} stride {preprocessing.stride}, {views[0]}x{views[1]} views, "
        f"{fit} to {preprocessing.size} ({preprocessing.resize}), "
        + (f"every {every} steps" if every else "at the end")
    )


def with_views(preprocessing: Preprocessing, evals: Mapping[str, Any]) -> Preprocessing:
    """Returns preprocessing with the views of the evaluator that averages most of them."""
    averages = {}
    for key, entry in evals.items():
        average = entry.get("average", getattr(find(key, entry), "average", None))
        if average:
            averages[key] = average
    if not averages:
        return preprocessing
    best = max(averages, key=lambda key: np.prod(evals[key].get("views", (1, 1))))
    views = evals[best].get("views", (1, 1))
    return dataclasses.replace(
        preprocessing,
        temporal_views=views[0],
        spatial_views=views[1],
        view_average=averages[best],
    )


def gather(values: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """Every process's part of global arrays, whole, on every host."""
    return {
        k: np.asarray(multihost_utils.process_allgather(v, tiled=True)) for k, v in values.items()
    }


def check_views(seen: np.ndarray, views: int) -> np.ndarray:
    """Returns whether each video could be read, bool [videos].

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
