"""Classification by text: a video belongs to the class whose name in a sentence is most similar."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from vidjax.errors import UserError
from vidjax.evaluators.classification import Classification


@dataclasses.dataclass(frozen=True)
class ZeroShot(Classification):
    """Classification whose scores are similarities of the video and the classes' texts.

    A class is the mean of its unit embeddings in all templates (Radford et al. 2021,
    arXiv:2103.00020, section 3.1.4), of their mean length, which is 1 but for X-CLIP, whose texts
    see the video at the length they have. Names are those of Context.classes.

    Attributes:
        average: over views; by default of the similarities, "softmax" of their probabilities.
        templates: sentences with {} in the place of the name. The default is VideoPrism's.
    """

    needs: ClassVar[tuple[str, ...]] = ("similarity", "text_embedding")
    any_classes: ClassVar[bool] = True
    average: str = "logits"
    templates: tuple[str, ...] = ("a video of {}.",)

    def __post_init__(self):
        super().__post_init__()
        templates = self.templates
        if isinstance(templates, str) or not templates or any("{}" not in t for t in templates):
            raise UserError(
                f"templates must be a tuple of sentences with {{}} in the place of the class's "
                f"name, such as ('a video of {{}}.',), not {templates!r}"
            )
        if not self.names:
            raise UserError(
                "zero_shot needs the names of the classes: set config.data.classes to a text file "
                "with one name a line, or put it as classes.txt beside the list"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Class names."""
        return self.context.classes(self.split) or ()

    @property
    def sizes(self) -> list[int]:
        return [len(self.names)]

    def scorer(self, params) -> Callable:
        classes = self.class_embeddings(params)
        return lambda batch: self._scores(params, batch, classes)

    def class_embeddings(self, params) -> np.ndarray:
        """Embeddings of the classes' texts, float32 [C, D]."""
        texts = [t.replace("{}", name) for t in self.templates for name in self.names]
        embeddings = self.context.embed_texts(params, texts)
        if len(self.templates) == 1:
            return embeddings
        embeddings = embeddings.reshape(len(self.templates), len(self.names), -1)
        length = np.linalg.norm(embeddings, axis=2, keepdims=True)
        mean = (embeddings / length).mean(0)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True) * length.mean(0)


EVALUATOR = ZeroShot
