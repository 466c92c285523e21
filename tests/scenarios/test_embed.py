"""Embeddings of folders and lists of videos by small random encoders, and interruptions."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import jax
import numpy as np
import pytest

import vidjax
from tests.support.damage import damage
from tests.support.videos import write_video
from vidjax import embed, embeddings, models, pretrained
from vidjax.card import Card
from vidjax.data import BadVideos, windows
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

SIZES = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 24, "eps": 1e-6}
VIDEOMAE = {"name": "videomae", **SIZES, "patch_size": (2, 8, 8)}
CLASSIFIER = VIDEOMAE | {"head": "classify", "num_classes": 3}
FACTS = Preprocessing(frames=4, stride=2, size=16, short_side=16)
LENGTHS = {"b.mp4": 20, "a/deep/c.mp4": 40, "a/d.mkv": 8, "e.mp4": 5}  # 3, 5, 1, 1 windows


def save(folder: pathlib.Path, fields: dict, seed: int = 0, facts: Preprocessing = FACTS) -> str:
    model = models.build(**fields)
    specs, tree = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(seed)
    params = tree.unflatten([rng.standard_normal(s.shape).astype(s.dtype) for s in specs])
    pretrained.save_pretrained(folder, params, Card(models.config_of(model), facts))
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("model") / "m", CLASSIFIER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Four videos in folders, one that is none, and files that are not meant."""
    root = tmp_path_factory.mktemp("videos")
    for name, frames in LENGTHS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, frames, height=16, width=16)
    (root / "a" / "broken.MP4").write_bytes(b"no video" * 99)
    (root / "notes.txt").write_text("nothing")
    (root / "a" / "._d.mkv").write_bytes(b"resource fork")
    return root


def run(checkpoint, folder, output, **options):
    path = embed.embed(checkpoint, str(folder), str(output), batch_size=1, **options)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_every_window_of_a_folder_is_embedded_in_order(checkpoint, folder, tmp_path):
    found = run(checkpoint, folder, tmp_path / "out.npz")
    names = [os.path.relpath(path, folder) for path in found["paths"]]
    assert names == ["a/broken.MP4", "a/d.mkv", "a/deep/c.mp4", "b.mp4", "e.mp4"]
    assert found["video"].tolist() == [1, 2, 2, 2, 2, 2, 3, 3, 3, 4]
    assert found["start_frame"].tolist() == [0, 0, 8, 16, 24, 32, 0, 8, 12, 0]
    assert found["end_frame"].tolist() == [8, 8, 16, 24, 32, 40, 8, 16, 20, 5]
    np.testing.assert_allclose(found["start_time"], found["start_frame"] / 10, atol=1e-6)
    np.testing.assert_allclose(found["end_time"], found["end_frame"] / 10, atol=1e-6)
    assert found["embeddings"].dtype == np.float32 and found["embeddings"].shape == (10, 16)
    loaded = pretrained.load_model(checkpoint)
    for row in (0, 4, 8, 9):
        (path, start, end) = (
            *(found["paths"][found["video"][row]], found["start_frame"][row]),
            found["end_frame"][row],
        )
        whole = vidjax.read_video(path, None, 1)
        clip = whole[np.minimum(start + np.arange(4) * 2, (end - 1) // 2 * 2)]
        expected = loaded.model.apply(
            {"params": loaded.params}, loaded.preprocess(clip), method="embed"
        )
        np.testing.assert_allclose(found["embeddings"][row], expected[0], rtol=1e-4, atol=1e-4)
    (bad,) = map(json.loads, (tmp_path / "out.npz.bad_videos.jsonl").read_text().splitlines())
    assert bad["path"].endswith("broken.MP4") and bad["reason"]
    assert not (tmp_path / "out.npz.part").exists()


def test_mean_has_a_row_for_each_video(checkpoint, folder, tmp_path):
    rows = run(checkpoint, folder, tmp_path / "rows.npz")
    found = run(checkpoint, folder, tmp_path / "mean.npz", pool="mean")
    assert found["video"].tolist() == [1, 2, 3, 4]
    assert found["start_frame"].tolist() == [0] * 4
    assert found["end_frame"].tolist() == [8, 40, 20, 5]
    expected = [rows["embeddings"][rows["video"] == i].mean(0) for i in range(1, 5)]
    np.testing.assert_allclose(found["embeddings"], expected, rtol=1e-5, atol=1e-5)


def test_npy_and_lists(checkpoint, folder, tmp_path):
    with open(tmp_path / "list.csv", "w") as file:
        csv.writer(file).writerows([["path"], ["e.mp4"], ["b.mp4"], ["e.mp4"]])
    output = embed.embed(
        checkpoint, str(tmp_path / "list.csv"), str(tmp_path / "o.npy"), root=str(folder),
        window_stride=0.4, batch_size=1,
    )  # fmt: skip
    index = json.loads((tmp_path / "o.json").read_text())
    assert [os.path.basename(path) for path in index["paths"]] == ["e.mp4", "b.mp4"]
    assert index["video"] == [0, 1, 1, 1, 1] and index["start_frame"] == [0, 0, 4, 8, 12]
    assert index["settings"]["window_stride"] == 0.4
    assert np.load(output).shape == (5, 16)


def test_encoders_of_other_families(folder, tmp_path):
    vivit = VIDEOMAE | {"name": "vivit", "factorisation": "joint", "pool": "mean"}
    found = run(
        save(tmp_path / "a", vivit | {"clip": (4, 16, 16)}), folder / "a", tmp_path / "a.npz"
    )
    assert found["embeddings"].shape == (6, 16)
    prism = VIDEOMAE | {"name": "videoprism", "patch_size": (1, 8, 8), "pos_grid": (4, 2, 2)}
    prism |= {"scale_offset": 1.0, "temporal_depth": 1, "head": "video"}
    whole = dataclasses.replace(FACTS, sampling="linspace")
    found = run(save(tmp_path / "b", prism, facts=whole), folder, tmp_path / "b.npz")
    assert found["end_frame"].tolist() == [8, 40, 20, 5]
    np.testing.assert_allclose(np.linalg.norm(found["embeddings"], axis=1), 1, rtol=1e-5)


class Interrupted(BaseException):
    pass


def test_an_interrupted_run_goes_on_where_it_was(checkpoint, folder, tmp_path, monkeypatch):
    expected = run(checkpoint, folder, tmp_path / "whole.npz")
    output, part = tmp_path / "out.npz", tmp_path / "out.npz.part"
    add, kept = embed.Part.add, []

    def add_two(self, path, *args):
        if len(kept) == 2:
            raise Interrupted
        kept.append(path)
        add(self, path, *args)

    monkeypatch.setattr(embed.Part, "add", add_two)
    with pytest.raises(Interrupted):
        run(checkpoint, folder, output)
    assert not output.exists() and part.exists()
    monkeypatch.setattr(embed.Part, "add", add)
    read, again = windows.read, []

    def listed(item, *args):
        again.append(item.path)
        return read(item, *args)

    monkeypatch.setattr(windows, "read", listed)
    found = run(checkpoint, folder, output)
    assert not set(again) & set(kept) and len(again) == 3
    assert found.keys() == expected.keys()
    for name in found.keys() - {"embeddings"}:
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found["embeddings"], expected["embeddings"], rtol=1e-5, atol=1e-5)
    assert not part.exists()
    again.clear()  # a finished one is left as it is
    before = output.stat().st_mtime_ns
    run(checkpoint, folder, output)
    assert not again and output.stat().st_mtime_ns == before


def unfinished(checkpoint, folder, output, monkeypatch) -> pathlib.Path:
    """All videos are done, and the process dies before it writes the output."""
    with monkeypatch.context() as patch:
        patch.setattr(embed.Part, "write", lambda *_: (_ for _ in ()).throw(Interrupted))
        with pytest.raises(Interrupted):
            run(checkpoint, folder, output)
    return pathlib.Path(f"{output}.part")


def test_damaged_parts_and_changed_videos_are_done_again(checkpoint, folder, tmp_path, monkeypatch):
    videos = shutil.copytree(folder, tmp_path / "videos")
    part = unfinished(checkpoint, videos, tmp_path / "o.npz", monkeypatch)
    files = sorted(part.glob("*/*.npz"))
    assert len(files) == 4
    os.utime(videos / "a/deep/c.mp4", (1, 1))
    stamps = embed.stamps_of(str(videos / name) for name in LENGTHS)
    loaded = embed.Part(str(part), json.loads((part / "settings.json").read_text()), stamps)
    damage = [loaded._file(str(videos / name)) for name in ("b.mp4", "e.mp4", "a/d.mkv")]
    content = bytearray(pathlib.Path(damage[0]).read_bytes())
    content[200] ^= 1  # in the embeddings
    pathlib.Path(damage[0]).write_bytes(content)
    pathlib.Path(damage[1]).write_bytes(b"")
    pathlib.Path(damage[2]).write_bytes(pathlib.Path(damage[2]).read_bytes()[:-30])
    assert not any(loaded.find(str(videos / name)) for name in LENGTHS)
    found = run(checkpoint, videos, tmp_path / "o.npz")
    expected = run(checkpoint, videos, tmp_path / "whole.npz")
    np.testing.assert_allclose(found["embeddings"], expected["embeddings"], rtol=1e-5, atol=1e-5)


def test_work_of_before_a_field_was_added_goes_on(checkpoint, folder, tmp_path, monkeypatch):
    part = unfinished(checkpoint, folder, tmp_path / "o.npz", monkeypatch)
    settings = json.loads((part / "settings.json").read_text())
    assert settings["preprocessing"].pop("stretch_to") is None
    (part / "settings.json").write_text(json.dumps(settings))
    run(checkpoint, folder, tmp_path / "o.npz")


def test_another_checkpoint_or_other_settings_are_refused(
    checkpoint, folder, tmp_path, monkeypatch
):
    output = tmp_path / "o.npz"
    unfinished(checkpoint, folder, output, monkeypatch)
    other = save(tmp_path / "other", CLASSIFIER, seed=1)
    for _ in ("unfinished", "finished"):
        with pytest.raises(UserError, match=r"settings \(other parameters\); choose another"):
            run(other, folder, output)
        with pytest.raises(UserError, match=r"\(window_stride None, now 0.4\)"):
            run(checkpoint, folder, output, window_stride=0.4)
        run(checkpoint, folder, output)
    with pytest.raises(UserError, match="complete, of another list"):
        run(checkpoint, folder / "a", output)
    output.write_text("my thesis")
    with pytest.raises(UserError, match="not made by this command"):
        run(checkpoint, folder, output)
    assert output.read_text() == "my thesis"


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_a_finished_output_is_of_the_videos_as_they_are(checkpoint, folder, tmp_path, kind):
    videos, output = shutil.copytree(folder / "a", tmp_path / "videos"), tmp_path / f"o.{kind}"
    arguments = checkpoint, str(videos), str(output)
    embed.embed(*arguments, batch_size=1)
    before = output.stat().st_mtime_ns
    embed.embed(*arguments, batch_size=1)
    shutil.copy(folder / "e.mp4", videos / "broken.MP4")  # had no rows, would have now
    os.utime(videos / "d.mkv", (1, 1))
    with pytest.raises(UserError, match=r"2 of its videos changed since, such as .*broken.MP4;"):
        embed.embed(*arguments, batch_size=1)
    assert output.stat().st_mtime_ns == before
    output.unlink()  # as it says; the .json beside it is no obstacle
    embed.embed(*arguments, batch_size=1)


def arguments_of(output: pathlib.Path) -> tuple[str, dict, dict]:
    """Arguments with which `is_finished` finds an output to be just that."""
    if output.suffix == ".npz":
        with np.load(output) as file:
            content = {name: file[name].tolist() for name in ("paths", "stamps")}
            content["settings"] = json.loads(str(file["settings"]))
    else:
        content = json.loads(output.with_suffix(".json").read_text())
    stamps = dict(zip(content["paths"], content["stamps"], strict=True))
    return str(output), content["settings"], stamps


@pytest.mark.parametrize("kind", ["npz", "npy", "json"])
def test_a_damaged_output_is_noticed(checkpoint, folder, tmp_path, kind):
    output = tmp_path / ("o.npz" if kind == "npz" else "o.npy")
    embed.embed(checkpoint, str(folder), str(output), batch_size=1)
    arguments, damaged = arguments_of(output), output.with_suffix(f".{kind}")
    whole, refused = damaged.read_bytes(), set()
    assert embeddings.is_finished(*arguments)
    for seed in range(150):
        damaged.write_bytes(damage(whole, np.random.default_rng(seed)))
        try:  # what is no longer to be seen in the content of JSON is white space
            finished = embeddings.is_finished(*arguments)
            assert finished and kind == "json", seed
            assert json.loads(damaged.read_bytes()) == json.loads(whole), seed
        except UserError as error:
            assert "\n" not in str(error)
            refused.add(str(error).partition(" ")[2])
    remedy = "delete it, and the same command makes it anew, or restore it from a copy"
    other = "exists and was not made by this command, or is damaged; choose another --output"
    expected = {f"is not as it was written; {remedy}", f"{other}, or move it away"}
    assert refused <= expected and refused
    damaged.unlink()
    if kind == "json":  # a .npy alone may be the user's
        with pytest.raises(UserError, match=r"o\.npy exists and was not made by this command"):
            embeddings.is_finished(*arguments)
    else:
        assert not embeddings.is_finished(*arguments)


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_outputs_without_digests_are_checked_as_far_as_they_can_be(
    checkpoint, folder, tmp_path, kind
):
    output = tmp_path / f"o.{kind}"
    embed.embed(checkpoint, str(folder), str(output), batch_size=1)
    if kind == "npz":
        with zipfile.ZipFile(output, "a") as file:
            file.comment = b""
    else:
        index = json.loads((tmp_path / "o.json").read_text())
        del index["line_crc32"], index["sha256"]
        (tmp_path / "o.json").write_text(json.dumps(index))
    assert embeddings.is_finished(*arguments_of(output))
    arguments, content = arguments_of(output), bytearray(output.read_bytes())
    if kind == "npz":
        content[300] ^= 1  # in the embeddings, whose checksum the zip file has
    else:
        del content[-9:]
    output.write_bytes(content)
    with pytest.raises(UserError, match="is not as it was written; delete it"):
        embeddings.is_finished(*arguments)


def test_damaged_parts_count_as_not_there(checkpoint, folder, tmp_path, monkeypatch):
    folder_of_parts = unfinished(checkpoint, folder, tmp_path / "o.npz", monkeypatch)
    settings = json.loads((folder_of_parts / "settings.json").read_text())
    stamps = embed.stamps_of(str(folder / name) for name in LENGTHS)
    path = str(folder / "b.mp4")
    part = embed.Part(str(folder_of_parts), settings, stamps)
    assert part.find(path)
    file, windows = pathlib.Path(part._file(path)), part.windows[path]
    whole, vectors = file.read_bytes(), part._load(path, "embeddings")[0]
    for seed in range(150):
        part.windows.clear()
        file.write_bytes(damage(whole, np.random.default_rng(seed)))
        if part.find(path):  # what was hit says nothing about the arrays
            np.testing.assert_array_equal(part.windows[path], windows)
            np.testing.assert_array_equal(part._load(path, "embeddings")[0], vectors)
    for content in (b"", b"[1]", b'{"model": '):
        (folder_of_parts / "settings.json").write_bytes(content)
        with pytest.raises(UserError, match=r"settings\.json is damaged; delete .*o\.npz\.part, "):
            embed.Part(str(folder_of_parts), settings, stamps)


@pytest.mark.parametrize("content", ['[{"videoID": "b.mp4"}]', '{"paths": [], "settings": {}}'])
def test_a_json_of_the_user_is_not_replaced(checkpoint, folder, tmp_path, content):
    (tmp_path / "clips.json").write_text(content)
    with pytest.raises(UserError, match=r"clips\.json exists and was not made by this command"):
        embed.embed(checkpoint, str(folder), str(tmp_path / "clips.npy"))
    assert (tmp_path / "clips.json").read_text() == content
    assert os.listdir(tmp_path) == ["clips.json"]  # nothing was begun


def test_a_video_that_hung_is_not_tried_again(checkpoint, folder, tmp_path, monkeypatch):
    listed, stuck = tmp_path / "o.npz.bad_videos.jsonl", str(folder / "a/deep/c.mp4")
    BadVideos(listed, 9, 1.0).add(stuck, "no answer in 60 s")
    read, tried = windows.read, []
    monkeypatch.setattr(
        windows, "read", lambda item, *args: tried.append(item.path) or read(item, *args)
    )
    found = run(checkpoint, folder / "a", tmp_path / "o.npz")
    assert sorted(map(os.path.basename, tried)) == ["broken.MP4", "d.mkv"]
    assert found["video"].tolist() == [1] and stuck == found["paths"][2]
    assert len(listed.read_text().splitlines()) == 2


def test_wrong_input_is_answered(checkpoint, folder, tmp_path):
    for options, message in [
        ({"output": tmp_path / "o.h5"}, "must end in .npz or .npy"),
        ({"folder": tmp_path}, "holds no videos"),
        ({"folder": tmp_path / "nowhere.csv"}, "does not exist"),
        ({"window_seconds": 1.0}, "set --window_stride"),
        ({"pool": "max"}, "none or mean"),
    ]:
        with pytest.raises(UserError, match=message):
            run(
                **{"checkpoint": checkpoint, "folder": folder, "output": tmp_path / "o.npz"}
                | options
            )
    text = {"name": "videoprism", "head": "text", "width": 16, "num_heads": 2, "eps": 1e-6}
    texts = save(tmp_path / "m", text | {"scale_offset": 1.0, "vocab_size": 9, "text_depth": 1})
    with pytest.raises(UserError, match=r"embeds no videos .*'text'"):
        run(texts, folder, tmp_path / "o.npz")
    with pytest.raises(UserError, match="none of the 1 videos can be read"):
        run(checkpoint, folder / "a" / "broken.MP4", tmp_path / "o.npz")
    assert not (tmp_path / "o.npz").exists()


@pytest.mark.slow
def test_a_killed_command_goes_on(checkpoint, folder, tmp_path):
    videos = tmp_path / "many"
    videos.mkdir()
    for i in range(12):
        shutil.copy(folder / "a/deep/c.mp4", videos / f"{i:02}.mp4")
    command = [sys.executable, "-m", "vidjax.embed", f"--checkpoint={checkpoint}",
               f"--videos={videos}", f"--output={tmp_path}/o.npz", "--window_stride=0.1",
               "--batch_size=1"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(vidjax.__file__).parents[1])}
    first = subprocess.Popen(command, env=environment)
    part, deadline = tmp_path / "o.npz.part", time.monotonic() + 100
    while not list(part.glob("*/*.npz")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in part.glob("*/*.npz")}
    assert 0 < len(kept) < 12 and not (tmp_path / "o.npz").exists()
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert second.returncode == 0 and second.stdout.splitlines()[-1] == f"{tmp_path}/o.npz"
    with np.load(tmp_path / "o.npz") as file:
        assert file["video"].tolist() == np.repeat(range(12), 33).tolist()
        np.testing.assert_allclose(file["embeddings"][:33], file["embeddings"][-33:], atol=1e-4)
