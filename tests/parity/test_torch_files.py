"""Our reader and writer of PyTorch files against PyTorch itself."""

import argparse
import os

import ml_dtypes
import numpy as np
import pytest

from converters import formats
from vidjax.errors import UserError

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")


def test_what_torch_writes_is_read_exactly(tmp_path):
    grid = torch.arange(24.0).reshape(4, 6)
    state = {
        "whole": grid,
        "view": grid[1:, ::2],
        "transposed": grid.T,
        "parameter": torch.nn.Parameter(grid + 1),
        "half": grid.half() / 3,
        "double": grid.double() / 3,
        "scalar": torch.tensor(3),
        "mask": grid > 3,
        "empty": torch.zeros(0, 3),
    }
    whole = {"model": state, "args": argparse.Namespace(lr=1e-3), "optimizer": {}, "epoch": 3}
    torch.save(whole, tmp_path / "a.pth")
    with pytest.raises(Exception, match="weights_only"):  # what this reader is for
        torch.load(tmp_path / "a.pth", weights_only=True)
    tensors = formats.read(tmp_path / "a.pth")
    assert list(tensors) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensors[name], tensor.detach().numpy(), err_msg=name)
        assert tensors[name].dtype == tensor.detach().numpy().dtype
    torch.save({"a": (grid / 3).bfloat16()}, tmp_path / "b.pth")
    ours = formats.read(tmp_path / "b.pth")["a"]
    np.testing.assert_array_equal(ours.astype(np.float32), (grid / 3).bfloat16().float().numpy())


def test_archives_of_torchscript(tmp_path):
    """Such as OpenAI's CLIPs: the state_dict, without running the code in them."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
            self.logit_scale = torch.nn.Parameter(torch.tensor(2.6))
            self.register_buffer("input_resolution", torch.tensor(224))

        def forward(self, x):
            return self.layers(x) * self.logit_scale

    model = torch.jit.trace(Model(), torch.ones(2, 3))
    torch.jit.save(model, tmp_path / "a.pt")
    tensors, state = formats.read(tmp_path / "a.pt"), model.state_dict()
    assert set(tensors) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy(), err_msg=name)
        assert tensors[name].dtype == tensor.numpy().dtype
    formats.write_torch(tmp_path / "b.pt", tensors, wrapper=None)
    assert set(torch.load(tmp_path / "b.pt", weights_only=True)) == set(state)


def test_what_we_write_torch_reads_with_weights_only(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        dtype.__name__: rng.standard_normal((3, 4)).astype(dtype)
        for dtype in (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)
    } | {"scalar": np.array(3), "transposed": rng.standard_normal((3, 4)).astype("f4").T}
    formats.write_torch(tmp_path / "a.pth", tensors)
    for mmap in (False, True):
        theirs = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mmap)["model"]
        assert list(theirs) == list(tensors)
        for name, tensor in tensors.items():
            assert tuple(theirs[name].shape) == tensor.shape
            np.testing.assert_array_equal(
                theirs[name].double().numpy(), tensor.astype(np.float64), err_msg=name
            )


def test_malicious_and_old_files(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    torch.save({"model": {"w": torch.ones(3)}, "args": Evil()}, tmp_path / "evil.pth")
    np.testing.assert_array_equal(formats.read(tmp_path / "evil.pth")["w"], np.ones(3))
    assert not (tmp_path / "executed").exists()
    torch.save({"w": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"older than PyTorch 1\.6"):
        formats.read(tmp_path / "old.pth")
