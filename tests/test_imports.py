"""Who may import whom, read from the source; and what a plain import may cost."""

import ast
import pathlib
import subprocess
import sys
import warnings

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("vidjax/**/*.py"), *ROOT.glob("converters/**/*.py")])
FILES += sorted([*ROOT.glob("configs/*.py"), *ROOT.glob("experiments/*.py")])

# Module (or package) -> what it may import of ours, besides FLOOR and itself.
FLOOR = {"vidjax.errors", "vidjax.files", "vidjax.json_files"}
ALLOWED = {
    "vidjax.__main__": "vidjax vidjax.signals",
    "vidjax.signals": "",
    "vidjax.errors": "vidjax.signals",
    "vidjax.json_files": "",
    "vidjax.lazy": "",
    "vidjax.compilation": "",
    # It imports converters when there is something to convert; these import vidjax.pretrained.
    "vidjax.sources": "vidjax.card vidjax.distributed converters",
    "vidjax.configlib": "vidjax.models vidjax.objectives vidjax.writers",
    "vidjax.params": "",
    "vidjax.sharding": "",
    "vidjax.files": "",
    "vidjax.progress": "",
    "vidjax.checkpoints": "vidjax.params",
    "vidjax.training.optim": "vidjax.params",
    "vidjax.training": "vidjax vidjax.card vidjax.checkpoints vidjax.configlib vidjax.data.lists "
    "vidjax.distributed vidjax.evaluators vidjax.journal vidjax.models vidjax.writers "
    "vidjax.objectives vidjax.params vidjax.pretrained vidjax.progress vidjax.setup "
    "vidjax.sharding",
    "vidjax.journal": "",
    "vidjax.checksums": "",
    "vidjax.distributed": "vidjax.signals",
    "vidjax.writers": "vidjax.distributed vidjax.journal",
    "vidjax.embeddings": "vidjax.checksums",
    "vidjax.preprocessing": "",
    "vidjax.tokenizers": "",
    "vidjax.augment": "",
    "vidjax.masking": "",
    "vidjax.models": "",
    "vidjax.data.datasets": "",
    "vidjax.data.reading": "",
    "vidjax.data.frames": "vidjax.preprocessing vidjax.data.reading",
    "vidjax.data.lists": "vidjax.checksums vidjax.data.datasets vidjax.data.reading",
    "vidjax.data": "vidjax.preprocessing vidjax.tokenizers vidjax.journal vidjax.checksums "
    "vidjax.progress vidjax.signals",
    "vidjax.card": "vidjax.preprocessing vidjax.checksums",
    "vidjax.stored": "vidjax.lazy vidjax.card vidjax.checkpoints vidjax.params vidjax.sharding",
    "vidjax.inference": "vidjax.models vidjax.preprocessing vidjax.sharding",
    "vidjax.pretrained": "vidjax.preprocessing vidjax.tokenizers vidjax.models vidjax.card "
    "vidjax.params vidjax.stored vidjax.data vidjax.inference vidjax.sources",
    "vidjax.objectives": "vidjax.preprocessing vidjax.augment vidjax.masking vidjax.models",
    "vidjax.evaluators": "vidjax.data vidjax.preprocessing",
    "vidjax.splits": "vidjax.card vidjax.data vidjax.evaluators vidjax.models vidjax.objectives",
    "converters.options": "",
    "converters.layouts": "",
    "converters.mapping": "converters.layouts vidjax.lazy",
    "converters.formats": "converters.json_types vidjax.lazy",
    "converters.target": "",
    "converters.originals": "converters.formats",
    "converters.verification": "converters.mapping vidjax.lazy",
    "converters": "vidjax vidjax.checksums vidjax.lazy vidjax.preprocessing vidjax.tokenizers "
    "vidjax.models vidjax.card vidjax.stored vidjax.pretrained vidjax.data vidjax.sources",
    "configs": "vidjax.configlib",
    "experiments": "vidjax.configlib vidjax.setup vidjax.training",
}


def module_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: pathlib.Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    module = module_of(path)
    home = next((key for key in ALLOWED if module == key or module.startswith(f"{key}.")), None)
    if home is None:
        last = module.removeprefix("vidjax").strip(".")
        assert last in {"", "train", "eval", "predict", "embed", "setup"}
        return
    for name in imports(path):
        if not name.startswith(("vidjax", "converters", "configs", "experiments")):
            continue
        allowed = {*ALLOWED[home].split(), *FLOOR, home}
        version_only = {"vidjax", "vidjax.__version__"} if "vidjax" in allowed else set()
        assert name.startswith(tuple(allowed - {"vidjax"})) or name in version_only, name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_torch_or_tensorflow(path):
    roots = {name.partition(".")[0] for name in imports(path)}
    assert not roots & {"torch", "tensorflow", "transformers"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_data_modules_do_not_import_jax(path):
    if module_of(path).startswith(("vidjax.data", "vidjax.preprocessing", "vidjax.tokenizers")):
        assert not any(n.split(".")[0] in {"jax", "flax"} for n in imports(path, True))


def test_no_file_is_named_for_nothing():
    assert not {"utils", "common", "misc", "helpers"} & {path.stem for path in FILES}


def test_importing_vidjax_is_cheap():
    code = (
        "import sys, vidjax; print([m for m in ('jax','torch','decord','cv2') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("kind", [DeprecationWarning, FutureWarning])
@pytest.mark.parametrize("module", ["vidjax.data.loader", "converters.convert", "benchmarks.run"])
def test_what_we_use_that_will_be_removed_fails_the_tests(kind, module):
    """On the newest stack, too, which CI runs them on; libraries' own are theirs to mend."""
    with pytest.raises(kind, match="use another"):
        warnings.warn_explicit("use another", kind, "file.py", 1, module=module)
    with warnings.catch_warnings(record=True):
        warnings.warn_explicit("use another", kind, "file.py", 1, module="flax.linen.module")
