"""Digests of a list of videos, by which a change is noticed and found."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from vidjax.data.datasets import Video


def digests_of(videos: Sequence[Video]) -> dict[str, Any]:
    """Returns the length of a list, and digests of all of it, in any order, and of its blocks.

    Paths are those of `relative_paths`.
    """
    lines = [
        json.dumps([path, video.label, video.captions])
        for path, video in zip(relative_paths(videos), videos, strict=True)
    ]
    block = max(1, -(-len(lines) // 100))
    return {
        "videos": len(lines),
        "digest": _sha256(lines),
        "unordered": _sha256(sorted(lines)),
        "block": block,
        "blocks": [_sha256(lines[i : i + block])[:8] for i in range(0, len(lines), block)],
    }


def relative_paths(videos: Sequence[Video]) -> list[str]:
    """Returns paths from the folder that all videos share, so that this may be moved."""
    paths = [video.path for video in videos]
    # commonpath knows no URLs.
    shared = os.path.commonprefix([min(paths), max(paths)]).rpartition("/")[0]  # noqa: RUF071
    return [path[len(shared) :] for path in paths]


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Returns how a list differs from an older one by the digests of both; "" if it does not."""
    if old["digest"] == new["digest"]:
        return ""
    if old["videos"] != new["videos"]:
        return f"has {new['videos']} videos, not {old['videos']}"
    if old["unordered"] == new["unordered"]:
        return "has the same videos in another order"
    same = [a == b for a, b in zip(old["blocks"], new["blocks"], strict=True)]
    first = same.index(False) * old["block"] + 1
    last = min(first + old["block"] - 1, new["videos"])
    return (
        f"has other videos, labels or texts (the first difference is in entries {first} to {last})"
    )


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
