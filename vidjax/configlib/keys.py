"""Every key of the train loop with its default, and checks of single keys."""

import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vidjax import models, objectives, writers
from vidjax.errors import UserError

# Keys of config.data that, where a config leaves them unset, are those of the checkpoint that it
# starts from or evaluates.
INPUT = ("frames", "stride", "sampling", "size", "short_side", "resize", "fit", "mean", "std")


def base() -> ConfigDict:
    """Returns every key that `vidjax.train` reads, with its default.

    `complete` adds the fields of the model and of the objective that a config names.
    """
    config = ConfigDict()
    config.seed = 0
    config.train_steps = 0  # length of the training; 0: from train_epochs
    config.train_epochs = 0.0
    config.min_steps = 0  # of a training whose length is in epochs, however small its list is
    # Keywords of models.build and of an objective's class; `name` is a module. Unset fields come
    # from the variant, config.init, the data, or the model's own default.
    config.model = ConfigDict()
    config.model.remat = "none"  # "full": recompute blocks; "dots": all but matrix products
    config.model.attention = "auto"  # one of models.layers.attention.IMPLEMENTATIONS
    config.objective = ConfigDict()
    config.evals = ConfigDict()  # prefix of the metrics -> keywords of an evaluator
    config.data = _data()
    config.optim = _optim()
    config.grad_accum = 1  # slices a batch (or each of clip_parts) is cut into, one at a time
    config.ema_decay = 0.0  # of a moving average of the parameters; 0: none is kept

    # Start order: a checkpoint in the workdir, then `init`, then random values.
    config.init = ""  # a checkpoint, by any name of vidjax.sources; parameters only
    config.init_missing = ()  # regexes of parameters that it may lack (they start fresh)
    config.init_unused = ()  # regexes of its parameters that may be left out
    config.init_options = ConfigDict()  # keywords of the family's `adapt`, see vidjax.models

    # Sizes of the device mesh; -1: all other devices. See sharding.rules.
    config.mesh = ConfigDict()
    config.mesh.data = -1
    config.mesh.fsdp = 1
    config.mesh.tensor = 1
    config.mesh.sequence = False  # split tokens on `tensor`, too: less memory with long clips

    config.log_every = 50  # steps
    config.writers = ("jsonl", "tensorboard")  # of metrics and pictures: vidjax.writers
    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000  # steps
    config.checkpoint.keep = 2  # number of latest checkpoints
    config.checkpoint.best = ""  # a metric such as "val/top1", whose best checkpoint is kept, too
    config.checkpoint.best_is = "max"  # or "min"
    config.nonfinite = "stop"  # at a loss or gradient that is not finite; or "skip" that step
    config.profile = ()  # first and last step of a trace for TensorBoard, in workdir/profile
    config.estimate = False  # print sizes and memory, then stop
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    data.name = ""  # a key of data.datasets.DATASETS, or "custom"
    data.train = ""  # list file, manifest (see data.check) or folder
    data.val = ""  # likewise
    data.root = ""  # folder that relative paths in the lists start from
    data.classes = ""  # text file with one class name a line, or a csv of id,name
    data.val_classes = ""  # classes of `val`, where they are not those of training
    data.val_share = 0.0  # of each class of `train`, held out where `val` names no list
    data.val_seed = 0  # draws these videos
    data.batch_size = 0  # videos per step, over all devices
    data.repeats = 1  # differently augmented clips per video and step
    data.frames = 16  # of a clip
    data.stride = 4  # distance of a clip's frames in the video
    data.sampling = "dense"  # "segment", "linspace", "dense_cycle", ...: see data.frames.sampling
    data.size = 224  # height and width of a clip
    data.short_side = 224  # of evaluation frames before their crop
    data.views_short_side = placeholder(int)  # likewise for several crops; unset: short_side
    data.resize = "cv2_linear"  # "pil_bilinear", "tf_bilinear", ...: see preprocessing
    data.fit = "crop"  # or "stretch", "crop_first": how evaluation frames become square
    data.mean = (0.485, 0.456, 0.406)  # of RGB from 0 to 1
    data.std = (0.229, 0.224, 0.225)
    data.augment = "multi_scale_crop"  # "random_resized_crop", "scale_jitter", "center_crop", ...
    data.flip = 0.0  # probability
    data.mix_group = 0  # neighbouring clips that mixup and cutmix draw for at once; 0: all
    data.mix_partners = "reversed"  # order of a group's clips to mix with; or "permuted"
    data.rand_augment = ""  # "rand-m7-n4-mstd0.5-inc1", "scenic-n2-m15", ...: see data.frames
    data.min_frames = 0  # shorter training videos are bad; 0: `frames`, 1 with dense_cycle
    data.max_bad_share = 0.1  # a run with a larger share of bad videos stops
    data.reader = "pyav"  # or "decord", which is slower; both give the same frames
    data.allow_changed_lists = False  # whether a run continues with lists that have changed
    data.workers = -1  # processes that decode; -1: from the number of cores
    data.cache = ""  # "2GB": keep decoded frames in memory; "FOLDER:20GB": on a disk
    data.patience = 600.0  # seconds without a batch after which the loader is said to hang
    data.tokenizer = ""  # SentencePiece .model or tokenizer.json; "": that of `init`
    # Unset: as the tokenizer's checkpoint says, or as is usual for it.
    data.text_length = placeholder(int)  # tokens of a text
    data.canonicalise = placeholder(bool)  # whether texts are cleaned as by the original code
    data.truncate = placeholder(bool)  # whether longer texts are cut
    data.shots = 0  # videos of each class to train on; 0: all
    data.shots_seed = 0  # draws these videos
    return data


def _optim() -> ConfigDict:
    optim = ConfigDict()
    optim.name = "adamw"  # or "sgd", "adafactor"
    optim.schedule = "cosine"  # or "linear", after the warm-up; "timm_cosine", from step 0
    optim.lr = 1e-3  # peak, for a batch of `lr_batch_size` videos
    optim.min_lr = 0.0  # at the end, likewise
    optim.lr_batch_size = 0  # rates are scaled by batch_size / lr_batch_size; 0: not scaled
    optim.warmup_epochs = 0.0
    optim.warmup_steps = 0  # wins over warmup_epochs
    optim.b1 = 0.9
    optim.b2 = 0.999
    optim.eps = 1e-8
    optim.momentum = 0.9  # of sgd
    optim.weight_decay = 0.0  # of kernels only
    optim.clip_norm = 0.0  # largest norm of the gradient; 0: it is not clipped
    optim.clip_parts = 1  # equal shards of the batch, each clipped before their mean is taken
    optim.layer_decay = 1.0  # rate of a layer relative to the next one
    optim.freeze = ()  # regexes of parameters that are not trained
    optim.rates = ()  # pairs of a regex and the factor of its parameters' peak rate
    return optim


def complete(config: ConfigDict) -> None:
    """Adds the fields of the model and of the objective that a config does not set, unset.

    So the command line can set every field, to values of its type.

    Raises:
        UserError: the config names no model or objective, or one that does not exist.
    """
    for block, name in (("model", "name"), ("model", "head"), ("objective", "name")):
        if name not in config[block]:
            raise UserError(f"config.{block}.{name} is missing; a config file must set it")
    fields = models.fields_of(config.model.name, config.model.head)
    _add_unset(config.model, {key: field.type for key, field in fields.items()})
    _add_unset(config.objective, objectives.keys_of(config.objective.name))
    if "variant" in config.model:
        _add_unset(config.model, {"variant": str})


def _add_unset(block: ConfigDict, kinds: Mapping[str, Any]) -> None:
    for key, kind in kinds.items():
        if key not in block or block.get_type(key) is type(None):
            block[key] = placeholder(_plain_type(kind))


def _plain_type(annotation: Any) -> type:
    """Returns the type that a placeholder has for an annotation: int for `Size | None`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, Union, types.UnionType):
        return _plain_type(arguments[0])
    if origin is Literal:
        return type(arguments[0])
    kind = origin or annotation
    return kind if kind in (int, float, str, bool, tuple) else object  # any Python literal


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
        "seed train_steps train_epochs min_steps data.min_frames data.mix_group data.shots "
        "data.patience optim.lr optim.min_lr optim.lr_batch_size optim.warmup_epochs "
        "optim.warmup_steps optim.eps optim.weight_decay optim.clip_norm",
    ),
    "from 0 to 1": (lambda x: 0 <= x <= 1, "data.flip data.max_bad_share"),
    "at least 0 and below 1": (
        lambda x: 0 <= x < 1,
        "data.val_share ema_decay optim.b1 optim.b2 optim.momentum",
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
    for key, entry in config.evals.items():
        if not isinstance(entry, ConfigDict):
            raise UserError(
                f"config.evals.{key} must be a dict with the name of an evaluator, not {entry!r}"
            )
    best = config.checkpoint.best
    if best and (best.split("/")[0] not in config.evals or "/" not in best):
        raise UserError(
            f"config.checkpoint.best must be a metric of one of config.evals "
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
