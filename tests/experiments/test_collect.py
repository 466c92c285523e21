"""Runs in every state become rows and pictures; what is cut off in their files is left out."""

import csv
import json
import os
import time

import pytest
from etils import epath

from experiments import collect, launch
from vidjax.errors import UserError


@pytest.fixture
def sweep(tmp_path):
    """Six runs, of lr x layer decay: all states, and one of them twice."""
    made = {}
    for name, lr, decay in [
        ("done", "0.01", "0.5"),
        ("done2", "0.1", "0.5"),
        ("running", "1.0", "0.5"),
        ("stopped", "0.01", "1.0"),
        ("failed", "0.1", "1.0"),
        ("new", "1.0", "1.0"),
    ]:
        overrides = {"optim.lr": lr, "optim.layer_decay": decay, "train_steps": "9"}
        made[name] = launch.Run(name, epath.Path(tmp_path) / name, ("python",), overrides, "c.py:B")

    def write(name, lines, *, config=True, log="", done=None):
        run = made[name]
        run.workdir.mkdir()
        optim = {"lr": float(run.overrides["optim.lr"]), "layer_decay": 0.5}
        if config:
            optim["layer_decay"] = float(run.overrides["optim.layer_decay"])
            (run.workdir / "config.json").write_text(json.dumps({"optim": optim}))
        (run.workdir / "metrics.jsonl").write_text("".join(lines))
        if log:
            run.log.write_text(log)
        if done:
            (run.workdir / "DONE").write_text(json.dumps(done))

    losses = [json.dumps({"step": i, "loss": 1 / i, "lr": 0.1}) + "\n" for i in range(1, 10)]
    evaluated = json.dumps({"step": 5, "val/top1": 0.5, "val/videos": 8}) + "\n"
    write(
        "done", [*losses, evaluated], done={"val/top1": 0.7, "val/videos": 8}, log="exit code 0\n"
    )
    write("done2", losses, done={"val/top1": 0.6, "val/videos": 8})
    write(
        "running", [*losses[:4], evaluated, '{"step": 6, "lo'], log="$ python\nexit code 42\n$ py"
    )
    write("stopped", losses[:2], config=False, log="saved\nexit code 42\n")
    write("failed", ['{"step": 1, "loss": null}\n', "[1]\n"], log="oh\nexit code 1\n")
    return tmp_path, made


def test_rows(sweep):
    _, made = sweep
    rows, curves = collect.collect(list(made.values()))
    by_name = {row["run"]: row for row in rows}
    states = {name: row["state"] for name, row in by_name.items()}
    assert states.pop("new") == "not started" and states.pop("done2") == "done"
    assert states == {name: name for name in states}
    assert list(rows[0]) == [
        *("run", "state", "step", "optim.lr", "optim.layer_decay"),
        *("loss", "val/top1", "val/videos"),
    ]
    assert [row["step"] for row in rows] == [9, 9, 5, 2, 1, 0]
    assert [row["val/top1"] for row in rows] == [0.7, 0.6, 0.5, None, None, None]
    assert rows[0]["loss"] == pytest.approx(1 / 9) and rows[4]["loss"] is None
    assert (rows[0]["optim.lr"], rows[3]["optim.lr"]) == (0.01, 0.01)  # one has no config.json
    assert curves["stopped"] == [(1, 1.0), (2, 0.5)] and not curves["failed"]


def test_a_run_that_is_silent_has_stopped(sweep):
    _, made = sweep
    run, old = made["running"], time.time() - 3600
    os.utime(run.log, (old, old))
    assert collect.state(run) == "running"  # it writes metrics
    os.utime(run.workdir / "metrics.jsonl", (old, old))
    assert collect.state(run) == "stopped"


def test_report(sweep, capsys):
    pytest.importorskip("matplotlib")
    folder, made = sweep
    collect.report(list(made.values()), folder)
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [
        *("run", "state", "step", "optim.lr", "optim.layer_decay", "loss", "val/top1", "val/videos")
    ]
    assert out[1].split() == ["done", "done", "9", "0.01", "0.5", "0.11111", "0.7", "8"]
    # Texts begin, and numbers end, where those above and below do.
    assert len({line.index(word) for line, word in zip(out[1:4], ["done ", "done ", "running "],
                                                       strict=True)}) <= 2  # fmt: skip
    assert out[1].index("0.11111") + 7 == out[0].index("loss") + 4
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert len(rows) == 6 and rows[1]["val/top1"] == "0.6" and rows[5]["val/top1"] == ""
    png = (folder / "results.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 10_000
    with pytest.raises(
        UserError, match="no run has a figure 'test/top1'; there are loss, val/top1"
    ):
        collect.report(list(made.values()), folder, "test/top1")
    with pytest.raises(UserError, match=r"'seed' is not swept; swept are optim.lr"):
        collect.report(list(made.values()), folder, against=["seed"])
    with pytest.raises(UserError, match=r"no run of .* has begun"):
        collect.report([made["new"]], folder)


def test_lines_of_the_plot(sweep):
    """One line for each value of the other key; runs that are not done are hollow."""
    Figure = pytest.importorskip("matplotlib.figure").Figure
    _, made = sweep
    rows, _ = collect.collect([made[name] for name in ("done", "done2", "running")])
    for row, decay in zip(rows, (0.5, 0.5, 1.0), strict=True):
        row["optim.layer_decay"] = decay
    axes = Figure().subplots()
    collect._plot_against(axes, rows, "optim.lr", ["optim.layer_decay"], "val/top1")
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    found = {line.get_label(): line.get_xydata().tolist() for line in lines}
    assert found == {"layer_decay 0.5": [[0.01, 0.7], [0.1, 0.6]], "layer_decay 1": [[1.0, 0.5]]}
    assert axes.get_xscale() == "log"
    faces = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert [face == "white" for face in faces] == [False, False, True]
    # Random points are not a line, and names have places in a row.
    for row, name in zip(rows, ("b", "a", "c"), strict=True):
        row |= {"optim.layer_decay": row["optim.lr"], "model": name}
    axes = Figure().subplots()
    collect._plot_against(axes, rows, "model", ["optim.layer_decay"], "val/top1")
    assert not any(line.get_linestyle() == "-" for line in axes.lines)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b", "c"]
