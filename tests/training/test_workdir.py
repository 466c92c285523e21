"""The workdir of a run: the same run, with the same lists."""

import functools
import json
import re

import pytest
from etils import epath

from vidjax import configlib
from vidjax.errors import UserError
from vidjax.setup import Setup
from vidjax.training.workdir import check_same_lists, check_same_run, claim_workdir, release_workdir


def test_what_a_killed_claim_left_is_no_other_run(tmp_path):
    for name in ("run.lock", "config.json.tmp", "config.tmp"):  # the last by older versions
        (tmp_path / name).touch()
    claim_workdir(epath.Path(tmp_path), {"seed": 0, "data": {}})
    release_workdir(epath.Path(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 0, "data": {}}


def test_a_run_that_is_older_than_a_key_goes_on(small, tmp_path):
    config = configlib.plain(small())
    old = json.loads(json.dumps(config))
    del old["optim"]["clip_parts"], old["data"]["mix_group"], old["data"]["mix_partners"]
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    path = epath.Path(tmp_path / "config.json")
    path.write_text(json.dumps(old))
    defaults = configlib.plain(configlib.base())
    check_same_run(path, config, defaults)
    config["optim"]["clip_parts"] = 8  # as its recipe has now
    with pytest.raises(UserError, match=r"optim.clip_parts = 1 there, 8 now"):
        check_same_run(path, config, defaults)


def _listed(small, folder, lines, **keys):
    (folder / "train.csv").write_text("".join(f"{line}\n" for line in lines))
    config = small(checkpoint__every=2, **keys)
    config.data.train, config.data.root = str(folder / "train.csv"), keys.get("root", "")
    return config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[::-1], "has the same videos in another order"),
        (lambda lines: lines[1:], "has 31 videos, not 32"),
        (lambda lines: [*lines, lines[0]], "has 33 videos, not 32"),
        (
            lambda lines: [*lines[:5], lines[5][:-1] + str(7 - int(lines[5][-1])), *lines[6:]],
            r"has other videos, labels or texts .the first difference is in entries 6 to 6.",
        ),
    ],
    ids=["order", "shorter", "longer", "label"],
)
def test_a_list_that_changed(small, demo_folder, tmp_path, change, message):
    lines = (demo_folder / "train.csv").read_text().splitlines()
    lines = [f"{demo_folder}/{line}" for line in lines if not line.startswith("path")]
    config, workdir = _listed(small, tmp_path, lines), tmp_path / "run"
    setup = Setup(config)
    claim_workdir(epath.Path(workdir), configlib.plain(config))
    check = functools.partial(check_same_lists, epath.Path(workdir))
    assert check(setup.splits.digests(), False) == []
    changed = Setup(_listed(small, tmp_path, change(lines))).splits.digests()
    assert check(changed, False) == []  # there is no checkpoint yet
    assert check(setup.splits.digests(), False) == []
    (workdir / "checkpoints/2").mkdir(parents=True)
    with pytest.raises(UserError, match=f"config.data.train {message}; put the old"):
        check(changed, False)
    assert check(setup.splits.digests(), False) == []
    assert re.search(f"train {message} since the run started", check(changed, True)[0])
    assert check(changed, False) == []  # which is the run's list now
    (workdir / "lists.json").write_text("{")
    with pytest.raises(UserError, match=r"lists.json is damaged"):
        check(changed, False)
    (workdir / "lists.json").unlink()  # as runs from before had none
    assert check(changed, False) == []
    release_workdir(epath.Path(workdir))
