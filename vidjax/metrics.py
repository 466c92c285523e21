"""What a run reports: metrics.jsonl, TensorBoard events, and the terminal."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping


class MetricsWriter:
    """Appends one JSON line per call to `workdir/metrics.jsonl`, and TensorBoard scalars.

    A resumed run drops the lines of steps that it is about to do again.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int):
        import tensorboardX  # slow to import

        self.path = workdir / "metrics.jsonl"
        if self.path.exists():
            # The last line may be cut off where the run was killed.
            lines = [line for line in self.path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= start_step]
            self.path.write_text("".join(f"{line}\n" for line in kept))
        self._file = self.path.open("a")
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=start_step + 1
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        values = {key: float(value) for key, value in values.items()}
        # JSON has no NaN; null keeps the line readable by every parser.
        safe = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **safe}) + "\n")
        self._file.flush()
        for key, value in values.items():
            self._events.add_scalar(key, value, step)

    def close(self) -> None:
        self._file.close()
        self._events.close()


class Throughput:
    """Clips per second, time left, and the share of time spent waiting for data."""

    def __init__(self, clips_per_step: int):
        self.clips_per_step = clips_per_step
        self.restart()

    def step(self, waited: float) -> None:
        """Counts a step that waited so many seconds for its batch."""
        self._steps += 1
        self._waiting += waited

    def restart(self) -> None:
        """Leaves out what happened since the last lap, such as an evaluation."""
        self._start, self._steps, self._waiting = time.perf_counter(), 0, 0.0

    def lap(self, left: int) -> dict[str, float]:
        """Figures of the steps since the last lap, with `left` more to go."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        figures = {
            "clips_per_second": self._steps * self.clips_per_step / seconds,
            "waiting_for_data": self._waiting / seconds,
            "seconds_left": left * seconds / self._steps,
        }
        self.restart()
        return figures


class Progress:
    """A progress bar on a terminal, a line per report elsewhere."""

    def __init__(self, total: int, start: int):
        out = sys.stderr
        self._total, self._bar, self._out = total, None, out
        if out.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("step {task.completed}/{task.total}"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[text]}"),
                progress.TimeRemainingColumn(),
                console=Console(file=out),
            )
            self._task = self._bar.add_task("", total=total, completed=start, text="compiling")
            self._bar.start()

    def advance(self, step: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, values: Mapping[str, float]) -> None:
        text = (
            f"loss {values['loss']:.4f}  {values['clips_per_second']:.1f} clips/s"
            f"  waiting for data {values['waiting_for_data']:.0%}"
        )
        if self._bar:
            self._bar.update(self._task, text=text)
        else:
            left = time.strftime("%H:%M:%S", time.gmtime(values["seconds_left"]))
            print(f"step {step}/{self._total}  {text}  {left} left", file=self._out, flush=True)

    def message(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._out, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
