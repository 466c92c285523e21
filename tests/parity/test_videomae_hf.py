"""Random full-size VideoMAE-base of transformers against ours, converted by the real command.

Every tensor is random, also biases and scales. In float64 models are narrow and of few layers, with
as many tokens. Runs in a few minutes and 6 GB on 2 cores.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.round_trip import check_back_to_hugging_face, command, randomise
from vidjax import load_model
from vidjax.card import Card
from vidjax.objectives.masked_autoencoding import pixel_targets

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.23")

import transformers  # noqa: E402

FORMS = {
    None: ("VideoMAEModel", {"use_mean_pooling": False}),
    "classify": ("VideoMAEForVideoClassification", {"num_labels": 400}),
    "reconstruct": ("VideoMAEForPreTraining", {"use_mean_pooling": False}),
}
NARROW = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 144,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 80,
}
# Of the largest value of the reference.
TOLERANCE = {"hidden": 2e-5, "output": 5e-6, "loss": 1e-6}
TOLERANCE64 = 1e-10


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(0).standard_normal((1, 16, 224, 224, 3), np.float32)


@pytest.fixture(scope="module")
def masked():
    """Tube mask [1, 1568] with 160 visible tokens."""
    frame = np.ones(196, bool)
    frame[np.random.default_rng(1).permutation(196)[:20]] = False
    return np.tile(frame, 8)[None]


@pytest.fixture(scope="module", params=list(FORMS), ids=str)
def form(request, tmp_path_factory):
    return make_form(request.param, tmp_path_factory.mktemp("parity"))


def make_form(head, folder, **sizes):
    """Head, transformers' model, and our folder converted from what it saved."""
    name, changes = FORMS[head]
    config = transformers.VideoMAEConfig(**changes, **sizes)
    torch.manual_seed(0)
    reference = getattr(transformers, name)._from_config(config, attn_implementation="sdpa")
    randomise(reference)
    reference.eval().save_pretrained(folder / "hf")
    command(f"--from={folder}/hf", f"--to={folder}/vidjax")
    return head, reference, folder


def run_reference(head, reference, video, masked, dtype):
    """Hidden states [L + 1, B, K, D], output, and loss of the pre-training form."""
    pixels = torch.from_numpy(video.transpose(0, 1, 4, 2, 3)).to(dtype)
    extra = {"bool_masked_pos": torch.from_numpy(masked)} if head == "reconstruct" else {}
    with torch.no_grad():
        out = reference.to(dtype)(pixel_values=pixels, output_hidden_states=True, **extra)
    found = {"hidden": np.stack([state.numpy() for state in out.hidden_states])}
    found["output"] = (out.last_hidden_state if head is None else out.logits).numpy()
    if head == "reconstruct":
        found["loss"] = out.loss.numpy()
    return found


def run_ours(head, folder, video, masked, dtype):
    loaded = load_model(folder / "vidjax", dtype)
    params = jax.tree.map(lambda x: x.astype(dtype), loaded.params)
    video = jnp.asarray(video, dtype)
    keep, hidden = (np.flatnonzero(row)[None] for row in (~masked[0], masked[0]))
    tokens = (keep, hidden) if head == "reconstruct" else ()

    @jax.jit
    def apply(params, video):
        return loaded.model.apply({"params": params}, video, *tokens, mutable=["hidden_states"])

    out, extra = apply(params, video)
    states = extra["hidden_states"]["encoder"]
    embeddings, blocks = states["embeddings"], states["blocks"]["output"]
    found = {"hidden": np.concatenate([embeddings[None], blocks]), "output": np.asarray(out)}
    if head == "reconstruct":
        mean, std = jnp.asarray([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype)
        target = pixel_targets(video * std + mean, hidden, loaded.model.patch_size, norm_pix=True)
        found["loss"] = np.asarray(jnp.square(out - target).mean())
    return found


def errors(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(ours[key].shape == theirs[key].shape for key in ours)
    scale = {key: np.abs(theirs[key]).max() for key in theirs}
    return {key: float(np.abs(ours[key] - theirs[key]).max() / scale[key]) for key in ours}


def test_float32(form, video, masked, record_property):
    head, reference, folder = form
    theirs = run_reference(head, reference, video, masked, torch.float32)
    found = errors(run_ours(head, folder, video, masked, "float32"), theirs)
    record_property("errors", found)
    print(f"\nfloat32, {FORMS[head][0]}: {found}")
    assert all(found[key] < TOLERANCE[key] for key in found), found


@pytest.mark.parametrize("head", FORMS, ids=str)
def test_float64(tmp_path, head, video, masked, record_property):
    head, reference, folder = make_form(head, tmp_path, **NARROW)
    theirs = run_reference(head, reference, video, masked, torch.float64)
    with jax.enable_x64(True):
        found = errors(run_ours(head, folder, video, masked, "float64"), theirs)
    record_property("errors", found)
    print(f"\nfloat64, {FORMS[head][0]}: {found}")
    assert all(found[key] < TOLERANCE64 for key in found), found


def test_back_to_hugging_face(form):
    head, _, folder = form
    check_back_to_hugging_face(folder, getattr(transformers, FORMS[head][0]))


def test_exported_original_weights_run_in_transformers(tmp_path, video):
    """A model that never was in Hugging Face's format: config.json is ours as well."""
    from vidjax import models, pretrained
    from vidjax.preprocessing import Preprocessing

    model = models.build(
        "videomae", "S", head="classify", num_classes=7, eps=1e-12, fc_norm_eps=1e-5
    )
    specs, tree = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(0)
    params = tree.unflatten([0.05 * rng.standard_normal(s.shape, np.float32) for s in specs])
    card = Card(models.config_of(model), Preprocessing(), tuple("abcdefg"))
    pretrained.save_pretrained(tmp_path / "vidjax", params, card)
    command(f"--from={tmp_path}/vidjax", f"--to={tmp_path}/hf", "--format=hf")
    reference = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "hf")
    assert reference.config.id2label[3] == "d"
    theirs = run_reference("classify", reference.eval(), video, None, torch.float32)
    found = errors(
        run_ours("classify", tmp_path, video, np.ones((1, 1568), bool), "float32"), theirs
    )
    assert found["output"] < TOLERANCE["output"], found
    assert json.loads((tmp_path / "hf/preprocessor_config.json").read_text())["image_mean"]
