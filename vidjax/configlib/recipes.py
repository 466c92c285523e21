"""Config files: their arguments, loading, and demo runs."""

import importlib.util
import pathlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vidjax import models, objectives
from vidjax.configlib.keys import INPUT, complete
from vidjax.errors import UserError, suggest
from vidjax.json_files import describe

_INSTALLED = pathlib.Path(__file__).parents[2]  # where configs and experiments lie, as vidjax does


def use_demo(
    config: ConfigDict,
    *,
    steps: int,
    lr: float,
    data: str = "demo",
    batch_size: int = 32,
    encoder: str = "",
) -> None:
    """Turns a recipe into one that a laptop runs in minutes, on clips that it makes itself.

    The data is `vidjax.data.demo`: eight motions that no single frame tells apart. Sizes, rates and
    durations change, and augmentation goes; the code that runs is the recipe's own.

    Args:
        config: the recipe, which is changed.
        steps, lr: length of the training and peak rate.
        data: name of the demo set.
        batch_size: key of config.data.
        encoder: name of a probe's encoder, unless config.init brings one.
    """
    clip = models.declared(encoder or config.model.name, "DEMO_CLIP")
    config.train_steps, config.train_epochs, config.log_every = steps, 0.0, 20
    config.data.update(
        name=data,
        train="",
        val="",
        root="",
        classes="",
        batch_size=batch_size,
        repeats=1,
        frames=8,
        stride=clip["stride"],
        sampling="dense",
        size=clip["size"],
        short_side=clip["size"],
        augment="center_crop",
        flip=0.0,
        rand_augment="",
        fit="crop",
        views_short_side=None,
        mix_group=0,
        cache="500MB",  # the set has less
    )
    if "variant" in config.model:
        config.model.variant = None
    config.model.dtype = "float32"
    config.model.update(models.demo_fields(config.model.name, config.model.head))
    if encoder:
        config.model.encoder = {"name": encoder, **models.demo_fields(encoder, None)}
    objective = objectives.find(config.objective.name)
    config.objective.update({k: v for k, v in objective.demo.items() if k in config.objective})
    config.optim.update(
        lr=lr,
        min_lr=0.0,
        lr_batch_size=0,
        layer_decay=1.0,
        warmup_epochs=1.0,
        warmup_steps=0,
        clip_parts=min(config.optim.clip_parts, 8),
    )
    for entry in config.evals.values():
        if "every" in entry:
            entry.every = 100
        if "views" in entry:
            entry.views = (3, 1)


def use_pretraining_demo(config: ConfigDict) -> None:
    """Turns a recipe of masked autoencoding into a demo whose picture shows the hidden shapes."""
    use_demo(config, steps=600, lr=3e-3, batch_size=16)
    config.optim.b2 = 0.999  # in so few steps 0.95 learns less


def unset_input(config: ConfigDict) -> None:
    """Unsets the keys INPUT of config.data, so that clips are as those of config.init."""
    for key in INPUT:
        config.data[key] = placeholder(type(config.data[key]))


def parse_arg(arg: str | None, **defaults: Any) -> SimpleNamespace:
    """Parses a config's argument, such as "L,frames=32,demo".

    Args:
        arg: comma-separated `key=value` items; a bare word sets a boolean key of that name to
            True, or else is the value of the first key.
        **defaults: the keys; values are converted to the type of their default.
    """
    values = dict(defaults)
    first = next(iter(defaults))
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if not equals and defaults.get(item) is False:
            text = "True"
        elif not equals and not isinstance(defaults[first], bool):
            key, text = first, item
            if values[first] != defaults[first]:
                raise UserError(
                    f"config argument {item!r} is a second {first} beside {values[first]!r} (a "
                    f"value with a comma cannot stand here); {suggest(item, list(defaults))}"
                )
        if key not in defaults:
            hint = " (a path with an equals sign cannot stand here)" if "/" in key else ""
            raise UserError(
                f"config argument {item!r} is unknown{hint}; {suggest(key, list(defaults))}"
            )
        kind = type(defaults[key])
        try:
            values[key] = {"True": True, "False": False}[text] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise UserError(
                f"config argument {key} must be {describe(kind)}, not {text!r}"
            ) from None
    return SimpleNamespace(**values)


def choose(what: str, choice: str, table: Mapping[str, Any]) -> Any:
    """Returns table[choice].

    Raises:
        UserError: there is no such key; it names those that there are.
    """
    if choice not in table:
        raise UserError(f"there is no recipe for {what} {choice!r}; there are {', '.join(table)}")
    return table[choice]


def load(file_and_arg: str) -> ConfigDict:
    """Runs the config file of "path.py:arg" and returns its config, complete and locked.

    Raises:
        UserError: there is no such file, it has no get_config, or its config lacks a key.
    """
    config = _get_config(file_and_arg)
    complete(config)
    return config.lock()


def load_beside(file: str, name_and_arg: str) -> ConfigDict:
    """Returns the config of another file in the folder of `file`, neither complete nor locked."""
    name, colon, arg = name_and_arg.partition(":")
    return _get_config(f"{pathlib.Path(file).with_name(name)}{colon}{arg}")


def _get_config(file_and_arg: str) -> ConfigDict:
    config = run_file(file_and_arg, "config", "get_config")
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config of {file_and_arg} must return a config, not {config!r:.80}")
    return config


def run_file(file_and_arg: str, kind: str, function: str) -> Any:
    """Calls a function of the Python file of "path.py:arg" with the argument, or with None.

    Args:
        file_and_arg: the file, and perhaps a colon and what the function is given. Where the
            current folder has no file such as "configs/x.py", it is the one installed with vidjax.
        kind: what such files hold, for messages; the folder of that name, plural, has known ones.
        function: its name.

    Raises:
        UserError: there is no such file, or it has no such function.
    """
    name, _, arg = file_and_arg.partition(":")
    path, folder = pathlib.Path(name), f"{kind}s"
    if path.parts[:1] == (folder,) and not path.exists():
        path = _INSTALLED / path
    if not path.is_file() or path.suffix != ".py":
        files = [
            file for root in (pathlib.Path(), _INSTALLED) for file in root.glob(f"{folder}/*.py")
        ]
        known = sorted({f"{folder}/{file.name}" for file in files if file.stem[0] != "_"})
        raise UserError(f"there is no {kind} file {name}; {suggest(name, known)}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise UserError(f"{kind} file {name} must define {function}(arg)")
    return getattr(module, function)(arg or None)
