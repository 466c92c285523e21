"""Configs of transformers at the edges of what the released models have: outputs, and the way back.

Models are tiny, every tensor is random, all is computed in float64.
"""

import json

import jax
import numpy as np
import pytest

from converters import Options, convert
from vidjax import load_model
from vidjax.errors import UserError

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.23")

import transformers  # noqa: E402

SIZES = {
    "num_attention_heads": 2,
    "hidden_size": 24,
    "intermediate_size": 40,
    "image_size": 16,
    "num_frames": 4,
}
VIDEOMAE = SIZES | {
    "patch_size": 8,
    "num_hidden_layers": 2,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 24,
}
VIVIT = SIZES | {"num_hidden_layers": 2, "tubelet_size": [2, 8, 8]}
VIDEOPRISM = SIZES | {
    "tubelet_size": [1, 8, 8],
    "num_spatial_layers": 2,
    "num_temporal_layers": 1,
    "num_auxiliary_layers": 1,
}
TEXT = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "bos_token_id": 58,
    "eos_token_id": 59,
}
LONGER = TEXT | {"vocab_size": 64}  # goes on after the end of texts
VISION = VIDEOMAE | {"num_frames": 4}
CLIP = {"projection_dim": 20, "vision_config": VISION}
XCLIP = {
    "projection_dim": 64,
    "prompt_num_attention_heads": 1,
    "text_config": TEXT,
    "vision_config": VISION
    | {"mit_hidden_size": 64, "mit_intermediate_size": 256, "mit_num_attention_heads": 1},
}
CLASSES, NONE = {"num_labels": 3}, {"num_labels": 0}
FIRST = {"use_mean_pooling": False}
REST = {"image_size": 18, "num_frames": 5}

# Name of the model, of its config, and what the config says.
CASES = [
    ("VideoMAEModel", VIDEOMAE | {"image_size": [16, 16]}),
    ("VideoMAEModel", VIDEOMAE | {"patch_size": [8, 8]}),
    ("VideoMAEModel", VIDEOMAE | {"patch_size": [8, 4]}),
    ("VideoMAEModel", VIDEOMAE | {"hidden_act": "gelu_python"}),
    ("VideoMAEForVideoClassification", VIDEOMAE | REST | CLASSES),
    ("VideoMAEForVideoClassification", VIDEOMAE | NONE),
    ("VideoMAEForVideoClassification", VIDEOMAE | NONE | FIRST),
    ("VideoMAEForPreTraining", VIDEOMAE | FIRST | {"norm_pix_loss": False}),
    ("VivitModel", VIVIT | {"image_size": [16, 16]}),
    ("VivitModel", VIVIT | {"hidden_act": "gelu_python"}),
    ("VivitForVideoClassification", VIVIT | CLASSES | {"hidden_act": "gelu"}),
    ("VivitForVideoClassification", VIVIT | NONE),
    ("VivitForVideoClassification", VIVIT | REST | CLASSES),
    ("VideoPrismVisionModel", VIDEOPRISM | {"image_size": [8, 32]}),
    ("VideoPrismVisionModel", VIDEOPRISM | {"image_size": 18}),
    ("VideoPrismVisionModel", VIDEOPRISM | {"num_temporal_layers": 0}),
    ("VideoPrismForVideoClassification", VIDEOPRISM | CLASSES | {"intermediate_size": 41}),
    ("CLIPModel", CLIP | {"text_config": TEXT}),
    ("CLIPModel", CLIP | {"text_config": LONGER}),
    ("CLIPModel", CLIP | {"text_config": TEXT | {"eos_token_id": 2}}),
    ("CLIPModel", CLIP | {"text_config": TEXT, "vision_config": VISION | {"image_size": 18}}),
    ("CLIPTextModel", LONGER),
    ("CLIPTextModelWithProjection", LONGER | {"projection_dim": 20}),
    ("CLIPVisionModel", VISION),
    ("CLIPVisionModelWithProjection", VISION | {"projection_dim": 20}),
    ("XCLIPModel", XCLIP),
    ("XCLIPModel", XCLIP | {"text_config": LONGER}),  # transformers takes the largest id
    ("XCLIPTextModel", LONGER),
    ("XCLIPVisionModel", VISION | {"image_size": 18}),
]
# The reference computes its softmax in float32 there.
TOLERANCE = {"VideoPrism": 1e-6}
DEFAULT_TOLERANCE = 5e-12  # FastGELU has sqrt(2 / pi) to twelve digits


def reference(name, config):
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind._from_config(kind.config_class(**config))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if parameter.ndim == 1 and "norm" in key and key.endswith("weight"):
                parameter.add_(1)
    return model.eval()


def inputs(config):
    """A video for the config, and texts of which some hold ids above their end."""
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", 16)
    height, width = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(0)
    video = rng.standard_normal((2, getattr(vision, "num_frames", 4), height, width, 3))
    vocab_size = getattr(getattr(config, "text_config", config), "vocab_size", 60)
    text = rng.integers(0, 59, (3, 12))
    for row, length in enumerate((4, 7, 11)):
        text[row, length:] = 59
        text[row, 2] = vocab_size - 1 if vocab_size > 60 else 5
    return video, text


def masked(model, video):
    """Token indices, of which the first half is kept."""
    t, h, w = model.patch_size
    tokens = (video.shape[1] // t) * (video.shape[2] // h) * (video.shape[3] // w)
    return np.split(np.tile(np.arange(tokens), (len(video), 1)), 2, axis=1)


@torch.no_grad()
def theirs(name, model, video, text):
    model = model.double()
    pixels = torch.from_numpy(video.transpose(0, 1, 4, 2, 3))
    frames, ids = pixels.flatten(0, 1), torch.from_numpy(text)
    match name:
        case "VideoMAEForPreTraining":
            mask = torch.arange(model.videomae.embeddings.num_patches)
            mask = (mask >= len(mask) // 2).expand(len(video), -1)
            return model(pixels, bool_masked_pos=mask).logits
        case "CLIPTextModelWithProjection":
            return model(ids).text_embeds
        case "CLIPVisionModelWithProjection":
            return model(frames).image_embeds.unflatten(0, (len(video), -1))
        case "CLIPVisionModel" | "XCLIPVisionModel":
            return model(frames).pooler_output.unflatten(0, (len(video), -1))
        case "CLIPTextModel" | "XCLIPTextModel":
            return model(ids).pooler_output
        case "CLIPModel":
            return model(input_ids=ids, pixel_values=frames).text_embeds
        case "XCLIPModel":
            return model(input_ids=ids, pixel_values=pixels).logits_per_video
        case "VideoPrismForVideoClassification":
            return model(pixels).logits[:, 0]
        case _ if name.endswith("Classification"):
            return model(pixels).logits
    return model(pixels).last_hidden_state


def ours(name, folder, video, text):
    loaded = load_model(folder, "float64")
    params = jax.tree.map(lambda x: x.astype("float64"), loaded.params)
    head, method = loaded.card.model["head"], None
    if head == "reconstruct":
        arguments = (video, *masked(loaded.model, video))
    elif name == "CLIPModel":
        arguments, method = (text,), "encode_text"
    elif head == "text":
        arguments = (text,)
    elif name == "XCLIPModel":
        arguments = (video, text)
    else:
        arguments, method = (video,), "frame_vectors" if "CLIP" in name else None
    return np.asarray(loaded.model.apply({"params": params}, *arguments, method=method))


@pytest.mark.parametrize(("name", "config"), CASES, ids=[name for name, _ in CASES])
def test_outputs_and_the_way_back(tmp_path, name, config):
    model = reference(name, config)
    model.save_pretrained(tmp_path / "hf")
    convert.convert(str(tmp_path / "hf"), tmp_path / "ours", options=Options())
    video, text = inputs(model.config)
    expected = theirs(name, model, video, text).numpy()
    with jax.enable_x64(True):
        found = ours(name, tmp_path / "ours", video, text)
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"\n{name}: {error:.2g}")
    family = next((key for key in TOLERANCE if name.startswith(key)), None)
    assert error < TOLERANCE.get(family, DEFAULT_TOLERANCE)
    # The model takes the clip that its card prepares.
    loaded = load_model(tmp_path / "ours")
    if loaded.card.model["head"] != "text":
        clip = loaded.preprocess(np.zeros((40, 30, 50, 3), np.uint8))
        loaded.model.apply({"params": loaded.params}, clip, method="embed")

    convert.convert(str(tmp_path / "ours"), tmp_path / "back", "hf", options=Options())
    before, after = (json.loads((tmp_path / x / "config.json").read_text()) for x in ("hf", "back"))
    assert after == before
    again = type(model).from_pretrained(tmp_path / "back").eval()
    np.testing.assert_array_equal(theirs(name, again, video, text), expected)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("VideoMAEModel", VIDEOMAE | {"image_size": [8, 32]}, "only square frames can be prepared"),
        ("VideoMAEModel", VIDEOMAE | {"qv_bias": False}, r"no biases .*\(qkv_bias=False\)"),
        ("VideoMAEModel", VIDEOMAE | {"hidden_act": "silu"}, "hidden_act 'silu', and VideoMAE"),
        ("VideoMAEModel", VIDEOMAE | {"num_channels": 1}, "num_channels 1; expected 3"),
        ("VivitModel", VIVIT | {"image_size": [8, 32]}, "only square frames can be prepared"),
        ("VivitModel", VIVIT | {"qkv_bias": False}, "qkv_bias false"),
        ("VivitModel", VIVIT | {"hidden_act": "silu"}, "hidden_act 'silu', and ViViT"),
        ("VideoPrismVisionModel", VIDEOPRISM | {"qkv_bias": False}, "qkv_bias False"),
        ("VideoPrismForVideoClassification", VIDEOPRISM | NONE, "num_labels 0, with which"),
        ("CLIPVisionModel", VISION | {"hidden_act": "silu"}, "hidden_act 'silu', and X-CLIP"),
    ],
)
def test_refused_in_one_sentence(tmp_path, name, config, message):
    reference(name, config).save_pretrained(tmp_path / "hf")
    with pytest.raises(UserError, match=message) as error:
        convert.convert(str(tmp_path / "hf"), tmp_path / "ours", options=Options())
    assert "\n" not in str(error.value)
