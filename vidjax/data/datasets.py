"""Facts of the public datasets, and every list format that their videos come in.

`read_list` tells the format by itself:

    text lines       path label, by space, comma, semicolon or tab; header and quotes allowed;
                     no label: -1 or nothing; a class's name may stand beside its number; also
                     VideoMAE's and mmaction2's lists (path 0 -1, dir num_frames label) and Moments
                     in Time's; see vidjax.data.lists.tables
    .json, .jsonl    [{"path": ..., "label": ...}], or a line for each
    Kinetics csv     label,youtube_id,time_start,time_end,split
    SSv2 json        [{"id": ..., "template": ...}] with labels.json beside it
    UCF101           trainlist01.txt, testlist01.txt with classInd.txt beside it
    HMDB51           a folder with {class}_test_split1.txt files, or a glob such as s/*_split2.txt
    Epic-Kitchens    EPIC_100_train.csv, EPIC_100_validation.csv, with one video for each row, cut
                     out beforehand and named by its narration_id, flat or in participants' folders
    folders          a folder with one folder of videos per class, however deep
    manifest .jsonl  what `python -m vidjax.data.check` writes

and with captions, which some videos may have many of:

    text lines       path,caption with this header, by comma or tab, perhaps with a label column; a
                     path may come again with another caption
    .jsonl           {"path": ..., "captions": [...]}, perhaps with a label
    MSR-VTT csv      key,vid_key,video_id,sentence (MSRVTT_JSFUSION_test.csv, the test set 1K-A);
                     video_id alone (MSRVTT_train.9k.csv), with MSRVTT_data.json beside it
    MSR-VTT json     videos and sentences ({train_val,test}_videodatainfo.json, MSRVTT_data.json)
    VATEX json       [{"videoID": ..., "enCap": [...]}]
    ActivityNet json {"v_...": {"duration", "timestamps", "sentences"}} (ActivityNet Captions); the
                     sentences make one paragraph, as paragraph retrieval wants it

Files may have another extension than the list says, and ids none; a video may also be a folder of
numbered pictures. Clips of Kinetics may lie flat, in folders of their classes, of the split or of
both, and be named by the YouTube id alone. Paths may have backslashes or the folders of another
machine in front. A notice says what was done; see vidjax.data.reading.video_files.

Lists, but for folders and globs, may be URLs (gs://…) like the videos in them, which may also be
records of shards: see vidjax.data.reading.locators.

Labels may be numbers or names. Names are numbered by a classes file, or else by their sorted order.
A classes file has one name a line, or is a csv with the header `id,name`, as X-CLIP's labels are,
or has lines `name,number` or `number name`. Where a video has several labels,
as Epic-Kitchens' noun and verb, text lists need a header that names their columns, such as
`path,noun,verb` or `path,noun_class,verb_class`, and numbers in them.
"""

import collections
import csv
import difflib
import functools
import glob
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np

from vidjax import checksums, json_files
from vidjax.data.lists import tables
from vidjax.data.lists.tables import bad_line, read_lines, whole
from vidjax.data.reading import locators, video_files
from vidjax.data.reading.video_files import Files
from vidjax.errors import UserError


@dataclass(frozen=True)
class Video:
    """One line of a list: where the file is and what is known about it.

    label is -1 where the list has none, and a tuple, one for each of Dataset.groups, for a dataset
    that has several. num_frames and verdict come from a manifest written by
    `vidjax.data.check` (a file that has another number of frames by now is not used); a verdict of
    None means unchecked. captions are sentences that each describe the whole video.
    """

    path: str  # any locator of vidjax.data.reading.locators
    label: int | tuple[int, ...] = -1
    num_frames: int | None = None
    verdict: str | None = None
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoList(Sequence[Video]):
    """The videos of a list in its order, the class names where known, and what to tell the user.

    Of several groups of classes, the names of one group follow those of the other.
    """

    videos: tuple[Video, ...]
    classes: tuple[str, ...] | None = None
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index):
        return self.videos[index]


@dataclass(frozen=True)
class Dataset:
    """What is true of a dataset whoever trains on it.

    flip is False where mirroring a video changes its class ("pushing something from left to
    right"). groups are names and sizes of several labels that each video has at once, in the order
    of a model's outputs; num_classes is then their sum, and 0 where videos have captions only, or
    own_classes: each list has other classes.
    """

    name: str
    num_classes: int
    flip: bool = True
    groups: tuple[tuple[str, int], ...] = ()
    own_classes: bool = False


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("k400", 400),
        Dataset("k600", 600),
        Dataset("k700", 700),
        Dataset("k710", 710),
        Dataset("ssv2", 174, flip=False),
        Dataset("ucf101", 101),
        Dataset("hmdb51", 51),
        Dataset("epic_kitchens", 397, groups=(("noun", 300), ("verb", 97))),
        Dataset("demo", 8, flip=False),
        Dataset("demo_pairs", 6, flip=False, groups=(("motion", 4), ("direction", 2))),
        Dataset("msrvtt", 0),
        Dataset("vatex", 0),
        Dataset("activitynet", 0),
        Dataset("demo_captions", 8, flip=False),
        Dataset("demo_unseen", 0, flip=False, own_classes=True),
    )
}
_GROUPED = {dataset.name: dataset.groups for dataset in DATASETS.values() if dataset.groups}
_GROUP_COLUMNS = {
    column
    for groups in _GROUPED.values()
    for name, _ in groups
    for column in (name, name + "_class")
}


_HMDB51 = re.compile(r".+_test_split\d\.txt")


class _Row(NamedTuple):
    where: str  # for messages: "line 3"
    path: str
    label: int | str | tuple[int, ...] = -1
    num_frames: int | None = None
    verdict: str | None = None
    captions: tuple[str, ...] = ()
    name: str = ""  # the class's, beside a number
    others: Callable[[], Sequence[str]] = tuple  # names that the format allows beside `path`


_Listed = tuple[list[_Row], tuple[str, ...] | None, list[str]]  # class names, and notices


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
    """Reads a list of videos in any of the formats of this module.

    Args:
        path: the list file or its URL, or a local folder or glob (see above).
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
    files = Files(base)
    rows, found_classes, notices = _read_rows(path, files, split)
    if not rows:
        raise UserError(f"{path} lists no videos")
    _check_names(path, rows)
    rows, changes = _resolve(path, rows, files)
    notices += [f"{path}: {changes}"] if changes else []
    groups = facts.groups if facts else ()
    names = _class_names(path, classes, groups) or found_classes
    if groups or any(isinstance(row.label, tuple) for row in rows):
        labels, more = _group_labels(path, rows, facts, need_labels), []
        _check_class_count(path, names, num_classes)
    else:
        labels, names, more = _number_labels(path, rows, names, num_classes, need_labels)
    if need_captions:
        _check_captions(path, rows)
    videos = tuple(
        Video(locators.join(base, row.path), label, row.num_frames, row.verdict, row.captions)
        for row, label in zip(rows, labels, strict=True)
    )
    more += _duplicates(path, rows, labels)
    if any(row.captions for row in rows):
        videos = _one_for_each_path(videos)
    rejected = sum(video.verdict == "reject" for video in videos)
    if rejected:
        more.append(f"{path}: {rejected} of {len(videos)} videos are left out, as rejected")
        videos = tuple(video for video in videos if video.verdict != "reject")
        if not videos:
            raise UserError(f"{path} rejects every video; its `reason` fields say why")
    _check_exist(path, videos, base, root)
    return VideoList(videos, names, (*notices, *more))


def few_shot(videos: VideoList, shots: int, seed: int) -> VideoList:
    """So many videos of every class, in the order of the list.

    Each class has an order of its own, which depends on `seed` and the class's videos only, and of
    which the first are taken: what is drawn for 2 shots is among that for 4.

    Raises:
        UserError: a class has fewer, a video has no label or several, or `shots` is not positive.
    """
    if shots < 1:
        raise UserError(f"the number of shots, videos of each class, must be positive, not {shots}")
    members: dict[int, list[int]] = {label: [] for label in range(len(videos.classes or ()))}
    for position, video in enumerate(videos):
        if video.label == -1 or isinstance(video.label, tuple):
            raise UserError(
                f"{video.path} has the label {video.label}, but {shots} videos of each class can "
                f"only be drawn where every video has one class"
            )
        members.setdefault(video.label, []).append(position)
    drawn = []
    for label, positions in members.items():
        if len(positions) < shots:
            name = repr(videos.classes[label]) if videos.classes else label
            raise UserError(
                f"class {name} has {len(positions)} videos, but {shots} of each class are to be "
                f"drawn; take fewer shots, or list more videos of it"
            )
        order = np.random.default_rng((seed, label)).permutation(len(positions))
        drawn += [positions[i] for i in order[:shots]]
    notice = (
        f"{len(drawn)} of {len(videos)} videos are used: {shots} of each of the {len(members)} "
        f"classes, drawn with seed {seed}"
    )
    return replace(
        videos,
        videos=tuple(videos[position] for position in sorted(drawn)),
        notices=(*videos.notices, notice),
    )


def _facts(dataset: str) -> Dataset | None:
    if dataset == "custom":
        return None
    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, 1)
        raise UserError(
            f"unknown dataset {dataset!r}; "
            + (f"did you mean {near[0]!r}? " if near else "")
            + f"known are {', '.join(DATASETS)}, and custom for your own data"
        )
    return DATASETS[dataset]


def _read_rows(path: str, files: Files, split: str) -> _Listed:
    """Rows, class names if the format itself has them, and notices."""
    name, folder = os.path.basename(path), os.path.dirname(path)
    if is_glob(path) or is_hmdb51(path):
        return _hmdb51(path, split)
    if os.path.isdir(path):
        return _folders(path)
    if not locators.is_file(path):
        raise UserError(f"list file {path} does not exist")
    if name.endswith(".jsonl"):
        return _jsonl(path, files)
    if name.endswith(".json"):
        return _json_list(path, files, split)
    if video_files.is_video(name):
        raise UserError(f"{path} is a video; give a list file with lines of `path label`")
    lines = read_lines(path)
    class_index = os.path.join(folder, "classInd.txt")
    if re.fullmatch(r"(train|test)list\d+\.txt", name):
        if not locators.is_file(class_index):
            raise UserError(f"{path} is a split of UCF101; put its classInd.txt beside it")
        return _ucf101(path, lines, class_index)
    if _HMDB51.fullmatch(name):
        raise UserError(f"{path} is one class of HMDB51; give its folder, or a glob of one split")
    columns = tables.column_names(lines[0][1]) if lines else []
    if "youtube_id" in columns:
        return _kinetics(path, lines)
    if "narration_id" in columns:
        return _epic_kitchens(path, lines, files)
    if "caption" in columns and any(column in columns for column in tables.PATH_COLUMNS):
        return _captioned_text(path, lines, columns), None, []
    if columns == ["video_id"] or {"video_id", "sentence"} <= {*columns}:
        return _msrvtt_csv(path, lines, columns), None, []
    return _text(path, lines, files)


def _resolve(path: str, rows: list[_Row], files: Files) -> tuple[list[_Row], str]:
    """Returns rows with the names of files, and what differs from the list in words."""
    if any(row.verdict for row in rows):  # which was found out of the file that is named
        return rows, ""
    splits = _split_folders(path)
    names = []
    for row in rows:
        name = re.sub(r"^(\./+)+", "", row.path)
        in_splits = functools.partial(_in_folders, name, *splits) if splits else tuple
        names.append(video_files.Name(name, in_splits if row.others is tuple else row.others))
    resolved, changes = video_files.resolve(files, names)
    return [row._replace(path=n) for row, n in zip(rows, resolved, strict=True)], changes


def _split_folders(path: str) -> tuple[str, ...]:
    """Returns the folders that may hold the videos of the split that a list's name tells."""
    name = os.path.basename(path).lower()
    return next((names for names in video_files.SPLITS if names[0] in name), ())


def is_glob(path: str) -> bool:
    """Whether a list is given as a pattern of file names."""
    return glob.has_magic(path) and not locators.is_url(path) and not os.path.exists(path)


def is_hmdb51(path: str) -> bool:
    """Whether a list is a folder of HMDB51's split files."""
    pattern = os.path.join(glob.escape(path), "*_test_split1.txt")
    return os.path.isdir(path) and bool(glob.glob(pattern))


def is_manifest(path: str) -> bool:
    """Whether a list was written by vidjax.data.check."""
    if not path.endswith(".jsonl") or not locators.is_file(path):
        return False
    lines = read_lines(path)
    return bool(lines) and lines[0][1].startswith('{"manifest"')


def holds_splits(path: str) -> bool:
    """Whether a list is a json of MSR-VTT with several splits, of which one is read."""
    is_json = path.endswith(".json") and locators.is_file(path)
    return is_json and len(_msrvtt_splits(_json(path))) > 1


# --- text ---------------------------------------------------------------------------------------


def _text(path: str, lines: list[tuple[int, str]], files: Files) -> _Listed:
    """path label, by tab, semicolon, comma or space; see vidjax.data.lists.tables."""
    table = tables.read_table(path, lines, files, _GROUP_COLUMNS)
    groups = _group_columns(table.header)
    if not groups:
        return _labelled(path, table, files)
    video, rows = tables.path_column(table.header, [fields for _, fields in table.rows]), []
    for where, fields in table.rows:
        if len(fields) != len(table.header):
            raise table.unlike(path, where, fields)
        label = _label_tuple(path, where, dict(zip(table.header, fields, strict=True)), groups)
        rows.append(_Row(where, fields[video], label))
    return rows, None, []


def _labelled(path: str, table: tables.Table, files: Files) -> _Listed:
    entries, notices = tables.entries(path, table, files)
    labels = tables.labels(entry.label for entry in entries)
    rows = [
        _Row(entry.where, entry.path, label, name=entry.name)
        for entry, label in zip(entries, labels, strict=True)
    ]
    return rows, None, notices


def _group_columns(header: list[str]) -> list[str]:
    """The columns of several labels, in the order of the dataset's groups; [] if any is missing."""
    for groups in _GROUPED.values():
        # Epic-Kitchens' own list has names in `noun` and numbers in `noun_class`.
        columns = [f"{name}_class" if f"{name}_class" in header else name for name, _ in groups]
        if all(column in header for column in columns):
            return columns
    return []


def _label_tuple(
    path: str, where: str, columns: dict[str, str], names: list[str]
) -> int | tuple[int, ...]:
    """Returns the labels in the columns `names`; -1 where all of them are -1 or missing."""
    if set(tables.labels(columns[name] for name in names)) == {-1}:
        return -1
    for name in names:
        if whole(columns[name]) is None:
            raise UserError(f"{path} {where}: {name} is {columns[name]!r}; write it as a number")
    return tuple(whole(columns[name]) for name in names)


# --- formats of the datasets --------------------------------------------------------------------


def _kinetics(path: str, lines: list[tuple[int, str]]) -> _Listed:
    """Reads the official csv; clips are {id}_{start:06d}_{end:06d}.mp4, or `_kinetics_names`."""
    columns = tables.column_names(lines[0][1])
    entries = []
    for number, line in lines[1:]:
        try:
            row = dict(zip(columns, next(csv.reader([line])), strict=True))
            stem = row["youtube_id"]
            if "time_start" in row:
                start, end = int(float(row["time_start"])), int(float(row["time_end"]))
                stem += f"_{start:06d}_{end:06d}"
        except (ValueError, KeyError):
            raise bad_line(path, f"line {number}", line, f"`{lines[0][1]}`") from None
        entries.append((f"line {number}", stem, row))
    labels = tables.labels(row.get("label") for _, _, row in entries)
    rows = []
    for (where, stem, row), label in zip(entries, labels, strict=True):
        split = row.get("split")
        splits = video_files.split_names(split) if split else _split_folders(path)
        others = functools.partial(_kinetics_names, stem, row, splits)
        rows.append(_Row(where, f"{stem}.mp4", label, others=others))
    return rows, None, []


def _kinetics_names(stem: str, row: dict[str, str], splits: Sequence[str]) -> list[str]:
    """Returns names of a clip: in folders of class and split, or by the YouTube id alone."""
    label = row.get("label") or ""
    classes = ("", label, label.replace(" ", "_"))
    folders = [os.path.join(split, name) for split in ("", *splits) for name in classes]
    stems = dict.fromkeys((stem, row["youtube_id"]))
    return [os.path.join(folder, f"{name}.mp4") for name in stems for folder in folders]


def _epic_kitchens(path: str, lines: list[tuple[int, str]], files: Files) -> _Listed:
    """The official csv, which cuts long videos; its test list has no labels."""
    columns = tables.column_names(lines[0][1])
    groups, rows = _group_columns(columns), []
    for number, line in lines[1:]:
        where = f"line {number}"
        try:
            row = dict(zip(columns, next(csv.reader([line])), strict=True))
        except ValueError:
            raise bad_line(path, where, line, f"`{lines[0][1]}`") from None
        label = _label_tuple(path, where, row, groups) if groups else -1
        clip = f"{row['narration_id']}{video_files.ANY}"
        others = functools.partial(_in_folders, clip, row.get("participant_id", ""))
        rows.append(_Row(where, clip, label, others=others))
    probe = video_files.spread(rows, 3 if files.remote else 50)
    if rows and not any(files.find(name) for row in probe for name in (row.path, *row.others())):
        clip = video_files.default_name(rows[0].path)
        raise UserError(
            f"{path}: {files.base or '.'} holds no clips such as {clip}; cut one for each row out "
            f"of the long videos, name it by narration_id, and set root"
        )
    return rows, _epic_kitchens_classes(os.path.dirname(path)), []


def _in_folders(name: str, *folders: str) -> list[str]:
    return [os.path.join(folder, name) for folder in folders]


def _epic_kitchens_classes(folder: str) -> tuple[str, ...] | None:
    """The nouns and then the verbs of EPIC_100_{noun,verb}_classes.csv, if both are there."""
    names = []
    for group, size in _GROUPED["epic_kitchens"]:
        pattern = os.path.join(glob.escape(folder), f"EPIC_100_{group}_classes*.csv")
        files = sorted(glob.glob(pattern))
        if not files:
            return None
        numbered = []
        for number, line in read_lines(files[-1])[1:]:  # of two versions the later
            index, name, *_ = *next(csv.reader([line])), ""
            if index != str(len(numbered)):
                expected = f"class {len(numbered)}, as `id,key,instances,category`"
                raise bad_line(files[-1], f"line {number}", line, expected)
            numbered.append(name)
        if len(numbered) != size:
            raise UserError(f"{files[-1]} names {len(numbered)} of the {size} {group} classes")
        names += numbered
    return tuple(names)


def _json_list(path: str, files: Files, split: str) -> _Listed:
    """Tells the datasets with json files apart by what is in them."""
    content = _json(path)
    try:
        if isinstance(content, dict):
            if "sentences" in content:
                return _msrvtt_json(path, content, split)
            return _activitynet(content), None, []
        if all("videoID" in entry for entry in content):
            return _vatex(content), None, []
        if all("id" in entry and ("template" in entry or len(entry) == 1) for entry in content):
            return _ssv2(path, content)
        entries = [(f"entry {number}", entry) for number, entry in enumerate(content, 1)]
        return _objects(path, entries, files)
    except (AttributeError, KeyError, TypeError):
        pass
    raise UserError(
        f'{path} is none of the json lists: SSv2 [{{"id": "1", …}}, …], VATEX [{{"videoID": …, '
        f'"enCap": […]}}, …], MSR-VTT {{"videos": […], "sentences": […]}}, ActivityNet Captions '
        f'{{"v_…": {{"sentences": […]}}, …}}, your own [{{"path": …, "label": …}}, …]'
    )


def _ssv2(path: str, entries: list[dict]) -> _Listed:
    """Something-Something: {id}.webm, classes by template; the test file has ids only."""
    classes = None
    if any("template" in entry for entry in entries):
        folder = os.path.dirname(path)
        names = ("labels.json", "something-something-v2-labels.json")
        found = [p for p in (os.path.join(folder, n) for n in names) if locators.is_file(p)]
        if not found:
            raise UserError(f"{path} needs SSv2's labels.json (template to number) beside it")
        index = _json(found[0])
        classes = tuple(sorted(index, key=lambda template: int(index[template])))
    rows = []
    for number, entry in enumerate(entries, 1):
        label = re.sub(r"[\[\]]", "", entry["template"]) if "template" in entry else -1
        rows.append(_Row(f"entry {number}", f"{_id(entry['id'])}.webm", label))
    return rows, classes, []


def _objects(path: str, entries: list[tuple[str, dict]], files: Files) -> _Listed:
    """Reads objects with a path and a label, under any names that a table's columns may have.

    Raises:
        KeyError: the first has no path or no label.
        UserError: another has no path.
    """
    keys = list(entries[0][1])
    header = [key.lower() for key in keys]
    if {*tables.PATH_COLUMNS, "vid", "id"}.isdisjoint(header):
        raise KeyError("path")
    if set(tables.LABEL_COLUMNS).isdisjoint(header):
        raise KeyError("label")
    rows = []
    for where, entry in entries:
        values = [entry.get(key) for key in keys]
        rows.append((where, ["" if value is None else str(value).strip() for value in values]))
        if not rows[-1][1][tables.path_column(header, [rows[-1][1]])]:
            raise bad_line(path, where, entry, f"an object with {', '.join(keys)}")
    return _labelled(path, tables.Table(header, rows), files)


def _id(value: object) -> str:
    """Returns an id of json as text; it may have become a number."""
    return str(value if whole(value) is None or isinstance(value, str) else whole(value))


def _json(path: str):
    try:
        return json.loads(tables.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def _ucf101(
    path: str, lines: list[tuple[int, str]], class_index: str
) -> tuple[list[_Row], tuple[str, ...], list[str]]:
    """Class/v_Class_g01_c01.avi, in trainlists followed by a label that counts from 1."""
    classes = []
    for number, line in read_lines(class_index):
        fields = line.split()
        if len(fields) != 2 or fields[0] != str(len(classes) + 1):
            raise bad_line(class_index, f"line {number}", line, f"`{len(classes) + 1} ClassName`")
        classes.append(fields[1])
    rows = []
    for number, line in lines:
        video, *label = line.split()
        name = video.partition("/")[0]
        if name not in classes or label not in ([], [str(classes.index(name) + 1)]):
            expected = "`Class/video.avi` or `Class/video.avi label`, as in classInd.txt"
            raise bad_line(path, f"line {number}", line, expected)
        rows.append(_Row(f"line {number}", video, name))
    return rows, tuple(classes), []


def _hmdb51(path: str, split: str) -> tuple[list[_Row], tuple[str, ...], list[str]]:
    """{class}_test_split1.txt with `video.avi 1`: 1 is train, 2 test, 0 unused."""
    notices = []
    if os.path.isdir(path):
        notices.append(f"{path}: split 1 of HMDB51 is read; {path}/*_test_split2.txt is another")
        path = os.path.join(glob.escape(path), "*_test_split1.txt")
    files = sorted(glob.glob(path))
    wrong = [f for f in files if not _HMDB51.fullmatch(os.path.basename(f))]
    if not files or wrong:
        got = f"matches {wrong[0]}" if wrong else "matches no file"
        raise UserError(
            f"{path} {got}; expected HMDB51 split files, {{class}}_test_split1.txt, or a list file"
        )
    numbers = {file[-5] for file in files}
    if len(numbers) > 1:
        raise UserError(f"{path} mixes splits {', '.join(sorted(numbers))}; choose one, *_split1*")
    wanted = {"train": "1", "test": "2"}[split]
    rows, classes = [], []
    for file in files:
        name = re.sub(r"_test_split\d\.txt$", "", os.path.basename(file))
        label = name.replace("_", " ")  # the words that models of texts are asked for
        classes.append(label)
        for number, line in read_lines(file):
            video, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise bad_line(file, f"line {number}", line, "`video.avi 0|1|2`")
            if use == wanted:
                where = f"({os.path.basename(file)} line {number})"
                rows.append(_Row(where, os.path.join(name, video.strip()), label))
    return rows, tuple(classes), notices


def _folders(path: str) -> _Listed:
    """class/video.mp4, however deep; labels are the sorted order of the class folders' names."""
    inside = {
        entry.name: video_files.below(entry.path)
        for entry in os.scandir(path)
        if entry.is_dir() and not video_files.is_system(entry.name)
    }
    # A class folder of pictures is not a video itself: its class would have no name.
    videos = {name: found for name, (found, _) in inside.items() if found not in ([], [""])}
    classes = sorted(videos)
    names = filter(video_files.is_video, sorted(os.listdir(path)))
    loose = [name for name in names if not video_files.is_system(name)]
    if not videos:
        frames = [name for name, (found, _) in inside.items() if found == [""]]
        but = f", but folders of frames, such as {frames[0]}" if frames else ""
        if loose:
            but = f", but {len(loose)} videos directly in it, such as {loose[0]}"
        raise UserError(
            f"folder {path} holds no videos in class folders (class/video.mp4) and no HMDB51 split "
            f"files{but}; give a list file, or move videos into a folder for each class"
        )
    splits = {name for names in video_files.SPLITS for name in names}
    if all(name.lower() in splits for name in classes):
        raise UserError(
            f"{path} holds folders of splits ({', '.join(classes)}), not of classes; give one of "
            f"them, such as {os.path.join(path, classes[0])}"
        )
    rows = [
        _Row(os.path.join(name, video), os.path.join(name, video), name)
        for name in classes
        for video in videos[name]
    ]
    others = [os.path.join(name, o) for name, (_, found) in sorted(inside.items()) for o in found]
    empty = sorted(inside.keys() - videos.keys())
    parts = [f"{len(loose)} videos without a class folder, such as {loose[0]}"] if loose else []
    parts += [f"{len(others)} files that are no videos, such as {others[0]}"] if others else []
    parts += [f"folders without videos: {video_files.first_few(empty)}"] if empty else []
    notices = [f"{path}: left out are {'; '.join(parts)}"] if parts else []
    if len(classes) == 1 and all(os.path.dirname(video) for video in videos[classes[0]]):
        only = os.path.join(path, classes[0])
        notices.append(f"{path}: its only class is {classes[0]}; give {only} if its folders are")
    return rows, tuple(classes), notices


# --- captions -----------------------------------------------------------------------------------


def _captions(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts without line breaks, and without the empty ones; TypeError if they are not texts."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("captions are a list of texts")
    return tuple(filter(None, (" ".join(text.split()) for text in texts)))


def _captioned_text(path: str, lines: list[tuple[int, str]], columns: list[str]) -> list[_Row]:
    """path,caption and perhaps more columns, by comma or tab; the header names them."""
    separator = next(s for s in "\t;," if s in lines[0][1])
    video = next(column for column in tables.PATH_COLUMNS if column in columns)
    label = next((column for column in tables.LABEL_COLUMNS if column in columns), None)
    rows = []
    for number, line in lines[1:]:
        where, fields = f"line {number}", tables.split_line(line, separator)
        if len(fields) != len(columns):
            expected = f'`{lines[0][1]}`, with "quotes" round a caption that holds a separator'
            raise bad_line(path, where, line, expected.replace("\t", "<tab>"))
        row = dict(zip(columns, fields, strict=True))
        rows.append(
            _Row(where, row[video], row.get(label, ""), captions=_captions([row["caption"]]))
        )
    labels = tables.labels(row.label for row in rows)
    return [row._replace(label=label) for row, label in zip(rows, labels, strict=True)]


def _msrvtt_csv(path: str, lines: list[tuple[int, str]], columns: list[str]) -> list[_Row]:
    """A line for each caption; or one for each video, whose captions MSRVTT_data.json has."""
    captions = None
    if "sentence" not in columns:
        beside = os.path.join(os.path.dirname(path), "MSRVTT_data.json")
        if not locators.is_file(beside):
            raise UserError(f"{path} lists videos of MSR-VTT; put MSRVTT_data.json beside it")
        captions = _msrvtt_captions(_json(beside))
    rows = []
    for number, line in lines[1:]:
        try:
            row = dict(zip(columns, next(csv.reader([line])), strict=True))
        except ValueError:
            raise bad_line(path, f"line {number}", line, f"`{lines[0][1]}`") from None
        video = row["video_id"]
        texts = _captions([row["sentence"]]) if captions is None else captions.get(video, ())
        rows.append(_Row(f"line {number}", video + video_files.ANY, captions=texts))
    return rows


def _msrvtt_json(path: str, content: dict, split: str) -> _Listed:
    """MSR-VTT's own format. A file of one split is read whole, whatever split is asked for."""
    splits, notices = _msrvtt_splits(content), []
    captions = _msrvtt_captions(content)
    if len(splits) > 1:
        wanted = ("train",) if split == "train" else ("test", "validate")
        chosen = next((name for name in wanted if name in splits), None)
        if chosen is None:
            raise UserError(f"{path} has splits {', '.join(splits)}, but none for {split}")
        notices.append(f"{path}: of its splits {', '.join(splits)}, {chosen} is read")
        splits = [chosen]
    rows = [
        _Row(video_id, video_id + video_files.ANY, captions=captions[video_id])
        for video_id in (v["video_id"] for v in content["videos"] if v.get("split", "") in splits)
    ]
    return rows, None, notices


def _msrvtt_splits(content: Any) -> list[str]:
    """Names of the splits in a json of MSR-VTT; [] of any other."""
    if not isinstance(content, dict) or not isinstance(content.get("videos"), list):
        return []
    return sorted({video.get("split", "") for video in content["videos"]})


def _msrvtt_captions(content: dict) -> dict[str, tuple[str, ...]]:
    """All captions by video_id, also those that are the same; () for videos without."""
    captions = collections.defaultdict(list)
    for sentence in content["sentences"]:
        captions[sentence["video_id"]].append(sentence["caption"])
    return {
        video["video_id"]: _captions(captions[video["video_id"]]) for video in content["videos"]
    }


def _vatex(entries: list[dict]) -> list[_Row]:
    """{id}_{start:06d}_{end:06d}.mp4 with English captions; the private test set has none."""
    return [
        _Row(video, video + video_files.ANY, captions=_captions(entry.get("enCap", [])))
        for video, entry in ((entry["videoID"], entry) for entry in entries)
    ]


def _activitynet(content: dict) -> list[_Row]:
    """One paragraph a video, of the sentences in their order; files are v_{id} or {id}."""
    rows = []
    for video, entry in content.items():
        paragraph = " ".join(_captions(entry["sentences"]))
        others = functools.partial(_in_folders, video.removeprefix("v_") + video_files.ANY, "")
        name = video + video_files.ANY
        rows.append(_Row(video, name, captions=_captions([paragraph]), others=others))
    return rows


def _jsonl(path: str, files: Files) -> _Listed:
    """Reads videos with captions or labels, or a manifest of `vidjax.data.check`.

    A manifest's first line is about the list.
    """
    rows, classes, plain, expected = [], None, [], 0
    for number, line in read_lines(path):
        where = f"line {number}"
        try:
            entry = json.loads(line)
            if not checksums.is_intact(entry):
                raise UserError(
                    f"{path} {where} is damaged or was edited, as its checksum is that of another "
                    f"line; write the manifest again, or delete `line_crc32` from the line"
                )
            json_files.check(entry, LINE_TYPES, f"{path} {where}")
            if "manifest" in entry:
                classes = entry["classes"] and tuple(entry["classes"])
                expected += entry.get("videos", 0)
            elif entry.keys().isdisjoint(("captions", "verdict")):
                plain.append((where, entry))
            else:
                rows.append(_manifest_row(where, entry))
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise bad_line(path, where, line, _JSONL) from None
    notices = []
    count = len(rows) + len(plain)
    if expected and count != expected:
        notices.append(f"{path} lists {count} videos, but was written with {expected}")
    if not plain:
        return rows, classes, notices
    try:
        labelled, _, more = _objects(path, plain, files)
    except KeyError:
        raise bad_line(path, *plain[0], _JSONL) from None
    return rows + labelled, classes, notices + more


_JSONL = (
    "a JSON object with path and captions, with path and label, or with path, label, frames and "
    "verdict (written by data.check)"
)


_VERDICT = re.compile(r"ok|sequential|trim:[1-9]\d*|reject")
_Verdict = Annotated[
    str, json_files.Must("that is ok, sequential, trim:N or reject", _VERDICT.fullmatch)
]
LINE_TYPES = {
    "classes": tuple[str, ...] | None,
    "videos": json_files.Count,
    "path": str,
    "frames": json_files.Count | None,
    "verdict": _Verdict | None,
}


def _manifest_row(where: str, entry: dict) -> _Row:
    captions = _captions(entry.get("captions", []))
    if "captions" in entry:
        entry = {"label": -1, "frames": None, "verdict": None} | entry
    label = entry["label"]
    if isinstance(label, list):
        label = tuple(map(int, label))
    elif not isinstance(label, str):
        label = tables.labels([label])[0]
    return _Row(where, entry["path"], label, entry["frames"], entry["verdict"], captions)


# --- labels and paths ---------------------------------------------------------------------------


def _class_names(
    path: str,
    classes: str | os.PathLike | tuple[str, ...],
    groups: tuple[tuple[str, int], ...],
) -> tuple[str, ...] | None:
    if isinstance(classes, tuple):
        return classes
    file = os.path.expanduser(classes)
    if not file:
        file = next(filter(locators.is_file, _class_files(path)), "")
        if not file:
            return None
    elif not locators.is_file(file):
        raise UserError(f"classes file {file} does not exist")
    lines = [(number, line.strip()) for number, line in read_lines(file)]
    if lines and tables.column_names(lines[0][1]) == ["id", "name"]:
        names = _numbered_names(file, lines[1:])
    else:
        names = _names_with_numbers(lines) or tuple(line for _, line in lines)
    start = 0
    for _, size in groups or (("", len(names)),):  # a noun may be a verb too
        part = names[start : start + size]
        if len(set(part)) < len(part):
            twice = next(name for name in part if part.count(name) > 1)
            raise UserError(f"classes file {file} names {twice!r} twice")
        start += size
    return names


def _class_files(path: str) -> list[str]:
    """Returns the files beside a list that may name its classes."""
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    # Jester's are jester-v1-labels.csv beside jester-v1-train.csv.
    labels = re.sub(r"(train|validation|val|test)(?=\.(csv|txt)$)", "labels", name)
    names = ["classes.txt", "moments_categories.txt", *([labels] if labels != name else [])]
    return [os.path.join(folder, name) for name in names]


def _names_with_numbers(lines: list[tuple[int, str]]) -> tuple[str, ...] | None:
    """Returns the names of lines `name,number` or `number name` by their numbers; else None."""
    for pattern in (r"(?P<name>.*\S)\s*,\s*(?P<id>\d+)", r"(?P<id>\d+)(\s*,\s*|\s+)(?P<name>.+)"):
        matches = [re.fullmatch(pattern, line) for _, line in lines]
        if all(matches):
            names = {int(match["id"]): match["name"].strip('"') for match in matches}
            first = min(names, default=0)  # UCF101's classInd.txt counts from 1
            if first < 2 and sorted(names) == list(range(first, first + len(lines))):
                return tuple(names[number] for number in sorted(names))
    return None


def _numbered_names(path: str, lines: list[tuple[int, str]]) -> tuple[str, ...]:
    """Returns names of lines `id,name` by their ids, which must be 0, 1, ..., in any order."""
    names: dict[int, str] = {}
    for number, line in lines:
        fields = tables.split_line(line, ",")
        if len(fields) != 2 or whole(fields[0]) is None or not fields[1]:
            raise bad_line(path, f"line {number}", line, "`id,name`, names with a comma in quotes")
        index = whole(fields[0])
        if index in names or not 0 <= index < len(lines):
            problem = "comes twice" if index in names else "is out of range"
            raise UserError(
                f"{path} line {number}: id {index} {problem}; the ids of {len(lines)} classes are "
                f"0 to {len(lines) - 1}"
            )
        names[index] = fields[1]
    return tuple(names[index] for index in range(len(lines)))


def _group_labels(
    path: str, rows: list[_Row], facts: Dataset | None, need_labels: bool
) -> list[int | tuple[int, ...]]:
    """The labels of rows that have one for each group of the dataset; -1 for none."""
    first = next((row for row in rows if isinstance(row.label, tuple)), None)
    if first and (not facts.groups if facts else need_labels):
        name = facts.name if facts else "your own (custom)"
        raise UserError(
            f"{path} {first.where}: {first.path} has {len(first.label)} labels, but data of {name} "
            f"has one label a video; set the right dataset ({', '.join(_GROUPED)} have several)"
        )
    if not facts:  # data.check only wants the videos
        return [row.label for row in rows]
    names = [name for name, _ in facts.groups]
    for row in rows:
        if row.label == -1 and not need_labels:
            continue
        if not isinstance(row.label, tuple) or len(row.label) != len(names):
            got = "no label" if row.label == -1 else f"the label {row.label!r}"
            raise UserError(
                f"{path} {row.where}: {row.path} has {got}, but {facts.name} needs "
                f"{' and '.join(names)}; give the list a header such as `path,{','.join(names)}`"
            )
        for (name, size), label in zip(facts.groups, row.label, strict=True):
            if not 0 <= label < size:
                raise UserError(
                    f"{path} {row.where}: {name} {label} is out of range for {size} classes, "
                    f"which count from 0"
                )
    return [row.label for row in rows]


def _check_class_count(path: str, classes: tuple[str, ...] | None, num_classes: int | None) -> None:
    if classes and num_classes and len(classes) != num_classes:
        raise UserError(
            f"{path} has {len(classes)} class names but the number of classes is {num_classes}; "
            "put all names, one a line, into classes.txt beside the list, or set the right dataset"
        )


def _number_labels(
    path: str,
    rows: list[_Row],
    classes: tuple[str, ...] | None,
    num_classes: int | None,
    need_labels: bool,
) -> tuple[list[int], tuple[str, ...] | None, list[str]]:
    """Labels as numbers, the class names, and notices."""
    notices = []
    named = {row.label for row in rows if isinstance(row.label, str)}
    if named and any(isinstance(row.label, int) and row.label != -1 for row in rows):
        odd = next(row for row in rows if isinstance(row.label, str))
        kind = "whole number" if _is_fraction(odd.label) else "number"
        raise UserError(f"{path} {odd.where}: label {odd.label!r} is no {kind}, as others are")
    if named and classes is None:
        odd = next((row for row in rows if row.label in named and _is_fraction(row.label)), None)
        if odd:
            raise UserError(
                f"{path} {odd.where}: label {odd.label!r} is no whole number; labels are whole "
                f"numbers from 0, or names"
            )
        classes = tuple(sorted(named))
        notices.append(f"{path}: its {len(classes)} class names are numbered in sorted order")
    if classes is None:
        classes, notices = _names_beside(path, rows, num_classes)
    _check_class_count(path, classes, num_classes)
    limit = num_classes or (len(classes) if classes else None)
    index = {name: number for number, name in enumerate(classes or ())}
    labels = []
    for row in rows:
        label = row.label
        if isinstance(label, str):
            if label not in index:
                near = difflib.get_close_matches(label, index, 1)
                hint = f"did you mean {near[0]!r}?" if near else "add it to the classes file"
                raise UserError(f"{path} {row.where}: class {label!r} is unknown; {hint}")
            label = index[label]
        if label == -1 and need_labels:
            raise UserError(
                f"{path} {row.where}: {row.path} has no label; write `path label` lines, or call "
                "the column of labels `label`, as classification needs them"
            )
        if label < -1:
            raise UserError(f"{path} {row.where}: label {label} is negative; labels count from 0")
        if limit is not None and label >= limit:
            fix = "labels count from 0" if label == limit else "set the right dataset or classes"
            raise UserError(
                f"{path} {row.where}: label {label} is out of range for {limit} classes; {fix}"
            )
        labels.append(label)
    numbers = {label for label in labels if label != -1}
    if limit is None and len(numbers) > 1 and min(numbers) == 1:
        notices.append(
            f"{path}: class 0 has no videos; labels count from 0, are these counted from 1?"
        )
    return labels, classes, notices


def _is_fraction(label: str | int) -> bool:
    return isinstance(label, str) and re.fullmatch(r"[+-]?\d*\.\d+", label) is not None


def _names_beside(
    path: str, rows: list[_Row], num_classes: int | None
) -> tuple[tuple[str, ...] | None, list[str]]:
    """Returns the class names beside a list's numbers, if each class has one, and notices."""
    pairs = {(row.label, row.name) for row in rows if row.name and row.label != -1}
    names = dict(sorted(pairs))
    if len(pairs) > len(names) or len(names) > len(set(names.values())):
        first, second = _contradiction(pairs)
        return None, [
            f"{path}: its names are not used, as they contradict its numbers: {first[1]!r} is "
            f"{first[0]} and {second[1]!r} {second[0]}"
        ]
    if names and set(names) != set(range(num_classes or len(names))):
        return None, [f"{path}: its names are not used, as some classes have none"]
    return tuple(names.values()) or None, []


def _contradiction(pairs: set[tuple[int, str]]) -> tuple[tuple[int, str], tuple[int, str]]:
    """Returns two pairs with the same number or the same name."""
    numbers, names = {}, {}
    for pair in sorted(pairs):
        other = numbers.setdefault(pair[0], pair)
        other = names.setdefault(pair[1], pair) if other == pair else other
        if other != pair:
            return other, pair
    raise ValueError("no pair contradicts another")


def _check_captions(path: str, rows: list[_Row]) -> None:
    captioned = {row.path for row in rows if row.captions}
    for row in rows:
        if row.path not in captioned:
            raise UserError(
                f"{path} {row.where}: {row.path} has no caption; write `path,caption` lines with "
                f"this header, as training on texts and retrieval need them"
            )


def _one_for_each_path(videos: tuple[Video, ...]) -> tuple[Video, ...]:
    """One video for each path, with the captions of all its rows."""
    merged: dict[str, Video] = {}
    for video in videos:
        first = merged.setdefault(video.path, video)
        if first is not video:
            new = tuple(text for text in video.captions if text not in first.captions)
            merged[video.path] = replace(first, captions=first.captions + new)
    return tuple(merged.values())


def _duplicates(path: str, rows: list[_Row], labels: list[int]) -> list[str]:
    """Raises if a path has two labels; a notice if it comes again without another caption."""
    first: dict[str, tuple[_Row, int]] = {}
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


def _check_names(path: str, rows: list[_Row]) -> None:
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


def _check_exist(path: str, videos: Sequence[Video], base: str, root: str) -> None:
    """Raises if most paths do not exist: then the root is wrong, not the videos.

    Single missing files are the loader's to replace and count. Of a large list a sample is looked
    up, as a network file system answers in milliseconds.
    """
    places = [locators.container(video.path) for video in videos]  # refuses what cannot be read
    local = [place for place in places if not locators.is_url(place)]
    sample = video_files.spread(local, video_files.CHECKED_PATHS)
    missing = [place for place in sample if not os.path.exists(place)]
    remote = list(dict.fromkeys(place for place in places if locators.is_url(place)))
    remote = video_files.spread(remote, video_files.CHECKED_URLS)
    missing += [place for place in remote if not locators.is_file(place)]
    sample += remote
    if len(missing) > len(sample) / 2:
        raise UserError(
            f"{path}: {len(missing)} of {len(sample)} videos looked up do not exist, such as "
            f"{', '.join(missing[:3])}; {video_files.explain_missing(missing, base, root)}"
        )
