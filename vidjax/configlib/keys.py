"""Every key of the train loop with its default, and checks of single keys."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from vidjax import writers
from vidjax.errors import UserError


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
    config.writers = ("jsonl", "tensorboard")  # of metrics and pictures: vidjax.writers
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
    writers.check(config.writers)
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
