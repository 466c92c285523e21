"""A run in its workdir: everything that the loop holds besides its state."""

import contextlib

from etils import epath

from vidjax import distributed
from vidjax.checkpoints import Checkpoints
from vidjax.errors import Again, Interrupted
from vidjax.training.evaluations import Evaluations
from vidjax.training.nonfinite import NonfiniteSteps
from vidjax.training.program import Program
from vidjax.training.report import Report
from vidjax.training.step import TrainState
from vidjax.training.trace import Trace
from vidjax.training.workdir import check_workdir, claim_run, release_workdir


class Stop(Exception):
    """The run was asked to end, and has not saved its state yet."""


class Run:
    """A workdir that is claimed for a program, until it is closed.

    Args:
        program: of the run; its mesh is the current one.
        workdir: of the run, absolute.

    Attributes:
        workdir: as given.
        start: step of the last checkpoint; 0 for a new run.
        checkpoints, report, evaluations, nonfinite, trace, preemption: see their classes.
        close: gives the workdir free, and ends what works beside the loop.

    Raises:
        UserError: the workdir is not for this run, or an evaluator does not fit.
    """

    def __init__(self, program: Program, workdir: epath.Path):
        self.workdir = workdir
        setup, config = program.setup, program.setup.config
        best = config.checkpoint.best
        with contextlib.ExitStack() as stack:
            changes = distributed.from_first(lambda: claim_run(workdir, setup))
            stack.callback(release_workdir, workdir)
            self.checkpoints = Checkpoints(
                workdir, config.checkpoint.keep, best, config.checkpoint.best_is
            )
            stack.callback(self.checkpoints.close)
            # Asked once, as not all may see at once what is new on a network's disk.
            self.start = distributed.from_first(lambda: self.checkpoints.latest_step() or 0)
            self.report = Report(program, workdir, self.start)
            stack.callback(self.report.close)
            self.trace = Trace(config.profile, workdir / "profile", self.report.log)
            stack.callback(self.trace.close)
            self.nonfinite = NonfiniteSteps(setup, workdir, self.checkpoints, self.report)
            self.preemption = distributed.Preemption()
            stack.callback(self.preemption.close)
            evaluators = setup.evaluators(workdir, between=self.stop_if_asked)
            self.evaluations = Evaluations(evaluators, self.checkpoints, self.report, best)
            self.report.announce(changes)
            self.close = stack.pop_all().close

    def stop_if_asked(self) -> None:
        """Raises Stop if any process was asked to end."""
        if self.preemption.asked():
            raise Stop

    def save(self, step: int, state: TrainState) -> None:
        """Begins to save a checkpoint; see `Checkpoints.save`."""
        check_workdir(self.workdir)
        self.checkpoints.save(step, state)

    def stop(self, step: int, state: TrainState) -> None:
        """Saves the state and ends the run.

        Raises:
            Again: always; Interrupted if it was Ctrl-C.
        """
        self.save(step, state)
        self.checkpoints.wait()
        saved = f"step {step} is saved, the same command continues from there"
        if self.preemption.interrupted:
            raise Interrupted(f"interrupted: {saved}")
        raise Again(f"asked to end: {saved}")
