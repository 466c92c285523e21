"""The loader on videos of one grey level each, so that a pixel tells which video it came from."""

import gc
import json
import multiprocessing
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import av
import numpy as np
import pytest

from vidjax import data
from vidjax.data.datasets import Video
from vidjax.errors import UserError

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
    bad_list, tmp_path, monkeypatch
):
    # A worker that initialised a jax backend would fail on this one.
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
    streams, lists = [], []
    for workers in (0, 2):
        bad = data.BadVideos(tmp_path / f"{workers}.jsonl", len(bad_list), 0.5)
        cfg = config(rand_augment="rand-m7-n4-mstd0.5-inc1")
        loader = data.train_loader(bad_list, cfg, seed=0, bad_videos=bad, workers=workers)
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
    assert not multiprocessing.active_children()  # closed loaders leave no process


def test_resuming_needs_the_step_alone(bad_list, bad_videos):
    def loader(step):
        return data.train_loader(
            bad_list, config(), seed=3, bad_videos=bad_videos, start_step=step, workers=0
        )

    assert same(take(loader(0), 8)[5:], take(loader(5), 3))


def test_hosts_joined_are_the_same_global_batches(bad_list, bad_videos):
    def stream(process, start):
        loader = data.train_loader(
            bad_list,
            config(repeats=2),
            seed=3,
            bad_videos=bad_videos,
            start_step=start,
            process=process,
            workers=0,
        )
        return take(loader, 3)

    alone = stream((0, 1), 2)
    hosts = [stream((index, 2), 2) for index in range(2)]
    joined = [{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*hosts, strict=True)]
    assert same(joined, alone)


def test_repeats_are_side_by_side_from_one_decode(videos, bad_videos, monkeypatch):
    cfg = config(batch_size=6, repeats=3)
    decoded, read = [], data.read_frames

    def count(*args, **kwargs):
        if threading.current_thread() is threading.main_thread():  # no late one of another test
            decoded.append(args)
        return read(*args, **kwargs)

    monkeypatch.setattr(data, "read_frames", count)
    record = data._TrainRecord(videos, cfg)(0, np.random.default_rng(0))
    assert len(record["clips"]) == 3 and len(decoded) == 1

    loader = data.train_loader(videos, cfg, seed=0, bad_videos=bad_videos, workers=0)
    (batch,) = take(loader, 1)
    ids = batch["video_id"].reshape(6, 3)
    assert sorted(ids[:, 0]) == list(range(6)) and (ids == ids[:, :1]).all()
    clips = batch["video"].reshape(6, 3, -1)
    assert all(not np.array_equal(clips[i, 0], clips[i, 1]) for i in range(6))


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


def test_bad_videos_keeps_earlier_lines_but_counts_this_run(tmp_path):
    path = tmp_path / "bad.jsonl"
    first = data.BadVideos(path, 4, 0.5)
    for video in ("a", "b", "a"):
        first.add(video, "empty file")
    second = data.BadVideos(path, 4, 0.5)
    assert second.count == 0
    second.add("b", "empty file")
    second.add("c", "no such file")
    assert [json.loads(line)["path"] for line in path.open()] == ["a", "b", "c"]
    with pytest.raises(UserError, match="3 of 4 videos"):
        second.add("d", "no such file")


def test_videos_shorter_than_min_frames_are_bad_in_training_only(videos, tmp_path):
    bad = data.BadVideos(tmp_path / "bad.jsonl", 6, 1.0)
    loader = data.train_loader(videos, config(min_frames=21), seed=0, bad_videos=bad, workers=0)
    with pytest.raises(UserError, match="too short: 20 frames of at least 21"):
        next(loader)
    loader = data.eval_loader(videos, config(frames=30), batch_size=6, workers=0)
    (batch,) = loader
    assert (batch["weight"] == 1).all()


def test_wrong_settings_are_refused(videos, bad_videos):
    def train(process=(0, 1), videos=videos, **changes):
        cfg = config(**changes)
        data.train_loader(videos, cfg, seed=0, bad_videos=bad_videos, process=process, workers=0)

    with pytest.raises(UserError, match="mirroring a video of ssv2"):
        train(name="ssv2")
    for message, changes in {
        "divide over 3 hosts": dict(process=(0, 3)),
        "no videos": dict(videos=[]),
        "batch_size 0": dict(batch_size=0),
        "sampling is 'uniform'": dict(sampling="uniform"),
        "augment is 'none'": dict(augment="none"),
        "rand_augment is 'rand'": dict(rand_augment="rand"),
    }.items():
        with pytest.raises(UserError, match=message):
            train(**changes)
    with pytest.raises(UserError, match="evaluation batch of 3"):
        data.eval_loader(videos, config(), batch_size=3, process=(0, 2))


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
            process=(index, hosts),
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


def test_importing_the_loader_imports_no_jax():
    code = "import sys, vidjax.data, vidjax.data.transforms as t; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
