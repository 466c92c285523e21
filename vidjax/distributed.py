"""Several processes, usually one a host, as one run: how they find each other, and who does what.

Process 0 is the first: it alone writes configs, metrics and pictures, and prints. Checkpoints are
written by all, each its share.
"""

import contextlib
import glob
import importlib.util
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from vidjax import signals
from vidjax.errors import Again, UserError, first_line, leave

flags.disclaim_key_flags()  # --help of the command that defines them lists them


def define_flags() -> None:
    """--coordinator, --num_processes and --process_id, for what the environment does not tell."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for runs of several.")
    flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
    flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0 on.")


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Joins the other processes of the run, if there are any, and leaves with them.

    Who they are is said, in this order, by the flags; by the environment variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (or JOB_COMPLETION_INDEX, which
    Kubernetes gives the pods of an indexed job); by SLURM, where srun starts several tasks; or by a
    TPU pod.

    A process that fails does not wait for the others, which would wait for it: JAX notices that it
    is gone and ends them.

    Raises:
        UserError: only some of the three are given, or the others do not come.
    """
    _initialize()
    try:
        yield
    except Again:
        raise
    except BaseException as error:
        if jax.process_count() == 1 or signals.is_interrupted():
            raise
        if isinstance(error, UserError):
            leave(error)
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _initialize() -> None:
    values = flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id
    env = os.environ
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    found = [env.get(n) if v is None else v for n, v in zip(names, values, strict=True)]
    if found[2] is None and found[0] is not None:
        found[2] = env.get("JOB_COMPLETION_INDEX")
    try:
        if any(value is not None for value in found):
            if None in found:
                raise UserError(
                    "a run of several processes needs all of --coordinator=HOST:PORT, "
                    "--num_processes and --process_id (or the environment variables "
                    f"{', '.join(names)}); given are {found[0]}, {found[1]} and {found[2]}"
                )
            jax.distributed.initialize(found[0], int(found[1]), int(found[2]))
        elif int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            # JAX gives each task one GPU, whose number is the task's on its node. A task that is
            # alone on its node has all of them.
            alone = env["SLURM_STEP_NUM_TASKS"] == env.get("SLURM_STEP_NUM_NODES")
            devices = int(env.get("SLURM_GPUS_ON_NODE", 0)) if alone else 0
            jax.distributed.initialize(local_device_ids=list(range(devices)) or None)
        elif importlib.util.find_spec("libtpu") and env.get("JAX_PLATFORMS") != "cpu":
            _initialize_on_tpu()
    except (ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"the processes of the run did not find each other ({first_line(error)}); "
            "start all of them, with the same coordinator and number, and numbers from 0 on"
        ) from error


def _initialize_on_tpu() -> None:
    try:
        jax.distributed.initialize()
    except ValueError as error:  # libtpu is installed, but there is no TPU; or nobody knows of it
        if glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"):
            print(
                f"note: this process runs alone, as it could not be asked which hosts the TPU has "
                f"({first_line(error)})",
                file=sys.stderr,
            )


def is_first() -> bool:
    """Whether this is process 0."""
    return jax.process_index() == 0


def from_first(make: Callable[[], Any]) -> Any:
    """Calls `make` on process 0 alone; returns its result, JSON values, on all.

    Raises:
        UserError: as `make` on process 0, on all.
    """
    if jax.process_count() == 1:
        return make()
    answer = {}
    if is_first():
        try:
            answer = {"value": make()}
        except UserError as error:
            answer = {"error": str(error)}
    text = np.frombuffer(json.dumps(answer).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = np.resize(text, size) if is_first() else np.zeros(size, np.uint8)
    answer = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(text)).tobytes())
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["value"]


def wait_for_all(name: str) -> None:
    """Returns when all processes have called this, with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(x: np.ndarray) -> np.ndarray:
    """Arrays [N, ...] of all processes, one after the other; the same on all."""
    if jax.process_count() == 1:
        return x
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


class Preemption:
    """Whether the run was asked to end: by SIGTERM, to any of its processes, or by Ctrl-C.

    What sends SIGTERM waits for a while before it kills: 30 seconds on Kubernetes and on spot
    machines. Ctrl-C ends a run of several processes at once, as it does where there is nothing to
    save yet; and so does a second one.

    Attributes:
        interrupted: whether it was Ctrl-C.
        has_steps: set by the run when there are steps to save.
    """

    def __init__(self):
        self._asked, self._polls, self._before = False, 0, None
        self.interrupted = self.has_steps = False
        # JAX itself listens where there are several processes: a handler of ours would be in its
        # place. Python allows handlers in the main thread only.
        main = threading.current_thread() is threading.main_thread()
        if jax.process_count() == 1 and main:
            self._before = signal.signal(signal.SIGTERM, self._ask)
            signals.on_first_interrupt(self._interrupt)

    def _interrupt(self) -> bool:
        self.interrupted = self._asked = self.has_steps
        return self.has_steps

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def asked(self) -> bool:
        """To be called by all processes equally often, and between any two long things.

        True on all of them at the same call.
        """
        self._polls += 1
        if jax.process_count() > 1:
            self._asked |= multihost_utils.reached_preemption_sync_point(self._polls)
        return self._asked

    def close(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            signals.on_first_interrupt(None)
