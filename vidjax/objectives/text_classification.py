"""Classification by the names of the classes.

Reference: microsoft/VideoX X-CLIP/main.py. The scores of a clip are its similarities with the names
of all classes, and are trained as those of a classifier.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import numpy as np

from vidjax import models
from vidjax.errors import UserError
from vidjax.objectives.classification import Classification
from vidjax.objectives.contrastive import Contrastive

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class TextClassification(Classification):
    """Cross-entropy of a clip's similarities with the names of the classes.

    The text tower is applied in every step, whether it is frozen or not, so that nothing can be out
    of date when names change. By count of operations that is about 1% of a step of B/32 on 256
    videos of 8 frames with 400 classes, and as much again for every further part of grad_accum.

    Attributes:
        model: of video and text, such as X-CLIP with head "video_text".
        text, text_mask: token ids and mask [C, L] of the names, which the task fills in; without
            them it cannot be trained, but compares.
        temperature: what cosines are divided by if the model has no learned scale.
    """

    reads: ClassVar[str] = "classes"
    text: tuple[tuple[int, ...], ...] = ()
    text_mask: tuple[tuple[bool, ...], ...] = ()
    temperature: float = 0.07

    @classmethod
    def check(cls, config, *, training):
        super().check(config, training=training)
        if not models.reads_text(config.model.name, config.model.head):
            raise UserError(
                "objective text_classification compares videos with the names of their classes; it "
                "needs a model of both, such as config.model.head 'video_text'"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        return (len(self.text),)

    def init(self, rng, batch):
        video = self.normalised(batch["video"])
        return self.model.init(rng, video, np.zeros((1, 1), np.int32))["params"]

    def scores(self, params, video: Array, **options) -> Array:
        temperature = self.temperature if self.model.logit_scale is None else None
        similarity = self.model.apply(
            {"params": params}, video, *self._names(), temperature=temperature, **options
        )
        return similarity.astype("float32")

    @property
    def predict(self) -> Mapping[str, Callable]:
        comparing = Contrastive(self.model, self.preprocessing, temperature=self.temperature)
        return {**comparing.predict, **(super().predict if self.text else {})}

    def _names(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.text, np.int32), np.array(self.text_mask, bool)


OBJECTIVE = TextClassification
