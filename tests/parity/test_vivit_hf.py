"""Random full-size ViViT-B/16x2 of transformers against ours, converted by the real command.

Every tensor is random, also biases, scales, tokens and positions. The classifier sees the released
size, 32x224x224 and 3137 tokens, the encoder with its pooler a quarter of the frames; in float64
both are narrow and of few layers. A few minutes and 8 GB on 2 cores.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters import huggingface, processors
from converters.vivit.published import PROCESSORS
from tests.support.round_trip import check_back_to_hugging_face, command, randomise
from vidjax import load_model, pretrained
from vidjax.card import Card
from vidjax.data.frames.clips import eval_views
from vidjax.models import layers
from vidjax.preprocessing import Preprocessing

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.23")

import transformers  # noqa: E402

FORMS = {
    None: ("VivitModel", {"num_frames": 8}),
    "classify": ("VivitForVideoClassification", {"num_labels": 400}),
}
NARROW = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 144,
}
# Of the largest value of the reference.
TOLERANCE = {"hidden": 2e-5, "last": 2e-5, "output": 5e-6}
TOLERANCE64 = 1e-10


@pytest.fixture(scope="module", params=list(FORMS), ids=str)
def form(request, tmp_path_factory):
    return make_form(request.param, tmp_path_factory.mktemp("parity"))


def make_form(head, folder, **sizes):
    """Head, transformers' model, and our folder converted from what it saved."""
    name, changes = FORMS[head]
    config = transformers.VivitConfig(**changes, **sizes)
    torch.manual_seed(0)
    # The eager attention computes its softmax in float32, whatever the model's dtype.
    reference = getattr(transformers, name)._from_config(config, attn_implementation="sdpa")
    randomise(reference)
    reference.eval().save_pretrained(folder / "hf")
    command(f"--from={folder}/hf", f"--to={folder}/vidjax")
    return head, reference, folder


def make_video(reference):
    frames = reference.config.num_frames
    return np.random.default_rng(0).standard_normal((1, frames, 224, 224, 3), np.float32)


def run_reference(head, reference, video, dtype):
    """Hidden states before the blocks and after each, tokens after the norm, what a head makes."""
    pixels = torch.from_numpy(video.transpose(0, 1, 4, 2, 3)).to(dtype)
    hidden = []
    encoder = reference.vivit if head else reference
    hooks = [
        module.register_forward_hook(lambda _, args, out: hidden.append(out))
        for module in (encoder.embeddings, *encoder.layers, encoder.layernorm)
    ]
    with torch.no_grad():
        out = reference.to(dtype)(pixel_values=pixels)
    for hook in hooks:
        hook.remove()
    hidden = [(state[0] if isinstance(state, tuple) else state).numpy() for state in hidden]
    return {
        "hidden": np.stack(hidden[:-1]),
        "last": hidden[-1],
        "output": (out.logits if head else out.pooler_output).numpy(),
    }


def run_ours(head, folder, video, dtype):
    loaded = load_model(folder / "vidjax", dtype)
    params = jax.tree.map(lambda x: x.astype(dtype), loaded.params)
    video = jnp.asarray(video, dtype)

    def both(model, video):
        tokens = model.encoder(video)
        feature = model.pooled(tokens)
        return tokens, model.head(feature) if head else feature

    @jax.jit
    def apply(params, video):
        return loaded.model.apply({"params": params}, video, method=both, mutable=["hidden_states"])

    (last, output), extra = apply(params, video)
    states = extra["hidden_states"]["encoder"]
    embeddings, blocks = states["embeddings"], states["blocks"]["output"]
    hidden = np.concatenate([embeddings[None], blocks])
    return {"hidden": hidden, "last": np.asarray(last), "output": np.asarray(output)}


def errors(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(ours[key].shape == theirs[key].shape for key in ours)
    scale = {key: np.abs(theirs[key]).max() for key in theirs}
    return {key: float(np.abs(ours[key] - theirs[key]).max() / scale[key]) for key in ours}


def test_float32(form, record_property):
    head, reference, folder = form
    video = make_video(reference)
    theirs = run_reference(head, reference, video, torch.float32)
    found = errors(run_ours(head, folder, video, "float32"), theirs)
    record_property("errors", found)
    print(f"\nfloat32, {FORMS[head][0]}: {found}")
    assert all(found[key] < TOLERANCE[key] for key in found), found


@pytest.mark.parametrize("head", FORMS, ids=str)
def test_float64(tmp_path, head, record_property):
    head, reference, folder = make_form(head, tmp_path, **NARROW)
    video = make_video(reference)
    theirs = run_reference(head, reference, video, torch.float64)
    with jax.enable_x64(True):
        found = errors(run_ours(head, folder, video, "float64"), theirs)
    record_property("errors", found)
    print(f"\nfloat64, {FORMS[head][0]}: {found}")
    assert all(found[key] < TOLERANCE64 for key in found), found


def test_back_to_hugging_face_and_through_scenic(form):
    head, reference, folder = form
    check_back_to_hugging_face(folder, getattr(transformers, FORMS[head][0]))

    command(f"--from={folder}/vidjax", f"--to={folder}/scenic", "--format=original")
    frames = f"--frames={reference.config.num_frames}"
    command(f"--from={folder}/scenic", f"--to={folder}/vidjax2", frames)
    a, b = (pretrained.open_params(folder / name) for name in ("vidjax", "vidjax2"))
    assert set(a) == set(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def test_exported_scenic_weights_run_in_transformers(tmp_path):
    """A model that never was in Hugging Face's format: config.json is ours as well."""
    from vidjax import models

    fields = {"width": 24, "depth": 2, "num_heads": 3, "mlp_dim": 40, "eps": 1e-6}
    patches = {"patch_size": (2, 8, 8), "clip": (4, 16, 16)}
    model = models.build("vivit", head="classify", num_classes=7, **fields, **patches)
    specs, tree = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(0)
    params = tree.unflatten([0.3 * rng.standard_normal(s.shape, np.float32) for s in specs])
    facts = Preprocessing(frames=4, size=16, short_side=20, resize="tf_bilinear")
    card = Card(models.config_of(model), facts, tuple("abcdefg"))
    pretrained.save_pretrained(tmp_path / "vidjax", params, card)
    command(f"--from={tmp_path}/vidjax", f"--to={tmp_path}/hf", "--format=hf")
    cls = transformers.VivitForVideoClassification
    reference = cls.from_pretrained(tmp_path / "hf", attn_implementation="sdpa").eval()
    assert reference.config.id2label[3] == "d"
    video = rng.standard_normal((2, 4, 16, 16, 3), np.float32)
    theirs = run_reference("classify", reference, video, torch.float32)
    found = errors(run_ours("classify", tmp_path, video, "float32"), theirs)
    assert all(found[key] < TOLERANCE[key] for key in found), found


@pytest.mark.parametrize(
    "name", [name for name, ours in huggingface.ACTIVATIONS.items() if ours == "gelu_tanh"]
)
def test_activations_that_are_the_tanh_gelu(name):
    from transformers.activations import ACT2FN

    x = np.linspace(-9, 9, 10001)
    theirs = ACT2FN[name](torch.from_numpy(x)).numpy()
    with jax.enable_x64(True):
        ours, erf = (layers.ACTIVATIONS[a](jnp.asarray(x)) for a in ("gelu_tanh", "gelu"))
        assert np.abs(ours - theirs).max() < 2e-12  # gelu_fast has a constant of 10 digits
        assert np.abs(erf - theirs).max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "ends"), [({}, (-3, 1)), ({"do_normalize": False}, (-1, 1))], ids=str
)
@pytest.mark.parametrize("shape", [(360, 640), (300, 200)], ids=str)
def test_image_processor(tmp_path, changes, ends, shape):
    processor = transformers.VivitImageProcessor(**changes)
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    height, width = shape
    frame[: height // 2, : width // 2], frame[height // 2 :, width // 2 :] = 0, 255
    theirs = processor([frame], return_tensors="np")["pixel_values"][0, 0]
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    files = {"preprocessor_config.json": config}
    facts = Preprocessing(frames=1, **processors.read(files, PROCESSORS, None, []))
    clip = eval_views(frame[None], facts)[0, 0] / np.float32(255)
    ours = (clip - np.float32(facts.mean)) / np.float32(facts.std)
    error = np.abs(ours - theirs.transpose(1, 2, 0)).max()
    print(f"\nVivitImageProcessor {changes} {shape}: {error}")
    assert error < 2e-6  # rounding: the resized bytes are the same
    assert (ours.min(), ours.max()) == pytest.approx(ends)
