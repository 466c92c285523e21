"""Runs that are killed at random moments end as if they never had been.

By pytest (marker slow) a few kills; as a program as many as wanted:

    python -m tests.scenarios.test_kill --kills=25 --processes=1
"""

import argparse
import collections
import pathlib
import random
import tempfile
import time

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.support.processes import SMALL, finish, kill, log, start
from vidjax import configlib, pretrained
from vidjax.journal import Journal

WHEN = ("a step", "a save", "the restore")


def killed(workdir: pathlib.Path, config: ConfigDict, processes: int, when: str, rng) -> str:
    """Starts a run and kills one of its processes; says when that was, or "finished"."""
    running = start(workdir, config, processes=processes)
    checkpoints, begun = workdir / "checkpoints", _steps(workdir)
    patience = rng.randrange(3)  # saves that are let through
    saved = _saves(checkpoints)
    delay = rng.random()
    while all(process.poll() is None for process in running):
        time.sleep(0.0005)
        if when == "the restore" and "start: continuing" in log(workdir):
            time.sleep(delay)
            break
        if when == "the restore" or len(_saves(checkpoints) - saved) < patience:
            continue
        if when == "a save" and any(checkpoints.glob("*.orbax-checkpoint-tmp")):
            time.sleep(delay * 0.05)
            break
        if when == "a step" and _steps(workdir) > begun:
            time.sleep(delay * 0.1)
            break
    else:
        codes = finish(running)
        assert codes == [0] * processes, log(workdir)
        return "finished"
    rng.choice(running).kill()
    deadline = time.monotonic() + 5  # the others notice by themselves, later
    while time.monotonic() < deadline and any(process.poll() is None for process in running):
        time.sleep(0.01)
    kill(running)
    half = any(checkpoints.glob("*.orbax-checkpoint-tmp")) if checkpoints.exists() else False
    return f"{when}, a save was under way" if half else when


def _steps(workdir: pathlib.Path) -> int:
    path = workdir / "metrics.jsonl"
    return max((entry["step"] for entry in Journal(path).read()), default=0) if path.exists() else 0


def _saves(checkpoints: pathlib.Path) -> set[str]:
    return {p.name for p in checkpoints.glob("[0-9]*") if p.name.isdigit()}


def run(folder: pathlib.Path, kills: int, processes: int, seed: int = 0) -> dict[str, int]:
    """Kills a run that often, compares its end with that of an uninterrupted one, says when."""
    rng, met = random.Random(seed), collections.Counter()
    config = configlib.load("configs/videomae_k400.py:demo")
    config.update_from_flattened_dict(SMALL | {"train_steps": 4 * kills, "checkpoint.every": 2})
    whole, workdir = folder / "whole", folder / "killed"
    assert finish(start(whole, config, processes=processes)) == [0] * processes, log(whole)
    for number in range(kills):
        when = WHEN[number % 3] if _saves(workdir / "checkpoints") else "a step"
        found = killed(workdir, config, processes, when, rng)
        met[found] += 1
        print(f"kill {number + 1}: {found}, at step {_steps(workdir)}", flush=True)
        assert found != "finished", "the run ended before its last kill"
    assert finish(start(workdir, config, processes=processes)) == [0] * processes, log(workdir)
    assert "continuing at step" in log(workdir)
    a, b = (pretrained.open_params(folder / name) for name in ("whole", "killed"))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    lines = [Journal(folder / name / "metrics.jsonl").read() for name in ("whole", "killed")]
    losses = [[(x["step"], x["loss"]) for x in entries if "loss" in x] for entries in lines]
    assert losses[0] == losses[1]
    return dict(met)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_runs_end_the_same(tmp_path, processes):
    assert sum(run(tmp_path, 6, processes).values()) == 6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        moments = run(pathlib.Path(scratch), options.kills, options.processes, options.seed)
    print(f"{options.kills} kills of a run of {options.processes} process(es): {moments}")
    print("parameters and losses equal those of the uninterrupted run, bit for bit")
