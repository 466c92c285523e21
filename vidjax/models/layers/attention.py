"""Softmax attention, and which program computes it: a question of speed, never of values.

Shapes: B clips, N tokens that look at M (keys, values), H heads, K head width.
Numerics: logits and softmax are in float32 (float64 when the queries are), weights are rounded to
the values' dtype before they are applied. Fused kernels, which never store the logits, divide by
the sum of the weights after that, not before: in bfloat16 results differ by a rounding.

Implementations:
    einsum     all heads at once, by XLA.
    blockwise  block by block, by XLA: the logits of a block fit into a CPU's caches, and on any
               device none are kept for the backward pass. See `vidjax.models.layers.blockwise`.
    cudnn      cuDNN's flash attention, of NVIDIA's Ampere (8.0) and later; no soft cap.
    tokamax    the Mosaic kernel of openxla/tokamax, of NVIDIA's Hopper (9.0); an optional package.
    splash     jax.experimental's splash attention, of TPUs.
    auto       the last three where they can run, cudnn before tokamax; else blockwise on CPUs;
               else einsum.
All but einsum take long sequences (LONG) without a mask only, whichever is chosen; everything else
is einsum. Only texts and frames that fill up a clip are masked, and these are short.
"""

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax.errors import UserError
from vidjax.models.layers.blockwise import attend_blockwise
from vidjax.models.layers.logits import KEPT, attention_weights, scaled

Array = jax.Array
Attend = Callable[..., tuple[Array, Callable[[], Any]]]

# Tokens from which a way other than einsum is used, on both sides. Guesses, but for blockwise: on
# GPUs `python -m benchmarks.gpu` measures them. Splash attention works on blocks of hundreds of
# tokens, cuDNN's and tokamax's kernels on 64 or 128.
LONG = {"blockwise": 128, "cudnn": 128, "tokamax": 128, "splash": 512}

BLOCK_MAX = 1024  # tokens of a block of splash attention: its logits must fit into 16 MB


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    softcap: float = 0.0,
    implementation: str = "auto",
) -> tuple[Array, Callable[[], Array]]:
    """Softmax attention of query [..., N, H, K] over key and value [..., M, H, K].

    `mask` (broadcastable to [..., N, M], the same for all heads) and `softcap` as in
    `attention_weights`.

    Args:
        implementation: one of IMPLEMENTATIONS, see the module.

    Returns:
        What the heads give, [..., N, H, K], and a function that computes their weights
        [..., H, N, M] for whoever wants to see them.

    Raises:
        UserError: an implementation that does not exist, or cannot run here.
    """
    heads = [jnp.swapaxes(x, -2, -3) for x in (query, key, value)]  # [..., H, N, K]
    for_all_heads = None if mask is None else jnp.expand_dims(mask, -3)

    def weights() -> Array:
        return attention_weights(*heads[:2], mask=for_all_heads, softcap=softcap)

    chosen = choose(implementation, query, key, masked=mask is not None, softcap=softcap)
    if chosen in FUSED:
        return FUSED[chosen](query, key, value, softcap=softcap), weights
    out = jnp.einsum("...nm,...mk->...nk", weights().astype(value.dtype), heads[2])
    return jnp.swapaxes(out, -2, -3), weights


def choose(name: str, query: Array, key: Array, *, masked: bool, softcap: float) -> str:
    """The implementation that computes attention of these shapes and dtypes; not "auto".

    Raises:
        UserError: `name` does not exist, or cannot run here.
    """
    check_name(name)
    fused = [kind for kind in FUSED if not obstacle(kind, query.dtype, softcap)]
    if name == "auto" and machine()[0] != "cpu":
        fused.remove("blockwise")  # not measured elsewhere
    if name in FUSED:
        if name not in fused:
            raise UserError(
                f"config.model.attention is {name!r}, which {obstacle(name, query.dtype, softcap)};"
                f" set it to {' or '.join(('auto', 'einsum', *fused))}"
            )
        fused = [name]
    elif name != "auto":
        return name
    suits = fused and not masked and _suits(fused[0], query.shape[-3], key.shape[-3])
    return fused[0] if suits and _splits_evenly(query) else "einsum"


def check_name(implementation: str) -> None:
    """Raises UserError unless it is one of IMPLEMENTATIONS."""
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"config.model.attention must be one of {', '.join(IMPLEMENTATIONS)}, "
            f"not {implementation!r}"
        )


def machine() -> tuple[str, float]:
    """Platform that the program being traced is for, such as "tpu", and its generation.

    The generation is NVIDIA's compute capability, and 0 elsewhere. The devices of the mesh decide,
    if there is one: programs are compiled for machines that are not there, too.
    """
    planned = jax.sharding.get_abstract_mesh().abstract_device
    platform = planned.platform if planned else jax.default_backend()
    if platform != "gpu":
        return platform, 0.0
    capability = str(jax.local_devices(backend="gpu")[0].compute_capability)
    return platform, float(capability) if capability[0].isdigit() else 0.0  # AMD's are gfx...


def obstacle(name: str, dtype: Any, softcap: float) -> str | None:
    """Why a fused implementation cannot run here, and what it needs; None if it can."""
    platform, generation = machine()
    if name == "blockwise":
        return None
    if name == "splash":
        if platform != "tpu":
            return f"runs on TPUs, not on a {platform}"
        known = ("bfloat16", "float32")
    else:
        oldest, newest = {"cudnn": (8.0, math.inf), "tokamax": (9.0, 9.0)}[name]
        if not oldest <= generation <= newest:
            what = "since Ampere" if name == "cudnn" else "of the Hopper generation"
            return f"runs on NVIDIA's GPUs {what}, not on this {platform}"
        known = ("bfloat16", "float16")
    if jnp.dtype(dtype).name not in known:
        return f"computes in {' or '.join(known)}, not in {jnp.dtype(dtype).name}"
    if name == "cudnn" and softcap:
        return "has no soft cap, as this model's attention needs"
    if name == "tokamax" and not importlib.util.find_spec("tokamax"):
        return "needs `pip install -e .[tokamax]`"
    return None


def _suits(name: str, queries: int, keys: int) -> bool:
    """Whether a fused implementation is for that many tokens."""
    # How tokamax's kernel treats the rest of a block is not documented; VideoPrism has no rest.
    blocks = name != "tokamax" or (queries % 128 == 0 and keys % 128 == 0)
    return blocks and min(queries, keys) >= LONG[name]


def _specs() -> jax.sharding.PartitionSpec:
    return nn.logical_to_mesh_axes(("batch", None, "heads", None))  # of [B, N, H, K]


def _on_one_device() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def _splits_evenly(x: Array) -> bool:
    """Whether every device of the mesh has as much of [B, ..., N, H, K] as the others."""
    if _on_one_device():
        return True
    if not nn.get_logical_axis_rules():
        return False
    sizes = jax.sharding.get_abstract_mesh().shape
    batch, _, heads, _ = _specs()

    def parts(axes: str | tuple[str, ...] | None) -> int:
        axes = (axes,) if isinstance(axes, str) else axes or ()
        return math.prod(sizes[axis] for axis in axes)

    clips = x.shape[0] if x.ndim > 3 else 1
    return clips % parts(batch) == 0 and x.shape[-2] % parts(heads) == 0


def _on_each_device(kernel: Callable[..., Array], *arrays: Array) -> Array:
    """Applies a kernel that XLA cannot partition to arrays [B, N or M, H, K], device by device."""
    if _on_one_device():
        return kernel(*arrays)
    specs = _specs()
    split = jax.shard_map(kernel, in_specs=(specs,) * 3, out_specs=specs, check_vma=False)
    return split(*arrays)


def _in_batches(*arrays: Array) -> list[Array]:
    """[..., N, H, K] as [B, N, H, K]."""
    return [x.reshape(-1, *x.shape[-3:]) for x in arrays]


def whole(count: int, size: int) -> int:
    """`count` rounded up to a multiple of `size`."""
    return -(-count // size) * size


def _pad(x: Array, axis: int, size: int) -> Array:
    """x with zeros at the end of an axis, up to that size."""
    return jnp.pad(x, [(0, size - n if i == axis else 0) for i, n in enumerate(x.shape)])


def _blockwise(query: Array, key: Array, value: Array, *, softcap: float) -> Array:
    """Softmax attention block by block; see `attend`."""
    # Device by device, as blocks are of clips and heads alike, which meshes split.
    out = _on_each_device(
        functools.partial(attend_blockwise, softcap=softcap), *_in_batches(query, key, value)
    )
    return out.reshape(query.shape)


def _cudnn(query: Array, key: Array, value: Array, *, softcap: float) -> Array:
    """Softmax attention by cuDNN, which XLA partitions by itself; see `attend`."""
    assert not softcap
    (queries, keys), width = (x.shape[-3] for x in (query, key)), query.shape[-1]
    # Its backward pass wants even numbers of tokens, and all of it a head width in eights.
    query_, key_, value_ = (
        _pad(_pad(x, 1, whole(x.shape[1], 2)), 3, whole(width, 8))
        for x in _in_batches(query, key, value)
    )
    options = {}
    if key_.shape[1] > keys:
        options["key_value_seq_lengths"] = jnp.full(len(key_), keys, jnp.int32)
    out = jax.nn.dot_product_attention(
        query_, key_, value_, scale=width**-0.5, implementation="cudnn", **options
    )
    return out[:, :queries, :, :width].reshape(query.shape)


def _tokamax(query: Array, key: Array, value: Array, *, softcap: float) -> Array:
    """Softmax attention by tokamax; see `attend`."""
    import tokamax

    kernel = functools.partial(
        tokamax.dot_product_attention,
        scale=query.shape[-1] ** -0.5,
        logits_soft_cap=softcap or None,
        # Its Triton kernel has no gradient with a soft cap.
        implementation="mosaic",
    )
    out = _on_each_device(kernel, *_in_batches(query, key, value))
    return out.reshape(query.shape)


def _splash(
    query: Array, key: Array, value: Array, *, softcap: float, interpret: bool = False
) -> Array:
    """Softmax attention by splash attention; see `attend`.

    Sequences are padded to whole blocks: padded keys belong to another segment than the queries,
    which do not see them, and padded queries are cut off again.

    Args:
        interpret: whether the kernel is not compiled, but run step by step: on any device, slowly.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention

    num_queries, num_keys = query.shape[-3], key.shape[-3]
    q_block, kv_block = block_size(num_queries), block_size(num_keys)
    queries, keys = whole(num_queries, q_block), whole(num_keys, kv_block)

    def kernel(query: Array, key: Array, value: Array) -> Array:
        mask = splash_attention.FullMask((queries, keys))
        attention = splash_attention.make_splash_mha_single_device(
            splash_attention.MultiHeadMask([mask] * query.shape[-2]),
            block_sizes=splash_attention.BlockSizes(
                block_q=q_block,
                block_kv=kv_block,
                block_q_dkv=q_block,
                block_kv_dkv=kv_block,
                use_fused_bwd_kernel=True,
            ),
            attn_logits_soft_cap=softcap or None,
            residual_checkpoint_name=KEPT,
            interpret=interpret,
        )
        heads = _pad(scaled(query), 1, queries), _pad(key, 1, keys), _pad(value, 1, keys)
        segments = None
        if keys > num_keys:
            padded = jnp.arange(keys) >= num_keys
            segments = splash_attention.SegmentIds(
                jnp.zeros(queries, jnp.int32), padded.astype(jnp.int32)
            )
        heads = (x.swapaxes(1, 2) for x in heads)  # [B, H, N, K]
        out = jax.vmap(attention, (0, 0, 0, None))(*heads, segments)
        return out.swapaxes(1, 2)[:, :num_queries]

    return _on_each_device(kernel, *_in_batches(query, key, value)).reshape(query.shape)


def block_size(tokens: int) -> int:
    """Tokens that splash attention takes at once: the fewest are padded, then the fewest blocks.

    A multiple of a TPU's 128 lanes. Not measured on a device: blocks of 512 are what others choose,
    but 1,568 tokens would fill 3.06 of them.
    """
    sizes = range(256, BLOCK_MAX + 1, 128)
    return min(sizes, key=lambda size: (whole(tokens, size), -size))


# Ways that store no logits, the first that can run before the others.
FUSED = {"cudnn": _cudnn, "tokamax": _tokamax, "splash": _splash, "blockwise": _blockwise}
IMPLEMENTATIONS = ("auto", "einsum", *FUSED)
