"""The command that measures a GPU: stops and goes on, chooses batches, finds wrong kernels."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from benchmarks import cases, peers, run
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import checks, page, rows
from benchmarks.gpu.rows import Row, Variant
from benchmarks.origin import ROOT
from benchmarks.page import fill
from vidjax import models
from vidjax.errors import UserError
from vidjax.models.layers import attention

# A module for workers: facts, times that depend on the batch, failures, and one that never ends.
# Its clock goes on only while it works, as on a busy machine real times waver.
WORK = """
import os, time

now = time.perf_counter()
time.perf_counter = lambda: now

def facts(name, path=None):
    if path:
        with open(path, "a") as lines:
            lines.write(name + " ")
    return {"name": name, "process": os.getpid()}, None

def timed(fixed, each, limit=99, batch=1, compiled=False):
    if batch > limit:
        raise MemoryError("no room for %d" % batch)
    if compiled == "broken":
        raise ValueError("cannot compile")
    seconds = fixed + each * batch
    def once(calls=1):
        global now
        now += calls * seconds
        return {"compiled": bool(compiled)}
    return {"flops": batch * 10, "process": os.getpid()}, once

def forever(batch):
    time.sleep(1000)
"""


@pytest.fixture
def workers(tmp_path, monkeypatch):
    (tmp_path / "work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = gpu.Workers("cpu", tmp_path / "cache")
    yield made
    made.close()


def results(tmp_path, commit="a"):
    return gpu.Results(tmp_path / "results" / "gpu.json", "a GPU", {"commit": commit})


def facts_row(name, path=None, seconds=1):
    variant = Variant("work:facts", {"name": name, "path": path and str(path)})
    return Row("Facts", name, seconds, {"vidjax": variant})


def soon(seconds=30.0):
    return time.monotonic() + seconds


def measured(row, workers):
    found = {}
    gpu.measure(row, workers, soon(), 0.01, found)
    return found


def test_rows_are_written_one_by_one_and_not_measured_twice(tmp_path, workers):
    """Stopped after any row, the next call goes on with those that are missing."""
    path = tmp_path / "order"
    plan = [facts_row(name, path) for name in "ABCD"]
    for stop in range(len(plan)):
        report = results(tmp_path, commit=str(stop))
        todo = [row for row in plan if row.key not in report.report["rows"]]
        gpu.walk(todo[:1], report, workers, soon(), 0.01)
    assert path.read_text().split() == list("ABCD")
    report = json.loads((tmp_path / "results" / "gpu.json").read_text())
    assert [one["origin"] for one in report["rows"].values()] == [0, 1, 2, 3]
    assert [origin["commit"] for origin in report["origins"]] == ["0", "1", "2", "3"]
    assert not list((tmp_path / "results").glob("*.tmp"))


def test_rows_of_a_table_share_their_process(workers):
    first, second, other = (facts_row(name) for name in "ABC")
    found = [
        measured(row, workers)["vidjax"]["facts"]["process"]
        for row in (first, second, Row("Other", "C", 1, other.variants))
    ]
    assert found[0] == found[1] != found[2]


def test_rows_that_do_not_fit_are_left_for_later(tmp_path, workers, capsys):
    report = results(tmp_path)
    plan = [facts_row("long", seconds=100), facts_row("short", seconds=1)]
    gpu.walk(plan, report, workers, soon(20), 0.01)
    assert list(report.report["rows"]) == ["Facts: short"]
    assert "Facts: long: 100 s do not fit into 20 s" in capsys.readouterr().out


def test_a_row_that_does_not_end_is_given_up(tmp_path, workers):
    """And the others are measured; the next time it is known to be long."""
    report = results(tmp_path)
    stuck = {
        "vidjax": Variant("work:timed", {"fixed": 0.001, "each": 0.0}),
        "transformers": Variant("work:forever", {}, "torch"),
    }
    plan = [Row("Forward passes", "stuck", 1, stuck, (1,)), facts_row("other")]
    start = time.monotonic()
    gpu.walk(plan, report, workers, soon(), 0.01)
    assert time.monotonic() - start < 20
    assert list(report.report["rows"]) == ["Facts: other"]
    again = results(tmp_path)
    assert again.estimate(plan[0]) > gpu.PATIENCE


def test_each_variant_has_its_own_batch(workers):
    """The largest one that is faster; what does not fit ends the search."""
    variants = {
        "grows": Variant("work:timed", {"fixed": 0.02, "each": 0.001}, "1"),
        "flat": Variant("work:timed", {"fixed": 0.0, "each": 0.005}, "2"),
        "full": Variant("work:timed", {"fixed": 0.02, "each": 0.001, "limit": 4}, "3"),
        "compiled": Variant(
            "work:timed", {"fixed": 0.02, "each": 0.001}, "4", {"compiled": "default"}
        ),
        "broken": Variant(
            "work:timed", {"fixed": 0.02, "each": 0.001}, "5", {"compiled": "broken"}
        ),
        "none": Variant("work:timed", {"fixed": 0.0, "each": 0.001, "limit": 0}, "6"),
    }
    found = measured(Row("Forward passes", "x", 1, variants, (1, 4, 16)), workers)
    assert found["grows"]["batch"] == 16
    assert list(found["flat"]["search"]) == [1, 4]
    assert found["full"]["batch"] == 4
    assert found["full"]["search"][16] == "MemoryError: no room for 16"
    assert found["compiled"]["figures"] == {"compiled": True}
    assert found["grows"]["figures"] == {"compiled": False}
    assert found["grows"]["seconds"]["runs"] == gpu.ROUNDS
    assert found["grows"]["seconds"]["median"] == pytest.approx(0.02 + 16 * 0.001)
    assert found["broken"]["failed"] == "ValueError: cannot compile"
    assert found["broken"]["search"].keys() == {1, 4, 16}
    assert found["none"]["failed"] == "MemoryError: no room for 1"


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text("{")
    with pytest.raises(UserError, match="not a file of results; move it away"):
        gpu.Results(path, "a GPU", {})


def command(*options):
    argv = [sys.executable, "-m", "benchmarks.gpu", "--device=cpu", "--quick", *options]
    return subprocess.Popen(
        argv, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_the_command_is_stopped_and_goes_on(tmp_path):
    """By a signal in the midst of a row; what was there before it stays."""
    where = f"--results={tmp_path}"
    chosen = "--rows=Correctness: attention|Ceilings|16 tokens"
    process = command(where, chosen)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ceilings"):
            process.send_signal(signal.SIGTERM)
            break
    out, errors = process.communicate()
    assert process.returncode == 42, errors
    assert "stopped; the same command goes on with the rows that are missing" in errors
    assert "33 tokens ok; 128 tokens, soft cap 5 ok" in "".join(lines)
    report = json.loads((tmp_path / "quick.json").read_text())
    assert list(report["rows"]) == ["Correctness: attention"]

    process = command(where, "--rows=Ceilings|16 tokens")
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"3 of {len(rows.rows('cpu', True, {}))} rows are there; missing: " in out
    report = json.loads((tmp_path / "quick.json").read_text())
    copy = report["rows"]["Ceilings: matrix product and copy"]["variants"]["copy"]
    assert copy["facts"]["bytes"] / copy["seconds"]["median"] > 1e8
    text = page.render(report)
    assert "| attention: 33 tokens | float32 |" in text
    assert "| matrix product, jax |" in text
    assert "VideoMAE-L fine-tuning not measured" in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--rows=Nothing"], "--rows=Nothing is in none of: Correctness: attention; "),
        (["--rows=("], "is not a regular expression"),
        (["--peer=videoprism=/nowhere"], "must be NAME=FOLDER, and the folder must exist"),
        (["--results=/proc/here"], "--results=/proc/here cannot be made"),
        (["--noquick"], "--device=cpu shows only that the command runs: add --quick"),
        (["--noquick", "--device=gpu"], "there is no NVIDIA GPU here"),
    ],
)
def test_wrong_options(options, says, tmp_path):
    if "--device=gpu" in options and os.path.exists("/dev/nvidia0"):
        pytest.skip("there is one")
    process = command(f"--results={tmp_path}", *options)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert says in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_row(tmp_path):
    """Minutes: all rows with tiny models, and nothing of ours fails."""
    process = command(f"--results={tmp_path}", "--minutes=20")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    report = json.loads((tmp_path / "quick.json").read_text())
    assert len(report["rows"]) == len(rows.rows("cpu", True, {}))
    for key, row in report["rows"].items():
        for name, one in row["variants"].items():
            assert "failed" not in one or name in ("torch", "transformers"), (key, name, one)


def test_wrong_kernels_are_found(monkeypatch):
    """The nearest wrong numerics: weights of another temperature."""
    shape = {"clips": 1, "tokens": 33, "heads": 2, "width": 16, "softcap": 0.0}
    right, _ = checks.attention_errors(**shape)
    assert not page.wrong(right)
    assert {x["form"] for x in right["errors"]} == {"einsum", "blockwise"}
    plain = attention.FUSED["blockwise"]
    monkeypatch.setitem(
        attention.FUSED, "blockwise", lambda q, k, v, **options: plain(1.05 * q, k, v, **options)
    )
    wrong = page.wrong(checks.attention_errors(**shape)[0])
    for what in ("blockwise in bfloat16, output", "blockwise in float32, key's gradient"):
        assert what in wrong
    assert "einsum" not in wrong


def test_a_kernel_that_a_model_does_not_reach_is_not_called_right(monkeypatch):
    monkeypatch.setattr(attention, "_suits", lambda name, queries, keys: False)
    facts, _ = checks.model_errors("VideoMAE-B", True)
    assert {x["form"] for x in facts["errors"]} == {"einsum"}
    assert facts["skipped"]["blockwise, bfloat16"].endswith("takes none of this model's lengths")


def test_the_plan_of_a_gpu():
    plan = rows.rows("gpu", False, {"videoprism": "/checkout"})
    assert len({row.key for row in plan}) == len(plan)
    assert [row.table for row in plan[:5]] == 3 * ["Correctness"] + ["Ceilings", "Train steps"]
    assert all(row.table in page._TABLES for row in plan)
    for row in plan:
        for variant in row.variants.values():
            assert variant.options.get("quick") in (None, False)
            module, _, function = variant.function.partition(":")
            assert callable(getattr(importlib.import_module(module), function))
    (prism,) = (row for row in plan if row.key == "Forward passes: VideoPrism-B")
    assert prism.variants["google-deepmind"].options["code"] == "/checkout"
    flags = {v.env.get("XLA_FLAGS") for row in plan for v in row.variants.values()} - {None}
    assert len(flags) == 5


def test_pages_are_those_of_the_results():
    text = page.PAGE.read_text()
    assert text == fill(text, page.blocks())
    assert "not measured" in run.README.read_text()


def test_everything_that_can_fail_is_said_on_the_page():
    """Failed, stopped, wrong and missing rows, each with its reason."""
    plan = rows.rows("cpu", True, {})
    report = {
        "gpu": "quick",
        "origins": [],
        "unfinished": {
            "Train steps: VideoMAE-B pre-training": {
                "seconds": 99.0, "clips_per_second": {"vidjax": 12.5},
            }
        },
        "rows": {},
    }  # fmt: skip
    for row in plan:
        one = {"failed": "OutOfMemoryError: no room", "search": {"1": "no room"}}
        report["rows"][row.key] = {"variants": dict.fromkeys(row.variants, one)}
    del report["rows"]["Train steps: VideoMAE-B pre-training"]
    error = {
        "form": "cudnn",
        "precision": "bfloat16",
        "what": "output",
        "error": 0.5,
        "limit": 0.01,
    }
    facts = {"errors": [error], "skipped": {"tokamax, bfloat16": "needs Hopper"}}
    report["rows"]["Correctness: models"]["variants"]["VideoMAE-B"] = {"facts": facts}
    text = page.render(report)
    assert text.count("failed: OutOfMemoryError: no room") > 30
    assert "VideoMAE-B pre-training (stopped after 99 s, vidjax 12.5 clips/s)" in text
    assert "5.0e-01 **wrong**" in text
    assert "Wrong, models: VideoMAE-B: cudnn in bfloat16, output: 5.0e-01 > 1.0e-02." in text
    assert "Without tokamax, bfloat16 (needs Hopper): models: VideoMAE-B." in text


@pytest.mark.parity
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", [name for name, case in cases.CASES.items() if case.ours])
def test_both_sides_have_the_same_parameters(name, quick):
    import torch

    case = cases.case_of(name, quick)
    with torch.device("meta"):
        theirs = sum(x.numel() for x in peers.new_hf_model(case).parameters())
    model = models.build(**case.ours, clip=case.clip)
    assert sum(x.size for x in jax.tree.leaves(models.abstract_params(model))) == theirs
