"""Trains a model by a config: pre-training, fine-tuning, probes.

    python -m vidjax.train --config=configs/videomae_k400.py:demo --workdir=runs/demo

One step is jitted over a mesh of all devices and consumes its state. A run is a pure function of
its config: the random key of a step is fold_in(seed, step), the data stream starts at any step, so
a resumed run equals an uninterrupted one bit for bit.
"""

import contextlib
import os

from absl import flags
from ml_collections import ConfigDict

from vidjax import compilation, configlib, distributed, files, sharding
from vidjax.errors import Interrupted, UserError, run_main
from vidjax.setup import Setup
from vidjax.training.estimate import estimate
from vidjax.training.nonfinite import AHEAD
from vidjax.training.program import Program
from vidjax.training.run import Run, Stop
from vidjax.training.start import initial_state
from vidjax.training.step import TrainState
from vidjax.training.throughput import Throughput
from vidjax.training.workdir import workdir_errors


def train(config: ConfigDict, workdir: str | os.PathLike | None) -> TrainState:
    """Trains what `config` says and returns the last state.

    `workdir`, a folder or a path in a bucket that all processes see, receives config.json,
    model.json, checkpoints/, best.json, metrics.jsonl, tensorboard/, bad_videos.jsonl,
    nonfinite.jsonl, pictures, and DONE at the end. A workdir with an unfinished run of the same
    config is continued from its last checkpoint, on any number of devices and processes.

    Raises:
        UserError: for input that does not fit, and for a loss that is not finite.
        Again: SIGTERM came; what was done is saved.
    """
    program = Program(Setup(config))
    if not workdir:
        raise UserError("say where the run is written: --workdir=FOLDER")
    workdir = files.absolute(workdir)
    with (
        program.setup.on_mesh(),
        workdir_errors(workdir),
        contextlib.closing(Run(program, workdir)) as run,
    ):
        return _loop(program, run)


def _loop(program: Program, run: Run) -> TrainState:
    setup, config, total = program.setup, program.setup.config, program.setup.total_steps
    report, evaluations = run.report, run.evaluations
    step = run.start
    if step:
        report.log(f"start: continuing at step {step} of {run.workdir}")
        state = run.checkpoints.restore(step, program.state)
    else:
        state = initial_state(program, report.log)
    try:
        if step < total:
            evaluations.run(evaluations.late(step), state, step)
        with contextlib.closing(setup.train_batches(step, run.workdir)) as batches:
            clock = Throughput(setup.clips_per_step)
            for step in range(run.start + 1, total + 1):
                run.trace.begin(step)
                with clock.spent("data"):
                    batch = next(batches)
                    on_devices = sharding.put_batch(batch, setup.mesh)
                state, metrics = program.train_step(state, on_devices)
                run.preemption.has_steps = True
                clock.step()
                run.nonfinite.add(step, metrics, batch["video_id"])

                last, evals, stop = step == total, evaluations.due(step), run.preemption.asked()
                save = (
                    last or step % config.checkpoint.every == 0 or evaluations.decides_best(evals)
                )
                log = last or step % config.log_every == 0
                # Metrics are looked at before a save: a state that is not finite must not replace
                # one that is.
                must_wait = save or log or evals or stop or run.trace.ends_at(step)
                run.nonfinite.check(ahead=0 if must_wait else AHEAD)
                run.trace.end(step)
                report.advance(step)
                if save:
                    with clock.spent("checkpoint"):
                        run.save(step, state)
                if log:
                    report.step(step, metrics, clock)
                if stop:
                    raise Stop
                if evals and not last:
                    evaluations.run(evals, state, step)
                    clock.restart()
        results = evaluations.run(evaluations.names, state, total)
    except Stop:
        run.stop(step, state)
    run.checkpoints.wait()
    report.finish(results, run.checkpoints)
    if run.preemption.interrupted:  # too late to save less than everything
        raise Interrupted("interrupted: the run is complete")
    return state


def main(argv: list[str]) -> None:
    config = flags.FLAGS.config
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; overrides look like --config.optim.lr=1e-3")
    if config is None:
        raise UserError("say what to train: --config=configs/videomae_k400.py:demo")
    with distributed.session():
        compilation.keep_programs()
        if not config.estimate:
            train(config, flags.FLAGS.workdir)
            return
        for key, value in estimate(config).items():
            unit = f" = {value / 2**20:,.1f} MiB per device" if key.endswith("bytes") else ""
            print(f"{key}: {value:,}{unit}")


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
