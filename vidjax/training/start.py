"""The state that a run begins with."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
from flax import traverse_util

from vidjax import models, pretrained
from vidjax.card import Card, read_card
from vidjax.params import flatten, merge_params
from vidjax.setup import Setup
from vidjax.training.program import Program
from vidjax.training.step import TrainState


def initial_state(program: Program, log: Callable[[str], None]) -> TrainState:
    """Returns a state at step 0: fresh parameters, or those of `config.init` where it has them.

    Args:
        program: of the run; its mesh is the current one.
        log: takes lines about what the run starts from.

    Raises:
        UserError: `config.init` is no checkpoint, or does not fit the model.
    """
    config, shardings = program.setup.config, program.shardings
    rng = jax.random.key(config.seed)
    if not config.init:
        log("start: random parameters")
        return jax.jit(program.init, out_shardings=shardings)(rng)
    card, model = read_card(program.setup.folder), program.setup.model
    for line in _changed_input(card, program.setup):
        log(line)
    stored = pretrained.open_params(program.setup.folder)
    loaded, notes = models.adapt(
        stored.references(), card.model, model, **config.init_options.to_dict()
    )
    params, fresh, unused = merge_params(
        program.state.params,
        traverse_util.unflatten_dict(loaded, sep="/"),
        missing=config.init_missing,
        unused=config.init_unused,
        source=config.init,
    )

    def only_fresh(state):
        params = traverse_util.flatten_dict(state.params, sep="/")
        return state.replace(params={path: params[path] for path in fresh}, ema_params={})

    # Only what stays fresh is made: less to compile, and never two models in memory.
    make = jax.jit(lambda rng: only_fresh(program.init(rng)), out_shardings=only_fresh(shardings))
    state = make(rng)
    params = traverse_util.flatten_dict(params, sep="/") | state.params
    params = stored.place(params, traverse_util.flatten_dict(shardings.params, sep="/"))
    params = traverse_util.unflatten_dict(params, sep="/")
    log(f"start: parameters of {config.init}, step and optimizer new")
    for note in notes:
        log(f"  {note}")
    every = flatten(program.state.params)
    log(f"  fresh here: {_groups(fresh, every)}; not used: {_groups(unused, loaded)}")
    ema_params = jax.tree.map(jnp.copy, params) if config.ema_decay else {}
    return state.replace(params=params, ema_params=ema_params)


def _changed_input(card: Card, setup: Setup) -> Iterator[str]:
    """Yields a note for each fact of a checkpoint's model or input that this run has otherwise."""
    model = models.config_of(setup.model)
    if model["name"] != card.model["name"]:
        return
    there = {**card.model, **dataclasses.asdict(card.preprocessing)}
    here = {**model, **dataclasses.asdict(setup.preprocessing)}
    for key in (*models.declared(model["name"], "NOTED"), "mean", "std", "resize", "fit"):
        if key in there and key in here and there[key] != here[key]:
            source = setup.config.init
            yield f"note: {source} was made with {key} {there[key]}, this run has {here[key]}"


def _groups(paths: list[str], of: Iterable[str]) -> str:
    """Names for `paths` among all of `of`: of two words, or of three where others share these."""

    def start(path: str, words: int) -> str:
        return "/".join(path.split("/")[:words])

    others = {start(path, 2) for path in set(of) - set(paths)}
    names = {start(path, 3 if start(path, 2) in others else 2) for path in paths}
    return ", ".join(sorted(names)) or "nothing"
