"""Who hangs, and who only takes long."""

import threading
import time

import pytest

from vidjax.data.reading.watchdog import progress, reports_to, watched
from vidjax.errors import VideoError


def test_a_reader_is_left_behind_when_it_hangs():
    start = time.monotonic()
    with pytest.raises(VideoError, match=r"^no answer in 0\.2 s$"):
        watched(lambda: time.sleep(3600), 0.2)
    assert time.monotonic() - start < 5


def test_a_reader_that_gets_on_may_take_long():
    def slow():
        for _ in range(10):
            time.sleep(0.25)
            progress()
        return "done"

    assert watched(slow, 2.0) == "done"


def test_errors_are_those_of_the_reader():
    def timeout():  # of a network file system, say
        raise TimeoutError("network")

    with pytest.raises(TimeoutError, match="network"):
        watched(timeout, 30)
    progress()  # nobody watches this thread


def test_a_reader_is_watched_once():
    threads, reports = [], []

    def inner():
        threads.append(threading.current_thread())
        progress()

    def outer():
        threads.append(threading.current_thread())
        watched(inner)

    watched(outer)
    assert threads[0] is threads[1] is not threading.current_thread()
    with reports_to(lambda: reports.append(1)):
        watched(inner)
    assert threads[2] is threading.current_thread() and reports == [1]
