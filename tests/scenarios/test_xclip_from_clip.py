"""X-CLIP from CLIP on: training with the names of classes, evaluation, prediction."""

import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from vidjax import configlib, models, pretrained, train
from vidjax import eval as evaluation
from vidjax.card import Card, read_card
from vidjax.data import demo
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing
from vidjax.setup import Setup
from vidjax.training.program import Program
from vidjax.training.start import initial_state

SIZES = dict(
    width=16, depth=1, num_heads=2, mlp_dim=32, embed_dim=8, text_width=8, text_num_heads=2,
    text_depth=1, patch_size=(1, 8, 8),
)  # fmt: skip
HEADS = dict(mit_num_heads=2, prompt_num_heads=1)
FREEZE = ("text/.*", "text_proj/.*", "logit_scale")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions") / "set"
    return demo.make(folder, "demo_captions", num_train=32, num_val=16, size=32, frames=8)


@pytest.fixture(scope="module")
def clip(captioned, tmp_path_factory):
    """A CLIP as the converter writes it."""
    folder = tmp_path_factory.mktemp("clip") / "clip"
    tokenizer = {"file": "tokenizer.json", "length": 12, "canonicalise": False, "pad": "end",
                 "truncate": False}  # fmt: skip
    folder.mkdir()
    with open(f"{captioned}/tokenizer.json", "rb") as file:
        (folder / "tokenizer.json").write_bytes(file.read())
    vocab_size = pretrained.open_tokenizer(folder / "tokenizer.json").vocab_size
    model = models.build(
        "xclip", head="image_text", pos_grid=(1, 2, 2), eps=1e-5, vocab_size=vocab_size, **SIZES
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), models.abstract_params(model)
    )
    card = Card(models.config_of(model), Preprocessing(1, 1, size=16, short_side=16),
                           tokenizer=tokenizer)  # fmt: skip
    pretrained.save_pretrained(folder, params, card)
    return folder


@pytest.fixture(scope="module")
def make(captioned, clip):
    def make(name="xclip_k400", **more):
        config = configlib.load(f"configs/{name}.py:demo")
        config.data.update(batch_size=8, frames=2, workers=0)
        config.data.update({s: f"{captioned}/{s}.csv" for s in ("train", "val")})
        config.update(train_steps=2, log_every=1, init=str(clip))
        config.optim.update(warmup_epochs=0.0, warmup_steps=1, freeze=FREEZE)
        config.model.update(SIZES | HEADS)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in more.items()})
        return config

    return make


@pytest.fixture(scope="module")
def workdir(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "xclip"
    train.train(make(mesh__fsdp=2, mesh__tensor=2, grad_accum=2), folder)
    return folder


def test_a_run_from_clip(make, clip, workdir):
    there = dict(pretrained.open_params(clip))
    here = dict(pretrained.open_params(workdir))
    for path, x in there.items():
        kept = path.startswith("text") or path == "logit_scale"
        assert np.array_equal(here[path], x) == kept, path
    card = read_card(workdir)
    assert card.classes == demo.EVENTS
    assert card.tokenizer == read_card(clip).tokenizer
    done = json.loads((workdir / "DONE").read_text())
    assert done["val/videos"] == done["test/videos"] == 16
    assert card.preprocessing.temporal_views == 3 and card.preprocessing.spatial_views == 1


def test_positions_and_new_parts(make, clip):
    setup, said = Setup(make()), []
    with setup.on_mesh():
        state = initial_state(Program(setup), said.append)
    flat = traverse_util.flatten_dict(state.params, sep="/")
    assert flat["encoder/pos_embed"].shape == (1, 17, 16)  # 4 x 4 patches, from 2 x 2
    assert "positions of patches resampled from (2, 2) to (4, 4)" in " ".join(said)
    fresh = next(line for line in said if "fresh here" in line)
    assert "mit/blocks" in fresh and "prompts/proj" in fresh and "text" not in fresh
    assert "encoder/blocks/message_fc" in fresh and "encoder/blocks," not in fresh
    kept = [str(p) for p, x in jax.tree_util.tree_leaves_with_path(state.opt_state) if x.ndim]
    assert kept and not any("'text" in path for path in kept)


def test_evaluation_repeats_what_training_measured(make, workdir, tmp_path):
    done = json.loads((workdir / "DONE").read_text())
    found = evaluation.evaluate(make(data__train="", init=""), str(workdir), tmp_path)
    assert found == done


def test_other_classes_than_those_of_training(make, captioned, workdir, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("id,name\n1,turning\n0,growing\n2,sliding\n")
    (tmp_path / "val.csv").write_text(f"path,label\n{captioned}/clips/val_00000.mp4,2\n")
    other = dict(data__val=str(tmp_path / "val.csv"), data__val_classes=str(names))
    setup = Setup(make(**other))
    assert setup.splits.classes == demo.EVENTS
    assert setup.splits.videos("val").classes == ("growing", "turning", "sliding")
    with setup.config.unlocked():
        setup.config.evals.own = dict(name="zero_shot", split="train")
        names = {k: e.names for k, (e, _) in setup.evaluators(tmp_path).items()}
        assert names["own"] == demo.EVENTS and names["val"] == setup.splits.videos("val").classes
        setup.config.evals = dict(loss=dict(name="loss"))
    with pytest.raises(UserError, match=r"evals\.loss .* val has others"):
        setup.evaluators(tmp_path)
    found = evaluation.evaluate(
        make(data__train="", data__name="custom", init="", **other), str(workdir), tmp_path
    )
    assert found["val/videos"] == 1 and found["val/top5"] == 1  # there are but three


def test_clip_as_it_is(make, clip, tmp_path):
    config = make("xclip_zeroshot", data__train="", init="", model__head="image_text")
    found = evaluation.evaluate(config, str(clip), tmp_path)
    assert found["val/videos"] == 16 and 0 <= found["val/top1"] <= 1
    said = " ".join(Setup(config, str(clip)).notices)
    assert "made for frames 1, not 2" in said and "made for size 16, not 32" in said
    scratch = make(init="", data__tokenizer=f"{clip}/tokenizer.json", data__text_length=12)
    assert "drawn at random" in " ".join(Setup(scratch).notices)
    assert "drawn at random" not in " ".join(Setup(make()).notices)


def test_names_of_classes_answer_for_a_video(captioned, workdir):
    video = f"{captioned}/clips/val_00000.mp4"
    loaded = pretrained.load_model(workdir)
    answers, prompted = loaded.classify(video, top_k=3), loaded.compare(video, demo.EVENTS)
    assert answers == prompted[:3] and {name for name, _ in prompted} == set(demo.EVENTS)


def test_few_shots(make):
    setup = Setup(make("xclip_fewshot_ucf101", data__shots=2))
    labels = [video.label for video in setup.splits.videos("train")]
    assert sorted(labels) == sorted(2 * list(range(8))) and len(setup.splits.videos("val")) == 16
    other = Setup(make("xclip_fewshot_ucf101", data__shots=2, data__shots_seed=1))
    assert setup.splits.videos("train").videos != other.splits.videos("train").videos
    with pytest.raises(UserError, match=r"has 4 .* 5"):
        Setup(make("xclip_fewshot_ucf101", data__shots=5)).splits.videos("train")


def test_what_class_names_need(make, captioned, tmp_path):
    with pytest.raises(UserError, match=r"another kind .* than xclip reads"):
        Setup(make(data__tokenizer=f"{captioned}/tokenizer.model"))
    (tmp_path / "train.csv").write_text(f"path,label\n{captioned}/clips/train_00000.mp4,0\n")
    with pytest.raises(UserError, match="needs the names of the classes"):
        Setup(make(data__train=str(tmp_path / "train.csv"), data__name="custom"))
    config = configlib.load("configs/videomae_k400_finetune.py:demo")
    config.data.train = config.data.val = f"{captioned}/train.csv"
    config.objective = dict(name="text_classification")
    with pytest.raises(UserError, match="needs a model of both"):
        Setup(config)
    with pytest.raises(UserError, match="only 3 fit"):
        Setup(make(data__text_length=3))
    assert len(Setup(make(data__text_length=3, data__truncate=True)).objective.text[0]) == 3
