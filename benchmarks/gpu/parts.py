"""Parts of a step's time: attention by length, kernels, copies to the device.

Variants of `benchmarks.gpu`; all but `copy` measure by themselves and only report facts.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, peers
from benchmarks.gpu import checks
from vidjax import sharding
from vidjax.errors import first_line
from vidjax.models.layers import attention

ROUNDS = 5
TURN = 0.2  # seconds of work in a turn


def copy(gib: float) -> tuple[dict[str, Any], peers.Once]:
    """Reads and writes an array larger than any cache: the bandwidth of the device's memory."""
    x = jax.random.normal(jax.random.key(0), (int(gib * 2**29),), jnp.bfloat16)
    # XLA may alias the output of a mere copy.
    step = jax.jit(lambda x: -x)
    once = peers.repeated(step, x)
    return {"bytes": 2 * x.nbytes}, once


def in_turns(steps: Mapping[str, Callable[[], Any]]) -> dict[str, dict[str, float]]:
    """Milliseconds of each step, which all run in turns of many calls without waiting between."""

    def seconds(step: Callable[[], Any], calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            out = step()
        jax.block_until_ready(out)
        return (time.perf_counter() - start) / calls

    for step in steps.values():
        jax.block_until_ready(step())
    calls = {name: max(1, round(TURN / seconds(step, 2))) for name, step in steps.items()}
    times = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            times[name].append(1e3 * seconds(step, calls[name]))
    return {name: harness.summary(values) for name, values in times.items()}


def attention_times(
    tokens: int, clips: int, heads: int, width: int, softcap: float
) -> tuple[dict[str, Any], None]:
    """Milliseconds of attention in bfloat16 by implementation, forward and with its gradients.

    Returns:
        {"by form": {form: {"forward": ..., "backward": ...}}, "skipped": {form: why}, "flops": of
        the forward pass}; "backward" is both passes.
    """
    rng = np.random.default_rng(0)
    shape = (clips, tokens, heads, width)
    qkv = [jnp.asarray(rng.standard_normal(shape, np.float32), jnp.bfloat16) for _ in range(3)]
    steps, skipped = {}, {}
    for form in checks.FORMS:
        if form == "einsum":

            def attend(*qkv):
                return attention.attend(*qkv, softcap=softcap, implementation="einsum")[0]

        elif why := attention.obstacle(form, jnp.bfloat16, softcap):
            skipped[form] = why
            continue
        else:  # at any length, whatever `attention.LONG` says
            attend = functools.partial(attention.FUSED[form], softcap=softcap)

        def loss(*qkv, attend=attend):
            return attend(*qkv).astype(jnp.float32).sum()

        both = {
            f"{form}/forward": functools.partial(jax.jit(attend), *qkv),
            f"{form}/backward": functools.partial(jax.jit(jax.grad(loss, (0, 1, 2))), *qkv),
        }
        try:
            for step in both.values():
                jax.block_until_ready(step())
        except Exception as error:  # such as a kernel that refuses the shape
            skipped[form] = f"{type(error).__name__}: {first_line(error)}"[:200]
            continue
        steps |= both
    by_form: dict[str, dict[str, Any]] = {}
    for name, figures in in_turns(steps).items():
        form, _, part = name.partition("/")
        by_form.setdefault(form, {})[part] = figures
    flops = 4 * clips * heads * tokens**2 * width
    return {"by form": by_form, "skipped": skipped, "flops": flops}, None


def query_key_value(tokens: int, width: int) -> tuple[dict[str, Any], None]:
    """Milliseconds of the projections of queries, keys and values in bfloat16, forward and back:
    three products, as the models have them, and one whose kernels are joined in the program."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32), jnp.bfloat16)

    x, kernels = draw(tokens, width), [0.02 * draw(width, width) for _ in range(3)]

    def three(x, kernels):
        return [x @ kernel for kernel in kernels]

    def joined(x, kernels):
        return jnp.split(x @ jnp.concatenate(kernels, 1), 3, axis=1)

    def both(project):
        def loss(x, kernels):
            return sum(jnp.square(y).astype(jnp.float32).sum() for y in project(x, kernels))

        return functools.partial(jax.jit(jax.grad(loss, (0, 1))), x, kernels)

    return {"milliseconds": in_turns({"three": both(three), "joined": both(joined)})}, None


def host_to_device(case: str, quick: bool, batch: int, dtype: str) -> tuple[dict[str, Any], None]:
    """Measures how much copies of clips add to a train step.

    Returns:
        Milliseconds of steps on one batch that stays on the device, of steps that each get a batch
        of bytes as the train loop gives it, and of the copy alone.
    """
    step, state, clips, program = peers.train_step(peers.Job(case, quick, batch, dtype))
    mesh = program.setup.mesh
    resident = sharding.put_batch(clips, mesh)

    def train(batch_on_device):
        nonlocal state
        state, _ = step(state, batch_on_device)
        return state

    steps = {
        "step": lambda: train(resident),
        "step with its copy": lambda: train(sharding.put_batch(clips, mesh)),
        "copy": lambda: sharding.put_batch(clips, mesh),
    }
    return {"milliseconds": in_turns(steps), "bytes": clips["video"].nbytes}, None


def kernels(
    case: str, quick: bool, batch: int, dtype: str, steps: int = 3
) -> tuple[dict[str, Any], None]:
    """Milliseconds that kernels take of a train step, the longest first, from JAX's profiler."""
    step, state, clips, _ = peers.train_step(peers.Job(case, quick, batch, dtype))
    clips = jax.device_put(clips)
    state, _ = step(state, clips)
    jax.block_until_ready(state)
    totals: dict[str, float] = {}
    with harness.scratch() as folder:
        with jax.profiler.trace(str(folder)):
            for _ in range(steps):
                state, _ = step(state, clips)
            jax.block_until_ready(state)
        (path,) = folder.rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                # A GPU's streams; the threads of a CPU.
                if "Stream" in line.name or line.name.startswith("tf_XLA"):
                    for event in line.events:
                        name = event.name
                        totals[name] = totals.get(name, 0.0) + event.duration_ns / 1e6 / steps
    longest = sorted(totals.items(), key=lambda item: -item[1])
    return {"milliseconds": dict(longest[:40]), "all": sum(totals.values())}, None
