"""Batches are the same with a cache and without; sizes, damage, bad videos, several processes."""

import dataclasses
import os
import pathlib
import shutil
import time

import fsspec
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from tests.data.test_loader import bad_list, config, same, take, videos  # noqa: F401
from tests.support.videos import write_video
from vidjax import data
from vidjax.data import frame_cache, frame_stores
from vidjax.data.datasets import Video
from vidjax.data.frame_cache import open_cache
from vidjax.data.frames import clips as clips_of
from vidjax.data.frames import crops
from vidjax.data.reading.video import read_frames
from vidjax.errors import UserError, VideoError
from vidjax.preprocessing import FITS, Preprocessing

HOW = {"verdict": None, "num_frames": None, "reader": "pyav"}
NO_STEP = (None, {})
RANDAUG = "rand-m7-n4-mstd0.5-inc1"
RAW = 20 * 32 * 48 * 3  # bytes of a video of test_loader


@pytest.fixture(autouse=True)
def fresh():
    open_cache.cache_clear()


@pytest.fixture(params=["memory", "folder"])
def cache_of(request, tmp_path):
    """A function from a size to config.data.cache."""
    folder = "" if request.param == "memory" else f"{tmp_path / 'cache'}:"
    return lambda size: f"{folder}{size}"


def used(text):
    """Bytes of a cache, arrays and all."""
    store = open_cache(text).store
    if isinstance(store, frame_stores.Memory):
        return os.stat(store._place).st_size
    return sum(f.stat().st_size for f in pathlib.Path(store._folder).glob("*.frames"))


def refuse(*args, **kwargs):
    raise AssertionError("it was decoded again")


def train(listed, tmp_path, cfg, steps, start=0, workers=0):
    """Returns batches and the lines of bad_videos.jsonl."""
    path = tmp_path / f"bad{time.monotonic_ns()}.jsonl"
    bad = data.BadVideos(path, len(listed), 1.0)
    facts = dict(seed=1, bad_videos=bad, start_step=start, workers=workers)
    batches = take(data.train_loader(listed, cfg, **facts), steps)
    return batches, path.read_text() if path.exists() else ""


@pytest.mark.parametrize("rand_augment", ["", RANDAUG, "scenic-n2-m15"])
@pytest.mark.parametrize("augment", crops.TRAINING)
def test_training_batches_are_the_same(
    bad_list,  # noqa: F811
    tmp_path,
    monkeypatch,
    cache_of,
    augment,
    rand_augment,
):
    changes = {"augment": augment, "rand_augment": rand_augment, "repeats": 2, "short_side": 28}
    plain, bad = train(bad_list, tmp_path, config(**changes), 9)
    cached = config(**changes, cache=cache_of("10MB"))
    batches, found = train(bad_list, tmp_path, cached, 6)
    assert same(plain[:6], batches) and found == bad
    reads = []

    def read(path, sample, **how):
        reads.append(path)
        return read_frames(path, sample, **how)

    monkeypatch.setattr(frame_cache, "read_frames", read)
    again, _ = train(bad_list, tmp_path, cached, 3, start=6)
    assert same(plain[6:], again)
    assert not {*reads} & {video.path for video in bad_list if video.label >= 0}


@pytest.mark.parametrize(("size", "workers"), [("0.15MB", 0), ("0.3MB", 2), ("10MB", 0)])
def test_a_size_holds_for_all_workers_together(
    bad_list,  # noqa: F811
    tmp_path,
    cache_of,
    size,
    workers,
):
    """The smallest holds one of six videos, the next three."""
    text = cache_of(size)
    plain, bad = train(bad_list, tmp_path, config(), 8)
    batches, found = train(bad_list, tmp_path, config(cache=text), 8, workers=workers)
    assert same(plain, batches) and found == bad
    _, limit = frame_cache.parse(text)
    assert used(text) <= limit
    kept = used(text) // RAW
    assert kept == min(limit // (RAW + 60), 6)  # with their headers
    later, _ = train(bad_list, tmp_path, config(cache=text), 3, start=5)
    assert same(plain[5:], later) and used(text) // RAW == kept


@pytest.mark.parametrize(
    ("fit", "views", "workers"),
    [
        ("crop", (2, 3), 0),
        ("crop", (2, 3), 2),
        ("stretch", (3, 1), 0),
        ("crop_first", (1, 1), 0),
        ("no_resize", (3, 1), 0),
    ],
)
def test_evaluation_batches_are_the_same(
    bad_list,  # noqa: F811
    tmp_path,
    cache_of,
    fit,
    views,
    workers,
):
    def passed(cache, workers=0):
        bad = data.BadVideos(tmp_path / "bad.jsonl", len(bad_list), 1.0)
        facts = dict(batch_size=4, views=views, bad_videos=bad, workers=workers, cache=cache)
        return list(data.eval_loader(bad_list, config(fit=fit, short_side=28), **facts)), bad.count

    (plain, bad), text, small = passed(""), cache_of("10MB"), cache_of("0.12MB")
    assert bad == 3
    for _ in range(2):
        batches, found = passed(text, workers)
        assert same(plain, batches) and found == bad
    assert used(text) // (8 * 24 * 24 * 3 * views[0] * views[1]) == 7
    for _ in range(2):
        assert same(plain, passed(small)[0])
    assert used(small) <= 120_000


def test_kept_videos_are_not_decoded_again(
    videos,  # noqa: F811
    monkeypatch,
    cache_of,
):
    cache = open_cache(cache_of("1MB"))
    facts = Preprocessing(frames=4, size=24, short_side=24)
    path, rng = videos[0].path, np.random.default_rng(0)
    first, _ = cache.frames(path, lambda n: rng.integers(0, n, 9), NO_STEP, **HOW)
    views, kept = cache.views(path, facts, (2, 3), **HOW)
    assert kept == (True, views.nbytes)
    monkeypatch.setattr(frame_cache, "read_frames", refuse)
    monkeypatch.setattr(clips_of, "prepare", refuse)
    rng = np.random.default_rng(0)
    again, kept = cache.frames(path, lambda n: rng.integers(0, n, 9), NO_STEP, **HOW)
    assert np.array_equal(first, again) and kept == (True, RAW)
    assert np.array_equal(views, cache.views(path, facts, (2, 3), **HOW)[0])
    with pytest.raises(AssertionError, match="decoded again"):
        cache.frames(path, np.arange, NO_STEP, **HOW | {"num_frames": 20})


@pytest.mark.parametrize("verdict", [None, "ok", "sequential", "trim:5"])
def test_every_kind_of_video_reads_as_without(clips, cache_of, verdict):
    cache, how = open_cache(cache_of("50MB")), HOW | {"verdict": verdict}
    kept = set()

    def read(reader, path, seed, *step):
        rng = np.random.default_rng(seed)
        try:
            return reader(path, lambda n: rng.integers(0, n, 5), *step, **how)
        except VideoError as error:
            return str(error), None

    for seed in range(4):
        for kind, path in clips.items():
            want, _ = read(read_frames, path, seed)
            frames, facts = read(cache.frames, path, seed, NO_STEP)
            assert np.array_equal(want, frames), kind
            kept |= {kind} if facts and facts.is_kept else set()
    assert kept >= {"good", "mkv", "vp8", "one frame", "avi", "rotated"} or verdict == "trim:5"
    assert not kept & {"text", "empty", "missing", "audio", "no frames"}
    if verdict is None:
        assert kept >= {"edit list", "open gop", "ts", "size changes"}


def test_a_damaged_video_is_not_kept(clips, cache_of):
    """Frames that stand in for damaged ones may depend on which are asked for."""
    cache = open_cache(cache_of("50MB"))
    for _ in range(2):
        frames, kept = cache.frames(clips["damaged"], lambda n: np.arange(4), NO_STEP, **HOW)
        assert np.array_equal(frames, read_frames(clips["damaged"], lambda n: np.arange(4))[0])
        assert kept == (False, 0)


def test_long_and_large_videos_are_not_kept(
    videos,  # noqa: F811
    monkeypatch,
    cache_of,
):
    for name, value in (("MOST_FRAMES", 19), ("MOST_BYTES", RAW - 1)):
        monkeypatch.setattr(frame_cache, name, value)
        cache = open_cache(cache_of("1MB"))
        _, kept = cache.frames(videos[0].path, lambda n: np.arange(3), NO_STEP, **HOW)
        assert kept == (False, 0)
        monkeypatch.undo()
        open_cache.cache_clear()


def test_a_replaced_video_is_noticed(tmp_path, cache_of):
    cache, path = open_cache(cache_of("5MB")), write_video(tmp_path / "a.mp4", 12)
    old, _ = cache.frames(path, np.arange, NO_STEP, **HOW)
    write_video(tmp_path / "a.mp4", 9)
    new, _ = cache.frames(path, np.arange, NO_STEP, **HOW)
    assert len(old) == 12 and len(new) == 9
    os.remove(path)
    with pytest.raises(VideoError, match="no such file"):
        cache.frames(path, np.arange, NO_STEP, **HOW)


def test_folders_of_pictures_shards_and_buckets(clips, tmp_path, monkeypatch, cache_of):
    import cv2

    pictures, shard = tmp_path / "v1", str(tmp_path / "0.array_record")
    pictures.mkdir()
    for number in range(4):
        cv2.imwrite(str(pictures / f"img_{number}.png"), np.full((8, 9, 3), number, np.uint8))
    content = pathlib.Path(clips["good"]).read_bytes()
    writer = ArrayRecordWriter(shard, "group_size:1,uncompressed")
    writer.write(content)
    writer.close()
    fsspec.filesystem("memory").pipe_file("/cached/a.bin", content)
    paths = [str(pictures), f"{shard}#0", "memory://cached/a.bin"]
    cache = open_cache(cache_of("5MB"))
    first = [cache.frames(path, np.arange, NO_STEP, **HOW) for path in paths]
    assert all(kept.is_kept for _, kept in first)
    with monkeypatch.context() as patched:
        patched.setattr(frame_cache, "read_frames", refuse)
        for path, (frames, _) in zip(paths, first, strict=True):
            assert np.array_equal(cache.frames(path, np.arange, NO_STEP, **HOW)[0], frames)
    cv2.imwrite(str(pictures / "img_2.png"), np.full((8, 9, 3), 77, np.uint8))
    assert cache.frames(paths[0], np.arange, NO_STEP, **HOW)[0][2].max() == 77
    fsspec.filesystem("memory").pipe_file("/cached/a.bin", pathlib.Path(clips["mkv"]).read_bytes())
    monkeypatch.setattr(frame_cache, "read_frames", refuse)
    with pytest.raises(AssertionError, match="decoded again"):
        cache.frames(paths[2], np.arange, NO_STEP, **HOW)


@pytest.mark.parametrize("damage", ["cut", "header", "frame", "name", "longer", "empty"])
def test_a_damaged_entry_is_decoded_anew(
    videos,  # noqa: F811
    tmp_path,
    damage,
):
    def read(path=videos[0].path):
        open_cache.cache_clear()  # another process has seen no entry yet
        cache = open_cache(f"{tmp_path}:1MB")
        return cache.frames(path, np.arange, NO_STEP, **HOW)[0]

    want = read()
    (entry,) = {*tmp_path.glob("*.frames")} - {tmp_path / "lock.frames"}
    content = bytearray(entry.read_bytes())
    changes = {"cut": content[:-1], "longer": content + b"x", "empty": b""}
    content[{"header": 33, "frame": 5000}.get(damage, 0)] ^= 1
    entry.write_bytes(changes.get(damage, content))
    assert np.array_equal(read(), want)
    assert len(entry.read_bytes()) == len(content)
    assert np.array_equal(read(), want)
    other = read(videos[1].path)  # an entry under the name of another one
    shutil.copy(max(tmp_path.glob("*.frames"), key=os.path.getmtime), entry)
    assert np.array_equal(read(), want) and not np.array_equal(want, other)


def test_a_folder_drops_what_nobody_has_read_since_the_start(
    videos,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    text = f"{tmp_path}:0.3MB"  # three videos

    def read(first, last):
        cache = open_cache(text)
        return [
            cache.frames(video.path, np.arange, NO_STEP, **HOW)[1].is_kept
            for video in videos[first:last]
        ]

    assert read(0, 4) == [True, True, True, False]
    assert read(0, 3) == [True, True, True]
    open_cache.cache_clear()
    for entry in tmp_path.glob("*.frames"):
        os.utime(entry, (1e9, 1e9))
    # File systems stamp by a clock that may be some milliseconds late.
    monkeypatch.setattr(frame_cache, "_BEGAN", time.time() - 1)
    assert read(2, 3) == [True]  # it is in use from here on
    assert read(3, 6) == [True, True, False]
    assert used(text) <= 300_000
    (tmp_path / "new.frames").write_bytes(b"what a killed program left")
    open_cache.cache_clear()
    text = f"{tmp_path}:0.1MB"
    assert used(text) <= 100_000 and not (tmp_path / "new.frames").exists()


def test_memory_has_no_name_that_could_stay():
    store = open_cache("1MB").store
    assert os.stat(store._place).st_nlink == 0


def test_what_a_killed_process_left_in_memory_is_written_over(cache_of):
    store, frames = open_cache("1MB").store, np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    names = [digit * 64 for digit in "123"]
    assert store.put(names[0], frames)
    with open(store._place, "r+b") as file:  # frames without their header
        file.seek(store._end + 100)
        file.write(b"x" * 50)
    assert store.read(names[1], np.arange) is None
    assert store.put(names[1], frames + 1) and store.put(names[2], frames + 2)
    other = frame_stores.Memory(store._place, store.limit)
    for add, name in enumerate(names):
        found, count = other.read(name, np.arange)
        assert np.array_equal(found, frames + add) and count == 2


def test_one_line_says_how_much_is_kept(
    bad_list,  # noqa: F811
    tmp_path,
    capfd,
):
    for _ in range(2):
        train(bad_list, tmp_path, config(cache="10MB"), 6)
    kept = f"{6 * RAW / 1e6:.3g}MB"  # the short one is bad, too
    assert capfd.readouterr().err == f"cache: 6 of 6 training videos are kept, {kept}\n"
    train(bad_list, tmp_path, config(cache="0.2MB"), 6)
    assert capfd.readouterr().err.startswith(
        "cache: config.data.cache=0.2MB is full with 2 of 10 training videos; about "
    )
    for _ in range(2):
        list(data.eval_loader(bad_list, config(), batch_size=4, workers=0, cache="10MB"))
    assert capfd.readouterr().err.startswith("cache: 7 of 7 evaluation videos are kept, ")


@pytest.mark.parametrize("text", ["2", "GB", "2 gigs", ":2GB", "-1GB", "0GB", "gs://a/b:2GB"])
def test_a_wrong_size_is_told(text):
    with pytest.raises(UserError, match=r"config\.data\.cache is .* such as 2GB"):
        open_cache(text)


def test_more_than_there_is_is_told(tmp_path):
    for text, where in (("900TB", "memory"), (f"{tmp_path}:900TB", "disk")):
        with pytest.raises(UserError, match=f"900TB is more than the {where} .* smaller size"):
            open_cache(text)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be written \(.*choose a folder"):
        open_cache(f"{tmp_path / 'file'}:1MB")


def test_a_folder_may_hold_a_colon_and_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert frame_cache.parse("~/a:b:1.5GB") == (f"{tmp_path}/a:b", 1_500_000_000)
    assert frame_cache.parse("20 MB") == ("", 20_000_000)


def test_done_twice_a_fixed_step_is_as_done_once():
    frames = np.random.default_rng(0).integers(0, 256, (2, 45, 61, 3), np.uint8)
    for convention in ("cv2_linear", "mmcv_linear", "tf_bilinear", "pil_bicubic", "pil_lanczos"):
        for fit in FITS:
            for augment in crops.FIXED:
                cfg = config(augment=augment, short_side=30, fit=fit, resize=convention)
                step, values = clips_of.fixed_step(cfg)
                once = step(frames)
                assert np.array_equal(step(once), once) and values["fit"] == fit
                each = np.stack([step(frame[None])[0] for frame in frames])
                assert np.array_equal(each, once)
                pair = [
                    clips_of.train_clip(x, np.random.default_rng(1), cfg) for x in (frames, once)
                ]
                assert np.array_equal(*pair)


def test_videos_are_dataclasses_of_what_a_name_needs():
    """A field that changes frames must be in the names of entries: see records._decode."""
    names = {field.name for field in dataclasses.fields(Video)}
    assert names == {"path", "label", "num_frames", "verdict", "captions"}
