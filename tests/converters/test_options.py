"""The command's flags come from the families' OPTIONS, and each family reads its own only."""

import ast
import pathlib

import pytest
from absl import flags
from absl.testing import flagsaver

from converters import Options, convert, registry
from converters.options import INPUT_RANGE
from vidjax.errors import UserError


def files_of(family):
    path = pathlib.Path(family.__file__)
    return path.parent.glob("*.py") if path.stem == "__init__" else [path]


def test_registry_is_the_file_system():
    assert list(registry.families()) == ["videomae", "videoprism", "vivit", "xclip"]


@pytest.mark.parametrize("name", registry.families())
def test_a_family_reads_the_options_that_it_declares(name):
    family = registry.families()[name]
    functions = [
        node
        for path in files_of(family)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and "options: Options" in ast.unparse(node.args)
    ]
    read = {
        node.attr
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "options"
    }
    assert read and read <= {option.name for option in family.OPTIONS} | {"hub_id"}


def test_flags_become_options(monkeypatch):
    called = []
    monkeypatch.setattr(convert, "convert", lambda *args, **keywords: called.append(keywords))
    words = ["--from=a", "--to=b", "--heads=3", "--input_range=-1,1", "--noraw_text", "--pool=max"]
    with flagsaver.flagsaver():
        flags.FLAGS(["convert", *words])
        convert.main(["convert"])
    expected = {"heads": 3, "input_range": (-1.0, 1.0), "raw_text": False, "pool": "max"}
    assert called[0]["options"].given == expected


def test_options_that_were_not_given_are_none():
    options = Options("org/name", heads=3, raw_text=False, size=None)
    assert (options.hub_id, options.heads, options.raw_text) == ("org/name", 3, False)
    assert options.size is None and options.frames is None
    assert options.given == {"heads": 3, "raw_text": False}


@pytest.mark.parametrize("words", [["1"], ["1", "-1"], ["a", "b"], ["0", "1", "2"]])
def test_a_range_is_two_rising_numbers(words):
    with pytest.raises(UserError, match=rf"--input_range={','.join(words)} is no range; expected"):
        INPUT_RANGE.parse(words)
