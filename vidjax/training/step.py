"""The train step: losses and gradients of a batch, and the update of the state."""

import functools
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from vidjax import sharding
from vidjax.params import join_params, split_params


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step, and all that a checkpoint holds.

    Attributes:
        step: int32 [], steps done.
        params: the model's parameters, nested.
        opt_state: the optimizer's, of the trained parameters only.
        ema_params: moving average of params; empty without config.ema_decay.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any


def make_train_step(
    objective,
    optimizer,
    *,
    freeze=(),
    seed: int = 0,
    ema_decay: float = 0.0,
    grad_accum: int = 1,
    clip_parts: int = 1,
    clip_norm: float = 0.0,
    skip_nonfinite: bool = False,
    shardings: TrainState | None = None,
):
    """Returns train_step(state, batch) -> (state, metrics), jitted, consuming `state`.

    Metrics are the objective's, "loss", "grad_norm", and "finite": whether these two are. With
    clip_parts > 1 "grad_norm" is the mean norm of the shards' gradients before they are clipped.

    Args:
        objective: see vidjax.objectives.
        optimizer: an optax transformation for the trained parameters.
        freeze: regexes of whole parameter paths that are not trained.
        seed: with the step, the source of all randomness.
        ema_decay: of the parameters' moving average; 0 for none.
        grad_accum: slices that the batch (or each of the clip_parts) is cut into, one after the
            other, and whose gradients are averaged.
        clip_parts: equal, contiguous shards of the batch whose gradients are clipped to the norm
            `clip_norm` each and then averaged, as a pmap over as many devices does that clips
            before the mean. 1 leaves the clipping to `optimizer`. Shards are computed side by side
            as far as the mesh has devices (`sharding.clip_axes`), else one after the other.
        clip_norm: see clip_parts; 0 does not clip.
        skip_nonfinite: a step that is not finite changes nothing but the number of steps.
        shardings: of the state; None leaves them to jit.
    """

    def gradients(trained, frozen, ema_params, batch, rng):
        def loss_fn(trained):
            params = join_params(trained, frozen)
            return objective.loss(params, batch, rng=rng, ema_params=ema_params)

        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained)
        return {"loss": loss, **metrics}, grads

    def summed(compute, slices):
        """The sum of compute(*slice) over the first axis of the arrays, one slice at a time."""
        shapes = jax.eval_shape(compute, *jax.tree.map(lambda x: x[0], slices))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        add = lambda total, one: (jax.tree.map(jnp.add, total, compute(*one)), None)  # noqa: E731
        return jax.lax.scan(add, zeros, slices)[0]

    def accumulated(trained, frozen, ema_params, batch, rng):
        # Interleaved slices, so that every device keeps its own clips.
        slices = jax.tree.map(
            lambda x: x.reshape(-1, grad_accum, *x.shape[1:]).swapaxes(0, 1), batch
        )
        compute = functools.partial(gradients, trained, frozen, ema_params)
        total = summed(compute, (slices, jax.random.split(rng, grad_accum)))
        return jax.tree.map(lambda x: x / grad_accum, total)

    def with_norm(*args):
        metrics, grads = (accumulated if grad_accum > 1 else gradients)(*args)
        return metrics | {"grad_norm": optax.tree.norm(grads)}, grads

    def clipped(trained, frozen, ema_params, batch, rng):
        mesh = jax.sharding.get_abstract_mesh()
        clips = len(jax.tree.leaves(batch)[0])
        axes = sharding.clip_axes(clip_parts, clips, grad_accum, mesh)
        abreast = math.prod(mesh.shape[axis] for axis in axes)

        def in_turns(x):  # contiguous shards whatever the mesh: [turns, abreast, ...]
            return x.reshape(abreast, clip_parts // abreast, *x.shape[1:]).swapaxes(0, 1)

        shards = jax.tree.map(lambda x: x.reshape(clip_parts, -1, *x.shape[1:]), batch)
        turns = jax.tree.map(in_turns, (shards, jax.random.split(rng, clip_parts)))
        clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()

        def shard(batch, rng):
            metrics, grads = with_norm(trained, frozen, ema_params, batch, rng)
            return metrics, clip.update(grads, clip.init(grads))[0]

        def turn(*shards):
            if not axes:
                return shard(*jax.tree.map(lambda x: x[0], shards))
            with nn.logical_axis_rules(sharding.without(axes, nn.get_logical_axis_rules())):
                out = jax.vmap(shard, spmd_axis_name=axes)(*shards)
            return jax.tree.map(lambda x: x.sum(0), out)

        return jax.tree.map(lambda x: x / clip_parts, summed(turn, turns))

    def train_step(state, batch):
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        trained, frozen = split_params(state.params, freeze)
        compute = clipped if clip_parts > 1 else with_norm
        metrics, grads = compute(trained, frozen, state.ema_params, batch, rng)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = join_params(optax.apply_updates(trained, updates), frozen)
        ema_params = state.ema_params
        if ema_decay:
            ema_params = optax.incremental_update(params, ema_params, 1.0 - ema_decay)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        new = TrainState(state.step, params, opt_state, ema_params)
        if skip_nonfinite:
            new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        return new.replace(step=state.step + 1), metrics | {"finite": finite}

    out_shardings = None if shardings is None else (shardings, None)
    return jax.jit(train_step, donate_argnums=0, out_shardings=out_shardings)
