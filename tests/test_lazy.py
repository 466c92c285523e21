"""Arrays by name that are read when asked for."""

import numpy as np
import pytest

from vidjax.lazy import LazyArrays, Reference, merge, spec_of

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int8)}


@pytest.fixture
def lazy():
    reads = []
    arrays = LazyArrays(ARRAYS, lambda name: reads.append(name) or ARRAYS[name], ARRAYS.get)
    yield arrays, reads


def test_nothing_is_read_before_it_is_asked_for(lazy):
    arrays, reads = lazy
    cast = arrays.select(["a"]).rename(str.upper).cast({"A": np.dtype(np.float64)})
    both = merge(arrays, cast)
    assert list(both) == ["a", "b", "A"] and len(both) == 3
    assert "A" in both and "c" not in both
    assert both.spec("A") == ((2, 3), np.float64)
    assert both.spec("b") == spec_of(arrays, "b") == ((3,), np.int8)
    reference = Reference(both, "A")
    assert (reference.shape, reference.dtype) == ((2, 3), np.float64)
    assert not reads
    assert both["A"].dtype == np.float64 and both["A"].tolist() == ARRAYS["a"].tolist()
    assert np.asarray(reference)[1, 2] == reference[1, 2] == 5
    assert reads == ["a"] * 4


def test_other_names_are_not_there(lazy):
    arrays, reads = lazy
    for there in (arrays.select(["b"]), arrays.rename("x".__add__), merge(arrays.select(["b"]))):
        with pytest.raises(KeyError):
            there["a"]
    assert not reads


def test_the_last_mapping_with_a_name_counts(lazy):
    arrays, _ = lazy
    assert merge(arrays, {"a": np.zeros(())})["a"].shape == ()
    assert merge({"a": np.zeros(())}, arrays).spec("a").shape == (2, 3)
    assert not merge()


def test_shapes_that_are_not_known_come_from_the_array():
    assert LazyArrays(["b"], ARRAYS.get).spec("b") == ((3,), np.dtype(np.int8))
