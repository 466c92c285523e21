"""PyTorch's files: exact reading, nothing executed, everything unreadable refused with a reason."""

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest

from converters import formats
from converters.formats import torch
from tests.support.weight_files import VALUES, Evil
from vidjax.errors import UserError

# torch.save's zip files are made here by hand, with the reference's own pickle calls: classes of
# these names are pickled as if they came from torch.


class _Fake:
    """A class or function of a module that is not there, for pickling by name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class _TorchPickler(pickle._Pickler):
    """Writes fakes as globals and storages as persistent ids, as torch.save does."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Fake):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, _Storage) else None

    def save_call(self, obj):
        self.save(obj.function)
        self.save(obj.arguments)
        self.write(pickle.REDUCE)

    def save_script(self, obj):
        """Writes a module like TorchScript: an object without arguments, then its attributes."""
        self.save(_Fake(f"__torch__.{obj.module}", obj.name))
        self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
        self.memoize(obj)
        self.save(obj.attributes)
        self.write(pickle.BUILD)


class _Storage:
    def __init__(self, kind, key, size):
        self.pid = ("storage", _Fake("torch", kind), key, "cpu", size)


class _Call:
    """Pickled as a call of a function by name."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class _Script:
    """A module of TorchScript."""

    def __init__(self, module, name, **attributes):
        self.module, self.name, self.attributes = module, name, attributes


_TorchPickler.dispatch = {
    **pickle._Pickler.dispatch,
    _Call: _TorchPickler.save_call,
    _Script: _TorchPickler.save_script,
}


def tensor(key, shape, strides, offset=0, size=24, kind="FloatStorage"):
    storage = _Storage(kind, key, size)
    rebuild = _Fake("torch._utils", "_rebuild_tensor_v2")
    return _Call(rebuild, storage, offset, shape, strides, False, collections.OrderedDict())


def write_zip(path, content, storages, **members):
    stream = io.BytesIO()
    _TorchPickler(stream, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("name/data.pkl", stream.getvalue())
        for key, array in storages.items():
            archive.writestr(f"name/data/{key}", array.tobytes())
        for name, value in members.items():
            archive.writestr(f"name/{name}", value)
    return path


def test_views_strides_and_parameters(tmp_path):
    content = {
        "whole": tensor("0", (4, 6), (6, 1)),
        "transposed": tensor("0", (6, 4), (1, 6)),
        "view": tensor("0", (3, 3), (6, 2), offset=6),
        "expanded": tensor("0", (2, 4), (0, 6)),
        "scalar": tensor("0", (), (), offset=5),
        "empty": tensor("0", (0, 3), (3, 1)),
        "parameter": _Call(
            _Fake("torch._utils", "_rebuild_parameter"), tensor("0", (24,), (1,)), True, None
        ),
    }
    tensors = formats.read(write_zip(tmp_path / "a.pth", content, {"0": VALUES}))
    grid = VALUES.reshape(4, 6)
    expected = {
        "whole": grid,
        "transposed": grid.T,
        "view": grid[1:, ::2],
        "expanded": np.broadcast_to(grid[:, 0], (2, 4)),
        "scalar": VALUES[5],
        "empty": np.zeros((0, 3)),
        "parameter": VALUES,
    }
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value, err_msg=name)
        assert tensors[name].dtype == np.float32


@pytest.mark.parametrize("wrapper", ["model", "module", None])
def test_wrappers(tmp_path, wrapper):
    state = {"a": tensor("0", (24,), (1,))}
    content = {wrapper: state, "epoch": 3, "optimizer": {"state": {}}} if wrapper else state
    tensors = formats.read(write_zip(tmp_path / "a.pth", content, {"0": VALUES}))
    assert list(tensors) == ["a"]


class EvilState:
    """Runs a command through a setter of its state."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        # eval as the callable, a nested call as its argument
        return eval, (f"__import__('os').system('touch {self.marker}')",)


@pytest.mark.parametrize("evil", [Evil, EvilState])
def test_nothing_in_a_pickle_is_executed(tmp_path, evil):
    marker = tmp_path / "executed"
    content = {
        "model": {"a": tensor("0", (24,), (1,))},
        "args": evil(marker),
        "list": [evil(marker)],
    }
    path = write_zip(tmp_path / "a.pth", content, {"0": VALUES})
    with zipfile.ZipFile(path) as archive:  # the file is a weapon: plain pickle would fire it
        assert b"system" in archive.read("name/data.pkl")
    tensors = formats.read(path)
    np.testing.assert_array_equal(tensors["a"], VALUES)
    assert not marker.exists()


def test_the_evil_pickle_does_work_where_pickle_is_trusted(tmp_path):
    """Else the test above proves nothing."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_evil_in_place_of_the_weights_is_refused_by_name(tmp_path):
    marker = tmp_path / "executed"
    path = write_zip(tmp_path / "a.pth", Evil(marker), {})
    with pytest.raises(UserError, match=r"holds .*system, not a state_dict"):
        formats.read(path)
    path = write_zip(tmp_path / "b.pth", {"w": Evil(marker)}, {})
    with pytest.raises(UserError, match=r"1 entries are no tensors, the first 'w' .*system"):
        formats.read(path)
    assert not marker.exists()


def test_archives_of_torchscript(tmp_path):
    """Such as OpenAI's CLIPs: attributes are read, and the code beside them is not."""
    block = _Script(
        "nn.linear.___torch_mangle_7",
        "Linear",
        training=False,
        weight=tensor("0", (4, 6), (6, 1)),
        _is_full_backward_hook=None,
    )
    names = {"0": block, "1": _Script("nn", "GELU")}
    content = _Script(
        "model",
        "CLIP",
        scale=tensor("0", (), (), offset=5),
        layers=_Script("nn", "Sequential", **names),
    )
    content.attributes["itself"] = content  # which only a hostile file does
    files = {"code/__torch__/model.py": b"raise SystemExit", "constants.pkl": b"."}
    tensors = formats.read(write_zip(tmp_path / "a.pt", content, {"0": VALUES}, **files))
    assert set(tensors) == {"scale", "layers.0.weight"}
    np.testing.assert_array_equal(tensors["layers.0.weight"], VALUES.reshape(4, 6))
    assert tensors["scale"] == VALUES[5]


def test_foreign_objects_beside_the_tensors_are_no_obstacle(tmp_path):
    namespace = _Call(_Fake("argparse", "Namespace"))
    scaler = _Call(_Fake("deepspeed.runtime", "LossScaler"), 1.0)
    content = {
        "model": collections.OrderedDict(a=tensor("0", (24,), (1,))),
        "args": namespace,
        "scaler": [scaler, {"x": _Fake("numpy", "ndarray")}],
    }
    assert list(formats.read(write_zip(tmp_path / "a.pth", content, {"0": VALUES}))) == ["a"]


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((25,), (1,), 0), ((4, 6), (7, 1), 0), ((24,), (1,), 1), ((2,), (-1,), 3), ((2,), (1,), -1)],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, shape, strides, offset):
    content = {"a": tensor("0", shape, strides, offset)}
    tensors = formats.read(write_zip(tmp_path / "a.pth", content, {"0": VALUES}))
    with pytest.raises(UserError, match="tensor a lies outside its storage"):
        tensors["a"]


def test_storage_that_is_too_short_missing_or_unknown(tmp_path):
    content = {"a": tensor("0", (24,), (1,)), "b": tensor("1", (24,), (1,))}
    tensors = formats.read(write_zip(tmp_path / "a.pth", content, {"0": VALUES[:5]}))
    with pytest.raises(UserError, match="storage 0 has 20 bytes, not 96"):
        tensors["a"]
    with pytest.raises(UserError, match="lacks data/1"):
        tensors["b"]
    content = {"a": tensor("0", (24,), (1,), kind="QInt8Storage")}
    with pytest.raises(UserError, match="QInt8Storage are not supported"):
        formats.read(write_zip(tmp_path / "b.pth", content, {"0": VALUES}))


def test_compressed_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.pth", {"a": tensor("0", (24,), (1,))}, {})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("name/data/0", VALUES.tobytes())
    with pytest.raises(UserError, match="data/0 is compressed"):
        formats.read(path)["a"]


def test_big_endian_is_refused(tmp_path):
    content = {"a": tensor("0", (24,), (1,))}
    path = write_zip(tmp_path / "a.pth", content, {"0": VALUES}, byteorder="big")
    with pytest.raises(UserError, match="big-endian"):
        formats.read(path)


def test_flipped_bits_are_noticed(tmp_path):
    path = tmp_path / "a.pth"
    formats.write_torch(path, {"a": VALUES})
    data = bytearray(path.read_bytes())
    at = data.index(VALUES.tobytes())
    data[at + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"data/0 cannot be read safely: Bad CRC-32"):
        formats.read(path)["a"]


def test_old_and_foreign_files_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "old.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2))
    with pytest.raises(UserError, match=r"older than PyTorch 1.6 .*torch.save\(torch.load"):
        formats.read(tmp_path / "old.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(UserError, match=r"none of torch.save"):
        formats.read(tmp_path / "zip.pth")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match="unknown kind of weight file"):
        formats.read(tmp_path / "a.onnx")
    garbage = zipfile.ZipFile(tmp_path / "garbage.pth", "w")
    with garbage as archive:
        archive.writestr("x/data.pkl", b"\x80\x02garbage")
    with pytest.raises(UserError, match=r"garbage\.pth cannot be read safely"):
        formats.read(tmp_path / "garbage.pth")


def test_shapes_of_files_are_known_without_reading_them(tmp_path, monkeypatch):
    formats.write_torch(tmp_path / "a.pth", {"a": VALUES})
    tensors = formats.read(tmp_path / "a.pth")
    monkeypatch.setattr(torch._TorchFile, "_read", lambda *arguments: 1 / 0)
    assert tensors.spec("a") == (VALUES.shape, VALUES.dtype)
