"""Classification of clips, from scratch or fine-tuned.

Reference: MCG-NJU/VideoMAE engine_for_finetuning.py and its mixup.py.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from vidjax.data import augment

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy with soft targets.

    Attributes:
        model: a classifier, with a field num_classes.
        mean, std: normalisation of the model's inputs.
        label_smoothing: share of each target that is spread over all classes.
        mixup, cutmix: parameters of the Beta distributions that two clips are mixed by; with both
            above 0, one of the two is drawn for each batch. 0 is off.
        erase: probability that a box of a clip is replaced by noise.
    """

    model: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0

    def init(self, rng, batch):
        return self.model.init(rng, augment.normalise(batch["video"], self.mean, self.std))[
            "params"
        ]

    def loss(self, params, batch, *, rng, ema_params=None):
        erase_rng, mix_rng, dropout_rng = jax.random.split(rng, 3)
        video = augment.normalise(batch["video"], self.mean, self.std, self.model.dtype)
        if self.erase:
            video = augment.random_erasing(erase_rng, video, self.erase)
        video, targets = augment.mix(
            mix_rng,
            video,
            batch["label"],
            self.model.num_classes,
            mixup=self.mixup,
            cutmix=self.cutmix,
            smoothing=self.label_smoothing,
        )
        logits = self.model.apply(
            {"params": params}, video, train=True, rngs={"dropout": dropout_rng}
        ).astype(jnp.float32)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, {"accuracy": (logits.argmax(-1) == targets.argmax(-1)).mean()}

    @property
    def predict(self) -> Mapping[str, Callable]:
        return {"logits": self.logits, "loss": self.clip_losses}

    def logits(self, params, batch) -> Array:
        """Class scores [B, C], float32."""
        video = augment.normalise(batch["video"], self.mean, self.std, self.model.dtype)
        return self.model.apply({"params": params}, video).astype(jnp.float32)

    def clip_losses(self, params, batch) -> dict[str, Array]:
        """Cross-entropy [B] of each clip, without smoothing."""
        logits = self.logits(params, batch)
        return {"loss": optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])}


OBJECTIVE = Classification
