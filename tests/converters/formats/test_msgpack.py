"""Flax's msgpack files, read and written as Flax does, and refused when damaged."""

import msgpack
import numpy as np
import pytest
from flax import serialization, traverse_util

from converters import formats
from tests.support.converting import same_tensors
from tests.support.weight_files import ARRAYS, TREE
from vidjax.errors import UserError


def test_what_flax_writes_is_read_exactly(tmp_path):
    (tmp_path / "checkpoint").write_bytes(serialization.msgpack_serialize(TREE))
    same_tensors(formats.read(tmp_path / "checkpoint"), ARRAYS)
    same_tensors(formats.open_source(tmp_path).tensors, ARRAYS)  # a folder, as Scenic's buckets are


def test_what_we_write_flax_reads(tmp_path):
    formats.write_msgpack(tmp_path / "a.msgpack", ARRAYS, {"step": 7, "rng": None})
    tree = serialization.msgpack_restore((tmp_path / "a.msgpack").read_bytes())
    assert (tree.pop("step"), tree.pop("rng")) == (7, None)
    same_tensors(traverse_util.flatten_dict(tree, sep="/"), ARRAYS)
    assert list(tree["params"]["block"]) == ["kernel", "bias"]


def test_large_arrays_are_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 40)  # instead of a gigabyte
    arrays = {"a/w": np.arange(35, dtype=np.float32).reshape(5, 7), "b": np.ones(2)}
    formats.write_msgpack(tmp_path / "a.msgpack", arrays)
    data = (tmp_path / "a.msgpack").read_bytes()
    assert data.count(b"__msgpack_chunked_array__") == 1
    same_tensors(formats.read(tmp_path / "a.msgpack"), arrays)
    same_tensors(traverse_util.flatten_dict(serialization.msgpack_restore(data), sep="/"), arrays)
    (tmp_path / "b.msgpack").write_bytes(data.replace(b"\xa6chunks", b"\xa6chunkz"))
    with pytest.raises(UserError, match=r"a/w cannot be read safely: .*chunks"):
        formats.read(tmp_path / "b.msgpack")["a/w"]


def test_arrays_are_read_when_asked_for(tmp_path):
    formats.write_msgpack(tmp_path / "a.msgpack", ARRAYS)
    tensors = formats.read(tmp_path / "a.msgpack")
    (tmp_path / "a.msgpack").write_bytes(b"")
    with pytest.raises(UserError, match="scalar cannot be read safely: it ends too early"):
        tensors["scalar"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "ends too early"),
        (lambda data: data + b"\x00", "ends at byte"),
        (lambda data: b"\xc1" + data, "byte 193 begins no msgpack object"),
        (lambda data: b"\x81\x81\x01\x02\x03", "unhashable"),
        (lambda data: b"\x81" * 100_000, "recursion"),
        (lambda data: b"\xdf\xff\xff\xff\xff" + data, "damaged, or no Flax msgpack file"),
        (lambda data: b"\x05", "damaged, or no Flax msgpack file"),
    ],
)
def test_damaged_msgpack(tmp_path, damage, message):
    path = tmp_path / "a.msgpack"
    path.write_bytes(damage(serialization.msgpack_serialize(TREE)))
    with pytest.raises(UserError, match=message):
        formats.read(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (((3,), "float32", b"1234"), "4 bytes do not hold float32 of shape"),
        (((1,), "O", b"12345678"), "8 bytes do not hold object"),
        (((1,), "wrong", b"1234"), "wrong"),
        (("x", "float32", b"1234"), "w cannot be read safely"),
        ((1, 2), "w cannot be read safely"),
    ],
)
def test_damaged_arrays_of_msgpack(tmp_path, array, message):
    content = msgpack.ExtType(1, msgpack.packb(array))
    (tmp_path / "a.msgpack").write_bytes(msgpack.packb({"w": content}))
    with pytest.raises(UserError, match=message):
        formats.read(tmp_path / "a.msgpack")["w"]
