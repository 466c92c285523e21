"""Few-shot lists: so many videos of every class."""

from dataclasses import replace

import numpy as np

from vidjax.data.datasets import VideoList
from vidjax.errors import UserError


def few_shot(videos: VideoList, shots: int, seed: int) -> VideoList:
    """Draws `shots` videos of every class, in the order of the list.

    Each class has an order of its own, which depends on `seed` and the class's videos only, and of
    which the first are taken: what is drawn for 2 shots is among that for 4.

    Raises:
        UserError: a class has fewer, a video has no label or several, or `shots` is not positive.
    """
    if shots < 1:
        raise UserError(f"the number of shots, videos of each class, must be positive, not {shots}")
    members: dict[int, list[int]] = {label: [] for label in range(len(videos.classes or ()))}
    for position, video in enumerate(videos):
        if video.label == -1 or isinstance(video.label, tuple):
            raise UserError(
                f"{video.path} has the label {video.label}, but {shots} videos of each class can "
                f"only be drawn where every video has one class"
            )
        members.setdefault(video.label, []).append(position)
    drawn = []
    for label, positions in members.items():
        if len(positions) < shots:
            name = repr(videos.classes[label]) if videos.classes else label
            raise UserError(
                f"class {name} has {len(positions)} videos, but {shots} of each class are to be "
                f"drawn; take fewer shots, or list more videos of it"
            )
        order = np.random.default_rng((seed, label)).permutation(len(positions))
        drawn += [positions[i] for i in order[:shots]]
    notice = (
        f"{len(drawn)} of {len(videos)} videos are used: {shots} of each of the {len(members)} "
        f"classes, drawn with seed {seed}"
    )
    return replace(
        videos,
        videos=tuple(videos[position] for position in sorted(drawn)),
        notices=(*videos.notices, notice),
    )
