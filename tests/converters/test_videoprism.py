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

from converters import Options, formats, hub, registry, videoprism
from converters.mapping import from_params
from tests.support import converting
from tests.support.converting import command, same_params, same_tensors
from vidjax import models, pretrained
from vidjax import tokenizers as texts
from vidjax.card import Card, read_card, write_card
from vidjax.errors import UserError
from vidjax.lazy import merge
from vidjax.models import layers
from vidjax.models.layers import attention, positions, unit
from vidjax.preprocessing import Preprocessing

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
NPZ = ("videoprism_video", "videoprism_lvt", "videoprism_classifier")
# In float32, of the largest value; and what float64 leaves.
FEATURES, EMBEDDINGS, FLOAT64 = 2e-5, 2e-6, 1e-10
SOFTMAX32 = 1e-6  # KerasHub's float64 run has a softmax in float32


described = functools.partial(converting.described, videoprism)
written = functools.partial(converting.written, videoprism)


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


def error(ours, theirs):
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def call_inputs(case, call):
    arrays = golden(case)[0]
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
    """Of each output of a call, our largest difference in units of its largest value."""
    card, known = converted(case)
    inputs = {k: v for k, v in call_inputs(case, call).items() if k in keys}
    model = build(card, "float64" if suffix else "float32", **changed)
    ours = run(model, known if params is None else params, inputs)
    if call == "full":  # in the others vectors have any length
        vectors = [name for name in ours if name.endswith("_embeddings")]
        ours |= {name: np.asarray(unit(ours[name], card.model["l2_eps"])) for name in vectors}
    return {
        name: error(ours[name], golden(case)[1][f"{call}/{name}{suffix}"])
        for name in ours
        if f"{call}/{name}{suffix}" in golden(case)[1]
    }


TOWERS = {"video": ("video", "padding"), "text": ("text", "mask")}


def calls(suffix):
    """Cases, calls and towers of which there are outputs with this suffix."""
    for case in NPZ:
        outputs = [n for n in golden(case)[1] if n.endswith("__f64") == bool(suffix)]
        for call in dict.fromkeys(name.partition("/")[0] for name in outputs):
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


def test_vectors_that_are_not_normalised_match_the_original():
    card, params = converted("videoprism_lvt")
    inputs = call_inputs("videoprism_lvt", "full")
    for keys in TOWERS.values():
        ours = run(build(card), params, {key: inputs[key] for key in keys})
        for name in {"video_embeddings", "text_embeddings", "frame_embeddings"} & set(ours):
            theirs = golden("videoprism_lvt")[1][f"full_unnormalized/{name}"]
            assert error(ours[name], theirs) < EMBEDDINGS


# What a wrong port would have; each must be far outside the tolerances above.


def assert_caught(found, size):
    print(found)
    assert max(found.values()) > size, found


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
    """How much of the padding shows in an embedding, of a model with a small soft cap.

    With the released 50 a wrong order hides: what is masked then weighs exp(-50).
    """
    card, params = converted("videoprism_lvt")
    inputs = call_inputs("videoprism_lvt", "text_short")
    model, real = build(card, softcap=2.0), inputs["mask"].sum(1)
    row = int(np.argmin(np.where(real > 1, real, 99)))
    padded = run(model, params, inputs)["text_embeddings"][row]
    short = {key: value[row : row + 1, : real[row]] for key, value in inputs.items()}
    assert short["mask"].all() and real[row] < inputs["mask"].shape[1]
    return error(padded, run(model, params, short)["text_embeddings"][0])


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

KERAS = ("kerashub_videoprism_video", "kerashub_videoprism_multimodal")
EXTRA = "layers/video_prism_encoder_2/layer_norm/vars/"


def preset(case, folder, change=lambda tensors: tensors):
    """A copy of a golden preset, with other tensors."""
    pytest.importorskip("h5py")
    shutil.copytree(GOLDENS / case / "preset", folder)
    tensors = dict(formats.read(folder / formats.KERAS_WEIGHTS))
    formats.write_h5(folder / formats.KERAS_WEIGHTS, change(tensors))
    return folder


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
        text = outputs[f"text_embeddings{suffix}"]
        found["text_embeddings"] = error(ours["text_embeddings"], text)
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


def test_kerashubs_second_text_norm_counts(tmp_path):
    """The golden's is random, as everything there is; that of converted weights is the identity."""
    plain = {EXTRA + "0": np.ones(24, np.float32), EXTRA + "1": np.zeros(24, np.float32)}
    folder = preset(KERAS[1], tmp_path / "preset", lambda tensors: tensors | plain)
    assert keras_errors(KERAS[1], folder)["text_embeddings"] > 0.01


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


# The same weights from all three homes.


def hf_tensors(npz, exponent=1.0, length=64):
    """The tensors of transformers' VideoPrismClipModel, written out by hand."""
    t = {name.removeprefix("params/"): array for name, array in npz.items()}
    out = {}

    def put(name, weight, bias=None):
        out[f"{name}.weight"] = np.ascontiguousarray(weight)
        if bias is not None:
            out[f"{name}.bias"] = np.ascontiguousarray(bias)

    def norm(name, source, layer=...):
        put(name, t[f"{source}/scale"][layer], t[f"{source}/bias"][layer])

    def attention(name, source, layer=...):
        for ours in ("query", "key", "value"):
            w, b = (t[f"{source}/{ours}/{x}"][layer] for x in "wb")
            put(f"{name}.{ours[0]}_proj", w.reshape(len(w), -1).T, b.reshape(-1))
        w, b = (t[f"{source}/post/{x}"][layer] for x in "wb")
        put(f"{name}.o_proj", w.reshape(len(w), -1), b)

    def layers(name, source):
        source += "/x_layers"
        for i in range(len(t[f"{source}/layer_norm/scale"])):
            norm(f"{name}.{i}.layernorm_before", f"{source}/layer_norm", i)
            norm(f"{name}.{i}.layernorm_after", f"{source}/ff_layer/layer_norm", i)
            attention(f"{name}.{i}.attention", f"{source}/self_attention", i)
            for k in (1, 2):
                fc = f"{source}/ff_layer/ffn_layer{k}/linear"
                put(f"{name}.{i}.mlp.fc{k}", t[f"{fc}/kernel"][i].T, t[f"{fc}/bias"][i])

    vision, video, text = "video_model.vision_model.", "video_model.", "text_model."
    encoder, embed = "vision_encoder/", f"{text}embeddings."
    kernel = t[f"{encoder}patch_projection/linear/kernel"].reshape(8, 8, 3, -1)
    put(
        f"{vision}spatial_embeddings.patch_embeddings.projection",
        kernel.transpose(3, 2, 0, 1)[:, :, None],
        t[f"{encoder}patch_projection/linear/bias"],
    )
    for k, stage in enumerate(("spatial", "temporal"), 1):
        table = t[f"{encoder}{stage}_pos_emb/emb_var"][None]
        out[f"{vision}{stage}_embeddings.position_embeddings"] = table
        layers(f"{vision}{stage}_layers", f"{encoder}{stage}_encoder/transformers_stack")
        norm(f"{vision}layernorm{k}", f"{encoder}{stage}_ln")
    layers(f"{video}auxiliary_layers", "auxiliary_encoder/transformers_stack")
    pooler = "contrastive_vision_pooler"
    out[f"{video}head.pooling_attention_query"] = t[f"{pooler}/pooling_attention_query"][None]
    out[f"{video}head.per_dim_scale"] = t[f"{pooler}/pooling_attention/per_dim_scale/per_dim_scale"]
    attention(f"{video}head", f"{pooler}/pooling_attention")
    norm(f"{video}head_layernorm", f"{pooler}/pooling_attention_layer_norm")
    put(f"{embed}token_embedding", t["text_encoder/token_emb/emb_var"])
    out[f"{embed}cls_emb"] = t["text_encoder/cls_emb"]
    layers(f"{text}layers", "text_encoder/unimodal_transformer")
    norm(f"{text}layernorm", "text_encoder/unimodal_ln")
    # As a float32 computation has it, not rounded from float64.
    rates = np.float32(10000) ** -np.linspace(0, exponent, 16, dtype=np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * rates
    out[f"{embed}position_embedding"] = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    out[f"{embed}position_ids"] = np.arange(length)[None]
    return out


HF_CONFIG = {
    "architectures": ["VideoPrismClipModel"],
    "model_type": "videoprism",
    "text_config": {
        "model_type": "videoprism_text_model",
        "vocab_size": 1000,
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    },
    "vision_config": {
        "model_type": "videoprism_vision_model",
        "image_size": 24,
        "num_frames": 4,
        "tubelet_size": [1, 8, 8],
        "hidden_size": 32,
        "num_spatial_layers": 3,
        "num_temporal_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    },
}
PROCESSOR = {
    "video_processor_type": "LlavaOnevisionVideoProcessor",
    "do_normalize": False,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "num_frames": 4,
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"height": 24, "width": 24},
}


def lvt_tensors():
    return formats.read(GOLDENS / "videoprism_lvt/checkpoint.npz")


def hf_folder(folder, tensors=None, config=HF_CONFIG, processor=PROCESSOR):
    folder.mkdir()
    formats.write_safetensors(folder / "model.safetensors", tensors or hf_tensors(lvt_tensors()))
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    if processor:
        (folder / "video_preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def keras_tensors(params):
    """KerasHub's file of our parameters, with scales + 1."""
    card, _ = converted("videoprism_lvt")
    scaled = {k: v + np.float32(1) if k.endswith("/scale") else v for k, v in params.items()}
    tensors = dict(from_params(scaled, videoprism.keras.rules(card.model)))
    return tensors | {EXTRA + "0": np.ones(32, np.float32), EXTRA + "1": np.zeros(32, np.float32)}


def test_npz_and_hugging_face_of_the_same_weights_are_the_same(tmp_path):
    source = hf_folder(tmp_path / "hf")
    card, params, notes = described(source)
    same_params(params, converted("videoprism_lvt")[1])
    assert card.model["text_pos_exponent"] == 1.0
    assert "text positions by the original's formula, as the file's table shows" in notes
    assert card.model | {"l2_eps": 1e-12} == converted("videoprism_lvt")[0].model
    # And from one home to the other.
    written(*converted("videoprism_lvt"), tmp_path / "hf2", "hf")
    ours, theirs = (
        dict(formats.read(tmp_path / name / "model.safetensors")) for name in ("hf", "hf2")
    )
    table = "text_model.embeddings.position_embedding"
    np.testing.assert_allclose(ours.pop(table), theirs.pop(table), atol=2e-5)
    same_tensors(ours, theirs)
    written(card, params, tmp_path / "npz", "original")
    same_tensors(formats.read(tmp_path / "npz/checkpoint.npz"), lvt_tensors())


def test_kerashub_of_the_same_weights_gives_the_same(tmp_path):
    pytest.importorskip("h5py")
    card, params = converted("videoprism_lvt")
    formats.write_h5(tmp_path / formats.KERAS_WEIGHTS, keras_tensors(params))
    card, params, notes = described(tmp_path)
    assert "no config.json" in notes
    inputs = call_inputs("videoprism_lvt", "full")
    for keys in TOWERS.values():
        ours = run(build(card), params, {key: inputs[key] for key in keys})
        for name in {"video_embeddings", "text_embeddings", "frame_embeddings"} & set(ours):
            theirs = golden("videoprism_lvt")[1][f"full_unnormalized/{name}"]
            assert error(ours[name], theirs) < EMBEDDINGS


def test_text_positions_are_told_by_the_table(tmp_path):
    for k, (exponent, dtype) in enumerate(
        [(1.0, np.float32), (1 - 2 / 32, np.float32), (1.0, ml_dtypes.bfloat16)]
    ):
        tensors = hf_tensors(lvt_tensors(), exponent)
        tensors = {n: x.astype(dtype) if x.dtype == np.float32 else x for n, x in tensors.items()}
        source = hf_folder(tmp_path / f"{k}", tensors)
        assert described(source)[0].model["text_pos_exponent"] == exponent
    tensors = hf_tensors(lvt_tensors(), 0.97)
    with pytest.raises(UserError, match="made neither by the original's formula nor by"):
        described(hf_folder(tmp_path / "neither", tensors))
    tensors = hf_tensors(lvt_tensors())
    tensors["text_model.embeddings.position_ids"] = np.arange(64)[None, ::-1].copy()
    with pytest.raises(UserError, match=r"position_ids: not 0, 1, 2"):
        described(hf_folder(tmp_path / "ids", tensors))


# Byte-exact round trips.


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "a.model"
    texts.train_tokenizer(["a red ball sliding left", "blue shapes going up and down"], path, 60)
    return path


@pytest.mark.parametrize("root", ["params/", ""])
@pytest.mark.parametrize("case", NPZ)
def test_npz_round_trip(tmp_path, case, root):
    tensors = formats.read(GOLDENS / case / "checkpoint.npz")
    tensors = {root + n.removeprefix("params/"): tensors[n] for n in tensors}
    formats.write_npz(tmp_path / "a.npz", tensors)
    card, params, _ = described(tmp_path / "a.npz")
    written(card, params, tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out/checkpoint.npz"), tensors)


def test_layers_of_an_npz_file_one_by_one(tmp_path):
    tensors = {}
    for name, array in lvt_tensors().items():
        if "/x_layers/" in name:
            for i, layer in enumerate(array):
                tensors[name.replace("/x_layers/", f"/x_layers_{i}/")] = layer
        else:
            tensors[name] = array
    formats.write_npz(tmp_path / "a.npz", tensors)
    card, params, _ = described(tmp_path / "a.npz")
    same_params(params, converted("videoprism_lvt")[1])
    written(card, params, tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out/checkpoint.npz"), tensors)


def test_hugging_face_round_trip_by_the_command(tmp_path):
    """In half precision, position tables included."""
    tensors = {
        name: array.astype(ml_dtypes.bfloat16) if array.dtype == np.float32 else array
        for name, array in hf_tensors(lvt_tensors(), 1 - 2 / 32).items()
    }
    source = hf_folder(tmp_path / "hf", tensors)
    report = command(source, tmp_path / "v")
    assert "left out 2 tensors (text_model.embeddings.position_embedding, ...): made anew" in report
    assert "text positions by transformers' formula, not the original's" in report
    command(tmp_path / "v", tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), tensors)
    for name in ("config.json", "video_preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


def vision_folder(folder, change, **changes):
    start = "video_model.vision_model."
    tensors = hf_tensors(lvt_tensors())
    tensors = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    return hf_folder(folder, change(tensors), HF_CONFIG["vision_config"] | changes)


def test_no_layers_along_time(tmp_path):
    source = vision_folder(
        tmp_path / "hf",
        lambda t: {n: x for n, x in t.items() if not n.startswith("temporal_layers.")},
        num_temporal_layers=0,
    )
    command(source, tmp_path / "v")
    loaded = pretrained.load_model(tmp_path / "v")
    assert loaded.card.model["temporal_depth"] == 0
    assert set(loaded.params["encoder"]["temporal"]) == {"norm", "pos_embed"}
    command(tmp_path / "v", tmp_path / "out", "hf")
    before, after = (formats.read(tmp_path / x / "model.safetensors") for x in ("hf", "out"))
    same_tensors(after, before)


def test_frames_that_are_not_square_are_noted(tmp_path):
    table = "spatial_embeddings.position_embeddings"
    _, h, w = converted("videoprism_lvt")[0].model["pos_grid"]
    _, patch, _ = converted("videoprism_lvt")[0].model["patch_size"]
    source = vision_folder(
        tmp_path / "hf",
        lambda t: t | {table: np.repeat(t[table], 2, axis=1)},
        image_size=[h * patch, 2 * w * patch],
    )
    card, params, notes = described(source)
    assert (
        f"frames of {h * patch} x {2 * w * patch} pixels, and frames are prepared square" in notes
    )
    assert card.preprocessing.size == h * patch
    originals = {"config.json": (source / "config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert (tmp_path / "out/config.json").read_bytes() == originals["config.json"]


def test_hugging_face_folder_of_a_model_trained_here(tmp_path):
    """It has no source: tables and JSON files are made anew."""
    tensors = hf_tensors(lvt_tensors(), 1 - 2 / 32)
    card, params, _ = described(hf_folder(tmp_path / "hf", tensors))
    trained = Card(card.model, card.preprocessing)
    written(trained, params, tmp_path / "anew", "hf")
    anew = dict(formats.read(tmp_path / "anew/model.safetensors"))
    table = "text_model.embeddings.position_embedding"
    np.testing.assert_allclose(anew.pop(table), tensors.pop(table), atol=2e-5)
    same_tensors(anew, tensors)
    again = described(tmp_path / "anew")[0]
    assert (again.model, again.preprocessing) == (card.model, card.preprocessing)
    assert written(*converted("videoprism_lvt"), tmp_path / "npz", "original") == ""
    note = written(trained, params, tmp_path / "npz2", "original")
    assert "does not tell that text_pos_exponent is 0.9375 here" in note


SINGLE_TOWERS = {
    None: "video_model.vision_model.",
    "video": "video_model.",
    "text": "text_model.",
    "classify": "video_model.",
}


@pytest.mark.parametrize("before", ["", "module."])
@pytest.mark.parametrize("head", SINGLE_TOWERS, ids=str)
def test_hugging_face_models_of_one_tower(tmp_path, head, before):
    start = SINGLE_TOWERS[head]
    tensors = hf_tensors(lvt_tensors())
    tensors = {before + n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    config = dict(HF_CONFIG["text_config" if head == "text" else "vision_config"])
    if head == "classify":
        tensors = {n: t for n, t in tensors.items() if "auxiliary" not in n}
        rng = np.random.default_rng(0)
        tensors |= {
            f"{before}classifier.{name}": rng.standard_normal(shape, np.float32)
            for name, shape in (("weight", (3, 32)), ("bias", (3,)))
        }
        config["id2label"] = {str(k): name for k, name in enumerate("abc")}
    source = hf_folder(tmp_path / "hf", tensors, config)
    card, params, _ = described(source)
    assert card.model["head"] == head
    assert card.classes == (("a", "b", "c") if head == "classify" else None)
    originals = {"config.json": (source / "config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    again = dict(formats.read(tmp_path / "out/model.safetensors"))
    if head == "text":  # the command writes the one that the model came with
        again[f"{before}embeddings.position_embedding"] = tensors[
            f"{before}embeddings.position_embedding"
        ]
    same_tensors(again, tensors)
    assert (tmp_path / "out/config.json").read_bytes() == originals["config.json"]
    # A new file has transformers' own names, and a config.json that describes the same model.
    card = Card(card.model, card.preprocessing, card.classes)
    written(card, params, tmp_path / "new", "hf")
    names = {name.removeprefix(before) for name in tensors}
    if head == "video" or head == "classify":
        assert "vision_model.layernorm1.weight" in names
    assert set(formats.read(tmp_path / "new/model.safetensors")) == names
    assert described(tmp_path / "new")[0].model == card.model


def test_kerashub_round_trip_by_the_command(tmp_path, vocabulary):
    source = preset(KERAS[1], tmp_path / "preset")
    (source / "tokenizer.json").write_text('{"class_name": "VideoPrismTokenizer"}')
    (source / "assets/tokenizer").mkdir(parents=True)
    shutil.copyfile(vocabulary, source / "assets/tokenizer/vocabulary.spm")
    command(source, tmp_path / "v")
    card = read_card(tmp_path / "v")
    assert card.tokenizer["file"] == "tokenizer.model"
    command(tmp_path / "v", tmp_path / "out", "keras")
    theirs = formats.read(source / formats.KERAS_WEIGHTS)
    same_tensors(formats.read(tmp_path / "out" / formats.KERAS_WEIGHTS), theirs)
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    assert len(files) == 6
    for name in files:
        if name.suffix != ".h5":
            assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("case", KERAS)
def test_kerashub_preset_of_a_model_trained_here(tmp_path, case):
    source = preset(case, tmp_path / "preset")
    card, params, _ = described(source)
    trained = Card(card.model, card.preprocessing)
    written(trained, params, tmp_path / "anew", "keras")
    ours, theirs = (
        formats.read(folder / formats.KERAS_WEIGHTS) for folder in (tmp_path / "anew", source)
    )
    same_tensors(ours, theirs)
    again = described(tmp_path / "anew")[0]
    assert (again.model, again.preprocessing) == (card.model, card.preprocessing)


# What formats cannot hold.


def test_what_other_homes_cannot_express(tmp_path):
    card, params = converted("videoprism_classifier")
    with pytest.raises(UserError, match="a pooler of width 36 instead of the MLP's 144"):
        written(card, params, tmp_path / "a", "hf")
    card = Card(card.model | {"pool_dim": 144}, card.preprocessing)
    with pytest.raises(UserError, match="a pooler of width 144 instead of 36; export by"):
        written(card, params, tmp_path / "b", "original")
    card, params = converted("videoprism_lvt")
    card = Card(card.model | {"text_norm_out": True}, card.preprocessing)
    with pytest.raises(UserError, match="norms after the branches of text layers"):
        written(card, params, tmp_path / "c", "hf")
    card = Card(card.model | {"scale_offset": 0.0, "head": "video"}, card.preprocessing)
    with pytest.raises(UserError, match="KerasHub has no VideoPrism with head 'video'"):
        written(card, params, tmp_path / "d", "keras")


def test_models_that_were_never_published(tmp_path):
    card, params = converted("videoprism_lvt")
    distil, probe = (
        Card(card.model | fields, card.preprocessing)
        for fields in ({"head": "distil"}, {"name": "probe"})
    )
    with pytest.raises(UserError, match="no published format has a VideoPrism with head 'distil'"):
        written(distil, params, tmp_path / "distil", "hf")
    write_card(tmp_path, probe)
    with pytest.raises(UserError, match="models of kind 'probe' have no published format"):
        command(tmp_path, tmp_path / "out", "hf")


def test_learned_temperature_is_left_out(tmp_path):
    card, params = converted("videoprism_lvt")
    fields = card.model | {"logit_scale": 2.0, "logit_bias": -1.0}
    scalars = {"logit_scale": np.float32(2), "logit_bias": np.float32(-1)}
    tree = traverse_util.unflatten_dict(params | scalars, sep="/")
    card = Card(fields, card.preprocessing)
    pretrained.save_pretrained(tmp_path / "v", jax.tree.map(np.asarray, tree), card)
    report = command(tmp_path / "v", tmp_path / "out", "original")
    assert "logit_scale and logit_bias are left out: no published format has them" in report
    same_tensors(formats.read(tmp_path / "out/checkpoint.npz"), lvt_tensors())


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("vision_config", {"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'"),
        ("text_config", {"hidden_act": "gelu"}, r"\(text_config\) has hidden_act 'gelu'"),
        ("vision_config", {"qkv_bias": False}, "qkv_bias False"),
        ("text_config", {"apply_l2norm": False}, "apply_l2norm False"),
        ("vision_config", {"num_frames": 16}, "num_frames 16 instead of 4"),
        ("vision_config", {"num_auxiliary_layers": 3}, "num_auxiliary_layers 3 instead of 2"),
        ("text_config", {"num_hidden_layers": 3}, "num_hidden_layers 3 instead of 4"),
        ("vision_config", {"image_size": 48}, "6 x 6 patches, but the position table is for 9"),
        ("vision_config", {"num_attention_heads": 3}, "3 does not divide the width 32"),
        (
            "text_config",
            {"layer_norm_eps": 1e-5},
            "different values of layer_norm_eps .vision_config 1e-06, text_config",
        ),
    ],
)
def test_config_that_contradicts_the_tensors(tmp_path, part, changes, message):
    config = HF_CONFIG | {part: HF_CONFIG[part] | changes}
    with pytest.raises(UserError, match=message):
        described(hf_folder(tmp_path / "hf", config=config))


# Preprocessing.


def facts_of(source, **options):
    facts = described(source, **options)[0].preprocessing
    assert (facts.sampling, facts.temporal_views, facts.spatial_views) == ("linspace", 1, 1)
    return facts


def test_preprocessing_of_each_home(tmp_path):
    facts = facts_of(GOLDENS / "videoprism_lvt/checkpoint.npz")
    assert (facts.frames, facts.size, facts.fit, facts.resize) == (4, 24, "crop", "pil_lanczos")
    assert (facts.mean, facts.std) == ((0.0,) * 3, (1.0,) * 3)
    facts = facts_of(hf_folder(tmp_path / "lanczos"))
    assert (facts.fit, facts.resize, facts.mean) == ("stretch", "pil_lanczos", (0.0,) * 3)
    # transformers' class is bicubic, and normalises where it is asked to.
    processor = PROCESSOR | {"resample": 3, "do_normalize": True, "num_frames": 8}
    facts = facts_of(hf_folder(tmp_path / "bicubic", processor=processor))
    assert (facts.resize, facts.frames) == ("pil_bicubic", 8)
    assert facts.mean == (0.48, 0.46, 0.41)
    merged = {"processor_class": "VideoPrismProcessor", "video_processor": PROCESSOR}
    source = hf_folder(tmp_path / "merged", processor=None)
    assert facts_of(source).fit == "crop"  # nothing says otherwise
    (source / "processor_config.json").write_text(json.dumps(merged))
    assert facts_of(source).fit == "stretch"
    # Each can be had with any weights.
    assert facts_of(source, preprocessing="original").fit == "crop"
    assert facts_of(GOLDENS / "videoprism_lvt/checkpoint.npz", preprocessing="hf").resize == (
        "pil_bicubic"
    )
    facts = facts_of(source, preprocessing="keras", frames=2, size=16)
    assert (facts.fit, facts.resize) == ("crop_first", "pil_bilinear")
    assert (facts.frames, facts.size, facts.short_side) == (2, 16, 16)


def test_preprocessing_of_kerashub(tmp_path):
    source = preset(KERAS[0], tmp_path / "preset")
    facts = facts_of(source)
    assert (facts.frames, facts.size, facts.fit) == (4, 40, "crop_first")
    assert (facts.resize, facts.mean, facts.std) == ("pil_bilinear", (0.0,) * 3, (1.0,) * 3)
    file = json.loads((source / "image_converter.json").read_text())
    file["config"] |= {"scale": 1 / 127.5, "offset": -1.0, "crop_to_aspect_ratio": False}
    (source / "image_converter.json").write_text(json.dumps(file))
    facts = facts_of(source)
    assert (facts.fit, facts.mean, facts.std) == ("stretch", (0.5,) * 3, (0.5,) * 3)
    file["config"] |= {"antialias": False}
    (source / "image_converter.json").write_text(json.dumps(file))
    with pytest.raises(UserError, match="antialias False"):
        facts_of(source)
    assert facts_of(source, preprocessing="original").fit == "crop"


def test_processor_of_an_export_says_what_the_card_says(tmp_path):
    card, params = converted("videoprism_lvt")
    note = written(card, params, tmp_path / "hf", "hf")
    assert "transformers cannot prepare frames by fit 'crop' and resize 'pil_lanczos'" in note
    facts = described(tmp_path / "hf")[0].preprocessing
    assert (facts.fit, facts.resize) == ("crop", "hf_lanczos")  # the longer side is truncated
    assert (facts.frames, facts.size, facts.short_side) == (4, 24, 24)


# Vocabularies.


def test_vocabulary_travels_with_the_model(tmp_path, vocabulary):
    source = GOLDENS / "videoprism_lvt/checkpoint.npz"
    report = command(source, tmp_path / "v", tokenizer=str(vocabulary))
    card = read_card(tmp_path / "v")
    assert card.tokenizer == {"file": "tokenizer.model", "length": 64, "canonicalise": True}
    assert "--prompt=" in report
    assert (tmp_path / "v/tokenizer.model").read_bytes() == vocabulary.read_bytes()
    ids, _ = pretrained.load_tokenizer(tmp_path / "v")(["A red ball!"])
    plain, _ = texts.Tokenizer(vocabulary, canonicalise=False)(["a red ball."])
    np.testing.assert_array_equal(ids, plain)
    command(tmp_path / "v", tmp_path / "hf", "hf")
    assert (tmp_path / "hf/spiece.model").read_bytes() == vocabulary.read_bytes()
    # Found there by itself.
    assert tokenizer_of(tmp_path / "hf", raw_text=True).card == card.tokenizer | {
        "canonicalise": False
    }


def tokenizer_of(folder, **options):
    source = formats.open_source(folder)
    return videoprism.describe(source, Options(**options)).tokenizer


def test_vocabulary_of_a_folder(tmp_path, vocabulary):
    source = hf_folder(tmp_path / "hf")
    (source / "tokenizer.json").write_text("{}")
    assert tokenizer_of(source).card["file"] == "tokenizer.json"
    for name in ("tokenizer.model", "sentencepiece.model", "spiece.model"):
        shutil.copyfile(vocabulary, source / name)
        found = tokenizer_of(source)
        assert (found.path, found.card["file"]) == (source / name, "tokenizer.model")
    source = preset(KERAS[1], tmp_path / "preset")
    (source / "tokenizer.json").write_text('{"class_name": "VideoPrismTokenizer"}')
    assert tokenizer_of(source) is None


def test_vocabularies_that_do_not_fit(tmp_path, vocabulary):
    lvt, video = (GOLDENS / f"videoprism_{name}/checkpoint.npz" for name in ("lvt", "video"))
    assert "no vocabulary beside the weights" in described(lvt)[2]
    with pytest.raises(UserError, match=r"--tokenizer and --raw_text are about texts"):
        described(video, tokenizer=str(vocabulary))
    with pytest.raises(UserError, match=r"gone.model is no SentencePiece .model"):
        described(lvt, tokenizer=str(tmp_path / "gone.model"))
    tensors = dict(lvt_tensors())
    name = "params/text_encoder/token_emb/emb_var"
    tensors[name] = tensors[name][:20]
    formats.write_npz(tmp_path / "a.npz", tensors)
    with pytest.raises(UserError, match=r"the vocabulary has \d+ token ids and the model 20"):
        command(tmp_path / "a.npz", tmp_path / "v", tokenizer=str(vocabulary))
    assert not (tmp_path / "v").exists()


# The published models.

SIZES = {  # of the fact sheet: head, fields, parameters
    "base": (None, {"variant": "B", "pos_grid": (16, 16, 16)}, 114_365_184),
    "large": (None, {"variant": "L", "pos_grid": (8, 16, 16)}, 353_965_056),
    "LvT base": ("video_text", {"variant": "B", "pos_grid": (16, 16, 16)}, 247_623_424),
    "LvT large": ("video_text", {"variant": "L", "pos_grid": (8, 16, 16)}, 579_877_120),
    "LvT giant": ("video_text", {"variant": "g", "pos_grid": (8, 16, 16)}, None),
}


@pytest.mark.parametrize("size", SIZES)
def test_tables_cover_every_published_size(size):
    """Names and shapes alone lead back to the model, through every format."""
    head, fields, count = SIZES[size]
    words = {"vocab_size": 32000} if head else {}
    build = functools.partial(models.build, "videoprism", head=head, eps=1e-6, **fields, **words)
    model = build(scale_offset=1.0)
    want = pretrained.param_specs(model)
    # Zeros without memory: one value, strided.
    params = {k: np.broadcast_to(np.zeros((), np.float32), v.shape) for k, v in want.items()}
    assert count in (None, sum(value.size for value in params.values()))
    for format in videoprism.FORMATS:
        offset = 0.0 if format == "keras" else 1.0
        fields = models.config_of(model) | {"scale_offset": offset}
        card = Card(fields, Preprocessing())
        if size == "LvT giant" and format != "original":
            with pytest.raises(UserError, match=r"norms after the branches|other layers for texts"):
                videoprism.export(card, format, {})
            continue
        plan = videoprism.export(card, format, {})
        tensors = merge(from_params(params, plan.rules), plan.computed)
        assert any("pre_layer_norm" in name for name in tensors) == (size == "LvT giant")
        source = formats.Source(pathlib.Path("x"), tensors, (pathlib.Path(plan.weights),))
        conversion = videoprism.describe(source, Options())
        again = models.build(**conversion.model)
        there = dict(params)
        if conversion.model.get("text_inner_norm"):  # KerasHub's, which the export adds
            there |= {f"text/inner_norm/{k}": params["text/norm/scale"] for k in ("scale", "bias")}
        rules = {*from_params(there, conversion.rules), *plan.computed}
        assert rules == set(tensors)
        for key in ("depth", "mlp_dim", "num_heads", "pos_grid", "patch_size", "softcap"):
            assert again.config.get(key) == model.config.get(key), (format, key)
        assert again.config["scale_offset"] == offset
        facts = conversion.preprocessing
        assert (facts.frames, facts.size) == (model.config["pos_grid"][0], 288)


def test_published_names_lead_to_one_file():
    for name, entry in videoprism.published.CHECKPOINTS.items():
        files = {
            videoprism.HUB_FILES[alias]
            for alias in (name, f"kaggle://keras/videoprism/keras/{name}/1")
        }
        assert files == {f"{entry.hub}/{entry.file}"}
    assert videoprism.published.CHECKPOINTS["videoprism_lvt_public_v1_large"].hub == (
        "google/videoprism-lvt-large-f8r288"
    )


@pytest.mark.parametrize(
    "name",
    [
        "videoprism_lvt_public_v1_base",
        "google/videoprism-lvt-base-f16r288",
        "google/videoprism-lvt-base-f16r288@main",
        "kaggle://keras/videoprism/keras/videoprism_lvt_public_v1_base/1",
    ],
)
def test_published_names_come_from_the_local_cache(tmp_path, monkeypatch, name):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache/models--google--videoprism-lvt-base-f16r288"
    snapshot = folder / "snapshots/abc123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc123")
    entry = videoprism.published.CHECKPOINTS["videoprism_lvt_public_v1_base"]
    shutil.copyfile(GOLDENS / "videoprism_lvt/checkpoint.npz", snapshot / entry.file)
    path, origin = hub.resolve(name)
    assert path == snapshot / entry.file
    assert origin == f"google/videoprism-lvt-base-f16r288@abc123/{entry.file}"
    notes = described(path, hub_id=name.partition("@")[0])[2]
    assert "published as VideoPrism-LvT-B (videoprism_lvt_public_v1_base)" in notes


def test_other_families_do_not_claim_these_files(tmp_path):
    sources = [GOLDENS / case / "checkpoint.npz" for case in NPZ]
    sources.append(hf_folder(tmp_path / "hf"))
    tensors = hf_tensors(lvt_tensors())
    start = "video_model.vision_model."
    tensors = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    sources.append(hf_folder(tmp_path / "vision", tensors))
    for path in sources:
        source = formats.open_source(path)
        assert registry.recognise(source) is videoprism
