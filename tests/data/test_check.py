"""Verdicts on files of every kind, hanging decoders, resuming, the command."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from made_videos import FRAMES, number_of, write_video

import vidjax
from vidjax.data import check, datasets, video
from vidjax.errors import UserError

VERDICTS = {
    "good": "ok",
    "mkv": "ok",
    "vp8": "ok",
    "one frame": "ok",
    "odd size": "ok",
    "av1": "ok",
    "rotated": "ok",
    "rotated, narrow": "ok",
    "avi": "sequential",
    "ts": "sequential",
    "ts as mp4": "sequential",
    "open gop": "sequential",
    "edit list": f"trim:{FRAMES - 8}",
    "size changes": "reject",
    "audio": "reject",
    "truncated": "reject",
    "truncated, index first": "reject",
    "damaged": "reject",
    "text": "reject",
    "empty": "reject",
    "no frames": "reject",
    "missing": "reject",
}
if not video.decord_installed():  # PyAV seeks right in these
    VERDICTS |= {"open gop": "ok", "edit list": "ok"}


@pytest.fixture(scope="module")
def checked(clips, tmp_path_factory):
    """The manifest of all clips, made in two child processes."""
    path = tmp_path_factory.mktemp("list") / "all.csv"
    path.write_text("".join(f"{clips[kind]}\t{i}\n" for i, kind in enumerate(VERDICTS)))
    return check.check(path, workers=2)


def rows_of(manifest: str) -> list[dict]:
    lines = pathlib.Path(manifest).read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


@pytest.mark.parametrize("kind", VERDICTS)
def test_verdict(checked, kind):
    index = list(VERDICTS).index(kind)
    row = rows_of(checked)[index]
    assert (row["verdict"], row["label"]) == (VERDICTS[kind], index), row["reason"]
    assert bool(row["reason"]) == (row["verdict"] != "ok")


def test_every_accepted_video_is_then_read_right(checked, clips):
    """The manifest is worth something only if its verdicts lead to the right frames."""
    first = {clips["edit list"]: 8}
    for item in datasets.read_list(checked):
        frames, n = video.read_frames(item.path, lambda n: np.arange(n)[::-3], verdict=item.verdict)
        start = first.get(item.path, 0)
        expected = list(range(start + n - 1, start - 1, -3))
        assert n == item.num_frames
        assert [number_of(frame) for frame in frames] == expected, item


def test_facts_of_a_video(checked, clips):
    row = rows_of(checked)[0]
    facts = {key: row[key] for key in ("frames", "fps", "height", "width", "codec", "size")}
    size = os.path.getsize(clips["good"])
    assert facts == dict(frames=40, fps=10.0, height=48, width=64, codec="h264", size=size)
    assert len(row["sha256"]) == 64


def test_a_frozen_end_is_trimmed(tmp_path):
    import av

    source = write_video(tmp_path / "source.mp4")
    images = [video.upright_rgb(frame) for frame in video.decode_in_order(source)]
    with av.open(str(tmp_path / "frozen.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb24"
        for image in images[:30] + [images[29]] * 9:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    facts = check.inspect(str(tmp_path / "frozen.mp4"))
    assert (facts["verdict"], facts["frames"]) == ("trim:30", 30)
    assert check.inspect(str(tmp_path / "frozen.mp4"), still_end=True)["frames"] == 39


def test_read_in_order_the_loader_finds_the_frames_of_the_manifest(clips):
    """It counts packets; where they promise more than there is, the check says where to stop."""
    checksums = list(range(FRAMES))
    verdict, _ = check._verdict(clips["good"], checksums, monotonic=False)
    assert verdict == "sequential"
    verdict, reason = check._verdict(clips["good"], checksums[:-1], monotonic=False)
    assert (verdict, reason) == ("trim:39", "40 packets hold 39 frames")


def test_a_stuck_child_is_killed_and_replaced():
    start = time.monotonic()
    answers = dict(check.killable_map(time.sleep, [0.0, 60.0, 0.0, 60.0, 0.0], 2, timeout=0.5))
    assert time.monotonic() - start < 20
    assert sorted(answers) == [0, 1, 2, 3, 4]
    assert all("no answer in 0.5 s" in str(answers[i]) for i in (1, 3))
    assert all(answers[i] is None for i in (0, 2, 4))


def test_a_crashed_child_is_replaced():
    answers = dict(check.killable_map(os._exit, [3, 3], 1, timeout=30))
    assert [str(answers[i]) for i in (0, 1)] == ["the decoder crashed"] * 2


def test_a_second_check_looks_at_changed_files_only(clips, tmp_path, capsys, monkeypatch):
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clips["good"], tmp_path / name)
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 1\n")
    seen = []

    def counting(task, items, workers, timeout):
        seen.append([os.path.basename(item) for item in items])
        return ((i, task(item)) for i, item in enumerate(items))

    monkeypatch.setattr(check, "killable_map", counting)
    manifest = check.check(tmp_path / "list.txt")
    shutil.copy(clips["vp8"], tmp_path / "b.mp4")
    (tmp_path / "list.txt").write_text("b.mp4 1\na.mp4 5\n")
    check.check(tmp_path / "list.txt")
    assert seen == [["a.mp4", "b.mp4"], ["b.mp4"]]
    rows = [(row["path"], row["label"], row["codec"]) for row in rows_of(manifest)]
    assert rows == [("b.mp4", 1, "vp8"), ("a.mp4", 5, "h264")]


def test_an_interrupted_check_goes_on(clips, tmp_path, monkeypatch):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        shutil.copy(clips["good"], tmp_path / name)
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 1\nc.mp4 0\n")
    seen = []

    def interrupted(task, items, workers, timeout):
        for i, item in enumerate(items):
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(os.path.basename(item))
            yield i, task(item)

    monkeypatch.setattr(check, "killable_map", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check.check(tmp_path / "list.txt")
    assert not (tmp_path / "list.manifest.jsonl").exists()
    seen[:] = ["x"]
    check.check(tmp_path / "list.txt")
    assert seen == ["x", "c.mp4"]
    assert len(rows_of(tmp_path / "list.manifest.jsonl")) == 3
    assert not list(tmp_path.glob("*.part"))


def test_the_manifest_can_move_with_its_videos(clips, tmp_path):
    here = tmp_path / "here"
    (here / "videos").mkdir(parents=True)
    shutil.copy(clips["good"], here / "videos" / "a b.mp4")
    (here / "list.csv").write_text("path,label\nvideos/a b.mp4,archery\n")
    check.check(here / "list.csv", workers=1)
    here.rename(tmp_path / "there")
    videos = datasets.read_list(tmp_path / "there" / "list.manifest.jsonl")
    path = str(tmp_path / "there" / "videos" / "a b.mp4")
    assert videos.videos == (datasets.Video(path, 0, 40, "ok"),)
    assert videos.classes == ("archery",)


def test_the_manifest_keeps_several_labels(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path,noun,verb\na.mp4,299,96\nb.mp4,-1,-1\n")
    videos = datasets.read_list(tmp_path / "list.csv")
    names = ["a.mp4", "b.mp4"]
    facts = {"frames": 40, "verdict": "ok", "reason": ""}
    out = str(tmp_path / "list.manifest.jsonl")
    check._write(out, videos, names, {name: {"path": name, **facts} for name in names})
    assert [row["label"] for row in rows_of(out)] == [[299, 96], -1]
    again = datasets.read_list(out, dataset="epic_kitchens")
    assert [video.label for video in again] == [video.label for video in videos] == [(299, 96), -1]


def test_the_manifest_keeps_captions(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path,caption\na.mp4,one\nb.mp4,two\na.mp4,three\n")
    videos = datasets.read_list(tmp_path / "list.csv")
    facts = {"frames": 40, "verdict": "ok", "reason": ""}
    rows = {name: {"path": name, **facts, "captions": ["old"]} for name in ("a.mp4", "b.mp4")}
    out = str(tmp_path / "list.manifest.jsonl")
    check._write(out, videos, ["a.mp4", "b.mp4"], rows)
    again = datasets.read_list(out, need_captions=True)
    assert [video.captions for video in again] == [("one", "three"), ("two",)]
    silent = [datasets.Video(video.path) for video in videos]  # captions are the list's to have
    check._write(out, datasets.VideoList(tuple(silent)), ["a.mp4", "b.mp4"], rows)
    assert all("captions" not in row for row in rows_of(out))


def test_lists_in_jsonl_can_be_checked_and_splits_have_manifests_of_their_own(clips, tmp_path):
    shutil.copy(clips["good"], tmp_path / "a.mp4")
    (tmp_path / "list.jsonl").write_text('{"path": "a.mp4", "captions": ["one"]}\n')
    out = check.check(tmp_path / "list.jsonl", workers=1)
    assert out == str(tmp_path / "list.manifest.jsonl")
    path = str(tmp_path / "a.mp4")
    assert datasets.read_list(out).videos == (datasets.Video(path, -1, 40, "ok", ("one",)),)
    with pytest.raises(UserError, match="is a manifest itself"):
        check.check(out)
    for name, splits in (("one", ["test"]), ("two", ["train", "test"])):
        content = {"videos": [{"video_id": "a", "split": s} for s in splits], "sentences": []}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    names = [check._default_out(f"{tmp_path}/{name}.json", "test") for name in ("one", "two")]
    assert [os.path.basename(n) for n in names] == ["one.manifest.jsonl", "two.test.manifest.jsonl"]


def test_manifests_of_hmdb51_are_named_by_split(clips, tmp_path):
    (tmp_path / "v" / "run").mkdir(parents=True)
    (tmp_path / "s").mkdir()
    for name, line in (("a.mp4", "a.mp4 1"), ("b.mp4", "b.mp4 2")):
        shutil.copy(clips["good"], tmp_path / "v" / "run" / name)
        with (tmp_path / "s" / "run_test_split1.txt").open("a") as file:
            file.write(f"{line}\n")
    paths = {}
    for split in ("train", "test"):
        paths[split] = check.check(tmp_path / "s", tmp_path / "v", split=split, workers=1)
    names = {split: os.path.relpath(path, tmp_path) for split, path in paths.items()}
    assert names == {
        "train": "s/split1_train.manifest.jsonl",
        "test": "s/split1_test.manifest.jsonl",
    }
    found = {split: [row["path"] for row in rows_of(path)] for split, path in paths.items()}
    assert found == {"train": ["run/a.mp4"], "test": ["run/b.mp4"]}

    pattern = tmp_path / "s" / "*_test_split1.txt"
    with pytest.raises(UserError, match=r"_test_split1\.txt is many files; .*--out=FILE"):
        check.check(pattern, tmp_path / "v")
    out = tmp_path / "s" / "mine.jsonl"
    assert check.check(pattern, tmp_path / "v", out=out, workers=1) == str(out)
    assert [row["path"] for row in rows_of(out)] == ["run/a.mp4"]


def test_a_manifest_is_not_a_list_to_check(checked):
    with pytest.raises(UserError, match="is a manifest itself"):
        check.check(checked)


def command(*arguments: str) -> subprocess.CompletedProcess:
    root = str(pathlib.Path(vidjax.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "vidjax.data.check", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env=dict(os.environ, PYTHONPATH=root),
    )


def test_command(clips, tmp_path):
    folder = os.path.dirname(clips["good"])
    (tmp_path / "list.txt").write_text("good.mp4 0\ntruncated.mp4 1\n")
    out = tmp_path / "m.jsonl"
    result = command(str(tmp_path / "list.txt"), f"--root={folder}", f"--out={out}", "--workers=1")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # not a word from the decoders
    assert "reject      truncated.mp4: cannot be decoded" in result.stdout
    assert f"--config.data.train={out} --config.data.root={folder}" in result.stdout
    assert [row["verdict"] for row in rows_of(out)] == ["ok", "reject"]


def test_command_explains_wrong_input():
    result = command("nowhere.csv")
    assert result.returncode == 2
    assert result.stderr == "error: list file nowhere.csv does not exist\n"
