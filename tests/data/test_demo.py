"""The demo set: real files, made once, whose classes only motion tells apart."""

import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vidjax.data import datasets, demo, text, video
from vidjax.errors import UserError

SMALL = dict(num_train=16, num_val=8, size=32, frames=6)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory) -> str:
    """A set with captions, of one training and one validation clip for each pair."""
    folder = tmp_path_factory.mktemp("captioned") / "set"
    return demo.make_captioned(folder, num_train=64, size=32, frames=2)


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


def test_pictures_are_those_of_version_2():
    """Who changes them changes every figure that was measured on them: then count up."""
    pixels = demo._render(3, 16, 2, (0, 0, 3))[:, ::8, ::8].astype(int)
    first = [[[197, 255, 255], [253, 255, 175]], [[107, 78, 72], [85, 78, 64]]]
    second = [[[194, 255, 255], [229, 233, 164]], [[107, 78, 72], [85, 78, 64]]]
    assert np.abs(pixels - [first, second]).max() <= 1


def read_captioned(folder: str, split: str) -> datasets.VideoList:
    facts = dict(dataset="demo_captions", need_labels=True, need_captions=True)
    return datasets.read_list(f"{folder}/{split}.csv", **facts)


def test_captions_say_colour_and_event(captioned):
    pairs = {}
    for split in ("train", "val"):
        videos = read_captioned(captioned, split)
        assert videos.notices == () and videos.classes == demo.EVENTS
        assert all(len(set(video.captions)) == 1 + (split == "train") for video in videos)
        for item in videos:
            for caption in item.captions:
                colour = [name for name in demo.COLOURS if name in caption.split()]
                event = [i for i, name in enumerate(demo.EVENTS) if name in caption]
                assert event == [item.label] and len(colour) == 1, caption
            pairs.setdefault(split, []).append((colour[0], item.label))
    assert len(set(pairs["val"])) == len(pairs["val"]) == 64  # one right answer for each
    assert set(pairs["train"]) == set(pairs["val"])
    wordings = {
        caption.replace(colour, "").replace(demo.EVENTS[label], "")
        for video, (colour, label) in zip(
            read_captioned(captioned, "val"), pairs["val"], strict=True
        )
        for caption in video.captions
    }
    assert len(wordings) == len(demo.CAPTIONS) == 5


def test_the_colour_that_captions_name_is_seen(captioned):
    """The nearest of the eight hues to that of the most colourful pixels, after encoding."""

    def hue(rgb):
        rgb = rgb - rgb.min(-1, keepdims=True)
        return rgb / rgb.max(-1, keepdims=True)

    palette = hue(np.array(list(demo.COLOURS.values())))
    lightness = np.array([min(rgb) for rgb in demo.COLOURS.values()])  # pink is a light purple
    palette = np.concatenate([palette, lightness[:, None]], 1)
    videos = read_captioned(captioned, "val")
    for item in videos:
        frames, _ = video.read_frames(item.path, lambda n: np.arange(n))
        pixels = frames.reshape(-1, 3).astype(float)
        spread = pixels.max(1) - pixels.min(1)
        typical = np.median(pixels[spread > np.quantile(spread, 0.97)], axis=0)
        found = np.append(hue(typical), typical.min() / typical.max())
        name = list(demo.COLOURS)[np.abs(palette - found).sum(1).argmin()]
        assert name in item.captions[0].split(), item


def test_the_tokenizer_knows_the_captions(captioned):
    tokenizer = text.Tokenizer(f"{captioned}/tokenizer.model", 16)
    captions = [c for split in ("train", "val") for v in read_captioned(captioned, split)
                for c in v.captions]  # fmt: skip
    ids, mask = tokenizer(captions)
    assert (ids != 2).all() and not mask[:, -1].any()
    assert tokenizer.vocab_size <= 128
    assert len({tuple(row) for row in ids.tolist()}) == len(set(captions))


def test_captioned_sets_are_made_once_and_the_same(captioned, tmp_path, monkeypatch):
    sizes = dict(num_train=64, size=32, frames=2)
    again = demo.make_captioned(tmp_path / "again", **sizes)
    assert digest(again) == digest(captioned)
    monkeypatch.setattr(demo, "_write_captioned", lambda *a: pytest.fail("made again"))
    demo.make_captioned(captioned, **sizes)
    with pytest.raises(UserError, match="choose another folder"):
        demo.make(captioned, **SMALL)
    with pytest.raises(UserError, match="num_val=65 must be at most 64"):
        demo.make_captioned(tmp_path / "large", num_val=65)


def test_lists_by_the_name_of_a_dataset(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(demo, "make", lambda f: made.append("plain") or str(f))
    monkeypatch.setattr(demo, "make_captioned", lambda f: made.append("captions") or str(f))
    home = tmp_path / "demo"
    assert demo.list_of("demo", "val", home) == f"{home}/val.csv"
    assert demo.list_of("demo_pairs", "train", home) == f"{home}/pairs/train.csv"
    assert made == ["plain"] * 2
    assert demo.list_of("demo_captions", "train", f"{home}/") == f"{home}_captions/train.csv"
    assert demo.tokenizer_of(home) == f"{home}_captions/tokenizer.model"
    assert made[2:] == ["captions"] * 2
    assert demo.LISTS.keys() <= datasets.DATASETS.keys()


def test_command_makes_the_set_without_jax(tmp_path):
    program = (
        "import sys; from vidjax.data import demo; demo.make(sys.argv[1], num_train=8, num_val=8, "
        "size=16, frames=2); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "set"], check=True, timeout=50)
    assert (tmp_path / "set" / "clips" / "train_00007.mp4").exists()
