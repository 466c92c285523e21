"""Lists and videos by URL and in shards, by fsspec's memory:// and file://; what goes wrong."""

import gc
import os
import pathlib
import sys

import fsspec
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from tests.support.videos import FRAMES, number_of
from vidjax.data import check, datasets, lists, windows
from vidjax.data.reading import locators, video
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

KINDS = ("good", "mkv", "avi", "open gop", "rotated")


@pytest.fixture(scope="module")
def bucket(clips):
    """memory://bucket with videos, whose names say nothing, and a list of them."""
    memory = fsspec.filesystem("memory")
    for number, kind in enumerate(KINDS):
        with open(clips[kind], "rb") as file:
            memory.pipe_file(f"/bucket/{number}.bin", file.read())
    lines = [f"{number}.bin,{number % 2}\n" for number in range(len(KINDS))]
    memory.pipe_file("/bucket/list.csv", "".join(["path,label\n", *lines]).encode())
    memory.pipe_file("/bucket/classes.txt", b"even\nodd\n")
    memory.pipe_file("/bucket/empty.bin", b"")
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


@pytest.fixture
def shard(clips, tmp_path):
    """A shard of bare video files."""
    path = str(tmp_path / "00000.array_record")
    writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
    for kind in KINDS:
        with open(clips[kind], "rb") as file:
            writer.write(file.read())
    writer.close()
    return path


def frames_of(path: str, **known) -> np.ndarray:
    return video.read_frames(path, lambda n: np.arange(n)[::7], **known)[0]


def test_a_list_in_a_bucket(bucket):
    videos = lists.read_list(f"{bucket}/list.csv")
    assert [item.path for item in videos] == [f"{bucket}/{i}.bin" for i in range(len(KINDS))]
    assert [item.label for item in videos] == [0, 1, 0, 1, 0]
    assert videos.classes == ("even", "odd")
    with pytest.raises(UserError, match=r"memory://bucket/none\.csv does not exist"):
        lists.read_list(f"{bucket}/none.csv")


def test_a_local_list_of_a_bucket(bucket, tmp_path):
    (tmp_path / "whole.csv").write_text(f"{bucket}/1.bin 3\n")
    (tmp_path / "below.csv").write_text("1.bin 3\n")
    (tmp_path / "wrong.csv").write_text(f"{bucket}/7.bin 3\n")
    whole = lists.read_list(tmp_path / "whole.csv")
    assert whole.videos == lists.read_list(tmp_path / "below.csv", root=bucket).videos
    assert whole[0].path == f"{bucket}/1.bin"
    with pytest.raises(UserError, match="1 of 1 videos looked up do not exist"):
        lists.read_list(tmp_path / "wrong.csv")


@pytest.mark.parametrize("kind", KINDS)
def test_objects_and_records_are_read_as_the_files(bucket, shard, clips, kind):
    index = KINDS.index(kind)
    expected = frames_of(clips[kind])
    for path in (f"{bucket}/{index}.bin", f"{shard}#{index}", f"file://{clips[kind]}"):
        assert np.array_equal(frames_of(path), expected), path
        assert np.array_equal(video.read_video(path), video.read_video(clips[kind]))
    assert check.inspect(f"{shard}#{index}") == check.inspect(clips[kind])


def test_windows_of_a_record(shard):
    facts = Preprocessing(frames=4, stride=2, size=16, short_side=16)
    item = datasets.Video(f"{shard}#0")
    *clips, spans = windows.read(item, windows.Windows(facts))
    assert len(clips) == len(spans) == FRAMES // 8
    assert [number_of(clip[0]) for clip in clips] == list(range(0, FRAMES, 8))


def test_lists_of_records(shard, tmp_path):
    (tmp_path / "list.csv").write_text("".join(f"00000.array_record#{i} {i}\n" for i in range(5)))
    videos = lists.read_list(tmp_path / "list.csv")
    assert [item.path for item in videos] == [f"{shard}#{i}" for i in range(5)]
    (tmp_path / "list.csv").write_text("00001.array_record#0 1\n")
    with pytest.raises(UserError, match=r"do not exist, such as .*00001\.array_record"):
        lists.read_list(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("s3://bucket/00001.array_record#0 1\n")
    with pytest.raises(UserError, match="from a disk or from gs://; copy them"):
        lists.read_list(tmp_path / "list.csv")


def test_what_cannot_be_read_says_why(bucket, shard, clips, tmp_path):
    damaged = tmp_path / "damaged.array_record"
    content = bytearray(pathlib.Path(shard).read_bytes())
    content[content.index(pathlib.Path(clips["avi"]).read_bytes()[1000:1100])] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(video.VideoError, match="its shard is damaged: "):
        frames_of(f"{damaged}#{KINDS.index('avi')}")
    assert np.array_equal(frames_of(f"{damaged}#0"), frames_of(clips["good"]))
    for path, reason in {
        f"{bucket}/none.bin": "no such file",
        f"{bucket}/empty.bin": "empty file",
        f"{shard}#{len(KINDS)}": f"its shard holds {len(KINDS)} records",
        f"{tmp_path}/none.array_record#0": "no such file",
    }.items():
        with pytest.raises(video.VideoError, match=reason):
            frames_of(path)


def test_a_shard_completed_later_is_read_then(clips, tmp_path):
    path = tmp_path / "late.array_record"
    path.write_bytes(b"not yet")
    with pytest.raises(video.VideoError, match="holds 0 records"):
        frames_of(f"{path}#0")
    writer = ArrayRecordWriter(str(path), "group_size:1")
    writer.write(pathlib.Path(clips["good"]).read_bytes())
    writer.close()
    assert np.array_equal(frames_of(f"{path}#0"), frames_of(clips["good"]))


def test_urls_without_a_driver_name_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    locators._by_scheme.cache_clear()
    (tmp_path / "list.csv").write_text("gs://bucket/a.mp4 1\n")
    for path in ("gs://bucket/list.csv", tmp_path / "list.csv"):
        with pytest.raises(UserError, match=r"gs:// needs a driver .* pip install gcsfs"):
            lists.read_list(path)
    with pytest.raises(UserError, match="nope:// is no known kind of URL"):
        lists.read_list("nope://list.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="copies are in memory on Linux only")
def test_no_copy_is_left(bucket, shard, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))  # which does not exist
    frames_of(f"{bucket}/0.bin")
    gc.collect()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        frames_of(f"{bucket}/0.bin")
        with pytest.raises(video.VideoError), video.local_file(f"{shard}#1"):
            raise video.VideoError("in between")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1  # the shard stays open


def test_local_paths_are_opened_as_they_are(clips):
    with video.local_file(clips["good"]) as path:
        assert path == clips["good"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_names_that_are_not_utf8(clips, tmp_path):
    folder = os.fsencode(tmp_path) + b"/some class"
    os.mkdir(folder)
    for name in (b"fine.mp4", b"caf\xe9.mp4"):
        os.link(clips["good"], folder + b"/" + name)
    with pytest.raises(UserError, match=r"some class/caf\\udce9\.mp4 is not UTF-8; rename"):
        lists.read_list(tmp_path)
    (tmp_path / "list.jsonl").write_text(
        '{"path": "some class/fine.mp4", "captions": ["a"]}\n'
        '{"path": "some class/caf\\udce9.mp4", "captions": ["b"]}\n'
    )
    with pytest.raises(UserError, match=r"line 2: the path .* is not UTF-8; rename"):
        lists.read_list(tmp_path / "list.jsonl")
    with pytest.raises(video.VideoError, match="its name is not UTF-8"):
        frames_of(os.fsdecode(folder + b"/caf\xe9.mp4"))
