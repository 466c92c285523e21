"""Shards hold what the list does, as it was or encoded anew; packs killed or damaged are mended."""

import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from tests.support.damage import damage
from tests.support.videos import FRAMES, number_of
from vidjax.data import check, datasets, lists, pack
from vidjax.data.lists import missing
from vidjax.data.reading import locators, pyav, video
from vidjax.errors import UserError, VideoError

GOOD = ("good", "mkv", "avi", "open gop", "edit list", "rotated", "ts", "one frame")
BAD = {
    "empty": "empty file",
    "text": "it is text, not a video",
    "truncated": "",
    "missing": "no such file",
}
FIRST = {"edit list": 8}  # number of the first frame that shows


@pytest.fixture(scope="module")
def listed(clips, tmp_path_factory):
    """A list of good and bad videos with labels and captions, and names of the classes."""
    folder = tmp_path_factory.mktemp("listed")
    (folder / "classes.txt").write_text("a\nb\n")
    entries = [
        {"path": clips[kind], "label": i % 2, "captions": [f"it is {kind}", str(i)]}
        for i, kind in enumerate((*GOOD[:3], *BAD, *GOOD[3:]))
    ]
    (folder / "list.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder / "list.jsonl"


@pytest.fixture(scope="module")
def packed(listed, tmp_path_factory):
    """The files as they are, in three shards, of which the second has bad videos only."""
    output = tmp_path_factory.mktemp("packed") / "set"
    return pathlib.Path(pack.pack(listed, output, videos_per_shard=4, workers=2)).parent


@pytest.fixture(scope="module")
def encoded(listed, tmp_path_factory):
    output = tmp_path_factory.mktemp("encoded") / "set"
    return pathlib.Path(pack.pack(listed, output, short_side=32, gop=5, workers=2)).parent


def content_of(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_manifest_lists_what_the_list_did(listed, packed, clips):
    before, videos = lists.read_list(listed), lists.read_list(packed / "manifest.jsonl")
    facts = {item.path: (item.label, item.captions) for item in before}
    assert videos.classes == before.classes == ("a", "b")
    assert [(item.label, item.captions) for item in videos] == [facts[clips[k]] for k in GOOD]
    for kind, item in zip(GOOD, videos, strict=True):
        assert item.verdict == "ok", kind
        assert item.num_frames == (1 if kind == "one frame" else FRAMES - FIRST.get(kind, 0))
    bad = [json.loads(line) for line in (packed / "bad_videos.jsonl").open()]
    assert [entry["path"] for entry in bad] == [clips[kind] for kind in BAD]
    for entry, reason in zip(bad, BAD.values(), strict=True):
        assert entry["reason"] and reason in entry["reason"]
    shards = {f"0000{i}.array_record" for i in range(3)}
    assert {*content_of(packed)} == shards | {"manifest.jsonl", "bad_videos.jsonl", "pack.json"}


def test_records_are_the_files_and_describe_themselves(packed, clips):
    reader = ArrayRecordReader(str(packed / "00000.array_record"))
    for index, kind in enumerate(GOOD[:3]):
        head, _, content = reader.read([index])[0].partition(b"\n")
        assert content == pathlib.Path(clips[kind]).read_bytes()
        assert json.loads(head) == {
            "path": clips[kind],
            "label": index % 2,
            "captions": [f"it is {kind}", str(index)],
            "sha256": hashlib.sha256(content).hexdigest(),
        }


@pytest.mark.parametrize("kind", GOOD)
def test_encoded_videos_show_the_same_frames(encoded, clips, kind):
    item = lists.read_list(encoded / "manifest.jsonl")[GOOD.index(kind)]
    source, _ = video.read_frames(clips[kind], np.arange)
    assert (item.verdict, item.num_frames) == ("ok", len(source))
    frames, _ = video.read_frames(item.path, np.arange, verdict="ok")
    assert min(frames.shape[1:3]) == 32 and frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    shape = source.shape[2] / source.shape[1]
    assert frames.shape[2] / frames.shape[1] == pytest.approx(shape, rel=0.05)
    start = FIRST.get(kind, 0)
    assert [number_of(f) for f in frames] == list(range(start, start + len(source)))
    assert abs(frames.mean((1, 2)) - source.mean((1, 2))).max() < 4  # also each colour
    with video.local_file(item.path) as file:
        index = pyav.index_of(file)
    keyframes = [index.times.index(time) for time, _ in index.keyframes]
    assert keyframes[0] == 0 and max(np.diff([*keyframes, len(source)])) <= 5
    seconds = np.array(index.times) * float(index.unit)
    assert seconds - seconds[0] == pytest.approx(np.arange(len(source)) / 10)  # as at first


def test_small_videos_are_not_enlarged_and_odd_ones_made_even():
    assert pack._size(48, 64, 100) == (48, 64)
    assert pack._size(49, 67, 0) == (48, 66)
    assert pack._size(1080, 1920, 320) == (320, 568)
    assert pack._size(1920, 1080, 320) == (568, 320)


def test_only_the_frames_that_a_verdict_calls_real_are_encoded(clips):
    content, count = pack._encoded(clips["good"], "trim:9", 0, 4)
    assert count == 9 and len(content) > 1000
    assert pack._encoded(clips["good"], None, 0, 4)[1] == FRAMES


def test_a_moved_pack_is_read_and_a_second_run_changes_nothing(listed, packed, tmp_path):
    shutil.copytree(packed, tmp_path / "moved")
    videos = lists.read_list(tmp_path / "moved" / "manifest.jsonl")
    assert videos[0].path.startswith(str(tmp_path))
    frames, n = video.read_frames(videos[1].path, lambda n: np.array([3]), verdict="ok")
    assert (number_of(frames[0]), n) == (3, FRAMES)
    before = content_of(packed)
    pack.pack(listed, packed, videos_per_shard=4, workers=1)
    assert content_of(packed) == before


def test_a_folder_of_another_pack_is_refused(listed, packed, clips, tmp_path):
    with pytest.raises(UserError, match="of other settings, as short_side, gop, encoder differ"):
        pack.pack(listed, packed, short_side=32, videos_per_shard=4)
    (tmp_path / "other.csv").write_text(f"{clips['good']} 1\n")
    with pytest.raises(UserError, match="of another list"):
        pack.pack(tmp_path / "other.csv", packed, videos_per_shard=4)
    with pytest.raises(UserError, match="is not empty; choose a new folder"):
        pack.pack(tmp_path / "other.csv", tmp_path)
    with pytest.raises(UserError, match="must be a folder of this machine"):
        pack.pack(listed, "gs://bucket/packed")
    (tmp_path / "bad.csv").write_text(f"{clips['text']} 1\n")
    with pytest.raises(UserError, match="none of the 1 videos can be decoded"):
        pack.pack(tmp_path / "bad.csv", tmp_path / "none", workers=1)


def test_without_a_check_the_list_is_trusted(clips, tmp_path):
    (tmp_path / "list.csv").write_text(f"{clips['good']} 1\n{clips['text']} 0\n")
    manifest = check.check(tmp_path / "list.csv", workers=1)
    videos = lists.read_list(pack.pack(manifest, tmp_path / "set", check=False, workers=1))
    assert [(v.label, v.verdict, v.num_frames) for v in videos] == [(1, "ok", FRAMES)]


def test_a_bucket_out_of_reach_stops_the_pack_and_is_no_bad_video(tmp_path, monkeypatch):
    read = locators.read

    def out_of_reach(locator):
        if not locators.is_url(locator):
            return read(locator)
        raise OSError("no network")

    item = datasets.Video("memory://bucket/a.mp4")
    task = pack._Task(item, "a.mp4", str(tmp_path / "0"), 0, 0, True)
    with pytest.raises(VideoError, match="no such file"):
        pack._make(task)
    monkeypatch.setattr(locators, "read", out_of_reach)
    assert pack._make(task) == "memory://bucket/a.mp4 cannot be fetched: no network"
    (tmp_path / "list.csv").write_text("memory://bucket/a.mp4 1\n" * 2)
    monkeypatch.setattr(missing, "check_exist", lambda *_: None)
    reached = lambda task, items, *_: enumerate(map(task, items))  # noqa: E731
    monkeypatch.setattr(pack, "killable_map", reached)
    with pytest.raises(UserError, match="no network; start again when that is mended"):
        pack.pack(tmp_path / "list.csv", tmp_path / "set")
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"pack.json"}


def test_what_was_written_wrongly_is_noticed(clips, tmp_path, monkeypatch):
    (tmp_path / "list.csv").write_text(f"{clips['good']} 1\n")
    right = locators.video_in
    monkeypatch.setattr(locators, "video_in", lambda record: right(record)[:-1] + b"!")
    with pytest.raises(UserError, match="record 0 is not what was written; start again"):
        pack.pack(tmp_path / "list.csv", tmp_path / "set", workers=1)
    assert not list((tmp_path / "set").glob("*.array_record"))
    monkeypatch.undo()
    assert len(lists.read_list(pack.pack(tmp_path / "list.csv", tmp_path / "set"))) == 1


def test_a_killed_pack_goes_on_to_the_same_bytes(listed, tmp_path):
    def command():
        options = ["--short_side=32", "--gop=5", "--videos_per_shard=2", "--workers=1"]
        program = [sys.executable, "-m", "vidjax.data.pack", str(listed), f"--output={output}"]
        return subprocess.Popen([*program, *options], stdout=subprocess.DEVNULL)

    output = tmp_path / "whole"
    assert command().wait(100) == 0
    whole, output = content_of(output), tmp_path / "killed"
    process, deadline = command(), time.monotonic() + 60
    while not (output / "00001.rows.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "manifest.jsonl").exists()
    made = (output / "00000.array_record").stat().st_mtime_ns
    (output / "00001.rows.jsonl").unlink()  # as if it had been killed between the two renamings
    assert command().wait(100) == 0
    assert content_of(output) == whole
    assert (output / "00000.array_record").stat().st_mtime_ns == made  # not made again


def test_the_bytes_do_not_depend_on_the_run_or_the_number_of_processes(clips, tmp_path):
    """x264's rate control adds floats in another order, where its settings allow that."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (50, 12, 16, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    for i in range(3):
        (tmp_path / f"{i}").mkdir()
        for number, picture in enumerate(noise[i:]):
            cv2.imwrite(str(tmp_path / f"{i}/{number:03}.png"), picture)
    (tmp_path / "list.csv").write_text("".join(f"{i} 0\n" for i in range(3)))
    packs = []
    for workers in (1, 3, 2, 1):
        output = tmp_path / f"set{len(packs)}"
        pack.pack(tmp_path / "list.csv", output, short_side=112, workers=workers)
        packs.append(content_of(output))
    assert packs[1:] == packs[:-1]


class Interrupted(BaseException):
    pass


@pytest.fixture
def in_process(monkeypatch):
    """Tasks run here, because the start of a child process takes longer than they do."""
    made = []

    def one_by_one(task, items, *_):
        locators._reader.cache_clear()  # as a new process begins
        for index, item in enumerate(items):
            made.append(item)
            try:
                yield index, task(item)
            except VideoError as error:
                yield index, error

    monkeypatch.setattr(pack, "killable_map", one_by_one)
    return made


@pytest.fixture
def small(clips, tmp_path):
    """A list of five videos, one of them bad."""
    kinds = ("good", "mkv", "missing", "avi", "one frame")
    entries = [{"path": clips[k], "label": i, "captions": [k]} for i, k in enumerate(kinds)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    return tmp_path / "list.jsonl"


FEW = {"videos_per_shard": 2, "check": False}


def outcome(small, output, whole, damaged) -> str:
    """Packs again; the output must be as it was, or a sentence must say what is wrong."""
    try:
        pack.pack(small, output, **FEW)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error).partition(str(output))[2]
    found = content_of(output)
    if damaged == "pack.json":  # the same settings, written in another way
        found[damaged] = whole[damaged]
    assert found == whole
    return "same"


@pytest.mark.parametrize("state", ["finished", "without a manifest"])
def test_a_damaged_pack_is_mended_or_refused(small, tmp_path, in_process, monkeypatch, state):
    sound = tmp_path / "sound"
    if state != "finished":
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(pack, "_join", lambda *_: (_ for _ in ()).throw(Interrupted))
            pack.pack(small, sound, **FEW)
        assert len(list(sound.glob("*.rows.jsonl"))) == 3
    else:
        pack.pack(small, sound, **FEW)
    names = sorted(path.name for path in sound.iterdir())
    pack.pack(small, tmp_path / "whole", **FEW)
    whole, output, outcomes = content_of(tmp_path / "whole"), tmp_path / "damaged", set()
    for seed in range(120):
        rng = np.random.default_rng(seed)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(sound, output)
        name = names[seed % len(names)]
        match rng.integers(10):
            case 0 if name != "pack.json":
                (output / name).unlink()
            case 1:
                other = (output / names[seed % len(names) - 1]).read_bytes()
                (output / name).write_bytes(other)
            case _:
                (output / name).write_bytes(damage((sound / name).read_bytes(), rng))
        found = outcome(small, output, whole, name)
        assert found == "same" or name == "pack.json", (seed, name, found)
        outcomes.add(found.partition(",")[0])
    settings = {" holds a pack of other settings", " holds a pack of another list"}
    assert outcomes <= settings | {"same", "/pack.json is damaged"}
    assert {"same", "/pack.json is damaged"} <= outcomes


def test_whole_records_of_a_damaged_shard_are_kept(
    clips, tmp_path, in_process, monkeypatch, capsys
):
    videos = [clips[kind] for kind in ("good", "mkv", "avi", "ts")]
    (tmp_path / "list.csv").write_text("".join(f"{path},0\n" for path in videos))
    options = {"short_side": 32, "videos_per_shard": 4}
    output = pathlib.Path(pack.pack(tmp_path / "list.csv", tmp_path / "set", **options)).parent
    whole, encoded, encode = content_of(output), [], pack._encoded
    monkeypatch.setattr(pack, "_encoded", lambda *a: encoded.append(a[0]) or encode(*a))

    content = bytearray((output / "00000.array_record").read_bytes())
    content[content.index(b"moov") + 9] ^= 1  # in the first record
    (output / "00000.array_record").write_bytes(content)
    pack.pack(tmp_path / "list.csv", output, **options)
    assert "such as 00000.array_record, or their rows, are damaged" in capsys.readouterr().out
    assert content_of(output) == whole and encoded == videos[:1]
    (output / "manifest.jsonl").write_bytes(b"")
    pack.pack(tmp_path / "list.csv", output, **options)
    assert content_of(output) == whole and encoded == videos[:1]


def test_packs_without_checksums_are_checked_by_their_records(small, tmp_path, in_process, capsys):
    output = pathlib.Path(pack.pack(small, tmp_path / "set", **FEW)).parent
    whole = content_of(output)

    def as_before():
        for name in ("manifest.jsonl", "bad_videos.jsonl"):
            rows = [json.loads(line) for line in (output / name).open()]
            for row in rows:
                for key in ("line_crc32", "shards", "videos"):
                    row.pop(key, None)
                if "verdict" not in row:
                    row.pop("source", None)
            (output / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    as_before()
    assert len(lists.read_list(output / "manifest.jsonl")) == 4
    in_process.clear()
    pack.pack(small, output, **FEW)
    assert content_of(output) == whole and not in_process
    as_before()
    shard = output / "00001.array_record"
    shard.write_bytes(shard.read_bytes()[:-9])
    pack.pack(small, output, **FEW)
    assert content_of(output) == whole and len(in_process) == 2
    assert "1 of 3 shards" in capsys.readouterr().out
