"""A folder with one folder of videos for each class, however deep: class/video.mp4.

Labels are the sorted order of the class folders' names.
"""

import os

from vidjax.data.lists.names import SPLITS
from vidjax.data.lists.source import Listing, Row, Source
from vidjax.data.reading import video_files
from vidjax.errors import UserError, some


def recognises(source: Source) -> bool:
    return source.is_folder


def read(source: Source) -> Listing:
    path = source.path
    inside = {
        entry.name: video_files.below(entry.path)
        for entry in os.scandir(path)
        if entry.is_dir() and not video_files.is_system(entry.name)
    }
    # A class folder of pictures is not a video itself: its class would have no name.
    videos = {name: inner for name, (inner, _) in inside.items() if inner not in ([], [""])}
    classes = sorted(videos)
    names = filter(video_files.is_video, sorted(os.listdir(path)))
    loose = [name for name in names if not video_files.is_system(name)]
    if not videos:
        frames = [name for name, (inner, _) in inside.items() if inner == [""]]
        raise _no_videos(path, loose, frames)
    splits = {name for names in SPLITS for name in names}
    if all(name.lower() in splits for name in classes):
        raise UserError(
            f"{path} holds folders of splits ({', '.join(classes)}), not of classes; give one of "
            f"them, such as {os.path.join(path, classes[0])}"
        )
    paths = [(name, os.path.join(name, video)) for name in classes for video in videos[name]]
    rows = [Row(file, file, name) for name, file in paths]
    others = [os.path.join(name, o) for name, (_, rest) in sorted(inside.items()) for o in rest]
    empty = sorted(inside.keys() - videos.keys())
    omitted = []
    if loose:
        omitted.append(f"{len(loose)} videos without a class folder, such as {loose[0]}")
    if others:
        omitted.append(f"{len(others)} files that are no videos, such as {others[0]}")
    if empty:
        omitted.append(f"folders without videos: {some(empty, 3, ', ')}")
    notices = [f"{path}: left out are {'; '.join(omitted)}"] if omitted else []
    if len(classes) == 1 and all(os.path.dirname(video) for video in videos[classes[0]]):
        only = os.path.join(path, classes[0])
        notices.append(f"{path}: its only class is {classes[0]}; give {only} if its folders are")
    return Listing(rows, tuple(classes), notices)


def _no_videos(path: str, loose: list[str], frames: list[str]) -> UserError:
    """Returns the error of a folder without class folders, which holds something else."""
    but = f", but folders of frames, such as {frames[0]}" if frames else ""
    if loose:
        but = f", but {len(loose)} videos directly in it, such as {loose[0]}"
    return UserError(
        f"folder {path} holds no videos in class folders (class/video.mp4) and no HMDB51 split "
        f"files{but}; give a list file, or move videos into a folder for each class"
    )
