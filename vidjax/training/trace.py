"""A trace of some steps for TensorBoard: `--config.profile=(10,12)`."""

from collections.abc import Callable

import jax
from etils import epath


class Trace:
    """Traces steps `first` to `last` into `folder`; none if `steps` is empty.

    Args:
        steps: first and last step, or ().
        folder: on a disk.
        log: takes a line when the trace is written.
    """

    def __init__(self, steps: tuple[int, ...], folder: epath.Path, log: Callable[[str], None]):
        self._first, self._last = steps or (0, 0)
        self._folder, self._log, self._is_on = folder, log, False

    def begin(self, step: int) -> None:
        """Begins the trace if `step`, which comes next, is its first one."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._is_on = True

    def ends_at(self, step: int) -> bool:
        """Whether `step` is the last one; it must be complete before `end`."""
        return step == self._last

    def end(self, step: int) -> None:
        """Writes the trace if `step` was its last one."""
        if self.ends_at(step):
            self.close()

    def close(self) -> None:
        """Writes the trace as far as it came."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
            self._log(f"trace: {self._folder}")
