"""Writers of a run's metrics and pictures, one file each, chosen by `config.writers`.

A module of this package is the writer of its name. It has a `Writer` as WRITER, and may import what
only the extra of its name installs: it is imported only when it is chosen. What a service needs to
know (keys, addresses, projects) comes from the service's own environment variables.

`jsonl` is the run's own record, whose errors end the run. All others are copies: each lives in a
thread of its own, so that a service that hangs does not hold up the loop, has no signal handlers,
and may fail at any time: the run notes it once and goes on without it.
"""

import dataclasses
import importlib
import pkgutil
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, ClassVar

import numpy as np
from etils import epath

from vidjax import distributed, files
from vidjax.errors import UserError, brief, did_you_mean, first_line

PROJECT = "vidjax"  # of services, where their environment variables name none

_QUEUED = 10_000  # entries that a copy may be behind
_CLOSE_SECONDS = 15.0  # for all copies; what asks a run to end may kill it after 30


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of a run, for its writers.

    Attributes:
        workdir: of the run.
        name: of the run at services.
        step: that the run starts from. It writes the steps after it, and evaluations of this step
            that were not done.
        config: plain values.
    """

    workdir: epath.Path
    name: str
    step: int
    config: Mapping[str, Any]

    def service_id(self, service: str) -> str:
        """Returns what `keep_id` kept before; "" for a run that starts from step 0.

        Such a run is a new one for services: until the first checkpoint its config may change.
        """
        file = self._id_file(service)
        return file.read_text().strip() if self.step and file.exists() else ""

    def keep_id(self, service: str, value: str) -> None:
        """Keeps the id of the run at a service, in the workdir."""
        files.write_whole(self._id_file(service), f"{value}\n")

    def _id_file(self, service: str) -> epath.Path:
        return self.workdir / f"{service}_run.txt"


class Writer:
    """Base of all writers.

    Args:
        start: of the run that is written.

    Attributes:
        is_copy: whether the run goes on without it when it fails.
        place: where a person finds what it writes; "" is not printed.
        known: names of the metrics that it has of the step that the run starts from; copies need
            not tell.
        last_step: the last step that it has from earlier starts of the run. Copies are not called
            for steps before it, which the run repeats.
    """

    is_copy: ClassVar[bool] = True
    place: str = ""
    known: Set[str] = frozenset()
    last_step: int = 0

    def __init__(self, start: Start):
        raise NotImplementedError

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes metrics of a step, which may be infinite or NaN; called several times a step."""
        raise NotImplementedError

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures uint8 [H, W, 3] of a step."""
        raise NotImplementedError

    def close(self) -> None:
        """Completes what was written."""


def names() -> list[str]:
    """Returns the names of all writers."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def check(chosen: Sequence[str]) -> None:
    """Checks `config.writers`.

    Raises:
        UserError: it is no sequence of different names of writers.
    """
    if isinstance(chosen, str) or len(set(chosen)) < len(chosen):
        raise UserError(
            f"config.writers must be a tuple of different names, such as ('jsonl', 'wandb'), not "
            f"{chosen!r}"
        )
    known = names()
    for name in chosen:
        if name not in known:
            hint = did_you_mean(str(name), known) or f"there are {', '.join(known)}"
            raise UserError(f"config.writers has {name!r}, which is no writer; {hint}")


def build(
    chosen: Sequence[str],
    workdir: epath.Path,
    start_step: int,
    config: Mapping[str, Any],
    name: str = "",
) -> "Writers":
    """Makes the writers of `config.writers`, on the first process; none on others.

    To be called by all processes.

    Args:
        chosen: their names.
        workdir, start_step, config: see Start.
        name: see Start; "" is the workdir's.

    Raises:
        UserError: a package that one of them needs is not installed; on all processes.
    """
    start = Start(workdir, name or workdir.name, start_step, config)
    found: dict[str, type[Writer]] = {}
    distributed.from_first(lambda: found.update({key: _load(key) for key in chosen}))
    own = [writer(start) for writer in found.values() if not writer.is_copy]
    copies = [_Copy(key, writer, start) for key, writer in found.items() if writer.is_copy]
    return Writers(own, copies)


def _load(name: str) -> type[Writer]:
    try:
        return importlib.import_module(f"{__name__}.{name}").WRITER
    except Exception as error:  # libraries that do not fit each other raise all sorts
        raise UserError(
            f"config.writers has {name!r}, which cannot be imported ({first_line(error)}); "
            f"pip install 'vidjax[{name}]', or leave it out"
        ) from error


class Writers:
    """All writers of a run as one.

    Attributes:
        known: names of the metrics already logged at the step that the run starts from.
        places: where a person finds the run's own record.
    """

    def __init__(self, own: Sequence[Writer], copies: Sequence["_Copy"]):
        self._own, self._copies = own, copies
        self.known = set().union(*(writer.known for writer in own))
        self.places = [writer.place for writer in own]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes metrics of a step."""
        self._write("scalars", step, {key: float(value) for key, value in values.items()})

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures uint8 [H, W, 3] of a step."""
        if images:
            self._write("pictures", step, dict(images))

    def _write(self, method: str, step: int, values: Mapping[str, Any]) -> None:
        for writer in self._own:
            getattr(writer, method)(step, values)
        for copy in self._copies:
            copy.put((method, step, values))

    def close(self) -> None:
        """Completes what was written; waits for copies a few seconds, then goes without them."""
        for copy in self._copies:
            copy.put(None)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for copy in self._copies:
            copy.wait(deadline)
        for writer in self._own:
            writer.close()


class _Copy:
    """A writer in a thread of its own, which the run goes on without where it fails."""

    def __init__(self, name: str, make: Callable[[Start], Writer], start: Start):
        self._name, self._lost = name, False
        self._queue: queue.Queue[tuple[str, int, Mapping] | None] = queue.Queue(_QUEUED)
        self._thread = threading.Thread(
            target=self._work, args=(make, start), daemon=True, name=f"vidjax {name}"
        )
        self._thread.start()

    def put(self, entry: tuple[str, int, Mapping] | None) -> None:
        """Hands on a method with its arguments; None is the end."""
        if self._lost:
            return
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._lose(f"it is {_QUEUED} entries behind")

    def wait(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._lose(f"it did not finish within {_CLOSE_SECONDS:g} seconds")

    def _work(self, make: Callable[[Start], Writer], start: Start) -> None:
        # Ctrl-C is the run's to answer, not that of processes which a service starts from here.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            writer = make(start)
            if writer.place:
                print(f"{self._name}: {writer.place}", file=sys.stderr)
            while not self._lost and (entry := self._queue.get()):
                method, step, values = entry
                if step >= writer.last_step:
                    getattr(writer, method)(step, values)
            writer.close()
        except Exception as error:  # a full disk, a service that does not answer
            self._lose(brief(error))

    def _lose(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            print(
                f"note: the run goes on without the writer {self._name}, which failed ({reason})",
                file=sys.stderr,
            )
