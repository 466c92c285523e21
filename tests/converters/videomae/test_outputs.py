"""VideoMAE's numerics against the original code's goldens."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from converters import formats
from converters.videomae import architecture
from tests.support.converting import command, params_of, same_tensors
from tests.support.goldens import assert_all_match, assert_caught, errors, inputs, outputs
from tests.support.sources.videomae import CASES, checkpoint, hf_folder, tensors_of
from vidjax import models, pretrained
from vidjax.card import read_card
from vidjax.models import layers
from vidjax.objectives import masked_autoencoding
from vidjax.preprocessing import Preprocessing

TOL = 2e-6  # of the largest reference output; float32
TOL64 = 1e-10  # the same in float64
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


def params_tree(folder):
    return traverse_util.unflatten_dict(params_of(folder), sep="/")


def run(folder, dtype="float32", **changed_fields):
    """Everything that the golden of this folder's name has, computed by us."""
    model = models.build(**read_card(folder).model | {"dtype": dtype} | changed_fields)
    return outputs_of(model, params_tree(folder), folder.name)


def outputs_of(model, params, case):
    arrays = inputs(case)
    video = arrays.pop("pixel_values").transpose(0, 2, 3, 4, 1).astype(model.dtype)
    params = jax.tree.map(lambda x: x.astype(model.dtype), params)
    if not arrays:
        return jax.tree.map(np.asarray, classify(model, params, video))
    masked = arrays["bool_masked_pos"]
    keep, hidden = indices(~masked), indices(masked)
    if "decode_masked_pos" not in arrays:
        weight = np.ones(hidden.shape, model.dtype)
        return jax.tree.map(np.asarray, reconstruct(model, params, video, keep, hidden, weight))
    decoded = indices(~arrays["decode_masked_pos"])
    weight = np.take_along_axis(masked, decoded, axis=1).astype(model.dtype)
    out = reconstruct(model, params, video, keep, decoded, weight)
    whole = jax.jit(model.apply)({"params": params}, video, keep, hidden)
    return jax.tree.map(np.asarray, out | {"predictions_without_decoder_mask": whole})


@functools.partial(jax.jit, static_argnums=0)
def classify(model, params, video):
    logits, extra = model.apply({"params": params}, video, mutable=["hidden_states"])
    hidden = extra["hidden_states"]["encoder"]["blocks"]["output"]
    return {
        "logits": logits,
        "features": model.apply({"params": params}, video, method="embed"),
        "first_block_output": hidden[0],
        "last_block_output": hidden[-1],
    }


@functools.partial(jax.jit, static_argnums=0)
def reconstruct(model, params, video, keep, predict, weight):
    pixels = model.apply({"params": params}, video, keep, predict)
    features = model.apply({"params": params}, video, keep, method="encode")
    out = {"encoder_features": features, "predictions": pixels}
    unnormalised = video * IMAGENET[1].astype(video.dtype) + IMAGENET[0].astype(video.dtype)
    for name, norm_pix in (("norm", True), ("raw", False)):
        labels = masked_autoencoding.pixel_targets(
            unnormalised, predict, model.patch_size, norm_pix=norm_pix
        )
        error = jnp.square(pixels - labels).mean(-1)
        out[f"labels_{name}"] = labels
        out[f"loss_{name}"] = (error * weight).sum() / weight.sum()
    return out


def indices(mask):
    """Token indices [B, K] where mask [B, N] is true."""
    return np.stack([np.flatnonzero(row) for row in mask])


@pytest.mark.parametrize("case", CASES)
def test_float32_outputs_match_the_original(folders, case):
    assert_all_match(run(folders / case), case, TOL)


@pytest.mark.parametrize("case", CASES)
def test_float64_outputs_match_the_original(folders, case):
    with jax.enable_x64(True):
        found = errors(run(folders / case, "float64"), case, "__f64")
    assert len(found) >= 2
    assert max(found.values()) < TOL64, found


def test_splash_attention_matches_the_original(folders, splash):
    case = "videomae_pretrain"
    found = errors(run(folders / case, attention="splash"), case)
    assert splash  # by encoder and decoder
    assert max(found.values()) < TOL, found


def is_caught(ours, case, suffix=""):
    assert_caught(errors(ours, case, suffix), 10 * (TOL64 if suffix else TOL))


def test_tanh_gelu_is_caught(folders, monkeypatch):
    case = "videomaev2_finetune"
    monkeypatch.setitem(layers.ACTIVATIONS, "gelu", layers.ACTIVATIONS["gelu_tanh"])
    classify.clear_cache()  # the right one is in it
    wrong = run(folders / case)
    classify.clear_cache()
    is_caught(wrong, case)


@pytest.mark.parametrize(
    ("case", "eps"), [("videomae_finetune_meanpool", 1e-5), ("videomae_pretrain", 1e-12)]
)
def test_wrong_eps_is_caught(folders, case, eps):
    # 1e-6 against a variance of about 1 drowns in float32; not in float64.
    with jax.enable_x64(True):
        wrong = run(folders / case, "float64", eps=eps)
    is_caught(wrong, case, "__f64")


@pytest.mark.parametrize(
    ("case", "field"),
    [("videomae_pretrain", "decoder_norm_eps"), ("videomae_finetune_meanpool", "fc_norm_eps")],
)
def test_wrong_eps_of_the_last_norm_is_caught(folders, case, field):
    with jax.enable_x64(True):
        wrong = run(folders / case, "float64", **{field: 1e-5})
    is_caught(wrong, case, "__f64")


def reshaped_heads(params, heads):
    """Returns the same weights, read as another number of heads."""

    def change(path, x):
        if path[-3:-1] == ("attn", "out") and path[-1] == "kernel":  # [L, H, K, D]
            return x.reshape(len(x), heads, -1, x.shape[-1])
        if path[-2] in ("query", "key", "value"):  # [L, D, H, K] and [L, H, K]
            return x.reshape(*x.shape[:-2], heads, -1)
        return x

    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict(
        {k: change(k, v) if k[0] == "encoder" and "attn" in k else v for k, v in flat.items()}
    )


def test_wrong_number_of_heads_is_caught(folders):
    case, heads = "videomae_finetune_meanpool", 6
    card = read_card(folders / case)
    model = models.build(**card.model | {"num_heads": heads})
    params = reshaped_heads(params_tree(folders / case), heads)
    is_caught(outputs_of(model, params, case), case)


@pytest.mark.parametrize("order", [("query", "value", "key"), ("key", "query", "value")])
def test_wrong_order_in_the_fused_projection_is_caught(tmp_path, monkeypatch, order):
    case = "videomae_finetune_meanpool"
    right = architecture.rules

    def swap(rule):
        if not isinstance(rule.target, tuple):
            return rule
        base = rule.target[0].split("/attn/")[0]
        return dataclasses.replace(
            rule, target=tuple(f"{base}/attn/{name}/kernel" for name in order)
        )

    monkeypatch.setattr(architecture, "rules", lambda *a: [swap(r) for r in right(*a)])
    command(checkpoint(case), tmp_path / case, **CASES[case])
    is_caught(run(tmp_path / case), case)


def test_wrong_order_of_decoder_pixels_is_caught(folders):
    case = "videomae_pretrain"
    card = read_card(folders / case)
    t, h, w = card.model["patch_size"]
    pixels = run(folders / case)["predictions"]
    channel_first = pixels.reshape(*pixels.shape[:2], t * h * w, 3).swapaxes(2, 3)
    is_caught({"predictions": channel_first.reshape(pixels.shape)}, case)
    # In time: frames of a tubelet swapped.
    swapped = pixels.reshape(*pixels.shape[:2], t, -1)[:, :, ::-1].reshape(pixels.shape)
    is_caught({"predictions": swapped}, case)
    assert errors({"predictions": pixels}, case)["predictions"] < TOL


@pytest.mark.parametrize(
    ("case", "norm_pix"), [("videomae_pretrain", False), ("videomaev2_pretrain", True)]
)
def test_objective_has_the_originals_loss(folders, case, norm_pix):
    """The loss of the training objective itself, under the golden's masks."""
    arrays = inputs(case)
    masked = arrays["bool_masked_pos"]
    keep, predict = indices(~masked), indices(masked)
    if "decode_masked_pos" in arrays:
        predict = indices(~arrays["decode_masked_pos"])
    weight = np.take_along_axis(masked, predict, axis=1).astype(np.float32)

    class Fixed(masked_autoencoding.MaskedAutoencoding):
        def masks(self, rng, shape):
            return keep, predict, weight

    loaded = pretrained.load_model(folders / case)
    preprocessing = Preprocessing(mean=tuple(IMAGENET[0]), std=tuple(IMAGENET[1]))
    objective = Fixed(loaded.model, preprocessing, norm_pix=norm_pix)
    video = arrays["pixel_values"].transpose(0, 2, 3, 4, 1) * IMAGENET[1] + IMAGENET[0]
    batch = {"video": jnp.asarray(video * 255)}
    loss, _ = jax.jit(objective.loss)(loaded.params, batch, rng=jax.random.key(0))
    reference = outputs(case)["loss_norm" if norm_pix else "loss_raw"]
    assert abs(loss / reference - 1) < TOL


def test_hub_repository_of_v2_without_a_head(tmp_path):
    """OpenGVLab/VideoMAEv2-*: original names under `model.`, arguments in config.json."""
    case = "videomaev2_finetune"
    tensors = {f"model.{n}": t for n, t in tensors_of(case).items() if not n.startswith("head.")}
    config = {"model_config": {"num_heads": 3, "num_frames": 8, "img_size": 28, "num_classes": 0}}
    command(hf_folder(tmp_path / "hf", tensors, config), tmp_path / "v")
    loaded = pretrained.load_model(tmp_path / "v")
    assert (loaded.card.preprocessing.frames, loaded.model.config["num_heads"]) == (8, 3)
    video = inputs(case)["pixel_values"].transpose(0, 2, 3, 4, 1)
    features = loaded.model.apply({"params": loaded.params}, video)
    assert errors({"features": np.asarray(features)}, case)["features"] < TOL
    command(tmp_path / "v", tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.pth"), tensors)
