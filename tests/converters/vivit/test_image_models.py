"""Image models, and models of frames sampled uniformly: 2-D patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters import formats
from tests.support.converting import command, same_tensors
from tests.support.sources.vivit import described, flat, image_vit, weights_of, written
from vidjax import pretrained
from vidjax.card import read_card
from vidjax.errors import UserError


def test_image_vit(tmp_path):
    tensors = image_vit()
    formats.write_npz(tmp_path / "a.npz", tensors)
    report = command(tmp_path / "a.npz", tmp_path / "v")
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
