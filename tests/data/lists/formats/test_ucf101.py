"""UCF101's splits."""

import pytest

from tests.support.lists import touch, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError


def test_ucf101_labels_count_from_1_in_the_files_and_from_0_here(tmp_path):
    touch(tmp_path, "v/Archery/v_Archery_g01_c01.avi", "v/Basketball/v_Basketball_g02_c03.avi")
    lines = "Archery/v_Archery_g01_c01.avi 1\r\nBasketball/v_Basketball_g02_c03.avi 2\r\n"
    train = write(tmp_path, lines, "trainlist01.txt")
    with pytest.raises(UserError, match=r"classInd\.txt"):
        read_list(train, tmp_path / "v")
    write(tmp_path, "1 Archery\r\n2 Basketball\r\n", "classInd.txt")
    test = write(tmp_path, "Basketball/v_Basketball_g02_c03.avi\n", "testlist01.txt")
    videos = read_list(train, tmp_path / "v")
    assert [v.label for v in videos] == [0, 1]
    assert videos.classes == ("Archery", "Basketball")
    assert [v.label for v in read_list(test, tmp_path / "v")] == [1]
    write(tmp_path, "Archery/v_Archery_g01_c01.avi 2\n", "trainlist01.txt")
    with pytest.raises(UserError, match=r"trainlist01\.txt line 1"):
        read_list(train, tmp_path / "v")
