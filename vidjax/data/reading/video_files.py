"""Video files on disk: what counts as one, and which one a list means by a name.

Lists often name files otherwise than they are stored: with another extension or none, with the
backslashes or the leading folders of another machine, in another layout of folders. `resolve`
finds what makes the names of a list exist and applies it to the list as a whole.
"""

import collections
import difflib
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from vidjax.data.reading import frame_folders, locators
from vidjax.errors import UserError

# Sorted by preference, for folders that hold several files of one stem.
EXTENSIONS = tuple(
    re.findall(
        r"\S+",
        ".mp4 .webm .mkv .avi .mov .m4v .mpg .mpeg .ts .m2ts .mts .m2t .wmv .asf .flv .f4v .3gp "
        ".3gpp .3g2 .ogv .ogm .ogg .vob .mpe .mpv .m1v .m2v .m2p .mp4v .mpeg4 .qt .divx .xvid .mxf "
        ".dv .mjpeg .mjpg .mk3d .mod .tod .trp .tp .vro .rm .rmvb .amv .nut .nsv .wtv .ivf .h264 "
        ".264 .h265 .265 .hevc .y4m .gif",
    )
)
_RECORD = re.compile(r"\.array_record#\d+$")
_RANKS = {extension: rank for rank, extension in enumerate(EXTENSIONS)}
_COMMON = EXTENSIONS[:4]  # those looked up in an object store

# The end of a name that may have any extension; such a file is called .mp4 where it is missing.
ANY = ".*"

SPLITS = (
    ("train", "training"),
    ("val", "validation", "valid", "validate", "dev"),
    ("test", "testing"),
)
_SYSTEM = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__pycache__"}
_SYSTEM |= {"System Volume Information", "Thumbs.db", "desktop.ini"}

CHECKED_PATHS = 1000  # how many paths of a list are looked up on disk
CHECKED_URLS = 20  # or in an object store, which takes its time for each
_PROBED_URLS = 3
_SEARCHED_FOLDERS = 100  # for a better root, where a list's paths do not exist


class Name(NamedTuple):
    """A file's name in a list, and the names that the format also allows, best first."""

    listed: str
    others: Callable[[], Sequence[str]] = tuple


def is_video(name: str) -> bool:
    """Returns whether a name has the extension of a video, or is a record of a shard."""
    return name.lower().endswith(EXTENSIONS) or _RECORD.search(name) is not None


def count_frames(folder: str) -> int:
    """Returns how many numbered pictures a local folder holds (see frame_folders.py)."""
    try:
        return sum(map(frame_folders.is_frame, os.listdir(folder)))
    except OSError:
        return 0


def spread(items: Sequence, count: int) -> Sequence:
    """Returns every n-th of the items, about `count` of them."""
    return items[:: max(1, len(items) // count)]


def default_name(name: str) -> str:
    """Returns what a name that may have any extension is called where its file is missing."""
    return name.removesuffix(ANY) + ".mp4" if name.endswith(ANY) else name


class Files:
    """The files below a folder or its URL.

    A local folder is listed when something in it is first asked for. In an object store single
    objects are looked up, and only if others are missing; 60 at most.
    """

    def __init__(self, base: str):
        self.base = base
        self.remote = locators.is_url(base)
        self._folders: dict[str, tuple[set[str], dict[str, str]]] = {}
        self._lookups = _PROBED_URLS * CHECKED_URLS

    def has(self, name: str) -> bool:
        """Returns whether there is a file or frame folder of exactly this name."""
        place = locators.join(self.base, name)
        if locators.is_url(place):
            return locators.is_file(place)
        return os.path.exists(place) and not self._is_other_folder(name)

    def find(self, name: str, any_extension: bool = True) -> str | None:
        """Returns the file or frame folder that a name means, relative to the base.

        It has the name itself, or its stem with any known extension. Only in an object store,
        where few extensions are tried, does it matter whether any is asked for.

        Raises:
            UserError: the folder's URL cannot be listed.
        """
        if not locators.is_local(name):
            return None
        if self.remote and not name.endswith(ANY):
            return self._look_up(name, any_extension)
        found = self._find(name)
        return self._find(name.replace("\\", "/")) if found is None and "\\" in name else found

    def _find(self, name: str) -> str | None:
        folder, last = os.path.split(name)
        names, stems = self._list(folder)
        if last in names and not self._is_other_folder(name):
            return name
        stem = _stem(last)
        whole = re.fullmatch(r"(\d+)\.0*", stem)  # an id that pandas made a float
        for wanted in (stem, whole[1]) if whole else (stem,):
            if wanted in stems:
                return os.path.join(folder, stems[wanted])
            inside = os.path.join(folder, wanted)
            if wanted in names and count_frames(os.path.join(self.base, inside)):
                return inside
        return None

    def _look_up(self, name: str, any_extension: bool) -> str | None:
        others = [_stem(name) + extension for extension in _COMMON] if any_extension else []
        for candidate in dict.fromkeys([name, *others]):
            self._lookups -= 1
            if self._lookups < 0:
                return None
            if locators.is_file(locators.join(self.base, candidate)):
                return candidate
        return None

    def _list(self, folder: str) -> tuple[set[str], dict[str, str]]:
        """Returns the names in a folder, and those of its videos by their stems."""
        if folder not in self._folders:
            place = locators.join(self.base, folder)
            try:
                names = locators.names(place)
            except OSError as error:
                if self.remote and not folder:
                    reason = error.strerror or error
                    raise UserError(f"{place} cannot be listed: {reason}") from None
                names = []
            videos = [name for name in names if _rank(name) >= 0 and name[0] != "."]
            stems = {os.path.splitext(n)[0]: n for n in sorted(videos, key=_rank, reverse=True)}
            self._folders[folder] = set(names), stems
        return self._folders[folder]

    def _is_other_folder(self, name: str) -> bool:
        """Returns whether it is a folder that is no video."""
        place = os.path.join(self.base, name)
        return not is_video(name) and os.path.isdir(place) and not count_frames(place)


def resolve(files: Files, names: Sequence[Name]) -> tuple[list[str], str]:
    """Finds the files that the names of a list mean.

    A sample decides for the whole list which of the names that its format allows, or how many
    leading folders to leave out, makes the files exist. Each file may then have an extension of
    its own. Names that exist, URLs, and names without a file stay as they are.

    Args:
        files: of the folder that relative names start from.
        names: the list's names in its order.

    Returns:
        (names of files, what was done in words or "").
    """
    listed = [name.listed for name in names]
    mine = [i for i, name in enumerate(listed) if locators.is_local(name)]
    sample = spread(mine, _PROBED_URLS if files.remote else CHECKED_PATHS)
    missing = [i for i in sample if not files.has(listed[i])]
    layouts, extension = _vote(files, names, missing)
    if not layouts:
        return [default_name(name) for name in listed], ""
    resolved = list(listed)
    for i in mine:
        name = _spell(names[i], layouts[0])
        stay = len(missing) < len(sample) and not name.endswith(ANY)
        resolved[i] = listed[i] if stay else _stem(name) + extension
        if not files.remote or name.endswith(ANY):
            spelled = (_spell(names[i], layout) for layout in ((0, 0), *layouts))
            resolved[i] = next(filter(None, map(files.find, spelled)), resolved[i])
    return resolved, _changes(listed, resolved, layouts[0])


def explain_missing(places: Sequence[str], base: str, root: str) -> str:
    """Explains why local videos of a list may not exist, and the fix.

    Args:
        places: paths of missing videos.
        base: the folder that relative paths start from.
        root: the root that the user gave; "" for none.
    """
    place, set_root = places[0], f"the folder that its paths start from (now {base or '.'})"
    if locators.is_url(place):
        return f"set root to {set_root}"
    relative = os.path.relpath(place, base or ".")
    is_outside = relative.startswith("..")
    for folder in () if is_outside else _folders_near(base):
        found = Files(folder).find(relative)
        if found:
            return f"set root to {folder}, which has {found}"
    parent, lost = os.path.split(place)
    while parent and not os.path.isdir(parent):
        parent, lost = os.path.split(parent)
    near, nearest = _similar(lost, parent)
    fix = f"set root to {set_root}"
    if is_outside:
        fix = "correct its absolute paths or list relative ones"
    if parent != os.path.dirname(place):
        but = f", but {os.path.join(parent, near)}" if near else ""
        return f"there is no folder {os.path.join(parent, lost)}{but}; {fix}"
    if near:
        return f"there is {os.path.join(parent, near)}; correct the list"
    if root or os.path.dirname(relative):
        others = f"holds other names, such as {nearest}" if nearest else "is empty"
        return f"the folder {parent} {others}; correct the list{' or root' * bool(root)}"
    return fix


def below(folder: str) -> tuple[list[str], list[str]]:
    """Lists the videos below a local folder, however deep, and the files that are none.

    A folder of numbered pictures without videos or folders beside them is a video, too; `folder`
    itself is then "". Files and folders of operating systems count as neither.

    Returns:
        (videos, other files), sorted paths relative to the folder.
    """
    videos, others, frames, deeper = [], [], [], False
    for entry in os.scandir(folder):
        if is_system(entry.name):
            continue
        if entry.is_dir():
            if entry.is_symlink() and _is_inside(folder, entry.path):
                continue  # it would never end
            deeper = True
            inside = below(entry.path)
            videos += [os.path.join(entry.name, name).rstrip("/") for name in inside[0]]
            others += [os.path.join(entry.name, name) for name in inside[1]]
        elif _rank(entry.name) >= 0:
            videos.append(entry.name)
        elif frame_folders.is_frame(entry.name):
            frames.append(entry.name)
        else:
            others.append(entry.name)
    if frames and not deeper and not videos:
        return [""], sorted(others)
    return sorted(videos), sorted(others + frames)


def is_system(name: str) -> bool:
    """Returns whether a name is an operating system's or hidden, such as ._1.mp4 or @eaDir."""
    return name.startswith(".") or name in _SYSTEM


def split_names(split: str) -> tuple[str, ...]:
    """Returns the names that folders of a split may have, its own first."""
    names = next((names for names in SPLITS if split.lower() in names), ())
    return tuple(dict.fromkeys((split, *names)))


def _rank(name: str) -> int:
    return _RANKS.get(os.path.splitext(name)[1].lower(), -1)


def _is_inside(folder: str, other: str) -> bool:
    return (os.path.realpath(folder) + "/").startswith(os.path.realpath(other) + "/")


def _extension(name: str) -> str:
    return os.path.splitext(name)[1] if _rank(name) >= 0 else ""


def _stem(name: str) -> str:
    """Returns a name without its extension, if that is a video's; ids may hold dots."""
    return os.path.splitext(name)[0] if _rank(name) >= 0 or name.endswith(ANY) else name


def _spell(name: Name, layout: tuple[int, int]) -> str:
    """Returns another name: the format's n-th, or the listed one without its first folders."""
    other, dropped = layout
    if other:
        others = name.others()  # of which another split has more or fewer
        return others[min(other, len(others)) - 1]
    parts = re.split(r"[\\/]+", name.listed)  # an absolute path begins with an empty part
    return "/".join(parts[min(dropped, len(parts) - 1) :]) if dropped else name.listed


def _spellings(name: Name) -> Iterator[tuple[tuple[int, int], str]]:
    yield (0, 0), name.listed
    for other, spelled in enumerate(name.others(), 1):
        yield (other, 0), spelled
    for dropped in range(1, len(re.split(r"[\\/]+", name.listed))):
        yield (0, dropped), _spell(name, (0, dropped))


def _vote(
    files: Files, names: Sequence[Name], probe: Sequence[int]
) -> tuple[list[tuple[int, int]], str]:
    """Returns the layouts that find the probed names, most frequent first, and its extension.

    Of layouts that leave out leading folders only the first may be one.
    """
    votes, extensions = collections.Counter(), collections.defaultdict(collections.Counter)
    # In an object store names themselves come first, as there are many extensions.
    for any_extension in (False, True) if files.remote else (True,):
        for i in () if votes else probe:
            for layout, spelled in _spellings(names[i]):
                found = files.find(spelled, any_extension)
                if found is not None:
                    votes[layout] += 1
                    extensions[layout][_extension(found)] += 1
                    break
    count = len({name.listed for name in names})
    for layout, _ in votes.most_common():
        # Two listed videos must not become one.
        if not layout[1] or len({_spell(name, layout) for name in names}) == count:
            others = [other for other, _ in votes.most_common() if other != layout and not other[1]]
            return [layout, *others], extensions[layout].most_common(1)[0][0]
    return [], ""


def _changes(listed: list[str], resolved: list[str], layout: tuple[int, int]) -> str:
    """Describes how the files differ from the listed names, in words."""
    swaps, parts = collections.Counter(), []
    for old, new in zip(listed, resolved, strict=True):
        before, after = _extension(old), _extension(new)
        if before and before.lower() != after.lower():
            swaps[before, after] += 1
    for (before, after), count in swaps.most_common():
        files = "files" if count == len(listed) else f"{count} of {len(listed)} files"
        parts.append(f"{files} are read as {after or 'folders of frames'} instead of {before}")
    if layout[1]:
        old, new = next(pair for pair in zip(listed, resolved, strict=True) if pair[0] != pair[1])
        parts.append(f"paths are read from root, as {new} instead of {old}")
    return ", and ".join(parts)


def _folders_near(base: str) -> Iterator[str]:
    parent = os.path.dirname(os.path.abspath(base))
    for folder in (os.path.abspath(base), parent):
        inside = glob.iglob(os.path.join(glob.escape(folder), "*", ""))
        yield from (path.rstrip("/") for path in itertools.islice(inside, _SEARCHED_FOLDERS))
        yield os.path.dirname(folder)


def _similar(name: str, folder: str) -> tuple[str, str]:
    """Returns a name that may mean the same video, "" for none, and the most similar one."""
    try:
        names = [other for other in sorted(os.listdir(folder or ".")) if not is_system(other)]
    except OSError:
        return "", ""
    others = {_letters(other): other for other in names}
    letters, digits = _letters(name)
    # Names of other numbers are other videos.
    words = [other for other, numbers in others if numbers == digits]
    same = difflib.get_close_matches(letters, words, 1, 0.8)
    nearest = difflib.get_close_matches(name, spread(names, CHECKED_PATHS), 1, 0)
    return others[same[0], digits] if same else "", nearest[0] if nearest else ""


def _letters(name: str) -> tuple[str, str]:
    """Returns the letters and the digits of a name without a video's extension."""
    stem = re.sub(r"[\W_]", "", _stem(name)).lower()
    return re.sub(r"\d", "", stem), re.sub(r"\D", "", stem)


def first_few(names: Iterable[str], count: int = 3) -> str:
    """Formats names as "a, b, c and 5 more"."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
