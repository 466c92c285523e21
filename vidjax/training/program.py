"""A run's programs: rates, optimizer, shapes of the state and train step, made once.

Training, estimates, the launcher's checks and benchmarks all prepare a run here.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vidjax import sharding
from vidjax.params import flatten, path_of, split_params
from vidjax.setup import Setup
from vidjax.training import optim
from vidjax.training.step import TrainState, make_train_step


class Program:
    """The train step of a config, and the state that it consumes.

    Args:
        setup: model, objective, mesh and data of the config.
        schedule: rates of the optimizer; None for those of the config over the steps of the run,
            whose number depends on the training list.

    Attributes:
        setup: as given.
        schedule: step -> learning rate.
        optimizer: of the trained parameters.
        state: shapes, dtypes and shardings of the state, as a TrainState.
        train_step: see `make_train_step`; to be called inside `setup.on_mesh()`.

    Raises:
        UserError: rates, durations or patterns of config.optim that do not fit.
    """

    def __init__(self, setup: Setup, schedule: optim.Schedule | None = None):
        config = setup.config
        self.setup = setup
        self.schedule = schedule or optim.make_schedule(
            config.optim,
            batch_size=config.data.batch_size,
            total=setup.total_steps,
            warmup=optim.warmup_steps(config.optim, setup.steps_per_epoch),
        )
        self.optimizer = setup.optimizer(self.schedule)
        with setup.on_mesh():
            self.state = self._abstract_state()
        self.train_step = make_train_step(
            setup.objective,
            self.optimizer,
            freeze=config.optim.freeze,
            seed=config.seed,
            ema_decay=config.ema_decay,
            grad_accum=config.grad_accum,
            clip_parts=config.optim.clip_parts,
            clip_norm=config.optim.clip_norm,
            skip_nonfinite=config.nonfinite == "skip",
            shardings=self.shardings,
        )

    @property
    def shardings(self) -> TrainState:
        """Sharding of every array of the state."""
        return jax.tree.map(lambda x: x.sharding, self.state)

    def init(self, rng: jax.Array) -> TrainState:
        """Returns a fresh state at step 0; traceable."""
        example = self.setup.example_batch(1)
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
        return self._start(self.setup.objective.init(rng, example))

    @property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of a batch of the config."""
        setup = self.setup
        place = jax.NamedSharding(setup.mesh, sharding.BATCH)
        return {
            key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
            for key, x in setup.example_batch(setup.clips_per_step).items()
        }

    def compile_step(self) -> jax.stages.Compiled:
        """Returns the train step, compiled for such a batch."""
        with self.setup.on_mesh():
            return self.train_step.lower(self.state, self.batch).compile()

    def _start(self, boxed: Any) -> TrainState:
        config, params = self.setup.config, nn.meta.unbox(boxed)
        trained, _ = split_params(params, config.optim.freeze)
        ema_params = jax.tree.map(jnp.copy, params) if config.ema_decay else {}
        return TrainState(jnp.int32(0), params, self.optimizer.init(trained), ema_params)

    def _abstract_state(self) -> TrainState:
        setup = self.setup
        boxed = setup.abstract_params  # kept there, as tracing the model takes long
        optim.check_patterns(setup.config.optim, jax.eval_shape(nn.meta.unbox, boxed))
        by_path = flatten(setup.param_shardings())
        abstract = jax.eval_shape(self._start, boxed)
        shapes = {path: x.shape for path, x in flatten(abstract.params).items()}

        def with_sharding(path, leaf):
            # Moments and averages lie as their parameter does, whose path theirs ends in; but for
            # those of rows and columns, which are small.
            names = path_of(path).split("/")
            tails = ("/".join(names[i:]) for i in range(len(names)))
            of_param = next((by_path[t] for t in tails if shapes.get(t) == leaf.shape), None)
            return jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=of_param or sharding.replicated(setup.mesh)
            )

        return jax.tree_util.tree_map_with_path(with_sharding, abstract)
