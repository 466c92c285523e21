"""A run's reports: metrics.jsonl and TensorBoard events."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Mapping

from etils import epath

from vidjax.errors import first_line
from vidjax.journal import Journal

_FLUSH_SECONDS = 60.0


class MetricsWriter:
    """Appends one JSON line per call to `workdir/metrics.jsonl`, and TensorBoard scalars.

    A resumed run drops the lines of steps that it will repeat. TensorBoard's events are a copy:
    where they cannot be written, the run notes it once and goes on without them.

    Attributes:
        path: of the lines.
        known: names of the metrics already logged at `start_step`.
    """

    def __init__(self, workdir: epath.Path, start_step: int):
        self.path = workdir / "metrics.jsonl"
        self._journal = Journal(self.path)
        kept = [entry for entry in self._journal.read(step=int) if entry["step"] <= start_step]
        self.known = {key for entry in kept if entry["step"] == start_step for key in entry}
        self._journal.rewrite(kept)
        self._events: _Events | None = None
        with self._without_events():
            self._events = _Events(workdir / "tensorboard", start_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        values = {key: float(value) for key, value in values.items()}
        # JSON has no NaN; null keeps the line readable by every parser.
        safe = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._journal.add({"step": step, **safe})
        if self._events:
            with self._without_events():
                self._events.write(step, values)

    def close(self) -> None:
        if self._events:
            with self._without_events():
                self._events.close()

    @contextlib.contextmanager
    def _without_events(self) -> Iterator[None]:
        """Goes on without events if writing them fails."""
        try:
            yield
        except Exception as error:  # a full disk, a bucket that does not answer
            self._events = None
            print(
                f"note: no more events for TensorBoard, as they cannot be written "
                f"({first_line(error)}); {self.path} has all metrics",
                file=sys.stderr,
            )


class _Events:
    """TensorBoard's scalars, written by the thread that calls.

    tensorboardX.SummaryWriter writes in a thread of its own, whose end (at a full disk, or a clock
    that jumps) nobody sees: its queue fills up, and the next value waits for ever.
    """

    def __init__(self, folder: epath.Path, purge_step: int):
        from tensorboardX import summary  # slow to import
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import directory_check

        self._scalar, self._event = summary.scalar, Event
        directory_check(str(folder))
        self._writer = EventsWriter(str(folder / "events"))
        # TensorBoard drops what a killed run wrote of the steps that are repeated.
        self._writer.write_event(
            Event(
                step=purge_step,
                wall_time=time.time(),
                session_log=SessionLog(status=SessionLog.START),
            )
        )
        self._flush()

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            summary = self._scalar(key, value)
            self._writer.write_event(self._event(step=step, wall_time=time.time(), summary=summary))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:  # in a bucket it writes all again
            self._flush()

    def close(self) -> None:
        self._writer.close()
