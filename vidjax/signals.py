"""Ctrl-C, which ends a command with one sentence; and child processes, which end with their parent.

Nothing here imports more than the standard library: it is loaded before all else, so that Ctrl-C is
answered in the seconds that imports take, too.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# Seconds that a command may take to remove temporary files and to end its child processes.
_GRACE = 3.0

_sentence = "interrupted; run the same command again"
_first: Callable[[], bool] | None = None
_begun = False  # whether the imports are over
_announced = _raised = False
_sent = 0  # signals of ours on their way to the main thread


def listen() -> None:
    """Lets Ctrl-C end this program with one sentence and exit code 130, whatever it is doing.

    Python's KeyboardInterrupt waits until C++ returns (compiling takes minutes), is lost in
    callbacks, and prints what it interrupted. Here a thread hears of the signal at once, prints the
    sentence and silences the process. KeyboardInterrupt then unwinds the main thread. The thread
    ends the process where that takes longer than a few seconds, or Ctrl-C comes again.

    A handler that the command sets later takes the place of all this. Does nothing in other threads
    than the main one, and where SIGINT is ignored or handled already.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.signal(signal.SIGINT, _handle)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    sys.excepthook = _report
    threading.Thread(target=_watch, args=(reads,), daemon=True, name="vidjax Ctrl-C").start()


def is_command() -> bool:
    """Whether Python is importing the package of one of this project's commands, to run it."""
    names = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if "-m" in sys.orig_argv else []
    ours = ("vidjax.", "converters.", "experiments.")
    return sys.argv[:1] == ["-m"] and bool(names) and names[0].startswith(ours)


def begin(sentence: str) -> None:
    """Sets what Ctrl-C prints from now on, when a command's imports are over.

    Before that it ends the process at once: there is nothing to clean up, and a KeyboardInterrupt
    in the initialisation of a C++ module aborts.
    """
    global _sentence, _begun
    _sentence, _begun = sentence, True


def on_first_interrupt(take: Callable[[], bool] | None) -> None:
    """Sets what the first Ctrl-C calls, in another thread; True: nothing else happens.

    The second Ctrl-C ends the program. None unsets it.
    """
    global _first
    _first = take


def is_interrupted() -> bool:
    """Whether Ctrl-C is ending this program."""
    return _announced


def _watch(reads: int) -> None:
    global _first, _sent, _announced
    while number := os.read(reads, 1):
        if number[0] != signal.SIGINT or signal.getsignal(signal.SIGINT) is not _handle:
            continue
        if _sent:
            _sent -= 1
            continue
        take, _first = _first, None
        if take is not None and take():
            continue
        if _announced:
            os._exit(EXIT_INTERRUPTED)
        _say()
        if not _begun:
            os._exit(EXIT_INTERRUPTED)
        _announced = True
        end = threading.Timer(_GRACE, os._exit, (EXIT_INTERRUPTED,))
        end.daemon = True
        end.start()
        if not _raised:
            _sent += 1
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def _say() -> None:
    """Prints the sentence, and lets nothing else be printed."""
    with contextlib.suppress(Exception):  # a pipe that nobody reads any more
        sys.stdout.flush()
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # as progress bars hide it
    with contextlib.suppress(OSError):
        os.write(2, (show_cursor + _sentence + "\n").encode())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _handle(number: int, frame: FrameType | None) -> None:
    """Runs in the main thread, when it next runs Python."""
    global _raised
    if _announced and not _raised:  # once: a second one would interrupt what cleans up
        _raised = True
        raise KeyboardInterrupt


def _report(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if _announced:
        os._exit(EXIT_INTERRUPTED)
    sys.__excepthook__(kind, error, trace)


@contextlib.contextmanager
def hidden_from_children() -> Iterator[None]:
    """Hides Ctrl-C, which is the parent's to answer, from processes that this thread starts.

    And from threads that it starts, and their processes.
    """
    _start_tracker()  # which would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache  # once, as other threads may be reading the environment
def _start_tracker() -> None:
    """Starts multiprocessing's process that removes the shared memory of children that ended.

    Without its warning that there was some: grain leaves it what is on its way when a pass ends.
    """
    from multiprocessing import resource_tracker

    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before:
            os.environ["PYTHONWARNINGS"] = before


def end_with_parent() -> None:
    """Ends this child process of multiprocessing when its parent ends, however that ends.

    The system's own signal (PR_SET_PDEATHSIG) would come when the thread ends that started the
    child, and exists on Linux only.
    """
    from multiprocessing import parent_process

    def wait() -> None:
        parent.join()
        os._exit(1)

    if parent := parent_process():
        threading.Thread(target=wait, daemon=True, name="vidjax parent").start()
