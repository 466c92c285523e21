"""X-CLIP's structure; its numbers are compared with the original's in tests/converters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from vidjax import models
from vidjax.errors import UserError
from vidjax.models.layers import positions

RNG = np.random.default_rng(0)
SIZES = dict(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=(1, 4, 4), eps=1e-5)
TEXT = dict(text_width=8, text_num_heads=2, text_depth=1, vocab_size=20, context_length=6)
ADDED = dict(mit_num_heads=2, prompt_num_heads=2, prompt_depth=1)
VIDEO = RNG.random((2, 3, 8, 12, 3)).astype(np.float32)
IDS = jnp.array([[18, 3, 19, 0, 0], [18, 5, 6, 7, 19], [18, 19, 0, 0, 0]])


def build(head="video_text", grid=(3, 2, 3), **fields):
    fields = SIZES | {"pos_grid": grid} | fields
    if head in ("video_text", "image_text"):
        fields |= TEXT | {"embed_dim": 8}
    if head == "video_text":
        fields |= ADDED
    return models.build("xclip", head=head, **fields)


def random_params(model):
    shapes, treedef = jax.tree.flatten(models.abstract_params(model))
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(
        treedef, [jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32) for x in shapes]
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 4))  # once for all inputs of the same shapes
def apply(model, method, params, args, statics, options):
    return model.apply({"params": params}, *args, method=method, **dict(statics), **options)


def run(model, params, *args, method=None, statics=(), **options):
    return apply(model, method, params, args, statics, options)


def changed(params, **values):
    """With all parameters whose paths end in a key ("a__b" is a/b) set to its value."""
    flat = traverse_util.flatten_dict(params, sep="/")
    for end, value in values.items():
        paths = [path for path in flat if path.endswith(end.replace("__", "/"))]
        assert paths, end
        flat |= {path: jnp.full_like(flat[path], value) for path in paths}
    return traverse_util.unflatten_dict(flat, sep="/")


MODEL = build()
PARAMS = random_params(MODEL)


@pytest.mark.parametrize(
    ("variant", "grid", "head", "parameters"),
    [
        ("B/32", (8, 7, 7), "video_text", 196_585_729),
        ("B/16", (8, 14, 14), "video_text", 194_929_153),
        ("L/14", (8, 16, 16), "video_text", 575_673_601),
        ("L/14", (16, 24, 24), "video_text", 576_007_425),
        ("B/32", (1, 7, 7), "image_text", 151_277_313),  # CLIP's
    ],
)
def test_published_sizes(variant, grid, head, parameters):
    model = models.build("xclip", variant, head=head, pos_grid=grid, eps=1e-5)
    leaves = jax.tree.leaves(models.abstract_params(model))
    assert sum(np.prod(x.shape) for x in leaves) == parameters


def test_messages_go_from_frame_to_frame_of_one_video():
    other = VIDEO.copy()
    other[0, 1] = 0.5
    model = build(None)
    params = random_params(model)
    pair = [np.asarray(run(model, params, x)).reshape(2, 3, 7, 16) for x in (VIDEO, other)]
    change = np.abs(pair[0] - pair[1])
    assert change[0].max((1, 2)).min() > 1e-3 and not change[1].any()
    silent = changed(params, message_fc__kernel=0.0, message_fc__bias=0.0)
    pair = [np.asarray(run(model, silent, x)).reshape(2, 3, 7, 16) for x in (VIDEO, other)]
    assert not np.abs(pair[0] - pair[1])[0, [0, 2]].any()


def test_frames_of_clip_do_not_see_each_other():
    model = build("image_text", (1, 2, 3))
    params = random_params(model)
    frames = run(model, params, VIDEO, method="encode_frames")
    alone = run(model, params, VIDEO[:1, 1:2], method="encode_video")
    np.testing.assert_allclose(alone, frames[0, 1:2], atol=1e-6)
    mean = np.asarray(frames).mean(1)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(
        run(model, params, VIDEO, method="encode_video"), expected, atol=1e-6
    )
    texts = np.asarray(run(model, params, IDS, method="encode_text"))
    scale = np.exp(np.asarray(params["logit_scale"]))
    np.testing.assert_allclose(
        run(model, params, VIDEO, IDS), scale * expected @ texts.T, atol=1e-5
    )


def test_the_residual_of_the_integration_has_no_positions():
    frames, _ = run(MODEL, PARAMS, VIDEO, method="frame_features")
    still = {f"mit__blocks__{end}": 0.0 for end in ("attn__out__kernel", "mlp__fc2__kernel")}
    still |= {f"mit__blocks__{end}": 0.0 for end in ("attn__out__bias", "mlp__fc2__bias")}
    vectors, _ = run(MODEL, changed(PARAMS, **still), VIDEO, method="video_features")
    expected = (2 * frames + PARAMS["mit"]["pos_embed"]).mean(1)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_texts_look_at_patches_before_the_last_norm():
    params = changed(PARAMS, encoder__norm__scale=0.0)
    before, after = (run(MODEL, p, VIDEO, method="video_features") for p in (PARAMS, params))
    np.testing.assert_array_equal(before[1], after[1])
    assert np.abs(before[0] - after[0]).max() > 1e-2


def test_alpha_is_of_the_text_and_what_is_added():
    ends = [f"prompts__blocks__{x}" for x in ("attn__out", "mlp__fc2")]
    params = changed(PARAMS, **{f"{e}__{leaf}": 0.0 for e in ends for leaf in ("kernel", "bias")})
    texts = run(MODEL, params, IDS, method="text_features")
    _, context = run(MODEL, params, VIDEO, method="video_features")
    found = run(MODEL, params, texts, context, method="video_prompts")
    expected = np.asarray(PARAMS["prompts"]["alpha"]) * np.asarray(texts)
    np.testing.assert_allclose(found, np.stack([expected] * 2), atol=1e-6)


def test_a_text_is_where_it_ends():
    mask = np.array([[1, 1, 1, 0, 0], [1] * 5, [1, 1, 0, 0, 0]], bool)
    plain = run(MODEL, PARAMS, IDS, method="encode_text")
    np.testing.assert_allclose(run(MODEL, PARAMS, IDS, mask, method="encode_text"), plain)
    ends = jnp.where(mask, IDS, 19)  # Hugging Face's padding
    np.testing.assert_array_equal(run(MODEL, PARAMS, ends, method="encode_text"), plain)
    np.testing.assert_allclose(
        run(MODEL, PARAMS, IDS[2:, :2], method="encode_text"), plain[2:], atol=1e-6
    )
    with pytest.raises(UserError, match=r"7 tokens are too long .* 6"):
        run(MODEL, PARAMS, jnp.zeros((1, 7), int), method="encode_text")


def test_a_text_has_a_vector_for_each_video():
    _, context = run(MODEL, PARAMS, VIDEO, method="video_features")
    texts = np.asarray(run(MODEL, PARAMS, IDS, context=context, method="encode_text"))
    videos = np.asarray(run(MODEL, PARAMS, VIDEO, method="encode_video"))
    assert texts.shape == (2, 3, 8)
    for x in (texts, videos):
        np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1, atol=1e-5)
    cosines = np.einsum("bd,bkd->bk", videos, texts)
    scale = np.exp(np.asarray(PARAMS["logit_scale"]))
    np.testing.assert_allclose(run(MODEL, PARAMS, VIDEO, IDS), scale * cosines, atol=1e-5)
    warm = run(MODEL, PARAMS, VIDEO, IDS, statics=(("temperature", 0.5),))
    np.testing.assert_allclose(warm, 2 * cosines, atol=1e-5)
    unbent = np.asarray(run(MODEL, PARAMS, IDS, method="encode_text"))
    assert np.abs(cosines - videos @ unbent.T).max() > 1e-2


def test_features_on_request():
    _, seen = jax.jit(
        lambda p: MODEL.apply({"params": p}, VIDEO, IDS, mutable=["hidden_states", "attention"])
    )(PARAMS)
    hidden, attention = seen["hidden_states"], seen["attention"]
    assert hidden["encoder"]["embeddings"].shape == (2, 3, 7, 16)
    assert hidden["encoder"]["blocks"]["output"].shape == (2, 2, 3, 7, 16)
    assert hidden["mit"]["blocks"]["output"].shape == (1, 2, 3, 8)
    assert hidden["prompts"]["blocks"]["output"].shape == (1, 2, 3, 8)
    assert hidden["text"]["blocks"]["output"].shape == (1, 3, 5, 8)
    blocks = attention["encoder"]["blocks"]
    assert blocks["attn"]["weights"].shape == (2, 2, 3, 2, 7, 8)  # 7 tokens see the message, too
    assert blocks["message_attn"]["weights"].shape == (2, 2, 2, 3, 3)
    assert attention["prompts"]["blocks"]["attn"]["weights"].shape == (1, 2, 2, 3, 6)
    causal = attention["text"]["blocks"]["attn"]["weights"]
    assert not np.triu(causal[0, 0, 0], 1).any()


def test_other_clips_get_resampled_positions():
    bigger = RNG.random((1, 5, 16, 12, 3)).astype(np.float32)
    params = {k: np.asarray(x) for k, x in traverse_util.flatten_dict(PARAMS, sep="/").items()}
    there = build(grid=(5, 4, 3))
    adapted, notes = models.adapt(params, models.config_of(MODEL), there)
    assert len(notes) == 2
    table, old = adapted["encoder/pos_embed"][0], params["encoder/pos_embed"][0]
    np.testing.assert_array_equal(table[0], old[0])
    cubic = positions.resample_grid(old[1:], (1, 2, 3), (1, 4, 3))
    np.testing.assert_allclose(table[1:], cubic, atol=1e-6)
    assert adapted["mit/pos_embed"].shape == (1, 5, 8)
    expected = run(there, traverse_util.unflatten_dict(adapted, sep="/"), bigger, IDS)
    np.testing.assert_allclose(run(MODEL, PARAMS, bigger, IDS), expected, atol=1e-4)


def test_clip_has_all_but_the_new_parts():
    clip = traverse_util.flatten_dict(models.abstract_params(build("image_text")), sep="/")
    whole = traverse_util.flatten_dict(models.abstract_params(MODEL), sep="/")
    assert clip.keys() <= whole.keys()
    assert all(whole[path].shape == x.shape for path, x in clip.items())
    new = whole.keys() - clip.keys()
    assert {path.split("/")[0] for path in new} == {"encoder", "mit", "prompts"}
    assert all("/message_" in path for path in new if path.startswith("encoder"))


def test_new_parts_start_as_the_originals():
    model = build(width=64, mlp_dim=256)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), VIDEO, IDS))["params"]
    message, mit, prompts = params["encoder"]["blocks"], params["mit"], params["prompts"]
    for x in (message["message_fc"]["kernel"], message["message_fc"]["bias"]):
        assert 0.12 < np.abs(x).max() <= 0.125  # 1 / sqrt(64)
    limit = np.sqrt(6 / (4 * 64))  # xavier for the fused projection
    assert 0.95 * limit < np.abs(message["message_attn"]["query"]["kernel"]).max() <= limit
    assert not message["message_attn"]["out"]["bias"].any()
    for x in (mit["pos_embed"], mit["blocks"]["mlp"]["fc1"]["kernel"]):
        assert 0.01 < x.std() < 0.03
    assert 0.9 < prompts["proj"]["kernel"].std() < 1.1
    np.testing.assert_allclose(prompts["alpha"], 0.1)
    np.testing.assert_allclose(params["logit_scale"], np.log(1 / 0.07), atol=1e-4)


def test_dropped_paths_are_of_training_only():
    model = build(None, drop_path=0.5)
    params = random_params(model)

    def embed(seed=None):
        rngs = None if seed is None else {"dropout": jax.random.key(seed)}
        return model.apply({"params": params}, VIDEO, method="embed", rngs=rngs)

    still = models.replace(model, drop_path=0.0)
    expected = still.apply({"params": params}, VIDEO, method="embed")
    np.testing.assert_array_equal(embed(), expected)
    assert max(np.abs(embed(0) - embed(seed)).max() for seed in range(1, 5)) > 1e-3


def test_wrong_sizes():
    with pytest.raises(UserError, match="of one frame"):
        build(patch_size=(2, 4, 4))
    with pytest.raises(UserError, match="pos_grid is"):
        build(grid=(3, 3))
    with pytest.raises(UserError, match="needs mit_num_heads, prompt_num_heads"):
        models.build("xclip", head="video_text", **SIZES, **TEXT, embed_dim=8, pos_grid=(1, 2, 2))
