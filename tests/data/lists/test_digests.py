import shutil

from vidjax.data import lists
from vidjax.data.lists.digests import digests_of


def test_a_list_may_move(demo_folder, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(demo_folder, copy)
    videos = [lists.read_list(folder / "train.csv", "") for folder in (demo_folder, copy)]
    assert videos[0][0].path != videos[1][0].path
    assert digests_of(videos[0]) == digests_of(videos[1])
