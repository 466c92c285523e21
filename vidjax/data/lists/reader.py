"""Reads a list of videos: tells its format, finds its files, numbers its labels.

Files may have another extension than the list says, and ids none; a video may also be a folder of
numbered pictures. Paths may have backslashes or the folders of another machine in front. A notice
says what was done; see `names`.

Lists, but for folders and globs, may be URLs (gs://…) like the videos in them, which may also be
records of shards: see vidjax.data.reading.locators.

Labels may be numbers or names. Names are numbered by a classes file (see `class_names`), or else by
their sorted order.
"""

import importlib
import os
import pkgutil
from dataclasses import replace
from types import ModuleType

from vidjax.data.datasets import DATASETS, Dataset, Video, VideoList
from vidjax.data.lists import formats, labels, missing, names
from vidjax.data.lists.class_names import class_names
from vidjax.data.lists.files import Files
from vidjax.data.lists.source import Listing, Row, Source
from vidjax.data.reading import locators, video_files
from vidjax.errors import UserError, did_you_mean

# Formats that any dataset may have, in the order in which they are tried: after those of single
# datasets, and the last of them takes any text.
GENERAL = ("folders", "json_objects", "json_lines", "text")


def read_list(
    path: str | os.PathLike,
    root: str | os.PathLike = "",
    dataset: str = "custom",
    *,
    classes: str | os.PathLike | tuple[str, ...] = "",
    split: str = "train",
    num_classes: int | None = None,
    need_labels: bool = False,
    need_captions: bool = False,
) -> VideoList:
    """Reads a list of videos in any of the formats of vidjax.data.lists.formats.

    Args:
        path: the list file or its URL, or a local folder or glob.
        root: folder, or URL of one, that relative paths start from; "" is the list's own folder.
        dataset: a key of DATASETS, for the number of classes; "custom" is any other data.
        classes: class names in label order, or a text file with one a line, or a csv of id,name
            (in any order). "" takes classes.txt beside the list if there is one, or
            moments_categories.txt, or Jester's labels, or for Epic-Kitchens its
            EPIC_100_noun_classes.csv and EPIC_100_verb_classes.csv.
        split: "train" or "test"; only the split files of HMDB51 and the json of MSR-VTT hold both
            (of its train_val_videodatainfo.json, "test" is the validation split).
        num_classes: labels must be below it; None takes the dataset's.
        need_labels: raise if a video has no label.
        need_captions: raise if a video has no caption.

    Returns:
        VideoList. Videos that a manifest rejects are left out, and a notice counts them. A list
        with several labels a video is read as "custom" too (to check it), but not if need_labels.
        Where a list has captions, rows of one path are one video.

    Raises:
        UserError: the list is missing, its format or a line of it is wrong, a line has several
            labels without a header, a label is out of range, the number of labels is not the
            dataset's, one path has two different labels, a label or caption that is needed is
            missing, most of the paths do not exist, a path is not UTF-8, or no driver for a URL is
            installed.
    """
    path, root = os.path.expanduser(path), os.path.expanduser(root)
    facts = _facts(dataset)
    num_classes = num_classes or (facts.num_classes if facts else None)
    if root and not locators.is_url(root) and not os.path.isdir(root):
        raise UserError(f"root {root} of {path} is not a folder")
    base = root or (path if os.path.isdir(path) else os.path.dirname(path))
    source = Source(path, Files(base), split)
    rows, own_classes, notices = _read(source)
    if not rows:
        raise UserError(f"{path} lists no videos")
    _check_names(path, rows)
    rows, changes = names.resolve(source, rows)
    groups = facts.groups if facts else ()
    classes = class_names(path, classes, groups) or own_classes
    numbers, classes, more = labels.number(path, rows, classes, facts, num_classes, need_labels)
    if need_captions:
        _check_captions(path, rows)
    more += _check_labels_agree(path, rows, numbers)
    videos = tuple(
        Video(locators.join(base, row.path), label, row.num_frames, row.verdict, row.captions)
        for row, label in zip(rows, numbers, strict=True)
    )
    if any(row.captions for row in rows):
        videos = _one_for_each_path(videos)
    videos, rejected = _without_rejected(path, videos)
    missing.check_exist(path, videos, base, root)
    return VideoList(videos, classes, (*notices, *changes, *more, *rejected))


def formats_in_order() -> list[ModuleType]:
    """Returns the modules of vidjax.data.lists.formats, those of GENERAL last."""
    specific = {module.name for module in pkgutil.iter_modules(formats.__path__)} - {*GENERAL}
    order = (*sorted(specific), *GENERAL)
    return [importlib.import_module(f"{formats.__name__}.{name}") for name in order]


def _read(source: Source) -> Listing:
    """Reads a list by the first format that recognises it."""
    path = source.path
    if not source.is_folder and not source.is_glob:
        if not locators.is_file(path):
            raise UserError(f"list file {path} does not exist")
        if video_files.is_video(source.name):
            raise UserError(f"{path} is a video; give a list file with lines of `path label`")
    modules = formats_in_order()
    try:
        return next(module for module in modules if module.recognises(source)).read(source)
    except (AttributeError, KeyError, TypeError):
        if not source.is_json:
            raise
    lists = ", ".join(module.JSON for module in modules if hasattr(module, "JSON"))
    raise UserError(f"{path} is none of the json lists: {lists}")


def _without_rejected(path: str, videos: tuple[Video, ...]) -> tuple[tuple[Video, ...], list[str]]:
    """Returns the videos that a manifest does not reject, and a notice of the others."""
    kept = tuple(video for video in videos if video.verdict != "reject")
    if len(kept) == len(videos):
        return videos, []
    if not kept:
        raise UserError(f"{path} rejects every video; its `reason` fields say why")
    count = len(videos) - len(kept)
    return kept, [f"{path}: {count} of {len(videos)} videos are left out, as rejected"]


def _facts(dataset: str) -> Dataset | None:
    if dataset == "custom":
        return None
    if dataset not in DATASETS:
        known = f"known are {', '.join(DATASETS)}, and custom for your own data"
        hint = " ".join(filter(None, (did_you_mean(dataset, DATASETS), known)))
        raise UserError(f"unknown dataset {dataset!r}; {hint}")
    return DATASETS[dataset]


def _one_for_each_path(videos: tuple[Video, ...]) -> tuple[Video, ...]:
    """Merges the videos of each path, with the captions of all."""
    merged: dict[str, Video] = {}
    for video in videos:
        first = merged.setdefault(video.path, video)
        if first is not video:
            new = tuple(text for text in video.captions if text not in first.captions)
            merged[video.path] = replace(first, captions=first.captions + new)
    return tuple(merged.values())


def _check_names(path: str, rows: list[Row]) -> None:
    """Raises if a path cannot be written as UTF-8, as the names of files on Linux may be."""
    for row in rows:
        try:
            row.path.encode()
        except UnicodeEncodeError:
            name = row.path.encode("ascii", "backslashreplace").decode()
            where = row.where if row.where.isascii() else name
            raise UserError(
                f"{path} {where}: the path {name} is not UTF-8; rename the file and list it anew"
            ) from None


def _check_labels_agree(path: str, rows: list[Row], labels: list[int]) -> list[str]:
    """Raises if a path has two labels; a notice if it comes again without another caption."""
    first: dict[str, tuple[Row, int]] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    repeated = []
    for row, label in zip(rows, labels, strict=True):
        earlier, earlier_label = first.setdefault(row.path, (row, label))
        if label != earlier_label:
            raise UserError(
                f"{path} {row.where}: {row.path} has label {label} "
                f"but {earlier_label} in {earlier.where}; a video has one label"
            )
        if (row.path, row.captions) in seen:
            repeated.append(row)
        seen.add((row.path, row.captions))
    if not repeated:
        return []
    return [f"{path}: paths listed twice: {len(repeated)}, such as {repeated[0].path}"]


def _check_captions(path: str, rows: list[Row]) -> None:
    captioned = {row.path for row in rows if row.captions}
    for row in rows:
        if row.path not in captioned:
            raise UserError(
                f"{path} {row.where}: {row.path} has no caption; write `path,caption` lines with "
                f"this header, as training on texts and retrieval need them"
            )
