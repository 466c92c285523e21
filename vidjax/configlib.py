"""Configs: every key of the train loop with its default, config files, command-line overrides.

A config file defines `get_config(arg)`; `arg` is what follows the colon in
`--config=configs/videomae_k400.py:L,frames=32`, and holds the choices that several keys depend on.
Single keys are set by `--config.optim.lr=3e-4`. Configs are locked: an unknown key is an error.
"""

import importlib.util
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FieldReference, config_flags
from ml_collections.config_dict import placeholder

from vidjax import models, objectives
from vidjax.errors import UserError, did_you_mean


def base() -> ConfigDict:
    """Every key that `vidjax.train` reads, with its default. Durations may be steps or epochs."""
    config = ConfigDict()
    config.seed = 0
    config.train_steps = 0  # 0: from train_epochs
    config.train_epochs = 0.0

    # Keywords of models.build, and of an objective's class; `name` picks the module. What is unset
    # comes from the variant, the data, or the model's own default.
    config.model = ConfigDict(
        {
            "width": unset(int),
            "depth": unset(int),
            "num_heads": unset(int),
            "mlp_dim": unset(int),
            "num_classes": unset(int),
            "unroll": unset(int),
            "remat": "none",
            "attention": "auto",  # one of models.layers.attention.IMPLEMENTATIONS
        }
    )
    config.objective = ConfigDict()
    config.evals = ConfigDict()  # name of the figures -> keywords of an evaluator

    config.data = ConfigDict(
        {
            "name": "",  # a key of data.datasets.DATASETS, or "custom"
            "train": "",  # list file, manifest (see data.check) or folder
            "val": "",
            "root": "",  # folder that relative paths in the lists start from
            "classes": "",  # text file with one class name a line, or a csv of id,name
            "val_classes": "",  # the same of `val`, where its classes are not those of training
            "batch_size": 0,  # videos per step, over all devices
            "repeats": 1,  # differently augmented clips per video and step
            "frames": 16,
            "stride": 4,
            "sampling": "dense",  # "segment", "linspace", "dense_cycle", ...: data.frames
            "size": 224,
            "short_side": 224,  # of evaluation frames before their crop
            "views_short_side": unset(int),  # where several crops are taken; unset: the same
            "resize": "cv2_linear",  # "pil_bilinear", "tf_bilinear", ...: see preprocessing
            "fit": "crop",  # or "stretch", "crop_first": how evaluation frames become square
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "augment": "multi_scale_crop",  # "random_resized_crop", "scale_jitter", "center_crop"
            "flip": 0.0,  # probability
            "mix_group": 0,  # neighbouring clips that mixup and cutmix draw for at once; 0: all
            "mix_partners": "reversed",  # order of a group's clips they are mixed with; "permuted"
            "rand_augment": "",  # "rand-m7-n4-mstd0.5-inc1", "scenic-n2-m15": data.frames
            "min_frames": 0,  # shorter videos are bad in training; 0: `frames`, 1 with dense_cycle
            "max_bad_share": 0.1,  # a run with a larger share of bad videos stops
            "reader": "pyav",  # or "decord", which is slower; both give the same frames
            "allow_changed_lists": False,  # whether a run continues if its lists changed meanwhile
            "workers": -1,  # processes that decode; -1: from the number of cores
            "patience": 600.0,  # seconds without a batch after which the loader is said to hang
            "tokenizer": "",  # SentencePiece .model or tokenizer.json; "": that of `init`
            # Unset: as the tokeniser's checkpoint says, or as is usual for it.
            "text_length": unset(int),  # tokens of a text
            "canonicalise": unset(bool),  # whether texts are cleaned as the original code does
            "truncate": unset(bool),  # whether longer texts are cut
            "shots": 0,  # videos of each class to train on; 0: all
            "shots_seed": 0,  # of which ones
        }
    )

    config.optim = ConfigDict(
        {
            "name": "adamw",  # or "sgd", "adafactor"
            "schedule": "cosine",  # or "linear", after the warm-up; "timm_cosine", from step 0
            "lr": 1e-3,  # peak, for a batch of `lr_batch_size` videos
            "min_lr": 0.0,  # at the end, likewise
            "lr_batch_size": 0,  # rates are scaled by batch_size / this; 0: not scaled
            "warmup_epochs": 0.0,
            "warmup_steps": 0,  # wins over warmup_epochs
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "momentum": 0.9,  # of sgd
            "weight_decay": 0.0,  # of kernels only
            "clip_norm": 0.0,  # 0: gradients are not clipped
            "clip_parts": 1,  # equal shards of the batch, clipped each before their mean is taken
            "layer_decay": 1.0,  # rate of a layer relative to the next one
            "freeze": (),  # regexes of parameters that are not trained
            "rates": (),  # pairs of a regex and the factor of its parameters' peak rate
        }
    )
    config.grad_accum = 1  # slices a batch (or each of clip_parts) is cut into, one at a time
    config.ema_decay = 0.0  # 0: no average of the parameters is kept

    # Start order: a checkpoint in the workdir, then `init`, then random values.
    config.init = ""  # folder with a converted or trained checkpoint; parameters only
    config.init_missing = ()  # regexes of parameters that it may lack (they start fresh)
    config.init_unused = ()  # regexes of parameters of it that may be left out
    config.init_options = ConfigDict()  # how the model's family makes another model's fit

    # Sizes of the device mesh; -1: all other devices. `sequence`: tokens, too, are split on
    # `tensor` between attention and MLP, which saves memory with long clips (see sharding.rules).
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1, "sequence": False})
    config.log_every = 50
    config.checkpoint = ConfigDict(
        {
            "every": 1000,  # steps
            "keep": 2,  # the latest
            "best": "",  # keeps the one with the best of this figure, too: "val/top1"
            "best_is": "max",  # or "min"
        }
    )
    config.nonfinite = "stop"  # at a loss or gradient that is not finite; or "skip" that step
    config.profile = ()  # first and last step of a trace for TensorBoard, in workdir/profile
    config.estimate = False  # print sizes and memory, then stop
    return config


# Ranges of numbers: what a run cannot work with is an error, whatever the rest of the config is.
# Keys that a config leaves unset are not looked at. vidjax.models and the objectives have the
# ranges of their own fields.
_RANGES = {
    "at least 1": (
        lambda x: x >= 1,
        "data.batch_size data.repeats data.frames data.stride data.size data.short_side "
        "data.views_short_side data.text_length optim.clip_parts grad_accum log_every "
        "checkpoint.every checkpoint.keep",
    ),
    "at least 0": (
        lambda x: x >= 0,
        "seed train_steps train_epochs data.min_frames data.mix_group data.shots data.patience "
        "optim.lr optim.min_lr optim.lr_batch_size optim.warmup_epochs optim.warmup_steps "
        "optim.eps optim.weight_decay optim.clip_norm",
    ),
    "from 0 to 1": (lambda x: 0 <= x <= 1, "data.flip data.max_bad_share"),
    "at least 0 and below 1": (
        lambda x: 0 <= x < 1,
        "ema_decay optim.b1 optim.b2 optim.momentum",
    ),
    "above 0 and at most 1": (lambda x: 0 < x <= 1, "optim.layer_decay"),
}


def check(config: ConfigDict) -> None:
    """Checks single keys; vidjax.models and the objectives check their own blocks.

    Raises:
        UserError: a number out of its range, an unknown choice, or patterns that are no regular
            expressions.
    """
    for meaning, (fits, keys) in _RANGES.items():
        for key in keys.split():
            block, _, name = key.rpartition(".")
            value = (config[block] if block else config).get(name)
            if value is not None and not (math.isfinite(value) and fits(value)):
                raise UserError(f"config.{key} must be {meaning}, not {value}")
    for key, value, known in (
        ("checkpoint.best_is", config.checkpoint.best_is, ("max", "min")),
        ("nonfinite", config.nonfinite, ("stop", "skip")),
    ):
        if value not in known:
            raise UserError(f"config.{key} must be {' or '.join(known)}, not {value!r}")
    best = config.checkpoint.best
    if best and (best.split("/")[0] not in config.evals or "/" not in best):
        raise UserError(
            f"config.checkpoint.best must be a figure of one of config.evals "
            f"({', '.join(config.evals) or 'there are none'}), such as 'val/top1', not {best!r}"
        )
    trace = config.profile
    if trace and not (len(trace) == 2 and 0 < trace[0] <= trace[1]):
        raise UserError(
            f"config.profile must be the first and the last step to trace, such as (10, 12), not "
            f"{trace}"
        )
    for rate in config.optim.rates:
        if not (isinstance(rate, Sequence) and len(rate) == 2 and _is_factor(rate[1])):
            raise UserError(
                f"config.optim.rates must be pairs of a pattern and a factor of at least 0, such "
                f"as (('head/.*', 10.0),), not {tuple(config.optim.rates)}"
            )
    patterns = {
        "optim.freeze": config.optim.freeze,
        "optim.rates": [pattern for pattern, _ in config.optim.rates],
        "init_missing": config.init_missing,
        "init_unused": config.init_unused,
    }
    for key, values in patterns.items():
        for pattern in values:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise UserError(
                    f"config.{key}: {pattern!r} is no regular expression ({error}); patterns match "
                    f"whole paths of parameters, such as 'encoder/blocks/.*'"
                ) from None


def _is_factor(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def plain(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as JSON values."""
    return json.loads(json.dumps(config.to_dict()))


def unset(kind: type) -> FieldReference:
    """A key without a value, which the command line may set to one of this type."""
    return placeholder(kind)


def unset_keys(**kinds: type) -> dict[str, FieldReference]:
    """Several such keys."""
    return {key: unset(kind) for key, kind in kinds.items()}


def use_demo(config: ConfigDict, *, steps: int, lr: float, data: str = "demo") -> None:
    """Turns a recipe into one that a laptop runs in minutes, on clips that it makes itself.

    The data is `vidjax.data.demo`: eight motions that no single frame tells apart. Sizes, rates and
    durations change, and augmentation goes; the code that runs is the recipe's own.
    """
    config.train_steps, config.train_epochs, config.log_every = steps, 0.0, 20
    config.data.update(
        name=data,
        train="",
        val="",
        root="",
        classes="",
        batch_size=32,
        repeats=1,
        frames=8,
        stride=2,
        sampling="dense",
        size=32,
        short_side=32,
        augment="center_crop",
        flip=0.0,
        rand_augment="",
        fit="crop",
        views_short_side=None,
        mix_group=0,
    )
    if "variant" in config.model:
        config.model.variant = None
    config.model.dtype = "float32"
    config.model.update(models.demo_fields(config.model.name, config.model.head))
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
        if not equals:
            key, text = (item, "True") if defaults.get(item) is False else (first, item)
        if key not in defaults:
            raise UserError(f"config argument {item!r} is unknown; {_suggest(key, list(defaults))}")
        kind = type(defaults[key])
        try:
            values[key] = {"True": True, "False": False}[text] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise UserError(
                f"config argument {key} must be a {kind.__name__}, not {text!r}"
            ) from None
    return SimpleNamespace(**values)


def choose(what: str, choice: str, table: Mapping[str, Any]) -> Any:
    """table[choice]; a UserError names the choices if there is no such key."""
    if choice not in table:
        raise UserError(f"there is no recipe for {what} {choice!r}; there are {', '.join(table)}")
    return table[choice]


def load(file_and_arg: str) -> ConfigDict:
    """Runs the config file of "path.py:arg" and returns its config, locked.

    Raises:
        UserError: there is no such file, or it has no get_config.
    """
    return run_file(file_and_arg, "config", "get_config").lock()


def run_file(file_and_arg: str, kind: str, function: str) -> Any:
    """Calls a function of the Python file of "path.py:arg" with the argument, or with None.

    Args:
        file_and_arg: the file, and perhaps a colon and what the function is given.
        kind: what such files hold, for messages; the folder of that name, plural, has known ones.
        function: its name.

    Raises:
        UserError: there is no such file, or it has no such function.
    """
    name, _, arg = file_and_arg.partition(":")
    path = pathlib.Path(name)
    if not path.is_file() or path.suffix != ".py":
        known = sorted(str(p) for p in pathlib.Path(f"{kind}s").glob("*.py") if p.stem[0] != "_")
        raise UserError(f"there is no {kind} file {name}; {_suggest(name, known)}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise UserError(f"{kind} file {name} must define {function}(arg)")
    return getattr(module, function)(arg or None)


def load_beside(file: str, name_and_arg: str) -> ConfigDict:
    """The config of another file in the folder of `file`, not locked: a recipe that is like it."""
    name, colon, arg = name_and_arg.partition(":")
    return load(f"{pathlib.Path(file).with_name(name)}{colon}{arg}").unlock()


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
            raise UserError(f"unknown config key {name!r}; {_suggest(part, keys, done)}")
        here, done = here[part], f"{done}{part}."


def _suggest(name: str, known: list[str], prefix: str = "") -> str:
    every = ", ".join(prefix + key for key in known) or "none"
    return did_you_mean(name, known, prefix, cutoff=0.5) or f"known here: {every}"
