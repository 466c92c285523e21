"""Tells a decoder that hangs from one that has a long way to go.

A decoder hangs when it makes no progress for a while: no packet is read and no frame is decoded.
How long a whole file takes says nothing, as a file may be a film.
"""

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from vidjax.errors import VideoError

T = TypeVar("T")

HANG = "no answer in"  # begins the reason of a VideoError about a decoder that hangs

# Seconds without progress; the slowest packets of real videos take a few.
PATIENCE = 60.0

_watched = threading.local()  # .report: what `progress` calls in this thread


def progress() -> None:
    """Says that the reader of this thread got one packet or frame further."""
    report = getattr(_watched, "report", None)
    if report is not None:
        report()


@contextlib.contextmanager
def reports_to(report: Callable[[], None]) -> Iterator[None]:
    """Lets `progress` call `report` in this thread, which then watches over its readers."""
    _watched.report = report
    try:
        yield
    finally:
        del _watched.report


def watched(read: Callable[[], T], patience: float | None = None) -> T:
    """Returns read(), unless it hangs.

    It runs in a thread of its own, as a decoder that hangs in C++ answers no signal and no
    exception. Such a thread is left behind; it keeps neither the caller nor the end of the process
    waiting. In a thread that is watched already, `read` is simply called.

    Args:
        read: a function that calls `progress` now and then.
        patience: seconds without progress; None is PATIENCE.

    Raises:
        VideoError: there was no progress for so long; the message begins with HANG.
    """
    if getattr(_watched, "report", None) is not None:
        return read()
    patience = PATIENCE if patience is None else patience
    answer, last = concurrent.futures.Future(), time.monotonic()

    def report() -> None:
        nonlocal last
        last = time.monotonic()

    def work() -> None:
        try:
            with reports_to(report):
                result = read()
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    threading.Thread(target=work, daemon=True, name="vidjax decoder").start()
    while not answer.done():
        left = last + patience - time.monotonic()
        if left <= 0:
            raise VideoError(f"{HANG} {patience:g} s")
        concurrent.futures.wait([answer], left)
    return answer.result()
