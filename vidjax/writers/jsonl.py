"""The run's own record: metrics.jsonl, and pictures as PNG files."""

import io
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from vidjax.journal import Journal
from vidjax.writers import Start, Writer


class Jsonl(Writer):
    """Appends a JSON line per call to metrics.jsonl, and writes pictures as <name>_<step>.png.

    A resumed run drops the lines of steps that it will repeat.

    Attributes:
        known: names of the metrics already logged at the start step.
    """

    is_copy: ClassVar[bool] = False

    def __init__(self, start: Start):
        self._workdir = start.workdir
        self._journal = Journal(start.workdir / "metrics.jsonl")
        self.place = str(self._journal.path)
        kept = [entry for entry in self._journal.read(step=int) if entry["step"] <= start.step]
        self.known = {key for entry in kept if entry["step"] == start.step for key in entry}
        self._journal.rewrite(kept)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        # JSON has no NaN; null keeps the line readable by every parser.
        safe = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._journal.add({"step": step, **safe})

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        from PIL import Image

        for name, image in images.items():
            content = io.BytesIO()
            Image.fromarray(image).save(content, "png")
            path = self._workdir / f"{name.replace('/', '_')}_{step}.png"
            path.write_bytes(content.getvalue())  # it may be in a bucket


WRITER = Jsonl
