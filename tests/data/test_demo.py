"""The demo set: real files, made once, whose classes only motion tells apart."""

import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vidjax.data import datasets, demo, video
from vidjax.errors import UserError

SMALL = dict(num_train=16, num_val=8, size=32, frames=6)


@pytest.fixture(scope="module")
def clips() -> tuple[np.ndarray, np.ndarray]:
    """Rendered clips, uint8 [320, 8, 64, 64, 3] and labels, as they go to the encoder."""
    labels = np.arange(320) % len(demo.CLASSES)
    return np.stack(
        [demo._render(label, 64, 8, (0, 0, i)) for i, label in enumerate(labels)]
    ), labels


def digest(folder: str) -> dict[str, str]:
    files = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_files_are_h264_and_the_lists_lead_to_them(tmp_path):
    folder = demo.make(tmp_path / "set", **SMALL)
    for split, count in (("train", 16), ("val", 8)):
        videos = datasets.read_list(f"{folder}/{split}.csv", dataset="demo", need_labels=True)
        assert len(videos) == count
        assert videos.classes == demo.CLASSES
        assert videos.notices == ()
        assert np.bincount([v.label for v in videos]).tolist() == [count // 8] * 8
        frames, n = video.read_frames(videos[0].path, lambda n: np.arange(n))
        assert (n, frames.shape) == (6, (6, 32, 32, 3))
        pairs = datasets.read_list(f"{folder}/pairs/{split}.csv", dataset="demo_pairs")
        assert [2 * v.label[0] + v.label[1] for v in pairs] == [v.label for v in videos]
        assert all(pathlib.Path(v.path).is_file() for v in pairs) and len(pairs.classes) == 6
    with video.open_stream(videos[0].path) as (_, stream):
        assert stream.codec_context.name == "h264"


def test_encoding_keeps_the_picture(tmp_path):
    folder = demo.make(tmp_path / "set", **SMALL)
    frames, _ = video.read_frames(f"{folder}/clips/val_00005.mp4", lambda n: np.arange(n))
    rendered = demo._render(5, 32, 6, (0, 1, 5)).astype(int)
    luma = (0.299, 0.587, 0.114)
    assert np.abs((frames - rendered) @ luma).mean() < 4


def test_same_seed_same_bytes_other_seed_other_videos(tmp_path):
    first = digest(demo.make(tmp_path / "a", **SMALL))
    assert digest(demo.make(tmp_path / "b", **SMALL)) == first
    other = digest(demo.make(tmp_path / "c", **SMALL, seed=1))
    assert first["clips/train_00000.mp4"] != other["clips/train_00000.mp4"]
    assert first["clips/train_00000.mp4"] != first["clips/val_00000.mp4"]


def test_a_finished_folder_is_reused(tmp_path, monkeypatch):
    folder = demo.make(tmp_path / "set", **SMALL)
    monkeypatch.setattr(demo, "_write", lambda *a: pytest.fail("made again"))
    assert demo.make(tmp_path / "set", **SMALL) == folder


def test_an_unfinished_folder_is_never_taken_for_a_finished_one(tmp_path, monkeypatch):
    encode, count = demo._encode, iter(range(100))

    def failing(path, frames):
        if next(count) == 5:
            raise OSError("disk full")
        encode(path, frames)

    monkeypatch.setattr(demo, "_encode", failing)
    with pytest.raises(OSError, match="disk full"):
        demo.make(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_another_process_that_finishes_first_wins(tmp_path, monkeypatch):
    write = demo._write

    def overtaken(aside, settings):
        write(aside, settings)
        monkeypatch.setattr(demo, "_write", write)
        demo.make(tmp_path / "set", **SMALL)

    monkeypatch.setattr(demo, "_write", overtaken)
    folder = demo.make(tmp_path / "set", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(datasets.read_list(f"{folder}/train.csv")) == 16


def test_folders_with_other_things_are_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    with pytest.raises(UserError, match="not a demo set"):
        demo.make(tmp_path / "thesis", **SMALL)
    demo.make(tmp_path / "set", **SMALL)
    with pytest.raises(UserError, match="choose another folder"):
        demo.make(tmp_path / "set", **SMALL | {"frames": 8})
    with pytest.raises(UserError, match="size=33"):
        demo.make(tmp_path / "odd", size=33)


def test_one_frame_is_at_chance(clips):
    """Nearest class mean and ridge regression on single frames; chance is 1/8."""
    videos, labels = clips
    small = videos[:, 3].reshape(-1, 16, 4, 16, 4, 3).mean((2, 4)).reshape(len(videos), -1)
    moments = np.concatenate([small, small**2 / 255, np.sort(small, 1)], 1)
    moments = (moments - moments.mean(0)) / (moments.std(0) + 1e-6)
    train, test = slice(0, 240), slice(240, None)
    means = np.stack([moments[train][labels[train] == c].mean(0) for c in range(8)])
    nearest = ((moments[test, None] - means) ** 2).sum(-1).argmin(1)
    kernel = moments @ moments.T
    onehot = np.eye(8)[labels]
    weights = np.linalg.solve(kernel[train, train] + 100 * np.eye(240), onehot[train])
    ridge = (kernel[test, train] @ weights).argmax(1)
    for guess in (nearest, ridge):  # of 80: 10 expected, standard deviation 3
        assert (guess == labels[test]).sum() < 21


def test_single_frames_have_the_same_statistics_in_every_class(clips):
    """Means over each class of frames at any time agree within their standard errors."""
    videos, labels = clips
    for time in (0, 7):
        frames = videos[:, time].astype(float)
        statistics = np.stack(
            [
                frames.mean((1, 2, 3)),
                frames.std((1, 2, 3)),
                np.abs(np.diff(frames, axis=1)).mean((1, 2, 3)),
                np.abs(np.diff(frames, axis=2)).mean((1, 2, 3)),
                frames[:, 24:40, 24:40].mean((1, 2, 3)),
            ]
        )
        error = statistics.std(1) / np.sqrt(40)
        for label in range(8):
            of_class = statistics[:, labels == label].mean(1)
            assert (np.abs(of_class - statistics.mean(1)) < 4 * error).all()


def test_optical_flow_tells_the_classes_apart(clips):
    """Mean flow, curl and divergence name the motion; no training involved."""
    import cv2

    videos, labels = clips
    y, x = (np.mgrid[:64, :64] - 31.5) / 22
    right = 0
    for frames, label in zip(videos[:80], labels, strict=False):
        score = np.zeros((7, 8))
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        for i in range(7):
            flow = cv2.calcOpticalFlowFarneback(
                grey[i], grey[i + 1], None, 0.5, 3, 11, 3, 5, 1.1, 0
            )
            u, v = flow[..., 0], flow[..., 1]
            turn, swell = (x * v - y * u).mean(), (x * u + y * v).mean()
            means = u.mean(), v.mean(), turn, swell
            score[i] = np.ravel([(-m, m) for m in means])
        # The median over time ignores the moments when the scale starts again.
        right += np.median(score, 0).argmax() == label
    assert right / 80 > 0.85


def test_no_patch_is_flat(clips):
    videos, _ = clips
    patches = videos[::8, 3].reshape(-1, 8, 8, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    deviation = patches.reshape(-1, 64, 3).std(1).mean(1)
    assert np.percentile(deviation, 1) > 1.5


def test_command_makes_the_set_without_jax(tmp_path):
    program = (
        "import sys; from vidjax.data import demo; demo.make(sys.argv[1], num_train=8, num_val=8, "
        "size=16, frames=2); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "set"], check=True, timeout=50)
    assert (tmp_path / "set" / "clips" / "train_00007.mp4").exists()
