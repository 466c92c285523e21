"""Why videos are missing."""

import pytest

from tests.support.lists import refused


@pytest.mark.parametrize(
    ("names", "text", "root", "message"),
    [
        (
            ("s/74226.mp4",),
            "s/74225.webm 0\n",
            "",
            "such as s/74225.webm; the folder s holds "
            "other names, such as 74226.mp4; correct the list",
        ),
        (("s/a-b.mp4",), "s/A_b.webm 0\n", "", "such as s/A_b.webm; there is s/a-b.mp4; correct"),
        (("videos/a.mp4",), "vids/a.mp4 0\n", "", "there is no folder vids, but videos; set root"),
        (("x/sub/a.mp4",), "sub/a.webm 0\n", "", "set root to x, which has sub/a.mp4"),
        (
            ("x/a.mp4",),
            "q.mp4 0\n",
            "x",
            "the folder x holds other names, such as a.mp4; correct the list or root",
        ),
        (("x/b.mp4",), "/nowhere/a.mp4 0\n", "x", "there is no folder /nowhere; correct its abso"),
        (
            (),
            "only_here.mp4 0\n",
            "",
            "such as only_here.mp4; set root to the folder that its paths",
        ),
    ],
)
def test_missing_paths_are_explained(made, names, text, root, message):
    assert message in refused(made(names, "l.csv", text), root)
