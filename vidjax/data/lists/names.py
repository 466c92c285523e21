"""Files that a list means by its names.

Lists often name files otherwise than they are stored: with another extension or none, with the
backslashes or the leading folders of another machine, in another layout of folders. `resolve`
finds what makes the names of a list exist and applies it to the list as a whole.
"""

import collections
import functools
import os
import re
from collections.abc import Iterator, Sequence

from vidjax.data.lists.files import ANY, CHECKED_PATHS, PROBED_URLS, Files, spread, stem
from vidjax.data.lists.source import Row, Source
from vidjax.data.reading import locators
from vidjax.data.reading.video_files import rank

SPLITS = (
    ("train", "training"),
    ("val", "validation", "valid", "validate", "dev"),
    ("test", "testing"),
)


def resolve(source: Source, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Finds the files that the rows of a list mean.

    A sample decides for the whole list which of the names that its format allows, or how many
    leading folders to leave out, makes the files exist. Each file may then have an extension of
    its own. Names that exist, URLs, and names without a file stay as they are.

    Returns:
        (rows with the names of files, a notice if these differ from the list).
    """
    if any(row.verdict for row in rows):  # which was found out of the file that is named
        return list(rows), []
    files, splits, names = source.files, split_folders(source.name), []
    for row in rows:
        name = re.sub(r"^(\./+)+", "", row.path)
        in_splits = functools.partial(in_folders, name, *splits) if splits else tuple
        others = in_splits if row.others is tuple else row.others
        names.append(row._replace(path=name, others=others))
    local = [i for i, name in enumerate(names) if locators.is_local(name.path)]
    sample = spread(local, PROBED_URLS if files.remote else CHECKED_PATHS)
    missing = [i for i in sample if not files.has(names[i].path)]
    layouts, extension = _vote(files, names, missing)
    if not layouts:
        return [name._replace(path=default_name(name.path)) for name in names], []
    paths = [name.path for name in names]
    for i in local:
        name = _spell(names[i], layouts[0])
        if len(missing) == len(sample) or name.endswith(ANY):
            paths[i] = stem(name) + extension
        if not files.remote or name.endswith(ANY):
            spelled = (_spell(names[i], layout) for layout in ((0, 0), *layouts))
            paths[i] = next(filter(None, map(files.find, spelled)), paths[i])
    changes = _changes([name.path for name in names], paths, layouts[0])
    resolved = [name._replace(path=path) for name, path in zip(names, paths, strict=True)]
    return resolved, [f"{source.path}: {changes}"] if changes else []


def default_name(name: str) -> str:
    """Returns what a name that may have any extension is called where its file is missing."""
    return name.removesuffix(ANY) + ".mp4" if name.endswith(ANY) else name


def split_names(split: str) -> tuple[str, ...]:
    """Returns the names that folders of a split may have, its own first."""
    names = next((names for names in SPLITS if split.lower() in names), ())
    return tuple(dict.fromkeys((split, *names)))


def split_folders(list_name: str) -> tuple[str, ...]:
    """Returns the folders that may hold the videos of the split that a list's name tells."""
    return next((names for names in SPLITS if names[0] in list_name.lower()), ())


def in_folders(name: str, *folders: str) -> list[str]:
    """Returns the paths that a name has in each of the folders."""
    return [os.path.join(folder, name) for folder in folders]


def _vote(
    files: Files, names: Sequence[Row], probe: Sequence[int]
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
    count = len({name.path for name in names})
    for layout, _ in votes.most_common():
        # Two listed videos must not become one.
        if not layout[1] or len({_spell(name, layout) for name in names}) == count:
            others = [other for other, _ in votes.most_common() if other != layout and not other[1]]
            return [layout, *others], extensions[layout].most_common(1)[0][0]
    return [], ""


def _spellings(name: Row) -> Iterator[tuple[tuple[int, int], str]]:
    yield (0, 0), name.path
    for other, spelled in enumerate(name.others(), 1):
        yield (other, 0), spelled
    for dropped in range(1, len(re.split(r"[\\/]+", name.path))):
        yield (0, dropped), _spell(name, (0, dropped))


def _spell(name: Row, layout: tuple[int, int]) -> str:
    """Returns another name: the format's n-th, or the listed one without its first folders."""
    other, dropped = layout
    if other:
        others = name.others()  # of which another split has more or fewer
        return others[min(other, len(others)) - 1]
    parts = re.split(r"[\\/]+", name.path)  # an absolute path begins with an empty part
    return "/".join(parts[min(dropped, len(parts) - 1) :]) if dropped else name.path


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


def _extension(name: str) -> str:
    return os.path.splitext(name)[1] if rank(name) >= 0 else ""
