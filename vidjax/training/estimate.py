"""Sizes of a run without running it: `python -m vidjax.train --config=... --config.estimate`."""

import math
from typing import Any

import jax
from ml_collections import ConfigDict

from vidjax.setup import Setup
from vidjax.training import optim
from vidjax.training.program import Program


def estimate(config: ConfigDict) -> dict[str, int]:
    """Returns the number of parameters, and bytes on each device of the state and of a batch.

    `peak_bytes` is what XLA plans for one train step: state, batch, and temporaries. Neither videos
    nor durations are needed.

    Raises:
        UserError: a config that does not fit.
    """
    setup = Setup(config, without_lists=True)
    program = Program(setup, optim.cosine_with_warmup(1.0, 0.0, 2, 1))  # any rates take as much
    memory = program.compile_step().memory_analysis()
    return {
        "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(program.state.params)),
        "state_bytes": bytes_on_device(program.state),
        "batch_bytes": bytes_on_device(program.batch),
        "peak_bytes": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes  # the state is updated in place
        + memory.temp_size_in_bytes,
    }


def bytes_on_device(tree: Any) -> int:
    """Returns the bytes that one device holds of arrays, or of their shapes and shardings."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )
