"""VideoPrism in KerasHub's format."""

import json
import shutil

import numpy as np
import pytest

from converters import formats
from tests.support.converting import assert_comes_back
from tests.support.sources.videoprism import KERAS, converted, described, preset, written
from vidjax.card import read_card
from vidjax.errors import UserError


def test_scales_kept_as_they_are_in_kerashub(tmp_path):
    source = preset(KERAS[1], tmp_path / "preset")
    card, params, notes = described(source)
    assert card.model["scale_offset"] == 0.0
    assert "exports to its format only" in notes
    scale = params["encoder/spatial/norm/scale"]
    gamma = formats.read(source / formats.KERAS_WEIGHTS)[
        "layers/video_prism_encoder/layer_norm/vars/0"
    ]
    assert scale.tobytes() == gamma.tobytes()
    for format in ("hf", "original"):
        with pytest.raises(UserError, match=r"scales less 1, .* held as they are used"):
            written(card, params, tmp_path / format, format)
    card, params = converted("videoprism_lvt")
    with pytest.raises(UserError, match=r"scales as they are used, .* held less 1"):
        written(card, params, tmp_path / "keras", "keras")


def test_order_of_kerashubs_encoders(tmp_path):
    source = preset(KERAS[1], tmp_path / "preset")
    tensors, params = formats.read(source / formats.KERAS_WEIGHTS), described(source)[1]
    for number, ours in (("", "encoder/spatial"), ("_1", "encoder/temporal"), ("_2", "text")):
        ours = params[f"{ours}/blocks/mlp/fc1/kernel"]
        start = f"layers/video_prism_encoder{number}/encoder_layers/video_prism_encoder_block"
        for layer, kernel in enumerate(ours):
            suffix = f"_{layer}" if layer else ""
            np.testing.assert_array_equal(kernel, tensors[f"{start}{suffix}/mlp/dense_1/vars/0"])
    start = "layers/video_prism_encoder_3/encoder_layers/video_prism_encoder_block"
    kernel = params["auxiliary/blocks/mlp/fc1/kernel"]
    np.testing.assert_array_equal(kernel[1], tensors[f"{start}_1/mlp/dense_1/vars/0"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_dim": 48}, "hidden_dim 48 instead of 24"),
        ({"num_heads": 2}, "num_heads 2 instead of 4"),
        ({"num_temporal_layers": 4}, "num_temporal_layers 4 instead of 1"),
        ({"image_shape": [40, 40, 3]}, r"image_shape \[40, 40, 3\] instead of \[24, 24, 3\]"),
        ({"vocabulary_size": 32000}, "vocabulary_size 32000 instead of 211"),
    ],
)
def test_keras_config_that_contradicts_the_tensors(tmp_path, changes, message):
    source = preset(KERAS[1], tmp_path / "preset")
    config = json.loads((source / "config.json").read_text())
    config["config"] |= changes
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        described(source)


def test_numerics_of_kerashub_are_those_of_its_config(tmp_path):
    source = preset(KERAS[0], tmp_path / "preset")
    config = json.loads((source / "config.json").read_text())
    config["config"] |= {"attention_logit_soft_cap": None, "layer_norm_epsilon": 1e-5}
    (source / "config.json").write_text(json.dumps(config))
    card, params, _ = described(source)
    assert (card.model["softcap"], card.model["eps"]) == (0.0, 1e-5)
    originals = {name: (source / name).read_bytes() for name in ("config.json", "metadata.json")}
    written(card, params, tmp_path / "out", "keras", originals)
    assert (tmp_path / "out/config.json").read_bytes() == originals["config.json"]


def test_kerashub_round_trip_by_the_command(tmp_path, vocabulary):
    source = preset(KERAS[1], tmp_path / "preset")
    (source / "tokenizer.json").write_text('{"class_name": "VideoPrismTokenizer"}')
    (source / "assets/tokenizer").mkdir(parents=True)
    shutil.copyfile(vocabulary, source / "assets/tokenizer/vocabulary.spm")
    assert_comes_back(source, tmp_path, "keras")
    card = read_card(tmp_path / "v")
    assert card.tokenizer["file"] == "tokenizer.model"
    assert len(list((tmp_path / "out").rglob("*.*"))) == 6
