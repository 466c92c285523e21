"""Facts of the public datasets, and what a list of videos is once it is read."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Video:
    """One line of a list: where the file is and what is known about it.

    label is -1 where the list has none, and a tuple, one for each of Dataset.groups, for a dataset
    that has several. num_frames and verdict come from a manifest written by
    `vidjax.data.check` (a file that has another number of frames by now is not used); a verdict of
    None means unchecked. captions are sentences that each describe the whole video.
    """

    path: str  # any locator of vidjax.data.reading.locators
    label: int | tuple[int, ...] = -1
    num_frames: int | None = None
    verdict: str | None = None
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoList(Sequence[Video]):
    """The videos of a list in its order, the class names where known, and what to tell the user.

    Of several groups of classes, the names of one group follow those of the other.
    """

    videos: tuple[Video, ...]
    classes: tuple[str, ...] | None = None
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index):
        return self.videos[index]


@dataclass(frozen=True)
class Dataset:
    """Facts of a dataset, whoever trains on it.

    flip is False where mirroring a video changes its class ("pushing something from left to
    right"). groups are names and sizes of several labels that each video has at once, in the order
    of a model's outputs; num_classes is then their sum, and 0 where videos have captions only, or
    own_classes: each list has other classes.
    """

    name: str
    num_classes: int
    flip: bool = True
    groups: tuple[tuple[str, int], ...] = ()
    own_classes: bool = False


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("k400", 400),
        Dataset("k600", 600),
        Dataset("k700", 700),
        Dataset("k710", 710),
        Dataset("ssv2", 174, flip=False),
        Dataset("ucf101", 101),
        Dataset("hmdb51", 51),
        Dataset("epic_kitchens", 397, groups=(("noun", 300), ("verb", 97))),
        Dataset("demo", 8, flip=False),
        Dataset("demo_pairs", 6, flip=False, groups=(("motion", 4), ("direction", 2))),
        Dataset("msrvtt", 0),
        Dataset("vatex", 0),
        Dataset("activitynet", 0),
        Dataset("demo_captions", 8, flip=False),
        Dataset("demo_unseen", 0, flip=False, own_classes=True),
    )
}
# Datasets whose videos have several labels, by name.
GROUPED = {dataset.name: dataset.groups for dataset in DATASETS.values() if dataset.groups}
