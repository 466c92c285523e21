"""Goldens: what the original code computed, and how far ours is from it."""

import functools
import pathlib

import numpy as np

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


@functools.cache
def _arrays(case, file):
    with np.load(GOLDENS / case / f"{file}.npz") as arrays:
        return dict(arrays)


def inputs(case):
    """Inputs of a golden by name."""
    return dict(_arrays(case, "inputs"))


def outputs(case):
    """Outputs of a golden by name; those in float64 end in `__f64`."""
    return dict(_arrays(case, "outputs"))


def error(ours, theirs):
    """Largest difference, in units of the reference's largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def errors(ours, case, suffix=""):
    """Error of each output that the golden has, by name."""
    theirs = outputs(case)
    return {n: error(ours[n], theirs[n + suffix]) for n in ours if n + suffix in theirs}


def assert_all_match(ours, case, tolerance):
    """Compares every output of a golden in float32."""
    found = errors(ours, case)
    print(case, found)
    assert found.keys() == {name for name in outputs(case) if not name.endswith("__f64")}
    assert max(found.values()) < tolerance, found


def assert_caught(found, size):
    """Checks that errors of a wrong port are far outside the tolerances."""
    print(found)
    assert max(found.values()) > size, found
