"""numpy's archives: exact, and nothing in them is executed."""

import pickle

import numpy as np
import pytest

from converters import formats
from tests.support.converting import same_tensors
from tests.support.weight_files import ARRAYS, VALUES, Evil
from vidjax.errors import UserError


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_numpy(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    same_tensors(formats.read(tmp_path / "a.npz"), ARRAYS)
    formats.write_npz(tmp_path / "b.npz", ARRAYS)
    with np.load(tmp_path / "b.npz") as ours, np.load(tmp_path / "a.npz") as theirs:
        same_tensors(dict(ours), dict(theirs))


def test_npz_runs_nothing(tmp_path):
    evil = np.array([Evil(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "a.npz", w=evil, v=VALUES)
    tensors = formats.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(tensors["v"], VALUES)
    with pytest.raises(UserError, match=r"w cannot be read safely: .*allow_pickle"):
        tensors["w"]
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(UserError, match=r"b\.npz cannot be read as npz"):
        formats.read(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", VALUES)
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")
    with pytest.raises(UserError, match="a single array"):
        formats.read(tmp_path / "c.npz")
    assert not (tmp_path / "executed").exists()


def test_flipped_bits_of_npz_are_noticed(tmp_path):
    path = tmp_path / "a.npz"
    formats.write_npz(path, {"a": VALUES})
    data = bytearray(path.read_bytes())
    data[data.index(VALUES.tobytes()) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="a cannot be read safely: Bad CRC-32"):
        formats.read(path)["a"]
