"""Initial values of kernels and biases, by the names that models give them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer = Callable[..., jax.Array]

# A kernel initializer for Linear layers and one for the query, key and value projections.
# VideoMAE's pre-training code draws xavier-uniform values for its fused (3D, D) projection, whose
# limit sqrt(6 / 4D) is narrower than that of three (D, D) ones, as Scenic has them; VideoMAE's
# fine-tuning code draws N(0, 0.02) throughout (its truncation at ±100 sigma never binds).
INITS: dict[str, tuple[Initializer, Initializer]] = {
    "xavier_uniform": (nn.initializers.xavier_uniform(), nn.initializers.xavier_uniform()),
    "xavier_uniform_fused": (
        nn.initializers.xavier_uniform(),
        nn.initializers.variance_scaling(0.5, "fan_avg", "uniform"),
    ),
    "normal": (nn.initializers.normal(0.02), nn.initializers.normal(0.02)),
    # PyTorch's own: uniform within ±1/sqrt(fan_in), and in MultiheadAttention the fused one. X-CLIP
    # draws its new layers over frames from the latter and N(0, 0.02).
    "torch": (
        nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        nn.initializers.variance_scaling(0.5, "fan_avg", "uniform"),
    ),
    "normal_fused": (
        nn.initializers.normal(0.02),
        nn.initializers.variance_scaling(0.5, "fan_avg", "uniform"),
    ),
    "lecun_normal": (nn.initializers.lecun_normal(), nn.initializers.lecun_normal()),
}


def torch_uniform(fan_in: int) -> Initializer:
    """PyTorch's default for convolutions and Linear layers: uniform within ±1/sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / fan_in**0.5

    return init
