"""Tokens and blocks on their grid: against the original codes' goldens, and against each other."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from converters import Options, convert
from vidjax import models, pretrained
from vidjax.errors import UserError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
SIZES = {"width": 16, "depth": 3, "num_heads": 2, "mlp_dim": 24, "eps": 1e-6}
BY_FRAME = SIZES | {"patch_size": (1, 8, 8), "pos_grid": (4, 2, 3)}
TUBES = SIZES | {"patch_size": (2, 8, 8)}
VIVIT = TUBES | {"pos_grid": (2, 2, 3)}
VIDEO = np.random.default_rng(0).standard_normal((2, 4, 16, 24, 3), np.float32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(model, params, video, layers):
    return models.grid_tokens(model, {"params": params}, video, layers)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """golden(case, file, input) -> model, parameters, video, outputs."""

    def load(case, file, key, **options):
        folder = tmp_path_factory.mktemp("golden") / "m"
        options = Options(**options)
        source = str(GOLDENS / case / file)
        convert.convert(source, folder, None, options=options, say=lambda line: None)
        loaded = pretrained.load_model(folder)
        with np.load(GOLDENS / case / "inputs.npz") as inputs:
            video = inputs[key]
        with np.load(GOLDENS / case / "outputs.npz") as outputs:
            return loaded.model, loaded.params, video, dict(outputs)

    return load


def assert_close(ours, theirs, tolerance=5e-6):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()


def test_blocks_are_those_of_videomae(golden):
    case = "videomae_finetune_meanpool"
    model, params, video, outputs = golden(case, "checkpoint-0.pth", "pixel_values", heads=4)
    video = video.transpose(0, 2, 3, 4, 1)
    first, last = (outputs[f"{name}_block_output"] for name in ("first", "last"))
    found = np.asarray(apply(model, params, video, (0, -1)))
    assert found.shape == (2, 2, 5, 4, 4, 36)
    assert_close(found[:, 0].reshape(first.shape), first)
    assert_close(found[:, 1].reshape(last.shape), last)
    np.testing.assert_array_equal(apply(model, params, video, 0), found[:, 0])
    # No norm comes before the mean, so that the encoder ends with its last block.
    np.testing.assert_array_equal(apply(model, params, video, None), found[:, 1])


@pytest.mark.parametrize(
    ("case", "file", "options"),
    [
        ("vivit_spacetime", "checkpoint_100", {"frames": 10}),
        (
            "vivit_factorised_self_attention",
            "params.npz",
            {"frames": 6, "attention_order": "time_space"},
        ),
        (
            "vivit_factorised_dot_product",
            "params.npz",
            {"frames": 10, "factorisation": "dot_product"},
        ),
    ],
)
def test_tokens_are_those_of_scenic(golden, case, file, options):
    model, params, video, outputs = golden(case, file, "inputs", size=32, **options)
    found = np.asarray(apply(model, params, video, None))
    expected = outputs["encoder_output"][:, -np.prod(found.shape[1:4]) :]  # without class token
    assert_close(found.reshape(expected.shape), expected)


def test_tokens_are_those_of_videoprism(golden):
    case = ("videoprism_video", "checkpoint.npz", "native/inputs")
    model, params, video, outputs = golden(*case, heads=4)
    expected = outputs["native/embeddings"]
    found = np.asarray(apply(model, params, video, None))
    assert found.shape == (2, 6, 5, 5, 36)
    assert_close(found.reshape(expected.shape), expected)
    # The spatial blocks come first; their norm follows the last of them.
    spatial = apply(model, params, video, model.config["depth"] - 1)
    normed = norm(spatial, params["encoder"]["spatial"]["norm"], model, scale_offset=1.0)
    expected = outputs["native/spatial_features"]
    assert_close(normed.reshape(expected.shape), expected)


def test_patches_are_those_of_xclip(golden):
    model, params, video, outputs = golden("xclip", "checkpoint.pth", "pixel_values")
    video = video.transpose(0, 1, 3, 4, 2)
    found = apply(model, params, video, None)
    assert found.shape == (2, 5, 4, 4, 64)
    patches = found.reshape(2, 5, 16, 64)
    context = model.apply({"params": params}, patches, method=lambda m, x: m.prompts.context(x))
    assert_close(np.asarray(context), outputs["img_features_mean"])


def norm(x, stored, model, scale_offset=0.0):
    """A LayerNorm in numpy."""
    x = np.asarray(x, np.float64)
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + model.config["eps"])
    return x * (np.asarray(stored["scale"]) + scale_offset) + np.asarray(stored["bias"])


def random_params(model):
    specs, tree = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(1)
    return tree.unflatten([rng.normal(0, 0.3, s.shape).astype(s.dtype) for s in specs])


DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_num_heads": 2, "decoder_mlp_dim": 24}
STAGES = VIVIT | {"factorisation": "encoder"}
MEAN = STAGES | {"pool": "mean", "temporal_depth": 0}
PRISM = BY_FRAME | {"temporal_depth": 2}
# Family, head, fields, path of the norm, grid, number of blocks.
CASES = {
    "videomae": ("videomae", None, TUBES, "norm", (2, 2, 3), 3),
    "reconstruct": ("videomae", "reconstruct", TUBES | DECODER, "norm", (2, 2, 3), 3),
    "joint": ("vivit", None, VIVIT, "norm", (2, 2, 3), 3),
    "sampled": ("vivit", None, BY_FRAME | {"sampled_frames": 2}, "norm", (3, 2, 3), 3),
    "encoder": ("vivit", None, STAGES, "spatial/norm", (2, 2, 3), 3),
    "mean": ("vivit", None, MEAN, "spatial/norm", (2, 2, 3), 3),
    "videoprism": ("videoprism", None, PRISM, "temporal/norm", (4, 2, 3), 5),
}


@pytest.mark.parametrize("case", CASES)
def test_a_norm_leads_from_the_last_block_to_the_tokens(case):
    name, head, fields, path, grid, depth = CASES[case]
    model = models.build(name, head=head, **fields)
    params = random_params(model)
    tokens = np.asarray(apply(model, params, VIDEO, None))
    assert tokens.shape == (2, *grid, 16)
    blocks = np.asarray(apply(model, params, VIDEO, tuple(range(depth))))
    assert blocks.shape == (2, depth, *grid, 16)
    stored = functools.reduce(lambda tree, key: tree[key], path.split("/"), params["encoder"])
    expected = norm(blocks[:, -1], stored, model, 1.0 if name == "videoprism" else 0.0)
    np.testing.assert_allclose(tokens, expected, rtol=1e-4, atol=1e-4)
    if case == "mean":  # whose vector of a time slice is the mean of its tokens
        slices = model.apply({"params": params}, VIDEO, method=lambda m, x: m.encoder(x))
        np.testing.assert_allclose(tokens.mean((2, 3)), slices, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [3, -4, (0, 3)])
def test_blocks_that_are_not_there(layers):
    model = models.build("videomae", **TUBES)
    with pytest.raises(UserError, match=r"no block -?\d in an encoder of 3; choose from 0 to 2"):
        apply(model, random_params(model), VIDEO, layers)
