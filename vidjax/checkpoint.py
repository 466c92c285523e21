"""Saving and restoring a run with Orbax, and taking parameters over from another model."""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util

from vidjax.errors import UserError

Params = Any


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints/<step>`.

    Written in the background and renamed when complete: a killed run leaves whole ones only.
    """

    def __init__(self, workdir: pathlib.Path, keep: int):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, cleanup_tmp_directories=True
        )
        self.folder = workdir / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self.folder.absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(self, target: Any) -> Any:
        """Restores the newest state onto the shapes, dtypes and shardings of `target`.

        Raises:
            UserError: the checkpoint is damaged, or has other parameters than `target`.
        """
        step = self.latest_step()
        folder = self.folder / str(step)
        try:
            saved = self._manager.item_metadata(step).tree
            if problems := differences(flatten(saved), flatten(target)):
                raise UserError(
                    f"checkpoint {folder} does not fit this config's model and optimizer: "
                    f"{some(sorted(problems))}; use the config it was made with, or another "
                    f"--workdir"
                )
            return self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"checkpoint {folder} cannot be read ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); delete that folder to continue from an older one"
            ) from error

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


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


def claim_workdir(workdir: pathlib.Path, config: dict[str, Any]) -> None:
    """Creates the workdir and its config.json; a folder with anything else in it is refused.

    `config` must be plain values. How often to log, save or evaluate, and on how many devices and
    processes, may change between runs of one workdir; everything may until the first checkpoint.

    Raises:
        UserError: the workdir holds another run or something else, or cannot be written.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _check_same_run(path, config)
        elif foreign := sorted(p.name for p in workdir.iterdir()):
            raise UserError(
                f"workdir {workdir} is not empty and holds no run ({some(foreign)}); choose a "
                f"new folder"
            )
        # Renamed into place, so that a kill leaves the old one or the new one.
        new = path.with_suffix(".tmp")
        new.write_text(json.dumps(config, indent=1) + "\n")
        new.replace(path)
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be used: {error}") from None


def _check_same_run(path: pathlib.Path, config: dict[str, Any]) -> None:
    try:
        old, new = (_leaves(_essential(c)) for c in (json.loads(path.read_text()), config))
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{path} is not the config of a run; choose another --workdir") from None
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    if changed and any((path.parent / "checkpoints").glob("[0-9]*")):
        differs = some([f"{k} = {old.get(k)!r} there, {new.get(k)!r} now" for k in changed])
        raise UserError(
            f"workdir {path.parent} holds a run with another config ({differs}); choose another "
            f"--workdir, or the same config to continue that run"
        )


def _essential(config: dict[str, Any]) -> dict[str, Any]:
    free = {"log_every", "checkpoint", "evals", "mesh", "estimate"}
    config = {key: value for key, value in config.items() if key not in free}
    config["data"] = {key: value for key, value in config["data"].items() if key != "workers"}
    return config


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out = {}
    for key, value in tree.items():
        out |= (
            _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return out
