"""The videos of a run that could not be used, counted and listed."""

import os
import threading
from collections.abc import Sequence

from vidjax.data.reading.watchdog import HANG
from vidjax.errors import UserError
from vidjax.journal import Journal


class BadVideos:
    """Counts the distinct videos that could not be used, and lists them in a file.

    Args:
        path: the list's file.
        num_videos: number of videos in the run.
        max_share: share of them that may be bad.
        others: lists of the other processes of the run, for `hanging`.

    Attributes:
        path: the list, one JSON object {"path", "reason"} a line. Lines of an earlier run stay,
            and are not written twice.
        count: distinct bad videos met by this run.
        hanging: videos in the list that hung their decoder, with the reason. Loaders do not try
            them again; who thinks that it was the machine's fault deletes their lines.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        num_videos: int,
        max_share: float = 0.1,
        others: Sequence[str | os.PathLike] = (),
    ):
        self.path, self._journal = os.fspath(path), Journal(path)
        self._num_videos, self._max_share = num_videos, max_share
        self._met: set[str] = set()
        self._listed: dict[str, str] = {}
        self._lock = threading.Lock()  # training and evaluation read at the same time
        for journal in (self._journal, *map(Journal, others)):
            for entry in journal.read(path=str, reason=str):
                self._listed[entry["path"]] = entry["reason"]

    @property
    def count(self) -> int:
        return len(self._met)

    @property
    def hanging(self) -> dict[str, str]:
        return {path: why for path, why in self._listed.items() if why.startswith(HANG)}

    def add(self, video: str, reason: str) -> None:
        """Counts a video once.

        Raises:
            UserError: if more than max_share * num_videos videos are bad.
        """
        with self._lock:
            if video in self._met:
                return
            self._met.add(video)
            if video not in self._listed or (reason.startswith(HANG) and video not in self.hanging):
                self._listed[video] = reason
                self._journal.add({"path": video, "reason": reason})
        if self.count > self._max_share * self._num_videos:
            raise UserError(
                f"{self.count} of {self._num_videos} videos could not be used, more than the share "
                f"of {self._max_share:g} that data.max_bad_share allows; {self.path} lists them "
                f"with reasons, the last is {video}: {reason}"
            )
