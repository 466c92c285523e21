"""Why the videos of a list do not exist, and the fix."""

import difflib
import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence

from vidjax.data.datasets import Video
from vidjax.data.lists.files import CHECKED_PATHS, CHECKED_URLS, Files, spread, stem
from vidjax.data.reading import locators
from vidjax.data.reading.video_files import is_system
from vidjax.errors import UserError

_SEARCHED_FOLDERS = 100  # for a better root


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
    bare = re.sub(r"[\W_]", "", stem(name)).lower()
    return re.sub(r"\d", "", bare), re.sub(r"\D", "", bare)


def check_exist(path: str, videos: Sequence[Video], base: str, root: str) -> None:
    """Raises if most paths do not exist: then the root is wrong, not the videos.

    Single missing files are the loader's to replace and count. Of a large list a sample is looked
    up, as a network file system answers in milliseconds.
    """
    places = [locators.container(video.path) for video in videos]  # refuses what cannot be read
    local = [place for place in places if not locators.is_url(place)]
    sample = spread(local, CHECKED_PATHS)
    missing = [place for place in sample if not os.path.exists(place)]
    remote = list(dict.fromkeys(place for place in places if locators.is_url(place)))
    remote = spread(remote, CHECKED_URLS)
    missing += [place for place in remote if not locators.is_file(place)]
    sample += remote
    if len(missing) > len(sample) / 2:
        raise UserError(
            f"{path}: {len(missing)} of {len(sample)} videos looked up do not exist, such as "
            f"{', '.join(missing[:3])}; {explain_missing(missing, base, root)}"
        )
