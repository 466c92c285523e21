"""From training a video-text model to what starts from it: evaluation, stage 2, a probe."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from vidjax import configlib, pretrained, train
from vidjax import eval as evaluation
from vidjax.card import read_card, write_card
from vidjax.data import demo
from vidjax.errors import UserError
from vidjax.setup import Setup
from vidjax.training.program import Program
from vidjax.training.start import initial_state

SIZES = dict(width=16, depth=1, num_heads=2, mlp_dim=32, temporal_depth=1)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions") / "set"
    return demo.make(folder, "demo_captions", num_train=16, num_val=16, size=32, frames=8)


@pytest.fixture(scope="module")
def make(captioned):
    def make(name, **more):
        config = configlib.load(f"configs/{name}.py:demo")
        config.data.update(batch_size=8, frames=2, workers=0, tokenizer="")
        config.data.update({s: f"{captioned}/{s}.csv" for s in ("train", "val")})
        config.update(train_steps=2, log_every=1)
        config.optim.update(warmup_epochs=0.0, warmup_steps=1)
        if config.model.name != "probe":
            config.model.update(SIZES)
        if config.model.head == "video_text":
            config.model.text_depth = 1
            config.data.update(tokenizer=f"{captioned}/tokenizer.model", text_length=12)
        if config.model.head == "distil":
            config.model.update(decoder_width=8, decoder_depth=1, decoder_mlp_dim=16)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in more.items()})
        return config

    return make


@pytest.fixture(scope="module")
def workdir(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "stage1"
    train.train(make("videoprism_stage1"), folder)
    return folder


def test_evaluation_repeats_what_training_measured(make, workdir, tmp_path):
    done = json.loads((workdir / "DONE").read_text())
    assert done["val/videos"] == done["val/captions"] == 16 and 0 <= done["val/t2v_r1"] <= 1
    config = make("videoprism_msrvtt", data__tokenizer="", data__train="")
    with config.unlocked():
        config.evals.named = dict(name="zero_shot", templates=("a {} shape", "{}"))
    found = evaluation.evaluate(config, str(workdir), tmp_path)
    assert {k: v for k, v in found.items() if k in done} == done
    assert found["named/videos"] == 16 and "named/top5" in found


def test_the_tokeniser_travels_with_the_run(captioned, workdir):
    loaded = pretrained.load_model(workdir)
    ids, mask = loaded.tokenize("a red shape growing")
    assert ids.shape == mask.shape == (1, 12) and mask.sum() > 2
    with open(f"{captioned}/tokenizer.model", "rb") as file:
        assert (workdir / "tokenizer.model").read_bytes() == file.read()


def start(config):
    """The state that a run starts from, and what it says."""
    setup, said = Setup(config), []
    with setup.on_mesh():
        return setup, initial_state(Program(setup), said.append), said


def test_stage_2_starts_from_stage_1(make, workdir):
    setup, state, said = start(make("videoprism_stage2", init=str(workdir)))
    params = state.params
    source = pretrained.load_params(workdir)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], source["encoder"])
    jax.tree.map(np.testing.assert_array_equal, params["teacher"]["pool"], source["pool"])
    assert "the teacher is the checkpoint" in " ".join(said)
    assert setup.model.config["auxiliary_depth"] == 0  # as the checkpoint has it
    kept = [str(p) for p, x in jax.tree_util.tree_leaves_with_path(state.opt_state) if x.ndim]
    assert kept and not any("teacher" in path for path in kept)


def test_numerics_are_those_of_the_start(make, workdir, tmp_path):
    card = read_card(workdir)
    other = dataclasses.replace(card, model=card.model | {"scale_offset": 0.0})
    shutil.copytree(workdir, tmp_path / "other")
    write_card(tmp_path / "other", other)
    config = make("videoprism_msrvtt", init=str(tmp_path / "other"))
    assert Setup(config).model.config["scale_offset"] == 0
    with config.unlocked():
        config.model.scale_offset = 1.0
    with pytest.raises(UserError, match=r"scale_offset 0\.0, but config\.model"):
        Setup(config)


def test_distillation_needs_a_teacher_that_stays(make, workdir):
    with pytest.raises(UserError, match="needs a teacher"):
        Setup(make("videoprism_stage2"))
    with pytest.raises(UserError, match="must keep the teacher"):
        Setup(make("videoprism_stage2", init=str(workdir), optim__freeze=()))


def test_a_probe_starts_from_any_run(make, workdir):
    setup, state, said = start(make("probe", init=str(workdir), data__name="custom"))
    source = pretrained.load_params(workdir)
    found = state.params["backbone"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, found, source["encoder"])
    assert setup.preprocessing.mean == (0.0,) * 3 and setup.preprocessing.resize == "pil_lanczos"
    assert "left out, as a probe looks at the encoder only" in " ".join(said)
    kept = [str(p) for p, x in jax.tree_util.tree_leaves_with_path(state.opt_state) if x.ndim]
    assert kept and not any("backbone" in path for path in kept)


def test_what_texts_need(make, captioned, workdir, tmp_path):
    with pytest.raises(UserError, match=r"set config\.data\.tokenizer"):
        Setup(make("videoprism_stage1", data__tokenizer="", data__name="custom"))
    other = tmp_path / "small.csv"
    other.write_text("a.mp4 0\n")
    for split in ("train", "val"):  # both are read before the first step
        with pytest.raises(UserError, match="caption"):
            Setup(make("videoprism_stage1", **{f"data__{split}": str(other)})).splits.videos(split)
    with pytest.raises(UserError, match=r"repeats is 2, but must be 1"):
        Setup(make("videoprism_stage1", data__repeats=2))
    with pytest.raises(UserError, match="knows 20"):
        Setup(make("videoprism_stage1", model__vocab_size=20))
    with pytest.raises(UserError, match="a probe needs an encoder"):
        config = configlib.load("configs/probe.py")
        config.data.update(train=f"{captioned}/train.csv")
        Setup(config)
