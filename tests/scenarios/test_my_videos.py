"""Fine-tuning on a folder of class folders: recipe, held-out videos, results, bad input."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from flax import linen as nn

from vidjax import configlib, models, pretrained, train
from vidjax import eval as evaluation
from vidjax.card import Card, read_card
from vidjax.data.demo import CLASSES
from vidjax.errors import UserError
from vidjax.params import flatten
from vidjax.preprocessing import Preprocessing
from vidjax.setup import Setup
from vidjax.training.program import Program

INPUT = Preprocessing(
    frames=4, stride=3, sampling="segment", size=16, short_side=20, resize="pil_lanczos",
    mean=(0.5, 0.4, 0.3), std=(1.0, 1.0, 1.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "run=1"
    sizes = dict(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=(2, 8, 8), eps=1e-6)
    model = models.build("videomae", head="classify", num_classes=3, **sizes)
    params = model.init(jax.random.key(0), np.zeros((1, 4, 16, 16, 3), np.float32))["params"]
    card = Card(models.config_of(model), INPUT)
    pretrained.save_pretrained(folder, nn.meta.unbox(params), card)
    return folder


@pytest.fixture(scope="module")
def videos(demo_folder, tmp_path_factory):
    """Four of the demo's clips of each of its classes, in folders of these."""
    folder = tmp_path_factory.mktemp("mine") / "videos"
    with (demo_folder / "train.csv").open() as lines:
        for row in csv.DictReader(lines):
            target = folder / CLASSES[int(row["label"])]
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(demo_folder / row["path"], target)
    return folder


@pytest.fixture(scope="module")
def make(checkpoint, videos):
    def make(arg="", **overrides):
        config = configlib.load(f"configs/my_videos.py:{arg}")
        config.init = str(checkpoint)
        config.data.update(train=str(videos), batch_size=8, workers=0)
        config.update(train_steps=4, log_every=4)
        config.optim.warmup_steps = 1
        for key, value in overrides.items():
            config.update_from_flattened_dict({key.replace("__", "."): value})
        return config

    return make


@pytest.fixture(scope="module")
def workdir(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mine"
    train.train(make(), folder)
    return folder


def test_a_run_ends_with_accuracy_chance_and_confusion(make, tmp_path, capfd):
    train.train(make(), tmp_path / "run")
    printed = capfd.readouterr().err
    assert "8 of 32 videos are held out for validation: a share of 0.2 of each class" in printed
    assert "of 8 right, " in printed and "chance 12.5% (always the most frequent class)" in printed
    assert (tmp_path / "run/confusion_4.png").read_bytes()[1:4] == b"PNG"
    assert f"picture: {tmp_path}/run/confusion_4.png" in printed
    done = json.loads((tmp_path / "run/DONE").read_text())
    assert done["val/videos"] == 8 and done["val/chance"] == 1 / 8
    assert 0 <= done["val/top1_low"] <= done["val/top1"] <= done["val/top1_high"] <= 1


def test_clips_are_as_the_checkpoints(make, workdir):
    card = read_card(workdir)
    for field in ("frames", "stride", "sampling", "size", "short_side", "resize", "mean", "std"):
        assert getattr(card.preprocessing, field) == getattr(INPUT, field)
    assert card.classes == tuple(sorted(CLASSES))
    written = json.loads((workdir / "config.json").read_text())["data"]
    assert (written["frames"], written["resize"]) == (4, "pil_lanczos")
    setup = Setup(make(data__frames=2, data__size=8))
    assert setup.example_batch(1)["video"].shape == (1, 2, 8, 8, 3)
    assert (setup.preprocessing.stride, setup.config.data.short_side) == (3, 20)


def test_evaluation_sees_the_videos_held_out(make, videos, workdir, tmp_path):
    config = make(init="")
    found = evaluation.evaluate(config, str(workdir), tmp_path / "out")
    assert found == json.loads((workdir / "DONE").read_text())
    assert (tmp_path / "out/confusion_4.png").exists()
    setup = Setup(config, str(workdir))
    held, trained = ({v.path for v in setup.splits.videos(s)} for s in ("val", "train"))
    assert len(held) == 8 and len(trained) == 24 and not held & trained
    for change in (dict(data__val_seed=1), dict(data__val_share=0.5)):
        with pytest.raises(UserError, match="may have been trained on these"):
            evaluation.evaluate(make(**change), str(workdir), tmp_path / "out")
    shutil.copytree(videos, tmp_path / "moved")
    moved = evaluation.evaluate(
        make(data__train=str(tmp_path / "moved")), str(workdir), tmp_path / "out"
    )
    assert moved == found


def test_a_run_continues_with_the_same_videos_only(make, videos, tmp_path):
    folder, run = tmp_path / "videos", tmp_path / "run"
    shutil.copytree(videos, folder)
    config = make(train_steps=2, data__train=str(folder))
    train.train(config, run)
    lists = json.loads((run / "lists.json").read_text())
    assert lists["val"]["videos"] == 8 and lists["train"]["videos"] == 24
    train.train(config, run)
    assert json.loads((run / "lists.json").read_text()) == lists
    clip = next((folder / CLASSES[0]).iterdir())
    shutil.copy(clip, clip.with_name("new.mp4"))
    with pytest.raises(UserError, match="holds a run with other lists"):
        train.train(config, run)


def test_full_trains_the_encoder_at_smaller_rates_in_lower_layers(make):
    program = Program(Setup(make("full")), lambda step, factor=1.0: factor)
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), program.state.params)
    updates, _ = program.optimizer.update(params, program.optimizer.init(params), params)
    encoder = updates["backbone"]["encoder"]
    np.testing.assert_allclose(updates["head"]["bias"], -1, rtol=1e-5)
    np.testing.assert_allclose(encoder["patch_embed"]["bias"], -0.1 * 0.75**3, rtol=1e-5)
    rates = encoder["blocks"]["mlp"]["fc1"]["bias"][:, 0]
    np.testing.assert_allclose(rates, [-0.1 * 0.75**2, -0.1 * 0.75], rtol=1e-5)
    state = Program(Setup(make())).state
    assert any("head" in path for path in flatten(state.opt_state))
    assert not any("backbone" in path for path in flatten(state.opt_state))


def test_a_validation_list_wins(make, videos):
    setup = Setup(make(data__val=str(videos)))
    assert len(setup.splits.videos("val")) == len(setup.splits.videos("train")) == 32
    assert "val_share = 0.2 holds no videos out" in " ".join(setup.notices)
    assert not Setup(make(data__val_share=0.0)).splits.has("val")


def test_a_training_has_a_floor_of_steps(make):
    config = make(train_steps=0)
    assert Setup(config).total_steps == 300
    config.train_epochs = 1000.0
    assert Setup(config).total_steps == 3000


def folder_of(tmp_path, videos, counts):
    clips = sorted(videos.glob("*/*"))
    for name, count in counts.items():
        (tmp_path / "bad" / name).mkdir(parents=True)
        for _ in range(count):
            clip = clips.pop()
            shutil.copy(clip, tmp_path / "bad" / name / clip.name)
    return str(tmp_path / "bad")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 0}, "holds no videos in class folders"),
        ({"": 2}, "but 2 videos directly in it"),
        ({"a": 3}, "has one class only, so there is nothing to tell apart"),
        ({"a": 1}, "no class has two videos"),
        ({"a": 1, "b": 1}, "no class has two videos"),
    ],
)
def test_folders_that_cannot_be_learned_from(make, videos, tmp_path, counts, message):
    with pytest.raises(UserError, match=message):
        Setup(make(data__train=folder_of(tmp_path, videos, counts)))


def test_a_class_of_one_video_is_trained_on(make, videos, tmp_path):
    setup = Setup(make(data__train=folder_of(tmp_path, videos, {"a": 4, "b": 1})))
    assert [v.label for v in setup.splits.videos("val")] == [0]
    assert sorted(v.label for v in setup.splits.videos("train")) == [0, 0, 0, 1]
    assert "classes of one video are trained on but not validated: 'b'" in setup.notices[-1]


def test_checkpoints_that_do_not_fit(make, checkpoint, tmp_path):
    with pytest.raises(UserError, match="none to start from; name one"):
        Setup(make(init=""))
    with pytest.raises(UserError, match="nowhere is no vidjax model"):
        Setup(make(init=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="val_share must be at least 0 and below 1"):
        Setup(make(data__val_share=1.0))
    card = read_card(checkpoint)
    image = Card(card.model, Preprocessing(frames=1))
    pretrained.save_pretrained(tmp_path / "image", pretrained.load_params(checkpoint), image)
    with pytest.raises(UserError, match="image is a model of single images"):
        Setup(make(init=str(tmp_path / "image")))


def test_checkpoints_in_the_argument():
    for name in ("runs/a.b/c", "gs://bucket/x", "org/name@rev"):
        config = configlib.load(f"configs/my_videos.py:{name},full")
        assert config.init == name and not config.optim.freeze
    with pytest.raises(UserError, match="'b' is a second checkpoint beside 'a'"):
        configlib.load("configs/my_videos.py:a,b")
    with pytest.raises(UserError, match="a path with an equals sign cannot stand here"):
        configlib.load("configs/my_videos.py:runs/lr=1")
