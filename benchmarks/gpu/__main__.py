"""Measures a GPU in minutes, beside the peers, the most important figures first.

    python -m benchmarks.gpu --minutes=7                     # an NVIDIA GPU, transformers beside
    python -m benchmarks.gpu --minutes=7                     # again: the rows that are missing
    python -m benchmarks.gpu --rows='Train steps'            # these rows anew (a regex)
    python -m benchmarks.gpu --peer=videoprism=CHECKOUT      # google-deepmind's code, too
    python -m benchmarks.gpu --device=cpu --quick            # tiny models: shows that it runs

Every row is written as soon as it is there, to results/gpu/GPU.json, so that the command may be
ended at any time; it ends by itself before its minutes are over. benchmarks/gpu.md shows the rows.
"""

import json
import os
import pathlib
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import harness, peers, run
from benchmarks.gpu import page
from benchmarks.gpu.rows import Row, Variant, rows
from benchmarks.origin import RESULTS, cores, gpu_name, origin
from vidjax import files
from vidjax.errors import Again, UserError, run_main

ROUNDS = 5
TURN = 0.5  # seconds of work in a turn
GAIN = 1.03  # a larger batch must be so much faster, or larger ones are not tried
RESERVE = 5.0  # seconds that are left for ending
PATIENCE = 3.0  # times a row's estimate after which it is given up


class Workers:
    """Processes that measure; they stay while rows of one table follow each other."""

    def __init__(self, device: str, cache: pathlib.Path):
        self._device, self._table = device, ""
        self._children: dict[str, harness.Child] = {}
        # Compiled programs stay on the disk: a batch may be prepared twice, and choices in pairs.
        self._env = {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": str(peers.MEMORY_SHARE),
            # One device, and no flags but those of a variant.
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
            "XLA_FLAGS": "",
        }

    def enter(self, row: Row) -> None:
        """Closes the processes that the row does not need."""
        needed = {variant.worker for variant in row.variants.values()}
        for name, child in list(self._children.items()):
            if row.table != self._table or name not in needed or not child.alive:
                self._children.pop(name).close(patience=0)
        self._table = row.table

    def child(self, variant: Variant, **options: Any) -> harness.Child:
        """Returns the process of a variant, whose next "ready" makes it with these options."""
        child = self._children.get(variant.worker)
        if child is None or not child.alive:
            child = harness.Child(device=self._device, env=self._env | variant.env)
            self._children[variant.worker] = child
        child.call = (variant.function, {**variant.options, **options})
        return child

    def close(self) -> None:
        for child in self._children.values():
            child.close(patience=0)
        self._children.clear()


def measure(
    row: Row, workers: Workers, deadline: float, turn: float, found: dict[str, Any]
) -> None:
    """Measures a row into `found`: by variant, facts and the results of `_Turns`; or why it failed.

    Args:
        deadline: on time.monotonic's clock.
        turn: seconds of work in a turn.

    Raises:
        OutOfTime: it is not done by then; `found` has what was.
    """
    workers.enter(row)
    if row.batches:
        return _Turns(row, workers, deadline, found).measure(turn)
    names, together = list(row.variants), cores()
    for start in range(0, len(names), together):
        some = names[start : start + together]
        found |= _prepared({name: workers.child(row.variants[name]) for name in some}, deadline)


def _prepared(children: Mapping[str, harness.Child], deadline: float) -> dict[str, Any]:
    """Returns the answers to "ready", which all children work on at the same time."""
    for child in children.values():
        child.send("ready")
    return {name: child.receive(deadline) for name, child in children.items()}


class _Turns:
    """Chooses each variant's batch, prepares it for good, and lets all take turns.

    `found` gets by variant: batch, facts, prepared_seconds (with the first run), seconds of a call
    as `harness.summary`, figures of the last one, and search: by batch clips/s, or why it failed.
    """

    def __init__(self, row: Row, workers: Workers, deadline: float, found: dict[str, Any]):
        found |= {name: {"search": {}} for name in row.variants}
        self._row, self._workers, self._deadline, self._found = row, workers, deadline, found
        self._made: dict[str, Mapping[str, Any]] = {}
        self._children: dict[str, harness.Child] = {}

    def measure(self, turn: float) -> None:
        climbing = list(self._row.variants)
        for batch in self._row.batches:
            climbing = self._faster(climbing, batch)
        self._choose()
        running = [name for name, one in self._found.items() if "failed" not in one]
        calls = {name: max(1, round(turn / self._seconds(name, 2))) for name in running}
        times: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(ROUNDS):
            for name in running:
                times[name].append(self._seconds(name, calls[name]))
        for name in running:
            if "failed" not in self._found[name]:
                self._found[name]["seconds"] = harness.summary(times[name])

    def _faster(self, names: list[str], batch: int) -> list[str]:
        """Tries a batch; returns the variants that it makes faster."""
        self._prepare({name: {"batch": batch} if batch else {} for name in names})
        faster = []
        for name in names:
            best = max(self._rates(name).values(), default=0.0)
            rate = 0.0
            if "failed" not in self._found[name]:
                rate = max(batch, 1) / self._seconds(name, 3)
            why = self._found[name].pop("failed", None)
            self._found[name]["search"][batch] = why or rate
            if not why and rate >= GAIN * best:
                faster.append(name)
        return faster

    def _choose(self) -> None:
        """Prepares all variants with their best batch, where they are not so already."""
        last = {}
        for name, variant in self._row.variants.items():
            found = self._found[name]
            if not (rates := self._rates(name)):
                found["failed"] = next(iter(found["search"].values()))
                continue
            # Of batches that are as fast as each other, the largest: it may be there already.
            batch = max(b for b, rate in rates.items() if GAIN * rate >= max(rates.values()))
            found["batch"] = max(batch, 1)
            options = {**({"batch": batch} if batch else {}), **variant.at_last}
            if options != self._made[name]:
                last[name] = options
        self._prepare(last)

    def _rates(self, name: str) -> dict[int, float]:
        return {b: x for b, x in self._found[name]["search"].items() if isinstance(x, float)}

    def _prepare(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Makes variants with options and runs them once, all compiling at the same time."""
        for name, more in options.items():
            self._children[name] = self._workers.child(self._row.variants[name], **more)
        self._made |= options
        answers = _prepared({name: self._children[name] for name in options}, self._deadline)
        ready = [name for name, answer in answers.items() if "failed" not in answer]
        for name in ready:
            self._children[name].send("run")
        for name, answer in answers.items():
            run = self._children[name].receive(self._deadline) if name in ready else answer
            if "failed" in run:
                self._found[name]["failed"] = run["failed"]
                continue
            seconds = answer["seconds"] + run["seconds"]
            self._found[name] |= {"facts": answer["facts"], "prepared_seconds": seconds}

    def _seconds(self, name: str, calls: int) -> float:
        answer = self._children[name].ask("run", calls, deadline=self._deadline)
        if "failed" in answer:
            self._found[name]["failed"] = answer["failed"]
            return float("inf")
        self._found[name]["figures"] = answer["figures"]
        return answer["seconds"] / calls


class Results:
    """File of a GPU's rows."""

    def __init__(self, path: pathlib.Path, name: str, origin: Mapping[str, Any]):
        self.path, self.report = path, {"gpu": name, "origins": [], "rows": {}, "unfinished": {}}
        if path.exists():
            try:
                self.report |= json.loads(path.read_text())
            except (ValueError, TypeError):
                raise UserError(f"{path} is not a file of results; move it away") from None
        self._origin = dict(origin)
        try:  # before minutes are spent
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--results={path.parent} cannot be made: {error.strerror}") from None

    def add(self, row: Row, seconds: float, variants: Mapping[str, Any]) -> None:
        origins = self.report["origins"]
        if self._origin not in origins:
            origins.append(self._origin)
        self.report["rows"][row.key] = {
            "origin": origins.index(self._origin),
            "seconds": seconds,
            "variants": variants,
        }
        self.report["unfinished"].pop(row.key, None)
        self._write()

    def stopped(self, row: Row, seconds: float, variants: Mapping[str, Any]) -> None:
        """Remembers that a row took more than so many seconds, and the clips/s that it had."""
        rates = {
            name: max(x for x in one["search"].values() if isinstance(x, float))
            for name, one in variants.items()
            if any(isinstance(x, float) for x in one.get("search", {}).values())
        }
        self.report["unfinished"][row.key] = {"seconds": seconds, "clips_per_second": rates}
        self._write()

    def _write(self) -> None:
        files.write_whole(self.path, json.dumps(self.report, indent=1) + "\n")

    def estimate(self, row: Row) -> float:
        """Returns the seconds that a row may take."""
        measured = self.report["rows"].get(row.key, {}).get("seconds", row.seconds)
        unfinished = self.report["unfinished"].get(row.key, {}).get("seconds", 0.0)
        return max(measured, 1.3 * unfinished)


def walk(
    todo: Sequence[Row], results: Results, workers: Workers, deadline: float, turn: float
) -> None:
    """Measures rows in their order as long as they fit into the time that is left."""
    for row in todo:
        start, estimate = time.monotonic(), results.estimate(row)
        if estimate > deadline - start:
            print(f"{row.key}: {estimate:.0f} s do not fit into {deadline - start:.0f} s")
            continue
        print(f"{row.key}: about {estimate:.0f} s", flush=True)
        variants: dict[str, Any] = {}
        try:
            measure(row, workers, min(deadline, start + PATIENCE * estimate), turn, variants)
        except harness.OutOfTime:
            workers.close()  # they are still at work
            results.stopped(row, time.monotonic() - start, variants)
            print(f"  stopped after {time.monotonic() - start:.0f} s", flush=True)
            continue
        seconds = time.monotonic() - start
        results.add(row, seconds, variants)
        print(f"  {seconds:.0f} s; {'; '.join(_short(variants))}", flush=True)


def _short(variants: Mapping[str, Any]) -> Iterator[str]:
    """Yields a few words on each variant."""
    for name, one in variants.items():
        if "failed" in one:
            yield f"{name} failed: {one['failed'][:80]}"
        elif "seconds" in one and isinstance(one["seconds"], Mapping):
            clips = f", batch {one['batch']}" if "batch" in one else ""
            yield f"{name} {1e3 * one['seconds']['median']:.2f} ms{clips}"
        elif wrong := page.wrong(one["facts"]):
            yield f"{name} WRONG: {wrong}"
        else:
            yield f"{name} ok"


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    start = time.monotonic()
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; options look like --minutes=7")
    if values.device == "cpu" and not values.quick:
        raise UserError(
            "--device=cpu shows only that the command runs: add --quick; CPUs are measured by "
            "`python -m benchmarks.run`"
        )
    code = run.folders(values.peer)
    name = "quick" if values.quick else gpu_name().partition(",")[0]
    folder = values.results or (
        f"{tempfile.gettempdir()}/vidjax-gpu" if values.quick else RESULTS / "gpu"
    )
    path = pathlib.Path(folder) / f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}.json"
    gpu = gpu_name() if values.device == "gpu" else None
    results = Results(path, name, origin(gpu=gpu, commit=values.commit))
    plan = rows(values.device, values.quick, code)
    try:
        chosen = [row for row in plan if re.search(values.rows or "", row.key)]
    except re.error as error:
        raise UserError(f"--rows={values.rows} is not a regular expression: {error}") from None
    if not chosen:
        raise UserError(f"--rows={values.rows} is in none of: {'; '.join(x.key for x in plan)}")
    todo = chosen if values.rows else [x for x in plan if x.key not in results.report["rows"]]
    seconds = sum(results.estimate(row) for row in todo)
    print(f"{len(todo)} of {len(plan)} rows, about {seconds / 60:.0f} minutes, to {path}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="vidjax-compiled-") as cache:
        workers = Workers(values.device, pathlib.Path(cache))
        deadline = start + 60 * values.minutes - RESERVE
        try:
            walk(todo, results, workers, deadline, 0.02 if values.quick else TURN)
        except KeyboardInterrupt:
            raise Again(
                "stopped; the same command goes on with the rows that are missing"
            ) from None
        finally:
            workers.close()
            if results.path.parent == RESULTS / "gpu":
                run.render()
    missing = [row for row in plan if row.key not in results.report["rows"]]
    print(f"{len(plan) - len(missing)} of {len(plan)} rows are there", end="")
    print(f"; missing: {'; '.join(row.key for row in missing)}" if missing else "")


if __name__ == "__main__":
    flags.DEFINE_float("minutes", 7.0, "The command ends before they are over.", lower_bound=0.5)
    flags.DEFINE_enum("device", "gpu", ["gpu", "cpu"], "Where; cpu only with --quick.")
    flags.DEFINE_bool("quick", False, "Tiny models: shows that the command runs.")
    flags.DEFINE_string("rows", None, "Regex of rows to measure, also those that are there.")
    flags.DEFINE_string("results", None, "Folder of the results; default: benchmarks/results/gpu.")
    flags.DEFINE_string("commit", None, "Of a copy of vidjax that is no git repository.")
    flags.DEFINE_multi_string("peer", [], "NAME=FOLDER of a checkout, such as videoprism=FOLDER.")
    run_main(main)
