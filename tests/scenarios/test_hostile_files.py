"""Damaged and hostile files: one sentence, or what a sound file gives, in bounds."""

import pickle
import pickletools
import resource
import time
import zipfile

import numpy as np
import pytest

from converters import formats
from converters.formats import unpickling
from converters.mapping import Rule, to_params
from tests.support import mutations
from vidjax import errors, json_files
from vidjax.errors import UserError

MEGABYTE = 2**20


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutations")


def tried(name, folder, seeds):
    """The outcomes of some mutations, each of them in bounds."""
    kind = mutations.KINDS[name]
    case = folder / name.replace(" ", "_")
    sound, expected = mutations.prepare(kind, case)
    before, outcomes = peak(), []
    for seed in seeds:
        start = time.monotonic()
        result = mutations.outcome(kind, case, seed, sound, expected)
        assert time.monotonic() - start < 20, f"seed {seed}"
        lines = result.splitlines()  # more than one where tensors do not fit a model
        assert len(lines) <= 32 and len(lines[0]) < 1500, f"seed {seed}: {result}"
        outcomes.append(result)
    assert peak() - before < 500 * MEGABYTE
    if kind.checked:
        assert "different" not in outcomes, outcomes.index("different")
    refused = [result for result in outcomes if result not in ("same", "different")]
    assert refused
    return outcomes


@pytest.mark.parametrize("name", mutations.KINDS)
def test_a_sentence_or_the_same_numbers(name, folder):
    pytest.importorskip("h5py") if name == "h5" or "Keras" in name or "image_c" in name else None
    tried(name, folder, range(10))


@pytest.mark.slow
@pytest.mark.parametrize("name", mutations.KINDS)
def test_a_sentence_or_the_same_numbers_for_thousands(name, folder):
    tried(name, folder / "thousands", range(1000, 1100))


def refused(path, message):
    before = peak()
    with pytest.raises(UserError, match=message) as caught:
        tensors = formats.read(path)
        for name in tensors:
            np.asarray(tensors[name]).copy()
    assert peak() - before < 200 * MEGABYTE
    assert "\n" not in str(caught.value)


def torch_file(path, structure, compression=zipfile.ZIP_STORED, storage=b"\0" * 64):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", structure)
        archive.writestr("a/data/0", storage)
    return path


def tensor_pickle(shape, strides, size=16):
    """{"w": a view of storage 0}, in protocol 2."""

    def integers(values):
        return b"(" + b"".join(pickle.LONG1 + b"\x08" + v.to_bytes(8, "little") for v in values)

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    storage += integers([size])[1:] + b"tQ"
    view = integers([0])[1:] + integers(shape) + b"t" + integers(strides) + b"t\x89N"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"tR"
    return b"\x80\x02}X\x01\0\0\0w" + call + b"s."


def test_the_pickle_of_these_tests_is_sound(tmp_path):
    path = torch_file(tmp_path / "a.pth", tensor_pickle([4, 4], [4, 1]))
    np.testing.assert_array_equal(formats.read(path)["w"], np.zeros((4, 4)))


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.", "1 entries are no tensors"),  # nested
        (b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.", "1 entries are no tensors"),  # 2^60 items
        (b"\x80\x02" + b"]" * 2_000_001, "more than 2,000,000 operations"),
        (b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".", "cannot be read safely"),
        (b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.", "holds os.system, not a state_dict"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "cannot be read safely"),
        (b"\x80\x02((((((t.", "holds tuple, not a state_dict"),
        (b"\x80\x02t.", "cannot be read safely"),
        (b"\x80\x02N2sss.", "cannot be read safely: IndexError"),
        (tensor_pickle([2**31], [0]), r"has 4\d\d bytes and claims tensors of 8,589,934,592"),
        (tensor_pickle([2**20] * 9, [0] * 9), "claims tensors of"),
        (tensor_pickle([2, 2], [1]), "tensor w lies outside its storage"),
        (tensor_pickle([2], [1], size=2**40), "storage 0 has 64 bytes, not"),
        (b"\x80\x02}X\x01\0\0\0wK\x01s.", r"the first 'w' \(int\); expected a state_dict"),
    ],
)
def test_hostile_pickles(tmp_path, structure, message):
    start = time.monotonic()
    refused(torch_file(tmp_path / "a.pth", structure), message)
    assert time.monotonic() - start < 20


def test_a_memo_of_any_index_takes_no_memory():
    before = peak()
    assert unpickling.load(b"\x80\x02}r\xf0\xff\xff\xff.") == {}
    assert peak() - before < 10 * MEGABYTE


def test_every_opcode_is_known_or_refused():
    """So that a new one of Python's is looked at first."""
    left_out = {"PERSID", "INST", "OBJ", "POP_MARK", "EXT1", "EXT2", "EXT4"}
    left_out |= {"NEXT_BUFFER", "READONLY_BUFFER"}
    known = {"STOP"} | unpickling._PUSHES | unpickling._CONSTANTS.keys()
    refused = set()
    for name in {opcode.name for opcode in pickletools.opcodes} - known:
        try:
            unpickling._Machine()._do(name, None)
        except ValueError as error:
            refused |= {name} if "no checkpoint needs" in str(error) else set()
        except (IndexError, KeyError, AttributeError):  # nothing is on the stack
            pass
    assert refused == left_out


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_containers_of_every_protocol(protocol):
    content = {"a": [1, -2, 2**70, 0.5, None, True, "é"], "b": {"c": (1, (2,), ()), 3: "x"}}
    assert unpickling.load(pickle.dumps(content, protocol)) == content
    assert unpickling.load(pickle.dumps({"a": {1, 2}}, protocol))["a"].what


def test_a_refused_pickle_is_no_advice_to_run_it(tmp_path):
    (tmp_path / "old.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2))
    with pytest.raises(UserError, match="weights_only=True") as caught:
        formats.read(tmp_path / "old.pth")
    assert "False" not in str(caught.value)


def test_a_deflated_structure_is_refused(tmp_path):
    path = torch_file(tmp_path / "a.pth", b"\x80\x02}" + bytes(10**8), zipfile.ZIP_DEFLATED)
    refused(path, "data.pkl is compressed, which torch.save never does")


def test_what_npz_claims_is_compared_with_its_size(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
    refused(tmp_path / "a.npz", r"w cannot be read safely: 0 bytes do not hold float32 of shape")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", bytes(10**8))
    refused(tmp_path / "b.npz", r"has 97,\d+ bytes and claims tensors of 100,000,000")


@pytest.mark.parametrize("name", ["a.npz", "a.pth"])
def test_members_that_a_damaged_directory_hides_are_missed(tmp_path, name):
    formats.write(tmp_path / name, mutations.ARRAYS, {})
    content = bytearray((tmp_path / name).read_bytes())
    count = int.from_bytes(content[-12:-10], "little")
    content[-12:-10] = (count + 1).to_bytes(2, "little")
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, rf"its directory lists {count} of {count + 1} members")


def test_objects_of_msgpack_are_counted(tmp_path):
    size = 2_000_000
    (tmp_path / "a.msgpack").write_bytes(b"\xdd" + size.to_bytes(4, "big") + bytes(size))
    refused(tmp_path / "a.msgpack", "it holds more than 1,000,000 objects")


def test_shapes_are_compared_before_a_sparse_file_is_read(tmp_path):
    path, size = tmp_path / "a.safetensors", 2**38
    header = b'{"w":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (size // 4, size)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + size)
    tensors, before = formats.read(path), peak()
    small = np.zeros(3, np.float32)
    with pytest.raises(UserError, match=r"shape: w is \(68719476736,\), but this model needs"):
        to_params(tensors, [Rule("w", "w")], {"w": small})
    with pytest.raises(UserError, match=r"ask for 275 GB of parameters, and this machine has"):
        to_params(tensors, [Rule("w", "w")], {"w": tensors.spec("w")})
    assert peak() - before < 100 * MEGABYTE


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.bool_])
def test_integers_are_no_weights(dtype):
    want = {"w": np.zeros(3, np.float32)}
    with pytest.raises(UserError, match=f"w is {np.dtype(dtype)}; expected floats, quantised"):
        to_params({"w": np.zeros(3, dtype)}, [Rule("w", "w")], want)


def test_a_list_of_problems_has_an_end():
    rules = [Rule(f"r{'x' * k}", "w") for k in range(900)]
    with pytest.raises(UserError, match=r"and \d+ more$") as caught:
        to_params({}, rules, {"w": np.zeros(3, np.float32)})
    assert len(str(caught.value).splitlines()) == 32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "a is nested more than 100 levels deep"),
        (b"[" * 101 + b"]" * 101, "a is nested more than 100 levels deep"),
        (b'{"a": NaN}', "a is not JSON: NaN is no number of JSON"),
        (b"[-Infinity]", "a is not JSON: -Infinity"),
        (b"1e999", "'1e999' is too large a number"),
        (b"9" * 5000, "a is not JSON: "),
        (b'"\\ud800"', "a is not JSON: .*surrogates not allowed"),
        (b"\xff", "a is not JSON: "),
        (b"", "a is not JSON: "),
    ],
)
def test_json_out_of_bounds(content, message):
    with pytest.raises(UserError, match=message):
        json_files.parse(content, "a")


def test_json_in_bounds():
    assert json_files.parse(b'{"a": [1, 1.5, null, "\\ud83d\\ude00"]}', "a")["a"][3] == "😀"
    assert json_files.parse(b"[" * 100 + b"]" * 100, "a")


class TestTypes:
    SOUND = (
        (3, int), (3, float), (0.5, float), ("x", str), (None, str | None), (True, bool | None),
        ([1, 2], tuple[int, int]), ((), tuple[int, ...]), ({"a": 1}, mutations.Any),
        (7, json_files.Size), (0, json_files.Count), ("12", json_files.Digits), ([1], list[int]),
    )  # fmt: skip
    UNSOUND = (
        (True, int), (1.0, int), (float("nan"), float), (float("inf"), float), (False, float),
        (1, bool), (1, str), (None, int), ([1], tuple[int, int]), ("ab", tuple[str, ...]),
        (0, json_files.Size), (2**30, json_files.Size), (-1, json_files.Count),
        (0.0, json_files.Positive), ("-1", json_files.Digits), (10**400, float),
    )  # fmt: skip

    def test_sound(self):
        assert [pair for pair in self.SOUND if not json_files.fits(*pair)] == []

    def test_unsound(self):
        assert [pair for pair in self.UNSOUND if json_files.fits(*pair)] == []

    def test_the_sentence(self):
        expected = {"model": {"sizes": tuple[json_files.Size, json_files.Size] | None}}
        with pytest.raises(UserError) as caught:
            json_files.check({"model": {"sizes": [1, "x" * 999]}}, expected, "dir/config.json")
        text = str(caught.value)
        assert text.startswith("dir/config.json: model.sizes is [1, 'xxx")
        assert "expected a list of 2, each an integer from 1 to 2^24 or null; correct" in text
        assert len(text) < 300


def test_messages_fit_a_terminal():
    text = errors.printable("a\x1b[31m\x07b\rc\nd\u202ee" + "\nline" * 60_000)
    assert text.startswith("a\\x1b[31m\\x07b\\rc\nd\\u202ee\nline")
    assert text.endswith("\n... and 59962 more lines")
    assert len(errors.printable("x" * 10**6)) < 600
    assert errors.printable("é 日本") == "é 日本"
