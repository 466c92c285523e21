"""Saving and restoring a run with Orbax, and taking parameters over from another model."""

import contextlib
import json
import math
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from vidjax import locks
from vidjax.errors import Again, Fault, UserError, disk_problem, first_line

Params = Any

FINGERPRINTS = "fingerprints"  # key of a checkpoint's metadata


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints/<step>`: the latest, and the best.

    Written in the background by all processes, each its share, and renamed when complete: a killed
    run leaves whole ones only. What was saved is compared with what is restored, see
    `fingerprints`.

    Args:
        workdir: the run's.
        keep: how many of the latest.
        figure: that tells the best one, "" if none does.
        best_is: "max" or "min".

    Attributes:
        best: {"step", "figure", "best_is", "value"} of the best so far, or None.
    """

    def __init__(self, workdir: epath.Path, keep: int, figure: str = "", best_is: str = "max"):
        self.folder = workdir / "checkpoints"
        self._keep, self._figure, self._best_is = keep, figure, best_is
        self._best_path = workdir / "best.json"
        self._saved: int | None = None
        self.best = self._known_best()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )
        self._fingerprints = jax.jit(fingerprints)

    def _known_best(self) -> dict[str, Any] | None:
        try:
            best = json.loads(self._best_path.read_text())
            same = (best["figure"], best["best_is"]) == (self._figure, self._best_is)
            same = same and math.isfinite(best["value"])
            return best if same and (self.folder / str(best["step"])).exists() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Orbax's question which checkpoints to keep."""
        best, first = self.best and self.best["step"], len(checkpoints) - self._keep
        return [i >= first or checkpoint.step == best for i, checkpoint in enumerate(checkpoints)]

    def judge(self, step: int, value: float) -> None:
        """Makes the checkpoint of `step`, the latest, the best one if its `value` is."""
        better = {"max": max, "min": min}[self._best_is]
        if not math.isfinite(value):
            return
        if self.best and better(value, self.best["value"]) == self.best["value"]:
            return
        self.wait()  # else a kill could leave the name of one that does not exist
        self.best = {"step": step, "figure": self._figure, "best_is": self._best_is, "value": value}
        if jax.process_index() == 0:
            write_whole(self._best_path, json.dumps(self.best) + "\n")

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Begins to save, once; returns when `state` may be given away."""
        if step == self._saved:
            return
        self._saved = step
        prints = {path: int(x) for path, x in jax.device_get(self._fingerprints(state)).items()}
        args = ocp.args.StandardSave(state, custom_metadata={FINGERPRINTS: prints})
        self._manager.save(step, args=args, force=True)

    def restore(self, step: int, target: Any) -> Any:
        """Restores a state onto the shapes, dtypes and shardings of `target`.

        Raises:
            UserError: the checkpoint is damaged, is of another step, or has other parameters than
                `target`.
        """
        folder = self.folder / str(step)
        try:
            saved = self._manager.item_metadata(step).tree
            if problems := differences(flatten(saved), flatten(target)):
                raise UserError(
                    f"checkpoint {folder} does not fit this config's model and optimizer: "
                    f"{some(sorted(problems))}; use the config it was made with, or another "
                    f"--workdir"
                )
            state = self._manager.restore(step, args=ocp.args.StandardRestore(target))
            now = jax.device_get(self._fingerprints(state))
            then = (self._manager.item_metadata(step).custom_metadata or {}).get(FINGERPRINTS, {})
            note_missing_prints(folder, then)
            if then and (wrong := sorted(path for path in now if now[path] != then.get(path))):
                raise UserError(
                    f"checkpoint {folder} is damaged: what is read is not what was saved "
                    f"({some(wrong)}); delete that folder to continue from an older one"
                )
            if (found := int(state.step)) != step:
                raise UserError(
                    f"checkpoint {folder} holds step {found}, not {step}: another one was copied "
                    f"over it; delete that folder to continue from an older one"
                )
            self._saved = step
            return state
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"checkpoint {folder} cannot be read ({type(error).__name__}: "
                f"{first_line(error)}); if it is damaged, delete that folder to continue from an "
                f"older one"
            ) from error

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


@contextlib.contextmanager
def disk_errors(workdir: epath.Path) -> Iterator[None]:
    """Says in a sentence what a disk that is full, broken or forbidden says in a thousand lines.

    Raises:
        UserError: of an exception about writing to the workdir, or from when that was removed.
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


def check_workdir(workdir: epath.Path) -> None:
    """Raises a UserError if a run's workdir was removed, which what writes to it may make anew."""
    if "://" in str(workdir):
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


def last_good(workdir: epath.Path) -> str:
    """A few words about the newest checkpoint."""
    folder = workdir / "checkpoints"
    steps = ocp.utils.checkpoint_steps(folder) if folder.exists() else []
    return f"checkpoint {max(steps)} is good" if steps else "there is no checkpoint yet"


def fingerprints(tree: Any) -> dict[str, jax.Array]:
    """A number for each array of a tree, uint32 [], which differs if a bit of it differs.

    It is the sum of the array's words, each times an odd number that tells its place. Sums of
    integers wrap around and do not depend on their order, so a number is the same on any mesh. A
    single wrong word always changes it; of more, one case in four billion would be missed.
    """

    def one(x: jax.Array) -> jax.Array:
        words = jax.lax.bitcast_convert_type(x.astype("uint8") if x.dtype == bool else x, _word(x))
        place = jnp.zeros(words.shape, jnp.uint32)
        for axis, size in enumerate(words.shape):
            place = place * np.uint32(size % 2**32) + jax.lax.broadcasted_iota(
                jnp.uint32, words.shape, axis
            )
        return (words.astype(jnp.uint32) * (2 * place + 1)).sum(dtype=jnp.uint32)

    return {path: one(x) for path, x in flatten(tree).items()}


def fingerprint(x: np.ndarray) -> int:
    """The same of a numpy array."""
    words, total = np.ascontiguousarray(x).reshape(-1).view(_word(x)), 0
    odd = 2 * np.arange(min(len(words), 2**16), dtype=np.uint32) + 1
    for start in range(0, len(words), 2**16):  # what a cache holds
        part = words[start : start + 2**16].astype(np.uint32, copy=False)
        total += int(np.dot(part, odd[: len(part)])) + 2 * start * int(part.sum(dtype=np.uint32))
    return total % 2**32


def note_missing_prints(place: str | os.PathLike, prints: Mapping[str, int]) -> None:
    """Prints a note if arrays were written without fingerprints, as the first versions did."""
    if not prints:
        print(f"note: {place} has no fingerprints, so damage is not noticed", file=sys.stderr)


def _word(x: Any) -> str:
    return f"uint{8 * min(4, x.dtype.itemsize)}"


def path_of(path: tuple[Any, ...]) -> str:
    """The "/"-joined names of a path of jax.tree_util."""
    names = (next(getattr(k, a) for a in ("key", "name", "idx") if hasattr(k, a)) for k in path)
    return "/".join(str(name) for name in names)


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves of any pytree by path."""
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def differences(saved: Mapping[str, Any], want: Mapping[str, Any]) -> list[str]:
    """What sets the arrays of a checkpoint apart from those wanted, by path: one text for each.

    Shapes and dtypes are compared, because Orbax casts dtypes without a word.
    """
    problems = [f"{key} is missing" for key in want if key not in saved]
    problems += [f"{key} is not in the model" for key in saved if key not in want]
    return problems + [
        f"{key} is {_describe(saved[key])}, expected {_describe(want[key])}"
        for key in want
        if key in saved and _describe(saved[key]) != _describe(want[key])
    ]


def some(items: list[str], limit: int = 6) -> str:
    """The first items, and how many more there are."""
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + rest


def _describe(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def merge_params(
    fresh: Params, loaded: Params, *, missing: Iterable[str], unused: Iterable[str], source: str
) -> tuple[Params, list[str], list[str]]:
    """Puts loaded parameters in the place of fresh ones; accounts for every one of both.

    Args:
        fresh: nested parameters, or their ShapeDtypeStructs, of the model to be trained.
        loaded: nested parameters of a checkpoint.
        missing: regexes of whole paths that may stay fresh: not loaded, or of another shape.
        unused: regexes of whole paths of `loaded` that need no place.
        source: where `loaded` comes from, for messages.

    Returns:
        The merged parameters, the paths that stayed fresh, and the paths left out.

    Raises:
        UserError: anything else is missing, left over, or of another shape or dtype.
    """
    want = traverse_util.flatten_dict(fresh, sep="/")
    have = traverse_util.flatten_dict(loaded, sep="/")
    may_miss = re.compile("|".join(f"(?:{p})" for p in missing) or r"(?!)")
    may_drop = re.compile("|".join(f"(?:{p})" for p in unused) or r"(?!)")
    fits = {k for k in want.keys() & have.keys() if _describe(want[k]) == _describe(have[k])}
    stays = sorted(want.keys() - fits)
    left = sorted(have.keys() - want.keys())
    problems = [
        f"{k} is {_describe(have[k])} there, {_describe(want[k])} here" if k in have
        else f"{k} is missing there"
        for k in stays
        if not may_miss.fullmatch(k)
    ]  # fmt: skip
    problems += [f"{k} has no place here" for k in left if not may_drop.fullmatch(k)]
    if problems:
        raise UserError(
            f"checkpoint {source} does not fit this config's model: {some(problems)}; set the "
            f"sizes in config.model as in its model.json, or name what may differ in "
            f"config.init_missing and config.init_unused"
        )
    merged = {k: have[k] if k in fits else x for k, x in want.items()}
    return traverse_util.unflatten_dict(merged, sep="/"), stays, left


def claim_workdir(
    workdir: epath.Path, config: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Creates the workdir and its config.json; a folder with anything else in it is refused.

    `config` and `defaults` (see `check_same_run`) must be plain values. How often to log, save or
    evaluate, and on how many devices and processes, may change between runs of one workdir;
    everything may until the first checkpoint.
    On a file system (not in a bucket) the workdir is this process's until it ends.

    Raises:
        UserError: the workdir holds another run or something else, is in use by another process, or
            cannot be written.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        foreign = [name for name in _names(workdir) if name not in (_LOCK, _NEW)]
        if foreign and not path.exists():
            raise UserError(
                f"workdir {workdir} is not empty and holds no run ({some(foreign)}); choose a "
                f"new folder"
            )
        _lock(workdir)
        if path.exists():
            check_same_run(path, config, defaults)
        write_whole(path, json.dumps(config, indent=1) + "\n")
    except (OSError, ImportError) as error:  # the latter of what reads buckets
        raise UserError(f"workdir {workdir} cannot be used: {error}") from None


def _names(folder: epath.Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:  # buckets have no empty folders
        return []


_LOCK, _NEW = "run.lock", "config.tmp"


def _lock(workdir: epath.Path) -> None:
    if "://" in str(workdir):
        return
    file = workdir / _LOCK
    owner = file.read_bytes().decode(errors="replace").strip() if file.exists() else ""
    locks.lock(
        file,
        f"workdir {workdir} is in use by another run ({owner or 'another process'}); wait for it, "
        f"end it, or choose another --workdir",
    )
    file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")


def release_workdir(workdir: epath.Path) -> None:
    """Lets other processes claim the workdir."""
    locks.unlock(workdir / _LOCK)


def write_whole(path: epath.Path, content: str | bytes) -> None:
    """Writes a file so that a kill leaves the old one or the new one."""
    new = path.with_suffix(".tmp")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    new.replace(path)


def check_same_run(
    path: epath.Path, config: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Raises a UserError if `path`, of a run with checkpoints, has another config than `config`.

    Keys that were not there when the run began have the values of `defaults`, a config like it.
    """
    try:
        old, new = (_leaves(_essential(c)) for c in (json.loads(path.read_text()), config))
        old = (_leaves(_essential(defaults)) if defaults else {}) | old
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
    """Keeps what a run's lists are in its workdir; compares them with those that it started with.

    Like the config they may change until the first checkpoint. A run from before this was kept has
    the lists that it has now.

    Args:
        workdir: of the run, claimed.
        lists: split -> what `task.list_facts` says of its list.
        allow: whether they may change in the middle of a run.

    Returns:
        Notes on what changed.

    Raises:
        UserError: something changed, and `allow` is False.
    """
    path, old = workdir / "lists.json", {}
    if path.exists() and _has_checkpoints(workdir):
        try:
            old = json.loads(path.read_bytes())
            changes = [
                f"the list of config.data.{split} {change}"
                for split, facts in lists.items()
                if split in old and (change := _list_change(old[split], facts))
            ]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{path} is damaged, so nothing tells whether the lists are those that the run "
                f"started with; if they are, delete that file"
            ) from None
        if changes and not allow:
            raise UserError(
                f"workdir {workdir} holds a run with other lists: {' and '.join(changes)}; put the "
                f"old ones back, choose another --workdir, or continue with the new ones by "
                f"--config.data.allow_changed_lists=True"
            )
        notes = [f"{change} since the run started" for change in changes]
    else:
        notes = []
    write_whole(path, json.dumps(old | lists, indent=1) + "\n")
    return notes


def _list_change(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Returns how a list differs from an older one of the same run; "" if it does not."""
    if old["digest"] == new["digest"]:
        return ""
    if old["videos"] != new["videos"]:
        return f"has {new['videos']} videos, not {old['videos']}"
    if old["unordered"] == new["unordered"]:
        return "has the same videos in another order"
    same = [a == b for a, b in zip(old["blocks"], new["blocks"], strict=True)]
    first = same.index(False) * old["block"] + 1
    last = min(first + old["block"] - 1, new["videos"])
    return (
        f"has other videos, labels or texts (the first difference is in entries {first} to {last})"
    )


def _essential(config: dict[str, Any]) -> dict[str, Any]:
    free = {"log_every", "checkpoint", "evals", "mesh", "estimate", "profile", "nonfinite"}
    config = {key: value for key, value in config.items() if key not in free}
    free = {"workers", "patience", "reader", "allow_changed_lists"}
    config["data"] = {key: value for key, value in config["data"].items() if key not in free}
    return config


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out = {}
    for key, value in tree.items():
        out |= (
            _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return out
