"""A classifier on an encoder of any family: what its features are worth, or what it can learn.

Reference: VideoGLUE (Yuan et al. 2023, arXiv:2307.03166) for the attentive probe, which VideoPrism
is evaluated with. With config.optim.freeze = "backbone/.*" the encoder has neither backward pass
nor optimizer state; without, all of it is fine-tuned.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax import linen as nn

from vidjax import models
from vidjax.errors import UserError, some
from vidjax.json_files import Rate, Size
from vidjax.models.layers import Array, AttentionPool, LayerNorm, Linear, Speed, is_training
from vidjax.models.layers.heads import Classes, Model

VARIANTS: dict[str, dict[str, Any]] = {}  # its size is the encoder's
_EPS = 1e-6


class Probe(Model):
    """An encoder, a pooler or a norm, a linear head.

    Attributes:
        backbone: bare encoder of any family.
        pooler: of its tokens, or None.
        norm: of its `embed` where there is no pooler.
        classes: see `Classes`.
        head_dropout: rate of dropout before the head.
    """

    backbone: Model
    pooler: AttentionPool | None
    norm: LayerNorm | None
    classes: Classes
    head_dropout: float

    def setup(self) -> None:
        self.dropout = nn.Dropout(self.head_dropout)
        size, axes = (self.classes.num_classes,), ("embed", "classes")
        init = nn.initializers.normal(0.01)
        self.head = Linear(size, axes, kernel_init=init, dtype=self.dtype)

    @property
    def encoder(self) -> nn.Module:
        """Encoder of the backbone."""
        return self.backbone.encoder

    def embed(self, video: Array) -> Array:
        """Returns what the head sees of normalised video [B, T, H, W, 3]: [B, D]."""
        if self.pooler is not None:
            return self.pooler(self.backbone(video))
        return self.norm(self.backbone.embed(video))

    def __call__(self, video: Array) -> Array:
        """Returns class scores [B, C] of normalised video [B, T, H, W, 3]."""
        return self.head(self.dropout(self.embed(video), deterministic=not is_training(self)))


def classify(
    encoder: Mapping[str, Any],
    classes: Classes,
    pool: Literal["attention", "mean"] = "attention",
    num_heads: Size | None = None,
    head_dropout: Rate = 0.0,
    speed: Speed = Speed(),  # noqa: B008 - frozen
) -> Probe:
    """Makes a probe.

    Args:
        encoder: keywords of `vidjax.models.build` for the encoder, whose head is None.
        classes: see `Classes`.
        pool: "attention" lets a learned query attend to all tokens, then normalises; "mean"
            normalises what the encoder's `embed` gives, so that only a linear layer is learned.
        num_heads: of "attention", whose widths add up to the encoder's; None: as many as that has.
        head_dropout: dropout before the head in training.
        speed: of the encoder, too.
    """
    # Nothing of the encoder is dropped: it is frozen, or fine-tuned for a short time.
    still = {rate: 0.0 for rate in ("dropout", "drop_path") if rate in encoder}
    backbone = models.build(**{**encoder, **vars(speed), **still})
    sizes, dtype = backbone.config, speed.dtype
    pooler = norm = None
    if pool == "attention":
        heads = num_heads or sizes["num_heads"]
        pooler = AttentionPool(heads, sizes["width"], _EPS, dtype=dtype)
    else:
        norm = LayerNorm(_EPS, dtype)
    return Probe(backbone, pooler, norm, classes, head_dropout)


def adapt(
    params: dict[str, np.ndarray], source: Mapping[str, Any], target: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Puts the encoder of a checkpoint of any family below `backbone`; its head is left out.

    Arguments and results are those of `vidjax.models.adapt`.

    Raises:
        UserError: the checkpoint lacks parameters of the encoder, as models of images do.
    """
    if source["name"] == "probe":
        return params, []
    inside = models.param_names(target["encoder"])
    if lacking := sorted(inside - params.keys()):
        raise UserError(
            f"config.init (its head is {source['head']!r}) has no whole video encoder, as it lacks "
            f"{some(lacking, 2)}; start from a checkpoint that sees videos"
        )
    left = sorted({path.split("/")[0] for path in params.keys() - inside})
    notes = [f"left out, as a probe looks at the encoder only: {', '.join(left)}"] if left else []
    return {f"backbone/{k}": v for k, v in params.items() if k in inside}, notes


def start_from(fields: Mapping[str, Any], source: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns a probe's fields, with the encoder of the checkpoint that it starts from."""
    if source:
        if not hasattr(models.build(**source), "encoder"):
            raise UserError(
                f"config.init has no video encoder (its head is {source['head']!r}); start from a "
                f"checkpoint that sees videos"
            )
        inner = source["encoder"] if source["name"] == "probe" else models.encoder_of(source)
        return {**fields, "encoder": inner}
    if not fields.get("encoder"):
        raise UserError("a probe needs an encoder to look at: set config.init to a checkpoint")
    return dict(fields)


def stages(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the encoder's stages, see `models.stages`."""
    return tuple(f"backbone/{stage}" for stage in models.stages(fields["encoder"]))


HEADS = {"classify": classify}

NOTED = ("pool",)
KEEPS_INPUT = True
DEMO = {"head_dropout": 0.0}  # its encoder has sizes of its own
