"""The exceptions that are meant for people, and the way command lines report them."""

import contextlib
import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from absl import app, flags, logging

from vidjax import signals

EXIT_AGAIN = 42  # xpk restarts a job that ends so; SLURM scripts of experiments.launch, too


class Again(Exception):
    """The run was asked to end and has saved what it did: the same command continues it.

    Commands print the message and exit with EXIT_AGAIN.
    """


class Interrupted(Again):
    """An end that Ctrl-C asked for: commands exit with signals.EXIT_INTERRUPTED."""


class UserError(ValueError):
    """Wrong input by a person; its message is one sentence: the thing, what was expected, the fix.

    Commands print it without a traceback. Every other exception is a bug of vidjax and keeps its
    traceback.
    """


class Fault(UserError):
    """Something that the machine did, not the user: the same command may get over it.

    Commands print the message and exit with EXIT_AGAIN.
    """


class VideoError(Exception):
    """A file cannot be read as video; the message is one line, the reason, without the path."""


def first_line(error: Exception) -> str:
    """Returns the first line of an exception's text, which may be pages, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def brief(error: Exception) -> str:
    """Returns the type of an exception and the first line of its text, 300 characters at most."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def some(items: list[str], limit: int = 6, separator: str = "; ") -> str:
    """Formats a list as "a; b; c and 5 more"."""
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + rest


def did_you_mean(name: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """Returns "did you mean 'x'?" for the known name most like `name`; "" if none is like it."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"did you mean {prefix + close[0]!r}?" if close else ""


def suggest(name: str, known: list[str], prefix: str = "") -> str:
    """Returns "did you mean 'x'?", or all the known names where none is like `name`."""
    every = ", ".join(prefix + key for key in known) or "none"
    return did_you_mean(name, known, prefix, cutoff=0.5) or f"known here: {every}"


def printable(text: str) -> str:
    """Returns text for a terminal: without control characters, at most 40 lines of 500 characters.

    Names of files and tensors come from other people, and a terminal obeys escape codes in them.
    """
    lines = text.split("\n")
    more = [f"... and {len(lines) - 40} more lines"] if len(lines) > 40 else []
    short = [line if len(line) <= 500 else f"{line[:450]} ... {line[-40:]}" for line in lines[:40]]
    return "\n".join(
        "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in short + more
    )


# Errors of full, broken, forbidden or missing disks. Orbax and tensorstore pass the first ones on
# in words; EPERM is not among these, as "Operation not permitted" is said of other things, too.
_IN_WORDS = errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS
_BY_NUMBER = errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM, errno.ESTALE


def disk_problem(error: BaseException) -> str | None:
    """Returns the system's words for a disk's error; None if an exception has another cause."""
    if isinstance(error, OSError) and error.errno in (*_IN_WORDS, *_BY_NUMBER):
        return os.strerror(error.errno)
    return next((words for words in map(os.strerror, _IN_WORDS) if words in str(error)), None)


@contextlib.contextmanager
def disk_errors(place: str | os.PathLike) -> Iterator[None]:
    """Turns a disk's error while `place` is written into one sentence.

    Raises:
        UserError: a disk's error; it names the exception's own file, if it has one.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (problem := disk_problem(error)) is None:
            raise
        name = getattr(error, "filename", None) or place
        raise UserError(
            f"{os.fsdecode(name)} cannot be written or read: {problem}; mend that, or choose "
            f"another place, and run the same command again"
        ) from error


def leave(error: Exception) -> None:
    """Prints an error and ends the process.

    At once: threads of libraries may hang, or add pages to what was said in a line.
    """
    text = printable(str(error))
    print(text if isinstance(error, Again) else f"error: {text}", file=sys.stderr)
    code = EXIT_AGAIN if isinstance(error, Fault) else 2
    if isinstance(error, Interrupted) or signals.is_interrupted():
        code = signals.EXIT_INTERRUPTED
    with contextlib.suppress(OSError):  # a full disk, or a pipe that nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _report_unraisable(unraisable: Any) -> None:
    """Prints what Python prints, but not what Orbax adds to the error that it raises.

    When one array cannot be read or written it closes its event loop, and tensorstore tells that
    loop of all others.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def run_main(
    main: Callable[[list[str]], None],
    flags_parser: Callable[[list[str]], list[str]] = flags.FLAGS,
    *,
    interrupted: str = "interrupted; run the same command again",
) -> None:
    """Runs `main(argv)` under absl; a UserError is printed as one line and exits with code 2.

    Again and Fault are printed, too, and exit with EXIT_AGAIN. Ctrl-C prints `interrupted` and
    exits with signals.EXIT_INTERRUPTED.
    """
    signals.listen()
    sys.unraisablehook = _report_unraisable
    signals.begin(interrupted)
    logging.set_verbosity(logging.FATAL)  # libraries chat through absl, of errors that they raise

    def guarded(call, argv):
        try:
            with disk_errors("a file"):
                return call(argv)
        except Again as error:
            if isinstance(error, Interrupted) or signals.is_interrupted():
                leave(error)
            print(error, file=sys.stderr)
            sys.exit(EXIT_AGAIN)  # not at once: processes of one run take leave of each other
        except (UserError, app.UsageError, flags.Error) as error:
            leave(error)

    app.run(lambda argv: guarded(main, argv), flags_parser=lambda argv: guarded(flags_parser, argv))
