"""Cards: what was written, checked value by value."""

import dataclasses

import pytest

from tests.support.damage import change_card
from vidjax.card import Card, read_card, write_card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

CARD = Card(
    {"name": "videomae", "head": "classify", "num_classes": 3, "width": 16},
    Preprocessing(frames=4, stride=2, size=8, short_side=10, mean=(0.5, 0.4, 0.3)),
    ("a", "b", "c"),
    {"source": "test"},
)


@pytest.fixture
def folder(tmp_path):
    write_card(tmp_path, CARD)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": -16}, r"model\.json: preprocessing\.frames is -16, expected an integer from 1"),
        ({"size": 8.5}, r"preprocessing\.size is 8\.5, expected an integer"),
        (
            {"std": [0.2, 0.2, 0]},
            r"std is \[0\.2, 0\.2, 0\], expected a list of 3, each a number abo",
        ),
        ({"mean": "0.5"}, r"preprocessing\.mean is '0\.5', expected a list of 3, each a number"),
        ({"sampling": ["dense"]}, r"preprocessing\.sampling is \['dense'\], expected a string"),
        ({"fps": 3}, r"preprocessing\.fps is no key of such a file"),
    ],
)
def test_values_of_a_card_are_checked(folder, changes, message):
    change_card(folder, "preprocessing", **changes)
    with pytest.raises(UserError, match=message):
        read_card(folder)


def test_a_changed_card_is_noticed(folder):
    path = folder / "model.json"
    written = path.read_text()
    for old, new in (('"a"', '"A"'), ("0.4", "0.5"), ('"stride": 2', '"stride": 3')):
        assert old in written
        path.write_text(written.replace(old, new))
        with pytest.raises(UserError, match=r"is not what was written, as its checksum shows"):
            read_card(folder)
    path.write_text(written.replace("checksum", "checksun"))
    with pytest.raises(UserError, match=r"checksun is no key of such a file"):
        read_card(folder)
    path.write_text(written)
    change_card(folder)  # which leaves it without a checksum
    assert read_card(folder) == CARD


@pytest.mark.parametrize(
    ("changes", "sound"),
    [
        ({}, True),  # as it was before there were the others
        ({"pad": "end"}, True),
        ({"truncate": False}, True),
        ({"file": "../tokenizer.json"}, False),
        ({"length": "7"}, False),
        ({"length": True}, False),
        ({"canonicalise": 1}, False),
        ({"truncate": "no"}, False),
        ({"pad": 0}, False),
        ({"lower": True}, False),
        ({"length": None}, False),
    ],
)
def test_what_a_card_says_of_a_tokenizer_is_checked(tmp_path, changes, sound):
    entry = {"file": "tokenizer.json", "length": 7, "canonicalise": True} | changes
    entry = {name: value for name, value in entry.items() if value is not None}
    write_card(tmp_path, dataclasses.replace(CARD, tokenizer=entry))
    if sound:
        assert read_card(tmp_path).tokenizer == entry
    else:
        with pytest.raises(UserError, match=r"model\.json: tokenizer\.\w+ is "):
            read_card(tmp_path)
