"""Checks that are the same for every family: whose a file is, configs that lie, new exports."""

import functools

import pytest

from converters import formats, registry
from tests.support.converting import command, described, same_tensors, written
from tests.support.goldens import GOLDENS
from tests.support.hugging_face import nested
from tests.support.sources import videomae, videoprism, vivit, xclip
from vidjax.card import Card
from vidjax.errors import UserError

SOURCES = {"videomae": videomae, "vivit": vivit, "xclip": xclip, "videoprism": videoprism}
FAMILIES = registry.families()


def claims(path):
    """Names of the families that recognise a source."""
    source = formats.open_source(path)
    return [name for name, module in FAMILIES.items() if module.recognises(source)]


def test_golden_files_are_claimed_by_their_family_alone():
    names = ("checkpoint*", "params.npz", "preset")
    paths = [path for name in names for path in GOLDENS.glob(f"*/{name}")]
    assert len(paths) > 15
    for path in paths:
        case = path.parent.name.removeprefix("kerashub_").replace("videomaev2", "videomae")
        if path.name == "preset":
            pytest.importorskip("h5py")
        assert claims(path) == [case.partition("_")[0]], path


@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_face_folders_are_claimed_by_their_family_alone(tmp_path, family):
    assert claims(SOURCES[family].hf_folder(tmp_path / "hf")) == [family]


def test_parts_of_models_are_claimed_by_their_family_alone(tmp_path):
    formats.write_torch(tmp_path / "clip.pt", xclip.clip_tensors(), None)
    clips = [tmp_path / "clip.pt", xclip.clip_folder(tmp_path / "clip")]
    for name in ("vision", "text"):
        clips.append(xclip.hf_folder(tmp_path / name, xclip.tower(name, ""), None))
    for path in clips:
        assert claims(path) == ["xclip"]
    start = "video_model.vision_model."
    tensors = videoprism.hf_tensors(videoprism.lvt_tensors())
    tensors = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    assert claims(videoprism.hf_folder(tmp_path / "encoder", tensors)) == ["videoprism"]


# Family, part of config.json, changes there, message.
CONTRADICTIONS = [
    (
        "videomae",
        None,
        {"hidden_act": "gelu_new"},
        "hidden_act 'gelu_new', and VideoMAE here computes gelu, ",
    ),
    ("videomae", None, {"hidden_size": 32}, "hidden_size 32 instead of 16"),
    ("videomae", None, {"num_hidden_layers": 3}, "num_hidden_layers 3 instead of 2"),
    ("videomae", None, {"use_mean_pooling": False}, "use_mean_pooling False instead of True"),
    ("videomae", None, {"num_attention_heads": 5}, "5 does not divide the width 16"),
    (
        "vivit",
        None,
        {"hidden_act": "silu"},
        "hidden_act 'silu', and ViViT here computes gelu, .*relu only",
    ),
    ("vivit", None, {"hidden_size": 32}, "hidden_size 32 instead of 16"),
    ("vivit", None, {"num_hidden_layers": 3}, "num_hidden_layers 3 instead of 2"),
    (
        "vivit",
        None,
        {"tubelet_size": [2, 16, 16]},
        r"tubelet_size \[2, 16, 16\] instead of \[2, 4, 4\]",
    ),
    ("vivit", None, {"qkv_bias": False}, "qkv_bias false"),
    ("vivit", None, {"num_attention_heads": 5}, "5 does not divide the width 16"),
    (
        "vivit",
        None,
        {"image_size": 16},
        "4 frames of 16 pixels do not have; it fits .*--frames=4 --size=8",
    ),
    ("vivit", None, {"image_size": [8, 12]}, "only square frames"),
    ("vivit", None, {"num_frames": 8}, "8 frames of 8 pixels do not have"),
    ("xclip", "text_config", {"hidden_act": "gelu"}, "different values of hidden_act"),
    (
        "xclip",
        None,
        {"prompt_hidden_act": "gelu"},
        "hidden_act .*vision_config quick_gelu, prompts gelu",
    ),
    ("xclip", "text_config", {"layer_norm_eps": 1e-6}, "different values of layer_norm_eps"),
    ("xclip", "text_config", {"num_hidden_layers": 2}, "num_hidden_layers 2 instead of 1"),
    ("xclip", "text_config", {"vocab_size": 99}, "vocab_size 99 instead of 200"),
    ("xclip", "vision_config", {"num_frames": 8}, "num_frames 8 instead of 5"),
    ("xclip", "vision_config", {"image_size": 64}, "8 x 8 patches, but .* table is for 4 x 4"),
    ("xclip", "vision_config", {"mit_hidden_size": 32}, "mit_hidden_size 32 instead of 64"),
    ("xclip", "vision_config", {"num_attention_heads": 3}, "3 does not divide the width 64"),
    ("xclip", None, {"projection_dim": 32}, "projection_dim 32 instead of 64"),
    ("xclip", None, {"prompt_layers": 3}, "prompt_layers 3 instead of 2"),
    ("xclip", None, {"text_config_dict": {"hidden_size": 256}}, "hidden_size 256 instead of 128"),
    ("videoprism", "vision_config", {"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'"),
    ("videoprism", "text_config", {"hidden_act": "gelu"}, r"\(text_config\) has hidden_act 'gelu'"),
    ("videoprism", "vision_config", {"qkv_bias": False}, "qkv_bias False"),
    ("videoprism", "text_config", {"apply_l2norm": False}, "apply_l2norm False"),
    ("videoprism", "vision_config", {"num_frames": 16}, "num_frames 16 instead of 4"),
    (
        "videoprism",
        "vision_config",
        {"num_auxiliary_layers": 3},
        "num_auxiliary_layers 3 instead of 2",
    ),
    ("videoprism", "text_config", {"num_hidden_layers": 3}, "num_hidden_layers 3 instead of 4"),
    (
        "videoprism",
        "vision_config",
        {"image_size": 48},
        "6 x 6 patches, but the position table is for 9",
    ),
    ("videoprism", "vision_config", {"num_attention_heads": 3}, "3 does not divide the width 32"),
    (
        "videoprism",
        "text_config",
        {"layer_norm_eps": 1e-5},
        "different values of layer_norm_eps .vision_config 1e-06, text_config",
    ),
]


@pytest.mark.parametrize(("family", "part", "changes", "message"), CONTRADICTIONS)
def test_config_that_contradicts_the_tensors(tmp_path, family, part, changes, message):
    sources = SOURCES[family]
    config = nested(sources.HF_CONFIG, part, **changes) if part else sources.HF_CONFIG | changes
    sources.hf_folder(tmp_path / "hf", config=config)
    with pytest.raises(UserError, match=message):
        command(tmp_path / "hf", tmp_path / "v")
    assert {path.name for path in tmp_path.iterdir()} == {"hf"}


# VideoPrism's folders hold a table that is made anew, but rounded otherwise: see its own test.
EXPORTS = [
    ("videomae", videomae.hf_folder, "hf"),
    ("vivit", vivit.hf_folder, "hf"),
    ("xclip", xclip.hf_folder, "hf"),
    ("videoprism", functools.partial(videoprism.preset, videoprism.KERAS[0]), "keras"),
    ("videoprism", functools.partial(videoprism.preset, videoprism.KERAS[1]), "keras"),
]


@pytest.mark.parametrize(("family", "make", "format"), EXPORTS)
def test_export_of_a_model_trained_here(tmp_path, family, make, format):
    """It has no source, so every file is made anew."""
    module = FAMILIES[family]
    card, params, _ = described(module, make(tmp_path / "source"))
    trained = Card(card.model, card.preprocessing, card.classes)
    written(module, trained, params, tmp_path / "anew", format)
    same_tensors(*(formats.open_source(tmp_path / x).tensors for x in ("anew", "source")))
    again = described(module, tmp_path / "anew")[0]
    assert again.model == card.model
    assert (again.preprocessing, again.classes) == (card.preprocessing, card.classes)
