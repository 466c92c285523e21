"""Folders and single files: the weights that are read, and the JSON files beside them."""

import json

import msgpack
import pytest

from converters import formats
from tests.support.weight_files import ARRAYS, VALUES
from vidjax.errors import UserError


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


def test_folder_of_kerashub(tmp_path):
    pytest.importorskip("h5py")
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
