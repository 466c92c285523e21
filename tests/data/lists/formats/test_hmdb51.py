"""HMDB51's splits."""

import pytest

from tests.support.lists import pairs, touch, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError


def test_hmdb51(tmp_path):
    touch(tmp_path, "v/wave/a b.avi", "v/wave/c.avi", "v/wave/d.avi", "v/run/e.avi")
    write(tmp_path, "a b.avi 1 \nc.avi 2 \nd.avi 0 \n", "s/wave_test_split1.txt")
    write(tmp_path, "e.avi 1 \n", "s/run_test_split1.txt")
    write(tmp_path, "e.avi 2 \n", "s/run_test_split2.txt")
    touch(tmp_path, "v/brush_hair/f.avi")
    write(tmp_path, "f.avi 2 \n", "s/brush_hair_test_split1.txt")
    train = read_list(tmp_path / "s" / "*_test_split1.txt", tmp_path / "v")
    assert [v.path for v in train] == [
        str(tmp_path / "v" / p) for p in ("run/e.avi", "wave/a b.avi")
    ]
    assert ([v.label for v in train], train.classes) == ([1, 2], ("brush hair", "run", "wave"))
    # X-CLIP's label files have the names in words.
    names = write(tmp_path, "id,name\n0,run\n1,wave\n2,brush hair\n", "labels.csv")
    test = read_list(tmp_path / "s", tmp_path / "v", split="test", classes=names)
    assert pairs(test) == [("f.avi", 2), ("c.avi", 1)]
    assert "split 1" in test.notices[0]
    with pytest.raises(UserError, match="mixes splits 1, 2"):
        read_list(tmp_path / "s" / "*_test_split*.txt", tmp_path / "v")
    with pytest.raises(UserError, match="matches no file"):
        read_list(tmp_path / "s" / "*_split3.txt", tmp_path / "v")
