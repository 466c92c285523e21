"""Runs a command of vidjax by its name: `vidjax predict --checkpoint=FOLDER --video=a.mp4`.

`vidjax NAME ...` and `python -m vidjax NAME ...` run a module as `python -m MODULE ...` does: its
flags, messages, signals and exit codes are the same. Only the path of modules is that of installed
commands: Python puts the current folder there for `-m` alone.
"""

import pathlib
import runpy
import sys

from vidjax import __version__, signals

# Name -> module, in the order of use: weights to answers, videos to a model.
COMMANDS = {
    "convert": "converters.convert",
    "predict": "vidjax.predict",
    "embed": "vidjax.embed",
    "check": "vidjax.data.check",
    "pack": "vidjax.data.pack",
    "train": "vidjax.train",
    "eval": "vidjax.eval",
    "launch": "experiments.launch",
    "demo": "vidjax.data.demo",
}


def main() -> None:
    """Runs the command that the first argument names, or prints their list.

    Exits with 2 if there is no such command.
    """
    signals.listen()  # before the command's imports, which take seconds
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        del sys.argv[1]
        # As __main__, which multiprocessing looks up to import it in children.
        runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)
    elif name in ("--help", "-h", "help"):
        print(_help())
    elif name == "--version":
        print(f"vidjax {__version__}")
    else:
        from vidjax import errors  # absl takes longer to import than the list to print

        known = errors.suggest(name, list(COMMANDS))
        errors.leave(errors.UserError(f"there is no command {name!r}; {known}"))


def _help() -> str:
    lines = [f"  {name:8} {_summary(module)}" for name, module in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vidjax COMMAND --FLAG=VALUE ...",
            "",
            *lines,
            "",
            "`vidjax COMMAND --help` lists the flags of a command, `vidjax --version` its version.",
        ]
    )


def _summary(module: str) -> str:
    """Returns the first line of a module's docstring, and of its file, without importing it."""
    root = pathlib.Path(__file__).parents[1]
    with open(root / f"{module.replace('.', '/')}.py", encoding="utf-8") as file:
        return file.readline().strip().strip('"')


if __name__ == "__main__":
    main()
