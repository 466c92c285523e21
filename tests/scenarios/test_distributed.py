"""Runs of several processes: real ones, which find each other over the loopback device."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.support.processes import finish, log, start
from vidjax import pretrained, sharding, train
from vidjax.errors import UserError
from vidjax.journal import Journal


def test_two_processes_continue_a_run_of_one(small, tmp_path):
    """The losses are those of one process, and so is the evaluation, which sees each video once;
    what the two save, one restores. That what is restored is what was saved, bit for bit, the
    checkpoint itself checks (see test_faults)."""
    config = small(log_every=1, checkpoint__every=2)
    config.evals = {"val": {"name": "loss", "every": 100}}
    whole = train.train(config, tmp_path / "one")
    (tmp_path / "two/checkpoints").mkdir(parents=True)
    for name in ("config.json", "model.json", "checkpoints/2"):
        copy = shutil.copytree if name.startswith("checkpoints") else shutil.copy
        copy(tmp_path / "one" / name, tmp_path / "two" / name)
    config.mesh.update(data=2, fsdp=4)
    codes = finish(start(tmp_path / "two", config, processes=2))
    assert codes == [0, 0], log(tmp_path / "two") + log(tmp_path / "two", 1)

    one, two = (Journal(tmp_path / name / "metrics.jsonl").read() for name in ("one", "two"))
    losses = [[x["loss"] for x in lines if "loss" in x] for lines in (one[2:], two)]
    assert len(losses[1]) == 2
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert one[-1]["val/videos"] == two[-1]["val/videos"] == 16
    np.testing.assert_allclose(two[-1]["val/loss"], one[-1]["val/loss"], rtol=1e-5)
    # The second process is silent.
    assert "2 x cpu" not in log(tmp_path / "two") and "8 x cpu" in log(tmp_path / "two")
    assert "step" not in log(tmp_path / "two", 1)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)

    jax.tree.map(close, pretrained.load_params(tmp_path / "two"), whole.params)


def test_no_process_waits_for_one_that_lacks_a_package(small, tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise ImportError('no W&B')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    config = small(writers=("jsonl", "wandb"))
    assert finish(start(tmp_path / "run", config, processes=2), seconds=60) == [2, 2]
    for index in range(2):
        assert "config.writers has 'wandb', which cannot be imported" in log(
            tmp_path / "run", index
        )


def test_shares():
    # Two hosts of four devices each, data x tensor = 4 x 2; then tensor 8; then rows in disorder.
    assert sharding.share_of(1, {0: {0, 1}, 1: {2, 3}}, 4) == sharding.Share(1, 2, (2, 3), 4)
    assert sharding.share_of(1, {0: {0}, 1: {0}}, 1) == sharding.Share(0, 1, (0,), 1)
    share = sharding.share_of(0, {0: {0, 3}, 1: {1, 2}}, 4)
    assert share.rows(8).tolist() == [0, 1, 6, 7]
    for parts in ({0: {0, 1}, 1: {1, 2}}, {0: {0, 1}, 1: {2}}):
        with pytest.raises(UserError, match=r"3 parts, which 2 processes share unevenly"):
            sharding.share_of(0, parts, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "needs all of --coordinator"),
        (["--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], "did not find"),
    ],
)
def test_wrong_flags(flags, message):
    command = [sys.executable, "-m", "vidjax.train", "--config=configs/videomae_k400.py:demo"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1]
