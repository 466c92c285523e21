"""Speed of a run, in the numbers of its reports."""

import contextlib
import time
from collections.abc import Iterator, Mapping


class Throughput:
    """Clips per second, time left, and shares of a step's time."""

    def __init__(self, clips_per_step: int):
        self.clips_per_step = clips_per_step
        self.restart()

    def step(self) -> None:
        """Counts a step."""
        self._steps += 1

    @contextlib.contextmanager
    def spent(self, on: str) -> Iterator[None]:
        """Counts the time inside as spent on "data" or a "checkpoint"."""
        start = time.perf_counter()
        yield
        self._seconds[on] += time.perf_counter() - start

    def restart(self) -> None:
        """Leaves out the time since the last lap, such as that of an evaluation."""
        self._start, self._steps = time.perf_counter(), 0
        self._seconds = {"data": 0.0, "checkpoint": 0.0}

    def lap(self, left: int) -> dict[str, float]:
        """Returns metrics of the steps since the last lap, with `left` more to go.

        Seconds are of an average step. Checkpoints are copied to the host in that time, and written
        later, beside the next steps; all time but that of data and checkpoints is compute.
        """
        seconds = max(time.perf_counter() - self._start, 1e-9)
        spent = self._seconds | {"compute": seconds - sum(self._seconds.values())}
        metrics = {
            "clips_per_second": self._steps * self.clips_per_step / seconds,
            "waiting_for_data": self._seconds["data"] / seconds,
            **{f"seconds_{key}": value / self._steps for key, value in spent.items()},
            "seconds_left": left * seconds / self._steps,
        }
        self.restart()
        return metrics


def summary(values: Mapping[str, float]) -> str:
    """Returns the metrics of a step that are shown beside its number."""
    return (
        f"loss {values['loss']:.4f}  {values['clips_per_second']:.1f} clips/s"
        f"  waiting for data {values['waiting_for_data']:.0%}"
    )
