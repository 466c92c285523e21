"""VideoPrism's numerics against the original's and KerasHub's goldens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from converters import formats
from tests.support import goldens
from tests.support.goldens import assert_caught
from tests.support.sources.videoprism import (
    EXTRA,
    KERAS,
    NPZ,
    converted,
    described,
    keras_tensors,
    preset,
)
from vidjax import models
from vidjax.models import layers
from vidjax.models.layers import attention, positions, unit

# In float32, of the largest value; and what float64 leaves.
FEATURES, EMBEDDINGS, FLOAT64 = 2e-5, 2e-6, 1e-10


def build(card, dtype="float32", **changed):
    return models.build(**card.model | {"dtype": dtype} | changed)


@functools.partial(
    jax.jit,
    static_argnums=0,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)  # compiling is what these tests take time for
def apply(model, params, inputs):
    """All that the references show, by their names; embeddings of any length."""

    def method(model):
        found = {}
        if "video" in inputs:
            video, padding = inputs["video"], inputs.get("padding")
            found["embeddings"] = tokens = model.encoder(video, frame_padding=padding)
            if "num_classes" in model.config:
                found["global_embeddings"] = x = model.pool(tokens)
                found["logits"] = model.head(x)
            elif hasattr(model, "all_seeing"):
                found["video_embeddings"] = model.pooled(tokens, normalise=False)
                frames = model.all_seeing(tokens).reshape(
                    *video.shape[:2], -1, model.config["width"]
                )
                found["frame_embeddings"] = model.pool(frames)
        if "text" in inputs:
            texts = model.encode_text(inputs["text"], inputs["mask"], normalise=False)
            found["text_embeddings"] = texts
        return found

    found, extra = model.apply({"params": params}, method=method, mutable=["hidden_states"])
    states = extra["hidden_states"]
    if "video" in inputs:
        spatial = states["encoder"]["spatial"]["output"]
        found["spatial_features"] = spatial.reshape(found["embeddings"].shape)
        found["spatiotemporal_features"] = found["embeddings"]
    return found


def run(model, params, inputs):
    dtype = model.dtype
    inputs = {k: v.astype(dtype) if k == "video" else jnp.asarray(v) for k, v in inputs.items()}
    tree = traverse_util.unflatten_dict(params, sep="/")
    tree = jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    return jax.tree.map(np.asarray, apply(model, tree, inputs))


def call_inputs(case, call):
    arrays = goldens.inputs(case)
    video, padding = f"{call}/inputs", f"{call}/frame_paddings"
    inputs = {}
    if video in arrays:
        inputs["video"] = arrays[video]
    if call in ("native", "full"):  # with none padded, as one compiled function is enough
        inputs["padding"] = np.zeros(arrays[video].shape[:2], bool)
    if padding in arrays:
        inputs["padding"] = arrays[padding] > 0.5  # of the case's first video
        inputs["video"] = next(arrays[name] for name in arrays if name.endswith("/inputs"))
    if f"{call}/text_token_ids" in arrays:
        inputs["text"] = arrays[f"{call}/text_token_ids"]
        inputs["mask"] = arrays[f"{call}/text_paddings"] < 0.5  # 1 = padding there
    return inputs


def errors(
    case, call, suffix="", params=None, keys=("video", "padding", "text", "mask"), **changed
):
    """Returns, for each output of a call, our largest difference in units of its largest value."""
    card, known = converted(case)
    inputs = {k: v for k, v in call_inputs(case, call).items() if k in keys}
    model = build(card, "float64" if suffix else "float32", **changed)
    ours = run(model, known if params is None else params, inputs)
    if call == "full":  # in the others vectors have any length
        vectors = [name for name in ours if name.endswith("_embeddings")]
        ours |= {name: np.asarray(unit(ours[name], card.model["l2_eps"])) for name in vectors}
    return {
        name: goldens.error(ours[name], goldens.outputs(case)[f"{call}/{name}{suffix}"])
        for name in ours
        if f"{call}/{name}{suffix}" in goldens.outputs(case)
    }


TOWERS = {"video": ("video", "padding"), "text": ("text", "mask")}


def calls(suffix):
    """Cases, calls and towers of which there are outputs with this suffix."""
    for case in NPZ:
        names = [n for n in goldens.outputs(case) if n.endswith("__f64") == bool(suffix)]
        for call in dict.fromkeys(name.partition("/")[0] for name in names):
            for tower in TOWERS:
                if tower in call_inputs(case, call):
                    yield case, call, tower


# Compiled in seconds each, and no other kind of call than the rest.
SLOW = {"interp_space_up", "interp_time_down", "interp_time_up"}


def marked(calls):
    """Parameters of a test: those of SLOW are run by hand."""
    marks = {True: pytest.mark.slow, False: ()}
    return [pytest.param(*call, marks=marks[call[1] in SLOW]) for call in calls]


# What float64 shows more sharply need not be compiled for float32, too; but once in full.
SINGLE = [c for c in calls("") if c[1] == "full" or c not in set(calls("__f64"))]


@pytest.mark.parametrize(("case", "call", "tower"), marked(SINGLE))
def test_float32_outputs_match_the_original(case, call, tower):
    found = errors(case, call, keys=TOWERS[tower])
    print(case, call, found)
    assert found
    for name, value in found.items():
        tokens = case == "videoprism_video" or name.endswith("features")
        assert value < (FEATURES if tokens else EMBEDDINGS), found


@pytest.mark.parametrize(("case", "call", "tower"), marked(calls("__f64")))
def test_float64_outputs_match_the_original(case, call, tower):
    with jax.enable_x64(True):
        found = errors(case, call, "__f64", keys=TOWERS[tower])
    print(case, call, found)
    assert found
    assert max(found.values()) < FLOAT64, found


def test_splash_attention_matches_the_original(splash):
    found = errors("videoprism_video", "native", keys=("video",), attention="splash")
    assert splash
    assert found
    assert max(found.values()) < FEATURES, found


def check_vectors(card, params):
    """Compares vectors that are not normalised, those of either tower."""
    inputs = call_inputs("videoprism_lvt", "full")
    for keys in TOWERS.values():
        ours = run(build(card), params, {key: inputs[key] for key in keys})
        for name in {"video_embeddings", "text_embeddings", "frame_embeddings"} & set(ours):
            theirs = goldens.outputs("videoprism_lvt")[f"full_unnormalized/{name}"]
            assert goldens.error(ours[name], theirs) < EMBEDDINGS


def test_vectors_that_are_not_normalised_match_the_original():
    check_vectors(*converted("videoprism_lvt"))


def lvt(tower, **changes):
    return errors("videoprism_lvt", "full", keys=TOWERS[tower], **changes)


@pytest.fixture
def patch(monkeypatch):
    """Replaces something that compiled models have the right version of."""
    yield lambda change, *args: (change(*args), apply.clear_cache())
    monkeypatch.undo()
    apply.clear_cache()


def test_text_positions_of_hugging_face_are_caught():
    card, _ = converted("videoprism_lvt")
    assert card.model["text_pos_exponent"] == 1.0
    assert_caught(lvt("text", text_pos_exponent=1 - 2 / 32), 1e-3)


def test_no_soft_cap_is_caught():
    assert_caught(lvt("text", softcap=0.0), 1e-4)


def seen_padding():
    """Returns how much of the padding shows in an embedding of a model with a small soft cap.

    With the released 50 a wrong order hides: what is masked then weighs exp(-50).
    """
    card, params = converted("videoprism_lvt")
    inputs = call_inputs("videoprism_lvt", "text_short")
    model, real = build(card, softcap=2.0), inputs["mask"].sum(1)
    row = int(np.argmin(np.where(real > 1, real, 99)))
    padded = run(model, params, inputs)["text_embeddings"][row]
    short = {key: value[row : row + 1, : real[row]] for key, value in inputs.items()}
    assert short["mask"].all() and real[row] < inputs["mask"].shape[1]
    return goldens.error(padded, run(model, params, short)["text_embeddings"][0])


def test_soft_cap_after_the_mask_is_caught(monkeypatch, patch):
    assert seen_padding() < EMBEDDINGS

    def wrong(query, key, *, mask=None, softcap=0.0):
        logits = jnp.einsum("...nk,...mk->...nm", query, key) * query.shape[-1] ** -0.5
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
        return jax.nn.softmax(softcap * jnp.tanh(logits / softcap), axis=-1)

    patch(monkeypatch.setattr, attention, "attention_weights", wrong)
    assert seen_padding() > 1e-2


def test_tanh_gelu_is_caught(monkeypatch, patch):
    patch(monkeypatch.setitem, layers.ACTIVATIONS, "gelu", layers.ACTIVATIONS["gelu_tanh"])
    assert_caught(errors("videoprism_video", "interp_both"), 5 * FEATURES)


def test_gelu_for_texts_is_caught(monkeypatch, patch):
    patch(monkeypatch.setitem, layers.ACTIVATIONS, "relu", layers.ACTIVATIONS["gelu"])
    assert_caught(lvt("text"), 1e-2)


def test_scales_that_are_used_as_they_are_stored_are_caught():
    assert_caught(lvt("text", scale_offset=0.0), 0.1)


def test_positions_without_antialias_are_caught(monkeypatch, patch):
    right = positions.resample_grid

    def wrong(table, old, new, kernels):
        return right(table, old, new, ("linear",) * 3)

    patch(monkeypatch.setattr, positions, "resample_grid", wrong)
    assert_caught(errors("videoprism_video", "interp_both"), 50 * FEATURES)


def changed(params, changes):
    return params | {name: change(params[name]) for name, change in changes.items()}


def transposed_output(kernel):
    """Returns post/w as if it were stored as the other three are."""
    flat = kernel.reshape(*kernel.shape[:-3], -1, kernel.shape[-1])
    return np.ascontiguousarray(flat.swapaxes(-1, -2)).reshape(kernel.shape)


CHANGES = {
    # 1 / sqrt of the encoder's head width instead of the pooler's, which is 4 times that.
    "pooler head width": {
        "pool/attn/query/kernel": lambda x: x * 2,
        "pool/attn/query/bias": lambda x: x * 2,
    },
    "per-dim scale left out": {"pool/attn/per_dim_scale": np.zeros_like},
    "post/w transposed": {"encoder/spatial/blocks/attn/out/kernel": transposed_output},
    "patches channel first": {
        "encoder/patch_embed/kernel": lambda x: x.reshape(1, 3, 8, 8, -1).transpose(0, 2, 3, 1, 4),
    },
    "patches column first": {"encoder/patch_embed/kernel": lambda x: x.swapaxes(1, 2)},
    "layers in reverse": {
        "encoder/spatial/blocks/mlp/fc1/kernel": lambda x: x[::-1],
        "encoder/spatial/blocks/mlp/fc2/kernel": lambda x: x[::-1],
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_wrong_layouts_are_caught(change):
    _, params = converted("videoprism_lvt")
    assert_caught(lvt("video", params=changed(params, CHANGES[change])), 1e-3)


def test_classifier_with_heads_of_hugging_face_is_caught():
    _, params = converted("videoprism_classifier")
    wrong = changed(params, CHANGES["pooler head width"])
    with jax.enable_x64(True):  # as compiled before
        found = errors("videoprism_classifier", "native", "__f64", params=wrong)
    assert_caught({name: found[name] for name in ("logits", "global_embeddings")}, 1e-3)


# KerasHub.


SOFTMAX32 = 1e-6  # KerasHub's float64 run has a softmax in float32


def keras_errors(case, folder, suffix="", **changed):
    card, params, _ = described(folder)
    arrays, theirs = goldens.inputs(case), goldens.outputs(case)
    inputs = {"video": arrays["pixel_values"]}
    if "token_ids" in arrays:
        inputs |= {"text": arrays["token_ids"], "mask": arrays["padding_mask"] > 0}
    ours = run(build(card, "float64" if suffix else "float32", **changed), params, inputs)
    spatial, features = (
        theirs[n + suffix].reshape(ours["embeddings"].shape)
        for n in ("spatial_features", "spatiotemporal_features" if "text" in inputs else "features")
    )
    found = {
        "spatial_features": goldens.error(ours["spatial_features"], spatial),
        "features": goldens.error(ours["embeddings"], features),
    }
    if "text" in inputs:
        vision = theirs[f"vision_embeddings{suffix}"]
        found["vision_embeddings"] = goldens.error(ours["video_embeddings"], vision)
        text = theirs[f"text_embeddings{suffix}"]
        found["text_embeddings"] = goldens.error(ours["text_embeddings"], text)
    return found


@pytest.mark.parametrize("case", KERAS)
def test_float32_outputs_match_kerashub(tmp_path, case):
    found = keras_errors(case, preset(case, tmp_path / "preset"))
    print(case, found)
    for name, value in found.items():
        assert value < (FEATURES if name.endswith("features") else EMBEDDINGS), found


@pytest.mark.slow
def test_float64_outputs_match_kerashub(tmp_path):
    case = KERAS[1]
    with jax.enable_x64(True):
        found = keras_errors(case, preset(case, tmp_path / "preset"), "__f64")
    print(case, found)
    assert max(found.values()) < SOFTMAX32, found


def test_kerashubs_second_text_norm_counts(tmp_path):
    """The golden's is random, as everything there is; that of converted weights is the identity."""
    plain = {EXTRA + "0": np.ones(24, np.float32), EXTRA + "1": np.zeros(24, np.float32)}
    folder = preset(KERAS[1], tmp_path / "preset", lambda tensors: tensors | plain)
    assert keras_errors(KERAS[1], folder)["text_embeddings"] > 0.01


def test_kerashub_of_the_same_weights_gives_the_same(tmp_path):
    pytest.importorskip("h5py")
    card, params = converted("videoprism_lvt")
    formats.write_h5(tmp_path / formats.KERAS_WEIGHTS, keras_tensors(params))
    card, params, notes = described(tmp_path)
    assert "no config.json" in notes
    check_vectors(card, params)
