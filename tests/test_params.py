"""Trees of parameters: split, merged, compared, and their fingerprints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.params import fingerprint, fingerprints, join_params, merge_params, split_params

PARAMS = {
    "encoder": {"kernel": np.ones((2, 3)), "bias": np.ones(3)},
    "fc_norm": {"scale": np.ones(3)},
    "head": {"kernel": np.ones((3, 2)), "bias": np.ones(2)},
}


def test_split_and_join():
    trained, frozen = split_params(PARAMS, ("encoder/.*",))
    assert set(trained) == {"fc_norm", "head"} and set(frozen) == {"encoder"}
    joined = join_params(trained, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(PARAMS)


def test_merging_accounts_for_every_parameter():
    loaded = {
        "encoder": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)},
        "head": {"kernel": np.zeros((3, 5)), "bias": np.zeros(2)},
        "decoder": {"bias": np.zeros(4)},
    }
    allowed = {"missing": ("fc_norm/.*", "head/kernel"), "unused": ("decoder/.*",)}
    merged, fresh, left = merge_params(PARAMS, loaded, **allowed, source="there")
    assert (fresh, left) == (["fc_norm/scale", "head/kernel"], ["decoder/bias"])
    assert not merged["encoder"]["kernel"].any() and not merged["head"]["bias"].any()
    assert merged["head"]["kernel"].all() and merged["fc_norm"]["scale"].all()
    with pytest.raises(UserError) as error:
        merge_params(PARAMS, loaded, missing=(), unused=(), source="there")
    assert (
        "checkpoint there does not fit this config's model: fc_norm/scale is missing; decoder/bias "
        "is not in the model; head/kernel is float64[3, 5], expected float64[3, 2]; set"
    ) in str(error.value)


def test_fingerprints_tell_what_compression_hides():
    """Fingerprints are the same on any mesh and in numpy, and others for other values."""
    rng = np.random.default_rng(0)
    bits = rng.integers(2**32, size=(30, 640, 5), dtype=np.uint32)  # several blocks
    arrays = {
        "float32": bits.view(np.float32),
        "bfloat16": bits.astype(np.uint16).view(jnp.bfloat16),
        "int8": bits.astype(np.int8),
        "bool": bits % 2 == 0,
        "scalar": np.int32(7),
    }
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P(None, "x"))
    placed = {k: jax.device_put(x, split if x.ndim else None) for k, x in arrays.items()}
    found = jax.device_get(jax.jit(fingerprints)(placed))
    for name, x in arrays.items():
        assert fingerprint(x) == found[name]
        x = np.array(x, copy=True)
        flat = x.reshape(-1).view(np.uint8)
        for place in rng.integers(len(flat), size=8):
            flat[place] ^= 128 if name != "bool" else 1
            assert fingerprint(x) != found[name]
            flat[place] ^= 128 if name != "bool" else 1
    swapped = arrays["int8"].copy()
    swapped[0, 0], swapped[0, 1] = arrays["int8"][0, 1], arrays["int8"][0, 0]
    assert fingerprint(swapped) != found["int8"]
