"""Picture of what a masked autoencoder sees and predicts."""

import dataclasses
import functools
from typing import ClassVar

import jax
import numpy as np

from vidjax.evaluators import Evaluation, Evaluator, gather


@dataclasses.dataclass(frozen=True)
class Reconstruction(Evaluator):
    """Draws the videos of predict["reconstruction"] as one picture, "reconstruction".

    Attributes:
        split: which list; its first readable videos are shown.
        clips: how many.
        columns: how many frames of each, evenly spaced.
        scale: pixels of the picture per pixel of the video; 0 makes frames about 112 wide.
    """

    needs: ClassVar[tuple[str, ...]] = ("reconstruction",)
    clips: int = 2
    columns: int = 8
    scale: int = 0

    @functools.cached_property
    def _pictures(self):
        return jax.jit(self.context.predict["reconstruction"])

    def run(self, params) -> Evaluation:
        for batch in self.context.batches(self.split, (1, 1)):
            weight = gather({"weight": batch["weight"]})["weight"]
            if not weight.any():
                continue  # nothing in it could be read
            rows = gather(self._pictures(params, batch))
            if jax.process_index() > 0:
                break
            rows = {name: videos[weight > 0] for name, videos in rows.items()}
            image = figure(rows, self.clips, self.columns, self.scale)
            return Evaluation({}, {"reconstruction": np.asarray(image)})
        return Evaluation({})


def figure(rows: dict[str, np.ndarray], clips: int, columns: int, scale: int = 0):
    """A labelled PIL image of videos [B, T, H, W, 3] in [0, 1], one row per name and clip."""
    from PIL import Image, ImageDraw

    some = next(iter(rows.values()))
    times = np.unique(np.linspace(0, some.shape[1] - 1, columns).round().astype(int))
    height, width = some.shape[2:4]
    scale = scale or max(1, round(112 / width))
    caption, gap = 14, 4
    step_y, step_x = height * scale + caption, width * scale + gap
    clips = min(clips, some.shape[0])
    size = (len(times) * step_x + gap, clips * (len(rows) * step_y + gap) + gap)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    y = gap
    for clip in range(clips):
        for name, videos in rows.items():
            draw.text((gap, y), name, fill="black")
            for column, t in enumerate(times):
                frame = Image.fromarray((videos[clip, t] * 255).round().astype(np.uint8))
                frame = frame.resize((width * scale, height * scale), Image.Resampling.NEAREST)
                canvas.paste(frame, (gap + column * step_x, y + caption))
            y += step_y
        y += gap
    return canvas


EVALUATOR = Reconstruction
