"""Files of VideoMAE's original code: round trips byte by byte, and other spellings."""

import re

import numpy as np
import pytest

from converters import formats
from tests.support.converting import command, params_of, same_params, same_tensors
from tests.support.sources.videomae import CASES, checkpoint, tensors_of
from vidjax import pretrained
from vidjax.card import read_card
from vidjax.errors import UserError


@pytest.mark.parametrize("case", CASES)
def test_original_round_trip(folders, tmp_path, case):
    command(folders / case, tmp_path / "out", "original")
    again = formats.read(tmp_path / "out" / "checkpoint.pth")
    same_tensors(again, formats.read(checkpoint(case)))


@pytest.mark.parametrize(
    ("case", "rename"),
    [
        ("videomae_finetune_meanpool", "module.{}"),
        ("videomae_finetune_meanpool", "model.{}"),
        ("videomae_finetune_meanpool", "backbone.{}"),
        ("videomae_pretrain", "module.{}"),
    ],
)
def test_prefixed_names(folders, tmp_path, case, rename):
    tensors = {rename.format(name): tensor for name, tensor in tensors_of(case).items()}
    formats.write_torch(tmp_path / "a.pth", tensors)
    command(tmp_path / "a.pth", tmp_path / "v", **CASES[case])
    same_params(tmp_path / "v", folders / case)
    command(tmp_path / "v", tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.pth"), tensors)


def test_encoder_prefix_beside_a_bare_head(folders, tmp_path):
    case = "videomae_finetune_meanpool"
    tensors = {
        name if name.startswith(("head.", "fc_norm.")) else f"encoder.{name}": tensor
        for name, tensor in tensors_of(case).items()
    }
    formats.write_torch(tmp_path / "a.pth", tensors)
    command(tmp_path / "a.pth", tmp_path / "v", **CASES[case])
    same_params(tmp_path / "v", folders / case)


def test_encoder_of_a_pretrained_file(folders, tmp_path):
    case = "videomae_pretrain"
    tensors = {n: t for n, t in tensors_of(case).items() if n.startswith("encoder.")}
    formats.write_torch(tmp_path / "a.pth", tensors)
    command(tmp_path / "a.pth", tmp_path / "v", **CASES[case])
    assert read_card(tmp_path / "v").model["head"] is None
    whole = params_of(folders / case)
    for name, array in pretrained.open_params(tmp_path / "v").items():
        np.testing.assert_array_equal(array, whole[name])


def test_half_precision_is_widened_and_restored(tmp_path):
    case = "videomae_finetune_meanpool"
    half = {name: tensor.astype(np.float16) for name, tensor in tensors_of(case).items()}
    half["head.bias"] = half["head.bias"].astype(np.float32)
    formats.write_torch(tmp_path / "a.pth", half)
    report = command(tmp_path / "a.pth", tmp_path / "v", **CASES[case])
    assert "float16" in report
    params = pretrained.open_params(tmp_path / "v")
    assert {params[name].dtype for name in params} == {np.dtype(np.float32)}
    command(tmp_path / "v", tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.pth"), half)


def test_weights_that_are_no_longer_half_precision_stay_float32(tmp_path):
    case = "videomae_finetune_meanpool"
    half = {name: tensor.astype(np.float16) for name, tensor in tensors_of(case).items()}
    formats.write_torch(tmp_path / "a.pth", half)
    command(tmp_path / "a.pth", tmp_path / "v", **CASES[case])
    params = pretrained.load_params(tmp_path / "v")
    params["head"]["bias"] = params["head"]["bias"] + np.float32(1e-7)
    pretrained.save_pretrained(tmp_path / "v", params, read_card(tmp_path / "v"))
    report = command(tmp_path / "v", tmp_path / "out", "original")
    assert "exported as float32" in report
    again = formats.read(tmp_path / "out" / "checkpoint.pth")
    np.testing.assert_array_equal(again["head.bias"], params["head"]["bias"])


def test_position_table_is_checked_and_left_out(folders, tmp_path):
    case = "videomaev2_finetune"
    table = layers_table(16, 33)
    tensors = tensors_of(case) | {"pos_embed": table[None]}
    formats.write_torch(tmp_path / "a.pth", tensors)
    report = command(tmp_path / "a.pth", tmp_path / "v", **CASES[case])
    assert re.search("pos_embed.*sine-cosine", report)
    same_params(tmp_path / "v", folders / case)

    formats.write_torch(tmp_path / "b.pth", tensors | {"pos_embed": table[None] + 1e-3})
    with pytest.raises(UserError, match=r"pos_embed.*differs from the fixed sine-cosine table"):
        command(tmp_path / "b.pth", tmp_path / "w", **CASES[case])
    assert not (tmp_path / "w").exists()


def layers_table(num_positions, width):
    """The reference's get_sinusoid_encoding_table, as a loop."""
    table = np.array(
        [
            [p / np.power(10000, 2 * (j // 2) / width) for j in range(width)]
            for p in range(num_positions)
        ]
    )
    table[:, 0::2], table[:, 1::2] = np.sin(table[:, 0::2]), np.cos(table[:, 1::2])
    return table.astype(np.float32)


@pytest.mark.parametrize(
    ("change", "option"),
    [
        (lambda t: {n: x for n, x in t.items() if "_bias" not in n}, r"\(qkv_bias=False\)"),
        (lambda t: t | {"blocks.0.gamma_1": np.ones(33, np.float32)}, "layer scale"),
        (lambda t: t | {"blocks.0.attn.scale": np.ones((3, 1, 1), np.float32)}, "cosine attention"),
    ],
)
def test_options_of_the_originals_that_no_release_uses(tmp_path, change, option):
    formats.write_torch(tmp_path / "a.pth", change(tensors_of("videomaev2_finetune")))
    with pytest.raises(UserError, match=f"^the file's VideoMAE has [^\n]*{option}[^\n]*$"):
        command(tmp_path / "a.pth", tmp_path / "v", **CASES["videomaev2_finetune"])
