"""The demo set: real files, made once, whose classes only motion tells apart."""

import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vidjax import tokenizers
from vidjax.data import datasets, demo, lists
from vidjax.data.reading import pyav, video
from vidjax.errors import UserError

SMALL = dict(num_train=16, num_val=8, size=32, frames=6)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory) -> str:
    """A set with captions, of one training and one validation clip for each pair."""
    folder = tmp_path_factory.mktemp("captioned") / "set"
    return demo.make(folder, "demo_captions", num_train=64, size=32, frames=2)


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
        videos = lists.read_list(f"{folder}/{split}.csv", dataset="demo", need_labels=True)
        assert len(videos) == count
        assert videos.classes == demo.CLASSES
        assert videos.notices == ()
        assert np.bincount([v.label for v in videos]).tolist() == [count // 8] * 8
        frames, n = video.read_frames(videos[0].path, lambda n: np.arange(n))
        assert (n, frames.shape) == (6, (6, 32, 32, 3))
        pairs = lists.read_list(f"{folder}/pairs/{split}.csv", dataset="demo_pairs")
        assert [2 * v.label[0] + v.label[1] for v in pairs] == [v.label for v in videos]
        assert all(pathlib.Path(v.path).is_file() for v in pairs) and len(pairs.classes) == 6
    with pyav.open_stream(videos[0].path) as (_, stream):
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


def test_a_set_of_an_older_version_is_made_anew(tmp_path):
    folder = pathlib.Path(demo.make(tmp_path / "set", **SMALL))
    want, card = digest(folder), folder / "demo.json"
    old = json.loads(card.read_text())
    card.write_text(json.dumps(old | {"version": old["version"] - 1}))
    (folder / "train.csv").write_text("path,label\n")
    demo.make(folder, **SMALL)
    assert digest(folder) == want
    card.write_text(json.dumps(old | {"version": old["version"] + 1}))
    with pytest.raises(UserError, match="choose another folder"):
        demo.make(folder, **SMALL)


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
    assert len(lists.read_list(f"{folder}/train.csv")) == 16


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

    def offsets(weight):
        """Returns the places [64] from the mean of where things move, around the border."""
        places = np.arange(64)
        mean = np.angle((weight * np.exp(2j * np.pi * places / 64)).sum()) / (2 * np.pi) * 64
        return ((places - mean + 32) % 64 - 32) / 22

    videos, labels = clips
    right = 0
    for frames, label in zip(videos[:80], labels, strict=False):
        score = np.zeros((7, 8))
        # What leaves at one side comes in at the other.
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        grey = [np.pad(frame, 32, mode="wrap") for frame in grey]
        for i in range(7):
            flow = cv2.calcOpticalFlowFarneback(
                grey[i], grey[i + 1], None, 0.5, 3, 11, 3, 5, 1.1, 0
            )
            u, v = np.moveaxis(flow[32:-32, 32:-32], 2, 0)
            speed = np.hypot(u, v)
            x, y = offsets(speed.sum(0)), offsets(speed.sum(1))[:, None]
            turn, swell = (x * v - y * u).mean(), (x * u + y * v).mean()
            means = u.mean(), v.mean(), turn, swell
            score[i] = np.ravel([(-m, m) for m in means])
        # The median over time ignores the moments when the size starts again.
        right += np.median(score, 0).argmax() == label
    assert right / 80 > 0.95


def test_no_patch_is_flat(clips):
    videos, _ = clips
    patches = videos[::8, 3].reshape(-1, 8, 8, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    deviation = patches.reshape(-1, 64, 3).std(1).mean(1)
    assert np.percentile(deviation, 1) > 1.5


def test_pictures_are_those_of_this_version():
    """Who changes them changes every figure that was measured on them: then count up."""
    pixels = demo._render(3, 16, 2, (0, 0, 3))[:, ::8, ::8].astype(int)
    first = [[[171, 171, 171], [141, 21, 106]], [[93, 83, 82], [93, 83, 82]]]
    second = [[[182, 182, 182], [151, 23, 113]], [[93, 83, 82], [93, 83, 82]]]
    assert np.abs(pixels - [first, second]).max() <= 1
    pixels = demo._render_pair("sliding up and growing", 16, 2, (0, 0, 3, 2), "green")
    first = [[[119, 109, 104], [110, 99, 116]], [[32, 118, 38], [58, 50, 64]]]
    second = [[[25, 176, 24], [110, 99, 116]], [[59, 60, 77], [58, 50, 64]]]
    assert np.abs(pixels[:, 4::8, 4::8].astype(int) - [first, second]).max() <= 1


def read_captioned(folder: str, split: str) -> datasets.VideoList:
    facts = dict(dataset="demo_captions", need_labels=True, need_captions=True)
    return lists.read_list(f"{folder}/{split}.csv", **facts)


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


def test_the_tokenizers_know_the_captions(captioned):
    captions = [c for split in ("train", "val") for v in read_captioned(captioned, split)
                for c in v.captions]  # fmt: skip
    for file, kind, size in (
        ("model", tokenizers.Tokenizer, 128),
        ("json", tokenizers.ClipTokenizer, 768),
    ):
        tokenizer = tokenizers.open_tokenizer(f"{captioned}/tokenizer.{file}", length=16)
        assert type(tokenizer) is kind and tokenizer.vocab_size <= size
        ids, mask = tokenizer(captions)
        assert not mask[:, -1].any()
        assert len({tuple(row) for row in ids.tolist()}) == len(set(captions))
        if kind is tokenizers.Tokenizer:
            assert (ids != 2).all()  # nothing unknown
        else:  # a token a word, the start and the end
            words = [len(caption.replace(":", " :").split()) + 2 for caption in captions]
            assert (mask.sum(1) == words).all()


def test_captioned_sets_are_made_once_and_the_same(captioned, tmp_path, monkeypatch):
    sizes = dict(num_train=64, size=32, frames=2)
    again = demo.make(tmp_path / "again", "demo_captions", **sizes)
    assert digest(again) == digest(captioned)
    monkeypatch.setattr(demo, "_write_captioned", lambda *a: pytest.fail("made again"))
    demo.make(captioned, "demo_captions", **sizes)
    with pytest.raises(UserError, match="choose another folder"):
        demo.make(captioned, **SMALL)
    with pytest.raises(UserError, match="num_val=65 must be at most 64"):
        demo.make(tmp_path / "large", "demo_captions", num_val=65)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("unseen") / "set"
    return demo.make(folder, "demo_unseen", num_train=24, num_val=8, size=32, frames=2)


def test_classes_for_validation_are_new_but_not_their_words(unseen):
    names = {}
    for split, classes, count in (("train", demo.SEEN, 24), ("val", demo.UNSEEN, 8)):
        path = demo.LISTS["demo_unseen"].format(split=split)
        videos = lists.read_list(f"{unseen}/{path}", dataset="demo_unseen", need_labels=True)
        assert videos.classes == classes and videos.notices == ()
        counts = np.bincount([video.label for video in videos])
        assert counts.tolist() == [count // len(classes)] * len(classes)
        assert all(pathlib.Path(video.path).is_file() for video in videos)
        names[split] = videos.classes
    pairs = [tuple(name.split(" and ")) for name in names["train"] + names["val"]]
    assert set(pairs) == {(a, b) for a in demo.EVENTS[:4] for b in demo.EVENTS[4:]}
    assert len(pairs) == 16
    for event in demo.EVENTS:
        assert sum(event in name for name in names["train"]) == 3
        assert sum(event in name for name in names["val"]) == 1
    # No order of frames, no difference between opposites: the classes must come in such pairs.
    kinds = [{demo.EVENTS.index(event) // 2 for event in pair} for pair in pairs[12:]]
    assert kinds == [{0, 2}, {0, 2}, {1, 3}, {1, 3}]


def test_the_tokenizer_of_the_seen_names_knows_the_unseen_ones(unseen):
    tokenizer = tokenizers.open_tokenizer(f"{unseen}/tokenizer.json", length=8)
    ids, mask = tokenizer(demo.SEEN + demo.UNSEEN)
    assert (mask.sum(1) == 6).all()  # a token a word, the start and the end
    assert len({tuple(row) for row in ids.tolist()}) == 16 and tokenizer.vocab_size < 768


@pytest.fixture(scope="module")
def joined() -> tuple[np.ndarray, np.ndarray]:
    """Returns the shape's part of each pixel of clips, [480, 8, 32, 32], and labels of 16."""
    labels = np.arange(480) % 16
    masks = []
    for i, label in enumerate(labels):
        key, colour = (0, 0, i, 2), list(demo.COLOURS)[i // 16 % 8]
        video = demo._render_pair(demo._JOINED[label], 32, 8, key, colour)
        background = demo._background(np.random.default_rng(key), 32)
        masks.append(np.abs(video - background).sum(-1))
    return np.stack(masks), labels


def test_where_the_shape_is_how_large_and_how_bright_names_both_events(joined):
    """No training involved; and it is never out of the picture, nor too faint to be seen."""
    masks, labels = joined
    y, x = (np.mgrid[:32, :32] + 0.5) / 32 - 0.5
    right = 0
    for mask, label in zip(masks, labels, strict=True):
        inside = mask > 0.5 * np.quantile(mask, 0.99, axis=(1, 2), keepdims=True)
        area = inside.mean((1, 2))
        centre = np.stack([(inside * axis).mean((1, 2)) / area for axis in (x, y)])
        light = np.array([np.median(m[i]) for m, i in zip(mask, inside, strict=True)])
        assert area.min() > 0.015 and light.min() > 12 and np.abs(centre).max() < 0.36
        travel = centre[:, -1] - centre[:, 0]
        axis = np.abs(travel).argmax()
        move = 2 * axis + (travel[axis] > 0)
        ratios = np.log([area[-1] / area[0], (light[-1] / light[0]) ** 1.5])
        change = np.abs(ratios).argmax()
        right += 4 * move + 2 * change + (ratios[change] > 0) == label
    assert right / len(labels) > 0.97


def test_one_frame_at_any_time_tells_neither_event(joined):
    """Means over each class agree within their standard errors, and ridge regression is lost."""
    masks, labels = joined
    masks = masks[np.arange(480), np.random.default_rng(0).integers(0, 8, 480)]
    inside = masks > 0.5 * np.quantile(masks, 0.99, axis=(1, 2), keepdims=True)
    y, x = (np.mgrid[:32, :32] + 0.5) / 32 - 0.5
    area = inside.mean((1, 2))
    centre = [(inside * axis).mean((1, 2)) / area for axis in (x, y)]
    light = (masks * inside).mean((1, 2)) / area
    known = np.stack([*centre, *np.abs(centre), area, light, area**2, light**2], 1)
    known = (known - known.mean(0)) / known.std(0)
    for label in range(16):
        assert (np.abs(known[labels == label].mean(0)) < 4 / np.sqrt(30)).all()
    for target in (labels // 4, labels % 4, labels // 8, labels % 4 // 2):
        classes = target.max() + 1
        features = np.concatenate([known, np.ones((480, 1))], 1)
        fit, test = slice(0, 240), slice(240, None)
        weights = np.linalg.lstsq(features[fit], np.eye(classes)[target[fit]], rcond=None)[0]
        right = ((features[test] @ weights).argmax(1) == target[test]).sum()
        deviation = np.sqrt(240 * (classes - 1)) / classes
        assert abs(right - 240 / classes) < 3 * deviation


def test_unseen_sets_are_made_once_and_the_same(unseen, tmp_path, monkeypatch):
    sizes = dict(num_train=24, num_val=8, size=32, frames=2)
    assert digest(demo.make(tmp_path / "again", "demo_unseen", **sizes)) == digest(unseen)
    monkeypatch.setattr(demo, "_write_unseen", lambda *a: pytest.fail("made again"))
    demo.make(unseen, "demo_unseen", **sizes)
    with pytest.raises(UserError, match="choose another folder"):
        demo.make(unseen, "demo_captions", num_train=24, num_val=8, size=32, frames=2)


def test_lists_and_tokenizers_by_the_name_of_a_dataset(tmp_path, monkeypatch):
    made = []
    tokenizers = {"demo_captions": ("tokenizer.model", "tokenizer.json")}
    tokenizers["demo_unseen"] = ("tokenizer.json",)

    def make(folder, name):
        made.append(name)
        pathlib.Path(folder).mkdir(exist_ok=True)
        for file in tokenizers.get(name, ()):
            (pathlib.Path(folder) / file).touch()
        return str(folder)

    monkeypatch.setattr(demo, "make", make)
    home = tmp_path / "demo"
    assert demo.list_of("demo", "val", home) == f"{home}/val.csv"
    assert demo.list_of("demo_pairs", "train", home) == f"{home}/pairs/train.csv"
    assert made == ["demo"] * 2
    assert demo.list_of("demo_captions", "train", f"{home}/") == f"{home}_captions/train.csv"
    assert demo.list_of("demo_unseen", "val", home) == f"{home}_unseen/val/list.csv"
    assert made[2:] == ["demo_captions", "demo_unseen"]
    for name, kind, path in (
        ("demo_captions", "sentencepiece", "_captions/tokenizer.model"),
        ("demo_captions", "clip", "_captions/tokenizer.json"),
        ("demo_unseen", "clip", "_unseen/tokenizer.json"),
    ):
        assert demo.tokenizer_of(name, home, kind) == f"{home}{path}"
    with pytest.raises(UserError, match="demo_unseen has no tokeniser of the kind sentencepiece"):
        demo.tokenizer_of("demo_unseen", home, "sentencepiece")
    assert demo.LISTS.keys() <= datasets.DATASETS.keys()


def test_command_makes_the_set_without_jax(tmp_path):
    program = (
        "import sys; from vidjax.data import demo; demo.make(sys.argv[1], num_train=8, num_val=8, "
        "size=16, frames=2); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "set"], check=True, timeout=50)
    assert (tmp_path / "set" / "clips" / "train_00007.mp4").exists()
