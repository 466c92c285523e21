"""The train loop: `python -m vidjax.train --config=configs/videomae_k400.py:demo --workdir=...`.

One step is jitted over a mesh of all devices and consumes its state. A run is a pure function of
its config: the random key of a step is fold_in(seed, step), the data stream starts at any step, so
a resumed run equals an uninterrupted one bit for bit.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from etils import epath
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

import vidjax
from vidjax import (
    compilation,
    configlib,
    distributed,
    files,
    metrics,
    models,
    optim,
    pretrained,
    sharding,
    task,
)
from vidjax.card import Card, read_card, write_card
from vidjax.checkpoints import Checkpoints, last_good
from vidjax.errors import Again, Interrupted, UserError, run_main
from vidjax.evaluators import with_views
from vidjax.journal import Journal
from vidjax.params import flatten, join_params, merge_params, path_of, split_params
from vidjax.progress import Progress
from vidjax.workdir import (
    check_same_lists,
    check_workdir,
    claim_workdir,
    release_workdir,
    workdir_errors,
)

# Steps queued ahead of the device: enough to keep it busy, few because each holds a batch.
_AHEAD = 2

# Steps in a row that may be left out because they are not finite.
_SKIPS = 20


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step, and all that a checkpoint holds.

    Attributes:
        step: int32 [], steps done.
        params: the model's parameters, nested.
        opt_state: the optimizer's, of the trained parameters only.
        ema_params: moving average of params; empty without config.ema_decay.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any


def make_train_step(
    objective,
    optimizer,
    *,
    freeze=(),
    seed: int = 0,
    ema_decay: float = 0.0,
    grad_accum: int = 1,
    clip_parts: int = 1,
    clip_norm: float = 0.0,
    skip_nonfinite: bool = False,
    shardings: TrainState | None = None,
):
    """Returns train_step(state, batch) -> (state, figures), jitted, consuming `state`.

    Figures are the objective's, "loss", "grad_norm", and "finite": whether these two are. With
    clip_parts > 1 "grad_norm" is the mean norm of the shards' gradients before they are clipped.

    Args:
        objective: see vidjax.objectives.
        optimizer: an optax transformation for the trained parameters.
        freeze: regexes of whole parameter paths that are not trained.
        seed: with the step, the source of all randomness.
        ema_decay: of the parameters' moving average; 0 for none.
        grad_accum: slices that the batch (or each of the clip_parts) is cut into, one after the
            other, and whose gradients are averaged.
        clip_parts: equal, contiguous shards of the batch whose gradients are clipped to the norm
            `clip_norm` each and then averaged, as a pmap over as many devices does that clips
            before the mean. 1 leaves the clipping to `optimizer`. Shards are computed side by side
            as far as the mesh has devices (`sharding.clip_axes`), else one after the other.
        clip_norm: see clip_parts; 0 does not clip.
        skip_nonfinite: a step that is not finite changes nothing but the number of steps.
        shardings: of the state; None leaves them to jit.
    """

    def gradients(trained, frozen, ema_params, batch, rng):
        def loss_fn(trained):
            params = join_params(trained, frozen)
            return objective.loss(params, batch, rng=rng, ema_params=ema_params)

        (loss, figures), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained)
        return {"loss": loss, **figures}, grads

    def summed(compute, slices):
        """The sum of compute(*slice) over the first axis of the arrays, one slice at a time."""
        shapes = jax.eval_shape(compute, *jax.tree.map(lambda x: x[0], slices))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        add = lambda total, one: (jax.tree.map(jnp.add, total, compute(*one)), None)  # noqa: E731
        return jax.lax.scan(add, zeros, slices)[0]

    def accumulated(trained, frozen, ema_params, batch, rng):
        # Interleaved slices, so that every device keeps its own clips.
        slices = jax.tree.map(
            lambda x: x.reshape(-1, grad_accum, *x.shape[1:]).swapaxes(0, 1), batch
        )
        compute = functools.partial(gradients, trained, frozen, ema_params)
        total = summed(compute, (slices, jax.random.split(rng, grad_accum)))
        return jax.tree.map(lambda x: x / grad_accum, total)

    def with_norm(*args):
        figures, grads = (accumulated if grad_accum > 1 else gradients)(*args)
        return figures | {"grad_norm": optax.tree.norm(grads)}, grads

    def clipped(trained, frozen, ema_params, batch, rng):
        mesh = jax.sharding.get_abstract_mesh()
        clips = len(jax.tree.leaves(batch)[0])
        axes = sharding.clip_axes(clip_parts, clips, grad_accum, mesh)
        abreast = math.prod(mesh.shape[axis] for axis in axes)

        def in_turns(x):  # contiguous shards whatever the mesh: [turns, abreast, ...]
            return x.reshape(abreast, clip_parts // abreast, *x.shape[1:]).swapaxes(0, 1)

        shards = jax.tree.map(lambda x: x.reshape(clip_parts, -1, *x.shape[1:]), batch)
        turns = jax.tree.map(in_turns, (shards, jax.random.split(rng, clip_parts)))
        clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()

        def shard(batch, rng):
            figures, grads = with_norm(trained, frozen, ema_params, batch, rng)
            return figures, clip.update(grads, clip.init(grads))[0]

        def turn(*shards):
            if not axes:
                return shard(*jax.tree.map(lambda x: x[0], shards))
            with nn.logical_axis_rules(sharding.without(axes, nn.get_logical_axis_rules())):
                out = jax.vmap(shard, spmd_axis_name=axes)(*shards)
            return jax.tree.map(lambda x: x.sum(0), out)

        return jax.tree.map(lambda x: x / clip_parts, summed(turn, turns))

    def train_step(state, batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        trained, frozen = split_params(state.params, freeze)
        compute = clipped if clip_parts > 1 else with_norm
        figures, grads = compute(trained, frozen, state.ema_params, batch, rng)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = join_params(optax.apply_updates(trained, updates), frozen)
        ema_params = state.ema_params
        if ema_decay:
            ema_params = optax.incremental_update(params, ema_params, 1.0 - ema_decay)
        finite = jnp.isfinite(figures["loss"]) & jnp.isfinite(figures["grad_norm"])
        new = TrainState(state.step, params, opt_state, ema_params)
        if skip_nonfinite:
            new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        return new.replace(step=state.step + 1), figures | {"finite": finite}

    out_shardings = None if shardings is None else (shardings, None)
    return jax.jit(train_step, donate_argnums=0, out_shardings=out_shardings)


def abstract_state(work: task.Task, optimizer) -> tuple[Any, TrainState]:
    """A function rng -> fresh TrainState, and that state's shapes with their shardings."""
    config = work.config

    def start(boxed):
        params = nn.meta.unbox(boxed)
        trained, _ = split_params(params, config.optim.freeze)
        ema_params = jax.tree.map(jnp.copy, params) if config.ema_decay else {}
        return TrainState(jnp.int32(0), params, optimizer.init(trained), ema_params)

    def init(rng):
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), work.example_batch(1))
        return start(work.objective.init(rng, example))

    optim.check_patterns(config.optim, jax.eval_shape(nn.meta.unbox, work.abstract_params))
    by_path = flatten(work.param_shardings())
    abstract = jax.eval_shape(start, work.abstract_params)  # tracing the model takes long
    shapes = {path: x.shape for path, x in flatten(abstract.params).items()}

    def place(path, leaf):
        # Moments and averages lie as their parameter does, whose path theirs ends in; but for those
        # of rows and columns, which are small.
        parts = path_of(path).split("/")
        tails = ("/".join(parts[i:]) for i in range(len(parts)))
        found = next((by_path[t] for t in tails if shapes.get(t) == leaf.shape), None)
        return jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=found or sharding.replicated(work.mesh)
        )

    return init, jax.tree_util.tree_map_with_path(place, abstract)


def initial_state(work: task.Task, init, abstract: TrainState, say) -> TrainState:
    """Fresh parameters, or those of `config.init` where it has them; step 0."""
    config = work.config
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    rng = jax.random.key(config.seed)
    if not config.init:
        say("start: random parameters")
        return jax.jit(init, out_shardings=shardings)(rng)
    card, mine = read_card(config.init), models.config_of(work.model)
    there = {**card.model, **dataclasses.asdict(card.preprocessing)}
    here = {**mine, **dataclasses.asdict(work.preprocessing)}
    keys = (*models.declared(mine["name"], "NOTED"), "mean", "std", "resize", "fit")
    for key in keys if mine["name"] == card.model["name"] else ():
        if key in there and key in here and there[key] != here[key]:
            say(f"note: {config.init} was made with {key} {there[key]}, this run has {here[key]}")
    stored = pretrained.open_params(config.init)
    loaded, notes = models.adapt(
        stored.references(),
        card.model,
        work.model,
        **config.init_options.to_dict(),
    )
    params, fresh, left = merge_params(
        abstract.params,
        traverse_util.unflatten_dict(loaded, sep="/"),
        missing=config.init_missing,
        unused=config.init_unused,
        source=config.init,
    )

    def rest(state):
        made = traverse_util.flatten_dict(state.params, sep="/")
        return state.replace(params={path: made[path] for path in fresh}, ema_params={})

    # Only what stays fresh is made: less to compile, and never two models in memory.
    state = jax.jit(lambda rng: rest(init(rng)), out_shardings=rest(shardings))(rng)
    params = traverse_util.flatten_dict(params, sep="/") | state.params
    params = stored.place(params, traverse_util.flatten_dict(shardings.params, sep="/"))
    params = traverse_util.unflatten_dict(params, sep="/")
    say(f"start: parameters of {config.init}, step and optimizer new")
    for note in notes:
        say(f"  {note}")
    every = flatten(abstract.params)
    say(f"  fresh here: {_groups(fresh, every)}; not used: {_groups(left, loaded)}")
    return state.replace(
        params=params, ema_params=jax.tree.map(jnp.copy, params) if config.ema_decay else {}
    )


def _groups(paths: list[str], of: Iterable[str]) -> str:
    """Names for `paths` among all of `of`: of two words, or of three where others share these."""

    def start(path: str, words: int) -> str:
        return "/".join(path.split("/")[:words])

    others = {start(path, 2) for path in set(of) - set(paths)}
    names = {start(path, 3 if start(path, 2) in others else 2) for path in paths}
    return ", ".join(sorted(names)) or "nothing"


def estimate(work: task.Task, step_fn, abstract: TrainState) -> dict[str, float]:
    """Sizes of a run without running it: parameters, bytes per device.

    `peak_bytes` is what XLA plans for one train step: state, batch, and temporaries.
    """

    def bytes_on_device(x):
        return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize

    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=jax.NamedSharding(work.mesh, sharding.BATCH)
        ),
        work.example_batch(work.clips_per_step),
    )
    memory = step_fn.lower(abstract, batch).compile().memory_analysis()
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return {
        "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(abstract.params)),
        "state_bytes": sum(map(bytes_on_device, jax.tree.leaves(abstract))),
        "batch_bytes": sum(map(bytes_on_device, jax.tree.leaves(batch))),
        "peak_bytes": arguments
        + outputs
        - memory.alias_size_in_bytes  # the state is updated in place
        + memory.temp_size_in_bytes,
    }


def train(config: ConfigDict, workdir: str | os.PathLike | None) -> TrainState | None:
    """Trains what `config` says and returns the last state; None for an estimate.

    `workdir`, a folder or a path in a bucket that all processes see, receives config.json,
    model.json, checkpoints/, best.json, metrics.jsonl, tensorboard/, bad_videos.jsonl,
    nonfinite.jsonl, pictures, and DONE at the end. A workdir with an unfinished run of the same
    config is continued from its last checkpoint, on any number of devices and processes.

    Raises:
        UserError: for input that does not fit, and for a loss that is not finite.
        Again: SIGTERM came; what was done is saved.
    """
    work = task.Task(config)
    if config.estimate:  # of memory, for which neither videos nor rates are needed
        total, schedule = 0, optim.cosine_with_warmup(1.0, 0.0, 2, 1)
    else:
        total = work.total_steps
        schedule = optim.make_schedule(
            config.optim,
            batch_size=config.data.batch_size,
            total=total,
            warmup=optim.warmup_steps(config.optim, work.steps_per_epoch),
        )
    optimizer = work.optimizer(schedule)
    with jax.set_mesh(work.mesh), nn.logical_axis_rules(sharding.rules(config.mesh)):
        init, abstract = abstract_state(work, optimizer)
        step_fn = make_train_step(
            work.objective,
            optimizer,
            freeze=config.optim.freeze,
            seed=config.seed,
            ema_decay=config.ema_decay,
            grad_accum=config.grad_accum,
            clip_parts=config.optim.clip_parts,
            clip_norm=config.optim.clip_norm,
            skip_nonfinite=config.nonfinite == "skip",
            shardings=jax.tree.map(lambda x: x.sharding, abstract),
        )
        if config.estimate:
            for key, value in estimate(work, step_fn, abstract).items():
                unit = f" = {value / 2**20:,.1f} MiB per device" if key.endswith("bytes") else ""
                print(f"{key}: {value:,}{unit}")
            return None
        if not workdir:
            raise UserError("say where the run is written: --workdir=FOLDER")
        workdir = files.absolute(workdir)
        with (
            workdir_errors(workdir),
            contextlib.closing(_Run(work, workdir, total, schedule)) as run,
        ):
            return run.loop(step_fn, init, abstract)


class _Run:
    """One run in its workdir: what the loop writes and prints."""

    def __init__(self, work: task.Task, workdir: epath.Path, total: int, schedule):
        self.work, self.workdir, self.total, self.schedule = work, workdir, total, schedule
        self.changes: list[str] = []  # of lists
        config = work.config
        distributed.from_first(self.claim)
        self.checkpoints = Checkpoints(
            workdir, config.checkpoint.keep, config.checkpoint.best, config.checkpoint.best_is
        )
        # Asked once, as not all may see at once what is new on a network's disk.
        self.start = distributed.from_first(lambda: self.checkpoints.latest_step() or 0)
        first = distributed.is_first()
        self.writer = metrics.MetricsWriter(workdir, self.start) if first else None
        self.known = set(distributed.from_first(lambda: sorted(self.writer.known)))
        self.progress = Progress(
            "step", total, self.start, text="compiling", every=math.inf, quiet=not first
        )
        self.say = self.progress.message
        self.skipped, self.traces = 0, False
        self.preemption = distributed.Preemption()

    def claim(self) -> None:
        work, config = self.work, self.work.config
        if config.profile and files.is_remote(self.workdir):
            raise UserError(
                f"config.profile = {config.profile} needs a --workdir on a disk, as the profiler "
                f"writes to disks only"
            )
        defaults = configlib.plain(configlib.base())
        claim_workdir(self.workdir, configlib.plain(config), defaults)
        self.changes = check_same_lists(self.workdir, work.lists(), config.data.allow_changed_lists)
        card = Card(
            model=models.config_of(work.model),
            preprocessing=with_views(work.preprocessing, config.evals.to_dict()),
            classes=work.classes if work.learns_classes else None,
            provenance={
                "source": config.init or "random",
                "format": "vidjax",
                "vidjax": vidjax.__version__,
                "objective": configlib.plain(config)["objective"],
                "kept": work.kept,
            },
            tokenizer=work.tokenizer and pretrained.keep_tokenizer(work.tokenizer, self.workdir),
        )
        write_card(self.workdir, card)

    def loop(self, step_fn, init, abstract: TrainState) -> TrainState:
        work = self.work
        evaluators = work.evaluators(self.workdir, between=self.check_preemption)
        self.announce(abstract)
        if self.start:
            self.say(f"start: continuing at step {self.start} of {self.workdir}")
            state = self.checkpoints.restore(self.start, abstract)
        else:
            state = initial_state(work, init, abstract, self.say)
        # Evaluations that were due when the run ended, and were not done.
        done = {name.partition("/")[0] for name in self.known if "/" in name}
        late = {k: v for k, v in self.due(evaluators, self.start).items() if k not in done}
        if self.start < self.total:
            self.evaluate(late, state, self.start)
        with contextlib.closing(work.train_batches(self.start, self.workdir)) as batches:
            state = self.steps(step_fn, state, batches, evaluators)
        results = self.evaluate(evaluators, state, self.total)
        self.checkpoints.wait()
        bad = {}
        for split in filter(work.has, ("train", "val")):
            count = np.array([work.bad_videos(split, self.workdir).count])
            bad[split] = int(distributed.gather(count).sum())
        if distributed.is_first():
            self.finish(results, bad)
        if self.preemption.interrupted:  # too late to save less than everything
            raise Interrupted("interrupted: the run is complete")
        return state

    def steps(self, step_fn, state: TrainState, batches, evaluators) -> TrainState:
        work, config = self.work, self.work.config
        clock = metrics.Throughput(work.clips_per_step)
        queued: collections.deque[tuple[int, Mapping, np.ndarray]] = collections.deque()
        first, last = config.profile or (0, 0)  # of the trace
        for step in range(self.start + 1, self.total + 1):
            if step == first:
                jax.profiler.start_trace(str(self.workdir / "profile"))
                self.traces = True
            with clock.spent("data"):
                host = next(batches)
                batch = sharding.put_batch(host, work.mesh)
            state, figures = step_fn(state, batch)
            self.preemption.has_steps = True
            clock.step()
            queued.append((step, figures, host["video_id"]))
            due = self.due(evaluators, step)
            save = step % config.checkpoint.every == 0 or step == self.total
            save |= config.checkpoint.best.split("/")[0] in due
            report = step % config.log_every == 0 or step == self.total
            end = self.preemption.asked()
            # Figures are looked at before a save: a state that is not finite must not replace one
            # that is.
            while len(queued) > (0 if save or report or due or end or step == last else _AHEAD):
                self.check(*queued.popleft())
            if step == last:
                self.end_trace()
            self.progress.advance(step)
            if save:
                check_workdir(self.workdir)
                with clock.spent("checkpoint"):
                    self.checkpoints.save(step, state)
            if report:
                self.report(step, jax.device_get(figures), clock)
            if end:
                self.end(step, state)
            if step < self.total and due:
                self.evaluate(due, state, step)
                clock.restart()
        return state

    def end_trace(self) -> None:
        if self.traces:
            self.traces = False
            jax.profiler.stop_trace()
            self.say(f"trace: {self.workdir / 'profile'}")

    def due(self, evaluators: Mapping, step: int) -> dict[str, Any]:
        return {k: v for k, v in evaluators.items() if v[1] and step and step % v[1] == 0}

    def check(self, step: int, figures: Mapping, video_ids: np.ndarray) -> None:
        """Waits for a step, and stops or notes that it was left out if it is not finite."""
        if jax.device_get(figures["finite"]):
            self.skipped = 0
            return
        self.skipped += 1
        values = {k: float(v) for k, v in jax.device_get(figures).items() if k != "finite"}
        ids = distributed.gather(video_ids)
        path = self.workdir / "nonfinite.jsonl"
        if distributed.is_first():
            videos = self.work.videos("train")
            self.writer.write(step, values)
            shown = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
            paths = [videos[i].path for i in dict.fromkeys(ids.tolist()) if i >= 0]
            Journal(path).add({"step": step, **shown, "videos": paths})
        wrong = [key for key in ("loss", "grad_norm") if not math.isfinite(values[key])]
        which = " and ".join(f"{key} is {values[key]}" for key in wrong)
        skip = self.work.config.nonfinite == "skip"
        if skip and self.skipped < _SKIPS:
            self.say(f"note: step {step} is left out, as its {which}; {path} lists its videos")
            return
        self.checkpoints.wait()  # to know which one is good
        many = f", as in the {_SKIPS - 1} steps before it," if skip else ""
        raise UserError(
            f"{which} at step {step}{many} of {self.workdir} "
            f"({last_good(self.workdir)}; {path} lists "
            f"the videos of the batch); start a new --workdir with a lower config.optim.lr or with "
            f"config.optim.clip_norm, from --config.init={self.workdir} if there is a checkpoint"
            + ("" if skip else ", or leave such steps out with --config.nonfinite=skip")
        )

    def report(self, step: int, figures: Mapping, clock: metrics.Throughput) -> None:
        figures = {key: float(value) for key, value in figures.items() if key != "finite"}
        figures |= {"lr": float(self.schedule(step - 1))} | clock.lap(self.total - step)
        if distributed.is_first():
            self.writer.write(step, figures)
        self.progress.report(metrics.summary(figures), figures["seconds_left"])

    def evaluate(self, evaluators: Mapping, state: TrainState, step: int) -> dict[str, float]:
        params = state.ema_params or state.params
        results = {}
        for key, (evaluator, _) in evaluators.items():
            try:
                found = {f"{key}/{k}": v for k, v in evaluator.run(params, step).items()}
            except Again:
                self.end(step, state)
            results |= found
        best = self.work.config.checkpoint.best
        if best.split("/")[0] in evaluators:
            if best not in results:
                raise UserError(
                    f"config.checkpoint.best is {best!r}, but the figures are {', '.join(results)}"
                )
            self.checkpoints.judge(step, results[best])
        if results:  # written last: what stands there is not evaluated again
            if distributed.is_first():
                self.writer.write(step, results)
            self.say(f"step {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in results.items()))
        return results

    def check_preemption(self) -> None:
        if self.preemption.asked():
            raise Again

    def end(self, step: int, state: TrainState) -> None:
        check_workdir(self.workdir)
        self.checkpoints.save(step, state)
        self.checkpoints.wait()
        saved = f"step {step} is saved, the same command continues from there"
        if self.preemption.interrupted:
            raise Interrupted(f"interrupted: {saved}")
        raise Again(f"asked to end: {saved}")

    def announce(self, abstract: TrainState) -> None:
        """Prints, once, what the config came to."""
        work, config = self.work, self.work.config
        cfg, steps = config.data, work.steps_per_epoch
        peak, final = optim.scaled_rates(config.optim, cfg.batch_size)
        warmup = optim.warmup_steps(config.optim, steps)
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(abstract.params))
        mesh = " ".join(f"{axis}={n}" for axis, n in work.mesh.shape.items())
        self.say(
            f"vidjax {vidjax.__version__}, jax {jax.__version__}, {jax.device_count()} x "
            f"{jax.devices()[0].device_kind}, mesh {mesh}"
        )
        self.say(
            f"model {config.model.name}, head {config.model.head}: {count:,} parameters, "
            f"compute in {work.model.dtype}"
        )
        self.say(
            f"data {cfg.name}: {len(work.videos('train'))} videos, batch {cfg.batch_size} "
            f"videos x {cfg.repeats} clips in {config.grad_accum} part(s), {steps} steps per epoch"
            + (f", clipped in {n} shards" if (n := config.optim.clip_parts) > 1 else "")
        )
        self.say(
            f"optimizer: {self.total} steps = {self.total / steps:g} epochs, warm-up {warmup}, "
            f"peak rate {peak:.4g}, final {final:.4g}"
            + (f" (scaled by {cfg.batch_size}/{n})" if (n := config.optim.lr_batch_size) else "")
        )
        for line in work.describe_evaluation():
            self.say(f"evaluation {line}")
        for line in (*work.notices, *self.changes):
            self.say(f"note: {line}")
        if config.profile and not self.start < config.profile[0] <= self.total:
            self.say(f"note: no trace, as steps {config.profile} are not among those to come")

    def finish(self, results: dict[str, float], bad: dict[str, int]) -> None:
        (self.workdir / "DONE").write_text(json.dumps(results, indent=1) + "\n")
        for split, count in bad.items():
            if count:
                where = self.work.bad_videos(split, self.workdir).path
                where = where if jax.process_count() == 1 else self.workdir / "bad_videos*.jsonl"
                self.say(f"bad videos of {split}: {count}, listed in {where}")
        self.say(f"checkpoint: {self.checkpoints.folder / str(self.total)}")
        if best := self.checkpoints.best:
            place = self.checkpoints.folder / str(best["step"])
            self.say(f"best checkpoint: {place} with {best['figure']} {best['value']:.4g}")
        self.say(f"  to use it: --checkpoint={self.workdir} or --config.init={self.workdir}")
        self.say(f"metrics: {self.writer.path}")
        for picture in sorted(self.workdir.glob(f"*_{self.total}.png")):
            self.say(f"picture: {picture}")

    def close(self) -> None:
        self.preemption.close()
        self.end_trace()
        self.progress.close()
        if self.writer:
            self.writer.close()
        self.checkpoints.close()
        release_workdir(self.workdir)


def main(argv: list[str]) -> None:
    config = flags.FLAGS.config
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; overrides look like --config.optim.lr=1e-3")
    if config is None:
        raise UserError("say what to train: --config=configs/videomae_k400.py:demo")
    with distributed.session():
        compilation.keep_programs()
        train(config, flags.FLAGS.workdir)


if __name__ == "__main__":
    configlib.define_flag()
    distributed.define_flags()
    flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics and pictures.")
    run_main(
        main,
        configlib.parse_flags,
        interrupted="interrupted; the same command continues from the last checkpoint, if there is "
        "one",
    )
