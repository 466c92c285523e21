"""Verbs of loaded models: every family, every kind of video, and wrong ones in one sentence."""

import dataclasses
import functools
import io
import logging
import os
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vidjax
from tests.support.videos import write_video
from vidjax import embed, models, pretrained
from vidjax.card import Card
from vidjax.data import inputs
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing
from vidjax.tokenizers import train_clip_tokenizer, train_tokenizer

SIZES = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 24, "eps": 1e-6}
TUBES = SIZES | {"patch_size": (2, 8, 8)}
FRAMES = SIZES | {"patch_size": (1, 8, 8), "pos_grid": (4, 2, 2)}
DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_num_heads": 2, "decoder_mlp_dim": 24}
PRISM = FRAMES | {"temporal_depth": 1}
VIVIT = TUBES | {"pos_grid": (2, 2, 2)}
CLIP = {"embed_dim": 16, "text_width": 16, "text_num_heads": 2, "text_depth": 1, "vocab_size": 560}
ADDED = {"mit_num_heads": 2, "prompt_num_heads": 2, "prompt_depth": 1}
PREPROCESSING = Preprocessing(frames=4, stride=2, size=16, short_side=20)
TEXTS = ["red shapes sliding left", "a shape", "blue shapes growing"]
GROUPS = {"num_classes": 5, "groups": (("noun", 3), ("verb", 2))}

# Family, head, fields, its verbs beside embed and features.
MODELS = {
    "videomae": ("videomae", None, TUBES, ()),
    "videomae reconstruct": ("videomae", "reconstruct", TUBES | DECODER, ()),
    "videomae classify": ("videomae", "classify", TUBES | {"num_classes": 3}, ("classify",)),
    "joint": ("vivit", None, VIVIT, ()),
    "encoder": ("vivit", "classify", VIVIT | {"factorisation": "encoder"} | GROUPS, ("classify",)),
    "self_attention": (
        "vivit",
        "classify",
        VIVIT | {"factorisation": "self_attention", "pool": "mean", "num_classes": 3},
        ("classify",),
    ),
    "dot_product": ("vivit", None, VIVIT | {"factorisation": "dot_product", "pool": "mean"}, ()),
    "videoprism": ("videoprism", None, PRISM, ()),
    "video": ("videoprism", "video", PRISM, ()),
    "video_text": (
        "videoprism",
        "video_text",
        PRISM | {"vocab_size": 40, "text_depth": 1},
        ("compare",),
    ),
    "videoprism classify": ("videoprism", "classify", PRISM | {"num_classes": 3}, ("classify",)),
    "distil": ("videoprism", "distil", PRISM | DECODER, ()),
    "xclip encoder": ("xclip", None, FRAMES, ()),
    "image": ("xclip", "image", FRAMES, ()),
    "xclip": ("xclip", "video_text", FRAMES | CLIP | ADDED, ("compare",)),
    "clip": ("xclip", "image_text", FRAMES | CLIP, ("compare",)),
    "probe": (
        "probe",
        "classify",
        {"num_classes": 3, "encoder": {"name": "videomae", "head": None, **TUBES}},
        ("classify",),
    ),
}


def save(folder: pathlib.Path, name: str, head: str | None, fields: dict, **card) -> str:
    """Writes a folder of a small random model, with a vocabulary if it reads texts."""
    folder.mkdir(parents=True)
    model = models.build(name, head=head, **fields)
    specs, tree = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(0)
    params = tree.unflatten([rng.normal(0, 0.3, s.shape).astype(s.dtype) for s in specs])
    if models.reads_text(name, head) and models.declared(name, "TOKENIZER") == "clip":
        train_clip_tokenizer(TEXTS, folder / "tokenizer.json", 560)
        card["tokenizer"] = {"file": "tokenizer.json", "length": 12, "canonicalise": True}
    elif models.reads_text(name, head):
        train_tokenizer(TEXTS, folder / "tokenizer.model", 40)
        card["tokenizer"] = {"file": "tokenizer.model", "length": 12, "canonicalise": True}
    pretrained.save_pretrained(folder, params, Card(models.config_of(model), PREPROCESSING, **card))
    return str(folder)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """load(case): a model of MODELS, loaded once."""
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def load(case: str) -> pretrained.Pretrained:
        name, head, fields, _ = MODELS[case]
        return vidjax.load_model(save(root / case.replace(" ", "_"), name, head, fields))

    return load


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    """Ten videos of several lengths and sizes, two of them shorter than a clip."""
    root = tmp_path_factory.mktemp("videos")
    return [
        write_video(root / f"{i}.mp4", frames, height=16 + 8 * (i % 3), width=32)
        for i, frames in enumerate((9, 1, 3, 12, 20, 4, 5, 8, 30, 7))
    ]


def softmax(scores):
    return np.asarray(jax.nn.softmax(scores))


@pytest.mark.parametrize("case", MODELS)
def test_verbs_of_every_family(load, paths, case):
    """Three videos give the same numbers as one alone, to the bit: they run the same program."""
    m, verbs = load(case), MODELS[case][3]
    clips = [m.preprocess(path) for path in paths[:3]]
    apply = functools.partial(m.model.apply, {"params": m.params})

    vectors = m.embed(paths[:3])
    assert vectors.dtype == np.float32 and vectors.shape[0] == 3 and vectors.ndim == 2
    np.testing.assert_array_equal(m.embed(paths[1]), vectors[1])
    expected = jax.jit(lambda video: apply(video, method="embed"))(jnp.concatenate(clips))
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-4)

    tokens, one = m.features(paths[:3]), m.features(paths[1])
    t = 2 if m.model.patch_size[0] == 2 else 4
    assert tokens.dtype == np.float32 and tokens.shape == (3, t, 2, 2, 16)
    np.testing.assert_array_equal(one, tokens[1])
    layers = m.features(paths[:2], layers=(-1, 0))
    assert layers.shape == (2, 2, t, 2, 2, 16)
    np.testing.assert_array_equal(m.features(paths[1], layers=[0]), layers[1, 1:])
    np.testing.assert_array_equal(m.features(paths[1], layers=np.int64(-1)), layers[1, 0])

    if "classify" in verbs:
        scores = jax.jit(apply)(clips[1])[0]
        answers = m.classify(paths[:3], top_k=9)
        assert m.classify(paths[1], top_k=9) == answers[1]
        parts = (scores[:3], scores[3:]) if len(scores) == 5 else (scores,)
        expected = np.concatenate([np.sort(softmax(part))[::-1] for part in parts])
        np.testing.assert_allclose([share for _, share in answers[1]], expected, atol=1e-5)
        assert len(m.classify(paths[1], top_k=1)) == len(parts)
    else:
        with pytest.raises(UserError, match=r"has no class scores \(its head is"):
            m.classify(paths[0])
    if "compare" in verbs:
        temperature = 0.01 if m.model.logit_scale is None else None
        scores = apply(clips[1], *m.tokenize(TEXTS), temperature=temperature)[0]
        answers = m.compare(paths[:3], TEXTS)
        assert m.compare(paths[1], TEXTS) == answers[1]
        expected = dict(zip(TEXTS, softmax(scores), strict=True))
        assert dict(answers[1]) == pytest.approx(expected, abs=1e-4)
        assert answers[1] == sorted(answers[1], key=lambda pair: -pair[1])
        assert m.compare(paths[1], "a shape") == [("a shape", 1.0)]
    else:
        with pytest.raises(UserError, match=r"compares no videos with texts \(its head is"):
            m.compare(paths[0], TEXTS)


def test_a_model_of_texts_only_sees_no_video(tmp_path, paths):
    fields = {"width": 16, "num_heads": 2, "eps": 1e-6, "vocab_size": 9, "text_depth": 1}
    m = vidjax.load_model(save(tmp_path / "m", "videoprism", "text", fields))
    for verb, message in (
        (m.embed, "embeds no videos"),
        (m.features, "has no video encoder"),
        (m.classify, "has no class scores"),
    ):
        with pytest.raises(UserError, match=rf"{message} \(its head is 'text'\)"):
            verb(paths[0])


def test_names_of_classes_are_compared_with(tmp_path, paths):
    name, head, fields, _ = MODELS["xclip"]
    m = vidjax.load_model(save(tmp_path / "m", name, head, fields, classes=tuple(TEXTS)))
    found = m.classify(paths[:2], top_k=2)
    assert found == [answers[:2] for answers in m.compare(paths[:2], TEXTS)]


def test_bfloat16_is_the_computation_only(load, paths):
    exact = load("videomae classify")
    m = vidjax.load_model(exact.folder, "bfloat16")
    assert m.embed(paths[0]).dtype == m.features(paths[0], layers=0).dtype == np.float32
    assert m.model.dtype == "bfloat16"
    np.testing.assert_allclose(m.embed(paths[0]), exact.embed(paths[0]), rtol=0.1, atol=0.1)
    assert sum(share for _, share in m.classify(paths[0])) == pytest.approx(1, abs=1e-5)


def test_vectors_are_those_of_the_command(load, paths, tmp_path):
    m = load("videomae classify")
    videos = [paths[i] for i in (0, 1, 2, 5, 6, 7, 9)]  # at most one window of 8 frames but one
    for path in videos:
        (tmp_path / pathlib.Path(path).name).symlink_to(path)
    output = embed.embed(m.folder, str(tmp_path), str(tmp_path / "out.npz"), batch_size=1)
    with np.load(output) as file:
        rows = {
            file["paths"][i]: file["embeddings"][file["video"] == i] for i in set(file["video"])
        }
    rows = {path: row for path, row in rows.items() if len(row) == 1}
    assert len(rows) == 6
    np.testing.assert_array_equal(m.embed(list(rows)), np.concatenate([*rows.values()]))


CLIP_FRAMES = np.random.default_rng(0).integers(0, 256, (20, 24, 32, 3), dtype=np.uint8)


def as_images(video):
    return [Image.fromarray(frame) for frame in video]


class Array:
    """A thing that numpy turns into an array."""

    def __init__(self, video):
        self.video = video

    def __array__(self, dtype=None, copy=None):
        return self.video


class Frame:
    """An array as decord has them, which numpy does not know."""

    def __init__(self, array):
        self.shape, self.asnumpy = array.shape, lambda: array


class Decoder:
    """Frames by index, as decord has them; counts which were decoded."""

    def __init__(self, video):
        self.video, self.decoded = video, []

    def __len__(self):
        return len(self.video)

    def __getitem__(self, index):
        self.decoded.append(index)
        return Frame(self.video[index])


FORMS = {
    "jax": jnp.asarray,
    "int64": lambda video: video.astype(np.int64),
    "channels first": lambda video: video.transpose(0, 3, 1, 2),
    "frames": list,
    "tuple": tuple,
    "nested lists": lambda video: video.tolist(),
    "PIL": as_images,
    "RGBA": lambda video: [image.convert("RGBA") for image in as_images(video)],
    "__array__": Array,
    "decoder": Decoder,
    "decord": Frame,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frames", [1, 4, 20])
def test_videos_in_memory(load, form, frames):
    m, video = load("videomae"), CLIP_FRAMES[:frames]
    expected = m.embed(video)
    np.testing.assert_array_equal(m.embed(FORMS[form](video)), expected)
    np.testing.assert_array_equal(m.embed([FORMS[form](video)]), expected[None])


def test_tensors_of_torch(load):
    torch = pytest.importorskip("torch")
    m = load("videomae")
    expected = m.embed(CLIP_FRAMES)
    np.testing.assert_array_equal(m.embed(torch.from_numpy(CLIP_FRAMES)), expected)
    several = torch.from_numpy(np.stack([CLIP_FRAMES] * 2)).permute(0, 1, 4, 2, 3)
    np.testing.assert_array_equal(m.embed(several), np.stack([expected] * 2))


def test_a_decoder_gives_no_more_frames_than_the_clip_has(load):
    decoder = Decoder(CLIP_FRAMES)
    load("videomae").embed(decoder)
    assert len(decoder.decoded) == 4


def test_several_videos_in_every_form(load, paths, tmp_path):
    m = load("videomae")
    for i, image in enumerate(as_images(CLIP_FRAMES[:5])):
        image.save(tmp_path / f"img_{i:05}.png")
    mixed = [paths[0], pathlib.Path(paths[1]), tmp_path, CLIP_FRAMES, as_images(CLIP_FRAMES[:6])]
    found = m.embed(mixed)
    for row, video in zip(found, mixed, strict=True):
        np.testing.assert_array_equal(row, m.embed(video))
    np.testing.assert_array_equal(found[2], m.embed(CLIP_FRAMES[:5]))
    np.testing.assert_array_equal(m.embed(np.array(paths[:2])), found[:2])
    np.testing.assert_array_equal(m.embed(np.array(paths[:2], object)), found[:2])
    np.testing.assert_array_equal(m.embed((paths[1], paths[0], paths[1])), found[[1, 0, 1]])
    batch = np.stack([CLIP_FRAMES[:4], CLIP_FRAMES[4:8]])
    np.testing.assert_array_equal(m.embed(batch), m.embed(list(batch)))
    np.testing.assert_array_equal(m.embed(batch.transpose(0, 1, 4, 2, 3)), m.embed(batch))
    np.testing.assert_array_equal(m.embed(jnp.asarray(batch)), m.embed(batch))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda video, path: None, "None is no video; expected a path, an array"),
        (lambda video, path: 3, "3 has 0 axes, but a video has 4"),
        (lambda video, path: b"a.mp4", r"a bytes is no video; .* os\.fsdecode"),
        (lambda video, path: {"video": path}, "a dict is no video; .* its value that is the video"),
        (lambda video, path: iter([path]), r"no video; .* make it a list, list\(videos\)"),
        (lambda video, path: io.BytesIO(b"x"), "a BytesIO .* give the path of that file"),
        (lambda video, path: np, "a module is no video"),
        (lambda video, path: "", "the path of a video is empty"),
        (lambda video, path: os.path.dirname(path), "numbered pictures .* give them as a list"),
        (lambda video, path: {path}, r"a set is no video; .* make it a list, list\(videos\)"),
        (lambda video, path: [], "the list of videos is empty"),
        (lambda video, path: [[]], r"videos\[0\], a list of 0, is no video"),
        (lambda video, path: np.zeros((0, 4, 8, 8, 3), np.uint8), r"holds no videos"),
        (lambda video, path: path + "4", r"mp44 cannot be read as video: no such file"),
        (lambda video, path: [path, path + "4"], r"mp44 cannot be read as video: no such file"),
        (lambda video, path: video[0], r"an array \[24, 32, 3\] has 3 axes.* a single frame"),
        (lambda video, path: video[..., 0], r"\[20, 24, 32\] has 3 axes.* grey frames as numpy"),
        (lambda video, path: list(video[..., 0]), "a list of 20 has 3 axes, .* grey frames"),
        (lambda video, path: Image.fromarray(video[0]), "a Image has 3 axes, .* a single frame"),
        (lambda video, path: [video[None]] * 2, "a list of 2 has 6 axes"),
        (lambda video, path: np.repeat(video, 2, 3)[..., :4], r"drop alpha, video\[..., :3\]"),
        (lambda video, path: video[..., :1], "repeat a grey channel"),
        (lambda video, path: video / np.float32(255), r"floats from 0 to 1 become"),
        (lambda video, path: video.astype(np.float64), "float64 .* of values that are no bytes"),
        (lambda video, path: video.transpose(3, 0, 1, 2), "reorder or add its axes"),
        (lambda video, path: [path, None], r"videos\[1\], None, is no video"),
        (lambda video, path: [path, b"x"], r"videos\[1\], a bytes, is no video"),
        (
            lambda video, path: [path, path, video[0]],
            r"videos\[2\], an array \[24, 32, 3\], is not",
        ),
        (lambda video, path: [video[0], video[0], path], r"videos\[2\], the path .*, is not like"),
        (lambda video, path: [video, video / 255], r"videos\[1\]: a video array is float64"),
        (lambda video, path: [video[0], video[0][:5]], "a list is no video array .*same shape"),
        (lambda video, path: Decoder([]), "a Decoder gives no frames"),
        (lambda video, path: [video, Decoder([])], r"videos\[1\]: a Decoder gives no frames"),
    ],
)
def test_wrong_videos_are_answered(load, paths, make, message):
    with pytest.raises(UserError, match=message) as error:
        load("videomae").embed(make(CLIP_FRAMES, paths[0]))
    assert "\n" not in str(error.value)


def test_a_bad_video_among_good_ones_is_named(load, paths, tmp_path):
    (tmp_path / "notes.mp4").write_text("not a video\n" * 50)
    with pytest.raises(UserError, match=r"^\S*/notes\.mp4 cannot be read as video: it is text"):
        load("videomae").embed([*paths, str(tmp_path / "notes.mp4"), *paths])


def test_a_missing_video_is_noticed_before_any_is_read(load, paths, monkeypatch):
    monkeypatch.setattr(inputs, "clip_of", lambda *_: pytest.fail("a video was read"))
    with pytest.raises(UserError, match=r"/nowhere\.mp4 cannot be read as video: no such file"):
        load("videomae").embed([*paths, "/nowhere.mp4"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.classify(x, top_k=0), "top_k must be at least 1, not 0"),
        (lambda m, x: m.classify(x, top_k="3"), "top_k must be at least 1, not '3'"),
        (
            lambda m, x: vidjax.load_model(m.folder, "fp16"),
            "there is no dtype 'fp16'; choose float32",
        ),
        (lambda m, x: vidjax.load_model(m.folder, batch_size=0), "batch_size must be at least 1"),
        (lambda m, x: m.features(x, layers=2), r"layers=2: there is no block 2 in an encoder of 2"),
        (lambda m, x: m.features(x, layers=(0, -3)), r"no block -3 .* to -2"),
        (lambda m, x: m.features(x, layers=()), r"layers=\(\) must be the index of a layer"),
        (lambda m, x: m.features(x, layers="last"), "layers='last' must be the index"),
        (lambda m, x: m.features(x, layers=True), "layers=True must be the index"),
        (lambda m, x: m.features(x, layers=0.5), r"layers=0\.5 must be the index"),
    ],
)
def test_wrong_options_are_answered(load, paths, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(load("videomae classify"), paths[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "give at least one text"),
        (["a", 5], "must be strings, not of type int"),
        (np.zeros((2, 3)), "must be strings, not of type ndarray"),
        (None, "None are no texts"),
        (5, "5 are no texts"),
    ],
)
def test_wrong_texts_are_answered(load, paths, texts, message):
    with pytest.raises(UserError, match=message):
        load("clip").compare(paths[0], texts)


def test_scores_that_are_not_finite_are_refused(load, paths):
    m = load("videomae")
    m = dataclasses.replace(m, params=jax.tree.map(lambda x: x * np.nan, m.params))
    with pytest.raises(UserError, match=r"gives NaN or infinity for \S*/0\.mp4: its training"):
        m.embed(paths[0])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_any_number_of_videos_needs_one_program(load, paths, caplog, batch_size):
    m = vidjax.load_model(load("videomae classify").folder, batch_size=batch_size)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        found = m.classify(paths * 5)
        one = m.classify(paths[4])
        m.classify([CLIP_FRAMES, paths[0]])
    compiled = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling ")]
    assert len(compiled) == 1, compiled
    assert len(found) == 50 and found[4] == one and found[:10] == found[40:]


def test_texts_are_embedded_once(load, paths, monkeypatch):
    m = load("clip")
    m.compare(paths[0], [*TEXTS, "one more"])
    calls, embedded = [], m.runner._on_texts
    monkeypatch.setattr(m.runner, "_on_texts", lambda *args: calls.append(1) or embedded(*args))
    first = m.compare(paths, TEXTS)
    assert m.compare(paths, TEXTS) == first and len(calls) == 1
    assert dict(m.compare(paths[0], TEXTS[:2])).keys() == set(TEXTS[:2]) and len(calls) == 2


def test_few_clips_are_read_ahead(load, paths, monkeypatch):
    """No more wait than a batch, beside those of the batch itself and one in each thread."""
    m, made, most, rows = load("videomae"), [], [0], [0]
    clip_of = inputs.clip_of

    def counted(*args):
        made.append(threading.current_thread().name)
        most[0] = max(most[0], len(made) - rows[0])
        return clip_of(*args)

    def slow(clips, method):
        for row in batched(clips, method):
            rows[0] += 1
            yield row

    batched = m.runner.rows
    monkeypatch.setattr(inputs, "clip_of", counted)
    monkeypatch.setattr(m.runner, "rows", slow)
    assert len(m.embed(paths * 20)) == 200
    threads = len(set(made))
    assert len(made) == 200 and most[0] <= 2 * m.runner.size + threads


def test_devices_share_a_batch(load):
    runner = load("videomae").runner
    assert runner.size == jax.device_count() == 8
    assert len(runner._params["encoder"]["norm"]["scale"].sharding.device_set) == 8
