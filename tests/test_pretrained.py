"""Self-contained folders: written, loaded anywhere, and refused when damaged."""

import dataclasses
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

import vidjax
from tests.support.damage import change_card
from vidjax import models, pretrained, tokenizers
from vidjax import stored as stored_params
from vidjax.card import Card, read_card, write_card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing
from vidjax.stored import StoredParams

FIELDS = {
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 24,
    "eps": 1e-6,
    "patch_size": (2, 4, 4),
    "num_classes": 3,
}
FACTS = Preprocessing(frames=4, stride=2, size=8, short_side=10, mean=(0.5, 0.4, 0.3))


@pytest.fixture(scope="module")
def model():
    return models.build("videomae", head="classify", **FIELDS)


@pytest.fixture(scope="module")
def params(model):
    specs, tree = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(0)
    return tree.unflatten([rng.standard_normal(s.shape).astype(s.dtype) for s in specs])


@pytest.fixture(scope="module")
def card(model):
    return Card(models.config_of(model), FACTS, ("a", "b", "c"), {"source": "test"})


@pytest.fixture
def folder(tmp_path, params, card):
    pretrained.save_pretrained(tmp_path / "m", params, card)
    return tmp_path / "m"


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_round_trip(folder, params, card, model):
    assert read_card(folder) == card
    assert_same(pretrained.load_params(folder), params)
    loaded = vidjax.load_model(folder)
    assert loaded.model == model
    assert loaded.classes == ("a", "b", "c")
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded.params))


def test_loading_reads_the_card_once(folder, monkeypatch):
    reads, read = [], read_card
    monkeypatch.setattr(pretrained, "read_card", lambda x: reads.append(x) or read(x))
    pretrained.load_model(folder)
    assert reads == [folder]


def test_bfloat16_is_the_computation_only(folder, params):
    loaded = pretrained.load_model(folder, jnp.bfloat16)
    assert loaded.model.dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {np.dtype(np.float32)}
    video = np.zeros((4, 8, 8, 3), np.uint8)
    logits = loaded.model.apply({"params": loaded.params}, loaded.preprocess(video))
    assert logits.dtype == jnp.bfloat16


def test_parameters_are_read_together(folder, params, model, monkeypatch):
    stored, reads = pretrained.open_params(folder), []
    read = StoredParams.read

    def counted(self, names):
        reads.append(list(names))
        return read(self, names)

    monkeypatch.setattr(StoredParams, "read", counted)
    flat = {name: np.asarray(x) for name, x in flatten_dict(params, sep="/").items()}
    assert_same(dict(stored), flat)
    assert_same(dict(stored), flat)
    assert reads == [list(flat)]
    with pytest.raises(ValueError, match="read-only"):
        stored["head/bias"][:] = 0
    stored.read(["head/bias"])["head/bias"][:] = 0  # its own
    np.testing.assert_array_equal(stored["head/bias"], flat["head/bias"])
    # Few bytes at once; what is larger is read alone, and not kept.
    limit = 4 * 24 * 16
    monkeypatch.setattr(stored_params, "_AHEAD_BYTES", limit)
    reads.clear()
    stored = pretrained.open_params(folder)
    for name in flat:
        np.testing.assert_array_equal(stored[name], flat[name])
        size = sum(array.nbytes for array in stored._ahead.values())
        assert name in stored._ahead or flat[name].nbytes > limit or len(reads[-1]) == 1
        assert size <= limit
    assert [name for names in reads for name in names] == list(flat)
    assert 3 < len(reads) < len(flat)


def test_relative_paths_and_saving_twice(folder, params, card, monkeypatch):
    monkeypatch.chdir(folder.parent)
    other = jax.tree.map(lambda x: x + 1, params)
    pretrained.save_pretrained("m", other, card)
    assert_same(pretrained.load_params("m"), other)


def test_parameters_written_by_a_mesh_are_read_on_one_device(tmp_path, params, card, monkeypatch):
    # As by default, unlike in the other tests: each device writes a slice of what all hold.
    handler = ocp.type_handlers.get_type_handler(jax.Array)
    assert handler._min_slice_bytes_for_replica_parallel == 2**20
    monkeypatch.setattr(handler, "_min_slice_bytes_for_replica_parallel", None)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def shard(x):
        spec = PartitionSpec("data") if x.ndim and x.shape[0] % 8 == 0 else PartitionSpec()
        return jax.device_put(x, NamedSharding(mesh, spec))

    pretrained.save_pretrained(tmp_path / "m", jax.tree.map(shard, params), card)
    assert_same(pretrained.load_params(tmp_path / "m"), params)
    # And in a process that has one device, unlike the eight of this one.
    code = (
        "import jax, sys; from vidjax import pretrained\n"
        "assert jax.device_count() == 1\n"
        "print(float(abs(pretrained.load_params(sys.argv[1])['head']['kernel']).sum()))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m"],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert float(out.stdout) == float(abs(params["head"]["kernel"]).sum())


@pytest.mark.parametrize("ema", [True, False])
def test_workdir_of_a_run(tmp_path, params, card, ema):
    write_card(tmp_path, card)
    averaged = jax.tree.map(lambda x: x * 2, params)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        for step in (5, 10):
            state = {
                "step": np.int32(step),
                "params": jax.tree.map(lambda x, step=step: jnp.asarray(x + step), params),
                "opt_state": [{"mu": params}, {}],
                "ema_params": averaged if ema else {},
            }
            manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    (tmp_path / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir()  # a save that was cut off
    expected = averaged if ema else jax.tree.map(lambda x: x + 10, params)
    assert_same(pretrained.load_params(tmp_path), expected)
    assert vidjax.load_model(tmp_path).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 4}, r"has 3 classes and num_classes 4"),
        ({"mlp_dim": 25}, r"fc1/bias is float32\[2, 24\], expected float32\[2, 25\]"),
        ({"pool": "first"}, r"encoder/norm/scale is missing.*fc_norm/scale is not in the model"),
        ({"width": 20}, r"and \d+ more"),
        ({"wdith": 20}, r"unknown field.*did you mean 'width'"),
        ({"width": "16"}, r"model videomae: width is '16', expected an integer"),
        ({"eps": None}, r"model videomae: eps is None, expected a number"),
        ({"depth": -1}, r"model videomae: depth is -1, expected an integer from 1 to"),
        ({"patch_size": [2, 4]}, r"patch_size is \[2, 4\], expected a list of 3"),
        ({"width": 2**23}, r"model\.width is 8388608, which does not fit the \d+,\d+ parameters"),
        ({"pos_grid": [4096, 4096, 1]}, r"pos_grid is \[4096, 4096, 1\], which does not fit"),
    ],
)
def test_parameters_of_another_model_are_refused(folder, changes, message):
    change_card(folder, **changes)
    with pytest.raises(UserError, match=message):
        pretrained.load_model(folder)


def test_other_dtypes_are_refused_not_cast(tmp_path, params, card):
    half = jax.tree.map(lambda x: x.astype(np.float16), params)
    pretrained.save_pretrained(tmp_path, half, card)
    with pytest.raises(UserError, match=r"is float16\[.*expected float32\["):
        pretrained.load_params(tmp_path)


def test_foreign_and_damaged_folders(folder, tmp_path):
    with pytest.raises(UserError, match=r"nothing is no vidjax model: nothing of that name is"):
        pretrained.load_model(tmp_path / "nothing")

    for name, content, message in (
        ("json", "{", "is not JSON: Expecting property name"),
        ("keys", '{"format": 1}', "model is missing"),
        ("format", '{"format": 99}', "has format 99, this vidjax reads 1"),
        ("list", "[]", r"holds \[\], expected a JSON object"),
        ("deep", "[" * 100_000, "nested more than 100 levels deep"),
    ):
        shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "model.json").write_text(content)
        with pytest.raises(UserError, match=message):
            pretrained.load_model(tmp_path / name)

    shutil.copytree(folder, tmp_path / "empty")
    shutil.rmtree(tmp_path / "empty" / "params")
    with pytest.raises(UserError, match=r"holds no parameters: neither params/ nor checkpoints"):
        pretrained.load_model(tmp_path / "empty")

    shutil.copytree(folder, tmp_path / "metadata")
    (tmp_path / "metadata" / "params" / "_METADATA").unlink()
    with pytest.raises(UserError, match="damaged or incomplete"):
        pretrained.load_model(tmp_path / "metadata")

    shutil.copytree(folder, tmp_path / "data")
    for path in (tmp_path / "data" / "params").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="damaged or incomplete"):
        pretrained.load_model(tmp_path / "data")


def test_preprocess(folder):
    loaded = pretrained.load_model(folder)
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (4, 10, 10, 3), dtype=np.uint8)
    out = loaded.preprocess(clip)
    assert out.shape == (1, 4, 8, 8, 3)
    assert out.dtype == jnp.float32
    middle = (clip[:, 1:9, 1:9] / 255 - FACTS.mean) / FACTS.std
    np.testing.assert_allclose(out[0], middle, atol=1e-6)
    # A whole video is sampled: the middle clip at stride 2.
    video = np.repeat(np.arange(20, dtype=np.uint8), 300).reshape(20, 10, 10, 3)
    frames = loaded.preprocess(video)[0, :, 0, 0, 0] * FACTS.std[0] + FACTS.mean[0]
    np.testing.assert_allclose(np.diff(frames * 255), 2, atol=1e-3)


def as_images(clip):
    return [Image.fromarray(frame) for frame in clip]


@pytest.mark.parametrize("frames", [4, 20])
@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        as_images,
        jnp.asarray,
        lambda clip: clip.astype(np.int64),
        lambda clip: clip.transpose(0, 3, 1, 2),
        lambda clip: [frame.tolist() for frame in clip],
        lambda clip: [image.convert("RGBA") for image in as_images(clip)],
    ],
)
def test_preprocess_takes_frames_of_any_kind(folder, form, frames):
    loaded = pretrained.load_model(folder)
    clip = np.random.default_rng(0).integers(0, 256, (frames, 10, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.preprocess(form(clip)), loaded.preprocess(clip))


@pytest.mark.parametrize("frames", [4, 20])
@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda clip: clip / np.float32(255), r"float32 \[\d+, 10, 12, 3\], of values that are no"),
        (lambda clip: clip.astype(np.int16) - 1, r"int16 .*, of values that are no bytes"),
        (lambda clip: clip > 9, "bool .*, of values that are no bytes"),
        (lambda clip: np.repeat(clip, 2, 3)[..., :4], r"12, 4\]; expected .* drop alpha, video"),
        (lambda clip: clip[..., :1], r"12, 1\]; expected .*repeat a grey channel"),
        (lambda clip: clip[..., 0], r"\[\d+, 10, 12\]; expected integers from 0 to 255"),
        (
            lambda clip: clip.transpose(3, 0, 1, 2),
            r"\[3, \d+, 10, 12\]; .* reorder or add its axes",
        ),
        (lambda clip: clip[None], r"\[1, \d+, 10, 12, 3\]; expected"),
        (lambda clip: clip[:0], r"\[0, 10, 12, 3\]; expected"),
        (lambda clip: [], r"float64 \[0\]; expected|is no video array"),
        (lambda clip: [clip[0], clip[0][:5]], "a list is no video array .*same shape"),
        (lambda clip: ["a.jpg", "b.jpg"], r"<U5 \[2\]; expected"),
        (lambda clip: None, r"object \[\]; expected"),
        (lambda clip: Image.fromarray(clip[0]), r"uint8 \[10, 12, 3\]; expected"),
    ],
)
def test_preprocess_refuses_in_one_sentence(folder, form, message, frames):
    clip = np.full((frames, 10, 12, 3), 0, np.uint8)
    with pytest.raises(UserError, match=message) as error:
        pretrained.load_model(folder).preprocess(form(clip))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "words.json"
    tokenizers.train_clip_tokenizer(["a red dog"], path, 530)
    return path


def test_a_folder_keeps_its_tokenizer(tmp_path, card, clip_file, tokenizer_file):
    def kept(tokenizer, folder):
        folder.mkdir(exist_ok=True)
        entry = pretrained.keep_tokenizer(tokenizer, folder)
        write_card(folder, dataclasses.replace(card, tokenizer=entry))
        return entry, pretrained.load_tokenizer(folder)

    clip = tokenizers.open_tokenizer(
        clip_file, length=9, canonicalise=False, pad="end", truncate=True
    )
    entry, found = kept(clip, tmp_path / "clip")
    options = {"length": 9, "canonicalise": False, "pad": "end", "truncate": True}
    assert entry == {"file": "tokenizer.json", **options}
    assert (type(found), found.options) == (tokenizers.ClipTokenizer, options)
    assert found.path == str(tmp_path / "clip/tokenizer.json")
    for ours, theirs in zip(found(["A red dog!"]), clip(["A red dog!"]), strict=True):
        assert np.array_equal(ours, theirs)
    other = pretrained.load_tokenizer(tmp_path / "clip", length=5, canonicalise=True)
    assert other.options == options | {"length": 5, "canonicalise": True}
    changed = clip_file.parent / "changed.json"
    tokenizers.train_clip_tokenizer(["a blue cat"], changed, 530)
    with pytest.raises(UserError, match=r"is not the tokeniser in .*changed\.json, with which"):
        pretrained.keep_tokenizer(tokenizers.open_tokenizer(changed), tmp_path / "clip")

    entry, found = kept(tokenizers.Tokenizer(tokenizer_file, 7), tmp_path / "sentencepiece")
    assert entry == {"file": "tokenizer.model", "length": 7, "canonicalise": True}
    assert (type(found), found.length) == (tokenizers.Tokenizer, 7)
    with pytest.raises(UserError, match="has no option pad"):
        pretrained.load_tokenizer(tmp_path / "sentencepiece", pad="end")
