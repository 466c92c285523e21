"""Overrides of single keys by the command line."""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from vidjax.configlib.recipes import load
from vidjax.errors import UserError, suggest


def define_flag(values: flags.FlagValues = flags.FLAGS, argv: list[str] | None = None) -> None:
    """Defines --config and, through ml_collections, one --config.key flag per key of `argv`.

    Args:
        values: where they are defined.
        argv: the command line; None for that of this program.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, such as configs/videomae_k400.py:demo.",
        flag_values=values,
        sys_argv=argv,
        lock_config=True,
    )


def of_command(arguments: Sequence[str]) -> ConfigDict:
    """The config that a command line of other programs gives: "--config=…", "--config.a.b=…".

    Raises:
        UserError: as that program would.
    """
    values, argv = flags.FlagValues(), ["", *arguments]
    define_flag(values, argv)
    parse_flags(argv, values)
    return values.config


def parse_flags(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the command line (a `flags_parser` of absl); raises UserError for what is wrong."""
    items = {}
    for i, arg in enumerate(argv[1:], 1):
        if arg.startswith("-"):
            name, equals, value = arg.lstrip("-").partition("=")
            items[name] = value if equals else "".join(argv[i + 1 : i + 2])
    if "config" in items:
        config = load(items["config"])
        for name in items:
            if name.startswith("config."):
                _check_key(config, name.removeprefix("config."))
    try:
        return values(argv)
    except flags.Error as error:
        raise UserError(str(error)) from None


def _check_key(config: ConfigDict, name: str) -> None:
    here, done = config, ""
    for part in name.split("."):
        if not isinstance(here, ConfigDict) or part not in here:
            keys = list(here) if isinstance(here, ConfigDict) else []
            raise UserError(f"unknown config key {name!r}; {suggest(part, keys, done)}")
        here, done = here[part], f"{done}{part}."
