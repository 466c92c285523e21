"""The device mesh, and how logical axes map to it. jit over a mesh; pmap is not used anywhere."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vidjax.errors import UserError

# Logical axis -> mesh axes. Parameters split their widest axes; activations only the batch.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
)
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(cfg: Any) -> Mesh:
    """Mesh of all devices with the axes data, fsdp and tensor of `cfg`; one of them may be -1.

    Raises:
        UserError: the sizes do not fit the number of devices.
    """
    sizes, devices = [cfg.data, cfg.fsdp, cfg.tensor], jax.device_count()
    known = max(1, int(np.prod([n for n in sizes if n != -1])))
    sizes = [devices // known if n == -1 else n for n in sizes]
    if min(sizes) < 1 or int(np.prod(sizes)) != devices:
        raise UserError(
            f"config.mesh data x fsdp x tensor = {'x'.join(map(str, sizes))} does not make "
            f"{devices} devices; set one of them to -1"
        )
    # linen's sharding constraints need Auto axes; make_mesh's own default is Explicit.
    return jax.make_mesh(sizes, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def batch_parts(mesh: Mesh) -> int:
    """Number of parts that a batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


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


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays, split over the batch axis, of every host's part of a batch."""
    sharding = NamedSharding(mesh, BATCH)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
