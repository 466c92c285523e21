"""Values in the fields of lines."""

from vidjax.data.lists import lines


def test_whole_numbers():
    assert list(map(lines.whole, ("3", "-1", "+2", "3.0", "3.", 4.0))) == [3, -1, 2, 3, 3, 4]
    assert set(map(lines.whole, ("2.5", "", "nan", "x3", "3 4", "1e3"))) == {None}
    assert lines.labels(["0", None, "N/A", "2.0"]) == [0, -1, -1, 2]
    assert lines.labels(["none", "nan", "x"]) == ["none", -1, "x"]
