"""A probe of every family's encoder: starts from its checkpoints, and trains nothing of it."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from vidjax import models
from vidjax.errors import UserError

VIDEO = np.random.default_rng(0).random((2, 4, 16, 16, 3)).astype(np.float32)
SIZES = dict(width=16, depth=1, num_heads=2, mlp_dim=32, eps=1e-6)
SOURCES = {
    "videomae": dict(head="classify", num_classes=3, patch_size=(2, 8, 8)),
    "vivit": dict(head="classify", num_classes=3, patch_size=(2, 8, 8), pos_grid=(2, 2, 2)),
    "videoprism": dict(
        head="video", patch_size=(1, 8, 8), pos_grid=(4, 2, 2), scale_offset=1.0,
        temporal_depth=1, auxiliary_depth=1,
    ),
}  # fmt: skip


def random_params(model):
    flat = traverse_util.flatten_dict(models.abstract_params(model), sep="/")
    rng = np.random.default_rng(1)
    return {k: rng.normal(0, 0.3, x.shape).astype(np.float32) for k, x in flat.items()}


def run(model, flat, *args, **options):
    params = traverse_util.unflatten_dict(dict(flat), sep="/")
    return jax.jit(lambda p, args: model.apply({"params": p}, *args, **options))(params, args)


@pytest.mark.parametrize("name", SOURCES)
def test_it_sees_the_checkpoints_features(name):
    source = models.build(name, **SIZES | SOURCES[name])
    encoder = models.encoder_of(models.config_of(source))
    assert encoder["head"] is None and "num_classes" not in encoder
    probe = models.build("probe", head="classify", encoder=encoder, num_classes=5, num_heads=2)
    assert models.build(**models.config_of(probe)) == probe
    params = random_params(source)
    taken, notes = models.adapt(params, models.config_of(source), probe)
    assert len(notes) == 1 and "left out" in notes[0]
    mine = random_params(probe)
    fresh = {path.split("/")[0] for path in mine.keys() - taken.keys()}
    assert fresh == {"pooler", "head"} and taken.keys() <= mine.keys()
    bare = models.build(**encoder)
    tokens = run(bare, {k.removeprefix("backbone/"): v for k, v in taken.items()}, VIDEO)
    expected = run(source, params, VIDEO, method=lambda m, x: m.encoder(x))
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    assert run(probe, mine | taken, VIDEO).shape == (2, 5)


def test_linear_probe_sees_the_pooled_feature():
    encoder = {"name": "videomae", **SIZES, "patch_size": [2, 8, 8]}
    probe = models.build("probe", head="classify", encoder=encoder, num_classes=5, pool="mean")
    params = random_params(probe)
    assert {k.split("/")[0] for k in params} == {"backbone", "norm", "head"}
    feature = run(
        models.build(**encoder),
        {k.removeprefix("backbone/"): v for k, v in params.items() if k.startswith("backbone/")},
        VIDEO,
        method="embed",
    )
    x = np.asarray(feature, np.float64)
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    x = x * params["norm/scale"] + params["norm/bias"]
    expected = x @ params["head/kernel"] + params["head/bias"]
    np.testing.assert_allclose(run(probe, params, VIDEO), expected, atol=1e-4)


def test_wrong_probes():
    encoder = {"name": "videomae", **SIZES}
    with pytest.raises(UserError, match="'attention' or 'mean'"):
        models.build("probe", head="classify", encoder=encoder, num_classes=5, pool="max")
    text = dict(name="videoprism", head="text", width=16, num_heads=2, eps=1e-6, vocab_size=9)
    with pytest.raises(UserError, match=r"config\.init has no video encoder"):
        models.start_from({"name": "probe", "head": "classify"}, text)
    source = {"name": "videomae", "head": "classify", "num_classes": 3, **SIZES}
    probe = models.build("probe", head="classify", encoder=encoder, num_classes=5)
    with pytest.raises(UserError, match="has no whole video encoder, as it lacks encoder/"):
        models.adapt({}, source, probe)
    with pytest.raises(UserError, match="no encoder that a probe can look into"):
        models.encoder_of({"name": "probe", "head": "classify", "encoder": encoder})
