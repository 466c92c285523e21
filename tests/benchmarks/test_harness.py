"""The benchmarks' own machinery: whose turn it is, what breaks, what is counted."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from benchmarks import flops, harness, origin, page, run
from benchmarks.studies import sharding
from benchmarks.suites import scaling
from vidjax import models
from vidjax.errors import UserError

# A module for children: writes whose turn it is to a file.
VARIANT = """
import pathlib

def count(name, path, broken=False):
    def once():
        print("libraries print things")
        if broken:
            raise ValueError("no such kernel")
        with open(path, "a") as lines:
            lines.write(name)
        return {"length": pathlib.Path(path).stat().st_size}
    return {"name": name}, once
"""


@pytest.mark.parametrize(
    ("settle", "turns", "lengths"), [(True, "AABB", (4, 8, 12)), (False, "AB", (3, 5, 7))]
)
def test_variants_take_turns(tmp_path, monkeypatch, settle, turns, lengths):
    (tmp_path / "variant.py").write_text(VARIANT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    order = tmp_path / "order"
    children = {
        name: harness.Child("variant:count", name=name, path=str(order), broken=name == "C")
        for name in "ABC"
    }
    found = harness.interleave(children, 3, settle=settle)
    assert order.read_text() == "AB" + turns * 3  # neither the first runs nor those to settle count
    low, median, high = lengths
    assert found["A"]["figures"]["length"] == {"median": median, "min": low, "max": high, "runs": 3}
    assert found["B"]["facts"] == {"name": "B"}
    assert found["B"]["seconds"]["runs"] == 3
    assert 10**6 < found["B"]["peak_bytes"] < 10**9
    assert found["C"] == {"failed": "ValueError: no such kernel"}


def test_a_command_that_fails_is_told(tmp_path):
    with pytest.raises(UserError, match=r"ended with 3: \['first why'\]"):
        harness.whole_process(["sh", "-c", "echo first why >&2; exit 3"])


@pytest.mark.parametrize("attention", ["einsum", "auto"])
def test_operations_in_loops_count_as_often_as_they_run(attention):
    """Of a ViT-Ti: patches, 12 blocks, head, and nothing else."""
    fields = {"head": "classify", "num_classes": 10, "eps": 1e-6, "attention": attention}
    model = models.build("videomae", "Ti", **fields)
    video = jax.ShapeDtypeStruct((1, 4, 192, 192, 3), jnp.float32)  # 288 tokens: in blocks on CPUs
    found = flops.matmul_flops(
        lambda p, v: model.apply({"params": p}, v), models.abstract_params(model), video
    )
    tokens, width = 2 * 12 * 12, 192
    block = 4 * width * width + 2 * tokens * width + 2 * width * 768
    by_hand = tokens * 1536 * width + 12 * tokens * block + width * 10
    assert found == 2 * by_hand


def test_exponents():
    points = {
        str(x): {
            "axis": "frames",
            "value": x,
            "shape": [2, x, 32, 32, 3],
            "facts": {"flops": 3 * x**2, "parameters": 1},
            "seconds": {"median": x**1.5},
            "first_seconds": 1.0,
            "peak_bytes": 1,
        }
        for x in (8, 16, 32)
    }
    first, *others = scaling.rows({"points": points}, "frames")
    assert first["flops"] == 3 * 8**2 / 2  # of a clip
    assert "seconds_exponent" not in first
    for row in others:
        assert math.isclose(row["seconds_exponent"], 1.5)
        assert math.isclose(row["flops_exponent"], 2.0)


def test_tables_are_those_of_the_results():
    """README.md and the study's page are what the files of results say."""
    reports = {}
    for path in origin.RESULTS.glob("*.json"):
        report = json.loads(path.read_text())
        reports[report["suite"]] = report
        assert path.name == f"{report['suite']}_{report['device']}.json"
        assert {"machine", "versions", "commit", "date"} <= report.keys()
    assert reports.keys() == set(run.SUITES)
    readme = run.README.read_text()
    assert readme == page.fill(readme, run.blocks(reports))
    study = sharding.RESULTS.with_suffix(".md").read_text()
    assert study == page.fill(study, sharding.blocks(json.loads(sharding.RESULTS.read_text())))


def test_a_page_has_a_place_for_every_block():
    text = "a\n<!-- made: x -->\nold\n<!-- end -->\nb <!-- made: y -->\n<!-- end -->\n"
    filled = page.fill(text, {"x": "new"})
    assert filled == text.replace("old", "\nnew\n")
    assert page.fill(filled, {"x": "new"}) == filled
    with pytest.raises(ValueError, match=r"no <!-- made: NAME --> for \['z'\]"):
        page.fill(text, {"x": "new", "z": "lost"})


def test_failures_stand_in_their_row():
    rows = [{"variant": "a", "failed": "no room"}, {"variant": "b", "ms": 1.5, "clips": 1000}]
    assert page.table(rows).splitlines() == [
        "| variant | ms | clips |",
        "| --- | --: | --: |",
        "| a | failed: no room | - |",
        "| b | 1.50 | 1,000 |",
    ]
    assert "| a | failed: no room |" in page.table(rows[:1])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.01234, "0.0123"), (1.234, "1.23"), (123.4, "123"), (12345.6, "12,346")],
)
def test_figures(value, text):
    assert page.number(value) == text
