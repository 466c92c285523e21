"""Tells by its content that a file is no video, whatever its name promises.

FFmpeg believes names: it shows a .txt as a film of letters and a .jpg as one of one frame, and it
follows a playlist to other files.
"""

import os

from vidjax.errors import VideoError

# FFmpeg's names of the containers in which any frame can be found by its time.
SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")

_STILL_BRANDS = ("heic", "heix", "mif1", "avif")  # of pictures in MP4's container
_LISTS = ("hls", "dash", "concat", "sdp")  # demuxers of files that name other files
_CONTROL = {*range(9), *range(14, 27), *range(28, 32), 127}  # bytes that no text has
_HEAD = 512


def is_text(path: str | os.PathLike) -> bool:
    """Returns whether a local file is text, such as a list of videos."""
    return _is_text(_head(path))


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        return True
    return not _CONTROL.intersection(head) and not head.startswith(b"YUV4MPEG2")


def require_video(path: str) -> None:
    """Looks at the first bytes of a local file, before FFmpeg does.

    Raises:
        VideoError: it is empty, or text: a Git LFS pointer, a web page, a playlist.
    """
    head = _head(path)
    if not _is_text(head):
        return
    text = head.decode(errors="replace").lstrip("\ufeff \t\r\n").lower()
    if not text:
        raise VideoError("empty file")
    if text.startswith("version https://git-lfs"):
        raise VideoError("it is a Git LFS pointer, not the video; run `git lfs pull`")
    pages = {"<html": "HTML", "<!doctype": "HTML", "<?xml": "XML", "{": "JSON", "[": "JSON"}
    for start, kind in pages.items():
        if text.startswith(start):
            raise VideoError(
                f"it is {kind}, as servers send in place of a video that they do not give; "
                f"download it again"
            )
    if text.startswith("#extm3u"):
        raise VideoError("it is a playlist, not a video; give the videos that it names")
    raise VideoError("it is text, not a video")


def require_moving(container: str, brand: str = "") -> None:
    """Refuses what FFmpeg opens as a video though it is none.

    Args:
        container: FFmpeg's name of the format.
        brand: the major brand of an MP4.

    Raises:
        VideoError: it is a still picture, a text, or a list of other files.
    """
    is_picture = container.startswith(("image2", "ico")) or container.endswith("_pipe")
    if is_picture or brand in _STILL_BRANDS:
        raise VideoError("it is a still picture, not a video")
    if container == "tty":
        raise VideoError("it is text, not a video")
    if container.partition(",")[0] in _LISTS:
        raise VideoError("it is a playlist, not a video; give the videos that it names")


def _head(path: str | os.PathLike) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise VideoError(f"cannot be opened: {error.strerror}") from None
