"""Every container: exact both ways, and refused when it is cut off."""

import ml_dtypes
import numpy as np
import pytest

from converters import formats
from vidjax.errors import UserError

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64, np.int64, np.uint8, np.bool_]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz", ".msgpack"])
def test_written_files_are_read_back_byte_for_byte(tmp_path, suffix):
    tensors = {np.dtype(d).name: np.arange(6).reshape(2, 3).astype(d) for d in DTYPES}
    tensors["transposed"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    tensors["scalar"] = np.array(3, np.float32)
    tensors["nan"] = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    path = tmp_path / f"a{suffix}"
    formats.write(path, tensors, {})
    again = formats.read(path)
    assert set(again) == set(tensors)
    for name, value in tensors.items():
        assert again[name].dtype == value.dtype
        assert again[name].shape == value.shape
        assert again[name].tobytes() == value.tobytes()


@pytest.mark.parametrize(
    "name", ["a.pth", "a.bin", "a.safetensors", "a.npz", "a.msgpack", "checkpoint_12"]
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_truncated_files_are_refused(tmp_path, name, share):
    path = tmp_path / name
    tensors = {"a": np.ones(1000, np.float32)}
    formats.write(path, tensors, {})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=str(path)):
        formats.read(path)
