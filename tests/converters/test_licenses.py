"""Licenses of published weights: read from model cards, kept on cards, and given on."""

import dataclasses
import itertools
import pathlib

import pytest

from converters import Options, convert, formats, licenses
from tests.support.damage import change_card
from vidjax.card import Card, read_card, write_card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens/videomae_finetune_meanpool/checkpoint-0.pth"
CARD = Card({"name": "videomae", "head": None}, Preprocessing(frames=4), provenance={"source": "a"})


@pytest.mark.parametrize(
    ("readme", "license"),
    [
        ("---\nlicense: cc-by-nc-4.0\ntags:\n- video\n---\n# A model\n", "cc-by-nc-4.0"),
        ("\ufeff---\r\nlicense:  mit \r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: a  b\nlicense_link: L\n---\n", "other (a b, L)"),
        ("---\nlicense: other\nlicense_link: L\n---\n", "other (L)"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\ntags: []\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("---\n---\n", None),
        ("", None),
        ("---\nlicense: {a: b}\nlicense_link: 3\n---\n", None),
        (f"---\nlicense: {'x' * 1000}\n---\n", "x" * 300),
    ],
)
def test_front_matter(tmp_path, readme, license):
    (tmp_path / "README.md").write_bytes(readme.encode())
    notes = []
    card = dataclasses.replace(CARD, provenance={"license": licenses.read(tmp_path, notes)})
    write_card(tmp_path, card)
    assert read_card(tmp_path).license == license
    assert not notes


@pytest.mark.parametrize(
    "readme",
    [
        b"---\n- license\n---\n",
        b"---\nlicense: [\n---\n",
        b"---\nlicense: 2020-99-99\n---\n",
        b"---\nlicense: *nothing\n---\n",
        b"---\nlicense: !!python/object/apply:os.system ['exit']\n---\n",
        b"---\n" + b"[" * 5000 + b"\n---\n",
        b"---\nlicense: \xff\n---\n",
        b"---\nlicense: mit\n---\n" + b"x" * 200_000,
    ],
    ids=["list", "open", "date", "alias", "code", "deep", "bytes", "large"],
)
def test_hostile_front_matter_is_noted(tmp_path, readme):
    (tmp_path / "README.md").write_bytes(readme)
    notes = []
    assert licenses.read(tmp_path, notes) == {}
    assert len(notes) == 1 and notes[0].startswith("README.md cannot be read (")
    assert "\n" not in notes[0] and len(notes[0]) < 300


def test_aliases_in_front_matter_are_not_multiplied(tmp_path):
    names = "abcdefghijkl"
    lines = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise(names)]
    readme = "\n".join(["---", "a: &a [x, x]", *lines, "license: *l", "---", ""])
    (tmp_path / "README.md").write_text(readme)
    assert licenses.read(tmp_path, []) == {}


def test_no_readme(tmp_path):
    assert licenses.read(tmp_path, []) == licenses.read(None, []) == {}
    (tmp_path / "README.md").mkdir()
    assert licenses.read(tmp_path, []) == {}


def test_values_of_a_card_s_license_are_checked(tmp_path):
    write_card(tmp_path, CARD)
    for wrong in ("mit", {"license": 3}, {"name": "mit"}):
        change_card(tmp_path, "provenance", license=wrong)
        with pytest.raises(UserError, match=r"model\.json: provenance\.license is "):
            read_card(tmp_path)


def test_exports_give_the_license_on(tmp_path):
    """And nothing but README.md changes by it."""

    def run(source, target, format=None, options=Options()):  # noqa: B008 (frozen)
        lines = []
        convert.convert(str(source), target, format, options=options, say=lines.append)
        return lines

    run(GOLDEN, tmp_path / "plain", options=Options(heads=4))
    assert not any(line.startswith("license") for line in run(tmp_path / "plain", tmp_path / "hf"))
    assert not (tmp_path / "hf/README.md").exists()
    (tmp_path / "hf/README.md").write_text("---\nlicense: mit\n---\n")

    assert "license of the weights: mit" in run(tmp_path / "hf", tmp_path / "ours")
    assert read_card(tmp_path / "ours").provenance["license"] == {"license": "mit"}
    assert "license of the weights: mit" in run(tmp_path / "ours", tmp_path / "again", "hf")
    for path in (tmp_path / "hf").iterdir():
        if path.name != "README.md":
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    readme = (tmp_path / "again/README.md").read_text()
    assert readme.startswith("---\nlicense: mit\n---\n") and f"from {tmp_path}/hf." in readme
    assert licenses.read(tmp_path / "again", []) == {"license": "mit"}
    run(tmp_path / "ours", tmp_path / "original", "original")
    assert {path.suffix for path in (tmp_path / "original").iterdir()} == {".pth"}
    assert formats.open_source(tmp_path / "again").json
