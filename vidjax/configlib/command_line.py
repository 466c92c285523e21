"""Overrides of single keys by the command line."""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from vidjax.configlib.recipes import load
from vidjax.errors import UserError, suggest
from vidjax.json_files import describe

flags.disclaim_key_flags()  # --help of the command that defines them lists them


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
    )
    values["config"].parser = _ConfigFile()


class _ConfigFile(flags.ArgumentParser):
    """Parser of --config: loads as `load` does."""

    def parse(self, argument: str) -> ConfigDict:
        return load(argument)


def of_command(arguments: Sequence[str]) -> ConfigDict:
    """Returns the config of another program's command line: "--config=…", "--config.a.b=…".

    Raises:
        UserError: as that program would.
    """
    values, argv = flags.FlagValues(), ["", *arguments]
    define_flag(values, argv)
    parse_flags(argv, values)
    return values.config


def parse_flags(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the command line, as a `flags_parser` of absl.

    Raises:
        UserError: the config file, a key or a value is wrong.
    """
    items, config = {}, None
    for i, arg in enumerate(argv[1:], 1):
        if not arg.startswith("-"):
            continue
        name, equals, value = arg.lstrip("-").partition("=")
        name = name.removeprefix("no") if name.startswith("noconfig.") else name
        items[name] = value if equals else "".join(argv[i + 1 : i + 2])
        if name == "config":
            config = _load(items[name])
        elif name.startswith("config."):
            if config is None:
                raise UserError(f"--{name} must come after --config=FILE, whose key it sets")
            _check_key(config, name.removeprefix("config."))
    try:
        return values(argv)
    except flags.IllegalFlagValueError as error:
        for name, value in items.items():
            if name.startswith("config.") and str(error).startswith(f"flag --{name}="):
                kind = config_path.get_type(name.removeprefix("config."), config)
                wanted = _WORDS.get(kind) or describe(kind)
                raise UserError(f"{name} must be {wanted}, not {value!r}") from None
        raise UserError(str(error)) from None
    except flags.Error as error:
        raise UserError(str(error)) from None


_WORDS = {tuple: "a tuple, such as \"(1, 2)\" or \"('a', 'b')\"", ConfigDict: "a dict"}


def _load(name: str) -> ConfigDict:
    if not name or name.startswith("-"):
        raise UserError("--config needs a file, such as --config=configs/videomae_k400.py:demo")
    return load(name)


def _check_key(config: ConfigDict, name: str) -> None:
    here, done = config, ""
    for part in name.split("."):
        if not isinstance(here, ConfigDict):
            raise UserError(f"unknown config key {name!r}; config.{done[:-1]} is a single value")
        if part not in here:
            blocks = [key for key, block in config.items() if isinstance(block, ConfigDict)]
            inside = [f"{block}.{part}" for block in blocks if part in config[block]]
            hint = f"did you mean {inside[0]!r}?" if inside else suggest(part, list(here), done)
            raise UserError(f"unknown config key {name!r}; {hint}")
        here, done = here[part], f"{done}{part}."
