"""Videos read in threads, ahead of whoever needs them."""

import collections
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
A = TypeVar("A")

_END = object()  # what follows the last answer about an item


def read_ahead(
    items: Sequence[T], read: Callable[[T], Iterable[A]], ahead: int
) -> Iterator[tuple[T, A]]:
    """Reads items in threads that each read one of its own.

    Args:
        items: such as videos.
        read: function from an item to answers about it; its exceptions are raised here.
        ahead: number of answers that may wait, beside the one that each thread holds.

    Yields:
        (item, answer): the answers about an item in their order, among those about others.
    """
    todo, ready, closed = collections.deque(items), queue.Queue(ahead), threading.Event()

    def put(*entry: Any) -> bool:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(entry, timeout=0.2)
                return True
        return False

    def work() -> None:
        while True:
            try:
                item = todo.popleft()
            except IndexError:
                return
            error = None
            try:
                for answer in read(item):
                    if not put(item, answer, None):
                        return
            except Exception as raised:
                error = raised
            put(item, _END, error)

    for _ in range(min(os.cpu_count() or 1, len(items))):
        threading.Thread(target=work, daemon=True, name="vidjax reader").start()
    try:
        remaining = len(items)
        while remaining:
            item, answer, error = ready.get()
            if error is not None:
                raise error
            if answer is _END:
                remaining -= 1
            else:
                yield item, answer
    finally:
        closed.set()
