"""Preprocessing as a config or a card tells it, and the normalisation that goes by it."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing


def test_normalise():
    facts = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0))
    video = np.array([0, 128, 255], np.uint8).reshape(1, 1, 1, 1, 3)
    out = facts.normalise(video)
    np.testing.assert_allclose(out.ravel(), [-1.0, (128 / 255 - 0.25) / 0.5, 0.5], rtol=1e-6)
    assert out.dtype == jnp.float32
    half = facts.normalise(video, "bfloat16")
    assert half.dtype == jnp.bfloat16
    assert np.array_equal(half, out.astype(jnp.bfloat16))  # rounded once, at the end


def test_preprocessing_reads_configs_and_refuses_nonsense():
    cfg = SimpleNamespace(frames=8, mean=[0.5, 0.5, 0.5], batch_size=4, size=112)
    facts = Preprocessing.from_config(cfg)
    assert facts == Preprocessing(frames=8, mean=(0.5, 0.5, 0.5), size=112)
    for wrong in (
        dict(resize="bicubic"),
        dict(sampling="uniform"),
        dict(fit="pad"),
        dict(view_average="max"),
        dict(size=256),
        dict(views_short_side=223),
    ):
        with pytest.raises(UserError):
            Preprocessing(**wrong)
