"""The one exception for wrong input, and the way command lines report it."""

import sys
from collections.abc import Callable

from absl import app, flags, logging


class UserError(ValueError):
    """Wrong input by a person; its message is one sentence: the thing, what was expected, the fix.

    Commands print it without a traceback. Every other exception is a bug of vidjax and keeps its
    traceback.
    """


def run_main(
    main: Callable[[list[str]], None],
    flags_parser: Callable[[list[str]], list[str]] = flags.FLAGS,
) -> None:
    """Runs `main(argv)` under absl; a UserError is printed as one line and exits with code 2."""

    logging.set_verbosity(logging.ERROR)  # libraries chat through absl; ours prints

    def guarded(call, argv):
        try:
            return call(argv)
        except (UserError, app.UsageError, flags.Error) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(lambda argv: guarded(main, argv), flags_parser=lambda argv: guarded(flags_parser, argv))
