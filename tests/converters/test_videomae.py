"""VideoMAE's tables and numerics against the original code's goldens; files in all spellings."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from converters import Options, formats, videomae
from converters.convert import convert
from converters.mapping import from_params
from converters.videomae import architecture, published
from tests.support.converting import same_tensors
from vidjax import checksums, models, pretrained
from vidjax.card import Card, read_card
from vidjax.errors import UserError
from vidjax.models import layers
from vidjax.objectives import masked_autoencoding
from vidjax.preprocessing import Preprocessing

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
TOL = 2e-6  # of the largest reference output; float32
TOL64 = 1e-10  # the same in float64

CASES = {
    "videomae_pretrain": Options(heads=4, decoder_heads=5, frames=16, size=18),
    "videomae_finetune_meanpool": Options(heads=4, frames=10, size=32),
    "videomae_finetune_nopool": Options(heads=2, frames=6, size=36),
    "videomaev2_pretrain": Options(heads=5, decoder_heads=2, frames=12, size=24),
    "videomaev2_finetune": Options(heads=3, frames=8, size=28),
}
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every golden checkpoint, converted by the real command."""
    root = tmp_path_factory.mktemp("converted")
    for case, options in CASES.items():
        source = GOLDENS / case / "checkpoint-0.pth"
        convert(str(source), root / case, options=options, say=lambda line: None)
    return root


@functools.cache  # reading takes 10 ms a tensor
def params_of(folder):
    """Of a folder that stays as it is."""
    return dict(pretrained.open_params(folder))


def nested(folder):
    return traverse_util.unflatten_dict(params_of(folder), sep="/")


def run(folder, dtype="float32", **changed_fields):
    """Everything that the golden of this folder's name has, computed by us."""
    model = models.build(**read_card(folder).model | {"dtype": dtype} | changed_fields)
    return outputs_of(model, nested(folder), folder.name)


def outputs_of(model, params, case):
    with np.load(GOLDENS / case / "inputs.npz") as file:
        inputs = dict(file)
    video = inputs.pop("pixel_values").transpose(0, 2, 3, 4, 1).astype(model.dtype)
    params = jax.tree.map(lambda x: x.astype(model.dtype), params)
    if not inputs:
        return jax.tree.map(np.asarray, classify(model, params, video))
    masked = inputs["bool_masked_pos"]
    keep, hidden = indices(~masked), indices(masked)
    if "decode_masked_pos" not in inputs:
        weight = np.ones(hidden.shape, model.dtype)
        return jax.tree.map(np.asarray, reconstruct(model, params, video, keep, hidden, weight))
    decoded = indices(~inputs["decode_masked_pos"])
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


def golden(case):
    with np.load(GOLDENS / case / "outputs.npz") as file:
        return dict(file)


def errors(ours, reference, suffix=""):
    """Largest difference of each output, in units of the reference's largest value."""
    return {
        name: float(np.abs(ours[name] - reference[name + suffix]).max())
        / float(np.abs(reference[name + suffix]).max())
        for name in ours
        if name + suffix in reference
    }


@pytest.mark.parametrize("case", CASES)
def test_float32_outputs_match_the_original(folders, case):
    found = errors(run(folders / case), golden(case))
    assert found.keys() == {name for name in golden(case) if not name.endswith("__f64")}
    assert max(found.values()) < TOL, found


@pytest.mark.parametrize("case", CASES)
def test_float64_outputs_match_the_original(folders, case):
    with jax.enable_x64(True):
        found = errors(run(folders / case, "float64"), golden(case), "__f64")
    assert len(found) >= 2
    assert max(found.values()) < TOL64, found


def test_splash_attention_matches_the_original(folders, splash):
    case = "videomae_pretrain"
    found = errors(run(folders / case, attention="splash"), golden(case))
    assert splash  # by encoder and decoder
    assert max(found.values()) < TOL, found


# What a wrong port would have; each must be far outside the tolerances above.


def assert_caught(ours, case, suffix=""):
    tolerance = TOL64 if suffix else TOL
    found = errors(ours, golden(case), suffix)
    assert max(found.values()) > 10 * tolerance, found


def test_tanh_gelu_is_caught(folders, monkeypatch):
    case = "videomaev2_finetune"
    monkeypatch.setitem(layers.ACTIVATIONS, "gelu", layers.ACTIVATIONS["gelu_tanh"])
    classify.clear_cache()  # the right one is in it
    wrong = run(folders / case)
    classify.clear_cache()
    assert_caught(wrong, case)


@pytest.mark.parametrize(
    ("case", "eps"), [("videomae_finetune_meanpool", 1e-5), ("videomae_pretrain", 1e-12)]
)
def test_wrong_eps_is_caught(folders, case, eps):
    # 1e-6 against a variance of about 1 drowns in float32; not in float64.
    with jax.enable_x64(True):
        wrong = run(folders / case, "float64", eps=eps)
    assert_caught(wrong, case, "__f64")


@pytest.mark.parametrize(
    ("case", "field"),
    [("videomae_pretrain", "decoder_norm_eps"), ("videomae_finetune_meanpool", "fc_norm_eps")],
)
def test_wrong_eps_of_the_last_norm_is_caught(folders, case, field):
    with jax.enable_x64(True):
        wrong = run(folders / case, "float64", **{field: 1e-5})
    assert_caught(wrong, case, "__f64")


def reshaped_heads(params, heads):
    """The same weights, read as another number of heads."""

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
    params = reshaped_heads(nested(folders / case), heads)
    assert_caught(outputs_of(model, params, case), case)


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
    source = GOLDENS / case / "checkpoint-0.pth"
    convert(str(source), tmp_path / case, options=CASES[case], say=lambda line: None)
    assert_caught(run(tmp_path / case), case)


def test_wrong_order_of_decoder_pixels_is_caught(folders):
    case = "videomae_pretrain"
    out, card = golden(case), read_card(folders / case)
    t, h, w = card.model["patch_size"]
    pixels = run(folders / case)["predictions"]
    channel_first = pixels.reshape(*pixels.shape[:2], t * h * w, 3).swapaxes(2, 3)
    assert_caught({"predictions": channel_first.reshape(pixels.shape)}, case)
    # In time: frames of a tubelet swapped.
    swapped = pixels.reshape(*pixels.shape[:2], t, -1)[:, :, ::-1].reshape(pixels.shape)
    assert_caught({"predictions": swapped}, case)
    assert errors({"predictions": pixels}, out)["predictions"] < TOL


@pytest.mark.parametrize(
    ("case", "norm_pix"), [("videomae_pretrain", False), ("videomaev2_pretrain", True)]
)
def test_objective_has_the_originals_loss(folders, case, norm_pix):
    """The loss of the training objective itself, under the golden's masks."""
    with np.load(GOLDENS / case / "inputs.npz") as file:
        inputs = dict(file)
    masked = inputs["bool_masked_pos"]
    keep, predict = indices(~masked), indices(masked)
    if "decode_masked_pos" in inputs:
        predict = indices(~inputs["decode_masked_pos"])
    weight = np.take_along_axis(masked, predict, axis=1).astype(np.float32)

    class Fixed(masked_autoencoding.MaskedAutoencoding):
        def masks(self, rng, shape):
            return keep, predict, weight

    loaded = pretrained.load_model(folders / case)
    preprocessing = Preprocessing(mean=tuple(IMAGENET[0]), std=tuple(IMAGENET[1]))
    objective = Fixed(loaded.model, preprocessing, norm_pix=norm_pix)
    video = inputs["pixel_values"].transpose(0, 2, 3, 4, 1) * IMAGENET[1] + IMAGENET[0]
    batch = {"video": jnp.asarray(video * 255)}
    loss, _ = jax.jit(objective.loss)(loaded.params, batch, rng=jax.random.key(0))
    reference = golden(case)["loss_norm" if norm_pix else "loss_raw"]
    assert abs(loss / reference - 1) < TOL


# Byte-exact round trips of every format.


@pytest.mark.parametrize("case", CASES)
def test_original_round_trip(folders, tmp_path, case):
    convert(str(folders / case), tmp_path / "out", "original", say=lambda line: None)
    again = formats.read(tmp_path / "out" / "checkpoint.pth")
    same_tensors(again, formats.read(GOLDENS / case / "checkpoint-0.pth"))


def tensors_of(case):
    return dict(formats.read(GOLDENS / case / "checkpoint-0.pth"))


@pytest.mark.parametrize(
    ("case", "rename"),
    [
        ("videomae_finetune_meanpool", "module.{}"),
        ("videomae_finetune_meanpool", "model.{}"),
        ("videomae_finetune_meanpool", "backbone.{}"),
        ("videomae_pretrain", "module.{}"),
    ],
)
def test_prefixed_names(folders, tmp_path, case, rename):
    tensors = {rename.format(name): tensor for name, tensor in tensors_of(case).items()}
    formats.write_torch(tmp_path / "a.pth", tensors)
    convert(str(tmp_path / "a.pth"), tmp_path / "v", options=CASES[case], say=lambda line: None)
    assert_same_params(tmp_path / "v", folders / case)
    convert(str(tmp_path / "v"), tmp_path / "out", "original", say=lambda line: None)
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.pth"), tensors)


def test_encoder_prefix_beside_a_bare_head(folders, tmp_path):
    case = "videomae_finetune_meanpool"
    tensors = {
        name if name.startswith(("head.", "fc_norm.")) else f"encoder.{name}": tensor
        for name, tensor in tensors_of(case).items()
    }
    formats.write_torch(tmp_path / "a.pth", tensors)
    convert(str(tmp_path / "a.pth"), tmp_path / "v", options=CASES[case], say=lambda line: None)
    assert_same_params(tmp_path / "v", folders / case)


def test_encoder_of_a_pretrained_file(folders, tmp_path):
    case = "videomae_pretrain"
    tensors = {n: t for n, t in tensors_of(case).items() if n.startswith("encoder.")}
    formats.write_torch(tmp_path / "a.pth", tensors)
    convert(str(tmp_path / "a.pth"), tmp_path / "v", options=CASES[case], say=lambda line: None)
    assert read_card(tmp_path / "v").model["head"] is None
    whole = params_of(folders / case)
    for name, array in pretrained.open_params(tmp_path / "v").items():
        np.testing.assert_array_equal(array, whole[name])


def assert_same_params(folder, other):
    a, b = params_of(folder), params_of(other)
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_half_precision_is_widened_and_restored(tmp_path):
    case = "videomae_finetune_meanpool"
    half = {name: tensor.astype(np.float16) for name, tensor in tensors_of(case).items()}
    half["head.bias"] = half["head.bias"].astype(np.float32)
    formats.write_torch(tmp_path / "a.pth", half)
    lines = []
    convert(str(tmp_path / "a.pth"), tmp_path / "v", options=CASES[case], say=lines.append)
    assert any("float16" in line for line in lines)
    params = pretrained.open_params(tmp_path / "v")
    assert {params[name].dtype for name in params} == {np.dtype(np.float32)}
    convert(str(tmp_path / "v"), tmp_path / "out", "original", say=lambda line: None)
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.pth"), half)


def test_weights_that_are_no_longer_half_precision_stay_float32(tmp_path):
    case = "videomae_finetune_meanpool"
    half = {name: tensor.astype(np.float16) for name, tensor in tensors_of(case).items()}
    formats.write_torch(tmp_path / "a.pth", half)
    convert(str(tmp_path / "a.pth"), tmp_path / "v", options=CASES[case], say=lambda line: None)
    params = pretrained.load_params(tmp_path / "v")
    params["head"]["bias"] = params["head"]["bias"] + np.float32(1e-7)
    pretrained.save_pretrained(tmp_path / "v", params, read_card(tmp_path / "v"))
    lines = []
    convert(str(tmp_path / "v"), tmp_path / "out", "original", say=lines.append)
    assert any("exported as float32" in line for line in lines)
    again = formats.read(tmp_path / "out" / "checkpoint.pth")
    np.testing.assert_array_equal(again["head.bias"], params["head"]["bias"])


def test_position_table_is_checked_and_left_out(folders, tmp_path):
    case = "videomaev2_finetune"
    table = layers_table(16, 33)
    tensors = tensors_of(case) | {"pos_embed": table[None]}
    formats.write_torch(tmp_path / "a.pth", tensors)
    lines = []
    convert(str(tmp_path / "a.pth"), tmp_path / "v", options=CASES[case], say=lines.append)
    assert any("pos_embed" in line and "sine-cosine" in line for line in lines)
    assert_same_params(tmp_path / "v", folders / case)

    formats.write_torch(tmp_path / "b.pth", tensors | {"pos_embed": table[None] + 1e-3})
    with pytest.raises(UserError, match=r"pos_embed.*differs from the fixed sine-cosine table"):
        convert(str(tmp_path / "b.pth"), tmp_path / "w", options=CASES[case])
    assert not (tmp_path / "w").exists()


def layers_table(num_positions, width):
    """The reference's get_sinusoid_encoding_table, as a loop."""
    table = np.array(
        [
            [p / np.power(10000, 2 * (j // 2) / width) for j in range(width)]
            for p in range(num_positions)
        ]
    )
    table[:, 0::2], table[:, 1::2] = np.sin(table[:, 0::2]), np.cos(table[:, 1::2])
    return table.astype(np.float32)


# Hugging Face folders, made without transformers: names and shapes as in published files.

D, M, DEPTH, HEADS, CLASSES = 16, 24, 2, 4, 3
DD, DM = 12, 20


def hf_tensors(head, mean_pooling=True, bias="q_bias", seed=0):
    """A random file of VideoMAEModel (None), ForVideoClassification or ForPreTraining."""
    rng = np.random.default_rng(seed)

    def blocks(prefix, d, m):
        value = {"q_bias": "v_bias", "query.bias": "value.bias"}[bias]
        attention = f"{prefix}.attention.attention"
        return {
            f"{prefix}.layernorm_before.weight": (d,),
            f"{prefix}.layernorm_before.bias": (d,),
            f"{attention}.query.weight": (d, d),
            f"{attention}.key.weight": (d, d),
            f"{attention}.value.weight": (d, d),
            f"{attention}.{bias}": (d,),
            f"{attention}.{value}": (d,),
            f"{prefix}.attention.output.dense.weight": (d, d),
            f"{prefix}.attention.output.dense.bias": (d,),
            f"{prefix}.layernorm_after.weight": (d,),
            f"{prefix}.layernorm_after.bias": (d,),
            f"{prefix}.intermediate.dense.weight": (m, d),
            f"{prefix}.intermediate.dense.bias": (m,),
            f"{prefix}.output.dense.weight": (d, m),
            f"{prefix}.output.dense.bias": (d,),
        }

    root = "videomae." if head else ""
    patch = f"{root}embeddings.patch_embeddings.projection"
    shapes = {f"{patch}.weight": (D, 3, 2, 4, 4), f"{patch}.bias": (D,)}
    for i in range(DEPTH):
        shapes |= blocks(f"{root}encoder.layer.{i}", D, M)
    if not mean_pooling:
        shapes |= {f"{root}layernorm.weight": (D,), f"{root}layernorm.bias": (D,)}
    if head == "classify":
        if mean_pooling:
            shapes |= {"fc_norm.weight": (D,), "fc_norm.bias": (D,)}
        shapes |= {"classifier.weight": (CLASSES, D), "classifier.bias": (CLASSES,)}
    if head == "reconstruct":
        shapes |= {"encoder_to_decoder.weight": (DD, D), "mask_token": (1, 1, DD)}
        shapes |= blocks("decoder.decoder_layers.0", DD, DM)
        shapes |= {"decoder.norm.weight": (DD,), "decoder.norm.bias": (DD,)}
        shapes |= {"decoder.head.weight": (96, DD), "decoder.head.bias": (96,)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def hf_config(head, mean_pooling=True, **changes):
    return {
        "architectures": ["VideoMAEForVideoClassification"],
        "model_type": "videomae",
        "hidden_size": D,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": M,
        "patch_size": 4,
        "image_size": 8,
        "num_frames": 4,
        "use_mean_pooling": mean_pooling,
        "decoder_hidden_size": DD,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 3,
        "decoder_intermediate_size": DM,
        "id2label": {"0": "jump", "1": "run", "2": "swim"},
        "norm_pix_loss": True,
    } | changes


PREPROCESSOR = {
    "crop_size": {"height": 8, "width": 8},
    "size": {"shortest_edge": 10},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.1],
    "resample": 2,
}


def write_hf(folder, tensors, config, preprocessor=PREPROCESSOR):
    folder.mkdir()
    formats.write_safetensors(folder / "model.safetensors", tensors)
    # Indented unlike anything that we write.
    (folder / "config.json").write_text(json.dumps(config, indent=7))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=5))
    return str(folder)


def to_vidjax(source, target, **options):
    lines = []
    convert(source, target, options=Options(**options), say=lines.append)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("head", "mean_pooling", "bias"),
    [
        (None, True, "q_bias"),
        (None, False, "q_bias"),
        ("classify", True, "q_bias"),
        ("classify", False, "query.bias"),
        ("reconstruct", False, "q_bias"),
        ("reconstruct", True, "query.bias"),
    ],
)
def test_hf_round_trip(tmp_path, head, mean_pooling, bias):
    tensors = hf_tensors(head, mean_pooling, bias)
    source = write_hf(tmp_path / "hf", tensors, hf_config(head, mean_pooling))
    report = to_vidjax(source, tmp_path / "v")
    assert "all bytes reproduced" in report

    card = read_card(tmp_path / "v")
    fields = card.model
    assert (fields["head"], fields["num_heads"], fields["eps"]) == (head, HEADS, 1e-12)
    if head == "classify":
        assert card.classes == ("jump", "run", "swim")
        assert fields["pool"] == ("mean" if mean_pooling else "first")
        assert not mean_pooling or fields["fc_norm_eps"] == 1e-5
    else:
        assert fields["final_norm"] is not mean_pooling
    if head == "reconstruct":
        assert (fields["decoder_num_heads"], fields["decoder_norm_eps"]) == (3, 1e-5)
    facts = card.preprocessing
    assert (facts.frames, facts.size, facts.short_side) == (4, 8, 10)
    assert (facts.mean, facts.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert facts.resize == "pil_bilinear"
    digest = checksums.sha256(tmp_path / "hf" / "model.safetensors")
    assert card.provenance["files"] == {"model.safetensors": digest}

    convert(str(tmp_path / "v"), tmp_path / "out", "hf", say=lambda line: None)
    same_tensors(formats.read(tmp_path / "out" / "model.safetensors"), tensors)
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()


@pytest.mark.parametrize("name", ["video_preprocessor_config.json", "processor_config.json"])
def test_newer_processor_files_are_read_and_given_back(tmp_path, name):
    fields = PREPROCESSOR | {"video_processor_type": "VideoMAEVideoProcessor", "image_mean": 0.1}
    content = fields if name.startswith("video") else {"video_processor": fields}
    source = write_hf(tmp_path / "hf", hf_tensors("classify", True), hf_config("classify"), content)
    (tmp_path / "hf/preprocessor_config.json").rename(tmp_path / "hf" / name)
    to_vidjax(source, tmp_path / "v")
    assert read_card(tmp_path / "v").preprocessing.mean == (0.1, 0.1, 0.1)
    convert(str(tmp_path / "v"), tmp_path / "out", "hf", say=lambda line: None)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.json")}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "hf").glob("*.json")}


def test_both_spellings_of_the_biases_give_the_same_model(tmp_path):
    for bias in ("q_bias", "query.bias"):
        source = write_hf(tmp_path / f"hf {bias}", hf_tensors("classify", True, bias), hf_config(0))
        to_vidjax(source, tmp_path / bias)
    assert_same_params(tmp_path / "q_bias", tmp_path / "query.bias")


@pytest.mark.parametrize("zero", [True, False])
def test_key_biases_are_left_out_and_explained(tmp_path, zero):
    tensors = hf_tensors("classify", True, "query.bias")
    keys = {
        f"videomae.encoder.layer.{i}.attention.attention.key.bias": np.full(D, 1.0 - zero, "f4")
        for i in range(DEPTH)
    }
    report = to_vidjax(write_hf(tmp_path / "hf", tensors | keys, hf_config(0)), tmp_path / "v")
    assert "left out 2 tensors" in report
    assert "softmax removes" in report
    convert(str(tmp_path / "v"), tmp_path / "out", "hf", say=lambda line: None)
    same_tensors(formats.read(tmp_path / "out" / "model.safetensors"), tensors)


def test_pytorch_bin_and_shards(tmp_path):
    tensors = hf_tensors("classify")
    whole = write_hf(tmp_path / "whole", tensors, hf_config(0))
    to_vidjax(whole, tmp_path / "v")

    (tmp_path / "bin").mkdir()
    formats.write_torch(tmp_path / "bin" / "pytorch_model.bin", tensors)
    (tmp_path / "bin" / "config.json").write_text(json.dumps(hf_config(0)))
    to_vidjax(str(tmp_path / "bin"), tmp_path / "v_bin")
    assert_same_params(tmp_path / "v_bin", tmp_path / "v")

    names = sorted(tensors)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "config.json").write_text(json.dumps(hf_config(0)))
    places = {}
    for k, part in enumerate((names[:7], names[7:])):
        file = f"model-{k + 1:05}-of-00002.safetensors"
        formats.write_safetensors(tmp_path / "shards" / file, {n: tensors[n] for n in part})
        places |= dict.fromkeys(part, file)
    index = tmp_path / "shards" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    to_vidjax(str(tmp_path / "shards"), tmp_path / "v_shards")
    assert_same_params(tmp_path / "v_shards", tmp_path / "v")
    assert len(read_card(tmp_path / "v_shards").provenance["files"]) == 2

    (tmp_path / "shards" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"names model-00002-of-00002\.safetensors, which"):
        to_vidjax(str(tmp_path / "shards"), tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new', and VideoMAE here computes gelu, "),
        ({"hidden_size": 32}, "hidden_size 32 instead of 16"),
        ({"num_hidden_layers": 3}, "num_hidden_layers 3 instead of 2"),
        ({"use_mean_pooling": False}, "use_mean_pooling False instead of True"),
        ({"num_attention_heads": 5}, "5 does not divide the width 16"),
    ],
)
def test_config_that_contradicts_the_tensors(tmp_path, changes, message):
    source = write_hf(tmp_path / "hf", hf_tensors("classify"), hf_config(0, **changes))
    with pytest.raises(UserError, match=message):
        to_vidjax(source, tmp_path / "v")
    assert not (tmp_path / "v").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"hf"}


@pytest.mark.parametrize(
    ("change", "option"),
    [
        (lambda t: {n: x for n, x in t.items() if "_bias" not in n}, r"\(qkv_bias=False\)"),
        (lambda t: t | {"blocks.0.gamma_1": np.ones(33, np.float32)}, "layer scale"),
        (lambda t: t | {"blocks.0.attn.scale": np.ones((3, 1, 1), np.float32)}, "cosine attention"),
    ],
)
def test_options_of_the_originals_that_no_release_uses(tmp_path, change, option):
    formats.write_torch(tmp_path / "a.pth", change(tensors_of("videomaev2_finetune")))
    with pytest.raises(UserError, match=f"^the file's VideoMAE has [^\n]*{option}[^\n]*$"):
        convert(str(tmp_path / "a.pth"), tmp_path / "v", options=CASES["videomaev2_finetune"])


def test_hugging_face_without_query_biases(tmp_path):
    tensors = {n: t for n, t in hf_tensors("classify").items() if "_bias" not in n}
    source = write_hf(tmp_path / "hf", tensors, hf_config("classify", qkv_bias=False))
    with pytest.raises(UserError, match=r"^the file's VideoMAE has no biases of query[^\n]*$"):
        to_vidjax(source, tmp_path / "v")


@pytest.mark.parametrize("image_size", [12, [12, 12]])
def test_image_size_is_the_models(tmp_path, image_size):
    """Frames are made as the processor says, though transformers' model refuses them."""
    config = hf_config("classify", image_size=image_size, patch_size=[4, 4])
    source = write_hf(tmp_path / "hf", hf_tensors("classify"), config)
    report = to_vidjax(source, tmp_path / "v")
    assert (
        "makes frames of 8 pixels, which are followed, and config.json has image_size 12" in report
    )
    card = read_card(tmp_path / "v")
    assert (card.preprocessing.size, card.preprocessing.short_side) == (8, 10)
    convert(str(tmp_path / "v"), tmp_path / "out", "hf", say=lambda line: None)
    for name in ("config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()
    # A run that starts from it is a model for its own frames.
    run = dataclasses.replace(card, provenance={"kept": card.provenance["kept"]})
    made = json.loads(videomae.export(run, "hf", {}).files["config.json"])
    assert (made["image_size"], made["norm_pix_loss"]) == (8, True)
    run.provenance["objective"] = {"name": "masked_autoencoding", "norm_pix": False}
    assert not json.loads(videomae.export(run, "hf", {}).files["config.json"])["norm_pix_loss"]


def test_frames_that_are_not_square(tmp_path):
    config = hf_config("classify", image_size=[8, 32])
    source = write_hf(tmp_path / "hf", hf_tensors("classify"), config)
    with pytest.raises(UserError, match=r"image_size \[8, 32\]; only square .* as --size="):
        to_vidjax(source, tmp_path / "v")
    to_vidjax(source, tmp_path / "v", size=16)
    assert read_card(tmp_path / "v").preprocessing.size == 16


def test_a_rest_beside_the_patches_is_cut_off(tmp_path):
    config = hf_config("classify", image_size=10, num_frames=5)
    source = write_hf(tmp_path / "hf", hf_tensors("classify"), config)
    report = to_vidjax(source, tmp_path / "v")
    assert "5 frames leave a rest of 1 beside patches of 2" in report
    assert "10 pixels leave a rest of 2 beside patches of 4" in report
    loaded = pretrained.load_model(tmp_path / "v")
    rng = np.random.default_rng(0)
    video = rng.standard_normal((1, 5, 10, 10, 3), np.float32)
    found, expected = (
        loaded.model.apply({"params": loaded.params}, x) for x in (video, video[:, :4, :8, :8])
    )
    np.testing.assert_array_equal(found, expected)


def test_first_token_of_a_classifier_without_classes(tmp_path):
    tensors = hf_tensors("classify", mean_pooling=False)
    tensors = {n: t for n, t in tensors.items() if not n.startswith("classifier")}
    config = hf_config("classify", False, id2label={}, label2id={})
    source = write_hf(tmp_path / "hf", tensors, config)
    to_vidjax(source, tmp_path / "v")
    loaded = pretrained.load_model(tmp_path / "v")
    video = loaded.preprocess(np.zeros((4, 10, 10, 3), np.uint8))
    assert loaded.model.apply({"params": loaded.params}, video).shape == (1, D)
    convert(str(tmp_path / "v"), tmp_path / "out", "hf", say=lambda line: None)
    assert json.loads((tmp_path / "out/config.json").read_text()) == config


def test_wrong_tensors_are_all_named_at_once(tmp_path):
    tensors = hf_tensors("classify")
    tensors["classifier.extra"] = tensors["fc_norm.bias"]
    del tensors["fc_norm.bias"]
    tensors["classifier.bias"] = np.zeros(7, np.float32)
    source = write_hf(tmp_path / "hf", tensors, hf_config(0))
    with pytest.raises(UserError) as caught:
        to_vidjax(source, tmp_path / "v")
    text = str(caught.value)
    assert "missing from the file: fc_norm.bias" in text
    assert "no rule reads it: classifier.extra" in text
    assert "shape: classifier.bias is (7,), but this model needs (3,)" in text


def small(heads):
    """The shapes of VideoMAE-small, one layer deep."""
    tensors = hf_tensors(None)
    wide = {n: np.zeros([384 if s == D else s for s in t.shape], "f4") for n, t in tensors.items()}
    return wide, hf_config(None, hidden_size=384, num_attention_heads=heads)


def test_small_with_16_heads_is_followed_with_a_warning_or_overridden(tmp_path):
    tensors, config = small(16)
    source = write_hf(tmp_path / "hf", tensors, config)
    report = to_vidjax(source, tmp_path / "v16")
    assert "trained with 6" in report
    assert "--heads=6" in report
    assert read_card(tmp_path / "v16").model["num_heads"] == 16
    report = to_vidjax(source, tmp_path / "v6", heads=6)
    assert "trained with 6" not in report
    assert read_card(tmp_path / "v6").model["num_heads"] == 6
    # The exported config.json says what the weights now are used with, and is otherwise the same.
    convert(str(tmp_path / "v6"), tmp_path / "out", "hf", say=lambda line: None)
    exported = json.loads((tmp_path / "out" / "config.json").read_text())
    assert exported == config | {"num_attention_heads": 6}


def test_number_of_heads_by_width_or_asked_for(tmp_path):
    tensors, _ = small(6)
    formats.write_safetensors(tmp_path / "a.safetensors", tensors)
    to_vidjax(str(tmp_path / "a.safetensors"), tmp_path / "v")
    assert read_card(tmp_path / "v").model["num_heads"] == 6
    formats.write_safetensors(tmp_path / "b.safetensors", hf_tensors(None))
    with pytest.raises(UserError, match=r"no model of width 16 was published; give it as --heads"):
        to_vidjax(str(tmp_path / "b.safetensors"), tmp_path / "w")


def test_sampling_follows_the_data_set(tmp_path, monkeypatch):
    tensors = hf_tensors("classify")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = np.zeros((174, *tensors[name].shape[1:]), np.float32)
    labels = {str(k): f"LABEL_{k}" for k in range(174)}
    source = write_hf(tmp_path / "hf", tensors, hf_config(0, id2label=labels))
    report = to_vidjax(source, tmp_path / "v")
    card = read_card(tmp_path / "v")
    assert card.preprocessing.sampling == "segment"
    assert card.preprocessing.temporal_views == 2
    assert card.classes is None
    assert "sampling=segment" in report


def test_published_checkpoints_say_what_they_are():
    for hub_id, checkpoint in published.CHECKPOINTS.items():
        assert checkpoint.what
        assert (checkpoint.sampling == "segment") == hub_id.endswith("finetuned-ssv2")


@pytest.mark.parametrize("variant", ["S", "B", "L", "H", "g"])
@pytest.mark.parametrize("head", [None, "classify", "reconstruct"])
def test_tables_cover_every_published_size(variant, head):
    """Shapes alone lead back to the variant, through either format."""
    fields = {"num_classes": 5} if head == "classify" else {}
    model = models.build("videomae", variant, head=head, eps=1e-6, **fields)
    want = pretrained.param_specs(model)
    # Zeros without memory: one value, strided.
    params = {k: np.broadcast_to(np.zeros((), np.float32), v.shape) for k, v in want.items()}
    card = Card(models.config_of(model), Preprocessing())
    for format in ("hf", "original"):
        plan = videomae.export(card, format, {})
        tensors = from_params(params, plan.rules)
        assert len(tensors) == len(set(tensors))
        source = formats.Source(pathlib.Path("x"), tensors, ())
        found = videomae.describe(source, Options()).model
        expected = models.config_of(model)
        for key in found:
            if not key.endswith("eps"):
                assert found[key] == expected[key], (format, key)


def test_cls_token_is_not_videomae(tmp_path):
    tensors = hf_tensors(None) | {"embeddings.cls_token": np.zeros((1, 1, D), np.float32)}
    source = write_hf(tmp_path / "hf", tensors, hf_config(None))
    with pytest.raises(UserError, match="holds no weights of videomae"):
        convert(source, tmp_path / "v", model="videomae")


def test_hub_repository_of_v2_without_a_head(tmp_path):
    """OpenGVLab/VideoMAEv2-*: original names under `model.`, arguments in config.json."""
    case = "videomaev2_finetune"
    tensors = {f"model.{n}": t for n, t in tensors_of(case).items() if not n.startswith("head.")}
    config = {"model_config": {"num_heads": 3, "num_frames": 8, "img_size": 28, "num_classes": 0}}
    to_vidjax(write_hf(tmp_path / "hf", tensors, config), tmp_path / "v")
    loaded = pretrained.load_model(tmp_path / "v")
    assert (loaded.card.preprocessing.frames, loaded.model.config["num_heads"]) == (8, 3)
    with np.load(GOLDENS / case / "inputs.npz") as inputs:
        video = inputs["pixel_values"].transpose(0, 2, 3, 4, 1)
    features = loaded.model.apply({"params": loaded.params}, video)
    assert errors({"features": np.asarray(features)}, golden(case))["features"] < TOL
    convert(str(tmp_path / "v"), tmp_path / "out", "original", say=lambda line: None)
    same_tensors(formats.read(tmp_path / "out" / "checkpoint.pth"), tensors)
