"""Scenic's files of ViViT: round trips byte by byte, other spellings, and what they do not tell."""

import numpy as np
import pytest
from flax import serialization, traverse_util
from flax.training import checkpoints

from converters import formats
from tests.support.converting import command, params_of, same_params, same_tensors
from tests.support.goldens import GOLDENS
from tests.support.sources.vivit import (
    CASES,
    checkpoint,
    described,
    pre_linen,
    weights_of,
    written,
)
from vidjax.card import read_card
from vidjax.errors import UserError


@pytest.mark.parametrize("case", CASES)
def test_round_trip(folders, tmp_path, case):
    format = "npz" if checkpoint(case).suffix == ".npz" else "original"
    if case == "vivit_factorised_dot_product":  # one by the command, which takes a second
        command(folders / case, tmp_path / "out", format)
    else:
        card = read_card(folders / case)
        written(card, params_of(folders / case), tmp_path / "out", format)
    name = "checkpoint.npz" if format == "npz" else "checkpoint"
    again, source = (formats.read(path) for path in (tmp_path / "out" / name, checkpoint(case)))
    trained = ("optimizer/state", "opt_state", "rng")
    same_tensors(again, {n: source[n] for n in source if not n.startswith(trained)})
    _, params, _ = described(tmp_path / "out" / name, **CASES[case])
    same_params(params, folders / case)


@pytest.mark.parametrize("case", CASES)
def test_scenic_reads_what_another_format_becomes(folders, tmp_path, case):
    """Its restore_pretrained_checkpoint, without its TrainState."""
    weights = weights_of(case)
    formats.write_npz(tmp_path / "a.npz", weights)
    card, params, _ = described(tmp_path / "a.npz", **CASES[case])
    same_params(params, folders / case)
    written(card, params, tmp_path / "scenic", "original")
    state = checkpoints.restore_checkpoint(str(tmp_path / "scenic" / "checkpoint"), None)
    assert int(state["global_step"]) == 0
    assert (state["model_state"], state["rng"]) == (None, None)
    same_tensors(traverse_util.flatten_dict(state["params"], sep="/"), weights)


def test_npz_and_msgpack_of_one_model_are_the_same(folders):
    case = "vivit_spacetime"
    card, params, _ = described(GOLDENS / case / "params.npz", frames=10)
    assert card.provenance["format"] == "npz"
    same_params(params, folders / case)


@pytest.mark.parametrize("rename", [dict, pre_linen], ids=["linen", "before"])
@pytest.mark.parametrize(
    "root", ["", "params/", "params/params/", "optimizer/target/", "optimizer/target/params/"]
)
def test_roots_and_names_of_scenic(folders, tmp_path, root, rename):
    case = "vivit_spacetime"
    tensors = {root + name: tensor for name, tensor in rename(weights_of(case)).items()}
    formats.write_msgpack(tmp_path / "checkpoint", tensors)
    card, params, _ = described(tmp_path, **CASES[case])
    same_params(params, folders / case)
    written(card, params, tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out" / "checkpoint"), tensors)
    if root == "optimizer/target/params/":  # where Scenic converts the names itself
        state = serialization.msgpack_restore((tmp_path / "out" / "checkpoint").read_bytes())
        linen = checkpoints.convert_pre_linen(state["optimizer"]["target"]["params"])
        same_tensors(traverse_util.flatten_dict(linen, sep="/"), weights_of(case))


def test_momentum_is_left_out_and_named(folders, tmp_path):
    case = "vivit_factorised_encoder"
    weights = weights_of(case)
    tensors = {f"params/{n}": t for n, t in weights.items()}
    tensors |= {f"opt_state/0/trace/params/{n}": t + 1 for n, t in weights.items()}
    tensors |= {"rng": np.zeros(2, np.uint32), "global_step": np.array(3)}
    formats.write_msgpack(tmp_path / "checkpoint_3", tensors, {"metadata": None})
    report = command(tmp_path, tmp_path / "v")
    assert f"left out {len(weights) + 2} tensors" in report
    assert "the training run's opt_state, rng, global_step" in report
    same_params(tmp_path / "v", folders / case)


def test_parts_that_scenic_models_may_lack(tmp_path):
    """No temporal encoder, no class token, pre-logits, no head."""
    weights = weights_of("vivit_factorised_encoder")
    for name in list(weights):
        if name.startswith(("TemporalTransformer/", "cls_", "output_projection/")):
            del weights[name]
    table = "SpatialTransformer/posembed_input/pos_embedding"
    weights[table] = weights[table][:, 1:]
    weights["pre_logits/kernel"] = np.ones((36, 5), np.float32)
    weights["pre_logits/bias"] = np.ones(5, np.float32)
    formats.write_npz(tmp_path / "a.npz", weights)
    card, params, notes = described(tmp_path / "a.npz", frames=12)
    assert "the mean over tokens is assumed" in notes
    model = card.model
    assert (model["head"], model["temporal_depth"], model["pool"]) == (None, 0, "mean")
    assert (model["representation_size"], model["pos_grid"]) == (5, [6, 4, 4])
    written(card, params, tmp_path / "out", "npz")
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.npz"), weights)
    assert described(tmp_path / "a.npz", frames=12, pool="max")[0].model["pool"] == "max"


def test_what_is_assumed_is_said_and_can_be_given(folders, tmp_path):
    source = GOLDENS / "vivit_factorised_dot_product/params.npz"
    card, _, notes = described(source, frames=10)
    assert "joint attention is assumed" in notes
    assert card.model["factorisation"] == "joint"
    saved = read_card(folders / "vivit_factorised_dot_product").provenance["notes"]
    assert any("the mean over tokens is assumed" in note for note in saved)
    card, params, notes = described(source, size=32, factorisation="dot_product", pool="sum")
    assert "is assumed" not in notes
    assert (card.model["factorisation"], card.model["pool"]) == ("dot_product", "sum")
    notes = written(card, params, tmp_path / "out", "original")
    assert "does not tell factorisation=dot_product, pool=sum" in notes
    source = GOLDENS / "vivit_factorised_self_attention/params.npz"
    assert "attention over time, then over space, is assumed" in described(source, frames=6)[2]
    card, _, notes = described(source, frames=6, attention_order="space_time")
    assert "attention over time" not in notes
    assert card.model["attention_order"] == "space_time"


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        (
            "vivit_spacetime",
            {},
            r"80 patches of 2x8x8, which 32 frames of 224 .*--frames=10",
        ),
        ("vivit_spacetime", {"frames": 12}, r"which 12 frames do not have; it fits --frames=10 "),
        ("vivit_spacetime", {"frames": 10, "size": 40}, "10 frames of 40 pixels do not have"),
        ("vivit_spacetime", {"size": 40}, "it fits --frames=10 --size=32"),
        ("vivit_spacetime", {"frames": 10, "pool": "max"}, "--pool=max, but the file has a class"),
        (
            "vivit_spacetime",
            {"frames": 10, "factorisation": "dot_product"},
            "tensors are those of 'joint' with a class token",
        ),
        (
            "vivit_spacetime",
            {"frames": 10, "attention_order": "time_space"},
            "the file's is 'jo",
        ),
        ("vivit_spacetime", {"frames": 10, "heads": 6}, "--heads=6, but the file has 3 heads"),
        ("vivit_factorised_encoder", {"frames": 8}, "it fits --frames=10"),
        ("vivit_factorised_encoder", {"size": 64}, "it fits --size=32"),
        ("vivit_factorised_encoder", {"factorisation": "joint"}, "tensors are those of 'enc"),
        (
            "vivit_spacetime",
            {"frames": 10, "decoder_heads": 2},
            "--decoder_heads means nothing",
        ),
    ],
)
def test_options_that_do_not_fit(tmp_path, case, options, message):
    with pytest.raises(UserError, match=message):
        command(checkpoint(case), tmp_path / "v", **options)
    assert not (tmp_path / "v").exists()


def test_the_other_number_follows():
    source = GOLDENS / "vivit_spacetime/params.npz"
    for options in ({"frames": 10}, {"size": 32}):
        card, _, notes = described(source, **options)
        assert "pixels are assumed" not in notes
        facts = card.preprocessing
        assert (facts.frames, facts.size) == (10, 32)


def test_input_range_of_scenic():
    source = GOLDENS / "vivit_spacetime/params.npz"
    assert "input range [-1, 1], as Scenic trains" in described(source, frames=10)[2]
    card, _, notes = described(source, frames=10, input_range=(-3.0, 1.0))
    assert "input range [-3, 1], by --input_range, instead of [-1, 1]" in notes
    assert card.preprocessing.mean == (0.75, 0.75, 0.75)
