"""The loader on videos of one grey level each, so that a pixel tells which video it came from."""

import errno
import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import pytest
import sentencepiece

from vidjax import data
from vidjax.data import frame_cache, records
from vidjax.data import loader as loaders
from vidjax.data.datasets import Video
from vidjax.data.lists import read_list
from vidjax.data.reading import containers, pyav, watchdog
from vidjax.errors import UserError
from vidjax.tokenizers import Tokenizer, train_tokenizer

NUM_VIDEOS = 6
SIDE = 24


def level(index):
    return 20 + 35 * index


def write_video(path, frames):
    """frames uint8 [T, H, W, 3] -> H.264 in MP4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Video i is 20 frames of grey level(i), darker by a ramp from left to right."""
    folder = tmp_path_factory.mktemp("videos")
    ramp = np.linspace(0, 19, 48).astype(np.uint8)[None, :, None]
    out = []
    for index in range(NUM_VIDEOS):
        frame = np.broadcast_to(level(index) - ramp, (32, 48, 3)).astype(np.uint8)
        write_video(folder / f"{index}.mp4", np.stack([frame] * 20))
        out.append(Video(str(folder / f"{index}.mp4"), label=index % 3))
    return out


@pytest.fixture(scope="module")
def bad_list(videos, tmp_path_factory):
    """The six videos, and a missing, an empty, a text and a short one between them."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video " * 100)
    write_video(folder / "short.mp4", np.full((5, 32, 48, 3), 255, np.uint8))
    bad = [Video(str(folder / name)) for name in ("none.mp4", "empty.mp4", "text.mp4", "short.mp4")]
    return [bad[0], *videos[:3], bad[1], bad[2], *videos[3:], bad[3]]


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def captioned(videos):
    """Video i has i + 1 captions, which begin with its number."""
    return [
        replace(video, captions=tuple(f"{WORDS[i]} {word}" for word in WORDS[: i + 1]))
        for i, video in enumerate(videos)
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "words.model"
    train_tokenizer([f"{first} {second}" for first in WORDS for second in WORDS], path, 60)
    return Tokenizer(path, 12)


def texts(batch, tokenizer):
    model = sentencepiece.SentencePieceProcessor(model_file=tokenizer.path)
    return [
        model.decode(ids[mask].tolist())
        for ids, mask in zip(batch["text"], batch["text_mask"], strict=True)
    ]


def config(**changes):
    fields = dict(
        name="k400",
        batch_size=4,
        repeats=1,
        frames=8,
        stride=2,
        sampling="dense",
        size=SIDE,
        short_side=SIDE,
        resize="cv2_linear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        augment="random_resized_crop",
        flip=0.5,
        rand_augment="",
        max_bad_share=0.1,
        min_frames=0,
        patience=600.0,
        reader="pyav",
        cache="",
    )
    return SimpleNamespace(**(fields | changes))


@pytest.fixture
def bad_videos(tmp_path):
    return data.BadVideos(tmp_path / "bad.jsonl", 10, 0.5)


def take(loader, count):
    batches = [next(loader) for _ in range(count)]
    loader.close()
    return batches


def same(first, second):
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
        for a, b in zip(first, second, strict=True)
    )


def test_batches_are_as_documented(videos, bad_videos):
    loader = data.train_loader(videos, config(), seed=0, bad_videos=bad_videos, workers=0)
    (batch,) = take(loader, 1)
    assert batch["video"].shape == (4, 8, SIDE, SIDE, 3)
    assert {key: str(value.dtype) for key, value in batch.items()} == {
        "video": "uint8",
        "label": "int32",
        "video_id": "int32",
        "weight": "float32",
    }
    assert (batch["weight"] == 1).all()
    assert (batch["label"] == batch["video_id"] % 3).all()
    grey = batch["video"].mean((1, 2, 3, 4))
    assert np.abs(grey - [level(i) - 10 for i in batch["video_id"]]).max() < 13
    with pytest.raises(TypeError):
        len(loader)
    with pytest.raises(StopIteration):
        next(loader)


def test_every_epoch_holds_every_video_once_in_a_new_order(videos, bad_videos):
    cfg = config(batch_size=3)
    loader = data.train_loader(videos, cfg, seed=0, bad_videos=bad_videos, workers=0)
    order = np.concatenate([batch["video_id"] for batch in take(loader, 8)]).reshape(4, 6)
    assert (np.sort(order) == np.arange(6)).all()
    assert len({tuple(epoch) for epoch in order.tolist()}) > 1
    other = data.train_loader(videos, cfg, seed=1, bad_videos=bad_videos, workers=0)
    again = np.concatenate([batch["video_id"] for batch in take(other, 8)]).reshape(4, 6)
    assert not np.array_equal(order, again)


def test_bad_videos_are_replaced_listed_and_the_stream_is_the_same_for_any_workers(
    bad_list, tmp_path, monkeypatch, tokenizer
):
    # A worker that initialised a jax backend would fail on this one.
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
    streams, lists = [], []
    for workers in (0, 2):
        bad = data.BadVideos(tmp_path / f"{workers}.jsonl", len(bad_list), 0.5)
        cfg = config(rand_augment="rand-m7-n4-mstd0.5-inc1")
        loader = data.train_loader(
            captioned(bad_list), cfg, seed=0, bad_videos=bad, workers=workers, tokenize=tokenizer
        )
        streams.append(take(loader, 6))
        lists.append([json.loads(line) for line in (tmp_path / f"{workers}.jsonl").open()])
        assert bad.count == 4
    assert same(*streams)
    assert lists[0] == lists[1]
    reasons = {entry["path"].rsplit("/", 1)[1]: entry["reason"] for entry in lists[0]}
    assert set(reasons) == {"none.mp4", "empty.mp4", "text.mp4", "short.mp4"}
    assert "5 frames" in reasons["short.mp4"]
    ids = np.concatenate([batch["video_id"] for batch in streams[0]])
    assert set(ids) == {1, 2, 3, 6, 7, 8}
    assert all((batch["weight"] == 1).all() for batch in streams[0])
    for batch in streams[0]:  # also where a video replaces another
        first = [text.split()[0] for text in texts(batch, tokenizer)]
        assert first == [WORDS[i] for i in batch["video_id"]]
    assert not multiprocessing.active_children()  # closed loaders leave no process


def test_resuming_needs_the_step_alone(bad_list, bad_videos):
    def loader(step):
        return data.train_loader(
            bad_list, config(), seed=3, bad_videos=bad_videos, start_step=step, workers=0
        )

    assert same(take(loader(0), 8)[5:], take(loader(5), 3))


def test_hosts_joined_are_the_same_global_batches(bad_list, bad_videos):
    def stream(rows):
        loader = data.train_loader(
            bad_list,
            config(repeats=2),
            seed=3,
            bad_videos=bad_videos,
            start_step=2,
            rows=rows,
            workers=0,
        )
        return take(loader, 3)

    places = [0, 3], [1, 2]  # meshes may order devices so that a host's rows are not neighbours
    order = np.argsort(np.concatenate(places).repeat(2), kind="stable")
    hosts = zip(*map(stream, places), strict=True)
    joined = [{k: np.concatenate([a[k], b[k]])[order] for k in a} for a, b in hosts]
    assert same(joined, stream(None))


def test_repeats_are_side_by_side_from_one_decode(videos, bad_videos, tmp_path, monkeypatch):
    cfg = config(batch_size=6, repeats=3)
    decoded, read = [], frame_cache.read_frames

    def count(path, *args, **kwargs):
        decoded.append(path)
        return read(path, *args, **kwargs)

    monkeypatch.setattr(frame_cache, "read_frames", count)
    own = shutil.copy(videos[0].path, tmp_path)  # late threads of other tests decode the others
    record = records.TrainRecord([Video(own)], cfg, {})(0, np.random.default_rng(0))
    assert len(record["clips"]) == 3 and decoded.count(own) == 1

    loader = data.train_loader(videos, cfg, seed=0, bad_videos=bad_videos, workers=0)
    (batch,) = take(loader, 1)
    ids = batch["video_id"].reshape(6, 3)
    assert sorted(ids[:, 0]) == list(range(6)) and (ids == ids[:, :1]).all()
    clips = batch["video"].reshape(6, 3, -1)
    assert all(not np.array_equal(clips[i, 0], clips[i, 1]) for i in range(6))


def test_every_time_a_video_comes_with_one_of_its_captions(videos, bad_videos, tokenizer):
    def stream(tokenize, start=0, steps=30):
        cfg = config(batch_size=3, repeats=2, frames=2)
        facts = dict(seed=0, bad_videos=bad_videos, start_step=start, workers=0)
        return take(data.train_loader(captioned(videos), cfg, tokenize=tokenize, **facts), steps)

    batches = stream(tokenizer)
    assert batches[0]["text"].shape == batches[0]["text_mask"].shape == (6, 12)
    assert (batches[0]["text"].dtype, batches[0]["text_mask"].dtype) == (np.int32, np.bool_)
    seen = {}
    for batch in batches:
        found = texts(batch, tokenizer)
        assert found[::2] == found[1::2]  # of the two clips of a video
        for video_id, text in zip(batch["video_id"], found, strict=True):
            seen.setdefault(int(video_id), set()).add(text)
    for i, video in enumerate(captioned(videos)):
        assert seen[i] <= {f"{caption}." for caption in video.captions}
        assert len(seen[i]) > i / 2  # 15 draws of i + 1
    assert same(batches[10:12], stream(tokenizer, 10, 2))
    plain = stream(None, 0, 3)
    assert same([{key: b[key] for key in plain[0]} for b in batches[:3]], plain)


def test_training_on_texts_needs_captions(videos, bad_videos, tokenizer):
    mixed = [*captioned(videos[:2]), videos[2]]
    facts = dict(seed=0, bad_videos=bad_videos, workers=0)
    with pytest.raises(UserError, match=r"2\.mp4 has no caption in the training list"):
        data.train_loader(mixed, config(), tokenize=tokenizer, **facts)


def test_too_many_bad_videos_stop_the_run_with_their_list(bad_list, tmp_path):
    bad = data.BadVideos(tmp_path / "bad.jsonl", len(bad_list), 0.2)
    loader = data.train_loader(bad_list, config(), seed=0, bad_videos=bad, workers=0)
    with pytest.raises(UserError, match=r"3 of 10 videos .* 0\.2 .*bad\.jsonl"):
        take(loader, 20)
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 3


def test_only_bad_videos_end_in_a_clear_error(tmp_path):
    bad = data.BadVideos(tmp_path / "bad.jsonl", 1, 1.0)
    missing = [Video(str(tmp_path / "none.mp4"))]
    loader = data.train_loader(missing, config(), seed=0, bad_videos=bad, workers=0)
    with pytest.raises(UserError, match=r"in a row .*none\.mp4"):
        next(loader)


def test_videos_shorter_than_min_frames_are_bad_in_training_only(videos, tmp_path):
    bad = data.BadVideos(tmp_path / "bad.jsonl", 6, 1.0)
    loader = data.train_loader(videos, config(min_frames=21), seed=0, bad_videos=bad, workers=0)
    with pytest.raises(UserError, match="too short: 20 frames of at least 21"):
        next(loader)
    loader = data.eval_loader(videos, config(frames=30), batch_size=6, workers=0)
    (batch,) = loader
    assert (batch["weight"] == 1).all()


def test_short_videos_train_where_they_are_played_again(videos, tmp_path):
    cfg = config(frames=24, stride=1, sampling="dense_cycle", min_frames=0)  # of 20 frames
    bad = data.BadVideos(tmp_path / "bad.jsonl", 6, 1.0)
    (batch,) = take(data.train_loader(videos, cfg, seed=0, bad_videos=bad, workers=0), 1)
    assert batch["video"].shape[1] == 24 and bad.count == 0
    with pytest.raises(UserError, match="too short: 20 frames of at least 21"):
        cfg.min_frames = 21
        next(data.train_loader(videos, cfg, seed=0, bad_videos=bad, workers=0))


def test_videos_may_have_several_labels(videos, bad_videos):
    labels = [-1, (1, 20), (2, 21), (3, 22), (4, 23), (5, 24)]
    pairs = [replace(video, label=label) for video, label in zip(videos, labels, strict=True)]
    want = np.array([(-1, -1), *labels[1:]], np.int32)

    def check(batch):
        assert batch["label"].shape == (4, 2) and batch["label"].dtype == np.int32
        found = batch["video_id"] >= 0
        assert np.array_equal(batch["label"][found], want[batch["video_id"][found]])
        assert (batch["label"][~found] == -1).all()
        return found.sum()

    cfg = config(name="epic_kitchens")
    loader = data.train_loader(pairs, cfg, seed=0, bad_videos=bad_videos, workers=0)
    for batch in take(loader, 3):
        assert check(batch) == 4
    loader = data.eval_loader(pairs, cfg, batch_size=4, workers=0)
    assert [check(batch) for batch in loader] == [4, 2]  # two of padding


def hang_on(path):
    """Starts a worker as `loader._start_worker`, with a reader that hangs on one video."""

    def start(*_):
        from vidjax.data.reading import pyav, watchdog

        index_of = pyav.index_of
        watchdog.PATIENCE = 2.0

        def slow(file):
            if file == path:
                time.sleep(3600)
            return index_of(file)

        pyav.index_of = slow

    return start


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_a_hanging_video_ends_the_run_but_not_the_next(
    videos, tmp_path, monkeypatch, workers, train
):
    stuck = videos[3].path
    monkeypatch.setattr(pyav, "index_of", pyav.index_of)  # for the end of the test
    monkeypatch.setattr(watchdog, "PATIENCE", watchdog.PATIENCE)
    if workers:
        monkeypatch.setattr(loaders, "_start_worker", hang_on(stuck))
    else:
        hang_on(stuck)()

    def loader():
        bad = data.BadVideos(tmp_path / "bad.jsonl", len(videos), 0.5)
        if train:
            cfg = config(batch_size=3)
            return bad, data.train_loader(videos, cfg, seed=0, bad_videos=bad, workers=workers)
        return bad, data.eval_loader(
            videos, config(), batch_size=3, workers=workers, bad_videos=bad
        )

    start = time.monotonic()
    with pytest.raises(
        UserError, match=rf"{stuck} hangs .*no answer in 2 s.*{tmp_path}/bad\.jsonl"
    ):
        take(loader()[1], 3)
    assert time.monotonic() - start < 30
    entry = {"path": stuck, "reason": "no answer in 2 s"}
    assert [json.loads(line) for line in (tmp_path / "bad.jsonl").open()] == [entry]

    bad, batches = loader()
    seen = take(batches, 2)  # an epoch
    ids = {int(i) for b in seen for i, w in zip(b["video_id"], b["weight"], strict=True) if w}
    assert 3 not in ids and len(ids) >= 4
    assert bad.count == 1
    assert [json.loads(line) for line in (tmp_path / "bad.jsonl").open()] == [entry]


def test_a_process_ends_although_a_decoder_hangs_in_it(videos, tmp_path):
    """Also of threads that are waited for at exit, such as those of grain."""
    code = f"""
import sys, time
from vidjax import data
from vidjax.data.reading import pyav, watchdog
from vidjax.data.datasets import Video
from vidjax.preprocessing import Preprocessing
from vidjax.errors import UserError

watchdog.PATIENCE = 0.5
pyav.index_of = lambda file: time.sleep(3600)
try:
    next(data.eval_loader([Video({videos[0].path!r})], Preprocessing(), batch_size=1, workers=0))
except UserError as error:
    sys.exit(str(error))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"{videos[0].path} hangs its decoder: no answer in 0.5 s; pyth")


@pytest.mark.parametrize("verdict", ["ok", "sequential"])
def test_videos_that_changed_since_the_check_are_bad(videos, tmp_path, verdict):
    listed = [replace(video, num_frames=20, verdict=verdict) for video in videos]
    listed[2] = replace(listed[2], num_frames=300)
    listed[4] = replace(listed[4], num_frames=9, verdict="trim:9")  # of the file's 20
    path = tmp_path / "bad.jsonl"
    loader = data.eval_loader(
        listed, config(), batch_size=6, workers=0, bad_videos=data.BadVideos(path, 6, 1.0)
    )
    (batch,) = loader
    assert batch["weight"].tolist() == [1, 1, 0, 1, 1, 1]
    reason = "the file changed since the check, from 300 to 20 frames"
    entry = {"path": listed[2].path, "reason": reason}
    assert [json.loads(line) for line in path.open()] == [entry]
    bad = data.BadVideos(tmp_path / "train.jsonl", 6, 1.0)
    loader = data.train_loader(listed, config(batch_size=6), seed=0, bad_videos=bad, workers=0)
    assert 2 not in take(loader, 1)[0]["video_id"]
    assert bad.count == 1


def test_wrong_settings_are_refused(videos, bad_videos):
    def train(videos=videos, **changes):
        data.train_loader(videos, config(**changes), seed=0, bad_videos=bad_videos, workers=0)

    with pytest.raises(UserError, match="mirroring a video of ssv2"):
        train(name="ssv2")
    for message, changes in {
        "no videos": dict(videos=[]),
        "batch_size 0": dict(batch_size=0),
        "sampling is 'uniform'": dict(sampling="uniform"),
        "data.patience 0 must be above 0": dict(patience=0),
        "augment is 'none'": dict(augment="none"),
        "rand_augment is 'rand'": dict(rand_augment="rand"),
    }.items():
        with pytest.raises(UserError, match=message):
            train(**changes)
    with pytest.raises(UserError, match="fit 'stretch' makes one square of a frame, not 3"):
        data.eval_loader(videos, config(fit="stretch"), batch_size=3, views=(1, 3))
    with pytest.raises(UserError, match="evaluation batch of 3"):
        data.eval_loader(videos, config(), batch_size=3, share=(0, 2))


@pytest.mark.parametrize("hosts", [1, 4])
def test_evaluation_sees_every_view_of_every_video_once(bad_list, tmp_path, hosts):
    bad = data.BadVideos(tmp_path / "bad.jsonl", len(bad_list), 1.0)
    seen, lengths = {}, set()
    for index in range(hosts):
        loader = data.eval_loader(
            bad_list,
            config(),
            batch_size=4 * hosts,
            views=(2, 3),
            share=(index, hosts),
            workers=0,
            bad_videos=bad,
        )
        batches = list(loader)
        assert len(batches) == len(loader)
        lengths.add(len(batches))
        for batch in batches:
            assert batch["video"].shape == (4, 8, SIDE, SIDE, 3)
            for row in np.flatnonzero(batch["weight"]):
                clip = batch["video"][row].astype(float)
                seen.setdefault(int(batch["video_id"][row]), []).append(clip.mean())
                assert batch["label"][row] == bad_list[batch["video_id"][row]].label
            assert (batch["video"][batch["weight"] == 0] == 0).all()
    assert len(lengths) == 1  # every host makes the same number of steps
    # Every readable video, the short one too; six views, the spatial three from bright to dark.
    assert set(seen) == {1, 2, 3, 6, 7, 8, 9}
    for video, means in seen.items():
        assert len(means) == 6
        if video != 9:
            assert means[0] > means[1] > means[2] and means[3] > means[4] > means[5]
    assert bad.count == 3  # missing, empty, text


def test_a_dropped_loader_ends_its_workers(videos):
    loader = data.eval_loader(videos, config(), batch_size=2, workers=1)
    next(loader)
    assert multiprocessing.active_children()
    del loader
    gc.collect()
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not multiprocessing.active_children()


FAULTS = {
    "truncated": "cannot be decoded",
    "empty": "empty file",
    "no frames": "it holds no frames",
    "text": "it is text, not a video",
    "audio": "no video stream",
    "missing": "no such file",
    "folder": "a folder without numbered pictures such as img_00001.jpg",
    "locked": "cannot be opened: Permission denied",
}


def test_each_fault_is_replaced_in_training_and_weighs_nothing_in_evaluation(
    clips, videos, tmp_path, monkeypatch
):
    def guarded(path, *args, **kwargs):  # also for root, who may open everything
        if str(path) == locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open(path, *args, **kwargs)

    locked = str(shutil.copy(videos[0].path, tmp_path / "locked.mp4"))
    monkeypatch.setattr(containers, "open", guarded, raising=False)
    paths = clips | {"folder": str(tmp_path), "locked": locked}
    listed = [*videos, *(Video(paths[kind], label=0) for kind in FAULTS)]
    bad = data.BadVideos(tmp_path / "val.jsonl", len(listed), 1.0)
    loader = data.eval_loader(
        listed, config(frames=32), batch_size=len(listed), workers=0, bad_videos=bad
    )
    (batch,) = loader
    lines = (tmp_path / "val.jsonl").read_text().splitlines()
    reasons = {row["path"]: row["reason"] for row in map(json.loads, lines)}
    for index, (kind, reason) in enumerate(FAULTS.items(), len(videos)):
        if reason:
            assert reason in reasons[paths[kind]], kind
        assert batch["weight"][index] == (paths[kind] not in reasons)
    assert batch["weight"][: len(videos)].all() and bad.count == len(reasons)

    bad = data.BadVideos(tmp_path / "train.jsonl", len(listed), 1.0)
    loader = data.train_loader(
        listed, config(batch_size=len(listed)), seed=0, bad_videos=bad, workers=0
    )
    (batch,) = take(loader, 1)
    sure = {i for i, reason in enumerate(FAULTS.values(), len(videos)) if reason}
    assert batch["weight"].all() and not sure & {*batch["video_id"].tolist()}
    assert bad.count >= len(sure)


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGSTOP"])
def test_a_worker_that_dies_or_stops_ends_the_run_with_the_reason(videos, bad_videos, kind):
    loader = data.train_loader(videos, config(), seed=0, bad_videos=bad_videos, workers=1)
    first = next(loader)
    loader._patience = 3.0  # from here on, as the worker takes its time to start
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, getattr(signal, kind))
    start = time.monotonic()
    message = {
        "SIGKILL": r"worker was killed by signal 9.*exit code -9.*data\.workers lower .* memory",
        "SIGSTOP": r"1 data workers gave no batch for 3 s since .*\.mp4; .* raise data\.patience",
    }[kind]
    with pytest.raises(UserError, match=message):
        while True:
            assert next(loader).keys() == first.keys()
    assert time.monotonic() - start < 25
    worker.join(10)
    assert not worker.is_alive()
    with pytest.raises(StopIteration):
        next(loader)


def test_a_worker_that_ends_by_itself_is_named_with_its_code():
    died = "Worker process was terminated unexpectedly with exit code {}. Search the logs above"
    assert "ended with exit code 3;" in str(loaders._worker_died(RuntimeError(died.format(3))))
    assert "signal 11 (exit code -11)" in str(loaders._worker_died(RuntimeError(died.format(-11))))
    assert loaders._worker_died(RuntimeError("something else, exit code 3")) is None


def test_duplicates_of_an_evaluation_list_are_told_and_counted_twice(videos, tmp_path):
    (tmp_path / "val.csv").write_text(f"{videos[0].path} 0\n" * 2 + f"{videos[1].path} 1\n")
    listed = read_list(tmp_path / "val.csv", need_labels=True)
    assert f"paths listed twice: 1, such as {videos[0].path}" in listed.notices[0]
    (batch,) = data.eval_loader(listed, config(), batch_size=4, workers=0)
    assert batch["weight"].tolist() == [1, 1, 1, 0]


def test_importing_the_loader_imports_no_jax():
    code = "import sys, vidjax.data, vidjax.data.frames.clips; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
