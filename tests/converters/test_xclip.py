"""X-CLIP's and CLIP's tables and numerics against the original's goldens; their homes."""

import dataclasses
import functools
import gzip
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from converters import Options, formats, registry, xclip
from converters.mapping import from_params
from tests.support import converting
from tests.support.converting import command, same_params, same_tensors
from vidjax import models, pretrained
from vidjax import tokenizers as texts
from vidjax.card import Card, read_card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
GOLDEN = GOLDENS / "xclip"
FLOAT32, FLOAT64 = 5e-6, 1e-12  # of values up to 7


described = functools.partial(converting.described, xclip)
written = functools.partial(converting.written, xclip)


@functools.cache
def golden():
    """Inputs and outputs by name."""
    found = []
    for file in ("inputs", "outputs"):
        with np.load(GOLDEN / f"{file}.npz") as arrays:
            found.append(dict(arrays))
    return found


@functools.cache
def original():
    """The tensors of the golden file."""
    return dict(formats.read(GOLDEN / "checkpoint.pth"))


@functools.cache
def converted(**options):
    """Card and parameters of the golden file."""
    return described(GOLDEN / "checkpoint.pth", **options)[:2]


@functools.partial(
    jax.jit,
    static_argnums=(0, 4),
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)  # compiling is what these tests take time for
def apply(model, params, video, ids, text_only):
    """What the reference shows, by its names."""

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
    inputs, outputs = golden()
    video = inputs["pixel_values"].transpose(0, 1, 3, 4, 2).astype(dtype)
    ids = inputs["input_ids"].astype(np.int32)
    found = apply(model, params, video, ids, text_only)
    assert all(found[name].shape == outputs[name].shape for name in found)
    return {k: float(np.abs(np.asarray(v) - outputs[k + suffix]).max()) for k, v in found.items()}


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


# What a wrong port would have; each must be far outside the tolerances above.


def assert_caught(found, size):
    print(found)
    assert max(found.values()) > size, found


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


def transposed(kernel):
    return np.ascontiguousarray(kernel.swapaxes(-1, -2))


def swap(a, b):
    def change(params):
        pairs = {name: name.replace(f"{a}/", f"{b}/") for name in params if f"{a}/" in name}
        pairs = {name: other for name, other in pairs.items() if other in params}
        return {x: params[y] for x, y in pairs.items()} | {y: params[x] for x, y in pairs.items()}

    return change


def one(name, change):
    return lambda params: {name: change(params[name])}


def as_stored_elsewhere(kernel):
    """As if the out projection were stored as the other three are."""
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
    """That of base and large models is square: no shape tells."""
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


# The same weights from both homes.


def hf_tensors(t):
    """The tensors of transformers' XCLIPModel, or CLIPModel, written out by hand."""
    out = {}
    clip = "mit.positional_embedding" not in t

    def copy(name, source):
        for kind in ("weight", "bias"):
            out[f"{name}.{kind}"] = t[f"{source}.{kind}"]

    def attention(name, source):
        for kind in ("weight", "bias"):
            thirds = np.split(t[f"{source}.in_proj_{kind}"], 3)
            for letter, part in zip("qkv", thirds, strict=True):
                out[f"{name}.{letter}_proj.{kind}"] = part
        copy(f"{name}.out_proj", f"{source}.out_proj")

    def layers(name, source):
        for i in range(99):
            old, new = f"{source}.{i}", f"{name}.encoder.layers.{i}"
            if f"{old}.ln_1.weight" not in t:
                break
            copy(f"{new}.layer_norm1", f"{old}.ln_1")
            copy(f"{new}.layer_norm2", f"{old}.ln_2")
            copy(f"{new}.mlp.fc1", f"{old}.mlp.c_fc")
            copy(f"{new}.mlp.fc2", f"{old}.mlp.c_proj")
            attention(f"{new}.self_attn", f"{old}.attn")
            if f"{old}.message_fc.weight" in t:
                copy(f"{new}.message_fc", f"{old}.message_fc")
                copy(f"{new}.message_ln", f"{old}.message_ln")
                attention(f"{new}.message_attn", f"{old}.message_attn")

    text, vision = "text_model.embeddings", "vision_model.embeddings"
    out[f"{text}.token_embedding.weight"] = t["token_embedding.weight"]
    out[f"{text}.position_embedding.weight"] = t["positional_embedding"]
    layers("text_model", "transformer.resblocks")
    copy("text_model.final_layer_norm", "ln_final")
    out["text_projection.weight"] = transposed(t["text_projection"])
    out[f"{vision}.class_embedding"] = t["visual.class_embedding"]
    out[f"{vision}.position_embedding.weight"] = t["visual.positional_embedding"]
    out[f"{vision}.patch_embedding.weight"] = t["visual.conv1.weight"]
    copy("vision_model.pre_layrnorm" if clip else "vision_model.pre_layernorm", "visual.ln_pre")
    copy("vision_model.post_layernorm", "visual.ln_post")
    layers("vision_model", "visual.transformer.resblocks")
    out["visual_projection.weight"] = transposed(t["visual.proj"])
    out["logit_scale"] = t["logit_scale"]
    if clip:
        return out
    out["mit.position_embedding"] = t["mit.positional_embedding"]
    layers("mit", "mit.resblocks")
    copy("prompts_visual_layernorm", "prompts_visual_ln")
    out["prompts_visual_projection"] = t["prompts_visual_proj"]
    copy("prompts_generator.layernorm", "prompts_generator.norm")
    for name in t:
        if name.startswith("prompts_generator.") and ".norm." not in name:
            out[name] = t[name]
    return out


def clip_tensors():
    """A CLIP's state dict: what of the golden X-CLIP is CLIP's."""
    new = ("message_", "mit.", "prompts_")
    return {name: t for name, t in original().items() if not any(part in name for part in new)}


TEXT_CONFIG = {
    "vocab_size": 200,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "eos_token_id": 2,
}
VISION_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "image_size": 32,
    "patch_size": 8,
}
MIT_CONFIG = {
    "num_frames": 5,
    "mit_hidden_size": 64,
    "mit_intermediate_size": 256,
    "mit_num_attention_heads": 1,
}
CONFIG = {
    "architectures": ["XCLIPModel"],
    "model_type": "xclip",
    "projection_dim": 64,
    "prompt_num_attention_heads": 1,
    "text_config": TEXT_CONFIG,
    "text_config_dict": None,
    "vision_config": VISION_CONFIG | MIT_CONFIG,
    "vision_config_dict": None,
}
CLIP_CONFIG = {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": 64,
    "text_config": TEXT_CONFIG,
    "vision_config": VISION_CONFIG,
}
PROCESSOR = {
    "crop_size": 32,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "size": 32,
}
CLIP_PROCESSOR = PROCESSOR | {
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
}


def hf_folder(folder, tensors=None, config=CONFIG, processor=PROCESSOR):
    folder.mkdir()
    tensors = hf_tensors(original()) if tensors is None else tensors
    formats.write_safetensors(folder / "model.safetensors", tensors)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def clip_folder(folder, **changes):
    tensors = hf_tensors(clip_tensors())
    return hf_folder(folder, tensors, CLIP_CONFIG | changes, CLIP_PROCESSOR)


def test_both_homes_of_the_same_weights_are_the_same(tmp_path):
    card, params, notes = described(hf_folder(tmp_path / "hf"))
    same_params(params, converted()[1])
    assert card.model == converted()[0].model
    assert "WARNING" not in notes
    # And from one home to the other.
    assert written(card, params, tmp_path / "original", "original") == ""
    same_tensors(formats.read(tmp_path / "original/checkpoint.pth"), original())
    note = written(*converted(), tmp_path / "again", "hf")
    assert "resize 'mmcv_linear': its inputs differ slightly" in note
    same_tensors(formats.read(tmp_path / "again/model.safetensors"), hf_tensors(original()))
    again = described(tmp_path / "again")[0]
    assert again.model == card.model


def test_clip_in_both_homes(tmp_path):
    card, params, notes = described(clip_folder(tmp_path / "hf"))
    assert (card.model["head"], card.model["pos_grid"]) == ("image_text", [1, 4, 4])
    assert "clips of 8 frames are assumed (--frames=)" in notes
    assert "assumed" not in described(tmp_path / "hf", frames=16)[2]
    # What X-CLIP shares with it has the same names.
    same_params(params, {name: converted()[1][name] for name in params})
    formats.write_torch(tmp_path / "clip.pt", clip_tensors(), None)
    card2, params2, notes = described(tmp_path / "clip.pt")
    same_params(params, params2)
    assert card2.model == card.model
    assert card2.preprocessing == card.preprocessing  # CLIP's, in both
    assert "activation is assumed to be quick_gelu, as in OpenAI's CLIPs" in notes
    written(card, params, tmp_path / "a", "original")
    same_tensors(formats.read(tmp_path / "a/checkpoint.pth"), clip_tensors())
    written(card2, params2, tmp_path / "b", "hf")
    same_tensors(formats.read(tmp_path / "b/model.safetensors"), hf_tensors(clip_tensors()))
    again = described(tmp_path / "b")[0]
    assert (again.model, again.preprocessing) == (card.model, card.preprocessing)


# Byte-exact round trips, by the command.


def test_microsofts_file_by_the_command(tmp_path):
    """As its epoch_saving writes it, an optimiser and a pickled yacs config beside the weights."""
    report = command(GOLDEN / "checkpoint.pth", tmp_path / "v")
    assert "xclip, head video_text, original" in report
    command(tmp_path / "v", tmp_path / "out", "original")
    # Its load_checkpoint looks under "model".
    formats.write_torch(tmp_path / "a.pth", original(), "model")
    sizes = [(tmp_path / name).stat().st_size for name in ("out/checkpoint.pth", "a.pth")]
    assert sizes[0] == sizes[1]
    same_tensors(formats.read(tmp_path / "out/checkpoint.pth"), original())
    formats.write_torch(tmp_path / "bare.pth", original(), None)
    same_params(described(tmp_path / "bare.pth")[1], converted()[1])


OPENAI = {"input_resolution": 32, "context_length": 77, "vocab_size": 200}


def openai_tensors():
    """In its archives, norms and tables are in float32 and what a GPU multiplies in float16."""
    wide = ("ln_", "positional_embedding", "class_embedding", "token_embedding", "logit_scale")
    tensors = {
        name: t if any(part in name for part in wide) else t.astype(np.float16)
        for name, t in clip_tensors().items()
    }
    return tensors | {name: np.array(value) for name, value in OPENAI.items()}


def test_openais_file_by_the_command(tmp_path):
    formats.write_torch(tmp_path / "ViT-B-32.pt", openai_tensors(), None)
    report = command(tmp_path / "ViT-B-32.pt", tmp_path / "v")
    assert "left out 3 tensors (input_resolution, ...): told by the other tensors' shapes" in report
    assert "float16 and float32 in the file, float32 here" in report
    assert "train --config=configs/xclip_k400.py --config.init=" in report
    command(tmp_path / "v", tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out/checkpoint.pth"), openai_tensors())
    wrong = openai_tensors() | {"input_resolution": np.array(224)}
    formats.write_torch(tmp_path / "wrong.pt", wrong, None)
    with pytest.raises(UserError, match=r"cannot ignore input_resolution: 224, not 32"):
        described(tmp_path / "wrong.pt")


def test_hugging_face_folder_by_the_command(tmp_path):
    """With what files of older versions hold besides."""
    tensors = hf_tensors(original()) | {
        "text_model.embeddings.position_ids": np.arange(77)[None],
        "vision_model.embeddings.position_ids": np.arange(17)[None],
    }
    source = hf_folder(tmp_path / "hf", tensors)
    report = command(source, tmp_path / "v")
    assert "left out 2 tensors (vision_model.embeddings.position_ids, ...): counts 0, 1" in report
    assert "(--preprocessing=original)" in report
    command(tmp_path / "v", tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), tensors)
    files = sorted(path.name for path in source.iterdir())
    assert files == sorted(path.name for path in (tmp_path / "out").iterdir())
    for name in ("config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    tensors["text_model.embeddings.position_ids"] = np.arange(77)[None, ::-1].copy()
    with pytest.raises(UserError, match=r"text_model.embeddings.position_ids: not 0, 1, 2"):
        described(hf_folder(tmp_path / "ids", tensors))


def tower(name, prefix):
    start = f"{name}_model."
    tensors = hf_tensors(original())
    return {prefix + n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


@pytest.mark.parametrize("head", [None, "text"], ids=str)
@pytest.mark.parametrize("old", [False, True])
def test_hugging_face_models_of_one_tower(tmp_path, head, old):
    """Versions before 5 put a prefix before the names, and buffers into the file."""
    name = "vision" if head is None else "text"
    prefix = f"{name}_model." if old else ""
    tensors = tower(name, prefix)
    if old:
        count = {"vision": 17, "text": 77}[name]
        tensors[f"{prefix}embeddings.position_ids"] = np.arange(count)[None]
    config = VISION_CONFIG | MIT_CONFIG if head is None else TEXT_CONFIG
    source = hf_folder(tmp_path / "hf", tensors, {"model_type": f"xclip_{name}_model"} | config)
    card, params, _ = described(source)
    assert card.model["head"] == head
    assert card.preprocessing.frames == (5 if head is None else 8)
    same_params(params, {name: converted()[1][name] for name in params})
    names = ("config.json", "preprocessor_config.json")
    originals = {name: (source / name).read_bytes() for name in names}
    written(card, params, tmp_path / "out", "hf", originals)
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), tensors)
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == originals[name]
    # A new file has the newer names, and a config.json that describes the same model.
    card = Card(card.model, card.preprocessing)
    written(card, params, tmp_path / "new", "hf")
    new = {n.removeprefix(prefix) for n in tensors if not n.endswith("position_ids")}
    assert set(formats.read(tmp_path / "new/model.safetensors")) == new
    again = described(tmp_path / "new")[0]
    assert again.model == card.model
    assert head == "text" or again.preprocessing == card.preprocessing
    with pytest.raises(UserError, match=f"no X-CLIP with head {head!r}; export by --format=hf"):
        written(card, params, tmp_path / "original", "original")


def test_large_hugging_face_folder_of_a_model_trained_here(tmp_path):
    """It has no source: JSON files are made anew, of sizes that are no defaults."""
    card, params, _ = described(hf_folder(tmp_path / "hf"), mit_heads=4, prompt_heads=2)
    trained = Card(card.model, card.preprocessing)
    written(trained, params, tmp_path / "anew", "hf")
    config = json.loads((tmp_path / "anew/config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("xclip", ["XCLIPModel"])
    assert config["vision_config"]["mit_num_attention_heads"] == 4
    assert config["prompt_num_attention_heads"] == 2
    assert "text_config_dict" not in config
    again = described(tmp_path / "anew")[0]
    assert (again.model, again.preprocessing) == (card.model, card.preprocessing)
    # A new head count of a converted model shows in its config.json, too.
    originals = {"config.json": (tmp_path / "hf/config.json").read_bytes()}
    written(card, params, tmp_path / "changed", "hf", originals)
    assert described(tmp_path / "changed")[0].model == card.model


# Heads.


def test_heads_of_the_originals_are_64_wide():
    card, _ = converted()
    heads = [card.model[f"{part}num_heads"] for part in ("", "text_", "mit_", "prompt_")]
    assert heads == [1, 2, 1, 1]


def test_heads_of_hugging_face_are_by_its_config(tmp_path):
    config = CONFIG | {
        "prompt_num_attention_heads": 8,
        "vision_config": CONFIG["vision_config"] | {"mit_num_attention_heads": 8},
    }
    source = hf_folder(tmp_path / "hf", config=config)
    card, _, notes = described(source)
    assert (card.model["mit_num_heads"], card.model["prompt_num_heads"]) == (8, 8)
    for words in (
        "WARNING: by config.json the transformer over frames 8 and the layers that make prompts 8",
        "where the original code has 1:",
        "logits then differ by about 0.1",
        "convert with --mit_heads=1 --prompt_heads=1",
    ):
        assert words in notes
    card, params, notes = described(source, mit_heads=1)
    assert (card.model["mit_num_heads"], card.model["prompt_num_heads"]) == (1, 8)
    assert "convert with --prompt_heads=1" in notes
    assert "WARNING" not in described(source, mit_heads=1, prompt_heads=1)[2]
    note = written(card, params, tmp_path / "original", "original")
    assert "does not tell that prompt_num_heads is 8 here: the original code computes oth" in note
    with pytest.raises(UserError, match=r"--mit_heads=5 does not divide the width 64"):
        described(source, mit_heads=5)
    with pytest.raises(UserError, match=r"--mit_heads and --prompt_heads are about parts that onl"):
        described(clip_folder(tmp_path / "clip"), mit_heads=1)


# What does not fit.


def nested(part, **changes):
    return {part: CONFIG[part] | changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (nested("text_config", hidden_act="gelu"), "different values of hidden_act"),
        ({"prompt_hidden_act": "gelu"}, "hidden_act .*vision_config quick_gelu, prompts gelu"),
        (nested("text_config", layer_norm_eps=1e-6), "different values of layer_norm_eps"),
        (nested("text_config", num_hidden_layers=2), "num_hidden_layers 2 instead of 1"),
        (nested("text_config", vocab_size=99), "vocab_size 99 instead of 200"),
        (nested("vision_config", num_frames=8), "num_frames 8 instead of 5"),
        (nested("vision_config", image_size=64), "8 x 8 patches, but .* table is for 4 x 4"),
        (nested("vision_config", mit_hidden_size=32), "mit_hidden_size 32 instead of 64"),
        (nested("vision_config", num_attention_heads=3), "3 does not divide the width 64"),
        ({"projection_dim": 32}, "projection_dim 32 instead of 64"),
        ({"prompt_layers": 3}, "prompt_layers 3 instead of 2"),
        ({"text_config_dict": {"hidden_size": 256}}, "hidden_size 256 instead of 128"),
    ],
)
def test_config_that_contradicts_the_tensors(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        described(hf_folder(tmp_path / "hf", config=CONFIG | changes))


def test_numerics_are_those_of_the_config(tmp_path):
    numerics = {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
    changes = {part: CLIP_CONFIG[part] | numerics for part in ("text_config", "vision_config")}
    card, params, _ = described(clip_folder(tmp_path / "hf", **changes))
    assert (card.model["act"], card.model["eps"]) == ("gelu", 1e-6)
    note = written(card, params, tmp_path / "original", "original")
    assert "does not tell that eps is 1e-06 and act is gelu here" in note
    wrong = {part: CLIP_CONFIG[part] | {"hidden_act": "silu"} for part in changes}
    with pytest.raises(
        UserError, match=r"hidden_act 'silu', and X-CLIP here computes gelu, .*only"
    ):
        described(clip_folder(tmp_path / "silu", **wrong))


@pytest.mark.parametrize(
    ("stated", "end_id"), [(2, None), (198, 198), (199, None), (200, None), (150, 150)]
)
def test_where_texts_end(tmp_path, stated, end_id):
    """A vocabulary of 200 may go on after the end of texts, as transformers' CLIP then finds."""
    text = CLIP_CONFIG["text_config"] | {"eos_token_id": stated}
    card, params, notes = described(clip_folder(tmp_path / "hf", text_config=text))
    assert card.model["vocab_size"] == 200 and card.model["end_id"] == end_id
    assert ("eos_token_id 200, which is no id of a vocabulary of 200" in notes) == (stated == 200)
    ids = np.array([[7, 199, 150, 198, 150, 3, 198]])
    model = models.build(**card.model)
    nested = {"params": traverse_util.unflatten_dict(params, sep="/")}
    found = model.apply(nested, ids, normalise=False, method="encode_text")
    tokens = model.apply(nested, ids, method=lambda model, ids: model.text_proj(model.text(ids)))
    first = {None: 1, 198: 3, 150: 2}[end_id]
    np.testing.assert_allclose(found, tokens[:, first], atol=FLOAT32)
    note = written(card, params, tmp_path / "original", "original")
    assert (f"end_id is {end_id}" in note) == bool(end_id)
    # One trained here says it, too.
    new = dataclasses.replace(card, provenance={})
    text = json.loads(xclip.export(new, "hf", {}).files["config.json"])["text_config"]
    assert text["eos_token_id"] == (end_id or 2)


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
@pytest.mark.parametrize("projected", [False, True])
def test_clips_image_tower(tmp_path, projected, prefix):
    tensors = hf_tensors(clip_tensors())
    start = "vision_model."
    alone = {prefix + n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    if projected:
        alone["visual_projection.weight"] = tensors["visual_projection.weight"]
    config = VISION_CONFIG | {"model_type": "clip_vision_model", "projection_dim": 64}
    card, params, notes = described(hf_folder(tmp_path / "hf", alone, config, CLIP_PROCESSOR))
    assert card.model["head"] == "image" and "clips of 8 frames" in notes
    assert card.model["embed_dim"] == (64 if projected else None)
    whole, all_params, _ = described(clip_folder(tmp_path / "whole"))
    assert card.preprocessing == whole.preprocessing
    video = np.random.default_rng(0).standard_normal((2, 3, 32, 32, 3), np.float32)
    nested = {"params": traverse_util.unflatten_dict(params, sep="/")}
    found = models.build(**card.model).apply(nested, video, method="frame_vectors")
    nested = {"params": traverse_util.unflatten_dict(all_params, sep="/")}

    def expected(model, video):
        x = model.encoder(video)[1]
        return model.video_proj(x) if projected else x

    expected = models.build(**whole.model).apply(nested, video, method=expected)
    np.testing.assert_allclose(found, expected, atol=FLOAT32)
    written(card, params, tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), alone)
    new = xclip.export(dataclasses.replace(card, provenance={}), "hf", {})
    made = json.loads(new.files["config.json"])
    name = "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel"
    assert (made["architectures"], made["model_type"]) == ([name], "clip_vision_model")
    with pytest.raises(UserError, match="no X-CLIP with head 'image'; export by --format=hf"):
        xclip.export(card, "original", {})


def test_clips_text_tower_with_its_projection(tmp_path):
    tensors = hf_tensors(clip_tensors())
    alone = {n: t for n, t in tensors.items() if n.startswith("text_")}
    config = TEXT_CONFIG | {"model_type": "clip_text_model", "projection_dim": 64}
    card, params, _ = described(hf_folder(tmp_path / "hf", alone, config, None))
    assert (card.model["head"], card.model["embed_dim"]) == ("text", 64)
    whole, all_params, _ = described(clip_folder(tmp_path / "whole"))
    ids = np.random.default_rng(0).integers(0, 200, (3, 9))
    nested = {"params": traverse_util.unflatten_dict(params, sep="/")}
    found = models.build(**card.model).apply(nested, ids)
    nested = {"params": traverse_util.unflatten_dict(all_params, sep="/")}
    options = {"normalise": False, "method": "encode_text"}
    expected = models.build(**whole.model).apply(nested, ids, **options)
    np.testing.assert_allclose(found, expected, atol=FLOAT32)
    written(card, params, tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), alone)
    new = xclip.export(dataclasses.replace(card, provenance={}), "hf", {})
    made = json.loads(new.files["config.json"])
    assert made["architectures"] == ["CLIPTextModelWithProjection"]


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_wrapped_modules(tmp_path, wrapper):
    """As DistributedDataParallel and torch.compile save them."""
    tensors = {wrapper + name: t for name, t in original().items()}
    formats.write_torch(tmp_path / "a.pth", tensors)
    command(tmp_path / "a.pth", tmp_path / "v")
    same_params(pretrained.open_params(tmp_path / "v"), converted()[1])
    command(tmp_path / "v", tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out/checkpoint.pth"), tensors)
    # transformers would find nothing by such names.
    tensors = hf_tensors(original())
    source = hf_folder(tmp_path / "hf", {wrapper + name: t for name, t in tensors.items()})
    command(source, tmp_path / "w")
    same_params(pretrained.open_params(tmp_path / "w"), converted()[1])
    command(tmp_path / "w", tmp_path / "again", "hf")
    same_tensors(formats.read(tmp_path / "again/model.safetensors"), tensors)


def test_clips_of_other_kinds(tmp_path):
    tensors = {"visual.attnpool.positional_embedding": np.zeros((50, 8), np.float32)}
    formats.write_torch(tmp_path / "rn50.pt", clip_tensors() | tensors, None)
    with pytest.raises(UserError, match=r"CLIP with a ResNet for images; .* such as ViT-B-32"):
        described(tmp_path / "rn50.pt")
    tensors = hf_tensors(clip_tensors())
    tensors = dict(original())
    del tensors["mit.positional_embedding"]
    formats.write_torch(tmp_path / "half.pth", tensors)
    with pytest.raises(UserError, match=r"looks like X-CLIP or CLIP, but has no tensor mit\.pos"):
        described(tmp_path / "half.pth")


def test_what_other_homes_cannot_express(tmp_path):
    card, params = converted()

    def having(**fields):
        return Card(card.model | fields, card.preprocessing)

    for format, fields, message in (
        (
            "hf",
            {"prompt_mlp_dim": 99},
            "transformers has no X-CLIP with prompt_mlp_dim 99 instead of 256",
        ),
        ("hf", {"pos_grid": [5, 4, 2]}, "4 x 2 patches of 8 x 8 pixels"),
        (
            "original",
            {"mit_mlp_dim": 99},
            "the original code has no X-CLIP with mit_mlp_dim 99 instea",
        ),
        ("original", {"mlp_dim": 99, "text_mlp_dim": 98}, "text_mlp_dim 98 .* and mlp_dim 99"),
        ("original", {"head": "distil"}, "no X-CLIP with head 'distil'"),
    ):
        with pytest.raises(UserError, match=message):
            written(having(**fields), params, tmp_path / "a", format)


# Preprocessing.


def facts_of(source, **options):
    facts = described(source, **options)[0].preprocessing
    assert (facts.sampling, facts.stride, facts.fit) == ("segment", 1, "crop")
    return facts


def test_preprocessing_of_each_home(tmp_path):
    facts = facts_of(GOLDEN / "checkpoint.pth")
    assert (facts.frames, facts.size, facts.resize) == (5, 32, "mmcv_linear")
    assert (facts.short_side, facts.views_short_side) == (36, 32)
    assert (facts.temporal_views, facts.spatial_views) == (4, 3)
    assert facts.mean == (0.485, 0.456, 0.406)  # not CLIP's
    source = hf_folder(tmp_path / "hf")
    facts = facts_of(source)
    assert (facts.short_side, facts.views_short_side) == (32, None)
    assert (facts.resize, facts.size) == ("pil_bilinear", 32)
    assert (facts.mean, facts.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    # Each can be had with any weights.
    assert facts_of(source, preprocessing="original") == facts_of(GOLDEN / "checkpoint.pth")
    wanted = {"preprocessing": "hf", "frames": 3, "size": 48}
    facts, notes = (described(GOLDEN / "checkpoint.pth", **wanted)[k] for k in (0, 2))
    facts = facts.preprocessing
    assert "positions are for 5 frames: for 3 they are resampled" in notes
    assert "positions are for 32 pixels: for 48 they are resampled" in notes
    assert (facts.frames, facts.size, facts.short_side) == (3, 48, 48)
    assert facts.resize == "pil_bilinear"
    with pytest.raises(UserError, match="--preprocessing=keras is not known of X-CLIP"):
        described(source, preprocessing="keras")
    notes = described(hf_folder(tmp_path / "no", processor=None))[2]
    assert "no preprocessor_config.json beside the weights: the original's is assumed" in notes
    facts = facts_of(clip_folder(tmp_path / "clip"))
    assert (facts.resize, facts.short_side, facts.spatial_views) == ("pil_bicubic", 32, 1)
    assert facts.mean == (0.48145466, 0.4578275, 0.40821073)


def test_processor_that_crops_for_another_model(tmp_path):
    """That of the published 336-pixel model resizes to 336 and crops to its class's 224."""
    processor = {k: v for k, v in PROCESSOR.items() if k != "crop_size"} | {"size": 336}
    tensors = hf_tensors(original())
    name = "vision_model.embeddings.position_embedding.weight"
    tensors[name] = np.resize(tensors[name], (42 * 42 + 1, 64))
    config = CONFIG | nested("vision_config", image_size=336)
    source = hf_folder(tmp_path / "hf", tensors, config, processor)
    card, params, notes = described(source)
    assert (card.preprocessing.size, card.preprocessing.short_side) == (336, 336)
    assert "its processor makes frames of 224 pixels, and the model wants 336" in notes
    facts = facts_of(source, preprocessing="original")
    assert (facts.size, facts.short_side, facts.views_short_side) == (336, 384, 336)
    originals = {"preprocessor_config.json": json.dumps(processor).encode()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert facts_of(tmp_path / "out") == card.preprocessing


def test_processor_in_one_file_with_others(tmp_path):
    source = clip_folder(tmp_path / "hf")
    merged = {"processor_class": "CLIPProcessor", "image_processor": CLIP_PROCESSOR}
    (source / "preprocessor_config.json").unlink()
    (source / "processor_config.json").write_text(json.dumps(merged))
    card, params, _ = described(source)
    assert card.preprocessing.mean == (0.48145466, 0.4578275, 0.40821073)
    originals = {"processor_config.json": (source / "processor_config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert not (tmp_path / "out/preprocessor_config.json").exists()
    same = (tmp_path / "out/processor_config.json").read_bytes()
    assert same == originals["processor_config.json"]
    facts = card.preprocessing.__class__(**vars(card.preprocessing) | {"mean": (0.5,) * 3})
    card = Card(card.model, facts, None, card.provenance)
    written(card, params, tmp_path / "new", "hf", originals)
    assert described(tmp_path / "new")[0].preprocessing.mean == (0.5,) * 3


def test_processor_of_an_export_says_what_the_card_says(tmp_path):
    written(*converted(), tmp_path / "hf", "hf")
    facts = facts_of(tmp_path / "hf")
    assert (facts.size, facts.short_side, facts.resize) == (32, 36, "pil_bilinear")


# Vocabularies.


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    texts.train_clip_tokenizer(["a red ball sliding left", "blue shapes going up"], path, 520)
    return path


def with_vocabulary(tensors, rows=600):
    name = "token_embedding.weight"
    return tensors | {name: np.resize(tensors[name], (rows, tensors[name].shape[1]))}


def test_vocabulary_travels_with_the_model(tmp_path, vocabulary):
    formats.write_torch(tmp_path / "a.pth", with_vocabulary(original()))
    report = command(tmp_path / "a.pth", tmp_path / "v", tokenizer=str(vocabulary))
    assert "--prompt=" in report
    card = read_card(tmp_path / "v")
    assert card.tokenizer == {
        "file": "tokenizer.json",
        "length": 77,
        "canonicalise": True,
        "pad": "zero",
        "truncate": False,
    }
    ids, mask = pretrained.load_tokenizer(tmp_path / "v")(["A red ball!"])
    assert ids.shape == (1, 77) and ids[0, -1] == 0 and ids.max() == ids[0, mask.sum() - 1]
    command(tmp_path / "v", tmp_path / "hf", "hf")
    assert (tmp_path / "hf/tokenizer.json").read_bytes() == vocabulary.read_bytes()
    kind = json.loads((tmp_path / "hf/tokenizer_config.json").read_text())["tokenizer_class"]
    assert kind == "CLIPTokenizer"
    # Found there by itself, and used as Hugging Face does.
    found = tokenizer_of(tmp_path / "hf")
    assert found.card == card.tokenizer | {"canonicalise": False, "pad": "end"}
    assert tokenizer_of(tmp_path / "hf", raw_text=False).card["canonicalise"] is True


def tokenizer_of(path, **options):
    return xclip.describe(formats.open_source(path), Options(**options)).tokenizer


def test_vocabulary_in_two_files(tmp_path, vocabulary):
    """As Hugging Face's older folders have it."""
    content = json.loads(vocabulary.read_text())["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
    config = CONFIG | nested("text_config", vocab_size=600)
    source = hf_folder(tmp_path / "hf", hf_tensors(with_vocabulary(original())), config)
    (source / "vocab.json").write_text(json.dumps(content["vocab"] | added(vocabulary)))
    with pytest.raises(UserError, match=r"vocab.json is half a vocabulary; put its merges.txt"):
        tokenizer_of(source)
    (source / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    command(source, tmp_path / "v")
    card = read_card(tmp_path / "v").tokenizer
    assert (card["file"], card["canonicalise"], card["pad"]) == ("tokenizer.json", False, "end")
    ours = pretrained.load_tokenizer(tmp_path / "v")(["blue ball sliding up"])
    theirs = texts.ClipTokenizer(vocabulary, canonicalise=False, pad="end")(
        ["blue ball sliding up"]
    )
    np.testing.assert_array_equal(ours, theirs)
    # The other kind is preferred where both lie there.
    (source / "tokenizer.json").write_bytes(vocabulary.read_bytes())
    assert tokenizer_of(source).path == source / "tokenizer.json"


def test_vocabulary_of_openai(tmp_path, vocabulary):
    content = json.loads(vocabulary.read_text())["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["a title", *pairs]).encode()))
    found = tokenizer_of(GOLDEN / "checkpoint.pth", tokenizer=str(path))
    assert (found.card["canonicalise"], found.card["pad"]) == (True, "zero")
    found.write(found.path, tmp_path / found.card["file"])
    assert (tmp_path / "tokenizer.json").read_bytes() == vocabulary.read_bytes()


def added(vocabulary):
    """Ids of the tokens that are not pieced together."""
    content = json.loads(vocabulary.read_text())
    return {token["content"]: token["id"] for token in content["added_tokens"]}


def test_vocabularies_that_do_not_fit(tmp_path, vocabulary):
    path = GOLDEN / "checkpoint.pth"
    assert "no vocabulary beside the weights" in described(path)[2]
    with pytest.raises(UserError, match=r"gone.txt.gz is no tokenizer.json, vocab.json or bpe_sim"):
        described(path, tokenizer=str(tmp_path / "gone.txt.gz"))
    config = {"model_type": "xclip_vision_model"} | VISION_CONFIG | MIT_CONFIG
    source = hf_folder(tmp_path / "hf", tower("vision", ""), config)
    with pytest.raises(UserError, match=r"--tokenizer and --raw_text are about texts"):
        described(source, tokenizer=str(vocabulary))


# The published models.

SIZES = {  # of the fact sheet of each: variant, positions, heads in transformers, parameters
    "base-patch32": ("B/32", (8, 7, 7), 8, 196_585_729),
    "base-patch16": ("B/16", (8, 14, 14), 8, 194_929_153),
    "large-patch14": ("L/14", (8, 16, 16), 8, 575_673_601),
    "large-patch14-16-frames": ("L/14", (16, 24, 24), 8, 576_007_425),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", ["video_text", "image_text"])
def test_tables_cover_every_published_size(size, head):
    """Names and shapes alone lead back to the model, through every format."""
    variant, grid, hf_heads, count = SIZES[size]
    grid = grid if head == "video_text" else (1, *grid[1:])
    model = models.build("xclip", variant, head=head, eps=1e-5, pos_grid=grid)
    want = pretrained.param_specs(model)
    # Zeros without memory: one value, strided.
    params = {k: np.broadcast_to(np.zeros((), np.float32), v.shape) for k, v in want.items()}
    assert head != "video_text" or sum(value.size for value in params.values()) == count
    card = Card(models.config_of(model), Preprocessing())
    for format in xclip.FORMATS:
        plan = xclip.export(card, format, {})
        tensors = from_params(params, plan.rules)
        files = {n: json.loads(content) for n, content in plan.files.items() if n == "config.json"}
        source = formats.Source(pathlib.Path("x"), tensors, (pathlib.Path(plan.weights),), files)
        assert xclip.recognises(source)
        conversion = xclip.describe(source, Options())
        again = models.build(**conversion.model)
        assert set(from_params(params, conversion.rules)) == set(tensors)
        assert models.config_of(again) == card.model | {
            key: 4 * card.model[width]
            for key, width in (
                ("text_mlp_dim", "text_width"),
                ("mit_mlp_dim", "embed_dim"),
                ("prompt_mlp_dim", "embed_dim"),
            )
            if key in card.model
        }
        facts = conversion.preprocessing
        assert facts.size == grid[1] * model.patch_size[1]
        assert head != "video_text" or facts.frames == grid[0]
        # As the published config.json has it, whose large models have 8 heads as well.
        if format == "hf" and head == "video_text":
            files["config.json"]["vision_config"]["mit_num_attention_heads"] = hf_heads
            notes = "\n".join(xclip.describe(source, Options()).notes)
            assert ("WARNING" in notes) == (variant == "L/14")
            assert variant != "L/14" or "convert with --mit_heads=12" in notes


def test_other_families_do_not_claim_these_files(tmp_path):
    formats.write_torch(tmp_path / "clip.pt", clip_tensors(), None)
    sources = [GOLDEN / "checkpoint.pth", tmp_path / "clip.pt", hf_folder(tmp_path / "hf")]
    sources.append(clip_folder(tmp_path / "clip"))
    sources += [hf_folder(tmp_path / n, tower(n, ""), None) for n in ("vision", "text")]
    for path in sources:
        assert registry.recognise(formats.open_source(path)) is xclip


def test_files_of_other_families_are_not_claimed():
    cases = [
        path
        for case in GOLDENS.iterdir()
        for path in case.glob("checkpoint*")
        if case.name != "xclip" and path.is_file()
    ]
    assert len(cases) > 8
    for path in cases:
        assert not xclip.recognises(formats.open_source(path)), path
