"""Trees of parameters: paths, differences, merging, splitting, fingerprints."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vidjax.errors import UserError, some

Params = Any  # nested dicts of arrays

FINGERPRINTS = "fingerprints"  # key of a checkpoint's metadata


def path_of(path: tuple[Any, ...]) -> str:
    """Joins the names of a path of jax.tree_util by "/"."""
    names = (next(getattr(k, a) for a in ("key", "name", "idx") if hasattr(k, a)) for k in path)
    return "/".join(str(name) for name in names)


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves of any pytree by path."""
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def differences(saved: Mapping[str, Any], want: Mapping[str, Any]) -> list[str]:
    """Compares a checkpoint's arrays with those wanted, by path; returns a text for each problem.

    Shapes and dtypes are compared, because Orbax casts dtypes silently.
    """
    problems = [f"{key} is missing" for key in want if key not in saved]
    problems += [f"{key} is not in the model" for key in saved if key not in want]
    return problems + [
        f"{key} is {_describe(saved[key])}, expected {_describe(want[key])}"
        for key in want
        if key in saved and _describe(saved[key]) != _describe(want[key])
    ]


def _describe(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def merge_params(
    fresh: Params, loaded: Params, *, missing: Iterable[str], unused: Iterable[str], source: str
) -> tuple[Params, list[str], list[str]]:
    """Replaces fresh parameters by loaded ones; accounts for every one of both.

    Args:
        fresh: nested parameters, or their ShapeDtypeStructs, of the model to be trained.
        loaded: nested parameters of a checkpoint.
        missing: regexes of whole paths that may stay fresh: not loaded, or of another shape.
        unused: regexes of whole paths of `loaded` that may be left out.
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
    allowed = {*filter(may_miss.fullmatch, stays), *filter(may_drop.fullmatch, left)}
    strict = ({k: x for k, x in tree.items() if k not in allowed} for tree in (have, want))
    if problems := differences(*strict):
        raise UserError(
            f"checkpoint {source} does not fit this config's model: {some(problems)}; set the "
            f"sizes in config.model as in its model.json, or name what may differ in "
            f"config.init_missing and config.init_unused"
        )
    merged = {k: have[k] if k in fits else x for k, x in want.items()}
    return traverse_util.unflatten_dict(merged, sep="/"), stays, left


def split_params(params: Params, freeze: Iterable[str]) -> tuple[Params, Params]:
    """Splits nested params into (trained, frozen) ones; `freeze` are regexes of whole paths.

    Frozen parameters get no gradients and no optimizer moments.
    """
    patterns = [re.compile(pattern) for pattern in freeze]
    trained, frozen = {}, {}
    for path, x in traverse_util.flatten_dict(params, sep="/").items():
        part = frozen if any(p.fullmatch(path) for p in patterns) else trained
        part[path] = x
    return tuple(traverse_util.unflatten_dict(part, sep="/") for part in (trained, frozen))


def join_params(trained: Params, frozen: Params) -> Params:
    """Undoes `split_params`."""
    flat = traverse_util.flatten_dict(trained, sep="/")
    flat |= traverse_util.flatten_dict(frozen, sep="/")
    return traverse_util.unflatten_dict(dict(sorted(flat.items())), sep="/")


def fingerprints(tree: Any) -> dict[str, jax.Array]:
    """Returns a checksum of each array of a tree by path, uint32 [].

    It is the sum of the array's words, each times an odd number that tells its position. Sums of
    integers wrap around and do not depend on their order, so it is the same on any mesh. A single
    wrong word always changes it; of several, one case in four billion is missed.
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
    """Returns the checksum of a numpy array, as `fingerprints`."""
    words, total = np.ascontiguousarray(x).reshape(-1).view(_word(x)), 0
    odd = 2 * np.arange(min(len(words), 2**16), dtype=np.uint32) + 1
    for start in range(0, len(words), 2**16):  # what a cache holds
        part = words[start : start + 2**16].astype(np.uint32, copy=False)
        total += int(np.dot(part, odd[: len(part)])) + 2 * start * int(part.sum(dtype=np.uint32))
    return total % 2**32


def _word(x: Any) -> str:
    return f"uint{8 * min(4, x.dtype.itemsize)}"


def saved_fingerprints(metadata: Any, path: str | os.PathLike) -> Mapping[str, int]:
    """Returns the fingerprints in the metadata of an Orbax folder.

    Prints a note if it has none, as those that the first versions wrote.
    """
    prints = (metadata.custom_metadata or {}).get(FINGERPRINTS, {})
    if not prints:
        print(f"note: {path} has no fingerprints, so damage is not noticed", file=sys.stderr)
    return prints


def damaged(now: Mapping[str, Any], saved: Mapping[str, int]) -> list[str]:
    """Returns the paths whose fingerprints are not those saved, if any were saved."""
    return sorted(path for path in now if saved and now[path] != saved.get(path))
