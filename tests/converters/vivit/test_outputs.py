"""ViViT's numerics against Scenic's goldens."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.support.converting import params_of
from tests.support.goldens import assert_all_match, assert_caught, errors, inputs
from tests.support.sources.vivit import CASES
from vidjax import models
from vidjax.card import read_card
from vidjax.models import layers

TOL = 2e-6  # of the largest reference output; float32
TOL64 = 1e-10  # the same in float64


def run(folder, dtype="float32", change=lambda params: params, **changed_fields):
    """Everything that the golden of this folder's name has, computed by us."""
    model = models.build(**read_card(folder).model | {"dtype": dtype} | changed_fields)
    flat = change(dict(params_of(folder)))
    params = traverse_util.unflatten_dict(flat, sep="/")
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    out = apply(model, params, inputs(folder.name)["inputs"].astype(dtype))
    if model.config["factorisation"] == "encoder":  # the reference does not show its two stages
        del out["encoder_output"]
    return jax.tree.map(np.asarray, out)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, video):
    return {
        "logits": model.apply({"params": params}, video),
        "pre_logits": model.apply({"params": params}, video, method="embed"),
        "encoder_output": model.apply({"params": params}, video, method=lambda m, x: m.encoder(x)),
    }


@pytest.mark.parametrize("case", CASES)
def test_float32_outputs_match_the_original(folders, case):
    assert_all_match(run(folders / case), case, TOL)


@pytest.mark.parametrize("case", CASES)
def test_float64_outputs_match_the_original(folders, case):
    with jax.enable_x64(True):
        found = errors(run(folders / case, "float64"), case, "__f64")
    print(case, found)
    assert found.keys() == {"logits", "pre_logits"}
    assert max(found.values()) < TOL64, found


def is_caught(ours, case, suffix=""):
    assert_caught(errors(ours, case, suffix), 1e3 * TOL64 if suffix else 50 * TOL)


def test_erf_gelu_is_caught(folders, monkeypatch):
    case = "vivit_factorised_encoder"
    monkeypatch.setitem(layers.ACTIVATIONS, "gelu_tanh", layers.ACTIVATIONS["gelu"])
    apply.clear_cache()  # the right one is in it
    wrong = run(folders / case)
    apply.clear_cache()
    is_caught(wrong, case)


def test_wrong_eps_is_caught(folders):
    case = "vivit_spacetime"
    with jax.enable_x64(True):  # drowns in float32
        wrong = run(folders / case, "float64", eps=1e-5)
    is_caught(wrong, case, "__f64")


def test_space_before_time_heads_is_caught(folders):
    case = "vivit_factorised_dot_product"

    def swap(params):
        heads = {"kernel": -2, "bias": -2}
        for name in list(params):
            if "/attn/" in name and not name.endswith("out/bias"):
                axis = 1 if "/out/" in name else heads[name.rpartition("/")[2]]
                params[name] = np.roll(params[name], params[name].shape[axis] // 2, axis)
        return params

    is_caught(run(folders / case, change=swap), case)
    # The same permutation changes nothing where all heads do the same: it is a permutation.
    same = errors(run(folders / case, factorisation="joint", change=swap), case)
    joint = errors(run(folders / case, factorisation="joint"), case)
    assert same["logits"] == pytest.approx(joint["logits"], rel=1e-3)


def test_joint_attention_for_factorised_heads_is_caught(folders):
    case = "vivit_factorised_dot_product"
    is_caught(run(folders / case, factorisation="joint"), case)


def test_wrong_attention_order_is_caught(folders):
    case = "vivit_factorised_self_attention"
    is_caught(run(folders / case, attention_order="space_time"), case)


@pytest.mark.parametrize("tensor", ["encoder/pos_embed", "encoder/spatial/pos_embed"])
def test_class_token_behind_the_patches_is_caught(folders, tensor):
    case = "vivit_spacetime" if tensor == "encoder/pos_embed" else "vivit_factorised_encoder"

    def roll(params):
        return params | {tensor: np.roll(params[tensor], -1, 1)}

    is_caught(run(folders / case, change=roll), case)


def test_swapped_class_tokens_are_caught(folders):
    case = "vivit_factorised_encoder"
    names = ["encoder/spatial/cls_token", "encoder/temporal/cls_token"]

    def swap(params):
        return params | dict(zip(names, (params[name] for name in reversed(names)), strict=True))

    is_caught(run(folders / case, change=swap), case)


@pytest.mark.parametrize("pool", ["max", "sum"])
def test_wrong_pool_is_caught(folders, pool):
    case = "vivit_factorised_self_attention"
    is_caught(run(folders / case, pool=pool), case)
