"""A classifier on a frozen encoder of any family: what its features are worth.

Reference: VideoGLUE (Yuan et al. 2023, arXiv:2307.03166) for the attentive probe, which VideoPrism
is evaluated with. Set config.optim.freeze to "backbone/.*": then the encoder has neither backward
pass nor optimizer state.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from vidjax import models
from vidjax.errors import UserError
from vidjax.models.layers import Array, AttentionPool, LayerNorm, Linear

VARIANTS: dict[str, dict[str, Any]] = {}  # its size is the encoder's
POOLS = ("attention", "mean")


class Probe(nn.Module, kw_only=True):
    """An encoder, a pooler, a linear head.

    Attributes:
        encoder: keywords of `vidjax.models.build` for the encoder, whose head is None.
        num_classes: number of classes C.
        groups: names and sizes of several answers in one output, in its order; () is one answer.
        pool: "attention" lets a learned query attend to all tokens, then normalises; "mean"
            normalises what the encoder's `embed` gives, so that only a linear layer is learned.
        num_heads: of "attention", whose widths add up to the encoder's; None: as many as that has.
        head_dropout: dropout before the head in training.
        dtype, remat, unroll, attention: of the encoder, too.
    """

    encoder: Mapping[str, Any]
    num_classes: int
    groups: tuple[tuple[str, int], ...] = ()
    pool: str = "attention"
    num_heads: int | None = None
    head_dropout: float = 0.0
    dtype: str = "float32"
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool not in POOLS:
            raise UserError(
                f"model field pool is {self.pool!r}; a probe's is one of {', '.join(POOLS)}"
            )

    def setup(self) -> None:
        speed = {key: getattr(self, key) for key in ("dtype", "remat", "unroll", "attention")}
        self.backbone = models.build(**{**self.encoder, **speed})
        eps = 1e-6
        if self.pool == "attention":
            heads = self.num_heads or self.backbone.num_heads
            self.pooler = AttentionPool(heads, self.backbone.width, eps, dtype=self.dtype)
        else:
            self.norm = LayerNorm(eps, self.dtype)
        self.dropout = nn.Dropout(self.head_dropout)
        axes = ("embed", "classes")
        init = nn.initializers.normal(0.01)
        self.head = Linear((self.num_classes,), axes, kernel_init=init, dtype=self.dtype)

    def embed(self, video: Array, *, train: bool = False) -> Array:
        """What the head sees of normalised video [B, T, H, W, 3]: [B, D]."""
        if self.pool == "attention":
            return self.pooler(self.backbone(video))
        return self.norm(self.backbone.embed(video))

    def __call__(self, video: Array, *, train: bool = False) -> Array:
        """Class scores [B, C] of normalised video [B, T, H, W, 3]; the encoder never trains."""
        x = self.dropout(self.embed(video), deterministic=not train)
        return self.head(x)

    @nn.nowrap  # else the encoder made here would be taken for a submodule
    def example_inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the smallest inputs with which the parameters can be initialised."""
        return models.build(**self.encoder).example_inputs()


@functools.cache
def _encoder_params(encoder: Mapping[str, Any]) -> frozenset[str]:
    params = models.abstract_params(models.build(**encoder))
    return frozenset(traverse_util.flatten_dict(params, sep="/"))


def adapt(
    params: dict[str, np.ndarray], source: Mapping[str, Any], model: Probe
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Puts the encoder of a checkpoint of any family below `backbone`; its head is left out.

    Args:
        params: by "/"-joined name.
        source: fields of the model that they are of.
        model: the probe to start.

    Returns:
        Parameters, and what was done.
    """
    if source["name"] == "probe":
        return params, []
    inside = _encoder_params(model.encoder)
    left = sorted({path.split("/")[0] for path in params.keys() - inside})
    notes = [f"left out, as a probe looks at the encoder only: {', '.join(left)}"] if left else []
    return {f"backbone/{k}": v for k, v in params.items() if k in inside}, notes


def start_from(fields: Mapping[str, Any], source: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns a probe's fields, with the encoder of the checkpoint that it starts from."""
    if source:
        inner = source["encoder"] if source["name"] == "probe" else models.encoder_of(source)
        return {**fields, "encoder": inner}
    if not fields.get("encoder"):
        raise UserError("a probe needs an encoder to look at: set config.init to a checkpoint")
    return dict(fields)


HEADS = {"classify": Probe}

NOTED = ("pool",)
KEEPS_INPUT = True
DEMO = {"head_dropout": 0.0}  # its encoder has sizes of its own
