"""docs/first_steps.ipynb: its outputs are those of its cells, and it runs."""

import json
import re

import pytest

from tests.support import notebooks

PATH = notebooks.ROOT / "docs/first_steps.ipynb"


def printed(notebook) -> str:
    outputs = [output for cell in notebooks.code_cells(notebook) for output in cell["outputs"]]
    return "".join("".join(output.get("text", "")) for output in outputs)


def kinds(notebook) -> list[list[list[str]]]:
    """Returns what each cell gives: streams by name, results by their types."""
    return [
        [sorted(output.get("data", [output.get("name")])) for output in cell["outputs"]]
        for cell in notebooks.code_cells(notebook)
    ]


def assert_answers_are_right(notebook) -> None:
    right, count = map(int, re.search(r"^right: (\d+) of (\d+)$", printed(notebook), re.M).groups())
    assert right / count > 0.6  # chance is 1/8


def test_committed_outputs_are_of_the_cells():
    notebook = json.loads(PATH.read_text())
    cells = notebooks.code_cells(notebook)
    assert notebook["metadata"]["sources_sha256"] == notebooks.digest(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] for cell in cells[1:])  # the first one imports
    assert_answers_are_right(notebook)


def test_what_is_committed_is_small_and_of_no_machine():
    notebook = json.loads(PATH.read_text())
    assert PATH.stat().st_size < 400_000
    sources = "".join("".join(cell["source"]) for cell in notebook["cells"])
    text = printed(notebook) + sources
    assert not re.search(r"/(home|root|tmp|Users|work)/|clips/s|\d left$", text, re.M)
    assert all(set(cell["metadata"]) == set() for cell in notebook["cells"])


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch):
    """In its folder, as a person runs it; it continues or uses what is in runs/."""
    monkeypatch.delenv("XLA_FLAGS")  # of the tests
    executed = notebooks.execute(PATH)
    assert kinds(executed) == kinds(json.loads(PATH.read_text()))
    assert_answers_are_right(executed)
