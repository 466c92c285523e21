"""The rule engine: layouts, stacking, splitting, inversion, and the account of every tensor."""

import types

import ml_dtypes
import numpy as np
import pytest

from converters.mapping import Ignore, Rule, from_params, ignored_names, to_params
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays


def spec(*shape, dtype=np.float32):
    return types.SimpleNamespace(shape=shape, dtype=dtype)


def random(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


LAYERS = 3
RULES = [
    Rule("patch.weight", "embed/kernel", "d c t h w -> t h w c d"),
    Rule("patch.bias", "embed/bias"),
    Rule("blocks.{i}.qkv.weight", ("q/kernel", "k/kernel", "v/kernel"), "(s n h) d -> s d n h"),
    Rule("blocks.{i}.out.weight", "out/kernel", "d (n h) -> n h d"),
    Rule("blocks.{i}.norm.weight", "norm/scale"),
    Rule("token", "token"),
    Rule("temperature", "temperature"),
]
WANT = {
    "embed/kernel": spec(2, 4, 5, 3, 6),
    "embed/bias": spec(6),
    "q/kernel": spec(LAYERS, 6, 2, 3),
    "k/kernel": spec(LAYERS, 6, 2, 3),
    "v/kernel": spec(LAYERS, 6, 2, 3),
    "out/kernel": spec(LAYERS, 2, 3, 6),
    "norm/scale": spec(LAYERS, 6),
    "token": spec(1, 1, 6),
    "temperature": spec(),
}


def tensors():
    made = {
        "patch.weight": random(6, 3, 2, 4, 5),
        "patch.bias": random(6),
        "token": random(1, 1, 6),
        "temperature": np.array(0.07, np.float32),
    }
    for i in range(LAYERS):
        made[f"blocks.{i}.qkv.weight"] = random(18, 6) + i
        made[f"blocks.{i}.out.weight"] = random(6, 6) - i
        made[f"blocks.{i}.norm.weight"] = random(6) * i
    return made


def test_layouts_against_plain_numpy():
    source = tensors()
    params = to_params(source, RULES, WANT)
    np.testing.assert_array_equal(
        params["embed/kernel"], source["patch.weight"].transpose(2, 3, 4, 1, 0)
    )
    for i in range(LAYERS):
        qkv = source[f"blocks.{i}.qkv.weight"]
        for k, name in enumerate("qkv"):
            expected = qkv[6 * k : 6 * k + 6].T.reshape(6, 2, 3)
            np.testing.assert_array_equal(params[f"{name}/kernel"][i], expected)
        out = source[f"blocks.{i}.out.weight"]
        np.testing.assert_array_equal(params["out/kernel"][i], out.T.reshape(2, 3, 6))
        np.testing.assert_array_equal(params["norm/scale"][i], source[f"blocks.{i}.norm.weight"])
    assert params["temperature"].shape == ()


def test_from_params_is_the_inverse_byte_for_byte():
    source = tensors()
    again = from_params(to_params(source, RULES, WANT), RULES)
    assert set(again) == set(source)
    for name in source:
        assert again[name].shape == source[name].shape
        assert again[name].tobytes() == source[name].tobytes()
        assert again[name].flags.c_contiguous


def test_tensors_are_read_one_at_a_time_and_once():
    source, reads = tensors(), []

    def read(name):
        reads.append(name)
        return source[name]

    lazy = LazyArrays(source, read, source.__getitem__)
    assert len(lazy) == len(source)
    assert "token" in lazy
    assert not reads
    to_params(lazy, RULES, WANT)
    assert sorted(reads) == sorted(source)


def test_arrays_are_aligned_so_that_jax_need_not_copy_them():
    params = to_params(tensors(), RULES, WANT)
    assert all(array.ctypes.data % 64 == 0 for array in params.values())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_exactly(dtype):
    half = random(4, 5, dtype=dtype)
    rules = [Rule("a", "a", "o i -> i o")]
    params = to_params({"a": half}, rules, {"a": spec(5, 4)})
    assert params["a"].dtype == np.float32
    assert from_params(params, rules)["a"].astype(dtype).tobytes() == half.tobytes()


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_narrowing_is_refused(dtype):
    with pytest.raises(UserError, match=f"dtype: a is {np.dtype(dtype)}, which float32 cannot"):
        to_params({"a": np.zeros(3, dtype)}, [Rule("a", "a")], {"a": spec(3)})


def problems(source, rules=RULES, want=WANT, ignore=()):
    with pytest.raises(UserError) as caught:
        to_params(source, rules, want, ignore)
    return str(caught.value)


def test_all_problems_come_in_one_error():
    source = tensors()
    del source["patch.bias"], source["blocks.1.norm.weight"], source["blocks.2.norm.weight"]
    source["blocks.3.norm.weight"] = random(6)
    source["head.weight"] = random(2)
    source["token"] = random(1, 1, 7)
    text = problems(
        source,
        [*RULES, Rule("ghost", "nowhere"), Rule("twice", "embed/bias")],
        WANT | {"unfilled": spec(3)},
        [Ignore("pos_embed", "a buffer")],
    )
    for line in (
        "missing from the file: patch.bias",
        "missing from the file: blocks.{i}.norm.weight (i = 1, 2)",
        "in the file, but no rule reads it: blocks.{i}.norm.weight (i = 3)",
        "in the file, but no rule reads it: head.weight",
        "shape: token is (1, 1, 7), but this model needs (1, 1, 6)",
        "dead rule: ghost -> nowhere, not in this model",
        "duplicate: embed/bias also gets twice",
        "no rule fills the parameter unfilled",
        "nothing to ignore: pos_embed (a buffer)",
    ):
        assert f"\n  {line}" in text
    assert "(9 problems)" in text


def test_one_tensor_must_not_feed_two_parameters():
    rules = [Rule("a", "x"), Rule("a", "y")]
    assert "duplicate: a is read by two rules" in problems(
        {"a": random(3)}, rules, {"x": spec(3), "y": spec(3)}
    )


def test_wrong_shape_of_a_fused_or_grouped_tensor():
    source = tensors() | {"blocks.1.qkv.weight": random(12, 6), "blocks.0.out.weight": random(6, 8)}
    text = problems(source)
    assert "shape: blocks.1.qkv.weight is (12, 6), but this model needs (18, 6)" in text
    assert "shape: blocks.0.out.weight is (6, 8), but this model needs (6, 6)" in text


def test_ignoring():
    source = tensors() | {f"blocks.{i}.mask": np.zeros(i, np.float32) for i in range(2)}
    masks = Ignore("blocks.{i}.mask", "a buffer")
    to_params(source, RULES, WANT, [masks, Ignore("other", "may be there", optional=True)])
    assert ignored_names(source, [masks]) == {"blocks.0.mask": masks, "blocks.1.mask": masks}
    picky = Ignore("blocks.{i}.mask", "empty", check=lambda x: "not empty" if x.size else None)
    assert "cannot ignore blocks.1.mask: not empty" in problems(source, ignore=[picky])
    assert "duplicate: token is read by two rules, or read and ignored" in problems(
        source, ignore=[masks, Ignore("token", "no")]
    )


def test_export_needs_a_rule_for_every_parameter_and_the_reverse():
    params = to_params(tensors(), RULES, WANT)
    params["surprise"] = params.pop("token")
    with pytest.raises(UserError) as caught:
        from_params(params, RULES)
    assert "no rule writes the parameter surprise" in str(caught.value)
    assert "no parameter token for its rule" in str(caught.value)


@pytest.mark.parametrize(
    "layout", ["a b -> a c", "a b -> b", "a a -> a a", "a b -> (a b)", "(n h) d -> n d"]
)
def test_bad_layouts_are_bugs_not_user_errors(layout):
    with pytest.raises(ValueError, match="layout"):
        to_params({"x": random(2, 2)}, [Rule("x", "x", layout)], {"x": spec(2, 2)})


def test_layers_as_keras_numbers_them():
    source = {f"block{end}/w": random(6, 4) + k for k, end in enumerate(("", "_1", "_2"))}
    rules, want = [Rule("block{_i}/w", "w", "(n h) d -> d n h")], {"w": spec(LAYERS, 4, 2, 3)}
    params = to_params(source, rules, want)
    np.testing.assert_array_equal(
        params["w"][2], source["block_2/w"].reshape(2, 3, 4).transpose(2, 0, 1)
    )
    again = from_params(params, rules)
    assert set(again) == set(source)
    assert all(again[name].tobytes() == source[name].tobytes() for name in source)


def test_axes_of_one_that_parameters_lack_or_add():
    source = {"query": random(1, 1, 6), "table": random(5, 6)}
    rules = [Rule("query", "probe", "() a d -> a d"), Rule("table", "pos", "(a n) d -> a n d")]
    params = to_params(source, rules, {"probe": spec(1, 6), "pos": spec(1, 5, 6)})
    again = from_params(params, rules)
    for name, array in source.items():
        assert again[name].shape == array.shape
        assert again[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("transposed", [Rule("a", "a", "o i -> i o"), Rule("a", "a", "i o -> i o")])
def test_matrices_are_transposed_bit_for_bit(transposed):
    # All bit patterns count, also those of signalling NaNs.
    bits = np.random.default_rng(0).integers(0, 2**32, (6, 8), np.uint32)
    bits[0, :4] = [0x7F800001, 0xFFC00001, 0x80000000, 1]
    source = bits.view(np.float32)
    source.flags.writeable = False  # as files give them
    swap = transposed.layout.startswith("o")
    params = to_params({"a": source}, [transposed], {"a": spec(*(8, 6) if swap else (6, 8))})
    np.testing.assert_array_equal(params["a"].view(np.uint32), bits.T if swap else bits)
    again = from_params(params, [transposed])["a"]
    np.testing.assert_array_equal(again.view(np.uint32), bits)


def test_of_lazy_parameters_those_of_one_rule_are_held_and_shapes_cost_no_reading():
    params, reads = to_params(tensors(), RULES, WANT), []

    def read(name):
        reads.append(name)
        return params[name]

    again = from_params(LazyArrays(params, read, WANT.__getitem__), RULES)
    assert {name: again.spec(name).shape for name in again} == {
        name: array.shape for name, array in tensors().items()
    }
    assert not reads
    for name in again:
        assert again[name].tobytes() == tensors()[name].tobytes()
    assert sorted(reads) == sorted(params)  # each once, for all its layers
