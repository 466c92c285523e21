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

import vidjax
from tests.support.damage import damage
from tests.support.videos import FRAMES, number_of, write_pictures
from vidjax.data import check, datasets, lists
from vidjax.data.reading import pyav, video, watchdog
from vidjax.errors import UserError, VideoError

VERDICTS = {
    "good": "ok",
    "mkv": "ok",
    "vp8": "ok",
    "one frame": "ok",
    "odd size": "ok",
    "av1": "ok",
    "rotated": "ok",
    "rotated, narrow": "ok",
    "open gop": "ok",
    "edit list": "ok",
    "ts": "ok",
    "ts as mp4": "ok",
    "avi": "ok",
    "size changes": "sequential",
    "mid-gop": f"trim:{FRAMES - 14}",
    "truncated, index first": "trim:",
    "damaged": "sequential",
    "audio": "reject",
    "truncated": "reject",
    "text": "reject",
    "empty": "reject",
    "no frames": "reject",
    "missing": "reject",
}


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
    assert row["verdict"].startswith(VERDICTS[kind]), row["reason"]
    assert row["label"] == index
    assert bool(row["reason"]) == (row["verdict"] != "ok")


def test_every_accepted_video_is_then_read_right(checked, clips):
    """The manifest is worth something only if its verdicts lead to the right frames."""
    first = {clips["edit list"]: 8, clips["mid-gop"]: 14}
    broken = {clips["size changes"], clips["damaged"]}
    for item in lists.read_list(checked):
        frames, n = video.read_frames(item.path, lambda n: np.arange(n)[::-3], verdict=item.verdict)
        unchecked, n_unchecked = video.read_frames(item.path, lambda n: np.arange(n)[::-3])
        assert n == n_unchecked == item.num_frames
        assert np.array_equal(frames, unchecked)
        start = first.get(item.path, 0)
        expected = list(range(start + n - 1, start - 1, -3))
        if item.path not in broken:
            assert [number_of(frame) for frame in frames] == expected, item


def test_facts_of_a_video(checked, clips):
    row = rows_of(checked)[0]
    facts = {key: row[key] for key in ("frames", "fps", "height", "width", "codec", "size")}
    size = os.path.getsize(clips["good"])
    assert facts == dict(frames=40, fps=10.0, height=48, width=64, codec="h264", size=size)
    assert len(row["sha256"]) == 64


def test_an_end_that_stands_still_is_kept(tmp_path):
    """Screen recordings end so; who reads a video without a check could not know of it."""
    path = write_pictures(tmp_path / "still.mp4", [*range(30), *[29] * 9])
    facts = check.inspect(path)
    assert (facts["verdict"], facts["frames"]) == ("ok", 39)


def test_seeking_that_gives_other_pictures_is_noticed(clips, monkeypatch):
    read_at = pyav.read_at

    def wrong_at_keyframes(path, index, indices, each):
        return read_at(path, index, [i - (indices == [12]) for i in indices], each)

    monkeypatch.setattr(pyav, "read_at", wrong_at_keyframes)
    facts = check.inspect(clips["good"])
    reason = "seeking gives another picture of frame 12"
    assert (facts["verdict"], facts["reason"]) == ("sequential", reason)


def slowly(seconds):
    for _ in range(8):
        time.sleep(seconds / 8)
        watchdog.progress()
    return "done"


def test_a_child_that_gets_on_is_no_stuck_one():
    assert dict(check.killable_map(slowly, [4.0], 1, timeout=2.5)) == {0: "done"}


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


@pytest.fixture
def three(clips, tmp_path, monkeypatch):
    """A list of three videos, one of them bad; facts are found once, and in this process."""
    for name, kind in (("a.mp4", "good"), ("b.mkv", "mkv"), ("c.mp4", "text")):
        shutil.copy(clips[kind], tmp_path / name)
    (tmp_path / "list.txt").write_text("a.mp4 x\nb.mkv y\nc.mp4 x\n")
    known = {}

    def known_facts(task, items, *_):
        for index, path in enumerate(items):
            if path not in known:
                try:
                    known[path] = check.inspect(path)
                except VideoError as error:
                    known[path] = error
            yield index, known[path]

    monkeypatch.setattr(check, "killable_map", known_facts)
    return tmp_path / "list.txt"


def test_a_damaged_manifest_is_mended_by_the_same_command(three):
    manifest = pathlib.Path(check.check(three))
    whole, part, outcomes = manifest.read_bytes(), pathlib.Path(f"{manifest}.part"), set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        damaged = damage(whole, rng)
        if rng.integers(2):  # what an interrupted check has
            manifest.unlink(missing_ok=True)
            part.write_bytes(damaged)
        else:
            manifest.write_bytes(damaged)
        try:
            check.check(three)
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.add(str(error).partition(" ")[2])
            continue
        assert manifest.read_bytes() == whole and not part.exists(), seed
        outcomes.add("same")
    refusal = "exists and holds no line of a manifest; choose another --out, or delete it"
    assert outcomes <= {"same", refusal} and "same" in outcomes


def test_a_damaged_manifest_is_not_trained_from(three):
    """One sentence, the same videos, or a notice that some are missing."""
    manifest = pathlib.Path(check.check(three))
    whole, expected = manifest.read_bytes(), lists.read_list(manifest)
    outcomes = []
    for seed in range(300):
        manifest.write_bytes(damage(whole, np.random.default_rng(seed)))
        try:
            found = lists.read_list(manifest)
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.append(str(error).partition(" ")[2])
            continue
        notices = [n for n in found.notices if "but was written with" in n]
        is_same = (found.videos, found.classes) == (expected.videos, expected.classes)
        assert is_same or notices, seed
    assert sum("is damaged or was edited, as its checksum is" in text for text in outcomes) > 30


def test_a_manifest_may_be_shortened_and_files_of_others_are_not_replaced(three):
    manifest = pathlib.Path(check.check(three))
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:2]))
    short = lists.read_list(manifest)
    assert len(short) == 1 and short.classes == ("x", "y")
    assert short.notices == (f"{manifest} lists 1 videos, but was written with 3",)
    for content in ("my thesis", '{"path": "a.mp4", "label": 3}\n'):
        mine = three.parent / "mine.jsonl"
        mine.write_text(content)
        with pytest.raises(UserError, match=r"mine\.jsonl exists and holds no line of a manifest"):
            check.check(three, out=mine)
        assert mine.read_text() == content


def test_a_manifest_without_checksums_is_read_and_its_rows_are_kept(three, monkeypatch):
    manifest = pathlib.Path(check.check(three))
    whole, expected = manifest.read_bytes(), lists.read_list(manifest)
    rows = [json.loads(line) for line in whole.splitlines()]
    for row in rows:
        for key in ("line_crc32", "videos"):
            row.pop(key, None)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert lists.read_list(manifest) == expected
    monkeypatch.setattr(check, "killable_map", lambda task, items, *_: iter(items[:0]))
    check.check(three)
    assert manifest.read_bytes() == whole
    for key, value, says in (
        ("verdict", "good", ": verdict is 'good', expected a string that is ok, "),
        ("frames", -1, ": frames is -1, expected an integer"),
        ("frames", "40", ": frames is '40', expected an integer"),
        ("path", 3, ": path is 3, expected"),
    ):
        changed = [rows[0], rows[1] | {key: value}]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in changed))
        with pytest.raises(UserError, match=f"line 2{says}"):
            lists.read_list(manifest)


def test_the_manifest_can_move_with_its_videos(clips, tmp_path):
    here = tmp_path / "here"
    (here / "videos").mkdir(parents=True)
    shutil.copy(clips["good"], here / "videos" / "a b.mp4")
    (here / "list.csv").write_text("path,label\nvideos/a b.mp4,archery\n")
    check.check(here / "list.csv", workers=1)
    here.rename(tmp_path / "there")
    videos = lists.read_list(tmp_path / "there" / "list.manifest.jsonl")
    path = str(tmp_path / "there" / "videos" / "a b.mp4")
    assert videos.videos == (datasets.Video(path, 0, 40, "ok"),)
    assert videos.classes == ("archery",)


def test_the_manifest_keeps_several_labels(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path,noun,verb\na.mp4,299,96\nb.mp4,-1,-1\n")
    videos = lists.read_list(tmp_path / "list.csv")
    names = ["a.mp4", "b.mp4"]
    facts = {"frames": 40, "verdict": "ok", "reason": ""}
    out = str(tmp_path / "list.manifest.jsonl")
    check._write(out, videos, names, {name: {"path": name, **facts} for name in names})
    assert [row["label"] for row in rows_of(out)] == [[299, 96], -1]
    again = lists.read_list(out, dataset="epic_kitchens")
    assert [video.label for video in again] == [video.label for video in videos] == [(299, 96), -1]


def test_the_manifest_keeps_captions(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path,caption\na.mp4,one\nb.mp4,two\na.mp4,three\n")
    videos = lists.read_list(tmp_path / "list.csv")
    facts = {"frames": 40, "verdict": "ok", "reason": ""}
    rows = {name: {"path": name, **facts, "captions": ["old"]} for name in ("a.mp4", "b.mp4")}
    out = str(tmp_path / "list.manifest.jsonl")
    check._write(out, videos, ["a.mp4", "b.mp4"], rows)
    again = lists.read_list(out, need_captions=True)
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
    assert lists.read_list(out).videos == (datasets.Video(path, -1, 40, "ok", ("one",)),)
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
