"""The device mesh, and how logical axes map to it. jit over a mesh; pmap is not used anywhere."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vidjax.errors import UserError, first_line

# Every logical axis -> mesh axes, of parameters and of activations. An array's axes are looked up
# in this order, and none gets a mesh axis that another one has.
RULES = (
    ("batch", ("data", "fsdp")),  # clips, texts
    ("embed", "fsdp"),  # widths of parameters only: of activations the clips are split already
    ("heads", "tensor"),  # attention, parameters and activations: each device has its own heads,
    ("mlp", "tensor"),  # and its own hidden channels, whose results are then added up
    ("tokens", None),  # see `rules`
    ("embed_act", None),  # widths of activations
    *((name, None) for name in ("head_dim", "layers", "embed_decoder", "pixels", "classes")),
)
BATCH = PartitionSpec(("data", "fsdp"))


def rules(cfg: Any) -> tuple[tuple[str, Any], ...]:
    """The rules for `config.mesh`: RULES, and with its `sequence` tokens are split, too.

    Between attention and MLP, in norms, residuals and stochastic depth, where tokens know nothing
    of each other, each device of `tensor` then has its own (Korthikanti et al. 2022,
    arXiv:2205.05198). Heads and hidden channels come first in RULES: where they are split, tokens
    are whole. The values are the same.
    """
    if not cfg.sequence:
        return RULES
    at = RULES.index(("tokens", None))  # which stays, for arrays whose heads have the mesh axis
    return (*RULES[:at], ("tokens", "tensor"), *RULES[at:])


def make_mesh(cfg: Any) -> Mesh:
    """Mesh of all devices with the axes data, fsdp and tensor of `cfg`; one of them may be -1.

    Raises:
        UserError: the sizes do not fit the number of devices, or how a TPU's chips are connected.
    """
    sizes, devices = [cfg.data, cfg.fsdp, cfg.tensor], jax.device_count()
    known = max(1, int(np.prod([n for n in sizes if n != -1])))
    sizes = [devices // known if n == -1 else n for n in sizes]
    if min(sizes) < 1 or int(np.prod(sizes)) != devices:
        raise UserError(
            f"config.mesh data x fsdp x tensor = {cfg.data} x {cfg.fsdp} x {cfg.tensor} does not "
            f"make {devices} devices; set one of them to -1"
        )
    slices = len({d.slice_index for d in jax.devices()}) if jax.default_backend() == "tpu" else 1
    if sizes[0] % slices:
        raise UserError(
            f"config.mesh.data = {sizes[0]} must be a multiple of the {slices} TPU slices, as "
            f"nothing else goes across them"
        )
    try:
        # Neighbours on the mesh become neighbours on the chips' network as far as it allows.
        if slices > 1:
            inside, across = (sizes[0] // slices, *sizes[1:]), (slices, 1, 1)
            grid = mesh_utils.create_hybrid_device_mesh(
                inside, across, allow_split_physical_axes=True
            )
        else:
            grid = mesh_utils.create_device_mesh(sizes, allow_split_physical_axes=True)
    except (NotImplementedError, AssertionError, ValueError) as error:
        raise UserError(
            f"config.mesh data x fsdp x tensor = {'x'.join(map(str, sizes))} does not fit the "
            f"TPU's topology ({first_line(error)}); choose other sizes"
        ) from error
    # linen's sharding constraints need Auto axes.
    return Mesh(grid, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def local_mesh() -> Mesh:
    """A mesh of this process's devices, which all share batches."""
    devices = jax.local_devices()
    axes = dict.fromkeys(("data", "fsdp", "tensor"), 1) | {"data": len(devices)}
    return jax.make_mesh(
        tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * 3, devices=devices
    )


def batch_parts(mesh: Mesh) -> int:
    """Number of parts that a batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def clip_axes(shards: int, clips: int, slices: int, mesh: Any) -> tuple[str, ...]:
    """Mesh axes over which the shards of `config.optim.clip_parts` are computed side by side.

    Each of their devices has a gradient of its own then. The clips of a shard lie on the other axes
    of a batch; shards beyond the size of the axes take turns. Clips over "fsdp" come first, because
    gradients are split over it then.

    Args:
        shards: config.optim.clip_parts.
        clips: of the whole batch.
        slices: that each shard is cut into (config.grad_accum).
        mesh: of all devices; an empty one stands for one device.

    Raises:
        UserError: the clips do not divide into the shards, or these not over the mesh.
    """
    sizes = {"data": 1, "fsdp": 1} | dict(mesh.shape)
    devices = sizes["data"] * sizes["fsdp"]
    for axes in (("data",), ("data", "fsdp"), ()):
        abreast = math.prod(sizes[axis] for axis in axes)
        if shards % abreast == 0 and clips % (shards * slices * (devices // abreast)) == 0:
            return axes if abreast > 1 else ()
    slow = f" x {slices} slices (config.grad_accum)" if slices > 1 else ""
    if clips % (shards * slices):
        raise UserError(
            f"config.optim.clip_parts = {shards} shards{slow} must divide the {clips} clips of a "
            f"step; choose another config.optim.clip_parts"
        )
    raise UserError(
        f"config.optim.clip_parts = {shards} shards{slow} of {clips} clips do not divide over "
        f"config.mesh data = {sizes['data']} x fsdp = {sizes['fsdp']}; let clip_parts be a "
        f"multiple of data, such as with --config.mesh.fsdp={devices // math.gcd(devices, shards)}"
    )


def without(axes: tuple[str, ...], rules: Any) -> list[tuple[str, Any]]:
    """The rules for what is mapped over these mesh axes, which it must not name itself."""

    def rest(value: Any) -> tuple[str, ...] | None:
        names = (value,) if isinstance(value, str) else value or ()
        return tuple(name for name in names if name not in axes) or None

    return [(name, rest(value)) for name, value in rules]


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of (abstract) parameters that still carry their logical axes.

    An axis that does not divide over its mesh axis stays whole: 3 heads run on 2 devices.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)

    def whole_if_uneven(x, sharding):
        spec = [
            axis if axis is None or x.shape[i] % mesh.shape[axis] == 0 else None
            for i, axis in enumerate(sharding.spec)
        ]
        return NamedSharding(mesh, PartitionSpec(*spec))

    # Traced, because unboxing applies the sharding, which shapes alone cannot take.
    return jax.tree.map(whole_if_uneven, jax.eval_shape(nn.meta.unbox, boxed), shardings)


@dataclasses.dataclass(frozen=True)
class Share:
    """Clips of every batch that this process reads.

    Processes that have the same parts of a batch, because a tensor axis goes across them, read the
    same. So the number of shares may be smaller than that of processes.

    Attributes:
        index, count: which of the shares this one is, and how many there are.
        parts: of the batch, ascending, that lie on this process's devices.
        num_parts: that a batch is split into.
    """

    index: int
    count: int
    parts: tuple[int, ...]
    num_parts: int

    def rows(self, size: int) -> np.ndarray:
        """The rows of a batch of `size` that this process reads, ascending, int64 [size / count].

        `size` must divide into all parts, unless this share is the only one.
        """
        if self.count == 1:
            return np.arange(size)
        rows = size // self.num_parts
        return np.concatenate([np.arange(part * rows, (part + 1) * rows) for part in self.parts])


@functools.lru_cache  # asked for each batch, and a pod has thousands of devices
def host_share(mesh: Mesh) -> Share:
    """This process's share of batches.

    Raises:
        UserError: shares of processes overlap in part.
    """
    places = NamedSharding(mesh, BATCH).devices_indices_map((batch_parts(mesh),))
    parts: dict[int, set[int]] = {}
    for device, (part,) in places.items():
        parts.setdefault(device.process_index, set()).add(part.start or 0)
    return share_of(jax.process_index(), parts, batch_parts(mesh))


def share_of(process: int, parts: Mapping[int, set[int]], num_parts: int) -> Share:
    """The share of a process, from the parts of the batch that lie with each of them."""
    shares = sorted({tuple(sorted(own)) for own in parts.values()})
    if sum(map(len, shares)) != num_parts or len(set(map(len, shares))) > 1:
        raise UserError(
            f"config.mesh splits batches into {num_parts} parts, which {len(parts)} processes "
            f"share unevenly; choose config.mesh.tensor so that the devices of a process are a "
            f"multiple of it, or it of them"
        )
    own = tuple(sorted(parts[process]))
    return Share(shares.index(own), len(shares), own, num_parts)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays, split over the batch axis, of every process's rows of a batch.

    Args:
        batch: arrays [own rows, ...], of the rows that `Share.rows` gives.
        mesh: of all devices.
    """
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(dict(batch), sharding)
    share = host_share(mesh)

    def place(x: np.ndarray) -> jax.Array:
        rows = len(x) // len(share.parts)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            start = share.parts.index((index[0].start or 0) // rows) * rows
            return x[start : start + rows]

        shape = (rows * share.num_parts, *x.shape[1:])
        return jax.make_array_from_callback(shape, sharding, part)

    return {key: place(x) for key, x in batch.items()}


def put_whole(tree: Any, shardings: Any) -> Any:
    """Makes global arrays of values that every process has whole.

    Args:
        tree: numpy arrays.
        shardings: of all of them, a tree like it or one for all.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def place(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(np.shape(x), sharding, lambda index: x[index])

    return jax.tree.map(place, tree, shardings)
