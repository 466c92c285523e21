"""Weight files: exact reading, nothing executed, everything unreadable refused with a reason."""

import collections
import io
import json
import os
import pickle
import sys
import zipfile

import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy
from flax import serialization, traverse_util

from converters import formats
from converters.formats import torch
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays

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
        """As TorchScript writes a module: an object without arguments, then its attributes."""
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


VALUES = np.arange(24, dtype=np.float32)


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


def test_safetensors_are_marked_for_transformers(tmp_path):
    formats.write_safetensors(tmp_path / "a.safetensors", {"a": VALUES})
    data = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize("wrapper", ["model", "module", None])
def test_wrappers(tmp_path, wrapper):
    state = {"a": tensor("0", (24,), (1,))}
    content = {wrapper: state, "epoch": 3, "optimizer": {"state": {}}} if wrapper else state
    tensors = formats.read(write_zip(tmp_path / "a.pth", content, {"0": VALUES}))
    assert list(tensors) == ["a"]


class _Evil:
    """Runs a command when unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class _EvilState:
    """Runs a command through a setter of its state."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        # eval as the callable, a nested call as its argument
        return eval, (f"__import__('os').system('touch {self.marker}')",)


@pytest.mark.parametrize("evil", [_Evil, _EvilState])
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
    pickle.loads(pickle.dumps(_Evil(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_evil_in_place_of_the_weights_is_refused_by_name(tmp_path):
    marker = tmp_path / "executed"
    path = write_zip(tmp_path / "a.pth", _Evil(marker), {})
    with pytest.raises(UserError, match=r"holds .*system, not a state_dict"):
        formats.read(path)
    path = write_zip(tmp_path / "b.pth", {"w": _Evil(marker)}, {})
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


def test_open_source_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        formats.open_source(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no weights in .*expected one of model\.safe.*checkpoint"):
        formats.open_source(tmp_path)
    formats.write_torch(tmp_path / "vit_s.pth", {"a": VALUES})
    with pytest.raises(UserError, match=r"name one file, such as .*vit_s\.pth"):
        formats.open_source(tmp_path)
    formats.write_safetensors(tmp_path / "model.safetensors", {"a": VALUES})
    (tmp_path / "config.json").write_text("{nope")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        formats.open_source(tmp_path)


def test_index_without_a_map(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match="has no weight_map"):
        formats.open_source(tmp_path)
    index = {"weight_map": {"a": "../../etc/passwd"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="which is not beside it"):
        formats.open_source(tmp_path)


# Flax's msgpack files and npz.

TREE = {
    "opt": {"step": 3, "empty": {}, "mu": {"w": np.ones(2, np.float32)}},
    "params": {
        "block": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3)},
        "half": np.arange(3).astype(ml_dtypes.bfloat16),
    },
    "text": "x" * 40,
    "numbers": [1, -1, 200, -200, 70000, -70000, 1 << 40, -(1 << 40), 0.5, None, True],
    "many": {str(k): k for k in range(20)},
    "scalar": np.float32(2.5),
    "raw": b"bytes",
}
ARRAYS = {
    "opt/mu/w": TREE["opt"]["mu"]["w"],
    "params/block/kernel": TREE["params"]["block"]["kernel"],
    "params/block/bias": TREE["params"]["block"]["bias"],
    "params/half": TREE["params"]["half"],
    "scalar": np.asarray(TREE["scalar"]),
}


def same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        assert ours[name].shape == array.shape, name
        assert ours[name].tobytes() == array.tobytes(), name


def test_what_flax_writes_is_read_exactly(tmp_path):
    (tmp_path / "checkpoint").write_bytes(serialization.msgpack_serialize(TREE))
    same(formats.read(tmp_path / "checkpoint"), ARRAYS)
    same(formats.open_source(tmp_path).tensors, ARRAYS)  # a folder, as Scenic's buckets are


def test_what_we_write_flax_reads(tmp_path):
    formats.write_msgpack(tmp_path / "a.msgpack", ARRAYS, {"step": 7, "rng": None})
    tree = serialization.msgpack_restore((tmp_path / "a.msgpack").read_bytes())
    assert (tree.pop("step"), tree.pop("rng")) == (7, None)
    same(traverse_util.flatten_dict(tree, sep="/"), ARRAYS)
    assert list(tree["params"]["block"]) == ["kernel", "bias"]


def test_large_arrays_are_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 40)  # instead of a gigabyte
    arrays = {"a/w": np.arange(35, dtype=np.float32).reshape(5, 7), "b": np.ones(2)}
    formats.write_msgpack(tmp_path / "a.msgpack", arrays)
    data = (tmp_path / "a.msgpack").read_bytes()
    assert data.count(b"__msgpack_chunked_array__") == 1
    same(formats.read(tmp_path / "a.msgpack"), arrays)
    same(traverse_util.flatten_dict(serialization.msgpack_restore(data), sep="/"), arrays)
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


def test_what_others_call_checkpoint(tmp_path):
    path = tmp_path / "checkpoint"
    path.write_text('model_checkpoint_path: "model.ckpt-3"\n')
    with pytest.raises(UserError, match="TensorFlow's list of its checkpoints"):
        formats.open_source(tmp_path)
    path.write_bytes(msgpack.packb({"params": {"w": "PLACEHOLDER://params.w"}}))
    with pytest.raises(UserError, match="Orbax's index of the files beside it"):
        formats.open_source(tmp_path)
    path.unlink()
    for name, writer in (("_METADATA", "Orbax"), ("saved_model.pb", "TensorFlow")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match=f"was written by {writer}; expected a Flax msgpack"):
            formats.open_source(tmp_path)
        (tmp_path / name).unlink()
    for step in (1, 2):
        formats.write_msgpack(tmp_path / f"checkpoint_{step}", ARRAYS)
    with pytest.raises(UserError, match=r"name one file, such as .*checkpoint_1"):
        formats.open_source(tmp_path)


def test_config_of_another_program_is_not_read(tmp_path):
    """Scenic leaves a config.json of its own beside its checkpoints."""
    formats.write_msgpack(tmp_path / "checkpoint", ARRAYS)
    (tmp_path / "config.json").write_text("{nope")
    assert formats.open_source(tmp_path).config is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_numpy(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    same(formats.read(tmp_path / "a.npz"), ARRAYS)
    formats.write_npz(tmp_path / "b.npz", ARRAYS)
    with np.load(tmp_path / "b.npz") as ours, np.load(tmp_path / "a.npz") as theirs:
        same(dict(ours), dict(theirs))


def test_npz_runs_nothing(tmp_path):
    evil = np.array([_Evil(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "a.npz", w=evil, v=VALUES)
    tensors = formats.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(tensors["v"], VALUES)
    with pytest.raises(UserError, match=r"w cannot be read safely: .*allow_pickle"):
        tensors["w"]
    (tmp_path / "b.npz").write_bytes(pickle.dumps(_Evil(tmp_path / "executed")))
    with pytest.raises(UserError, match=r"b\.npz cannot be read as npz"):
        formats.read(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", VALUES)
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")
    with pytest.raises(UserError, match="a single array"):
        formats.read(tmp_path / "c.npz")
    assert not (tmp_path / "executed").exists()


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
    same(formats.read(tmp_path / "a.weights.h5"), arrays)


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


def test_folder_of_kerashub(tmp_path, h5py):
    formats.write_h5(tmp_path / "model.weights.h5", {"w": VALUES})
    for name in ("config.json", "image_converter.json", "tokenizer.json"):
        (tmp_path / name).write_text(json.dumps({"class_name": name}))
    source = formats.open_source(tmp_path)
    assert source.config == {"class_name": "config.json"}
    assert set(source.json) == {"config.json", "image_converter.json", "tokenizer.json"}
    assert source.tokenizer is None  # KerasHub's tokenizer.json is a configuration
    path = tmp_path / "assets" / "tokenizer" / "vocabulary.spm"
    path.parent.mkdir(parents=True)
    path.touch()
    assert formats.open_source(tmp_path).tokenizer == path


def test_flipped_bits_of_npz_are_noticed(tmp_path):
    path = tmp_path / "a.npz"
    formats.write_npz(path, {"a": VALUES})
    data = bytearray(path.read_bytes())
    data[data.index(VALUES.tobytes()) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="a cannot be read safely: Bad CRC-32"):
        formats.read(path)["a"]


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


def test_shapes_of_files_are_known_without_reading_them(tmp_path, monkeypatch):
    formats.write_torch(tmp_path / "a.pth", {"a": VALUES})
    tensors = formats.read(tmp_path / "a.pth")
    monkeypatch.setattr(torch._TorchFile, "_read", lambda *arguments: 1 / 0)
    assert tensors.spec("a") == (VALUES.shape, VALUES.dtype)
