"""All writers as one, and copies that fail, hang or come back; without any service."""

import json
import threading
import time
import types
from typing import ClassVar

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from vidjax import writers
from vidjax.errors import UserError


class Kept(writers.Writer):
    """Keeps what it gets."""

    found: ClassVar[list["Kept"]]

    def __init__(self, start):
        self.found.append(self)
        self.start, self.calls, self.closed = start, [], False
        self.thread = threading.current_thread()

    def scalars(self, step, values):
        self.calls.append((step, values))

    def pictures(self, step, images):
        self.calls.append((step, images))

    def close(self):
        self.closed = True


@pytest.fixture
def build(tmp_path, monkeypatch):
    """build(writer classes by name, start_step) -> Writers."""

    def make(classes, start_step=0):
        monkeypatch.setattr(writers, "_load", classes.__getitem__)
        return writers.build(list(classes), epath.Path(tmp_path), start_step, {"seed": 0})

    return make


def made(**attributes):
    """A class like Kept, with the list `found` of its instances."""
    return type("Made", (Kept,), {"found": [], **attributes})


def fail(*args):
    raise ConnectionError("nobody answers")


def test_all_writers_get_all_in_order(build, tmp_path):
    own, copy = made(is_copy=False, known={"loss"}, place="here"), made()
    both = build({"own": own, "copy": copy})
    assert both.known == {"loss"} and both.places == ["here"]
    image = np.zeros((2, 3, 3), np.uint8)
    for step in (1, 2):
        both.scalars(step, {"loss": np.float32(0.5)})
        both.pictures(step, {"x": image})
    both.pictures(2, {})
    both.close()
    for (writer,) in (own.found, copy.found):
        assert writer.calls == [(s, x) for s in (1, 2) for x in ({"loss": 0.5}, {"x": image})]
        assert type(writer.calls[0][1]["loss"]) is float
        assert writer.closed and writer.start.config == {"seed": 0}
        assert writer.start.name == tmp_path.name
    assert own.found[0].thread is threading.main_thread() is not copy.found[0].thread


def test_other_processes_write_nothing(build, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    nothing = build({"copy": made(__init__=fail)})
    nothing.scalars(1, {"loss": 1.0})
    nothing.pictures(1, {"x": np.zeros((1, 1, 3), np.uint8)})
    assert nothing.known == set() and nothing.places == []
    nothing.close()


@pytest.mark.parametrize("method", ["__init__", "scalars", "pictures", "close"])
def test_a_copy_that_fails_is_left_out(build, capsys, method):
    """Whenever that is; it is noted once, and other copies go on."""
    own, good = made(is_copy=False), made()
    three = build({"own": own, "bad": made(**{method: fail}), "good": good})
    for step in (1, 2):
        three.scalars(step, {"loss": 1.0})
        three.pictures(step, {"x": np.zeros((1, 1, 3), np.uint8)})
    three.close()
    assert len(own.found[0].calls) == len(good.found[0].calls) == 4
    note = "the run goes on without the writer bad, which failed (ConnectionError: nobody answers)"
    assert capsys.readouterr().err == f"note: {note}\n"


def test_errors_of_the_own_record_are_the_runs(build):
    own = build({"own": made(is_copy=False, scalars=fail), "good": made()})
    with pytest.raises(ConnectionError):
        own.scalars(1, {"loss": 1.0})
    with pytest.raises(ConnectionError):
        build({"own": made(is_copy=False, __init__=fail)})


def test_a_copy_that_hangs_holds_nothing_up(build, monkeypatch, capsys):
    monkeypatch.setattr(writers, "_CLOSE_SECONDS", 0.2)
    end, begin = threading.Event(), time.monotonic()
    slow = build({"slow": made(scalars=lambda *_: end.wait(60))})
    for step in (1, 2):
        slow.scalars(step, {"loss": 1.0})
    slow.close()
    assert time.monotonic() - begin < 10
    note = "writer slow, which failed (it did not finish within 0.2 seconds)"
    assert capsys.readouterr().err.count(note) == 1
    end.set()


def test_a_copy_that_lags_behind_is_left_out(build, monkeypatch, capsys):
    monkeypatch.setattr(writers, "_QUEUED", 10)
    end, slow = threading.Event(), made()
    slow.__init__ = lambda self, start: end.wait(60)
    lagging = build({"slow": slow})
    for step in range(20):
        lagging.scalars(step, {"loss": 1.0})
    assert "writer slow, which failed (it is 10 entries behind)" in capsys.readouterr().err
    end.set()
    lagging.close()
    assert capsys.readouterr().err == ""


def test_repeated_steps_are_not_written_twice(build):
    """But for the last one, of which an evaluation may be missing."""
    copy = made(last_step=6)
    again = build({"copy": copy}, start_step=4)
    for step in (5, 6, 7):
        again.scalars(step, {"loss": 1.0})
    again.close()
    assert [step for step, _ in copy.found[0].calls] == [6, 7]


def test_ids_of_services_are_kept(tmp_path):
    """But not for a run that starts from step 0, which is another one."""
    first, later = (writers.Start(epath.Path(tmp_path), "a", step, {}) for step in (0, 4))
    assert later.service_id("x") == ""
    first.keep_id("x", "12")
    assert first.service_id("x") == "" and later.service_id("x") == "12"
    assert later.service_id("y") == ""


def test_packages_that_are_not_installed(tmp_path, monkeypatch):
    def no_package(name):
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr(writers, "importlib", types.SimpleNamespace(import_module=no_package))
    with pytest.raises(UserError, match=r"'wandb', which .*No module .* pip install 'vidjax.wandb"):
        writers.build(["wandb"], epath.Path(tmp_path), 0, {})


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("jsonl", "wndb"), r"'wndb', which is no writer; did you mean 'wandb'\?"),
        (("paper",), "'paper', which is no writer; there are jsonl, mlflow, tensorboard, trackio"),
        ("wandb", r"a tuple of different names, such as .* not 'wandb'"),
        (("jsonl", "jsonl"), "a tuple of different names"),
    ],
)
def test_wrong_names_are_answered(chosen, message):
    with pytest.raises(UserError, match=message):
        writers.check(chosen)


def test_lines_of_repeated_steps_are_dropped(tmp_path):
    folder = epath.Path(tmp_path)
    first = writers.build(["jsonl"], folder, 0, {})
    assert first.known == set()
    for step in (1, 2, 3):
        first.scalars(step, {"loss": float("inf") if step == 1 else step, "val/top1": 0.5})
    again = writers.build(["jsonl"], folder, 2, {})
    assert again.known == {"step", "loss", "val/top1"}
    again.scalars(3, {"loss": 3.5})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["loss"] for line in lines] == [None, 2.0, 3.5]


def test_pictures_are_png_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    writers.build(["jsonl"], epath.Path(tmp_path), 0, {}).pictures(7, {"x": image, "val/y": image})
    for name in ("x_7.png", "val_y_7.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name)), image)
