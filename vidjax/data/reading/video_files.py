"""Video files on a disk: what counts as one, and which are below a folder."""

import os
import re

from vidjax.data.reading import frame_folders

# Sorted by preference, for folders that hold several files of one stem.
EXTENSIONS = tuple(
    re.findall(
        r"\S+",
        ".mp4 .webm .mkv .avi .mov .m4v .mpg .mpeg .ts .m2ts .mts .m2t .wmv .asf .flv .f4v .3gp "
        ".3gpp .3g2 .ogv .ogm .ogg .vob .mpe .mpv .m1v .m2v .m2p .mp4v .mpeg4 .qt .divx .xvid .mxf "
        ".dv .mjpeg .mjpg .mk3d .mod .tod .trp .tp .vro .rm .rmvb .amv .nut .nsv .wtv .ivf .h264 "
        ".264 .h265 .265 .hevc .y4m .gif",
    )
)
_RECORD = re.compile(r"\.array_record#\d+$")
_RANKS = {extension: rank for rank, extension in enumerate(EXTENSIONS)}
_SYSTEM = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__pycache__"}
_SYSTEM |= {"System Volume Information", "Thumbs.db", "desktop.ini"}


def is_video(name: str) -> bool:
    """Returns whether a name has the extension of a video, or is a record of a shard."""
    return name.lower().endswith(EXTENSIONS) or _RECORD.search(name) is not None


def rank(name: str) -> int:
    """Returns the place of a name's extension among EXTENSIONS; -1 for others."""
    return _RANKS.get(os.path.splitext(name)[1].lower(), -1)


def count_frames(folder: str) -> int:
    """Returns how many numbered pictures a local folder holds (see frame_folders.py)."""
    try:
        return sum(map(frame_folders.is_frame, os.listdir(folder)))
    except OSError:
        return 0


def below(folder: str) -> tuple[list[str], list[str]]:
    """Lists the videos below a local folder, however deep, and the files that are none.

    A folder of numbered pictures without videos or folders beside them is a video, too; `folder`
    itself is then "". Files and folders of operating systems count as neither.

    Returns:
        (videos, other files), sorted paths relative to the folder.
    """
    videos, others, frames, deeper = [], [], [], False
    for entry in os.scandir(folder):
        if is_system(entry.name):
            continue
        if entry.is_dir():
            if entry.is_symlink() and _is_inside(folder, entry.path):
                continue  # it would never end
            deeper = True
            inside = below(entry.path)
            videos += [os.path.join(entry.name, name).rstrip("/") for name in inside[0]]
            others += [os.path.join(entry.name, name) for name in inside[1]]
        elif rank(entry.name) >= 0:
            videos.append(entry.name)
        elif frame_folders.is_frame(entry.name):
            frames.append(entry.name)
        else:
            others.append(entry.name)
    if frames and not deeper and not videos:
        return [""], sorted(others)
    return sorted(videos), sorted(others + frames)


def is_system(name: str) -> bool:
    """Returns whether a name is an operating system's or hidden, such as ._1.mp4 or @eaDir."""
    return name.startswith(".") or name in _SYSTEM


def _is_inside(folder: str, other: str) -> bool:
    return (os.path.realpath(folder) + "/").startswith(os.path.realpath(other) + "/")
