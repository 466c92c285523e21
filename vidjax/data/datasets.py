"""Facts of the public datasets, and every list format that their videos come in.

`read_list` tells the format by itself:

    text lines       path label, by space, comma or tab; header and quotes allowed; no label: -1;
                     also VideoMAE's pre-training lists (path 0 -1)
    Kinetics csv     label,youtube_id,time_start,time_end,split
    SSv2 json        [{"id": ..., "template": ...}] with labels.json beside it
    UCF101           trainlist01.txt, testlist01.txt with classInd.txt beside it
    HMDB51           a folder with {class}_test_split1.txt files, or a glob such as s/*_split2.txt
    Epic-Kitchens    EPIC_100_train.csv, EPIC_100_validation.csv, with one video for each row, cut
                     out beforehand and named by its narration_id, flat or in participants' folders
    folders          a folder with one folder of videos per class
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

The videos of the last four are named by their ids, with any known extension, flat in one folder.

Lists, but for folders and globs, may be URLs (gs://…) like the videos in them, which may also be
records of shards: see vidjax.data.locators.

Labels may be numbers or names. Names are numbered by a classes file, or else by their sorted order.
A classes file has one name a line, or is a csv with the header `id,name`, as X-CLIP's labels are.
Where a video has several labels, as Epic-Kitchens' noun and verb, text lists need a header that
names their columns, such as `path,noun,verb` or `path,noun_class,verb_class`, and numbers in them.
"""

import collections
import csv
import difflib
import glob
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from vidjax.data import locators
from vidjax.errors import UserError

EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts")
EXTENSIONS += (".wmv", ".flv", ".3gp", ".ogv")
_PATH_COLUMNS = ("path", "video_path", "video", "file", "filename", "filepath", "video_name")
_LABEL_COLUMNS = ("label", "class", "class_id", "label_id", "target", "labels", "class_name")
_CHECKED_PATHS = 1000  # how many paths of a list are looked up on disk
_CHECKED_URLS = 20  # or in an object store, which takes its time for each


@dataclass(frozen=True)
class Video:
    """One line of a list: where the file is and what is known about it.

    label is -1 where the list has none, and a tuple, one for each of Dataset.groups, for a dataset
    that has several. num_frames and verdict come from a manifest written by
    `vidjax.data.check` (a file that has another number of frames by now is not used); a verdict of
    None means unchecked. captions are sentences that each describe the whole video.
    """

    path: str  # any locator of vidjax.data.locators
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


class _Row(NamedTuple):
    where: str  # for messages: "line 3"
    path: str
    label: int | str | tuple[int, ...] = -1
    num_frames: int | None = None
    verdict: str | None = None
    captions: tuple[str, ...] = ()


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
            (in any order). "" takes classes.txt beside the list if there is one, or for
            Epic-Kitchens its EPIC_100_noun_classes.csv and EPIC_100_verb_classes.csv.
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
        UserError: the list is missing, its format or a line of it is wrong, a label is out of
            range, the number of labels is not the dataset's, one path has two different labels, a
            label or caption that is needed is missing, most of the paths do not exist, a path is
            not UTF-8, or no driver for a URL is installed.
    """
    path, root = os.path.expanduser(path), os.path.expanduser(root)
    facts = _facts(dataset)
    num_classes = num_classes or (facts.num_classes if facts else None)
    if root and not locators.is_url(root) and not os.path.isdir(root):
        raise UserError(f"root {root} of {path} is not a folder")
    rows, found_classes, notices = _read_rows(path, root, split)
    if not rows:
        raise UserError(f"{path} lists no videos")
    _check_names(path, rows)
    base = root or (path if os.path.isdir(path) else os.path.dirname(path))
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
    _check_exist(path, videos, base)
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


def _read_rows(
    path: str, root: str, split: str
) -> tuple[list[_Row], tuple[str, ...] | None, list[str]]:
    """Rows, class names if the format itself has them, and notices."""
    name, folder = os.path.basename(path), os.path.dirname(path)
    if is_glob(path) or is_hmdb51(path):
        return _hmdb51(path, split)
    if os.path.isdir(path):
        return _folders(path)
    if not locators.is_file(path):
        raise UserError(f"list file {path} does not exist")
    if name.endswith(".jsonl"):
        return _jsonl(path)
    if name.endswith(".json"):
        return _json_list(path, root or folder, split)
    if name.lower().endswith(EXTENSIONS):
        raise UserError(f"{path} is a video; give a list file with lines of `path label`")
    lines = _lines(path)
    class_index = os.path.join(folder, "classInd.txt")
    if re.fullmatch(r"(train|test)list\d+\.txt", name):
        if not locators.is_file(class_index):
            raise UserError(f"{path} is a split of UCF101; put its classInd.txt beside it")
        return _ucf101(path, lines, class_index)
    columns = _column_names(lines[0][1]) if lines else []
    if "youtube_id" in columns:
        return _kinetics(path, lines, root or folder)
    if "narration_id" in columns:
        return _epic_kitchens(path, lines, root or folder)
    if "caption" in columns and any(column in columns for column in _PATH_COLUMNS):
        return _captioned_text(path, lines, columns), None, []
    if "video_id" in columns and not any(column in columns for column in _PATH_COLUMNS):
        return _msrvtt_csv(path, lines, columns, root or folder), None, []
    return _text(path, lines), None, []


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
    lines = _lines(path)
    return bool(lines) and lines[0][1].startswith('{"manifest"')


def holds_splits(path: str) -> bool:
    """Whether a list is a json of MSR-VTT with several splits, of which one is read."""
    is_json = path.endswith(".json") and locators.is_file(path)
    return is_json and len(_msrvtt_splits(_json(path))) > 1


def _lines(path: str) -> list[tuple[int, str]]:
    """Numbered lines that are not blank."""
    raw = _content(path).removeprefix(b"\xef\xbb\xbf").splitlines()
    lines = []
    for number, line in enumerate(raw, 1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise UserError(
                f"{path} line {number} is not UTF-8: {line[:80]!r}; save the list as UTF-8"
            ) from None
        if text:
            lines.append((number, text))
    return lines


def _content(path: str) -> bytes:
    try:
        return locators.read(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _column_names(line: str) -> list[str]:
    """A header's words, by comma or tab."""
    return [word.strip('" ').lower() for word in re.split(r"[,\t]", line)]


def _bad_line(path: str, where: str, line: object, expected: str) -> UserError:
    return UserError(f"{path} {where}: expected {expected}, got {str(line)[:120]!r}")


# --- text ---------------------------------------------------------------------------------------


def _text(path: str, lines: list[tuple[int, str]]) -> list[_Row]:
    """path label, by tab, comma or space; the separator is the same in the whole file."""
    if not lines:
        return []
    first, header = lines[0][1], _header(lines[0][1])
    if header:
        lines = lines[1:]
    if len(header) > 1:
        separator = next(character for character in "\t, " if character in first)
    else:
        separator = _separator(path, [line for _, line in lines[:100]])
    groups = _group_columns(header)
    rows = []
    for number, line in lines:
        where = f"line {number}"
        if separator is None:
            rows.append(_Row(where, line.strip('"')))
            continue
        fields = _fields(line, separator)
        if groups and len(fields) != len(header):
            raise _bad_line(path, where, line, f"`{first}`")
        if header and len(header) == len(fields):
            columns = dict(zip(header, fields, strict=True))
            video = next((columns[c] for c in _PATH_COLUMNS if c in columns), fields[0])
            if groups:
                rows.append(_Row(where, video, _label_tuple(path, where, columns, groups)))
                continue
            other = fields[-1] if len(fields) == 2 else "-1"
            label = next((columns[c] for c in _LABEL_COLUMNS if c in columns), other)
        else:
            # A number between the two is VideoMAE's start frame, or mmaction's frame count.
            video, *between, label = fields if len(fields) > 1 else ("", "")
            if not video or not label or len(between) > 1 or not all(map(_is_int, between)):
                expected = f"`path{separator}label`".replace("\t", "<tab>")
                raise _bad_line(path, where, line, expected)
        rows.append(_Row(where, video, int(label) if _is_int(label) else label))
    return rows


def _header(line: str) -> list[str]:
    """The column names if the line is a header, else []."""
    words = [word.strip('" ').lower() for word in re.split(r" *, *|[\t ]", line)]
    named = [word for word in words if word in {*_PATH_COLUMNS, *_LABEL_COLUMNS, *_GROUP_COLUMNS}]
    return words if len(named) > 1 or words[0] in _PATH_COLUMNS else []


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
    """The labels in the columns `names`; -1 where all of them are."""
    for name in names:
        if not _is_int(columns[name]):
            raise UserError(f"{path} {where}: {name} is {columns[name]!r}; write it as a number")
    label = tuple(int(columns[name]) for name in names)
    return -1 if set(label) == {-1} else label


def _separator(path: str, lines: list[str]) -> str | None:
    """Tab, comma or space, whichever explains most of the first lines; None for bare paths."""
    if all(line.strip('"').lower().endswith(EXTENSIONS) for line in lines):
        return None

    def explained(separator: str) -> int:
        split = (_fields(line, separator) for line in lines)
        return sum(
            len(fields) > 1
            and (_is_int(fields[-1]) or any(f.lower().endswith(EXTENSIONS) for f in fields))
            for fields in split
        )

    best = max("\t, ", key=explained)
    if explained(best):
        return best
    raise UserError(
        f"cannot tell the format of {path}, whose first line is {lines[0][:120]!r}; "
        "expected `path label`, separated by a space, comma or tab, or a header `path,caption`"
    )


def _fields(line: str, separator: str) -> list[str]:
    if separator != " ":
        return [field.strip() for field in next(csv.reader([line], delimiter=separator))]
    # Paths may hold spaces: only the end of the line is split.
    match = re.fullmatch(r'(.*\.\w+)"?\s+(\d+)\s+(-?\d+)', line)
    fields = match.groups() if match else line.rsplit(None, 1)
    return [fields[0].strip('" '), *fields[1:]]


def _is_int(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", text) is not None


# --- formats of the datasets --------------------------------------------------------------------


def _kinetics(
    path: str, lines: list[tuple[int, str]], base: str
) -> tuple[list[_Row], None, list[str]]:
    """The official csv; clips are {id}_{start:06d}_{end:06d}.mp4, flat or in class folders."""
    columns = _column_names(lines[0][1])
    entries = []
    for number, line in lines[1:]:
        fields = next(csv.reader([line]))
        try:
            row = dict(zip(columns, fields, strict=True))
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
            stem = f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4"
        except (ValueError, KeyError):
            raise _bad_line(path, f"line {number}", line, f"`{lines[0][1]}`") from None
        entries.append((f"line {number}", stem, row.get("label") or -1))
    layouts = (
        lambda stem, label: stem,
        lambda stem, label: os.path.join(str(label), stem),
        lambda stem, label: os.path.join(str(label).replace(" ", "_"), stem),
    )
    tried = _spread(entries, 3 if locators.is_url(base) else 50)
    layout = max(
        layouts,
        key=lambda f: sum(locators.is_file(os.path.join(base, f(s, c))) for _, s, c in tried),
    )
    return [_Row(where, layout(stem, label), label) for where, stem, label in entries], None, []


def _epic_kitchens(
    path: str, lines: list[tuple[int, str]], base: str
) -> tuple[list[_Row], tuple[str, ...] | None, list[str]]:
    """The official csv, which cuts long videos; its test list has no labels."""
    columns = _column_names(lines[0][1])
    groups, entries = _group_columns(columns), []
    for number, line in lines[1:]:
        where = f"line {number}"
        try:
            row = dict(zip(columns, next(csv.reader([line])), strict=True))
        except ValueError:
            raise _bad_line(path, where, line, f"`{lines[0][1]}`") from None
        label = _label_tuple(path, where, row, groups) if groups else -1
        entries.append((where, row["narration_id"], row.get("participant_id", ""), label))
    tried = _spread(entries, 3 if locators.is_url(base) else 50)

    def place(clip: str, participant: str, folders: bool, extension: str) -> str:
        return os.path.join(participant if folders else "", clip + extension)

    def found(layout: tuple[bool, str]) -> int:
        paths = (place(clip, person, *layout) for _, clip, person, _ in tried)
        return sum(locators.is_file(os.path.join(base, path)) for path in paths)

    layouts = [(folders, ext) for ext in (*EXTENSIONS, ".MP4") for folders in (False, True)]
    layout = max(layouts, key=found)
    if tried and not found(layout):
        raise UserError(
            f"{path}: {base or '.'} holds no clips such as {place(*tried[0][1:3], *layout)}; cut "
            f"one for each row out of the long videos, name it by narration_id, and set root"
        )
    rows = [
        _Row(where, place(clip, person, *layout), label) for where, clip, person, label in entries
    ]
    return rows, _epic_kitchens_classes(os.path.dirname(path)), []


def _epic_kitchens_classes(folder: str) -> tuple[str, ...] | None:
    """The nouns and then the verbs of EPIC_100_{noun,verb}_classes.csv, if both are there."""
    names = []
    for group, size in _GROUPED["epic_kitchens"]:
        pattern = os.path.join(glob.escape(folder), f"EPIC_100_{group}_classes*.csv")
        files = sorted(glob.glob(pattern))
        if not files:
            return None
        numbered = []
        for number, line in _lines(files[-1])[1:]:  # of two versions the later
            index, name, *_ = *next(csv.reader([line])), ""
            if index != str(len(numbered)):
                expected = f"class {len(numbered)}, as `id,key,instances,category`"
                raise _bad_line(files[-1], f"line {number}", line, expected)
            numbered.append(name)
        if len(numbered) != size:
            raise UserError(f"{files[-1]} names {len(numbered)} of the {size} {group} classes")
        names += numbered
    return tuple(names)


def _json_list(
    path: str, base: str, split: str
) -> tuple[list[_Row], tuple[str, ...] | None, list[str]]:
    """Tells the datasets with json files apart by what is in them."""
    content = _json(path)
    try:
        if isinstance(content, dict):
            if "sentences" in content:
                return _msrvtt_json(path, content, base, split)
            return _activitynet(content, base), None, []
        if all("videoID" in entry for entry in content):
            return _vatex(content, base), None, []
        if all("id" in entry for entry in content):
            return _ssv2(path, content)
    except (AttributeError, KeyError, TypeError):
        pass
    raise UserError(
        f'{path} is none of the json lists: SSv2 [{{"id": "1", …}}, …], VATEX [{{"videoID": …, '
        f'"enCap": […]}}, …], MSR-VTT {{"videos": […], "sentences": […]}}, ActivityNet Captions '
        f'{{"v_…": {{"sentences": […]}}, …}}'
    )


def _ssv2(path: str, entries: list[dict]) -> tuple[list[_Row], tuple[str, ...] | None, list[str]]:
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
        rows.append(_Row(f"entry {number}", f"{entry['id']}.webm", label))
    return rows, classes, []


def _json(path: str):
    try:
        return json.loads(_content(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def _ucf101(
    path: str, lines: list[tuple[int, str]], class_index: str
) -> tuple[list[_Row], tuple[str, ...], list[str]]:
    """Class/v_Class_g01_c01.avi, in trainlists followed by a label that counts from 1."""
    classes = []
    for number, line in _lines(class_index):
        fields = line.split()
        if len(fields) != 2 or fields[0] != str(len(classes) + 1):
            raise _bad_line(class_index, f"line {number}", line, f"`{len(classes) + 1} ClassName`")
        classes.append(fields[1])
    rows = []
    for number, line in lines:
        video, *label = line.split()
        name = video.partition("/")[0]
        if name not in classes or label not in ([], [str(classes.index(name) + 1)]):
            expected = "`Class/video.avi` or `Class/video.avi label`, as in classInd.txt"
            raise _bad_line(path, f"line {number}", line, expected)
        rows.append(_Row(f"line {number}", video, name))
    return rows, tuple(classes), []


def _hmdb51(path: str, split: str) -> tuple[list[_Row], tuple[str, ...], list[str]]:
    """{class}_test_split1.txt with `video.avi 1`: 1 is train, 2 test, 0 unused."""
    notices = []
    if os.path.isdir(path):
        notices.append(f"{path}: split 1 of HMDB51 is read; {path}/*_test_split2.txt is another")
        path = os.path.join(glob.escape(path), "*_test_split1.txt")
    files = sorted(glob.glob(path))
    wrong = [f for f in files if not re.fullmatch(r".+_test_split\d\.txt", os.path.basename(f))]
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
        for number, line in _lines(file):
            video, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise _bad_line(file, f"line {number}", line, "`video.avi 0|1|2`")
            if use == wanted:
                where = f"({os.path.basename(file)} line {number})"
                rows.append(_Row(where, os.path.join(name, video.strip()), label))
    return rows, tuple(classes), notices


def _folders(path: str) -> tuple[list[_Row], tuple[str, ...], list[str]]:
    """class/video.mp4; labels are the sorted order of the folder names."""
    classes = sorted(e.name for e in os.scandir(path) if e.is_dir() and e.name[0] != ".")
    rows = [
        _Row(os.path.join(name, video), os.path.join(name, video), name)
        for name in classes
        for video in sorted(os.listdir(os.path.join(path, name)))
        if video.lower().endswith(EXTENSIONS)
    ]
    if not rows:
        raise UserError(
            f"folder {path} holds no videos in class folders (class/video.mp4) "
            "and no HMDB51 split files; give a list file"
        )
    return rows, tuple(classes), []


# --- captions -----------------------------------------------------------------------------------


def _captions(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts without line breaks, and without the empty ones; TypeError if they are not texts."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("captions are a list of texts")
    return tuple(filter(None, (" ".join(text.split()) for text in texts)))


def _captioned_text(path: str, lines: list[tuple[int, str]], columns: list[str]) -> list[_Row]:
    """path,caption and perhaps more columns, by comma or tab; the header names them."""
    separator = "\t" if "\t" in lines[0][1] else ","
    video = next(column for column in _PATH_COLUMNS if column in columns)
    label_column = next((column for column in _LABEL_COLUMNS if column in columns), None)
    rows = []
    for number, line in lines[1:]:
        where, fields = f"line {number}", _fields(line, separator)
        if len(fields) != len(columns):
            expected = f'`{lines[0][1]}`, with "quotes" round a caption that holds a separator'
            raise _bad_line(path, where, line, expected.replace("\t", "<tab>"))
        row = dict(zip(columns, fields, strict=True))
        label = row.get(label_column) or "-1"
        label = int(label) if _is_int(label) else label
        rows.append(_Row(where, row[video], label, captions=_captions([row["caption"]])))
    return rows


def _by_id(folder: str) -> Callable[..., str]:
    """find(*ids): the file of the first of the ids that a folder has one of, or {ids[0]}.mp4."""
    found = {}
    try:
        listed = locators.names(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror or error}") from None
    for name in listed:
        stem, extension = os.path.splitext(name)
        if extension.lower() in EXTENSIONS:
            found.setdefault(stem, name)

    def find(*ids: str) -> str:
        return next((found[i] for i in ids if i in found), f"{ids[0]}.mp4")

    return find


def _msrvtt_csv(
    path: str, lines: list[tuple[int, str]], columns: list[str], base: str
) -> list[_Row]:
    """A line for each caption; or one for each video, whose captions MSRVTT_data.json has."""
    captions = None
    if "sentence" not in columns:
        beside = os.path.join(os.path.dirname(path), "MSRVTT_data.json")
        if not locators.is_file(beside):
            raise UserError(f"{path} lists videos of MSR-VTT; put MSRVTT_data.json beside it")
        captions = _msrvtt_captions(_json(beside))
    rows, find = [], _by_id(base)
    for number, line in lines[1:]:
        try:
            row = dict(zip(columns, next(csv.reader([line])), strict=True))
        except ValueError:
            raise _bad_line(path, f"line {number}", line, f"`{lines[0][1]}`") from None
        video = row["video_id"]
        texts = _captions([row["sentence"]]) if captions is None else captions.get(video, ())
        rows.append(_Row(f"line {number}", find(video), captions=texts))
    return rows


def _msrvtt_json(
    path: str, content: dict, base: str, split: str
) -> tuple[list[_Row], None, list[str]]:
    """MSR-VTT's own format. A file of one split is read whole, whatever split is asked for."""
    splits, notices = _msrvtt_splits(content), []
    captions, find = _msrvtt_captions(content), _by_id(base)
    if len(splits) > 1:
        wanted = ("train",) if split == "train" else ("test", "validate")
        chosen = next((name for name in wanted if name in splits), None)
        if chosen is None:
            raise UserError(f"{path} has splits {', '.join(splits)}, but none for {split}")
        notices.append(f"{path}: of its splits {', '.join(splits)}, {chosen} is read")
        splits = [chosen]
    rows = [
        _Row(video["video_id"], find(video["video_id"]), captions=captions[video["video_id"]])
        for video in content["videos"]
        if video.get("split", "") in splits
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


def _vatex(entries: list[dict], base: str) -> list[_Row]:
    """{id}_{start:06d}_{end:06d}.mp4 with English captions; the private test set has none."""
    find = _by_id(base)
    return [
        _Row(entry["videoID"], find(entry["videoID"]), captions=_captions(entry.get("enCap", [])))
        for entry in entries
    ]


def _activitynet(content: dict, base: str) -> list[_Row]:
    """One paragraph a video, of the sentences in their order; files are v_{id} or {id}."""
    find, rows = _by_id(base), []
    for video, entry in content.items():
        paragraph = " ".join(_captions(entry["sentences"]))
        name = find(video, video.removeprefix("v_"))
        rows.append(_Row(video, name, captions=_captions([paragraph])))
    return rows


def _jsonl(path: str) -> tuple[list[_Row], tuple[str, ...] | None, list[str]]:
    """Videos with captions, or a manifest of `vidjax.data.check`: first a line about the list."""
    rows, classes = [], None
    for number, line in _lines(path):
        try:
            entry = json.loads(line)
            if "manifest" in entry:
                classes = entry["classes"] and tuple(entry["classes"])
                continue
            captions = _captions(entry.get("captions", []))
            if "captions" in entry:
                entry = {"label": -1, "frames": None, "verdict": None} | entry
            label = entry["label"]
            label = tuple(map(int, label)) if isinstance(label, list) else label
            facts = entry["path"], label, entry["frames"], entry["verdict"], captions
        except (ValueError, KeyError, TypeError, AttributeError):
            expected = (
                "a JSON object with path and captions, or with path, label, frames and verdict "
                "(written by data.check)"
            )
            raise _bad_line(path, f"line {number}", line, expected) from None
        rows.append(_Row(f"line {number}", *facts))
    return rows, classes, []


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
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        file = os.path.join(folder, "classes.txt")
        if not locators.is_file(file):
            return None
    elif not locators.is_file(file):
        raise UserError(f"classes file {file} does not exist")
    lines = _lines(file)
    if lines and _column_names(lines[0][1]) == ["id", "name"]:
        names = _numbered_names(file, lines[1:])
    else:
        names = tuple(line for _, line in lines)
    start = 0
    for _, size in groups or (("", len(names)),):  # a noun may be a verb too
        part = names[start : start + size]
        if len(set(part)) < len(part):
            twice = next(name for name in part if part.count(name) > 1)
            raise UserError(f"classes file {file} names {twice!r} twice")
        start += size
    return names


def _numbered_names(path: str, lines: list[tuple[int, str]]) -> tuple[str, ...]:
    """Of lines `id,name` the names by their ids, which must be 0, 1, ..., in any order."""
    names: dict[int, str] = {}
    for number, line in lines:
        fields = _fields(line, ",")
        if len(fields) != 2 or not _is_int(fields[0]) or not fields[1]:
            raise _bad_line(path, f"line {number}", line, "`id,name`, names with a comma in quotes")
        index = int(fields[0])
        if index in names or not 0 <= index < len(lines):
            found = "comes twice" if index in names else "is out of range"
            raise UserError(
                f"{path} line {number}: id {index} {found}; the ids of {len(lines)} classes are 0 "
                f"to {len(lines) - 1}"
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
        raise UserError(f"{path} {odd.where}: label {odd.label!r} is no number, as others are")
    if named and classes is None:
        classes = tuple(sorted(named))
        notices.append(f"{path}: its {len(classes)} class names are numbered in sorted order")
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
                f"{path} {row.where}: {row.path} has no label; write `path label` lines, "
                "as classification needs them"
            )
        if label < -1:
            raise UserError(f"{path} {row.where}: label {label} is negative; labels count from 0")
        if limit is not None and label >= limit:
            fix = "labels count from 0" if label == limit else "set the right dataset or classes"
            raise UserError(
                f"{path} {row.where}: label {label} is out of range for {limit} classes; {fix}"
            )
        labels.append(label)
    return labels, classes, notices


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


def _check_exist(path: str, videos: Sequence[Video], base: str) -> None:
    """Raises if most paths do not exist: then the root is wrong, not the videos.

    Single missing files are the loader's to replace and count. Of a large list a sample is looked
    up, as a network file system answers in milliseconds.
    """
    places = [locators.container(video.path) for video in videos]  # refuses what cannot be read
    sample = _spread([place for place in places if not locators.is_url(place)], _CHECKED_PATHS)
    missing = [place for place in sample if not os.path.exists(place)]
    remote = list(dict.fromkeys(place for place in places if locators.is_url(place)))
    remote = _spread(remote, _CHECKED_URLS)
    missing += [place for place in remote if not locators.is_file(place)]
    sample += remote
    if len(missing) > len(sample) / 2:
        raise UserError(
            f"{path}: {len(missing)} of {len(sample)} videos looked up do not exist, such as "
            f"{', '.join(missing[:3])}; set root to the folder that its paths start from "
            f"(now {base or '.'})"
        )


def _spread(items: Sequence, count: int) -> Sequence:
    return items[:: max(1, len(items) // count)]
