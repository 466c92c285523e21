"""Variants in processes of their own that take turns.

A variant is a function that prepares something and returns facts about it and a callable that does
it once. Every variant lives in a process of its own, so that threads, allocators and compiled code
of one library do not disturb another's; the processes run one at a time, A B C A B C ..., so that a
machine that becomes slower does so for all.

    python -m benchmarks.harness     # the other end of a Child
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.origin import ROOT, cores
from vidjax.errors import UserError, first_line

# No other run's compiled code, and no memory taken before it is needed: others are on the device.
_ENVIRONMENT = {
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a suite.

    Attributes:
        rounds: turns that each variant has after its first one.
        quick: tiny models and clips; shows that the suite runs, not how fast anything is.
        peers: folders by name that the user gave, such as checkouts of other projects.
        threads: that a variant may use.
    """

    rounds: int = 5
    quick: bool = False
    peers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    threads: int = dataclasses.field(default_factory=cores)


def environment(device: str = "cpu", **more: str) -> dict[str, str]:
    """Returns the environment of a child, which finds this checkout and sees only `device`."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    platforms = {"JAX_PLATFORMS": "cpu" if device == "cpu" else "cuda"}
    return {**os.environ, **_ENVIRONMENT, **platforms, "PYTHONPATH": path, **more}


class OutOfTime(Exception):
    """A child has not answered by its deadline."""


class Child:
    """A variant in a process of its own, which waits until it is told to run.

    Attributes:
        call: "module:function" and options of the variant, called as function(**options); it
            returns facts (JSON values) and a callable that does the work once, or as often as its
            argument says, waits for its end, and returns None or numbers by name. It may be changed
            between two "ready".

    Args:
        function, **options: see `call`.
        device: "cpu" or "gpu".
        env: environment variables beside those of `environment`.
    """

    def __init__(
        self,
        function: str = "",
        *,
        device: str = "cpu",
        env: Mapping[str, str] | None = None,
        **options: Any,
    ):
        self.call = (function, options)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (close closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(device, **env or {}),
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, word: str, *arguments: Any) -> None:
        """Sends "ready" (calls `call`), "run" (does the work, `arguments[0]` times) or "peak"."""
        message = json.dumps([word, *(self.call if word == "ready" else arguments)])
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(message + "\n")
            self._process.stdin.flush()

    def receive(self, deadline: float | None = None) -> dict[str, Any]:
        """Returns the answer to what was sent; {"failed": why} if there is none.

        Args:
            deadline: on time.monotonic's clock; None waits for ever.

        Raises:
            OutOfTime: there is no answer by then.
        """
        timeout = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise OutOfTime
        if line := self._process.stdout.readline():
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or [f"exit code {code}"]
        return {"failed": lines[-1][:300]}

    def ask(self, word: str, *arguments: Any, deadline: float | None = None) -> dict[str, Any]:
        """Sends a word and returns the answer."""
        self.send(word, *arguments)
        return self.receive(deadline)

    def once(self) -> dict[str, Any]:
        """Does the work a single time, closes the process, and returns its figures."""
        try:
            answer = self.ask("ready")
            answer = answer if "failed" in answer else self.ask("run")
        finally:
            self.close()
        return answer if "failed" in answer else answer["figures"]

    def close(self, patience: float = 10.0) -> None:
        """Ends the process, by force if it is still busy after `patience` seconds."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def _serve() -> None:
    """Answers the words that a Child sends."""
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    once = None
    for line in sys.stdin:
        word, *arguments = json.loads(line)
        start = time.perf_counter()
        try:
            match word:
                case "ready":
                    once = None
                    gc.collect()  # so that the device's memory is free
                    function, options = arguments
                    module, _, name = function.partition(":")
                    facts, once = getattr(importlib.import_module(module), name)(**options)
                    answer = {"facts": facts() if callable(facts) else facts}
                case "run":
                    answer = {"figures": once(*arguments) or {}}
                case "peak":
                    answer = {"peak_bytes": peak_bytes()}
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {first_line(error)}"[:300]}
        else:
            answer["seconds"] = time.perf_counter() - start
        print(json.dumps(answer), file=answers, flush=True)


def peak_bytes() -> int:
    """Returns the most memory that this process has had in RAM (Linux: VmHWM)."""
    with open("/proc/self/status") as status:
        return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


def interleave(
    children: Mapping[str, Child], rounds: int, log=print, *, settle: bool = True
) -> dict[str, dict[str, Any]]:
    """Runs the children in turn, closes them, and returns what each measured.

    Args:
        settle: a turn is two runs, of which the second one counts. While others run, a process
            loses its caches, and a virtual machine gives the pages that it has freed back to its
            host: a train step that takes 4.7 s again and again took 7.2 after a pause.

    Returns:
        By name: facts, ready_seconds, first_seconds (compilation and all else that only the first
        run does), seconds and figures of the other runs as `summary`, peak_bytes; or
        {"failed": why} for a child that broke.
    """
    measured: dict[str, dict[str, Any]] = {}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
    try:
        for name, child in children.items():
            ready = child.ask("ready")
            first = ready if "failed" in ready else child.ask("run")
            measured[name] = (
                first
                if "failed" in first
                else {
                    "facts": ready["facts"],
                    "ready_seconds": ready["seconds"],
                    "first_seconds": first["seconds"],
                }
            )
            log(f"  {name}: first {first.get('seconds', first)}")
        for _ in range(rounds):
            for name, child in children.items():
                if "failed" in measured[name]:
                    continue
                run = child.ask("run")
                if settle and "failed" not in run:
                    run = child.ask("run")
                if "failed" in run:
                    measured[name] = run
                runs[name].append(run)
        for name, child in children.items():
            if "failed" not in measured[name]:
                names = runs[name][0]["figures"]
                measured[name] |= {
                    "seconds": summary(run["seconds"] for run in runs[name]),
                    "figures": {
                        key: summary(run["figures"][key] for run in runs[name]) for key in names
                    },
                    "peak_bytes": child.ask("peak")["peak_bytes"],
                }
    finally:
        for child in children.values():
            child.close()
    return measured


def summary(values: Iterable[float]) -> dict[str, float]:
    """Returns median, minimum, maximum and number of values."""
    values = list(values)
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "runs": len(values),
    }


def summaries(runs: Sequence[Mapping[str, float]], keys: Iterable[str]) -> dict[str, Any]:
    """Returns a summary for each key of several runs."""
    return {key: summary(run[key] for run in runs) for key in keys}


# A process's peak starts at that of the one that made it, so a small one stands between.
_MEASURED = """
import json, os, sys
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(int(sys.argv[1]), "w") as answer:
    json.dump({"cpu_seconds": usage.ru_utime + usage.ru_stime,
               "peak_bytes": usage.ru_maxrss * 1024}, answer)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def whole_process(argv: Sequence[str], **env: str) -> dict[str, Any]:
    """Runs a command from start to end: wall and CPU seconds, peak_bytes, and what it printed.

    Raises:
        UserError: it failed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        inside, outside = os.pipe()
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _MEASURED, str(outside), *argv],
            env=environment(**env),
            cwd=ROOT,
            stdout=out,
            stderr=errors,
            pass_fds=[outside],
        )
        os.close(outside)
        with open(inside) as answer:
            usage = json.loads(answer.read() or "{}")
        process.wait()
        seconds = time.perf_counter() - start
        out.seek(0), errors.seek(0)
        stdout, stderr = out.read(), errors.read()
    if process.returncode or not usage:
        last = (stderr or stdout).strip().splitlines()[-1:]
        raise UserError(f"{' '.join(argv)[:200]} ended with {process.returncode}: {last}")
    return {"seconds": seconds, **usage, "stdout": stdout}


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
    """Yields a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="vidjax-benchmark-") as folder:
        yield pathlib.Path(folder)


if __name__ == "__main__":
    _serve()
