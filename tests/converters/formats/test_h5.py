"""Keras' HDF5 files: exact, and nothing outside of them is read."""

import sys

import ml_dtypes
import numpy as np
import pytest

from converters import formats
from tests.support.converting import same_tensors
from tests.support.weight_files import VALUES
from vidjax.errors import UserError


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py")


def test_h5_of_keras(tmp_path, h5py):
    arrays = {
        "layers/dense/vars/0": VALUES,
        "layers/dense/vars/1": np.arange(3).astype(ml_dtypes.bfloat16),
        "layers/dense_1/vars/0": np.float32(2),
    }
    formats.write_h5(tmp_path / "a.weights.h5", arrays)
    with h5py.File(tmp_path / "a.weights.h5") as file:
        np.testing.assert_array_equal(file["layers"]["dense"]["vars"]["0"][:], VALUES)
        # As Keras writes it, and reads it again.
        half = file["layers/dense/vars/1"]
        assert half.attrs["dtype"] == "bfloat16"
        np.testing.assert_array_equal(np.array(half).view(ml_dtypes.bfloat16), [0, 1, 2])
    same_tensors(formats.read(tmp_path / "a.weights.h5"), arrays)


def test_h5_leads_nowhere_else(tmp_path, h5py):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = VALUES

    def refused(name, write):
        with h5py.File(tmp_path / name, "w") as file:
            write(file)
        with pytest.raises(UserError, match="w is compressed, incomplete or in another file"):
            formats.read(tmp_path / name)

    external = [(str(tmp_path / "secret"), 0, 64)]
    refused("a.h5", lambda f: f.create_dataset("w", (16,), "f4", external=external))
    refused("b.h5", lambda f: f.create_dataset("w", (1 << 20,), "f4", compression="gzip"))
    refused("c.h5", lambda f: f.create_dataset("w", (1 << 40,), "f4", chunks=(1024,)))
    layout = h5py.VirtualLayout(VALUES.shape, "f4")
    layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "w", VALUES.shape)
    refused("d.h5", lambda f: f.create_virtual_dataset("w", layout))
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["v"] = VALUES
        file["w"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "w")
        file["again"] = h5py.SoftLink("/v")
    assert set(formats.read(tmp_path / "e.h5")) == {"v"}
    (tmp_path / "f.h5").write_bytes(b"no h5 at all")
    with pytest.raises(UserError, match=r"f\.h5 cannot be read as HDF5"):
        formats.read(tmp_path / "f.h5")


def test_h5_wants_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'vidjax\[keras\]'"):
        formats.write_h5(tmp_path / "a.h5", {})
