"""Faults in long runs, and what is left then: all that was saved, and a clear sentence."""

import errno
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from tests.support.processes import finish, log, start
from vidjax import configlib, pretrained, train
from vidjax.card import read_card
from vidjax.checkpoints import Checkpoints
from vidjax.errors import EXIT_AGAIN, Again, Fault, UserError
from vidjax.journal import Journal
from vidjax.params import FINGERPRINTS
from vidjax.training.nonfinite import MAX_SKIPS
from vidjax.training.report import Report
from vidjax.training.step import TrainState, make_train_step
from vidjax.training.workdir import claim_workdir, release_workdir
from vidjax.writers.jsonl import Jsonl


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def a_run(small, tmp_path_factory):
    """The workdir and the last state of a run that saved steps 2 and 4."""
    config = small(checkpoint__every=2)
    workdir = tmp_path_factory.mktemp("faults") / "run"
    return config, workdir, train.train(config, workdir)


@pytest.fixture
def copy(a_run, tmp_path):
    """A copy of that run, to be damaged."""
    config, workdir, _ = a_run
    shutil.copytree(workdir, tmp_path / "run")
    return config, tmp_path / "run"


def at(step, action, monkeypatch):
    """Calls `action` when that step is reported."""
    report = Report.step

    def wrapped(self, now, *args):
        report(self, now, *args)
        if now == step:
            action()

    monkeypatch.setattr(Report, "step", wrapped)


def test_sigterm_saves_and_the_same_command_goes_on(small, a_run, tmp_path, monkeypatch):
    config = small(log_every=1, profile=(2, 10))
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at(2, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        with pytest.raises(Again, match="step 3 is saved, the same command continues"):
            train.train(config, tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["3"]
    assert any((tmp_path / "run/profile").rglob("*.xplane.pb"))  # of the steps there were
    assert_same(train.train(config, tmp_path / "run"), a_run[2])


def test_sigterm_in_an_evaluation(small, tmp_path, monkeypatch):
    """It saves the step, and the evaluation, which is not done, is done by the next command."""
    config = small(log_every=1)
    config.evals = {"val": {"name": "loss", "every": 2}}
    with monkeypatch.context() as patch:
        at(2, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        with pytest.raises(Again, match="step 2 is saved"):
            train.train(config, tmp_path / "run")
    train.train(config, tmp_path / "run")
    lines = Journal(tmp_path / "run/metrics.jsonl").read()
    assert [x["step"] for x in lines if "val/loss" in x] == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_from_outside(small, tmp_path, processes):
    """To one process of the run: all save the same step, end, and go on."""
    config, workdir = small(log_every=1, train_steps=40), tmp_path / "run"
    running = start(workdir, config, processes=processes)
    while "step 2/" not in log(workdir):
        assert running[0].poll() is None, log(workdir)
    running[-1].terminate()
    assert finish(running) == [EXIT_AGAIN] * processes
    said = [log(workdir, k).splitlines()[-1] for k in range(processes)]
    assert "is saved, the same command continues" in said[0] and len(set(said)) == 1
    assert finish(start(workdir, config, processes=processes)) == [0] * processes
    assert finish(start(tmp_path / "whole", config, processes=processes)) == [0] * processes
    assert_same(*map(pretrained.load_params, (workdir, tmp_path / "whole")))


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(small, tmp_path):
    config, workdir = small(log_every=1, train_steps=40), tmp_path / "run"
    running = start(workdir, config)
    while "step 2/" not in log(workdir):
        assert running[0].poll() is None, log(workdir)
    running[0].send_signal(signal.SIGINT)
    assert finish(running) == [130]
    last = log(workdir).splitlines()[-1]
    assert re.fullmatch(r"interrupted: step \d+ is saved, the same command continues.*", last)
    assert finish(start(workdir, config)) == [0]
    assert finish(start(tmp_path / "whole", config)) == [0]
    assert_same(*map(pretrained.load_params, (workdir, tmp_path / "whole")))


def test_the_exit_code_of_a_preempted_run():
    program = """if True:
        from vidjax import errors
        def main(argv): raise errors.Again("asked to end")
        errors.run_main(main)"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (EXIT_AGAIN, "asked to end\n")


def test_a_step_that_is_not_finite_changes_nothing_but_the_step():
    class Objective:
        def loss(self, params, batch, *, rng, ema_params=None):
            return (params["w"] * batch["x"]).sum(), {}

    optimizer, params = optax.adam(0.1), {"w": jnp.float32(2.0)}
    step = make_train_step(Objective(), optimizer, skip_nonfinite=True, ema_decay=0.5)
    state = TrainState(jnp.int32(0), params, optimizer.init(params), {"w": jnp.float32(2.0)})
    state, figures = step(state, {"x": jnp.float32([1.0])})
    good = jax.device_get(state)
    assert figures["finite"] and good.params["w"] < 2
    state, figures = step(state, {"x": jnp.float32([np.nan])})
    assert not figures["finite"]
    assert_same(jax.device_get(state), good.replace(step=2))
    state, figures = step(state, {"x": jnp.float32([1.0])})
    assert figures["finite"] and state.params["w"] < good.params["w"]


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_a_loss_that_is_not_finite(small, tmp_path, nonfinite):
    config = small(train_steps=40, log_every=100, nonfinite=nonfinite, optim__lr=1e30)
    config.checkpoint.every = {"stop": 1, "skip": 20}[nonfinite]
    with pytest.raises(UserError, match="at step") as error:
        train.train(config, tmp_path / "run")
    found = Journal(tmp_path / "run/nonfinite.jsonl").read()
    assert len(found) == {"stop": 1, "skip": MAX_SKIPS}[nonfinite]
    steps = [entry["step"] for entry in found]
    assert f"step {steps[-1]}" in str(error.value)
    # The first one is told, as it comes, with its figures and its 16 videos.
    assert len(found[0]["videos"]) == 16 and found[0]["videos"][0].endswith(".mp4")
    assert found[0]["loss"] in ("nan", "inf") or found[0]["grad_norm"] in ("nan", "inf")
    lines = Journal(tmp_path / "run/metrics.jsonl").read()
    assert lines[-1]["step"] == steps[-1]
    kept = [int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()]
    if nonfinite == "stop":
        assert max(kept) == steps[0] - 1 and f"checkpoint {max(kept)} is good" in str(error.value)
    params = pretrained.load_params(tmp_path / "run")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_a_flipped_bit_anywhere_is_noticed(a_run, copy):
    config, workdir = copy
    files = [p for p in (workdir / "checkpoints/4").rglob("d/*") if p.is_file()]
    big = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(big.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content), size=3).tolist():
        content[place] ^= 1 << int(rng.integers(8))
        big.write_bytes(content)
        with pytest.raises(UserError, match=r"delete that folder to continue from an older one"):
            train.train(config, workdir)
        content[place] ^= content[place] ^ big.read_bytes()[place]
    shutil.rmtree(workdir / "checkpoints/4")
    assert_same(train.train(config, workdir), a_run[2])


def test_a_checkpoint_without_a_file(copy):
    config, workdir = copy
    (workdir / "checkpoints/4/default/_METADATA").unlink()
    with pytest.raises(UserError, match=r"checkpoints/4 cannot be read .* older one"):
        train.train(config, workdir)


def test_a_checkpoint_copied_over_another(a_run, copy):
    config, workdir = copy
    (workdir / "checkpoints/4").rename(workdir / "checkpoints/3")
    shutil.copytree(workdir / "checkpoints/2", workdir / "checkpoints/4")
    with pytest.raises(UserError, match=r"checkpoints/4 holds step 2, not 4.*delete that"):
        train.train(config, workdir)


def _without_fingerprints(folder, *left_out):
    path = folder / "default/_METADATA"
    content = json.loads(path.read_text())
    prints = content["custom_metadata"][FINGERPRINTS]
    content["custom_metadata"][FINGERPRINTS] = {
        key: value for key, value in prints.items() if left_out and key not in left_out
    }
    path.write_text(json.dumps(content))


def test_fingerprints_that_are_missing(a_run, copy, capsys):
    config, workdir = copy
    _without_fingerprints(workdir / "checkpoints/4", "step")
    with pytest.raises(UserError, match=r"checkpoints/4 is damaged: .* was saved .step."):
        train.train(config, workdir)
    _without_fingerprints(workdir / "checkpoints/4")  # as the first versions wrote them
    assert_same(train.train(config, workdir), a_run[2])
    assert "checkpoints/4 has no fingerprints, so damage is not noticed" in capsys.readouterr().err


def test_a_run_stops_at_a_changed_list(a_run, copy):
    config, workdir = copy
    facts = json.loads((workdir / "lists.json").read_text())
    facts["train"] |= {"digest": "0" * 64}
    (workdir / "lists.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="in another order; put the old ones back"):
        train.train(config, workdir)
    config = config.copy_and_resolve_references()
    config.data.allow_changed_lists = True
    assert_same(train.train(config, workdir), a_run[2])


def test_damaged_side_files(a_run, copy, capsys):
    """Broken lines are left out, and everything else stays."""
    config, workdir = copy
    good = Journal(workdir / "metrics.jsonl").read()
    garbage = b'\xff\xfe\x00\n[1, 2]\n{"step": "3"}\n{"path": 7}\n' + b"[" * 100_000 + b"\n"
    for name in ("metrics.jsonl", "bad_videos.jsonl", "nonfinite.jsonl"):
        with open(workdir / name, "ab") as file:
            file.write(garbage)
    for value in (b"\xff", b"[]", b'{"figure": "", "best_is": "max", "step": 4, "value": "x"}'):
        (workdir / "best.json").write_bytes(value)
        assert_same(train.train(config, workdir), a_run[2])
    assert Journal(workdir / "metrics.jsonl").read()[: len(good)] == good
    err = capsys.readouterr().err
    assert re.search(r"note: 5 of \d+ lines of \S*metrics.jsonl are damaged and left out", err)
    assert re.search(r"note: 5 of \d+ lines of \S*bad_videos.jsonl are damaged", err)
    (workdir / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config.json is not the config of a run"):
        train.train(config, workdir)


def test_events_that_cannot_be_written(small, a_run, tmp_path, monkeypatch, capsys):
    """The run goes on without them, whenever that begins, at a full disk or a clock that jumps."""
    from tensorboardX import event_file_writer

    def fail(self, event):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = small(log_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(event_file_writer.EventsWriter, "write_event", fail)
        train.train(config, tmp_path / "never")
    write, jump = event_file_writer.EventsWriter.write_event, time.time() - 3e6

    def later(self, event):
        if event.step == 3:
            fail(self, event)
        write(self, event)

    with monkeypatch.context() as patch:
        at(2, lambda: patch.setattr(time, "time", lambda: jump), patch)
        patch.setattr(event_file_writer.EventsWriter, "write_event", later)
        assert_same(train.train(config, tmp_path / "later"), a_run[2])
    assert capsys.readouterr().err.count("goes on without the writer tensorboard") == 2
    for name in ("never", "later"):
        lines = Journal(tmp_path / name / "metrics.jsonl").read()
        assert [x["step"] for x in lines if "lr" in x] == [1, 2, 3, 4]


def test_a_save_that_times_out(small, tmp_path, monkeypatch):
    """A timeout, such as where the clock jumps, is the machine's fault."""
    config = small(checkpoint__every=2)

    def wait(self):
        raise TimeoutError("1800000.1 seconds")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "wait", wait)
        with pytest.raises(Fault, match=r"was not saved in time .*run the same command"):
            train.train(config, tmp_path / "run")


def test_a_workdir_that_is_removed(small, tmp_path, monkeypatch):
    config = small(log_every=1, checkpoint__every=1)
    at(2, lambda: shutil.rmtree(tmp_path / "run", ignore_errors=True), monkeypatch)
    with pytest.raises(UserError, match="run was removed while the run wrote to it"):
        train.train(config, tmp_path / "run")


def test_a_half_written_checkpoint_is_none(a_run, copy):
    config, workdir = copy
    half = workdir / "checkpoints/4.orbax-checkpoint-tmp"
    (workdir / "checkpoints/4").rename(half)
    (workdir / "DONE").unlink()
    assert_same(train.train(config, workdir), a_run[2])
    assert not half.exists()


def test_converted_parameters_are_checked_too(a_run, tmp_path):
    card = read_card(a_run[1])
    pretrained.save_pretrained(tmp_path / "m", a_run[2].params, card)
    files = [p for p in (tmp_path / "m/params").rglob("d/*") if p.is_file()]
    big = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(big.read_bytes())
    content[len(content) // 2] ^= 16
    big.write_bytes(content)
    with pytest.raises(UserError, match="are damaged"):
        pretrained.load_params(tmp_path / "m")


def test_two_runs_on_one_workdir(a_run):
    config, workdir, _ = a_run
    with open(workdir / "run.lock") as other:  # as another process has it
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"is in use by another run .process"):
            train.train(config, workdir)
    claim_workdir(epath.Path(workdir), configlib.plain(config))
    release_workdir(epath.Path(workdir))


def test_a_workdir_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/run", "/proc/vidjax"):
        with pytest.raises(UserError, match=f"workdir {path} cannot be used"):
            train.train(small(), path)


def test_a_full_disk_in_the_middle(a_run, small, tmp_path, monkeypatch):
    config = small(log_every=1, checkpoint__every=2)
    write = Jsonl.scalars

    def full(self, step, values):
        if step == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, step, values)

    with monkeypatch.context() as patch:
        patch.setattr(Jsonl, "scalars", full)
        with pytest.raises(UserError, match=r"No space left on device .checkpoint 2 is good"):
            train.train(config, tmp_path / "run")
    assert_same(train.train(config, tmp_path / "run"), a_run[2])


@pytest.mark.slow
def test_a_disk_that_is_really_full(small, tmp_path):
    """A file system of 3 MB in memory, on which checkpoints of 0.6 MB pile up."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mounted)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    config = small(train_steps=30, checkpoint__every=1, checkpoint__keep=30)
    workdir = tmp_path / "run"
    (mounted / "run").mkdir()
    workdir.symlink_to(mounted / "run")
    try:
        assert finish(start(workdir, config, devices=1)) == [2]
        assert "No space left on device (checkpoint" in log(workdir).splitlines()[-1]
        subprocess.run(["mount", "-o", "remount,size=100m", str(mounted)], check=True)
        assert finish(start(workdir, config, devices=1)) == [0]
        assert "continuing at step" in log(workdir)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_the_best_checkpoint_is_kept(small, tmp_path):
    config = small()
    config.evals = {"val": {"name": "loss", "every": 1}}
    config.checkpoint.update(keep=1, best="val/loss", best_is="max")  # the first of a falling loss
    train.train(config, tmp_path / "run")
    lines = Journal(tmp_path / "run/metrics.jsonl").read()
    values = {x["step"]: x["val/loss"] for x in lines if "val/loss" in x}
    best = max(values, key=values.get)
    assert best < 4
    found = json.loads((tmp_path / "run/best.json").read_text())
    assert (found["step"], found["figure"], found["value"]) == (best, "val/loss", values[best])
    # What was best of another figure says nothing, nor does one whose checkpoint is gone.
    of = functools.partial(Checkpoints, epath.Path(tmp_path / "run"), 1)
    assert of("val/loss", "max").best == found
    assert of("val/top1", "max").best is None and of("val/loss", "min").best is None
    shutil.copy(tmp_path / "run/best.json", tmp_path)
    assert Checkpoints(epath.Path(tmp_path), 1, "val/loss", "max").best is None
    folder = tmp_path / "run/checkpoints"
    assert {p.name for p in folder.iterdir()} == {str(best), "4"}
    ours, last = (pretrained.load_params(folder / str(step)) for step in (best, 4))
    assert_same(last, pretrained.load_params(tmp_path / "run"))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (ours, last)), strict=True))
    assert read_card(folder / str(best)) == read_card(tmp_path / "run")


def test_wrong_settings(small, tmp_path):
    for key, value, message in (
        ("checkpoint__best", "val/loss", "best must be a metric of one of config.evals"),
        ("checkpoint__best_is", "most", "best_is must be max or min"),
        ("nonfinite", "go", "nonfinite must be stop or skip"),
        ("profile", (3,), "profile must be the first and the last step"),
        ("profile", (3, 2), "profile must be the first and the last step"),
    ):
        with pytest.raises(UserError, match=message):
            train.train(small(**{key: value}), tmp_path / "run")
    config = small()
    config.evals = {"val": {"name": "loss", "every": 1}}
    config.checkpoint.best = "val/top1"
    with pytest.raises(UserError, match="is 'val/top1', but the metrics are val/loss"):
        train.train(config, tmp_path / "run")
