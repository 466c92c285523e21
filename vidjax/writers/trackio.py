"""trackio: one run of a project, on this machine or in a Hugging Face Space.

TRACKIO_PROJECT names the project; TRACKIO_DIR, TRACKIO_SPACE_ID and others are trackio's own.
"""

import os
import uuid
from collections.abc import Mapping

import numpy as np
import trackio

from vidjax.writers import PROJECT, Start, Writer


class Trackio(Writer):
    """Logs to a trackio run, which a restart finds by its name: the workdir's and a few digits."""

    def __init__(self, start: Start):
        kept = start.service_id("trackio")
        name = kept or f"{start.name}-{uuid.uuid4().hex[:8]}"
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        how = "allow" if kept else "never"
        self._run = trackio.init(project, name, config=dict(start.config), resume=how)
        start.keep_id("trackio", name)
        # trackio has no public name for it.
        self.last_step = getattr(self._run, "_next_step", 0) - 1

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step)

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._run.log({name: trackio.Image(image) for name, image in images.items()}, step)

    def close(self) -> None:
        self._run.finish()


WRITER = Trackio
