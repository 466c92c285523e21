"""Digests of a list of videos, by which a change is noticed and found."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from vidjax.data.datasets import Video


def digests_of(videos: Sequence[Video]) -> dict[str, Any]:
    """Returns the length of a list, and digests of all of it, in any order, and of its blocks.

    Paths count from the folder that all videos share, so that this may be moved.
    """
    paths = [video.path for video in videos]
    # commonpath knows no URLs.
    shared = os.path.commonprefix([min(paths), max(paths)]).rpartition("/")[0]  # noqa: RUF071
    lines = [
        json.dumps([video.path[len(shared) :], video.label, video.captions]) for video in videos
    ]
    block = max(1, -(-len(lines) // 100))
    return {
        "videos": len(lines),
        "digest": _sha256(lines),
        "unordered": _sha256(sorted(lines)),
        "block": block,
        "blocks": [_sha256(lines[i : i + block])[:8] for i in range(0, len(lines), block)],
    }


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
