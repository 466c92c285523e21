"""Looking up the files that a list's names mean, on a disk or in an object store."""

import os
import re
from collections.abc import Sequence

from vidjax.data.reading import locators
from vidjax.data.reading.video_files import EXTENSIONS, count_frames, is_video, rank
from vidjax.errors import UserError

# The end of a name that may have any extension; such a file is called .mp4 where it is missing.
ANY = ".*"

LOOKED_AT = 100  # how many lines tell the format of a table
CHECKED_PATHS = 1000  # how many paths of a list are looked up on disk
CHECKED_URLS = 20  # or in an object store, which takes its time for each
PROBED_URLS = 3
_COMMON = EXTENSIONS[:4]  # those looked up in an object store


class Files:
    """The files below a folder or its URL.

    A local folder is listed when something in it is first asked for. In an object store single
    objects are looked up, and only if others are missing; 60 at most.
    """

    def __init__(self, base: str):
        self.base = base
        self.remote = locators.is_url(base)
        self._folders: dict[str, tuple[set[str], dict[str, str]]] = {}
        self._lookups = PROBED_URLS * CHECKED_URLS

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

    def is_there(self, name: str) -> bool:
        """Returns whether `find` finds a name on a disk; False in an object store."""
        return not self.remote and self.find(name) is not None

    def sample(self, items: Sequence, count: int = LOOKED_AT) -> Sequence:
        """Returns about `count` of the items, to be looked up on a disk; [] in an object store."""
        return [] if self.remote else spread(items, count)

    def _find(self, name: str) -> str | None:
        folder, last = os.path.split(name)
        names, stems = self._list(folder)
        if last in names and not self._is_other_folder(name):
            return name
        bare = stem(last)
        whole = re.fullmatch(r"(\d+)\.0*", bare)  # an id that pandas made a float
        for wanted in (bare, whole[1]) if whole else (bare,):
            if wanted in stems:
                return os.path.join(folder, stems[wanted])
            inside = os.path.join(folder, wanted)
            if wanted in names and count_frames(os.path.join(self.base, inside)):
                return inside
        return None

    def _look_up(self, name: str, any_extension: bool) -> str | None:
        others = [stem(name) + extension for extension in _COMMON] if any_extension else []
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
            videos = [name for name in names if rank(name) >= 0 and name[0] != "."]
            stems = {os.path.splitext(n)[0]: n for n in sorted(videos, key=rank, reverse=True)}
            self._folders[folder] = set(names), stems
        return self._folders[folder]

    def _is_other_folder(self, name: str) -> bool:
        """Returns whether it is a folder that is no video."""
        place = os.path.join(self.base, name)
        return not is_video(name) and os.path.isdir(place) and not count_frames(place)


def stem(name: str) -> str:
    """Returns a name without its extension, if that is a video's; ids may hold dots."""
    return os.path.splitext(name)[0] if rank(name) >= 0 or name.endswith(ANY) else name


def spread(items: Sequence, count: int) -> Sequence:
    """Returns every n-th of the items, about `count` of them."""
    return items[:: max(1, len(items) // count)]
