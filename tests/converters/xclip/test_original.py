"""X-CLIP's and CLIP's original files: round trips byte by byte, and the same weights elsewhere."""

import numpy as np
import pytest

from converters import formats
from tests.support.converting import command, same_params, same_tensors
from tests.support.sources.xclip import (
    CHECKPOINT,
    clip_folder,
    clip_tensors,
    converted,
    described,
    hf_folder,
    hf_tensors,
    original,
    written,
)
from vidjax import pretrained
from vidjax.card import Card
from vidjax.errors import UserError


def test_both_homes_of_the_same_weights_are_the_same(tmp_path):
    card, params, notes = described(hf_folder(tmp_path / "hf"))
    same_params(params, converted()[1])
    assert card.model == converted()[0].model
    assert "WARNING" not in notes
    # And from one home to the other.
    assert written(card, params, tmp_path / "original", "original") == ""
    same_tensors(formats.read(tmp_path / "original/checkpoint.pth"), original())
    note = written(*converted(), tmp_path / "again", "hf")
    assert "resize 'mmcv_linear': its inputs differ slightly" in note
    same_tensors(formats.read(tmp_path / "again/model.safetensors"), hf_tensors(original()))
    again = described(tmp_path / "again")[0]
    assert again.model == card.model


def test_clip_in_both_homes(tmp_path):
    card, params, notes = described(clip_folder(tmp_path / "hf"))
    assert (card.model["head"], card.model["pos_grid"]) == ("image_text", [1, 4, 4])
    assert "clips of 8 frames are assumed (--frames=)" in notes
    assert "assumed" not in described(tmp_path / "hf", frames=16)[2]
    # What X-CLIP shares with it has the same names.
    same_params(params, {name: converted()[1][name] for name in params})
    formats.write_torch(tmp_path / "clip.pt", clip_tensors(), None)
    card2, params2, notes = described(tmp_path / "clip.pt")
    same_params(params, params2)
    assert card2.model == card.model
    assert card2.preprocessing == card.preprocessing  # CLIP's, in both
    assert "activation is assumed to be quick_gelu, as in OpenAI's CLIPs" in notes
    written(card, params, tmp_path / "a", "original")
    same_tensors(formats.read(tmp_path / "a/checkpoint.pth"), clip_tensors())
    written(card2, params2, tmp_path / "b", "hf")
    same_tensors(formats.read(tmp_path / "b/model.safetensors"), hf_tensors(clip_tensors()))
    again = described(tmp_path / "b")[0]
    assert (again.model, again.preprocessing) == (card.model, card.preprocessing)


def test_microsofts_file_by_the_command(tmp_path):
    """Its epoch_saving writes an optimiser and a pickled yacs config beside the weights."""
    report = command(CHECKPOINT, tmp_path / "v")
    assert "xclip, head video_text, original" in report
    command(tmp_path / "v", tmp_path / "out", "original")
    # Its load_checkpoint looks under "model".
    formats.write_torch(tmp_path / "a.pth", original(), "model")
    sizes = [(tmp_path / name).stat().st_size for name in ("out/checkpoint.pth", "a.pth")]
    assert sizes[0] == sizes[1]
    same_tensors(formats.read(tmp_path / "out/checkpoint.pth"), original())
    formats.write_torch(tmp_path / "bare.pth", original(), None)
    same_params(described(tmp_path / "bare.pth")[1], converted()[1])


OPENAI = {"input_resolution": 32, "context_length": 77, "vocab_size": 200}


def openai_tensors():
    """In its archives, norms and tables are in float32 and what a GPU multiplies in float16."""
    wide = ("ln_", "positional_embedding", "class_embedding", "token_embedding", "logit_scale")
    tensors = {
        name: t if any(part in name for part in wide) else t.astype(np.float16)
        for name, t in clip_tensors().items()
    }
    return tensors | {name: np.array(value) for name, value in OPENAI.items()}


def test_openais_file_by_the_command(tmp_path):
    formats.write_torch(tmp_path / "ViT-B-32.pt", openai_tensors(), None)
    report = command(tmp_path / "ViT-B-32.pt", tmp_path / "v")
    assert "left out 3 tensors (input_resolution, ...): told by the other tensors' shapes" in report
    assert "float16 and float32 in the file, float32 here" in report
    assert "train --config=configs/xclip_k400.py --config.init=" in report
    command(tmp_path / "v", tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out/checkpoint.pth"), openai_tensors())
    wrong = openai_tensors() | {"input_resolution": np.array(224)}
    formats.write_torch(tmp_path / "wrong.pt", wrong, None)
    with pytest.raises(UserError, match=r"cannot ignore input_resolution: 224, not 32"):
        described(tmp_path / "wrong.pt")


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_wrapped_modules(tmp_path, wrapper):
    """Names as DistributedDataParallel and torch.compile save them."""
    tensors = {wrapper + name: t for name, t in original().items()}
    formats.write_torch(tmp_path / "a.pth", tensors)
    command(tmp_path / "a.pth", tmp_path / "v")
    same_params(pretrained.open_params(tmp_path / "v"), converted()[1])
    command(tmp_path / "v", tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out/checkpoint.pth"), tensors)
    # transformers would find nothing by such names.
    tensors = hf_tensors(original())
    source = hf_folder(tmp_path / "hf", {wrapper + name: t for name, t in tensors.items()})
    command(source, tmp_path / "w")
    same_params(pretrained.open_params(tmp_path / "w"), converted()[1])
    command(tmp_path / "w", tmp_path / "again", "hf")
    same_tensors(formats.read(tmp_path / "again/model.safetensors"), tensors)


def test_clips_of_other_kinds(tmp_path):
    tensors = {"visual.attnpool.positional_embedding": np.zeros((50, 8), np.float32)}
    formats.write_torch(tmp_path / "rn50.pt", clip_tensors() | tensors, None)
    with pytest.raises(UserError, match=r"CLIP with a ResNet for images; .* such as ViT-B-32"):
        described(tmp_path / "rn50.pt")
    tensors = hf_tensors(clip_tensors())
    tensors = dict(original())
    del tensors["mit.positional_embedding"]
    formats.write_torch(tmp_path / "half.pth", tensors)
    with pytest.raises(UserError, match=r"looks like X-CLIP or CLIP, but has no tensor mit\.pos"):
        described(tmp_path / "half.pth")


def test_what_other_homes_cannot_express(tmp_path):
    card, params = converted()

    def having(**fields):
        return Card(card.model | fields, card.preprocessing)

    for format, fields, message in (
        (
            "hf",
            {"prompt_mlp_dim": 99},
            "transformers has no X-CLIP with prompt_mlp_dim 99 instead of 256",
        ),
        ("hf", {"pos_grid": [5, 4, 2]}, "4 x 2 patches of 8 x 8 pixels"),
        (
            "original",
            {"mit_mlp_dim": 99},
            "the original code has no X-CLIP with mit_mlp_dim 99 instea",
        ),
        ("original", {"mlp_dim": 99, "text_mlp_dim": 98}, "text_mlp_dim 98 .* and mlp_dim 99"),
        ("original", {"head": "distil"}, "no X-CLIP with head 'distil'"),
    ):
        with pytest.raises(UserError, match=message):
            written(having(**fields), params, tmp_path / "a", format)


def test_heads_of_the_originals_are_64_wide():
    card, _ = converted()
    heads = [card.model[f"{part}num_heads"] for part in ("", "text_", "mit_", "prompt_")]
    assert heads == [1, 2, 1, 1]
