"""Scores of a file by small random models: classes, texts, their errors, the command line."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import vidjax
from tests.support.videos import write_audio, write_video
from vidjax import models, pretrained
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing
from vidjax.tokenizers import train_tokenizer

SIZES = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 24, "eps": 1e-6}
FACTS = Preprocessing(frames=4, stride=2, size=16, short_side=20)
NAMES = ("abseiling", "bowling", "yoga")


def save(folder: pathlib.Path, classes: tuple[str, ...] | None, **fields) -> str:
    return save_model(
        folder, models.build("videomae", **SIZES, patch_size=(2, 8, 8), **fields), classes
    )


def save_model(folder: pathlib.Path, model, classes=None, **card) -> str:
    specs, tree = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(0)
    params = tree.unflatten([rng.standard_normal(s.shape).astype(s.dtype) for s in specs])
    card = Card(models.config_of(model), FACTS, classes, **card)
    pretrained.save_pretrained(folder, params, card)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("model") / "m", NAMES, head="classify", num_classes=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "README.md").write_text("not a video\n" * 50)
    (folder / "empty.mp4").touch()
    return {
        "video": write_video(folder / "video.mp4"),
        "other": write_video(folder / "other.mp4", 3, height=64, width=48),
        "audio": write_audio(folder / "audio.mp4"),
        "text": str(folder / "README.md"),
        "empty": str(folder / "empty.mp4"),
        "missing": str(folder / "missing.mp4"),
    }


def test_scores_that_are_not_finite_are_refused(tmp_path, files):
    model = models.build("videomae", **SIZES, patch_size=(2, 8, 8), head="classify", num_classes=3)
    params = jax.tree.map(lambda x: np.full(x.shape, np.nan), models.abstract_params(model))
    params = jax.tree.map(np.float32, params)
    card = Card(models.config_of(model), FACTS, NAMES)
    pretrained.save_pretrained(tmp_path / "m", params, card)
    with pytest.raises(UserError, match=r"gives NaN or infinity for .*video\.mp4: its training"):
        pretrained.load_model(tmp_path / "m").classify([files["video"]])


def test_scores(checkpoint, files):
    videos = [files["video"], files["other"]]
    loaded = pretrained.load_model(checkpoint)
    found = dict(zip(videos, loaded.classify(videos), strict=True))
    for path, scores in found.items():
        logits = loaded.model.apply({"params": loaded.params}, loaded.preprocess(path))
        expected = dict(zip(NAMES, np.asarray(jax.nn.softmax(logits[0])), strict=True))
        assert {name for name, _ in scores} == set(NAMES)
        assert dict(scores) == pytest.approx(expected, abs=1e-6)
        values = [probability for _, probability in scores]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-5)
    assert found[videos[0]] != found[videos[1]]
    best = loaded.classify(videos[0], top_k=2)
    assert [name for name, _ in best] == [name for name, _ in found[videos[0]][:2]]


def test_classes_without_names_are_numbered(tmp_path, files):
    folder = save(tmp_path, None, head="classify", num_classes=3)
    scores = pretrained.load_model(folder).classify(files["video"])
    assert {name for name, _ in scores} == {"class 0", "class 1", "class 2"}


def test_each_answer_is_ranked_by_itself(tmp_path, files):
    groups = (("noun", 3), ("verb", 2))
    folder = save(tmp_path, None, head="classify", num_classes=5, groups=groups)
    scores = pretrained.load_model(folder).classify(files["video"], top_k=2)
    assert [name.split()[0] for name, _ in scores] == ["noun:", "noun:", "verb:", "verb:"]
    assert {name for name, _ in scores[2:]} == {"verb: class 0", "verb: class 1"}
    assert sum(share for _, share in scores[2:]) == pytest.approx(1, abs=1e-5)


PROMPTS = ["red shapes sliding left", "a shape", "Blue shapes, growing!"]


def video_text(folder: pathlib.Path, **fields) -> str:
    """A small random video-text model with a vocabulary of its own."""
    folder.mkdir()
    train_tokenizer(PROMPTS, folder / "tokenizer.model", 40)
    sizes = SIZES | {"patch_size": (1, 8, 8), "pos_grid": (4, 2, 2), "scale_offset": 1.0}
    sizes |= {"vocab_size": 40, "text_depth": 1, "temporal_depth": 1}
    model = models.build("videoprism", head="video_text", **sizes, **fields)
    tokenizer = {"file": "tokenizer.model", "length": 12, "canonicalise": True}
    return save_model(folder, model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> str:
    return video_text(tmp_path_factory.mktemp("pair") / "m")


def expected_of(folder: str, video: str, temperature: float | None) -> dict[str, float]:
    """The model's own similarities, as probabilities."""
    loaded = pretrained.load_model(folder)
    apply = jax.jit(loaded.model.apply, static_argnames="temperature")
    inputs = loaded.preprocess(video), *loaded.tokenize(PROMPTS)
    logits = apply({"params": loaded.params}, *inputs, temperature=temperature)[0]
    return dict(zip(PROMPTS, np.asarray(jax.nn.softmax(logits)), strict=True))


def test_texts_compete_for_a_video(pair, files):
    videos = [files["video"], files["other"]]
    loaded = pretrained.load_model(pair)
    other, answers = loaded.compare(videos, PROMPTS)
    assert other != answers
    assert dict(answers) == pytest.approx(expected_of(pair, videos[1], 0.01), abs=1e-4)
    values = [probability for _, probability in answers]
    assert values == sorted(values, reverse=True)
    warm = loaded.compare(videos[1], PROMPTS, 0.5)
    ratio = np.log(dict(warm)[PROMPTS[0]] / dict(warm)[PROMPTS[1]])
    assert np.log(dict(answers)[PROMPTS[0]] / dict(answers)[PROMPTS[1]]) == pytest.approx(
        50 * ratio, rel=1e-3
    )


def test_a_learned_scale_wins_over_the_default(tmp_path, files):
    folder = video_text(tmp_path / "m", logit_scale=1.0, logit_bias=0.0)
    answers = pretrained.load_model(folder).compare(files["video"], PROMPTS)
    assert dict(answers) == pytest.approx(expected_of(folder, files["video"], None), abs=1e-5)


def test_wrong_comparisons_are_answered(checkpoint, pair, files):
    with pytest.raises(UserError, match=r"compares no videos with texts .*'classify'"):
        pretrained.load_model(checkpoint).compare(files["video"], PROMPTS)
    loaded = pretrained.load_model(pair)
    with pytest.raises(UserError, match=r"above 0, not 0\.0"):
        loaded.compare(files["video"], PROMPTS, 0.0)
    with pytest.raises(UserError, match="--prompt=TEXT"):
        loaded.compare(files["video"], [])
    with pytest.raises(UserError, match=r"'video_text'\); say which texts .* --prompt"):
        loaded.classify(files["video"])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "it is text, not a video"),
        ("audio", "no video stream"),
        ("empty", "empty file"),
        ("missing", "no such file"),
    ],
)
def test_files_that_are_no_videos(checkpoint, files, kind, reason):
    with pytest.raises(UserError) as caught:
        pretrained.load_model(checkpoint).classify([files[kind]])
    message = str(caught.value)
    assert message.startswith(f"{files[kind]} cannot be read as video: ") and reason in message


def test_wrong_checkpoints_and_numbers(checkpoint, files, tmp_path):
    with pytest.raises(UserError, match="nowhere is no vidjax model"):
        pretrained.load_model(tmp_path / "nowhere")
    for head in (None, "reconstruct"):
        decoder = {f"decoder_{key}": SIZES[key] for key in ("width", "depth", "num_heads")}
        fields = decoder | {"decoder_mlp_dim": 24} if head else {}
        folder = save(tmp_path / f"{head}", None, head=head, **fields)
        with pytest.raises(UserError, match=rf"{head} has no class scores .*head is {head!r}"):
            pretrained.load_model(folder).classify(files["video"])
    with pytest.raises(UserError, match="at least 1, not 0"):
        pretrained.load_model(checkpoint).classify(files["video"], top_k=0)


def test_the_license_of_the_weights_is_printed(tmp_path, files):
    provenance = {"license": {"license": "cc-by-nc-4.0"}}
    model = models.build("videomae", **SIZES, patch_size=(2, 8, 8), head="classify", num_classes=3)
    folder = save_model(tmp_path / "m", model, NAMES, provenance=provenance)
    result = predict(folder, files["video"])
    assert result.returncode == 0 and "license" not in result.stdout
    assert result.stderr == "license of the weights: cc-by-nc-4.0\n"


def predict(checkpoint, video):
    """Runs the command."""
    return subprocess.run(
        [sys.executable, "-m", "vidjax.predict", f"--checkpoint={checkpoint}", f"--video={video}"],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(vidjax.__file__).parents[1])},
    )


def test_command_prints_one_line_about_a_file_that_is_no_video(checkpoint, files):
    result = predict(checkpoint, files["text"])
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {files['text']} cannot be read as video: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
