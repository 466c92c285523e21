"""Only its own module knows a name: to add a model, an objective or a converter is to add files.

Read from the source: outside models/, objectives/, evaluators/ and the families of converters, no
string is the name of a model (which its converters share), of a head or of an objective. Everyday
words such as "video", a key of batches, too, count where they are compared with a head or a name.
Messages and docstrings may hold names as examples, as they hold more than a name.
"""

import ast
import importlib
import pathlib
from collections.abc import Iterator

import pytest

from vidjax import models

ROOT = pathlib.Path(__file__).parent.parent
EVERYDAY = {"video", "text", "image"}
MODULES = [importlib.import_module(f"vidjax.models.{name}") for name in models.names()]
HEADS = {head for module in MODULES for head in module.HEADS if head}
OBJECTIVES = {path.stem for path in ROOT.glob("vidjax/objectives/[!_]*.py")}
NAMES = {*models.names(), *HEADS, *OBJECTIVES} - EVERYDAY
FAMILIES = [f"converters/{name}" for name in models.names()]
HOMES = ("vidjax/models", "vidjax/objectives", "vidjax/evaluators", *FAMILIES)
FILES = [
    path
    for path in sorted([*ROOT.glob("vidjax/**/*.py"), *ROOT.glob("converters/**/*.py")])
    if not path.relative_to(ROOT).as_posix().startswith(HOMES)
]


def literal_names(source: str) -> Iterator[tuple[int, str]]:
    """Yields the line and the text of every literal name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in NAMES:
            yield node.lineno, node.value
        if isinstance(node, ast.Compare):
            words = {word.value for word in ast.walk(node) if isinstance(word, ast.Constant)}
            asked = ast.unparse(node)
            if words & EVERYDAY and ("head" in asked or "name" in asked):
                yield node.lineno, asked


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_literal_at_home_only(path):
    found = list(literal_names(path.read_text()))
    assert not found, f"ask the module instead, which may declare the answer: {found}"


@pytest.mark.parametrize(
    "code",
    [
        'reads_text = config.model.head in ("video_text", "image_text")',
        'if fields["name"] == "probe": follow()',
        'sizes = {"reconstruct": 64}[head]',
        'if card.model["head"] != "text": print()',
        'kinds = {"classification": Classification}',
    ],
)
def test_literal_names_are_found(code):
    assert list(literal_names(code))


def test_everyday_words_are_free_elsewhere():
    assert not list(literal_names('batch["video"]; kind == "video"; {"text": ids}'))
