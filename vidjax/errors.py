"""The exceptions that are meant for people, and the way command lines report them."""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

EXIT_AGAIN = 42  # xpk restarts a job that ends so; SLURM scripts of experiments.launch, too


class Again(Exception):
    """The run was asked to end and has saved what it did: the same command continues it.

    Commands print the message and exit with EXIT_AGAIN.
    """


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
    """Of an exception's text, which may be pages."""
    return (str(error).splitlines() or [type(error).__name__])[0]


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


def leave(error: Exception) -> None:
    """Prints an error and ends the process.

    At once: threads of libraries may hang, or add pages to what was said in a line.
    """
    print(f"error: {printable(str(error))}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_AGAIN if isinstance(error, Fault) else 2)


def run_main(
    main: Callable[[list[str]], None],
    flags_parser: Callable[[list[str]], list[str]] = flags.FLAGS,
) -> None:
    """Runs `main(argv)` under absl; a UserError is printed as one line and exits with code 2.

    Again and Fault are printed, too, and exit with EXIT_AGAIN.
    """

    logging.set_verbosity(logging.FATAL)  # libraries chat through absl, of errors that they raise

    def guarded(call, argv):
        try:
            return call(argv)
        except (UserError, app.UsageError, flags.Error) as error:
            leave(error)
        except Again as error:
            print(error, file=sys.stderr)
            sys.exit(EXIT_AGAIN)

    app.run(lambda argv: guarded(main, argv), flags_parser=lambda argv: guarded(flags_parser, argv))
