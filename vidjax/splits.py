"""Lists of videos of a config: read when they are first asked for."""

import functools
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from vidjax import data, evaluators, models, objectives
from vidjax.card import Card
from vidjax.data import datasets, demo, lists
from vidjax.data.lists.digests import digests_of
from vidjax.errors import UserError
from vidjax.evaluators import split_of

NAMES = ("train", "val")


class Splits:
    """Videos to train on and to validate on, "train" and "val".

    Args:
        config: of the run or the evaluation.
        card: of the checkpoint that is evaluated; None in training.
        hosts: shards that evaluation cuts a list into, one for each host that reads.

    Attributes:
        dataset: facts of the public dataset that the config names; None for custom data.
    """

    def __init__(self, config: ConfigDict, card: Card | None = None, hosts: int = 1):
        self._config, self._card, self._hosts = config, card, hosts
        self._objective = objectives.find(config.objective.name)
        self._classifies = models.has_field(config.model.name, config.model.head, "num_classes")
        self.dataset = datasets.DATASETS.get(config.data.name)

    def has(self, split: str) -> bool:
        """Whether the config says where the videos of a split are."""
        cfg = self._config.data
        is_held_out = split == "val" and self.holds_out
        return bool(cfg[split]) or cfg.name in demo.LISTS or is_held_out

    @property
    def holds_out(self) -> bool:
        """Whether validation videos are a share of the training list."""
        cfg = self._config.data
        return bool(cfg.val_share and cfg.train) and not cfg.val and cfg.name not in demo.LISTS

    @property
    def evals(self) -> dict[str, dict[str, Any]]:
        """Entries of `config.evals` whose videos the config names."""
        evals = self._config.evals.to_dict()
        return {key: entry for key, entry in evals.items() if self.has(split_of(entry))}

    @functools.cache  # noqa: B019 - it lives as long as its run
    def videos(self, split: str) -> datasets.VideoList:
        """Returns the videos of a split.

        Raises:
            UserError: there is no such split, the config names no list for it, or the list is
                wrong.
        """
        if split not in NAMES:
            raise UserError(f"there is no split {split!r}; splits are 'train' and 'val'")
        cfg = self._config.data
        videos = self._held_out[split] if self.holds_out else self._read(split)
        if split == "train" and not self._card and cfg.shots:
            return lists.few_shot(videos, cfg.shots, cfg.shots_seed)
        return videos

    @functools.cached_property
    def _held_out(self) -> dict[str, datasets.VideoList]:
        """Both splits of the training list."""
        cfg = self._config.data
        pair = lists.hold_out(self._read("train"), cfg.val_share, cfg.val_seed)
        return dict(zip(NAMES, pair, strict=True))

    def _read(self, split: str) -> datasets.VideoList:
        """Reads the list that the config names for a split."""
        cfg = self._config.data
        path = cfg[split]
        if not path and cfg.name in demo.LISTS:
            path = demo.list_of(cfg.name, split, demo.default_folder())
        if not self.has(split):
            raise UserError(
                f"no {split} videos: point --config.data.{split} at a list file of "
                f"{cfg.name} (lines of `path label`; --config.data.root for relative paths), or "
                f"append :demo to the config's name, which needs no data"
            )
        classes, num_classes, name = cfg.classes, self._config.model.get("num_classes"), cfg.name
        training = split == "train" and not self._card
        own_classes = self.dataset and self.dataset.own_classes
        if split == "val" and (cfg.val_classes or own_classes):
            classes, name = cfg.val_classes, "custom"
        elif self._card and cfg.name == "custom" and self._classifies:
            classes = classes or self._card.classes or ""
            num_classes = self._card.model.get("num_classes")
        elif split == "val" and self.has("train") and self._objective.learns_classes:
            # Labels mean what they mean in training, even if a class has no video here.
            classes = classes or self.classes or ""
            num_classes = num_classes or self.num_classes
        return lists.read_list(
            path,
            cfg.root,
            name,
            classes=classes,
            split="test" if split == "val" else split,
            num_classes=num_classes,
            need_labels=self._classifies
            or (self._objective.learns_classes and training)
            or self._evaluated(split, "labels"),
            need_captions=self._evaluated(split, "captions")
            or (self._objective.reads == "captions" and training),
        )

    def _evaluated(self, split: str, reads: str) -> bool:
        """Returns whether an evaluator of the list of a split reads "labels" or "captions"."""
        evals = self._config.evals.to_dict().items()
        readers = [entry for key, entry in evals if evaluators.find(key, entry).reads == reads]
        return any(self.holds_out or split_of(entry) == split for entry in readers)

    def digests(self) -> dict[str, dict[str, Any]]:
        """Returns the digests of the lists that the run reads, by split."""
        splits = {"train"} | {split_of(entry) for entry in self.evals.values()}
        return {split: digests_of(self.videos(split)) for split in sorted(splits)}

    @property
    def notices(self) -> list[str]:
        """Notes about the lists."""
        cfg, notices = self._config.data, []
        if cfg.val_share and cfg.val:
            notices.append(
                f"config.data.val_share = {cfg.val_share:g} holds no videos out, as "
                f"config.data.val names those to validate on"
            )
        for split in filter(self.has, NAMES):
            notices += self.videos(split).notices
        return notices

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names, where the training list or `config.data.classes` gives them."""
        return self.videos("train").classes

    @property
    def num_classes(self) -> int:
        """Number of classes: a fact of the dataset, or what the training list shows."""
        if self.dataset:
            return self.dataset.num_classes
        videos = self.videos("train")
        count = len(videos.classes or ()) or 1 + max(video.label for video in videos)
        if count < 2:
            raise UserError(
                f"{self._config.data.train} has one class only, so there is nothing to tell apart; "
                f"give a folder with a folder of videos for each class (perhaps the one inside "
                f"it), or a list with their labels"
            )
        return count

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Names and sizes of several labels of each video; () for one."""
        return self.dataset.groups if self.dataset else ()

    @functools.cache  # noqa: B019
    def bad_videos(self, split: str, workdir: epath.Path) -> data.BadVideos:
        """Counts the unusable videos of a split, and lists them in workdir/bad_videos.jsonl.

        Of each process: others than the first have its number in the name of the list.
        """
        index, share = jax.process_index(), self._config.data.max_bad_share
        # In evaluation a process sees its shard only.
        count = len(self.videos(split)) // (1 if split == "train" else self._hosts)
        path = workdir / (f"bad_videos.{index}.jsonl" if index else "bad_videos.jsonl")
        others = [other for other in workdir.glob("bad_videos*.jsonl") if other != path]
        return data.BadVideos(path, max(1, count), share, others)
