"""The command: where it reads from, what it leaves behind, and how it refuses."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from converters import Options, convert, formats, importing
from tests.support import hub
from vidjax import checksums, pretrained
from vidjax.card import Card, read_card, write_card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens/videomae_finetune_meanpool/checkpoint-0.pth"
OPTIONS = Options(heads=4, frames=10, size=32)


def quiet(source, target, format=None, options=OPTIONS, **keywords):
    lines = []
    convert.convert(str(source), target, format, options=options, say=lines.append, **keywords)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "head", "frames", "tokenizer", "command"),
    [
        ("videomae", "classify", 16, None, "predict"),
        ("videomae", "reconstruct", 16, None, "train"),
        ("vivit", "classify", 1, None, "train"),  # of single frames
        ("videoprism", "video", 16, None, "embed"),
        ("videoprism", "video_text", 16, {}, "embed"),
        ("xclip", "video_text", 8, {"file": "tokenizer.json"}, "predict"),
        ("xclip", "image", 1, None, "embed"),
        ("xclip", "image_text", 8, {"file": "tokenizer.json"}, "train"),
        ("xclip", "text", 8, {"file": "tokenizer.json"}, None),
    ],
)
def test_the_next_command(name, head, frames, tokenizer, command):
    preprocessing = Preprocessing(frames=frames)
    card = Card({"name": name, "head": head}, preprocessing, tokenizer=tokenizer)
    found = convert._next(card, pathlib.Path("there"))
    assert (found and found.split()[0]) == command


def tree(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_command_and_its_summary(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "converters.convert", *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )

    done = run(f"--from={GOLDEN}", f"--to={tmp_path}/v", "--heads=4")
    assert done.returncode == 0, done.stderr
    for text in (
        "45 tensors, 62,143 parameters, all bytes reproduced",
        f"sha256 {checksums.sha256(GOLDEN)} checkpoint-0.pth",
        "eps=1e-06",
        "resize=cv2_linear",
        "note: clips of 16 frames, 224 pixels are assumed",
        f"next: python -m vidjax.predict --checkpoint={tmp_path}/v --video=a.mp4",
    ):
        assert text in done.stdout
    provenance = read_card(tmp_path / "v").provenance
    assert provenance["files"] == {"checkpoint-0.pth": checksums.sha256(GOLDEN)}
    assert provenance["format"] == "original"

    failed = run(f"--from={tmp_path}/nothing.pth", f"--to={tmp_path}/w")
    assert failed.returncode == 2
    assert failed.stderr.strip().endswith(f"error: {tmp_path}/nothing.pth does not exist")
    assert "Traceback" not in failed.stderr
    assert run().stderr.strip().endswith("error: give --from=SOURCE and --to=FOLDER")


def test_target_must_be_new_or_an_earlier_conversion(tmp_path):
    quiet(GOLDEN, tmp_path / "v")
    quiet(GOLDEN, tmp_path / "v")  # replaces its own
    assert {path.name for path in tmp_path.iterdir()} == {"v"}
    assert {path.name for path in (tmp_path / "v").iterdir()} == {"model.json", "params"}
    (tmp_path / "v" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and no earlier conversion"):
        quiet(GOLDEN, tmp_path / "v")
    assert (tmp_path / "v" / "notes.txt").read_text() == "mine"
    # A run's workdir has a model.json too, and weeks of work beside it.
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "model.json").write_text("{}")
    with pytest.raises(UserError, match="no earlier conversion"):
        quiet(GOLDEN, tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        quiet(GOLDEN, tmp_path / "file")
    (tmp_path / "v" / "notes.txt").unlink()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is not empty"):
        quiet(tmp_path / "v", tmp_path / "hf", "hf")


def test_a_failed_conversion_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "verify", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quiet(GOLDEN, tmp_path / "v")
    assert not tree(tmp_path)


def test_messages_name_no_folder_that_is_gone(tmp_path, monkeypatch):
    def fail(folder):
        raise UserError(f"{folder}/params is damaged")

    monkeypatch.setattr(pretrained, "open_params", fail)
    with pytest.raises(UserError, match=rf"^{tmp_path}/v/params is damaged$"):
        quiet(GOLDEN, tmp_path / "v")


def test_weights_that_are_not_finite_are_noted(tmp_path):
    arrays = dict(formats.read(GOLDEN))
    arrays["head.bias"] = np.array(arrays["head.bias"])
    arrays["head.bias"][[1, 2]] = np.inf, np.nan
    formats.write(tmp_path / "a.pth", arrays, {})
    assert "WARNING: 1 parameters hold NaN or infinity (head/bias, ...)" in quiet(
        tmp_path / "a.pth", tmp_path / "v"
    )
    assert "NaN" not in quiet(GOLDEN, tmp_path / "sound")


def test_quantised_weights_are_refused(tmp_path):
    arrays = dict(formats.read(GOLDEN))
    arrays["head.bias"] = np.ones(7, np.int8)
    formats.write(tmp_path / "a.pth", arrays, {})
    with pytest.raises(UserError, match=r"head\.bias is int8; expected floats"):
        quiet(tmp_path / "a.pth", tmp_path / "v")


def test_names_of_files_cannot_command_a_terminal(tmp_path):
    (tmp_path / "\x1b[31mred.pth").write_bytes(GOLDEN.read_bytes())
    said = quiet(tmp_path / "\x1b[31mred.pth", tmp_path / "v")
    assert "\x1b" not in said and r"\x1b[31mred.pth" in said


def test_a_wrong_byte_on_disk_is_noticed(tmp_path, monkeypatch):
    right = pretrained.save_pretrained

    def damaged(folder, params, card):
        params["head"]["bias"][3] = np.nextafter(params["head"]["bias"][3], np.float32(9))
        right(folder, params, card)

    monkeypatch.setattr(pretrained, "save_pretrained", damaged)
    with pytest.raises(UserError, match=r"head\.bias does not come back byte for byte"):
        quiet(GOLDEN, tmp_path / "v")
    assert not tree(tmp_path)


def test_directions_and_families(tmp_path):
    with pytest.raises(UserError, match=r"is none: it has no model\.json"):
        quiet(GOLDEN, tmp_path / "v", "hf")
    quiet(GOLDEN, tmp_path / "v")
    with pytest.raises(UserError, match="is a vidjax folder already"):
        quiet(tmp_path / "v", tmp_path / "w", "vidjax")
    with pytest.raises(UserError, match="--model=resnet is unknown; there are videomae"):
        quiet(GOLDEN, tmp_path / "w", model="resnet")
    formats.write_safetensors(tmp_path / "a.safetensors", {"conv1.weight": np.ones(3, np.float32)})
    with pytest.raises(
        UserError, match="no weights of videomae or videoprism or vivit or xclip: its"
    ):
        quiet(tmp_path / "a.safetensors", tmp_path / "w")
    with pytest.raises(UserError, match=r"no model of width 36 was published"):
        quiet(GOLDEN, tmp_path / "w", options=Options())
    with pytest.raises(UserError, match=r"--heads=5 does not divide the width 36"):
        quiet(GOLDEN, tmp_path / "w", options=Options(heads=5))


def test_workdir_of_a_run_is_exported(tmp_path):
    import jax
    import orbax.checkpoint as ocp

    quiet(GOLDEN, tmp_path / "v")
    params = pretrained.load_params(tmp_path / "v")
    card = read_card(tmp_path / "v")
    run = tmp_path / "run"
    run.mkdir()
    write_card(run, Card(card.model, card.preprocessing, tuple("abcdefg"), {"format": "vidjax"}))
    with ocp.CheckpointManager(run / "checkpoints") as manager:
        state = {"step": np.int32(1), "params": params, "opt_state": {}, "ema_params": {}}
        manager.save(1, args=ocp.args.StandardSave(jax.tree.map(jax.numpy.asarray, state)))
    report = quiet(run, tmp_path / "out")
    assert "fc_norm_eps is 1e-06 here but always 1e-05 in transformers" in report
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"]["6"] == "g"
    assert config["num_frames"] == 10
    quiet(run / "checkpoints/1", tmp_path / "step")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "step" / path.name).read_bytes()
    quiet(tmp_path / "out", tmp_path / "again")
    again = pretrained.open_params(tmp_path / "again")
    np.testing.assert_array_equal(again["head/kernel"], params["head"]["kernel"])
    assert read_card(tmp_path / "again").classes == tuple("abcdefg")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    return hub.offline(monkeypatch, tmp_path / "cache")


def cached(cache, repository, name, write):
    path = hub.snapshot(cache, repository) / name
    path.parent.mkdir(exist_ok=True)
    write(path)


def test_hub_ids_come_from_the_local_cache(tmp_path, hub_cache):
    tensors = dict(formats.read(GOLDEN))
    cached(
        hub_cache,
        "someone/videomae",
        "model.safetensors",
        lambda path: formats.write_safetensors(path, tensors),
    )
    quiet("someone/videomae", tmp_path / "a")
    assert read_card(tmp_path / "a").provenance["source"] == "someone/videomae@abc123"
    quiet("someone/videomae@main", tmp_path / "b")

    cached(
        hub_cache,
        "OpenGVLab/VideoMAE2",
        "distill/vit_s_k710_dl_from_giant.pth",
        lambda path: formats.write_torch(path, tensors),
    )
    name = "OpenGVLab/VideoMAE2/distill/vit_s_k710_dl_from_giant.pth"
    quiet(name, tmp_path / "c")
    source = read_card(tmp_path / "c").provenance["source"]
    assert source == "OpenGVLab/VideoMAE2@abc123/distill/vit_s_k710_dl_from_giant.pth"
    with pytest.raises(UserError, match=r"name a file as OpenGVLab/VideoMAE2/path/to/file\.pth"):
        quiet("OpenGVLab/VideoMAE2", tmp_path / "d")


def test_hub_ids_that_are_not_cached_offline(tmp_path, hub_cache):
    with pytest.raises(UserError, match=r"neither a path here nor available .*HF_HUB_OFFLINE"):
        quiet("someone/unknown", tmp_path / "a")
    with pytest.raises(UserError, match=r"neither a path here nor available"):
        quiet("some one/bad name", tmp_path / "a")
