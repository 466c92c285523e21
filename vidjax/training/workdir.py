"""The workdir of a run: claimed by one process, for one config and its lists of videos."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from etils import epath
from flax import traverse_util

import vidjax
from vidjax import configlib, files, models, objectives, pretrained
from vidjax.card import Card, write_card
from vidjax.checkpoints import last_good
from vidjax.data.lists.digests import difference
from vidjax.errors import Again, Fault, UserError, disk_problem, first_line, some
from vidjax.evaluators import with_views
from vidjax.setup import Setup

_LOCK = "run.lock"
_LISTS = "lists.json"
_UNFINISHED = ("config.json.tmp", "config.tmp")  # the latter by older versions


def claim_run(workdir: epath.Path, setup: Setup) -> list[str]:
    """Claims the workdir for a run and writes its card; see `claim_workdir`.

    Returns:
        Notes on changes of its lists; see `check_same_lists`.

    Raises:
        UserError: the workdir cannot be this run's.
    """
    config = setup.config
    if config.profile and files.is_remote(workdir):
        raise UserError(
            f"config.profile = {config.profile} needs a --workdir on a disk, as the profiler "
            f"writes to disks only"
        )
    claim_workdir(workdir, configlib.plain(config), configlib.plain(configlib.base()))
    changes = check_same_lists(workdir, setup.splits.digests(), config.data.allow_changed_lists)
    provenance = {
        "source": config.init or "random",
        "format": "vidjax",
        "vidjax": vidjax.__version__,
        "objective": objectives.keywords(config),
        "kept": setup.kept,
    }
    if setup.license:
        provenance["license"] = setup.license
    card = Card(
        model=models.config_of(setup.model),
        preprocessing=with_views(setup.preprocessing, config.evals.to_dict()),
        classes=setup.splits.classes if setup.objective_class.learns_classes else None,
        provenance=provenance,
        tokenizer=setup.tokenizer and pretrained.keep_tokenizer(setup.tokenizer, workdir),
    )
    write_card(workdir, card)
    return changes


def claim_workdir(
    workdir: epath.Path, config: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Creates the workdir and its config.json, and locks it, but not in a bucket.

    How often to log, save or evaluate, and on how many devices and processes, may change between
    runs of one workdir; everything may until the first checkpoint.

    Args:
        workdir: new, empty, or with an earlier run of this config.
        config, defaults: plain values, see `check_same_run`.

    Raises:
        UserError: the workdir holds another run or something else, is in use by another process, or
            cannot be written.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        foreign = [name for name in _names(workdir) if name not in (_LOCK, *_UNFINISHED)]
        if foreign and not path.exists():
            raise UserError(
                f"workdir {workdir} is not empty and holds no run ({some(foreign)}); choose a "
                f"new folder"
            )
        _lock(workdir)
        if path.exists():
            check_same_run(path, config, defaults)
        files.write_whole(path, json.dumps(config, indent=1) + "\n")
    except (OSError, ImportError) as error:  # the latter of what reads buckets
        raise UserError(f"workdir {workdir} cannot be used: {error}") from None


def _names(folder: epath.Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:  # buckets have no empty folders
        return []


def _lock(workdir: epath.Path) -> None:
    if files.is_remote(workdir):
        return
    file = workdir / _LOCK
    owner = file.read_bytes().decode(errors="replace").strip() if file.exists() else ""
    files.lock(
        file,
        f"workdir {workdir} is in use by another run ({owner or 'another process'}); wait for it, "
        f"end it, or choose another --workdir",
    )
    file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")


def release_workdir(workdir: epath.Path) -> None:
    """Lets other processes claim the workdir."""
    files.unlock(workdir / _LOCK)


def check_workdir(workdir: epath.Path) -> None:
    """Raises UserError if a run's workdir was removed, before a writer creates it again."""
    if files.is_remote(workdir):
        return
    try:
        (workdir / "config.json").stat()
    except FileNotFoundError:
        raise UserError(
            f"workdir {workdir} was removed while the run wrote to it, with its checkpoints; start "
            f"the run again"
        ) from None
    except OSError:  # forbidden, or on a disk that is broken
        pass


@contextlib.contextmanager
def workdir_errors(workdir: epath.Path) -> Iterator[None]:
    """Turns the errors of a disk that is full, broken or forbidden into one sentence.

    Raises:
        UserError: the workdir cannot be written to, or was removed.
        Fault: a save timed out, as it does where the clock jumps.
    """
    try:
        yield
    except (UserError, Again):
        raise
    except Exception as error:
        check_workdir(workdir)
        if isinstance(error, TimeoutError):
            raise Fault(
                f"a checkpoint in {workdir} was not saved in time ({first_line(error)}; "
                f"{last_good(workdir)}); look whether the disk answers and whether the clock "
                f"jumped, and run the same command again"
            ) from error
        problem = disk_problem(error)
        without_name = isinstance(error, OSError) and error.filename is None
        if problem is None or not (without_name or str(workdir) in str(error)):
            raise
        raise UserError(
            f"{workdir} cannot be written to: {problem} ({last_good(workdir)}); mend that, or make "
            f"room, and run the same command again"
        ) from error


def check_same_run(
    path: epath.Path, config: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Raises UserError if `path` has another config than `config`, and its run has checkpoints.

    Keys that did not exist when the run began have the values of `defaults`, a whole config.
    """
    try:
        old, new = (_essential(c) for c in (json.loads(path.read_text()), config))
        old = (_essential(defaults) if defaults else {}) | old
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{path} is not the config of a run; choose another --workdir") from None
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    if changed and _has_checkpoints(path.parent):
        differs = some([f"{k} = {old.get(k)!r} there, {new.get(k)!r} now" for k in changed])
        raise UserError(
            f"workdir {path.parent} holds a run with another config ({differs}); choose another "
            f"--workdir, or the same config to continue that run"
        )


def _has_checkpoints(workdir: epath.Path) -> bool:
    return any(name.isdigit() for name in _names(workdir / "checkpoints"))


def check_same_lists(
    workdir: epath.Path, lists: dict[str, dict[str, Any]], allow: bool
) -> list[str]:
    """Compares a run's lists of videos with those that it started with, kept in lists.json.

    Like the config they may change until the first checkpoint. Runs that began before there was
    lists.json keep the lists that they have now.

    Args:
        workdir: of the run, claimed.
        lists: split -> its `vidjax.data.lists.digests.digests_of`.
        allow: whether they may change in the middle of a run.

    Returns:
        Notes on changes.

    Raises:
        UserError: there are changes, and `allow` is False.
    """
    path, old, changes = workdir / _LISTS, {}, []
    if path.exists() and _has_checkpoints(workdir):
        old, changes = _compare(path, lists)
        if changes and not allow:
            raise UserError(
                f"workdir {workdir} holds a run with other lists: {' and '.join(changes)}; put the "
                f"old ones back, choose another --workdir, or continue with the new ones by "
                f"--config.data.allow_changed_lists=True"
            )
    files.write_whole(path, json.dumps(old | lists, indent=1) + "\n")
    return [f"{change} since the run started" for change in changes]


def check_held_out(folder: epath.Path, held_out: dict[str, Any]) -> None:
    """Checks that videos held out of a list were not trained on; not of folders that no run made.

    Args:
        folder: workdir of the run that is evaluated.
        held_out: `vidjax.data.lists.digests.digests_of` the videos.

    Raises:
        UserError: the run was validated on others.
    """
    path = folder / _LISTS
    if not path.exists():
        return
    old, changes = _compare(path, {"val": held_out})
    if changes or "val" not in old:
        raise UserError(
            f"{folder} was validated on other videos than those held out of config.data.train now, "
            f"and may have been trained on these ({some(changes) or 'it held none out'}); give its "
            f"list, config.data.val_share and val_seed, or name other videos as config.data.val"
        )


def _compare(
    path: epath.Path, lists: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Returns the lists in a run's lists.json, and how `lists` differ from them.

    Raises:
        UserError: it is damaged.
    """
    try:
        old = json.loads(path.read_bytes())
        return old, [
            f"the list of config.data.{split} {change}"
            for split, facts in lists.items()
            if split in old and (change := difference(old[split], facts))
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{path} is damaged, so nothing tells whether the lists are those that the run "
            f"started with; if they are, delete that file"
        ) from None


def _essential(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the values that make a run what it is, by dotted key."""
    free = {"log_every", "writers", "checkpoint", "evals", "mesh"}
    free |= {"estimate", "profile", "nonfinite"}
    config = {key: value for key, value in config.items() if key not in free}
    free = {"workers", "patience", "reader", "cache", "allow_changed_lists"}
    config["data"] = {key: value for key, value in config["data"].items() if key not in free}
    return traverse_util.flatten_dict(config, sep=".")
