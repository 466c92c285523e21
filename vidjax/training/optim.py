"""Optimizer and learning-rate schedule from the `optim` block of a config.

Reference for schedule, weight decay and layer decay: MCG-NJU/VideoMAE utils.py cosine_scheduler and
optim_factory.py.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from vidjax.errors import UserError
from vidjax.params import Params, split_params

Schedule = Callable[..., jax.Array]  # (step, factor=1.0) -> rate; the factor is of the peak


def cosine_with_warmup(peak: float, final: float, total: int, warmup: int) -> Schedule:
    """Linear from 0 to `peak` at step warmup - 1, then cosine towards `final` at step `total`.

    The reference reaches the peak on the last step of the warm-up and repeats it on the next one;
    `final` itself is never used. Parameters with a factor have another peak, but the same end.
    """

    def schedule(step, factor=1.0):
        top = peak * factor
        rising = top * step / max(warmup - 1, 1)
        progress = (step - warmup) / max(total - warmup, 1)
        falling = final + 0.5 * (top - final) * (1.0 + jnp.cos(jnp.pi * progress))
        return jnp.where(step < warmup, rising, falling)

    return schedule


def linear_with_warmup(peak: float, final: float, total: int, warmup: int) -> Schedule:
    """Returns `cosine_with_warmup`'s schedule with a linear fall (VideoPrism's stage 1)."""

    def schedule(step, factor=1.0):
        top = peak * factor
        rising = top * step / max(warmup - 1, 1)
        progress = (step - warmup) / max(total - warmup, 1)
        return jnp.where(step < warmup, rising, final + (top - final) * (1.0 - progress))

    return schedule


def timm_cosine(peak: float, final: float, total: int, warmup: int) -> Schedule:
    """Returns `cosine_with_warmup`'s schedule with a cosine from step 0, unseen while rates rise.

    timm's CosineLRScheduler as X-CLIP calls it (utils/optimizer.py): so the rate jumps down from
    the peak a little when the warm-up ends.
    """

    def schedule(step, factor=1.0):
        top = peak * factor
        falling = final + 0.5 * (top - final) * (1.0 + jnp.cos(jnp.pi * step / total))
        return jnp.where(step < warmup, top * step / max(warmup, 1), falling)

    return schedule


SCHEDULES = {
    "cosine": cosine_with_warmup,
    "linear": linear_with_warmup,
    "timm_cosine": timm_cosine,
}


def scaled_rates(cfg: Any, batch_size: int) -> tuple[float, float]:
    """Peak and final learning rate for a batch of `batch_size` videos (linear scaling rule)."""
    scale = batch_size / cfg.lr_batch_size if cfg.lr_batch_size else 1.0
    return cfg.lr * scale, cfg.min_lr * scale


def warmup_steps(cfg: Any, steps_per_epoch: int) -> int:
    return cfg.warmup_steps or round(cfg.warmup_epochs * steps_per_epoch)


def make_schedule(cfg: Any, *, batch_size: int, total: int, warmup: int) -> Schedule:
    """The schedule of `cfg` (the `optim` block) over `total` steps.

    Raises:
        UserError: the warm-up leaves no steps to train, or an unknown cfg.schedule.
    """
    if cfg.schedule not in SCHEDULES:
        raise UserError(
            f"config.optim.schedule must be one of {', '.join(SCHEDULES)}, not {cfg.schedule!r}"
        )
    if warmup >= total:
        raise UserError(
            f"the warm-up of {warmup} steps fills the whole run of {total}; lower "
            f"config.optim.warmup_steps or warmup_epochs, or train longer"
        )
    return SCHEDULES[cfg.schedule](*scaled_rates(cfg, batch_size), total, warmup)


def make_optimizer(
    cfg: Any, schedule: Schedule, stages: Sequence[str] = ("encoder/",)
) -> optax.GradientTransformation:
    """AdamW, SGD with momentum or Adafactor, with rates that may differ between parameters.

    Rates fall layer by layer where `cfg.layer_decay` < 1 (see `layer_factors`, also for `stages`),
    and their peaks are multiplied by the factors of `cfg.rates`. Weight decay goes to kernels only
    (not to biases, norms, tokens or positions), and is added after the moments, to both. Gradients
    are clipped by their norm over all devices; `cfg.clip_parts` is the train step's.
    Adafactor keeps second moments of rows and columns (of matrices from 128 on), cuts each
    parameter's update (of stacked blocks each layer's) at root mean square 1, then averages updates
    by cfg.b1 (arXiv:1804.04235 without its relative rates).

    Raises:
        UserError: cfg.name is unknown.
    """
    methods = {
        "adamw": lambda: [optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps)],
        "sgd": lambda: [optax.trace(cfg.momentum)],
        "adafactor": lambda: [
            optax.scale_by_factored_rms(),
            optax.stateless(lambda updates, _: _clip_by_rms(updates)),
            optax.ema(cfg.b1, debias=False),
        ],
    }
    if cfg.name not in methods:
        raise UserError(f"config.optim.name must be one of {', '.join(methods)}, not {cfg.name!r}")
    clip = [optax.clip_by_global_norm(cfg.clip_norm)] if cfg.clip_norm else []
    decay = [_scale_by_layer(cfg.layer_decay, stages)] if cfg.layer_decay != 1.0 else []
    rate = _scale_by_rates(cfg.rates, schedule)
    return optax.chain(
        *clip,
        *methods[cfg.name](),
        optax.add_decayed_weights(cfg.weight_decay, _is_kernel),
        *decay,
        rate if cfg.rates else optax.scale_by_learning_rate(schedule),
    )


def _clip_by_rms(updates: Params) -> Params:
    """Returns optax.clip_by_block_rms(1.0) for each layer of the stacked `blocks` by itself."""

    def clip(path: tuple[str, ...], x: jax.Array) -> jax.Array:
        axes = tuple(range("blocks" in path, x.ndim))
        rms = jnp.sqrt(jnp.square(x).mean(axes, keepdims=True))
        return x / jnp.maximum(1.0, rms)

    return traverse_util.path_aware_map(clip, updates)


def _is_kernel(params: Params) -> Params:
    return traverse_util.path_aware_map(lambda path, _: path[-1] == "kernel", params)


def layer_factors(params: Params, decay: float, stages: Sequence[str] = ("encoder/",)) -> Params:
    """Returns rate factors decay^(L + 1 - id), broadcastable to the parameters.

    id is 0 for what makes the tokens, i + 1 for block i, L + 1 for what follows the blocks.

    Args:
        params: nested.
        decay: rate of a layer relative to the next one.
        stages: path prefixes whose `blocks` count, one stage after the other; the tokens and the
            norm of a stage go with the block before them. An encoder that has none of them is one
            stage.

    Raises:
        UserError: the blocks of a stage are frozen, but what is before or after them is not.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    encoder = stages[0][: stages[0].index("encoder/")] + "encoder/"
    if not any(path.startswith(tuple(stages)) for path in flat):
        stages = (encoder,)

    def depth(stage: str) -> int:
        sizes = [len(x) for path, x in flat.items() if path.startswith(stage + "blocks/")]
        return sizes[0] if sizes else 0  # 0: they are frozen, or there is no such stage

    depths = [depth(stage) for stage in stages]
    total = sum(depths)
    starts = [sum(depths[:i]) for i in range(len(stages))]

    def layer(path: str, x: jax.Array) -> int | jax.Array:
        if not path.startswith(encoder):
            return total + 1
        # What is in no stage, the patches, goes with the first one.
        i = next((i for i, stage in enumerate(stages) if path.startswith(stage)), 0)
        name = path.removeprefix(stages[i])
        if name.startswith("norm/") and not any(depths[i + 1 :]):
            return total + 1
        if not depths[i]:
            raise UserError(
                f"config.optim.layer_decay needs to know how far {path} is from the head, but "
                f"the blocks of {stages[i]} are frozen; freeze it too, or set layer_decay to 1"
            )
        if name.startswith("blocks/"):
            return starts[i] + jnp.arange(1, 1 + len(x)).reshape(-1, *[1] * (x.ndim - 1))
        return starts[i] + depths[i] if name.startswith("norm/") else starts[i]

    factors = {path: jnp.float32(decay) ** (total + 1 - layer(path, x)) for path, x in flat.items()}
    return traverse_util.unflatten_dict(factors, sep="/")


def _scale_by_layer(decay: float, stages: Sequence[str]) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        factors = layer_factors(updates, decay, stages)
        return jax.tree.map(lambda u, f: u * f, updates, factors), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _scale_by_rates(
    rates: Iterable[tuple[str, float]], schedule: Schedule
) -> optax.GradientTransformation:
    """Returns optax.scale_by_learning_rate with a factor of the peak for each parameter.

    That is the factor of the first regex that matches its whole path, or 1.
    """
    compiled = [(re.compile(pattern), factor) for pattern, factor in rates]

    def update(updates, state, params=None):
        flat = traverse_util.flatten_dict(updates, sep="/")
        for path, x in flat.items():
            factor = next((f for pattern, f in compiled if pattern.fullmatch(path)), 1.0)
            flat[path] = jnp.asarray(-schedule(state.count, factor), x.dtype) * x
        count = optax.safe_increment(state.count)
        return traverse_util.unflatten_dict(flat, sep="/"), optax.ScaleByScheduleState(count)

    init = optax.scale_by_learning_rate(schedule).init
    return optax.GradientTransformation(init, update)


def check_patterns(cfg: Any, params: Params) -> None:
    """Checks the patterns of `cfg` (the `optim` block) against the parameters of the model.

    Raises:
        UserError: a pattern of `freeze` or `rates` that matches none, or nothing left to train.
    """
    paths = list(traverse_util.flatten_dict(params, sep="/"))
    for key, patterns in (("freeze", cfg.freeze), ("rates", [regex for regex, _ in cfg.rates])):
        for pattern in patterns:
            if not any(re.fullmatch(pattern, path) for path in paths):
                inside = pattern.rstrip("/") + "/.*"
                known = ", ".join(dict.fromkeys(path.split("/")[0] for path in paths))
                hint = f"paths start with {known}"
                if any(re.fullmatch(inside, path) for path in paths):
                    hint = f"did you mean {inside!r}?"
                raise UserError(
                    f"config.optim.{key}: {pattern!r} matches no parameter's whole path, such as "
                    f"{paths[0]!r}; {hint}"
                )
    if not split_params(params, cfg.freeze)[0]:
        raise UserError(
            f"config.optim.freeze = {tuple(cfg.freeze)} matches all {len(paths)} parameters, which "
            f"leaves nothing to train; leave some out"
        )
