"""ViViT's tables and numerics against Scenic's goldens; files in all spellings."""

import dataclasses
import functools
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization, traverse_util
from flax.training import checkpoints

from converters import Options, formats, vivit
from converters.convert import convert
from converters.mapping import from_params
from converters.vivit import published
from tests.support import converting
from tests.support.converting import same_tensors
from vidjax import models, pretrained
from vidjax.card import Card, read_card
from vidjax.errors import UserError
from vidjax.models import layers
from vidjax.preprocessing import Preprocessing

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
TOL = {"logits": 2e-6, "pre_logits": 2e-6, "encoder_output": 2e-6}  # float32, of the largest value
TOL64 = 1e-10  # the same in float64

FILES = {
    "vivit_spacetime": ("checkpoint_100", Options(frames=10, size=32)),
    "vivit_factorised_encoder": ("checkpoint_153", Options()),
    "vivit_factorised_self_attention": (
        "params.npz",
        Options(frames=6, size=32, attention_order="time_space"),
    ),
    "vivit_factorised_dot_product": (
        "params.npz",
        Options(frames=10, size=32, factorisation="dot_product"),
    ),
}


def to_vidjax(source, target, options=None, **changes):
    lines = []
    convert(str(source), target, options=options or Options(**changes), say=lines.append)
    return "\n".join(lines)


# Saving costs half a second a folder: what the command does, but in memory.
described = functools.partial(converting.described, vivit)
written = functools.partial(converting.written, vivit)


def exported(folder, target, format):
    lines = []
    convert(str(folder), target, format, say=lines.append)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every golden checkpoint, converted by the real command."""
    root = tmp_path_factory.mktemp("converted")
    for case, (file, options) in FILES.items():
        to_vidjax(GOLDENS / case / file, root / case, options)
    return root


@functools.cache  # reading takes 10 ms a tensor
def params_of(folder):
    """Of a folder that stays as it is."""
    return dict(pretrained.open_params(folder))


def golden_video(case):
    with np.load(GOLDENS / case / "inputs.npz") as file:
        return file["inputs"]


def golden(case):
    with np.load(GOLDENS / case / "outputs.npz") as file:
        return dict(file)


def run(folder, dtype="float32", change=lambda params: params, **changed_fields):
    """Everything that the golden of this folder's name has, computed by us."""
    model = models.build(**read_card(folder).model | {"dtype": dtype} | changed_fields)
    flat = change(dict(params_of(folder)))
    params = traverse_util.unflatten_dict(flat, sep="/")
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    out = apply(model, params, golden_video(folder.name).astype(dtype))
    if model.config["factorisation"] == "encoder":  # the reference does not show its two stages
        del out["encoder_output"]
    return jax.tree.map(np.asarray, out)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, video):
    return {
        "logits": model.apply({"params": params}, video),
        "pre_logits": model.apply({"params": params}, video, method="embed"),
        "encoder_output": model.apply({"params": params}, video, method=lambda m, x: m.encoder(x)),
    }


def errors(ours, reference, suffix=""):
    """Largest difference of each output, in units of the reference's largest value."""
    return {
        name: float(np.abs(ours[name] - reference[name + suffix]).max())
        / float(np.abs(reference[name + suffix]).max())
        for name in ours
        if name + suffix in reference
    }


@pytest.mark.parametrize("case", FILES)
def test_float32_outputs_match_the_original(folders, case):
    found = errors(run(folders / case), golden(case))
    print(case, found)
    assert found.keys() == {name for name in golden(case) if not name.endswith("__f64")}
    assert all(found[name] < TOL[name] for name in found), found


@pytest.mark.parametrize("case", FILES)
def test_float64_outputs_match_the_original(folders, case):
    with jax.enable_x64(True):
        found = errors(run(folders / case, "float64"), golden(case), "__f64")
    print(case, found)
    assert found.keys() == {"logits", "pre_logits"}
    assert max(found.values()) < TOL64, found


# What a wrong port would have; each must be far outside the tolerances above.


def assert_caught(ours, case, suffix=""):
    found = errors(ours, golden(case), suffix)
    print(case, found)
    assert max(found.values()) > (1e3 * TOL64 if suffix else 50 * max(TOL.values())), found


def test_erf_gelu_is_caught(folders, monkeypatch):
    case = "vivit_factorised_encoder"
    monkeypatch.setitem(layers.ACTIVATIONS, "gelu_tanh", layers.ACTIVATIONS["gelu"])
    apply.clear_cache()  # the right one is in it
    wrong = run(folders / case)
    apply.clear_cache()
    assert_caught(wrong, case)


def test_wrong_eps_is_caught(folders):
    case = "vivit_spacetime"
    with jax.enable_x64(True):  # drowns in float32
        wrong = run(folders / case, "float64", eps=1e-5)
    assert_caught(wrong, case, "__f64")


def test_space_before_time_heads_is_caught(folders):
    case = "vivit_factorised_dot_product"

    def swap(params):
        heads = {"kernel": -2, "bias": -2}
        for name in list(params):
            if "/attn/" in name and not name.endswith("out/bias"):
                axis = 1 if "/out/" in name else heads[name.rpartition("/")[2]]
                params[name] = np.roll(params[name], params[name].shape[axis] // 2, axis)
        return params

    assert_caught(run(folders / case, change=swap), case)
    # The same permutation changes nothing where all heads do the same: it is a permutation.
    same = errors(run(folders / case, factorisation="joint", change=swap), golden(case))
    joint = errors(run(folders / case, factorisation="joint"), golden(case))
    assert same["logits"] == pytest.approx(joint["logits"], rel=1e-3)


def test_joint_attention_for_factorised_heads_is_caught(folders):
    case = "vivit_factorised_dot_product"
    assert_caught(run(folders / case, factorisation="joint"), case)


def test_wrong_attention_order_is_caught(folders):
    case = "vivit_factorised_self_attention"
    assert_caught(run(folders / case, attention_order="space_time"), case)


@pytest.mark.parametrize("tensor", ["encoder/pos_embed", "encoder/spatial/pos_embed"])
def test_class_token_behind_the_patches_is_caught(folders, tensor):
    case = "vivit_spacetime" if tensor == "encoder/pos_embed" else "vivit_factorised_encoder"

    def roll(params):
        return params | {tensor: np.roll(params[tensor], -1, 1)}

    assert_caught(run(folders / case, change=roll), case)


def test_swapped_class_tokens_are_caught(folders):
    case = "vivit_factorised_encoder"
    names = ["encoder/spatial/cls_token", "encoder/temporal/cls_token"]

    def swap(params):
        return params | dict(zip(names, (params[name] for name in reversed(names)), strict=True))

    assert_caught(run(folders / case, change=swap), case)


@pytest.mark.parametrize("pool", ["max", "sum"])
def test_wrong_pool_is_caught(folders, pool):
    case = "vivit_factorised_self_attention"
    assert_caught(run(folders / case, pool=pool), case)


# Byte-exact round trips.


def assert_same_params(a, b):
    """Of folders, or of dicts of parameters."""
    a, b = (x if isinstance(x, dict) else params_of(x) for x in (a, b))
    assert set(a) == set(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def weights_of(case):
    """The golden's weights by the names of Scenic's current tree."""
    tensors = formats.read(GOLDENS / case / FILES[case][0])
    roots = ("optimizer/target/", "params/", "")
    root = next(root for root in roots if root + "embedding/kernel" in tensors)
    return {n.removeprefix(root): tensors[n] for n in tensors if n.startswith(root)}


@pytest.mark.parametrize("case", FILES)
def test_round_trip(folders, tmp_path, case):
    file, options = FILES[case]
    format = "npz" if file.endswith(".npz") else "original"
    if case == "vivit_factorised_dot_product":  # one by the command, which takes a second
        exported(folders / case, tmp_path / "out", format)
    else:
        card = read_card(folders / case)
        written(card, params_of(folders / case), tmp_path / "out", format)
    name = "checkpoint.npz" if format == "npz" else "checkpoint"
    again, source = (
        formats.read(path) for path in (tmp_path / "out" / name, GOLDENS / case / file)
    )
    trained = ("optimizer/state", "opt_state", "rng")
    same_tensors(again, {n: source[n] for n in source if not n.startswith(trained)})
    _, params, _ = described(tmp_path / "out" / name, **options.given)
    assert_same_params(params, folders / case)


@pytest.mark.parametrize("case", FILES)
def test_scenic_reads_what_another_format_becomes(folders, tmp_path, case):
    """Its restore_pretrained_checkpoint, without its TrainState."""
    weights = weights_of(case)
    formats.write_npz(tmp_path / "a.npz", weights)
    card, params, _ = described(tmp_path / "a.npz", **FILES[case][1].given)
    assert_same_params(params, folders / case)
    written(card, params, tmp_path / "scenic", "original")
    state = checkpoints.restore_checkpoint(str(tmp_path / "scenic" / "checkpoint"), None)
    assert int(state["global_step"]) == 0
    assert (state["model_state"], state["rng"]) == (None, None)
    same_tensors(traverse_util.flatten_dict(state["params"], sep="/"), weights)


def test_npz_and_msgpack_of_one_model_are_the_same(folders):
    case = "vivit_spacetime"
    card, params, _ = described(GOLDENS / case / "params.npz", frames=10)
    assert card.provenance["format"] == "npz"
    assert_same_params(params, folders / case)


PRE_LINEN = {
    "LayerNorm_1": "LayerNorm_2",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "MlpBlock_0": "MlpBlock_3",
}


def pre_linen(tensors):
    return {"/".join(PRE_LINEN.get(w, w) for w in n.split("/")): t for n, t in tensors.items()}


@pytest.mark.parametrize("rename", [dict, pre_linen], ids=["linen", "before"])
@pytest.mark.parametrize(
    "root", ["", "params/", "params/params/", "optimizer/target/", "optimizer/target/params/"]
)
def test_roots_and_names_of_scenic(folders, tmp_path, root, rename):
    case = "vivit_spacetime"
    tensors = {root + name: tensor for name, tensor in rename(weights_of(case)).items()}
    formats.write_msgpack(tmp_path / "checkpoint", tensors)
    card, params, _ = described(tmp_path, **FILES[case][1].given)
    assert_same_params(params, folders / case)
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
    report = to_vidjax(tmp_path, tmp_path / "v")
    assert f"left out {len(weights) + 2} tensors" in report
    assert "the training run's opt_state, rng, global_step" in report
    assert_same_params(tmp_path / "v", folders / case)


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


# Image models, and frames sampled uniformly: 2-D patches.


def flat(tensors, tokens, seed=0):
    """A golden's weights with a 2-D kernel and a position table for so many patches."""
    table = "Transformer/posembed_input/pos_embedding"
    positions = np.random.default_rng(seed).standard_normal(
        (1, tokens + ("cls" in tensors), tensors[table].shape[-1]), np.float32
    )
    return tensors | {"embedding/kernel": tensors["embedding/kernel"][0], table: positions}


def image_vit(tokens=9, prefix=""):
    """As vision_transformer's ImageNet-21k files: names before Linen, pre-logits, `head`."""
    tensors = pre_linen(flat(weights_of("vivit_spacetime"), tokens))
    rng = np.random.default_rng(1)
    for name in ("kernel", "bias"):
        tensors[f"head/{name}"] = tensors.pop(f"output_projection/{name}")
        shape = (42, 42) if name == "kernel" else (42,)
        tensors[f"pre_logits/{name}"] = rng.standard_normal(shape, np.float32)
    return {prefix + name: tensor for name, tensor in tensors.items()}


def test_image_vit(tmp_path):
    tensors = image_vit()
    formats.write_npz(tmp_path / "a.npz", tensors)
    report = to_vidjax(tmp_path / "a.npz", tmp_path / "v")
    assert "an image model" in report
    assert "next: python -m vidjax.train --config=configs/vivit_k400.py" in report
    card = read_card(tmp_path / "v")
    assert (card.model["factorisation"], card.model["head"]) == ("joint", "classify")
    assert (card.model["pos_grid"], card.model["patch_size"]) == ([1, 3, 3], [1, 8, 8])
    assert card.model["representation_size"] == 42
    facts = card.preprocessing
    assert (facts.frames, facts.size, facts.short_side) == (1, 24, 24)
    kernel = pretrained.open_params(tmp_path / "v")["encoder/patch_embed/kernel"]
    np.testing.assert_array_equal(kernel[0], tensors["embedding/kernel"])
    loaded = pretrained.load_model(tmp_path / "v")
    video = jnp.zeros((1, 1, 24, 24, 3))
    assert jax.eval_shape(loaded.model.apply, {"params": loaded.params}, video).shape == (1, 7)


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
def test_image_vit_under_a_prefix(tmp_path, prefix):
    tensors = image_vit(prefix=prefix)
    formats.write_npz(tmp_path / "a.npz", tensors)
    card, params, _ = described(tmp_path / "a.npz")
    np.testing.assert_array_equal(params["encoder/cls_token"], tensors[f"{prefix}cls"])
    written(card, params, tmp_path / "out", "npz")
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.npz"), tensors)


def test_frames_sampled_uniformly(tmp_path):
    tensors = flat(weights_of("vivit_spacetime"), 4 * 25)
    formats.write_msgpack(tmp_path / "checkpoint", tensors)
    card, params, notes = described(tmp_path, size=40)
    assert "4 frames, evenly spread over a clip of 32" in notes and "6, 12, 18, 24" in notes
    assert (card.model["sampled_frames"], card.model["pos_grid"]) == (4, [4, 5, 5])
    assert card.preprocessing.frames == 32
    written(card, params, tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out" / "checkpoint"), tensors)


def test_number_of_sampled_frames_is_that_of_scenic(tmp_path):
    # Scenic takes six frames of 16 where five are asked for, and never five.
    formats.write_msgpack(tmp_path / "checkpoint", flat(weights_of("vivit_spacetime"), 6 * 25))
    model = described(tmp_path, size=40, frames=16)[0].model
    assert (model["sampled_frames"], model["pos_grid"]) == (5, [6, 5, 5])
    formats.write_msgpack(tmp_path / "checkpoint", flat(weights_of("vivit_spacetime"), 5 * 25))
    with pytest.raises(UserError, match=r"never takes 5 frames, .* evenly from a clip of 16; give"):
        described(tmp_path, size=40, frames=16)


def test_one_image_or_sampled_frames(tmp_path):
    # Of 8 x 8 pixels, an image of 448 pixels has as many patches as 4 frames of 224.
    formats.write_msgpack(tmp_path / "checkpoint", flat(weights_of("vivit_spacetime"), 4 * 784))
    formats.write_npz(tmp_path / "a.npz", image_vit(4 * 784))  # vision_transformer's names
    with pytest.raises(UserError, match=r"either of one image of 448 pixels \(--frames=1\), or of"):
        described(tmp_path)
    with pytest.raises(UserError, match=r"3136 patches of 8x8, which --frames=3 .*does not fit"):
        described(tmp_path, frames=3)
    for options, grid, sampled in (
        ({"frames": 1}, [1, 56, 56], None),
        ({"size": 448}, [1, 56, 56], None),
        ({"frames": 32}, [4, 28, 28], 4),
        ({"size": 224}, [4, 28, 28], 4),
    ):
        model = described(tmp_path, **options)[0].model
        assert (model["pos_grid"], model["sampled_frames"]) == (grid, sampled), options
    assert described(tmp_path / "a.npz")[0].model["pos_grid"] == [1, 56, 56]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_root/kernel": (7, 7, 3, 64)}, "on top of a ResNet"),
        ({"MAPHead_0/probe": (1, 1, 42)}, r"attention pooling head \(MAPHead_0\)"),
        ({"pos_embedding": (1, 9, 42)}, "adds no position to its class token"),
        ({"Transformer/encoderblock_1/gamma": (42,)}, "no rule reads it: Transformer/encoderblock"),
        ({"Transformer/encoderblock_0/LayerNorm_3/bias": (42,)}, "of LayerNorm, 2 are expected"),
        ({"Transformer/posembed_input/pos_embedding": None}, "no learned position table"),
        ({"Transformer/encoderblock_0/MlpBlock_3/Dense_1/bias": None}, "missing from the file"),
        (
            {"Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel": (42, 42)},
            "expected .width, heads, head width",
        ),
    ],
)
def test_image_models_that_are_no_vivit(tmp_path, change, message):
    tensors = image_vit() | {n: np.zeros(s, "f4") for n, s in change.items() if s}
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
    formats.write_npz(tmp_path / "a.npz", tensors)
    with pytest.raises(UserError, match=message):
        described(tmp_path / "a.npz")


def test_mean_pooled_image_model_of_big_vision(tmp_path):
    tensors = flat(weights_of("vivit_spacetime"), 9)
    del tensors["cls"]
    table = tensors.pop("Transformer/posembed_input/pos_embedding")
    tensors["pos_embedding"] = table[:, 1:]
    for name in ("kernel", "bias"):
        tensors[f"head/{name}"] = tensors.pop(f"output_projection/{name}")
    tensors = {f"params/{name}": tensor for name, tensor in tensors.items()}
    formats.write_npz(tmp_path / "a.npz", tensors)
    card, params, notes = described(tmp_path / "a.npz")
    assert "dot-product" not in notes
    assert card.model["pool"] == "mean"
    written(card, params, tmp_path / "out", "npz")
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.npz"), tensors)


# What files do not tell.


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
        to_vidjax(GOLDENS / case / FILES[case][0], tmp_path / "v", **options)
    assert not (tmp_path / "v").exists()


def test_the_other_number_follows():
    source = GOLDENS / "vivit_spacetime/params.npz"
    for options in ({"frames": 10}, {"size": 32}):
        card, _, notes = described(source, **options)
        assert "pixels are assumed" not in notes
        facts = card.preprocessing
        assert (facts.frames, facts.size) == (10, 32)


# Hugging Face folders, made without transformers: names and shapes as in published files.

D, M, DEPTH, HEADS, CLASSES, TOKENS = 16, 24, 2, 4, 3, 2 * 2 * 2


def hf_tensors(head, layers="encoder.layer", pooler=True):
    """A random file of VivitModel (None) or VivitForVideoClassification."""
    rng, old = np.random.default_rng(0), layers == "encoder.layer"
    root = "vivit." if head else ""
    shapes = {
        f"{root}embeddings.cls_token": (1, 1, D),
        f"{root}embeddings.position_embeddings": (1, TOKENS + 1, D),
        f"{root}embeddings.patch_embeddings.projection.weight": (D, 3, 2, 4, 4),
        f"{root}embeddings.patch_embeddings.projection.bias": (D,),
        f"{root}layernorm.weight": (D,),
        f"{root}layernorm.bias": (D,),
    }
    linears = {
        "attention.attention.query" if old else "attention.q_proj": (D, D),
        "attention.attention.key" if old else "attention.k_proj": (D, D),
        "attention.attention.value" if old else "attention.v_proj": (D, D),
        "attention.output.dense" if old else "attention.o_proj": (D, D),
        "intermediate.dense" if old else "mlp.fc1": (M, D),
        "output.dense" if old else "mlp.fc2": (D, M),
        "layernorm_before": (D,),
        "layernorm_after": (D,),
    }
    for i in range(DEPTH):
        for name, shape in linears.items():
            shapes[f"{root}{layers}.{i}.{name}.weight"] = shape
            shapes[f"{root}{layers}.{i}.{name}.bias"] = shape[:1]
    if head:
        shapes |= {"classifier.weight": (CLASSES, D), "classifier.bias": (CLASSES,)}
    elif pooler:
        shapes |= {"pooler.dense.weight": (D, D), "pooler.dense.bias": (D,)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def hf_config(**changes):
    return {
        "architectures": ["VivitForVideoClassification"],
        "model_type": "vivit",
        "hidden_size": D,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": M,
        "tubelet_size": [2, 4, 4],
        "image_size": 8,
        "num_frames": 4,
        "hidden_act": "gelu_fast",
        "layer_norm_eps": 1e-6,
        "video_size": [32, 224, 224],  # in the published file, of an older VivitConfig
        "id2label": {"0": "jump", "1": "run", "2": "swim"},
    } | changes


PREPROCESSOR = {  # the published one
    "crop_size": {"height": 8, "width": 8},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "VivitImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "offset": True,
    "resample": 2,
    "rescale_factor": 0.00784313725490196,
    "size": {"shortest_edge": 10},
}


def write_hf(folder, tensors, config, preprocessor=PREPROCESSOR):
    folder.mkdir()
    formats.write_safetensors(folder / "model.safetensors", tensors)
    # Indented unlike anything that we write.
    for name, content in (("config", config), ("preprocessor_config", preprocessor)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content, indent=7))
    return folder


def check_hf_card(card, head, pooler):
    fields = card.model
    assert (fields["head"], fields["num_heads"], fields["eps"]) == (head, HEADS, 1e-6)
    assert (fields["factorisation"], fields["pool"]) == ("joint", "token")
    assert (fields["pos_grid"], fields["patch_size"]) == ([2, 2, 2], [2, 4, 4])
    assert fields["representation_size"] == (D if pooler and not head else None)
    assert card.classes == (("jump", "run", "swim") if head else None)
    facts = card.preprocessing
    assert (facts.frames, facts.stride, facts.size, facts.short_side) == (4, 2, 8, 10)
    assert (facts.temporal_views, facts.spatial_views, facts.view_average) == (4, 3, "logits")


def test_hf_round_trip_by_the_command(tmp_path):
    source = write_hf(tmp_path / "hf", hf_tensors("classify"), hf_config())
    report = to_vidjax(source, tmp_path / "v")
    assert "all bytes reproduced" in report
    check_hf_card(read_card(tmp_path / "v"), "classify", True)
    exported(tmp_path / "v", tmp_path / "out", "hf")
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()


@pytest.mark.parametrize("layers", ["encoder.layer", "layers"])
@pytest.mark.parametrize(("head", "pooler"), [(None, True), (None, False), ("classify", True)])
def test_hf_round_trip(tmp_path, head, pooler, layers):
    tensors = hf_tensors(head, layers, pooler)
    source = write_hf(tmp_path / "hf", tensors, hf_config())
    card, params, _ = described(source)
    check_hf_card(card, head, pooler)
    written(card, params, tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out" / "model.safetensors"), tensors)


def test_both_spellings_give_the_same_model(tmp_path):
    found = []
    for place in ("encoder.layer", "layers"):
        source = write_hf(tmp_path / place, hf_tensors("classify", place), hf_config())
        found.append(described(source)[1])
    assert_same_params(*found)


@pytest.mark.parametrize("head", [None, "classify"])
def test_hf_to_scenic_and_back(tmp_path, head):
    source = write_hf(tmp_path / "hf", hf_tensors(head), hf_config())
    if head:
        to_vidjax(source, tmp_path / "a")
        report = exported(tmp_path / "a", tmp_path / "scenic", "original")
        assert "all bytes reproduced" in report
    else:
        card, params, _ = described(source)
        written(card, params, tmp_path / "scenic", "original")
    tensors = formats.read(tmp_path / "scenic" / "checkpoint")
    assert "params/Transformer/encoderblock_1/MlpBlock_0/Dense_1/bias" in tensors
    card, again, _ = described(tmp_path / "scenic", size=8)
    assert_same_params(tmp_path / "a" if head else params, again)
    # And Scenic's model as transformers' own.
    written(card, again, tmp_path / "again", "hf")
    same_tensors(formats.read(tmp_path / "again" / "model.safetensors"), hf_tensors(head))
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    wanted = hf_config() | {"qkv_bias": True, "num_channels": 3}
    del wanted["video_size"]
    if not head:
        wanted["architectures"] = ["VivitModel"]
        del wanted["id2label"]
    else:
        wanted["id2label"] = {str(k): f"LABEL_{k}" for k in range(CLASSES)}
        wanted["label2id"] = {f"LABEL_{k}": k for k in range(CLASSES)}
    assert config == wanted
    processor = json.loads((tmp_path / "again" / "preprocessor_config.json").read_text())
    assert (processor["do_normalize"], processor["offset"]) == (False, True)  # [-1, 1]


@pytest.mark.parametrize("act", ["gelu_fast", "gelu_new", "gelu_pytorch_tanh"])
def test_spellings_of_the_tanh_gelu(tmp_path, act):
    source = write_hf(tmp_path / "hf", hf_tensors(None), hf_config(hidden_act=act))
    card, params, _ = described(source)
    originals = {"config.json": (source / "config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert (tmp_path / "out/config.json").read_bytes() == (source / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "silu"}, "hidden_act 'silu', and ViViT here computes gelu, .*relu only"),
        ({"hidden_size": 32}, "hidden_size 32 instead of 16"),
        ({"num_hidden_layers": 3}, "num_hidden_layers 3 instead of 2"),
        ({"tubelet_size": [2, 16, 16]}, r"tubelet_size \[2, 16, 16\] instead of \[2, 4, 4\]"),
        ({"qkv_bias": False}, "qkv_bias false"),
        ({"pooler_act": "relu"}, "pooler_act 'relu'"),
        ({"num_attention_heads": 5}, "5 does not divide the width 16"),
        ({"image_size": 16}, "4 frames of 16 pixels do not have; it fits .*--frames=4 --size=8"),
        ({"image_size": [8, 12]}, "only square frames"),
        ({"num_frames": 8}, "8 frames of 8 pixels do not have"),
    ],
)
def test_config_that_contradicts_the_tensors(tmp_path, changes, message):
    source = write_hf(tmp_path / "hf", hf_tensors(None), hf_config(**changes))
    with pytest.raises(UserError, match=message):
        described(source)


def test_activation_is_that_of_config(tmp_path):
    for name, act in (("gelu", "gelu"), ("gelu_python", "gelu"), ("gelu_new", "gelu_tanh")):
        source = write_hf(tmp_path / name, hf_tensors(None), hf_config(hidden_act=name))
        card, params, _ = described(source)
        assert card.model["act"] == act
        note = written(card, params, tmp_path / f"{name}_original", "original")
        assert ("the activation is gelu here" in note) == (act == "gelu")
        new = vivit.export(dataclasses.replace(card, provenance={}), "hf", {})
        assert (
            json.loads(new.files["config.json"])["hidden_act"]
            == {
                "gelu": "gelu",
                "gelu_tanh": "gelu_fast",
            }[act]
        )


def test_classifier_without_classes(tmp_path):
    config = hf_config(id2label={}, label2id={})
    tensors = {k: v for k, v in hf_tensors("classify").items() if not k.startswith("classifier")}
    source = write_hf(tmp_path / "hf", tensors, config)
    card, params, _ = described(source)
    assert (card.model["head"], card.model["num_classes"]) == ("classify", 0)
    originals = {"config.json": (tmp_path / "hf/config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert (tmp_path / "out/config.json").read_bytes() == originals["config.json"]
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), tensors)


def test_epsilon_is_that_of_config(tmp_path):
    source = write_hf(tmp_path / "hf", hf_tensors(None), hf_config(layer_norm_eps=1e-5))
    card, params, _ = described(source)
    assert card.model["eps"] == 1e-5
    assert "epsilon is 1e-05 here" in written(card, params, tmp_path / "out", "original")


def test_weights_without_config(tmp_path):
    source = write_hf(tmp_path / "hf", hf_tensors(None), None, None)
    card, _, notes = described(source, heads=4, frames=4, size=8)
    assert "no config.json beside the weights" in notes
    assert card.preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="no model of width 16 was published"):
        described(source, frames=4, size=8)


@pytest.mark.parametrize(
    ("changes", "input_range", "mean", "std", "note"),
    [
        ({}, None, 0.75, 0.25, r"range \[-3, 1\], the net effect.*WARNING.*--input_range=-1,1"),
        ({}, (-1.0, 1.0), 0.5, 0.5, r"range \[-1, 1\], by --input_range, instead of \[-3, 1\]"),
        ({"do_normalize": False}, None, 0.5, 0.5, r"range \[-1, 1\], the net effect"),
        ({"offset": False, "rescale_factor": 1 / 255}, None, 0.5, 0.5, r"range \[-1, 1\]"),
        ({"do_rescale": False, "offset": False}, None, 0.5 / 255, 0.5 / 255, r"\[-1, 509\]"),
        ({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}, None, 0.5, 0.5, r"range \[-1, 1\]"),
        (None, None, 0.5, 0.5, r"range \[-1, 1\], as Scenic trained.*no preprocessor_config"),
    ],
)
def test_input_range(tmp_path, changes, input_range, mean, std, note):
    processor = None if changes is None else PREPROCESSOR | changes
    source = write_hf(tmp_path / "hf", hf_tensors(None), hf_config(), processor)
    card, params, notes = described(source, input_range=input_range)
    np.testing.assert_allclose(card.preprocessing.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(card.preprocessing.std, std, rtol=0, atol=1e-11)
    assert re.search(note, notes)
    # What an export says has the same effect.
    originals = {name: (source / name).read_bytes() for name in os.listdir(source)}
    written(card, params, tmp_path / "out", "hf", originals)
    again = described(tmp_path / "out")[0].preprocessing
    np.testing.assert_allclose(again.mean, card.preprocessing.mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(again.std, card.preprocessing.std, rtol=0, atol=1e-11)


def test_input_range_of_scenic():
    source = GOLDENS / "vivit_spacetime/params.npz"
    assert "input range [-1, 1], as Scenic trains" in described(source, frames=10)[2]
    card, _, notes = described(source, frames=10, input_range=(-3.0, 1.0))
    assert "input range [-3, 1], by --input_range, instead of [-1, 1]" in notes
    assert card.preprocessing.mean == (0.75, 0.75, 0.75)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("vivit_factorised_encoder", "no ViViT with factorisation 'encoder', only the joint"),
        ("vivit_factorised_self_attention", "'self_attention' and pool 'mean'"),
        ("vivit_factorised_dot_product", "export by --format=original"),
    ],
)
def test_what_transformers_cannot_express(folders, tmp_path, case, message):
    with pytest.raises(UserError, match=message):
        exported(folders / case, tmp_path / "out", "hf")


def test_pre_logits_below_a_classifier_are_not_in_transformers(tmp_path):
    formats.write_npz(tmp_path / "a.npz", image_vit())
    card, params, _ = described(tmp_path / "a.npz")
    with pytest.raises(UserError, match="pre-logits below a classifier"):
        written(card, params, tmp_path / "out", "hf")


def test_videomae_has_no_npz(tmp_path):
    source = GOLDENS / "videomae_finetune_meanpool/checkpoint-0.pth"
    to_vidjax(source, tmp_path / "v", heads=4)
    with pytest.raises(UserError, match="--format=npz does not exist for videomae; there are hf"):
        exported(tmp_path / "v", tmp_path / "out", "npz")


# The published models.

SIZES = {  # of the fact sheet: model, clip, parameters
    "B joint": ({"variant": "B", "num_classes": 400}, (32, 224, 224), 88_954_000),
    "B encoder": (
        {"variant": "B", "num_classes": 400, "factorisation": "encoder"},
        (32, 224, 224),
        115_062_928,
    ),
    "L encoder, 24 layers": (
        {"variant": "L", "num_classes": 400, "factorisation": "encoder", "temporal_depth": 24},
        (32, 224, 224),
        606_827_920,
    ),
    "L encoder, SSv2": (
        {"variant": "L", "num_classes": 174, "factorisation": "encoder"},
        (32, 256, 256),
        354_671_790 + (256 - 196) * 1024,  # the sheet counts 224 pixels
    ),
    "B self-attention": (
        {"variant": "B", "num_classes": 400, "factorisation": "self_attention", "pool": "mean"},
        (32, 224, 224),
        117_319_312,
    ),
    "B dot-product": (
        {"variant": "B", "num_classes": 400, "factorisation": "dot_product", "pool": "mean"},
        (32, 224, 224),
        88_952_464,
    ),
}


@pytest.mark.parametrize("size", SIZES)
def test_tables_cover_every_published_size(size):
    """Names and shapes alone lead back to the model, through every format."""
    fields, clip, count = SIZES[size]
    model = models.build("vivit", head="classify", eps=1e-6, clip=clip, **fields)
    want = pretrained.param_specs(model)
    # Zeros without memory: one value, strided.
    params = {k: np.broadcast_to(np.zeros((), np.float32), v.shape) for k, v in want.items()}
    assert sum(value.size for value in params.values()) == count
    card = Card(models.config_of(model), Preprocessing())
    factorisation = model.config["factorisation"]
    joint = factorisation == "joint"
    for format in ("hf", "original", "npz") if joint else ("original", "npz"):
        plan = vivit.export(card, format, {})
        tensors = from_params(params, plan.rules)
        assert len(tensors) == len(set(tensors))
        source = formats.Source(pathlib.Path("x"), tensors, (pathlib.Path(plan.weights),))
        hint = factorisation if factorisation == "dot_product" else None
        conversion = vivit.describe(source, Options(factorisation=hint))
        again = models.build(**conversion.model)
        assert pretrained.param_specs(again) == want
        for key in ("factorisation", "pool", "num_heads", "pos_grid", "patch_size", "eps"):
            assert again.config.get(key) == model.config.get(key), (format, key)
        facts = conversion.preprocessing
        assert (facts.frames, facts.size, facts.short_side) == (*clip[:2], clip[1] + 32)
        assert (facts.temporal_views, facts.spatial_views) == (4, 3)
        assert facts.stride == (1 if fields["num_classes"] == 174 else 2)


def test_published_checkpoints_and_their_data(tmp_path):
    assert all(checkpoint.what for checkpoint in published.CHECKPOINTS.values())
    weights = weights_of("vivit_factorised_encoder")
    folder = tmp_path / "vivit/epic_kitchens/vivit_large_16x2_fe"
    folder.mkdir(parents=True)
    formats.write_msgpack(folder / "checkpoint", weights)
    card, _, notes = described(folder)
    assert "published as ViViT-L/16x2 factorised encoder, Epic-Kitchens" in notes
    facts = card.preprocessing
    assert (facts.stride, facts.spatial_views) == (1, 1)


def test_noun_and_verb_of_epic_kitchens(tmp_path):
    weights = weights_of("vivit_factorised_encoder")
    weights["output_projection/kernel"] = np.zeros((36, 397), np.float32)
    weights["output_projection/bias"] = np.zeros(397, np.float32)
    formats.write_npz(tmp_path / "a.npz", weights)
    card, _, notes = described(tmp_path / "a.npz")
    assert "taken as Epic-Kitchens's 300 nouns and 97 verbs" in notes
    assert card.model["groups"] == [["noun", 300], ["verb", 97]]
