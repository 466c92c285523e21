"""VideoPrism's tables and numerics against the original's and KerasHub's goldens; its homes."""

import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from converters import Options, convert, formats, videoprism
from converters.mapping import from_params, to_params
from vidjax import models, pretrained
from vidjax.data import text as texts
from vidjax.errors import UserError
from vidjax.models import layers, positions

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
NPZ = ("videoprism_video", "videoprism_lvt", "videoprism_classifier")
# In float32, of the largest value; and what float64 leaves.
FEATURES, EMBEDDINGS, FLOAT64 = 2e-5, 2e-6, 1e-10
SOFTMAX32 = 1e-6  # KerasHub's float64 run has a softmax in float32


def described(path, **options):
    """What the command makes of a file, in memory: its card, parameters and notes."""
    source = formats.open_source(pathlib.Path(path))
    conversion = videoprism.describe(source, Options(**options))
    model = models.build(**conversion.model)
    want = pretrained.param_specs(model)
    params = to_params(source.tensors, conversion.rules, want, conversion.ignore)
    provenance = {"format": conversion.format, "naming": json.loads(json.dumps(conversion.naming))}
    card = pretrained.Card(
        models.config_of(model), conversion.preprocessing, conversion.classes, provenance
    )
    return card, params, "\n".join(conversion.notes)


def written(card, params, folder, format, originals=()):
    """Exports a model as the command does; returns its notes."""
    plan = videoprism.export(card, format, dict(originals))
    folder.mkdir()
    formats.write(folder / plan.weights, dict(from_params(params, plan.rules)) | plan.computed, {})
    for name, content in plan.files.items():
        (folder / name).write_bytes(content)
    return "\n".join(plan.notes)


def command(source, target, format=None, **options):
    lines = []
    convert.convert(str(source), target, format, options=Options(**options), say=lines.append)
    return "\n".join(lines)


def same_tensors(ours, theirs):
    assert list(ours) and set(ours) == set(theirs)
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].shape == theirs[name].shape, name
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def same_params(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


@functools.cache
def golden(case):
    """Inputs and outputs by name."""
    found = []
    for file in ("inputs", "outputs"):
        with np.load(GOLDENS / case / f"{file}.npz") as arrays:
            found.append(dict(arrays))
    return found


@functools.cache
def converted(case):
    """Card and parameters of a golden npz file."""
    return described(GOLDENS / case / "checkpoint.npz")[:2]


def build(card, dtype="float32", **changed):
    return models.build(**card.model | {"dtype": dtype} | changed)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, inputs):
    """All that the references show, by their names; embeddings as they are and of length 1."""

    def method(model):
        found = {}
        if "video" in inputs:
            video, padding = inputs["video"], inputs.get("padding")
            found["embeddings"] = model.encoder(video, frame_padding=padding)
            if hasattr(model, "num_classes"):
                found["global_embeddings"] = model.embed(video)
                found["logits"] = model(video)
            elif hasattr(model, "encode_video"):
                for way, unit in (("", False), ("unit_", True)):
                    found[f"{way}video_embeddings"] = model.encode_video(
                        video, normalise=unit, frame_padding=padding
                    )
                    found[f"{way}frame_embeddings"] = model.encode_frames(video, normalise=unit)
        if "text" in inputs:
            for way, unit in (("", False), ("unit_", True)):
                found[f"{way}text_embeddings"] = model.encode_text(
                    inputs["text"], inputs["mask"], normalise=unit
                )
        return found

    found, extra = model.apply({"params": params}, method=method, mutable=["hidden_states"])
    states = extra["hidden_states"]
    if "video" in inputs:
        spatial = states["encoder"]["spatial"]["output"]
        found["spatial_features"] = spatial.reshape(found["embeddings"].shape)
        found["spatiotemporal_features"] = found["embeddings"]
    if "text" in inputs:
        found["text_blocks"] = states["text"]["blocks"]["output"][-1]
    return found


def run(model, params, inputs):
    dtype = model.dtype
    inputs = {k: v.astype(dtype) if k == "video" else jnp.asarray(v) for k, v in inputs.items()}
    tree = traverse_util.unflatten_dict(params, sep="/")
    tree = jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    return jax.tree.map(np.asarray, apply(model, tree, inputs))


def error(ours, theirs):
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def call_inputs(case, call):
    arrays = golden(case)[0]
    video, padding = f"{call}/inputs", f"{call}/frame_paddings"
    inputs = {}
    if video in arrays:
        inputs["video"] = arrays[video]
    if padding in arrays:
        inputs["padding"] = arrays[padding] > 0.5  # of the case's first video
        inputs["video"] = next(arrays[name] for name in arrays if name.endswith("/inputs"))
    if f"{call}/text_token_ids" in arrays:
        inputs["text"] = arrays[f"{call}/text_token_ids"]
        inputs["mask"] = arrays[f"{call}/text_paddings"] < 0.5  # 1 = padding there
    return inputs


def errors(case, call, suffix="", inputs=None, params=None, **changed):
    """Of each output of a call, our largest difference in units of its largest value."""
    card, known = converted(case)
    dtype = "float64" if suffix else "float32"
    inputs = call_inputs(case, call) if inputs is None else inputs
    ours = run(build(card, dtype, **changed), known if params is None else params, inputs)
    if call == "full":  # the others are not normalised
        ours |= {name: ours[f"unit_{name}"] for name in list(ours) if f"unit_{name}" in ours}
    return {
        name: error(ours[name], golden(case)[1][f"{call}/{name}{suffix}"])
        for name in ours
        if f"{call}/{name}{suffix}" in golden(case)[1]
    }


def tolerance(name):
    return FEATURES if name.endswith(("features", "embeddings/tokens")) else EMBEDDINGS


CALLS = [
    (case, name)
    for case in NPZ
    for name in dict.fromkeys(name.partition("/")[0] for name in golden(case)[1])
    if not name.startswith("full_")
]


@pytest.mark.parametrize(("case", "call"), CALLS)
def test_float32_outputs_match_the_original(case, call):
    found = errors(case, call)
    print(case, call, found)
    assert found
    for name, value in found.items():
        tokens = case == "videoprism_video" or name.endswith("features")
        assert value < (FEATURES if tokens else EMBEDDINGS), found


@pytest.mark.parametrize(
    ("case", "call"),
    [pair for pair in CALLS if any(f"{pair[1]}/" in n and "__f64" in n for n in golden(pair[0])[1])],
)
def test_float64_outputs_match_the_original(case, call):
    with jax.enable_x64(True):
        found = errors(case, call, "__f64")
    print(case, call, found)
    assert found
    assert max(found.values()) < FLOAT64, found


def test_vectors_of_any_length_match_the_original():
    card, params = converted("videoprism_lvt")
    ours = run(build(card), params, call_inputs("videoprism_lvt", "full"))
    for name in ("video_embeddings", "text_embeddings", "frame_embeddings"):
        theirs = golden("videoprism_lvt")[1][f"full_unnormalized/{name}"]
        assert error(ours[name], theirs) < EMBEDDINGS
        assert np.abs(np.square(ours[f"unit_{name}"]).sum(-1) - 1).max() < 1e-6


# What a wrong port would have; each must be far outside the tolerances above.


def assert_caught(found, size):
    print(found)
    assert max(found.values()) > max(size, 50 * EMBEDDINGS), found


def lvt(kind, **changes):
    """Errors with the videos or the texts of the first call only, which compiles faster."""
    keys = {"video": ("video",), "text": ("text", "mask")}[kind]
    inputs = call_inputs("videoprism_lvt", "full")
    return errors("videoprism_lvt", "full", inputs={k: inputs[k] for k in keys}, **changes)


def fresh(monkeypatch, module, name, value):
    """Replaces a function that compiled models hold the right version of."""
    monkeypatch.setattr(module, name, value)
    apply.clear_cache()


@pytest.fixture
def clean_cache():
    yield
    apply.clear_cache()


def test_text_positions_of_hugging_face_are_caught():
    card, _ = converted("videoprism_lvt")
    assert card.model["text_pos_exponent"] == 1.0
    assert_caught(lvt("text", text_pos_exponent=1 - 2 / 32), 1e-3)


def test_soft_cap_after_the_mask_is_caught(monkeypatch, clean_cache):
    right = layers.attention_weights

    def wrong(query, key, *, mask=None, softcap=0.0):
        if mask is None:
            return right(query, key, softcap=softcap)
        logits = jnp.einsum("...nk,...mk->...nm", query, key) * query.shape[-1] ** -0.5
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
        return jax.nn.softmax(softcap * jnp.tanh(logits / softcap), axis=-1)

    # 50 is far enough from small logits to do what -inf does, but for rows that have larger ones.
    assert_caught(lvt("text", softcap=0.0), 1e-3)
    fresh(monkeypatch, layers, "attention_weights", wrong)
    card, params = converted("videoprism_lvt")
    inputs = call_inputs("videoprism_lvt", "full")
    inputs = {key: inputs[key] for key in ("text", "mask")}
    small = run(build(card, softcap=5.0), params, inputs)
    monkeypatch.undo()
    apply.clear_cache()
    theirs = run(build(card, softcap=5.0), params, inputs)
    assert error(small["text_embeddings"], theirs["text_embeddings"]) > 1e-3


def test_tanh_gelu_is_caught(monkeypatch, clean_cache):
    monkeypatch.setitem(layers.ACTIVATIONS, "gelu", layers.ACTIVATIONS["gelu_tanh"])
    apply.clear_cache()
    assert_caught(lvt("video"), 1e-4)


def test_gelu_for_texts_is_caught(monkeypatch, clean_cache):
    monkeypatch.setitem(layers.ACTIVATIONS, "relu", layers.ACTIVATIONS["gelu"])
    apply.clear_cache()
    assert_caught(lvt("text"), 1e-2)


def test_scales_that_are_used_as_they_are_stored_are_caught():
    assert_caught(lvt("video", scale_offset=0.0), 0.1)


def test_positions_without_antialias_are_caught(monkeypatch, clean_cache):
    right = positions.resample_grid
    fresh(
        monkeypatch,
        positions,
        "resample_grid",
        lambda table, old, new, kernels: right(table, old, new, ("linear",) * 3),
    )
    found = errors("videoprism_video", "interp_space_down")
    assert max(found.values()) > 50 * FEATURES, found


def changed(params, changes):
    return params | {name: change(params[name]) for name, change in changes.items()}


def transposed_output(kernel):
    """As if post/w were stored as the other three are."""
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
        "encoder/patch_embed/kernel": lambda x: (
            x.reshape(1, 3, 8, 8, -1).transpose(0, 2, 3, 1, 4)
        ),
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
    found = errors("videoprism_classifier", "native", params=wrong)
    assert_caught({name: found[name] for name in ("logits", "global_embeddings")}, 1e-3)


# KerasHub.

KERAS = ("kerashub_videoprism_video", "kerashub_videoprism_multimodal")
EXTRA = "layers/video_prism_encoder_2/layer_norm/vars/"
TEXT_NORM = "layers/layer_normalization/vars/"


def preset(case, folder, change=lambda tensors: tensors):
    """A golden preset whose text norm too many is the identity, as in converted weights.

    The golden's is random: KerasHub computes it, we refuse it.
    """
    pytest.importorskip("h5py")
    shutil.copytree(GOLDENS / case / "preset", folder)
    tensors = dict(formats.read(folder / formats.KERAS_WEIGHTS))
    if EXTRA + "0" in tensors:
        tensors |= {EXTRA + "0": np.ones(24, np.float32), EXTRA + "1": np.zeros(24, np.float32)}
    formats.write_h5(folder / formats.KERAS_WEIGHTS, change(tensors))
    return folder


def normalised(x, tensors, prefix):
    x = x.astype(np.float64)
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
    return x * tensors[prefix + "0"] + tensors[prefix + "1"]


def keras_errors(case, folder, suffix="", **changed):
    card, params, _ = described(folder)
    arrays, outputs = golden(case)
    inputs = {"video": arrays["pixel_values"]}
    if "token_ids" in arrays:
        inputs |= {"text": arrays["token_ids"], "mask": arrays["padding_mask"] > 0}
    ours = run(build(card, "float64" if suffix else "float32", **changed), params, inputs)
    spatial, features = (
        outputs[n + suffix].reshape(ours["embeddings"].shape)
        for n in ("spatial_features", "spatiotemporal_features" if "text" in inputs else "features")
    )
    found = {
        "spatial_features": error(ours["spatial_features"], spatial),
        "features": error(ours["embeddings"], features),
    }
    if "text" in inputs:
        vision = outputs[f"vision_embeddings{suffix}"]
        found["vision_embeddings"] = error(ours["video_embeddings"], vision)
        # Our blocks, then both of the golden's norms.
        golden_tensors = formats.read(GOLDENS / case / "preset" / formats.KERAS_WEIGHTS)
        text = normalised(ours["text_blocks"][:, -1], golden_tensors, EXTRA)
        text = normalised(text, golden_tensors, TEXT_NORM)
        found["text_embeddings"] = error(text, outputs[f"text_embeddings{suffix}"])
    return found


@pytest.mark.parametrize("case", KERAS)
def test_float32_outputs_match_kerashub(tmp_path, case):
    found = keras_errors(case, preset(case, tmp_path / "preset"))
    print(case, found)
    for name, value in found.items():
        assert value < (FEATURES if name.endswith("features") else EMBEDDINGS), found


def test_float64_outputs_match_kerashub(tmp_path):
    case = KERAS[1]
    with jax.enable_x64(True):
        found = keras_errors(case, preset(case, tmp_path / "preset"), "__f64")
    print(case, found)
    assert max(found.values()) < SOFTMAX32, found


def swap_encoders(tensors):
    names = {"encoder_2/encoder_layers": "encoder_3/", "encoder_3/": "encoder_2/"}
    found = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            if old in name and EXTRA not in name:
                name = name.replace(old.partition("/")[0] + "/", new)
                break
        found[name] = tensor
    return found


def test_scales_kept_as_they_are_in_kerashub(tmp_path):
    source = preset(KERAS[1], tmp_path / "preset")
    card, params, notes = described(source)
    assert card.model["scale_offset"] == 0.0
    assert "exports to its format only" in notes
    scale = params["encoder/spatial/norm/scale"]
    gamma = formats.read(source / formats.KERAS_WEIGHTS)["layers/video_prism_encoder/layer_norm/vars/0"]
    assert scale.tobytes() == gamma.tobytes()
    for format in ("hf", "original"):
        with pytest.raises(UserError, match="LayerNorm scales less 1, .* held as they are used"):
            written(card, params, tmp_path / format, format)
    card, params = converted("videoprism_lvt")
    with pytest.raises(UserError, match="LayerNorm scales as they are used, .* held less 1"):
        written(card, params, tmp_path / "keras", "keras")


def test_text_norm_that_is_not_the_identity_is_refused():
    pytest.importorskip("h5py")
    with pytest.raises(UserError, match=r"encoder_2/layer_norm/vars/0: it is not 1 everywhere"):
        described(GOLDENS / KERAS[1] / "preset")


def test_swapped_encoders_of_kerashub_are_caught(tmp_path):
    # Text and auxiliary layers have the same shapes; here they have other numbers.
    source = preset(KERAS[1], tmp_path / "preset", swap_encoders)
    config = json.loads((source / "config.json").read_text())
    with pytest.raises(UserError, match="num_text_layers 3 instead of 2"):
        described(source)
    config["config"] |= {"num_text_layers": 2, "num_auxiliary_layers": 3}
    (source / "config.json").write_text(json.dumps(config))
    found = keras_errors(KERAS[1], source)
    assert min(found["vision_embeddings"], found["text_embeddings"]) > 0.1


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
