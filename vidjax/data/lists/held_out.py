"""Validation videos held out of a training list."""

import hashlib
from dataclasses import replace

from vidjax.data.datasets import VideoList
from vidjax.data.lists.digests import relative_paths
from vidjax.errors import UserError, some


def hold_out(videos: VideoList, share: float, seed: int) -> tuple[VideoList, VideoList]:
    """Splits a list into videos to train on and videos to validate on, class by class.

    Of the n videos of a class round(share * n) are held out, but at least one where there are two,
    and never all of them. Each class has an order of its own, by digests of `seed` and the paths
    from the folder that all videos share; the first are held out. So neither the order of the list
    nor the place of that folder matters. Entries of one path stay together.

    Args:
        videos: list with or without labels; without, all videos are one class.
        share: from 0 to 1.
        seed: of the draw.

    Raises:
        UserError: no class has two videos.
    """
    names = dict(zip((video.path for video in videos), relative_paths(videos), strict=True))
    members: dict[int | tuple[int, ...], set[str]] = {}
    for video in videos:
        members.setdefault(video.label, set()).add(video.path)

    def digest(path: str) -> bytes:
        return hashlib.sha256(f"{seed} {names[path]}".encode()).digest()

    held, single = set(), []
    for label, paths in members.items():
        count = min(max(1, round(share * len(paths))), len(paths) - 1)
        held.update(sorted(paths, key=digest)[:count])
        if not count:
            single.append(_name(videos, label))
    if not held:
        raise UserError(
            f"no class has two videos (videos: {len(names)}, classes: {len(members)}), so none can "
            f"be held out for validation; add videos, or name others as config.data.val"
        )
    notices = [
        f"{len(held)} of {len(names)} videos are held out for validation: a share of {share:g} of "
        f"each class, drawn with seed {seed}"
    ]
    if single:
        notices.append(f"classes of one video are trained on but not validated: {some(single)}")

    def selected(keep: bool, notices: tuple[str, ...]) -> VideoList:
        kept = tuple(video for video in videos if (video.path in held) == keep)
        return replace(videos, videos=kept, notices=notices)

    return selected(False, (*videos.notices, *notices)), selected(True, ())


def _name(videos: VideoList, label: int | tuple[int, ...]) -> str:
    is_index = videos.classes and isinstance(label, int)
    return repr(videos.classes[label]) if is_index else str(label)
