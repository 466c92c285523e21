"""Random VideoPrisms of transformers against ours, converted by the real command.

Every tensor is random, also scales, biases, tokens and positions. The encoder and the video-text
model have the released base size, 288 pixels and 12 layers, but clips of 2 frames where the
released have 16 (the position table is as long as the clip): minutes and 6 GB on 2 cores. The other
models are small.
"""

import json

import jax
import numpy as np
import pytest

from tests.support.round_trip import check_back_to_hugging_face, command
from vidjax import load_model, pretrained
from vidjax.card import Card
from vidjax.models.layers import positions

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.23")

import transformers  # noqa: E402

SMALL = {
    "image_size": 32,
    "num_frames": 3,
    "tubelet_size": [1, 8, 8],
    "hidden_size": 48,
    "num_attention_heads": 4,
    "intermediate_size": 144,  # not 4 times the width: the pooler's is this, too
    "num_spatial_layers": 3,
    "num_temporal_layers": 2,
    "num_auxiliary_layers": 2,
}
SMALL_TEXT = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
}
VISION, TEXT = transformers.VideoPrismVisionConfig, transformers.VideoPrismTextConfig
CLIP = transformers.VideoPrismConfig
BASE = {"num_frames": 2}


def clip(vision, text):
    return CLIP(vision_config=VISION(**vision).to_dict(), text_config=TEXT(**text).to_dict())


FORMS = {
    "VisionModel": (None, lambda: VISION(**SMALL)),
    "VideoModel": ("video", lambda: VISION(**SMALL)),
    "TextModel": ("text", lambda: TEXT(**SMALL_TEXT)),
    "ClipModel": ("video_text", lambda: clip(SMALL, SMALL_TEXT)),
    "ForVideoClassification": ("classify", lambda: VISION(**SMALL, num_labels=7)),
    "VisionModel-base": (None, lambda: VISION(**BASE)),
    "ClipModel-base": ("video_text", lambda: clip(BASE, {})),
}
# Of the largest value of the reference.
TOLERANCE = {"tokens": 2e-5, "video": 2e-6, "text": 2e-6, "logits": 2e-6}
TOLERANCE64 = 1e-10


@pytest.fixture(scope="module", params=list(FORMS))
def form(request, tmp_path_factory):
    """Head, transformers' model, and our folder converted from what it saved."""
    head, config = FORMS[request.param]
    torch.manual_seed(0)
    name = "VideoPrism" + request.param.partition("-")[0]
    cls = getattr(transformers, name)
    reference = cls._from_config(config(), attn_implementation="eager")
    with torch.no_grad():
        for key, parameter in reference.named_parameters():
            # Tokens are multiplied by sqrt(D), and the pooler's query starts with deviation 1.
            scale = 0.5 if "attention_query" in key else 0.03 if parameter.ndim > 1 else 0.1
            parameter.normal_(0, scale)
    folder = tmp_path_factory.mktemp("parity")
    reference.eval().save_pretrained(folder / "hf")
    command(f"--from={folder}/hf", f"--to={folder}/vidjax")
    yield head, reference, folder
    for path in folder.rglob("*"):  # gigabytes
        if path.is_file():
            path.unlink()


@pytest.fixture(scope="module")
def inputs(form):
    """A video, and texts of 7, 20 and all 64 tokens, padded to 64."""
    head, reference, _ = form
    config = reference.config
    rng = np.random.default_rng(0)
    found = {}
    if head != "text":
        vision = config.vision_config if head == "video_text" else config
        shape = (1, vision.num_frames, vision.image_size, vision.image_size, 3)
        found["video"] = rng.random(shape, np.float32)
    if head in ("text", "video_text"):
        vocab = (config.text_config if head == "video_text" else config).vocab_size
        mask = np.arange(64) < np.array([[7], [20], [64]])
        found["text"] = np.where(mask, rng.integers(3, vocab, mask.shape), 0).astype(np.int32)
        found["mask"] = mask
    return found


def run_reference(head, reference, inputs, dtype):
    reference = reference.to(dtype)
    found = {}
    with torch.no_grad():
        if "video" in inputs:
            pixels = torch.from_numpy(inputs["video"].transpose(0, 1, 4, 2, 3)).to(dtype)
            video = reference.video_model if head == "video_text" else reference
            encoder = video if head is None else video.vision_model
            hook = encoder.register_forward_hook(
                lambda *a: found.update(tokens=a[2].last_hidden_state)
            )
            out = video(pixel_values_videos=pixels)
            hook.remove()
            if head == "classify":
                found["logits"] = out.logits[:, 0]  # [B, 1, C]
            elif head is not None:
                found["video"] = out.pooler_output[:, 0]
        if "text" in inputs:
            text = reference.text_model if head == "video_text" else reference
            ids, mask = (torch.from_numpy(inputs[key]).long() for key in ("text", "mask"))
            found["text"] = text(input_ids=ids, attention_mask=mask).pooler_output
    return {name: value.numpy() for name, value in found.items()}


def run_ours(head, folder, inputs, dtype):
    loaded = load_model(folder / "vidjax", dtype)
    params = jax.tree.map(lambda x: x.astype(dtype), loaded.params)

    @jax.jit
    def apply(params, inputs):
        def method(model):
            found = {}
            if "video" in inputs:
                tokens = model.encoder(inputs["video"].astype(dtype))
                found["tokens"] = tokens
                if head == "classify":
                    found["logits"] = model.head(model.pool(tokens))
                elif head is not None:
                    found["video"] = model.pooled(tokens)
            if "text" in inputs:
                found["text"] = model.encode_text(inputs["text"], inputs["mask"])
            return found

        return loaded.model.apply({"params": params}, method=method)

    return jax.tree.map(np.asarray, apply(params, inputs))


def errors(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(ours[key].shape == theirs[key].shape for key in ours)
    scale = {key: np.abs(theirs[key]).max() for key in theirs}
    return {key: float(np.abs(ours[key] - theirs[key]).max() / scale[key]) for key in ours}


def test_float32(form, inputs, record_property, request):
    head, reference, folder = form
    theirs = run_reference(head, reference, inputs, torch.float32)
    found = errors(run_ours(head, folder, inputs, "float32"), theirs)
    record_property("errors", found)
    print(f"\nfloat32, {request.node.name}: {found}")
    assert all(found[key] < TOLERANCE[key] for key in found), found


def test_float64(form, inputs, record_property, request, monkeypatch):
    head, reference, folder = form
    if "base" in request.node.name:
        pytest.skip("what it shows, small models show as well")
    # Its softmax is in float32, whatever the dtype, and its table is rounded to it.
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim)
    )
    reference = reference.double()
    for name, module in reference.named_modules():
        if name.rpartition(".")[2] == "embeddings" and hasattr(module, "position_embedding"):
            length, width = module.position_embedding.shape
            table = positions.sinusoid(length, width, 1 - 2 / width)
            module.position_embedding.copy_(torch.from_numpy(table.astype(np.float64)))
    theirs = run_reference(head, reference, inputs, torch.float64)
    with jax.enable_x64(True):
        found = errors(run_ours(head, folder, inputs, "float64"), theirs)
    record_property("errors", found)
    print(f"\nfloat64, {request.node.name}: {found}")
    assert all(found[key] < TOLERANCE64 for key in found), found


def test_back_to_hugging_face(form):
    _, reference, folder = form
    check_back_to_hugging_face(folder, type(reference))


def test_exported_npz_weights_run_in_transformers(tmp_path):
    """A model that never was in Hugging Face's format: config.json and buffers are ours as well."""
    from vidjax import models
    from vidjax.preprocessing import Preprocessing

    fields = {"width": 24, "depth": 2, "num_heads": 3, "mlp_dim": 96, "eps": 1e-6}
    fields |= {"patch_size": (1, 8, 8), "pos_grid": (3, 2, 2), "scale_offset": 1.0}
    text = {"vocab_size": 50, "text_depth": 2}
    model = models.build("videoprism", head="video_text", **fields, **text)
    specs, tree = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(0)
    params = tree.unflatten([0.3 * rng.standard_normal(s.shape, np.float32) for s in specs])
    facts = Preprocessing(frames=3, size=16, short_side=16, sampling="linspace")
    pretrained.save_pretrained(tmp_path / "a", params, Card(models.config_of(model), facts))
    command(f"--from={tmp_path}/a", f"--to={tmp_path}/npz", "--format=original")
    command(f"--from={tmp_path}/npz/checkpoint.npz", f"--to={tmp_path}/vidjax")
    command(f"--from={tmp_path}/vidjax", f"--to={tmp_path}/hf", "--format=hf")
    cls = transformers.VideoPrismClipModel
    reference = cls.from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["model_type"] == "videoprism"
    mask = np.arange(64) < np.array([[9], [64]])
    inputs = {
        "video": rng.random((2, 3, 16, 16, 3), np.float32),
        "text": np.where(mask, rng.integers(3, 50, mask.shape), 0).astype(np.int32),
        "mask": mask,
    }
    theirs = run_reference("video_text", reference, inputs, torch.float32)
    theirs["video"] = theirs["video"].reshape(2, -1)
    found = errors(run_ours("video_text", tmp_path, inputs, "float32"), theirs)
    print(f"\nnpz in transformers: {found}")  # the original's text positions, by the buffer
    assert all(found[key] < TOLERANCE[key] for key in found), found
