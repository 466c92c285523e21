"""Classification of clips, from scratch or fine-tuned.

Reference: MCG-NJU/VideoMAE engine_for_finetuning.py and its mixup.py; of several answers and
colours, google-research/scenic projects/vivit/model.py and dataset_lib/video_ops.py.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidjax import augment
from vidjax.errors import UserError
from vidjax.json_files import Fraction, NotNegative
from vidjax.objectives import Objective

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy with soft targets; of several answers (model.groups) the mean over them.

    Attributes:
        model: a classifier, with the fields num_classes and groups.
        label_smoothing: share of each target that is spread over all classes.
        mixup, cutmix: parameters of the Beta distributions that two clips are mixed by; with both
            above 0, one of the two is drawn for each group of clips. 0 is off.
        mix_group, mix_partners: clips in such a group, and who is mixed with whom: see augment.mix.
        erase: probability that a box of a clip is replaced by noise.
        color_jitter: probability that the colours of a clip are changed.
        grey: probability that a clip loses its colours.
        jitter_frames: whether each frame's colours change otherwise (X-CLIP), or a clip's alike
            (ViViT).
    """

    learns_classes: ClassVar[bool] = True
    from_data: ClassVar[tuple[str, ...]] = ("mix_group", "mix_partners")
    demo: ClassVar[Mapping[str, Any]] = {
        "mixup": 0.0,
        "cutmix": 0.0,
        "erase": 0.0,
        "color_jitter": 0.0,
        "grey": 0.0,
    }
    label_smoothing: Fraction = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    mix_group: int = 0
    mix_partners: str = "reversed"
    erase: Fraction = 0.0
    color_jitter: Fraction = 0.0
    grey: Fraction = 0.0
    jitter_frames: bool = False

    @classmethod
    def check(cls, config, *, training):
        super().check(config, training=training)
        data, objective = config.data, config.objective
        if data.mix_partners not in augment.PARTNERS:
            raise UserError(
                f"config.data.mix_partners must be {' or '.join(augment.PARTNERS)}, not "
                f"{data.mix_partners!r}"
            )
        clips = data.batch_size * data.repeats // config.grad_accum // config.optim.clip_parts
        mixes = objective.get("mixup") or objective.get("cutmix")
        if training and mixes and clips % max(1, data.mix_group):
            raise UserError(
                f"config.data.mix_group = {data.mix_group} must divide the {clips} clips that one "
                f"gradient is of (config.data.batch_size x config.data.repeats / "
                f"config.grad_accum / config.optim.clip_parts); 0 mixes all of them"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of classes of each answer."""
        classes = self.model.classes
        return tuple(size for _, size in classes.groups) or (classes.num_classes,)

    def init(self, rng, batch):
        return self.model.init(rng, self.normalised(batch["video"]))["params"]

    def loss(self, params, batch, *, rng, ema_params=None):
        color_rng, erase_rng, mix_rng, dropout_rng = jax.random.split(rng, 4)
        video = batch["video"]
        if self.color_jitter or self.grey:
            jitter = augment.frame_jitter if self.jitter_frames else augment.color_jitter
            video = jitter(color_rng, video, self.color_jitter, self.grey)
        video = self.normalised(video)
        if self.erase:
            video = augment.random_erasing(erase_rng, video, self.erase)
        targets = augment.soft_targets(batch["label"], self.sizes, self.label_smoothing)
        video, targets = augment.mix(
            mix_rng,
            video,
            targets,
            mixup=self.mixup,
            cutmix=self.cutmix,
            group=self.mix_group,
            partners=self.mix_partners,
        )
        logits = self.scores(params, video, rngs={"dropout": dropout_rng})
        losses, right = [], []
        for scores, target in zip(self.split(logits), self.split(targets), strict=True):
            losses.append(optax.softmax_cross_entropy(scores, target).mean())
            right.append(scores.argmax(-1) == target.argmax(-1))
        accuracy = jnp.stack(right).all(0).mean()
        return jnp.stack(losses).mean(), {"accuracy": accuracy}

    def split(self, scores: Array) -> list[Array]:
        """The scores [B, C] of each answer."""
        return jnp.split(scores, np.cumsum(self.sizes)[:-1], axis=-1)

    @property
    def predict(self) -> Mapping[str, Callable]:
        return {"logits": self.logits, "loss": self.clip_losses}

    def scores(self, params, video: Array, **options) -> Array:
        """Returns the model's scores of normalised video [B, T, H, W, 3]: [B, C], float32."""
        return self.model.apply({"params": params}, video, **options).astype(jnp.float32)

    def logits(self, params, batch) -> Array:
        """Class scores [B, C], float32."""
        return self.scores(params, self.normalised(batch["video"]))

    def clip_losses(self, params, batch) -> dict[str, Array]:
        """Cross-entropy [B] of each clip, without smoothing."""
        targets = augment.soft_targets(batch["label"], self.sizes, 0.0)
        scores = self.split(self.logits(params, batch)), self.split(targets)
        losses = [optax.softmax_cross_entropy(*pair) for pair in zip(*scores, strict=True)]
        return {"loss": jnp.stack(losses).mean(0)}


OBJECTIVE = Classification
