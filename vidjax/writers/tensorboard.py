"""TensorBoard's event files, in workdir/tensorboard."""

import time
from collections.abc import Mapping

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import directory_check

from vidjax.writers import Start, Writer

_FLUSH_SECONDS = 60.0


class TensorBoard(Writer):
    """Writes scalars and images by the thread that calls.

    tensorboardX.SummaryWriter writes in a thread of its own, whose end (at a full disk, or a clock
    that jumps) nobody sees: its queue fills up, and the next value waits for ever.
    """

    def __init__(self, start: Start):
        folder = start.workdir / "tensorboard"
        directory_check(str(folder))
        self._writer = EventsWriter(str(folder / "events"))
        # TensorBoard drops what a killed run wrote of the steps that are repeated.
        self._add(start.step + 1, session_log=SessionLog(status=SessionLog.START))
        self._flush()

    def _add(self, step: int, **content: summary.Summary | SessionLog) -> None:
        self._writer.write_event(Event(step=step, wall_time=time.time(), **content))

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._add(step, summary=summary.scalar(key, value))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:  # in a bucket it writes all again
            self._flush()

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, image in images.items():
            self._add(step, summary=summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        self._writer.close()


WRITER = TensorBoard
