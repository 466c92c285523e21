"""Parameters of a folder on a disk or in a bucket, read when they are asked for."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from vidjax import files, sharding
from vidjax.card import Folder, home
from vidjax.checkpoints import steps_of
from vidjax.errors import UserError, brief, some
from vidjax.lazy import LazyArrays, Reference
from vidjax.params import damaged, fingerprint, fingerprints

PARAMS = "params"
_AHEAD_BYTES = 4_000_000  # of parameters read together, as each reading takes 9 ms


class StoredParams(LazyArrays):
    """See `open_params`; `read` gives many at once, which takes hardly longer than one."""

    def __init__(
        self,
        path: epath.Path,
        root: tuple[str, ...],
        specs: Mapping[str, jax.ShapeDtypeStruct],
        prints: Mapping[str, int],
    ):
        super().__init__(specs, self._read_one, specs.__getitem__)
        self._path, self._root, self._specs, self._prints = path, root, specs, prints
        self._groups = _groups(specs)
        self._ahead: dict[str, np.ndarray] = {}

    @property
    def step(self) -> int:
        """Step of the run that they are of; 0 of a converted model."""
        return int(self._path.parent.name) if self._root else 0

    def _read_one(self, name: str) -> np.ndarray:
        group = self._groups[name]
        if len(group) == 1:
            return self.read(group)[name]
        if name not in self._ahead:
            self._ahead = {}  # first, so that there are never two groups in memory
            self._ahead = self.read(group)
            for array in self._ahead.values():
                array.flags.writeable = False  # the next one to ask gets the same array
        return self._ahead[name]

    def read(
        self, names: Iterable[str], shardings: Mapping[str, jax.sharding.Sharding] | None = None
    ) -> dict[str, Any]:
        """Some of the parameters by name, in one go.

        With shardings as jax arrays, of which every process reads its share; else as numpy arrays.

        Raises:
            UserError: they cannot be read, or are not what was written.
        """
        keys = {name: (*self._root, *name.split("/")) for name in names}
        specs = {keys[name]: self._specs[name] for name in keys}

        def how(name: str) -> ocp.RestoreArgs:
            dtype = self._specs[name].dtype
            if shardings is None:
                return ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype)
            return ocp.ArrayRestoreArgs(sharding=shardings[name], dtype=dtype)

        # Always an explicit target: without one Orbax wants the devices of the writer.
        restore = {path: how(name) for name, path in keys.items()}
        args = ocp.args.PyTreeRestore(
            item=traverse_util.unflatten_dict(specs),
            restore_args=traverse_util.unflatten_dict(restore),
            partial_restore=True,
        )
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
                tree = checkpointer.restore(self._path, args=args)
        except Exception as error:  # Orbax and tensorstore raise all sorts
            raise UserError(_unreadable(self._path, error)) from error
        found = traverse_util.flatten_dict(tree)
        found = {name: found[path] for name, path in keys.items()}
        self._check(found)
        return found

    def _check(self, arrays: Mapping[str, Any]) -> None:
        """Compares arrays with the fingerprints that were taken when they were written."""
        if all(isinstance(x, np.ndarray) for x in arrays.values()):
            now = {name: fingerprint(x) for name, x in arrays.items()}
        else:
            now = jax.device_get(jax.jit(fingerprints)(dict(arrays)))
        now = {"/".join((*self._root, name)): x for name, x in now.items()}
        if wrong := damaged(now, self._prints):
            raise UserError(
                f"the parameters in {self._path} are damaged: what is read is not what was written "
                f"({some(wrong)}); make or copy that folder again"
            )

    def references(self) -> dict[str, Reference]:
        """All parameters by name, each to be read when it is looked into."""
        return {name: Reference(self, name) for name in self}

    def place(
        self, params: Mapping[str, Any], shardings: Mapping[str, jax.sharding.Sharding]
    ) -> dict[str, jax.Array]:
        """Arrays on devices, by any names; of `Reference`s every process reads its share only.

        Args:
            params: numpy or jax arrays that every process has whole, jax arrays that lie there
                already, or references.
            shardings: where they shall lie, by the same names.
        """
        placed, left = {}, {}
        for name, x in params.items():
            if isinstance(x, Reference):
                left[name] = x.name
            elif isinstance(x, jax.Array) and x.sharding == shardings[name]:
                placed[name] = x
            else:
                placed[name] = sharding.put_whole(np.asarray(x), shardings[name])
        while left:  # a parameter may be wanted in two places
            now = {stored: name for name, stored in left.items()}
            found = self.read(now, {stored: shardings[name] for stored, name in now.items()})
            placed |= {now[stored]: x for stored, x in found.items()}
            left = {name: stored for name, stored in left.items() if name not in placed}
        return {name: placed[name] for name in params}


def _groups(specs: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, list[str]]:
    """For each parameter its neighbours that are read with it: few bytes, or itself alone."""
    groups: dict[str, list[str]] = {}
    group, room = [], 0
    for name, spec in specs.items():
        size = math.prod(spec.shape) * spec.dtype.itemsize
        if size > room:
            group, room = [], _AHEAD_BYTES
        group.append(name)
        groups[name], room = group, room - size
    return groups


def find_params(folder: Folder) -> tuple[epath.Path, tuple[str, ...]]:
    """Returns the Orbax folder that holds the parameters, and their path in its tree."""
    folder = files.absolute(folder)
    if (folder / PARAMS).is_dir():
        return folder / PARAMS, ()
    run = home(folder)
    steps = steps_of(run)
    if run != folder:
        steps = [step for step in steps if step == int(folder.name)]
    if not steps:
        raise UserError(f"{folder} holds no parameters: neither {PARAMS}/ nor checkpoints/<step>/")
    path = run / "checkpoints" / str(max(steps)) / "default"
    return path, ("ema_params",) if metadata_of(path).tree.get("ema_params") else ("params",)


def metadata_of(path: epath.Path) -> Any:
    """Returns metadata of an Orbax folder: of its arrays as `tree`, and `custom_metadata`."""
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            found = checkpointer.metadata(path).item_metadata
        if found is None:
            raise ValueError("it has no metadata")
        return found
    except Exception as error:  # Orbax and tensorstore raise all sorts
        raise UserError(_unreadable(path, error)) from error


def _unreadable(path: epath.Path, error: Exception) -> str:
    return f"the parameters in {path} are damaged or incomplete ({brief(error)})"
