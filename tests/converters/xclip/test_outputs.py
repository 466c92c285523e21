"""X-CLIP's numerics against the original's goldens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from converters import formats
from tests.support.converting import same_params
from tests.support.goldens import assert_caught, inputs, outputs
from tests.support.sources.xclip import converted, described, transposed, written
from vidjax import models, pretrained
from vidjax.card import Card
from vidjax.preprocessing import Preprocessing

FLOAT32, FLOAT64 = 5e-6, 1e-12  # of values up to 7


@functools.partial(
    jax.jit,
    static_argnums=(0, 4),
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)  # compiling is what these tests take time for
def apply(model, params, video, ids, text_only):
    """Returns the outputs that the reference shows, by its names."""

    def method(model):
        if text_only:
            return {"text_features": model.text_features(ids)}
        frames, context = model.frame_features(video)
        vectors, _ = model.video_features(video)
        texts = model.text_features(ids)
        return {
            "frame_cls_features": frames,
            "img_features_mean": context,
            "video_features": vectors,
            "text_features": texts,
            "video_specific_prompts": model.video_prompts(texts, context),
            "logits": model.similarity((vectors, context), texts),
        }

    return model.apply({"params": params}, method=method)


def errors(params=None, card=None, suffix="", text_only=False, **changed):
    """Our largest difference from each output of the golden."""
    known, right = converted()
    dtype = "float64" if suffix else "float32"
    model = models.build(**(card or known).model | {"dtype": dtype} | changed)
    params = traverse_util.unflatten_dict(right if params is None else params, sep="/")
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    arrays, theirs = inputs("xclip"), outputs("xclip")
    video = arrays["pixel_values"].transpose(0, 1, 3, 4, 2).astype(dtype)
    ids = arrays["input_ids"].astype(np.int32)
    found = apply(model, params, video, ids, text_only)
    assert all(found[name].shape == theirs[name].shape for name in found)
    return {k: float(np.abs(np.asarray(v) - theirs[k + suffix]).max()) for k, v in found.items()}


def test_float32_outputs_match_the_original():
    found = errors()
    print(found)
    assert max(found.values()) < FLOAT32, found


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def test_float64_outputs_match_the_original(x64):
    found = errors(suffix="__f64")
    print(found)
    assert len(found) == 6 and max(found.values()) < FLOAT64, found


def test_gelu_is_caught(x64):
    assert_caught(errors(suffix="__f64", text_only=True, act="gelu"), 1e-2)


def test_epsilon_of_other_vits_is_caught(x64):
    assert_caught(errors(suffix="__f64", text_only=True, eps=1e-6), 1e-6)


def test_heads_of_the_layers_over_frames_and_of_prompts_are_caught(x64):
    card, params = converted(mit_heads=2, prompt_heads=2)
    assert card.model["mit_num_heads"] == card.model["prompt_num_heads"] == 2
    found = errors(params, card, "__f64")
    assert_caught({"mit": found["video_features"]}, 1e-2)
    assert_caught({"prompts": found["video_specific_prompts"]}, 1e-3)
    assert found["frame_cls_features"] < FLOAT64


def swap(a, b):
    def change(params):
        pairs = {name: name.replace(f"{a}/", f"{b}/") for name in params if f"{a}/" in name}
        pairs = {name: other for name, other in pairs.items() if other in params}
        return {x: params[y] for x, y in pairs.items()} | {y: params[x] for x, y in pairs.items()}

    return change


def one(name, change):
    return lambda params: {name: change(params[name])}


def as_stored_elsewhere(kernel):
    """Returns the out projection as if it were stored as the other three are."""
    flat = kernel.reshape(*kernel.shape[:-3], -1, kernel.shape[-1])
    return transposed(flat).reshape(kernel.shape)


CHANGES = {
    "projection of frames transposed": one("video_proj/kernel", transposed),
    "projection of patches transposed": one("prompts/proj/kernel", transposed),
    "keys before queries": swap("/query", "/key"),
    "values before keys": swap("/key", "/value"),
    "messages' attention for the tokens'": swap("/message_attn", "/attn"),
    "messages' norm for the first": swap("/message_norm", "/norm1"),
    "message layer transposed": one("encoder/blocks/message_fc/kernel", transposed),
    "norms of a layer swapped": swap("/norm1", "/norm2"),
    "norms before and after swapped": swap("encoder/norm", "encoder/norm_pre"),
    "prompts' norms swapped": swap("prompts/norm", "prompts/norm_visual"),
    "out projection transposed": one("encoder/blocks/attn/out/kernel", as_stored_elsewhere),
    "layers in reverse": one("encoder/blocks/mlp/fc1/kernel", lambda x: x[::-1]),
    "patches column first": one("encoder/patch_embed/kernel", lambda x: x.swapaxes(1, 2)),
    "colours in reverse": one("encoder/patch_embed/kernel", lambda x: x[..., ::-1, :]),
    "share of prompts left out": one("prompts/alpha", np.ones_like),
}


@pytest.mark.parametrize("change", CHANGES)
def test_wrong_tables_are_caught(change, x64):
    _, params = converted()
    wrong = {k: v for k, v in CHANGES[change](params).items() if v.shape == params[k].shape}
    assert wrong
    assert_caught(errors(params | wrong, suffix="__f64"), 1e-3)


def test_square_text_projection_is_not_transposed(tmp_path):
    """In base and large models it is square, so no shape tells."""
    rng = np.random.default_rng(0)
    size = {"text_width": 64, "text_num_heads": 1, "text_depth": 1, "vocab_size": 50}
    vision = {"width": 64, "depth": 1, "num_heads": 1, "mlp_dim": 256, "patch_size": (1, 4, 4)}
    heads = {"mit_num_heads": 1, "prompt_num_heads": 1, "embed_dim": 64}
    fields = size | vision | heads | {"eps": 1e-5, "pos_grid": (2, 2, 2)}
    model = models.build("xclip", head="video_text", **fields)
    want = pretrained.param_specs(model)
    params = {k: 0.1 * rng.standard_normal(v.shape, np.float32) for k, v in want.items()}
    card = Card(models.config_of(model), Preprocessing(size=8, short_side=8))
    ids = np.array([[3, 49, 0]])

    def method(model):
        return model.text.pool(ids), model.text_features(ids)

    tree = traverse_util.unflatten_dict(params, sep="/")
    pooled, projected = jax.jit(lambda p: model.apply({"params": p}, method=method))(tree)
    written(card, params, tmp_path / "original", "original")
    written(card, params, tmp_path / "hf", "hf")
    matrix = formats.read(tmp_path / "original/checkpoint.pth")["text_projection"]
    linear = formats.read(tmp_path / "hf/model.safetensors")["text_projection.weight"]
    np.testing.assert_allclose(projected, pooled @ matrix, atol=1e-5)
    np.testing.assert_allclose(projected, pooled @ linear.T, atol=1e-5)
    assert np.abs(projected - pooled @ matrix.T).max() > 0.1
    for folder in ("original/checkpoint.pth", "hf"):
        same_params(described(tmp_path / folder)[1], params)
