"""safetensors files are the library's, byte for byte."""

import json

import ml_dtypes
import numpy as np
import safetensors.numpy

from converters import formats
from tests.support.weight_files import VALUES
from vidjax.lazy import LazyArrays


def test_safetensors_are_marked_for_transformers(tmp_path):
    formats.write_safetensors(tmp_path / "a.safetensors", {"a": VALUES})
    data = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"] == {"format": "pt"}


def test_safetensors_are_the_librarys_bytes_though_written_one_at_a_time(tmp_path):
    kinds = (np.float32, np.int64, ml_dtypes.bfloat16, np.float16, np.bool_, np.uint8, np.float64)
    kinds += (np.int8, np.int16, np.uint16, np.int32, np.uint32, np.uint64, np.complex64)
    made = {f"{k % 3}.{dtype.__name__}": np.ones((k, 2), dtype) for k, dtype in enumerate(kinds)}
    made |= {"é": np.float32(2) * np.ones(()), "b\"'\n": np.ones((2, 3), np.float32).T}
    asked = []
    lazy = LazyArrays(made, lambda name: asked.append(name) or made[name], made.__getitem__)
    formats.write_safetensors(tmp_path / "ours.safetensors", lazy)
    assert asked == list(made)
    safetensors.numpy.save_file(
        {name: np.asarray(array, order="C") for name, array in made.items()},
        tmp_path / "theirs.safetensors",
        metadata={"format": "pt"},
    )
    ours, theirs = ((tmp_path / f"{who}.safetensors").read_bytes() for who in ("ours", "theirs"))
    assert ours == theirs
    again = formats.read(tmp_path / "ours.safetensors")
    assert all(again.spec(name) == (made[name].shape, made[name].dtype) for name in made)
