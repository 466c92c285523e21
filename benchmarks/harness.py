"""What all benchmarks share: variants in processes of their own that take turns, and their records.

A variant is a function that prepares something and returns facts about it and a callable that does
it once. Every variant lives in a process of its own, so that threads, allocators and compiled code
of one library do not disturb another's; the processes run one at a time, A B C A B C ..., so that a
machine that becomes slower does so for all.

    python -m benchmarks.harness     # the other end of a Child
"""

import contextlib
import dataclasses
import datetime
import gc
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vidjax.errors import UserError, first_line

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "decord", "av"),
    *("torch", "transformers", "keras-hub", "tokamax", "libtpu"),
)

# No other run's compiled code, and no memory taken before it is needed: others are on the device.
_ENVIRONMENT = {
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a suite is run.

    Attributes:
        device: "cpu" or "tpu".
        rounds: turns that each variant has after its first one.
        quick: tiny models and clips; shows that the suite runs, not how fast anything is.
        peers: folders by name that the user gave, such as checkouts of other projects.
    """

    device: str = "cpu"
    rounds: int = 5
    quick: bool = False
    peers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def threads(self) -> int:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def environment(device: str = "cpu", **more: str) -> dict[str, str]:
    """Environment of a child process, which finds this checkout and sees only `device`."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    platforms = {"JAX_PLATFORMS": "cpu" if device == "cpu" else "cuda"}
    return {**os.environ, **_ENVIRONMENT, **platforms, "PYTHONPATH": path, **more}


class OutOfTime(Exception):
    """A child has not answered by its deadline."""


class Child:
    """A variant in a process of its own, which waits until it is told to run.

    Attributes:
        call: module, function and options of the variant, called as function(**options); it returns
            facts (JSON values) and a callable that does the work once, or as often as its argument
            says, waits for its end, and returns None or numbers by name. It may be changed between
            two "ready".

    Args:
        module, function, **options: see `call`.
        device: "cpu" or "gpu".
        env: environment variables beside those of `environment`.
    """

    def __init__(
        self,
        module: str = "",
        function: str = "",
        *,
        device: str = "cpu",
        env: Mapping[str, str] | None = None,
        **options: Any,
    ):
        self.call = (module, function, options)
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
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        if not select.select([self._process.stdout], [], [], left)[0]:
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
    """The other end of a Child."""
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
                    module, function, options = arguments
                    facts, once = getattr(importlib.import_module(module), function)(**options)
                    answer = {"facts": facts}
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
    """The most memory that this process has had in RAM (Linux: VmHWM)."""
    with open("/proc/self/status") as status:
        return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


def interleave(
    children: Mapping[str, Child], rounds: int, say=lambda text: None, *, settle: bool = True
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
    found: dict[str, dict[str, Any]] = {}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
    try:
        for name, child in children.items():
            ready = child.ask("ready")
            first = ready if "failed" in ready else child.ask("run")
            if "failed" in first:
                found[name] = first
            else:
                found[name] = {
                    "facts": ready["facts"],
                    "ready_seconds": ready["seconds"],
                    "first_seconds": first["seconds"],
                }
            say(f"  {name}: first {first.get('seconds', first)}")
        for _ in range(rounds):
            for name, child in children.items():
                if "failed" in found[name]:
                    continue
                run = child.ask("run")
                if settle and "failed" not in run:
                    run = child.ask("run")
                if "failed" in run:
                    found[name] = run
                else:
                    runs[name].append(run)
        for name, child in children.items():
            if "failed" not in found[name]:
                peak = child.ask("peak")["peak_bytes"]
                found[name] |= summaries(runs[name]) | {"peak_bytes": peak}
    finally:
        for child in children.values():
            child.close()
    return found


def summaries(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`seconds` and `figures` of several runs as `summary`."""
    names = runs[0]["figures"] if runs else ()
    return {
        "seconds": summary(run["seconds"] for run in runs),
        "figures": {name: summary(run["figures"][name] for run in runs) for name in names},
    }


def summary(values: Iterable[float]) -> dict[str, float]:
    values = list(values)
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "runs": len(values),
    }


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


def whole_process(
    argv: Sequence[str], *, device: str = "cpu", cwd: str | None = None, **env: str
) -> dict[str, Any]:
    """Runs a command from start to end: wall and CPU seconds, peak_bytes, and what it printed.

    Raises:
        UserError: it failed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        inside, outside = os.pipe()
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _MEASURED, str(outside), *argv],
            env=environment(device, **env),
            cwd=cwd or ROOT,
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
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="vidjax-benchmark-") as folder:
        yield pathlib.Path(folder)


def record(suite: str, device: str, report: Mapping[str, Any]) -> pathlib.Path:
    """Writes a suite's report with machine, versions and commit to results/; returns the path."""
    whole = {"suite": suite, "device": device, **origin(device), **report}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{suite}_{device}.json"
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path


def origin(device: str, commit: str | None = None) -> dict[str, Any]:
    """Machine, versions, commit and date; `commit` for a copy that is no git repository."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "machine": {
            "cpu": _cpu(),
            "cores": Settings().threads,
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": platform.system(),
            "load_before": os.getloadavg()[0],
        }
        | ({"gpu": gpu()} if device == "gpu" else {}),
        "versions": versions,
        "commit": commit or _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "uncommitted_changes": bool(_git("status", "--porcelain", "vidjax", "converters")),
        "date": datetime.date.today().isoformat(),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as lines:
        return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    return platform.machine()


def gpu() -> str:
    """Name and driver of the first NVIDIA GPU.

    Raises:
        UserError: there is none.
    """
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise UserError(
            "there is no NVIDIA GPU here (nvidia-smi names none); --device=cpu --quick shows that "
            "the command runs"
        ) from None
    return found.strip().splitlines()[0]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def where(report: Mapping[str, Any]) -> str:
    """A sentence on where and when a report was made."""
    machine, versions = report["machine"], report["versions"]
    device = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    changed = " with uncommitted changes" if report["uncommitted_changes"] else ""
    return f"{device}; {report['date']}, commit {report['commit']}{changed}; {named}."


def number(value: float | None, digits: int = 3) -> str:
    """A figure with `digits` significant digits; a dash for None."""
    if value is None:
        return "-"
    if value == 0 or 1 <= abs(value) < 10**6:
        before = len(str(int(abs(value))))
        return f"{value:,.{max(digits - before, 0)}f}"
    return f"{value:.{digits}g}"


def spread(figures: Mapping[str, float], scale: float = 1.0) -> str:
    """A median with its minimum and maximum."""
    low, high = (number(figures[key] * scale) for key in ("min", "max"))
    return f"{number(figures['median'] * scale)} ({low} to {high})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and whose others are figures."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    _serve()
