"""VideoPrism's second stage: masked video modelling by global and local distillation.

Reference: Zhao et al. 2024 (arXiv:2402.13217), section 3.3. No code of it was released; what the
paper leaves open is said at `Distillation` and at the model (vidjax/models/videoprism.py).
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from vidjax import masking
from vidjax.errors import UserError
from vidjax.json_files import Rate
from vidjax.models.layers import grid_of
from vidjax.objectives import Objective

Array = jax.Array


def cosine_distance(x: Array, y: Array) -> Array:
    """1 - cos of the vectors [..., D] of both, [...], in float32."""
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    lengths = jnp.sqrt(jnp.square(x).sum(-1) * jnp.square(y).sum(-1) + 1e-12)
    return 1.0 - (x * y).sum(-1) / lengths


@dataclasses.dataclass(frozen=True)
class Distillation(Objective):
    """A student sees part of each clip and predicts what a frozen teacher makes of all of it.

    The loss is the mean cosine distance to the teacher's tokens, of all tokens whether seen or not,
    plus the cosine distance to its vector of the whole clip.

    Chosen here: hidden patches are blocks that stay in place for the whole clip (BEVT's masking
    with tubes of full length), so that the factorised student encodes K patches of every frame;
    the teacher's tokens are those after its last norm; losses are means over tokens and clips.

    Attributes:
        model: VideoPrism with head "distil"; config.optim.freeze must keep its teacher.
        mask_ratio: share of patches that the student does not see.
        shuffle: whether what the local decoder is given is shuffled: tokens must then tell
            where they are from.
        global_weight: weight of the distance to the clip's vector.
    """

    mask_ratio: Rate = 0.65
    shuffle: bool = True
    global_weight: float = 1.0

    @classmethod
    def check(cls, config, *, training):
        super().check(config, training=training)
        if training and not config.init:
            raise UserError(
                "distillation needs a teacher: set config.init to a VideoPrism that was trained "
                "before (a run of videoprism_stage1.py, or a converted one with head video or "
                "video_text)"
            )
        frozen = any(re.fullmatch(p, "teacher/encoder/norm") for p in config.optim.freeze)
        if training and not frozen:
            raise UserError("config.optim.freeze must keep the teacher: add 'teacher/.*' to it")

    def draw(self, rng: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Patches to be seen, and an order of all tokens, for a video [B, T, H, W, 3].

        Returns:
            keep [B, K] and order [B, N]: which of the kept tokens, in the order of the grid, or of
            the hidden ones that follow them, the decoder gets at each place. Any permutation; or
            without `shuffle` the one that puts each token where it is from.
        """
        batch, grid = shape[0], grid_of(shape, self.model.patch_size)
        mask_rng, order_rng = jax.random.split(rng)
        keep = masking.block_mask(mask_rng, batch, grid[1:], self.mask_ratio)
        tokens = grid[0] * grid[1] * grid[2]
        if not self.shuffle:
            kept = jnp.zeros((batch, grid[1] * grid[2]), bool)
            kept = kept.at[jnp.arange(batch)[:, None], keep].set(True)
            kept = jnp.tile(kept, (1, grid[0]))  # [B, N]
            return keep, jnp.argsort(jnp.argsort(~kept, axis=1, stable=True), axis=1)
        draw = jax.vmap(lambda key: jax.random.permutation(key, tokens))
        return keep, draw(jax.random.split(order_rng, batch))

    def init(self, rng, batch):
        video = self.normalised(batch["video"])
        return self.model.init(rng, video, *self.draw(rng, video.shape))["params"]

    def distances(self, params, batch, rng: Array) -> tuple[Array, Array]:
        """Mean distance [B] to the teacher's tokens, and distance [B] to its vector."""
        video = self.normalised(batch["video"])
        variables = {"params": params}
        tokens, vector = self.model.apply(variables, video, *self.draw(rng, video.shape))
        targets = self.model.apply(variables, video, method="targets")
        there_tokens, there_vector = jax.lax.stop_gradient(targets)
        local = cosine_distance(tokens, there_tokens).mean(1)
        return local, cosine_distance(vector, there_vector)

    def loss(self, params, batch, *, rng, ema_params=None):
        local, whole = (x.mean() for x in self.distances(params, batch, rng))
        return local + self.global_weight * whole, {"local": local, "global": whole}

    @property
    def predict(self) -> Mapping[str, Callable]:
        return {"loss": self.clip_losses}

    def clip_losses(self, params, batch) -> dict[str, Array]:
        """Loss [B] of each clip, and its parts, under fixed masks and orders."""
        local, whole = self.distances(params, batch, jax.random.key(0))
        return {"loss": local + self.global_weight * whole, "local": local, "global": whole}


OBJECTIVE = Distillation
