"""Services that are installed by extras, each on this machine alone; skipped where they are not.

pip install -e '.[dev,wandb,mlflow,trackio]' && pytest tests/writers
"""

import json
import sqlite3
import struct
import sys
import time

import numpy as np
import pytest
from etils import epath
from PIL import Image

from vidjax import writers

CONFIG = {"seed": 0, "model": {"name": "x", "patch_size": [2, 8, 8], "variant": None}}
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture(autouse=True)
def _on_a_busy_machine(monkeypatch):
    """Services start in their time; wandb reads its variables anew in each test."""
    monkeypatch.setattr(writers, "_CLOSE_SECONDS", 120.0)
    yield
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()


def write(name, folder, start_step, last_step, config=CONFIG):
    """One start of a run in `folder`; its picture is of the last step."""
    folder.mkdir(exist_ok=True)
    service = writers.build([name], epath.Path(folder), start_step, config)
    for step in range(start_step + 1, last_step + 1):
        service.scalars(step, {"loss": 1 / step, "val/top1": float("nan")})
    service.pictures(last_step, {"reconstruction": IMAGE})
    service.close()


def no_failure(capfd):
    assert "goes on without" not in capfd.readouterr().err


def wandb_records(path):
    """The records of a .wandb file: LevelDB's log, after 7 bytes, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:  # too little for a head
            at += 2**15 - at % 2**15
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(record)
            record = b""


def test_wandb_offline(tmp_path, monkeypatch, capfd):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    write("wandb", folder, 0, 6)
    time.sleep(1.0)  # as names of offline runs count seconds
    write("wandb", folder, 4, 8)
    no_failure(capfd)
    wandb.teardown()  # its service may still be writing
    ids, rows = [], []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in wandb_records(path):
            if record.HasField("run"):
                ids.append((record.run.run_id, record.run.display_name, record.run.project))
                config = {item.key: item.value_json for item in record.run.config.update}
                assert json.loads(config["model"]) == CONFIG["model"]
            if record.HasField("history"):
                items = record.history.item
                rows.append({"/".join(i.nested_key) or i.key: i.value_json for i in items})
    kept = (folder / "wandb_run.txt").read_text().strip()
    assert len(ids) == 2 and set(ids) == {(kept, "run", "vidjax")}
    steps = [int(row["step"]) for row in rows if "loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]  # offline it cannot ask what there is
    assert {row["val/top1"] for row in rows if "loss" in row} == {"NaN"}
    pictures = sorted(folder.glob("wandb/offline-run-*/files/media/images/reconstruction_*.png"))
    assert len(pictures) == 2
    for path in pictures:
        np.testing.assert_array_equal(np.asarray(Image.open(path)), IMAGE)
    write("wandb", folder, 0, 1)  # from the beginning again
    assert (folder / "wandb_run.txt").read_text().strip() != kept


def test_mlflow_in_a_folder(tmp_path, monkeypatch, capfd):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    folder = tmp_path / "run"
    write("mlflow", folder, 0, 6)
    write("mlflow", folder, 4, 8, CONFIG | {"seed": 1, "log_every": 2})
    no_failure(capfd)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("vidjax")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run" and run.info.status == "FINISHED"
    assert run.data.params["model.patch_size"] == "[2, 8, 8]"
    assert run.data.params["seed"] == "0" and run.data.params["log_every"] == "2"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6, 6, 7, 8]
    assert all(np.isnan(m.value) for m in client.get_metric_history(run.info.run_id, "val/top1"))
    files = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
    pictures = sorted(path for path in files if path.endswith(".png"))
    assert ["step+6" in pictures[0], "step+8" in pictures[1]] == [True, True]
    path = client.download_artifacts(run.info.run_id, pictures[0], tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), IMAGE)


def test_trackio_in_a_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    folder = tmp_path / "run"
    write("trackio", folder, 0, 6)
    write("trackio", tmp_path / "other", 0, 2)
    write("trackio", folder, 4, 8)
    no_failure(capfd)
    name = (folder / "trackio_run.txt").read_text().strip()
    assert name.startswith("run-")
    with sqlite3.connect(tmp_path / "trackio/vidjax.db") as base:
        rows = base.execute("select run_name, run_id, step, metrics from metrics order by id")
        rows = [row for row in rows if row[0] == name]
    assert len({run_id for _, run_id, _, _ in rows}) == 1
    steps = [step for _, _, step, metrics in rows if "loss" in json.loads(metrics)]
    assert steps == [1, 2, 3, 4, 5, 6, 6, 7, 8]
    pictures = sorted((tmp_path / "trackio/media").rglob(f"{name}/*/*.png"))
    assert [path.parent.name for path in pictures] == ["6", "8"]
    np.testing.assert_array_equal(np.asarray(Image.open(pictures[0]).convert("RGB")), IMAGE)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_service_that_cannot_be_reached(tmp_path, monkeypatch, capfd, name):
    """Without a key, or with nobody at its address: one note."""
    pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    write(name, tmp_path / "run", 0, 2)
    assert capfd.readouterr().err.count(f"goes on without the writer {name}") == 1
