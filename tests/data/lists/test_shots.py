"""Few-shot lists."""

import pytest

from vidjax.data.datasets import Video, VideoList
from vidjax.data.lists import few_shot
from vidjax.errors import UserError


def labelled(labels, classes=None) -> VideoList:
    return VideoList(tuple(Video(f"{i}.mp4", label) for i, label in enumerate(labels)), classes)


def test_few_shot_draws_so_many_of_every_class():
    videos = labelled([2, 0, 1] * 8, ("a", "b", "c"))
    drawn = few_shot(videos, 3, seed=0)
    assert sorted(video.label for video in drawn) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    order = [int(video.path.removesuffix(".mp4")) for video in drawn]
    assert order == sorted(order) and all(videos[i] == v for i, v in zip(order, drawn, strict=True))
    assert drawn.classes == ("a", "b", "c")
    assert drawn.notices == (
        "9 of 24 videos are used: 3 of each of the 3 classes, drawn with seed 0",
    )
    assert few_shot(videos, 3, seed=0) == drawn
    others = {few_shot(videos, 3, seed).videos for seed in range(5)}
    assert len(others) == 5
    for seed in range(5):
        kept = [set(few_shot(videos, shots, seed)) for shots in (2, 4, 8)]
        assert kept[0] < kept[1] < kept[2] == set(videos)
    # The draws of classes are not the same positions, nor do they depend on each other.
    first = {v.label: int(v.path.removesuffix(".mp4")) // 3 for v in few_shot(videos, 1, 0)}
    assert len({few_shot(videos, 1, seed)[0].path for seed in range(20)}) > 5
    assert first != dict.fromkeys(range(3), first[0])
    alone = labelled([-2, 0, -2] * 8)
    alone = VideoList(tuple(video for video in alone if video.label == 0))
    assert set(few_shot(alone, 3, 0)) == {video for video in drawn if video.label == 0}


@pytest.mark.parametrize(
    ("videos", "shots", "message"),
    [
        (labelled([0, 0, 1], ("x", "y")), 2, "class 'y' has 1 videos, but 2 of each class are to"),
        (labelled([0, 0, 7]), 2, "class 7 has 1 videos"),
        (labelled([0, 0, 2, 2], ("x", "y", "z")), 1, "class 'y' has 0 videos"),
        (labelled([0, -1]), 1, r"1\.mp4 has the label -1"),
        (labelled([(0, 3)]), 1, r"0\.mp4 has the label \(0, 3\)"),
        (labelled([0]), 0, "must be positive, not 0"),
    ],
)
def test_few_shot_needs_enough_of_every_class(videos, shots, message):
    with pytest.raises(UserError, match=message):
        few_shot(videos, shots, seed=0)
