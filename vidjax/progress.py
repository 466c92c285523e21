"""Progress of commands: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO


class Progress:
    """How many items of a total are done.

    Args:
        label: stands before the counts, such as "step" or "videos".
        total: number of items.
        done: how many were done before.
        text: stands beside the bar until there is another.
        every: least seconds between the lines that `advance` prints where there is no bar.
        out: file of bar and lines; None is sys.stderr.
        quiet: whether nothing is shown.
    """

    def __init__(
        self,
        label: str,
        total: int,
        done: int = 0,
        *,
        text: str = "",
        every: float = 10.0,
        out: TextIO | None = None,
        quiet: bool = False,
    ):
        self._label, self._total, self._done, self._text = label, total, done, text
        self._every, self._out, self._quiet = every, out or sys.stderr, quiet
        self._before, self._start = done, time.monotonic()
        self._shown, self._bar = self._start, None
        if self._out.isatty() and not quiet:
            from rich import progress  # slow to import
            from rich.console import Console

            columns = "{task.description} {task.completed}/{task.total}", progress.BarColumn()
            more = "{task.fields[text]}", progress.TimeRemainingColumn()
            self._bar = progress.Progress(*columns, *more, console=Console(file=self._out))
            self._task = self._bar.add_task(label, total=total, completed=done, text=text)
            self._bar.start()

    def advance(self, done: int, text: str | None = None) -> None:
        """Shows that `done` items are done, on lines only now and then."""
        self._done, self._text = done, self._text if text is None else text
        if self._bar:
            self._bar.update(self._task, completed=done, text=self._text)
        elif time.monotonic() - self._shown > self._every:
            self._shown = time.monotonic()
            fresh = max(done - self._before, 1)
            self.report(self._text, (self._shown - self._start) / fresh * (self._total - done))

    def report(self, text: str, seconds_left: float) -> None:
        """Shows a text beside the bar, or a line with it."""
        self._text = text
        if self._bar:
            self._bar.update(self._task, text=text)
        elif not self._quiet:
            left = time.strftime("%H:%M:%S", time.gmtime(seconds_left))
            parts = f"{self._label} {self._done}/{self._total}", text, f"{left} left"
            self.message("  ".join(filter(None, parts)))

    def message(self, text: str) -> None:
        """Prints a line, above the bar."""
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        elif not self._quiet:
            print(text, file=self._out, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()


def track(items: Iterable[Any], total: int, label: str) -> Iterator[Any]:
    """Yields items, and shows on stdout how many were used; `label` is such as "checked"."""
    progress = Progress(label, total, out=sys.stdout)
    try:
        for count, item in enumerate(items, 1):
            yield item
            progress.advance(count)
    finally:
        progress.close()
