"""Makers of the goldens: one for each, checkouts, comparison, and files; no original is needed."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.goldens.makers import frame

FOLDERS = sorted(
    path.name
    for path in frame.GOLDENS.iterdir()
    if path.is_dir() and path.name not in ("makers", "__pycache__")
)
MAKERS = frame.all_goldens()
LIBRARIES = ("torch", "jax", "flax", "tensorflow", "keras", "keras_hub", "timm", "decord", "cv2")


@pytest.fixture
def clean_imports(monkeypatch):
    """Restores what `open_originals` changes."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_every_golden_has_exactly_one_maker():
    assert sorted(MAKERS) == FOLDERS
    assert {name: len(makers) for name, makers in MAKERS.items() if len(makers) != 1} == {}


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_maker_names_originals_and_packages(name):
    (maker,) = MAKERS[name]
    assert maker.originals and maker.packages
    for original in maker.originals:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", original.repository)
        assert re.fullmatch(r"[0-9a-f]{40}", original.commit)
        assert original.licence and original.file.endswith(".py")
    assert any("==" in package for package in maker.packages)


def test_makers_are_imported_without_the_originals_libraries():
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({LIBRARIES}))\n"
        "from tests.goldens.makers import frame; print(len(frame.all_goldens()))"
    )
    root = frame.GOLDENS.parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) == len(FOLDERS)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_missing_checkout_is_one_sentence(name, capsys, tmp_path, clean_imports):
    assert frame.main([name, f"--checkout={tmp_path}"]) == 2
    message = capsys.readouterr().err.strip()
    original = MAKERS[name][0].originals[0]
    assert original.repository in message and original.commit in message
    assert "--checkout=FOLDER" in message and "\n" not in message


def test_an_unknown_golden_is_one_sentence(capsys):
    assert frame.main(["videomae_pretrained"]) == 2
    assert "no maker of videomae_pretrained; there are clip_tokenizer" in capsys.readouterr().err


def test_the_list_names_repositories_commits_and_packages(capsys):
    assert frame.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == FOLDERS
    vivit = next(line for line in lines if line.startswith("preprocess_vivit"))
    assert "google-research/scenic@4a38d475ee89, google-deepmind/dmvr@77ccedaa084d" in vivit
    assert "tensorflow-cpu==2.15.1" in vivit


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_what_a_maker_writes_is_what_is_read(name, tmp_path):
    (maker,) = MAKERS[name]
    committed = maker.read(frame.GOLDENS / name)
    maker.write(tmp_path, committed)
    rows = frame.compare(maker, committed, maker.read(tmp_path))
    assert {row[0] for row in rows} == committed.keys()
    assert [row for row in rows if row[1] != 0] == []


@pytest.mark.parametrize("name", ["clip_tokenizer", "videoprism_tokenizer"])
def test_new_texts_start_from_the_committed_ones(name, tmp_path):
    (maker,) = MAKERS[name]
    maker.draw(tmp_path, np.random.default_rng(0))
    committed = maker.read(frame.GOLDENS / name)
    texts = {key: value for key, value in committed.items() if key.endswith("/text")}
    assert maker.read(tmp_path) == texts and len(texts) >= 30


def test_committed_inputs_have_the_sizes_of_their_makers():
    for name, (maker,) in MAKERS.items():
        folder = frame.GOLDENS / name
        if hasattr(maker, "clip"):
            assert np.load(folder / "inputs.npz")["inputs"].shape == (2, *maker.clip, 3), name
        if hasattr(maker, "model_class") and "img_size" in maker.sizes:
            size = maker.sizes["img_size"]
            video = np.load(folder / "inputs.npz")["pixel_values"]
            assert video.shape == (2, 3, maker.frames, size, size), name
        for call, arguments in getattr(maker, "calls", {}).items():
            inputs = np.load(folder / "inputs.npz")
            for argument, shape in arguments.items():
                if isinstance(shape, tuple):
                    assert inputs[f"{call}/{argument}"].shape == shape, (name, call)
        for case, shape in getattr(maker, "frames", None).items() if "preprocess" in name else ():
            file = "inputs.npz" if (folder / "inputs.npz").exists() else "golden.npz"
            assert np.load(folder / file)[f"{case}/frames"].shape == shape, (name, case)


def test_comparison_sees_values_names_shapes_and_texts():
    golden = frame.Golden()
    committed = {
        "a": np.float32([1, 2, 4]),
        "a__f64": np.array([1.0, 2.0]),
        "ids": np.array([1, 2]),
        "0/text": "cat",
        "0/ids": [1, 2],
    }

    def failing(**changes):
        rows = frame.compare(golden, committed, committed | changes)
        return [name for name, _, passes in rows if not passes]

    assert failing() == []
    assert failing(a=np.float32([1, 2, 4.00001])) == []
    assert failing(a=np.float32([1, 2, 4.0001])) == ["a"]
    assert failing(a=np.float32([1, 2, np.nan])) == ["a"]
    assert failing(a__f64=np.array([1.0, 2.00000001])) == ["a__f64"]
    assert failing(a=np.float32([1, 2])) == ["a"]
    assert failing(ids=np.array([1, 3])) == ["ids"]
    assert failing(**{"0/text": "cats"}) == ["0/text"]
    assert failing(**{"0/ids": [1, 2, 3]}) == ["0/ids"]
    assert failing(b=np.float32([1])) == ["b"]
    rows = frame.compare(golden, committed, {})
    assert [name for name, _, passes in rows if passes] == []


def test_random_weights_leave_nothing_at_its_start():
    shapes = {
        "norm.weight": (400,),
        "norm.bias": (400,),
        "fc.weight": (50, 400),
        "pos_embed": (1, 9, 50),
    }
    weights = frame.random_weights(shapes, np.random.default_rng(0))
    assert {name: array.shape for name, array in weights.items()} == shapes
    assert {str(array.dtype) for array in weights.values()} == {"float32"}
    assert abs(weights["norm.weight"].mean() - 1) < 0.1 and abs(weights["norm.bias"].mean()) < 0.1
    assert abs(weights["fc.weight"].std() * 20 - 1) < 0.05
    again = frame.random_weights(shapes, np.random.default_rng(0))
    assert all(np.array_equal(weights[name], again[name]) for name in shapes)
    assert all(np.ptp(array) > 0 for array in weights.values())


def test_float64_outputs_are_kept_where_they_are_small():
    outputs = frame.both_precisions(
        lambda dtype: {"small": np.ones(3, dtype), "large": np.ones(4, dtype)}, limit=3
    )
    assert {name: str(array.dtype) for name, array in outputs.items()} == {
        "small": "float32",
        "large": "float32",
        "small__f64": "float64",
    }


def test_stand_ins_can_be_imported_and_subclassed_but_not_called(clean_imports):
    sys.meta_path.append(frame._StandIns(["no_such_library"]))
    import no_such_library.deep as deep
    from no_such_library import transforms

    class Derived(transforms.Base):
        pass

    assert Derived.__mro__[1].__name__ == "Base" and len({deep.Mode.NEAREST: 1}) == 1
    with pytest.raises(frame.MakerError, match="resize is a stand-in of a package that is missing"):
        deep.resize(3)
    with pytest.raises(ImportError):
        import no_such_librarian  # noqa: F401


@dataclasses.dataclass(frozen=True)
class Doubled(frame.Golden):
    """A golden of an original with one function."""

    packages: tuple[str, ...] = ("numpy==2",)

    def draw(self, folder, rng):
        np.savez(folder / "inputs.npz", x=rng.standard_normal(3))

    def compute(self, folder):
        import doubling_original

        return {"y": doubling_original.double(np.load(folder / "inputs.npz")["x"])}


@pytest.fixture
def doubled(tmp_path, monkeypatch, clean_imports) -> pathlib.Path:
    """A git checkout of an original; its maker is the only one."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "doubling_original.py").write_text("def double(x):\n    return 2 * x\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(checkout), *command], check=True)
    original = frame.Original(
        "someone/doubling", frame.git(checkout, "rev-parse", "HEAD"), "MIT", "doubling_original.py"
    )
    maker = Doubled(originals=(original,))
    monkeypatch.setattr(frame, "all_goldens", lambda: {"doubled": [maker]})
    monkeypatch.setattr(frame, "GOLDENS", tmp_path)
    return checkout


def test_a_new_golden_is_written_and_then_checked(doubled, capsys):
    folder = doubled.parent / "doubled"
    arguments = ["doubled", f"--checkout={doubled}"]
    assert frame.main([*arguments, f"--output={folder}", "--seed=7"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["inputs.npz", "outputs.npz"]
    x = np.random.default_rng(7).standard_normal(3)
    assert np.array_equal(np.load(folder / "outputs.npz")["y"], 2 * x)
    assert frame.main(arguments) == 0
    assert "ok    0.00e+00  y" in capsys.readouterr().out
    np.savez(folder / "outputs.npz", y=2.001 * x)
    assert frame.main(arguments) == 1
    assert "FAIL" in capsys.readouterr().out
    assert frame.main([*arguments, f"--output={folder}"]) == 2
    assert "exists; name a new folder" in capsys.readouterr().err


def test_a_checkout_of_another_commit_or_with_changes_is_refused(doubled, capsys):
    arguments = ["doubled", f"--checkout={doubled}", f"--output={doubled.parent / 'new'}"]
    (doubled / "doubling_original.py").write_text("def double(x):\n    return 3 * x\n")
    assert frame.main(arguments) == 2
    assert "has changes (M doubling_original.py)" in capsys.readouterr().err
    command = ["git", "-C", str(doubled), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*command, "commit", "-qam", "second"], check=True)
    assert frame.main(arguments) == 2
    head = frame.git(doubled, "rev-parse", "HEAD")
    assert f"is someone/doubling at commit {head}, not at " in capsys.readouterr().err
    assert not (doubled.parent / "new").exists()


def test_an_unpacked_archive_is_taken_with_a_note(doubled, capsys):
    (doubled / ".git").rename(doubled.parent / "moved")
    arguments = ["doubled", f"--checkout={doubled}", f"--output={doubled.parent / 'new'}"]
    assert frame.main(arguments) == 0
    assert "has no .git: taken for someone/doubling" in capsys.readouterr().out
