"""The folder that a conversion writes: nothing of others is lost, whatever happens meanwhile."""

import pathlib
import subprocess
import sys

import pytest

from converters.target import local_folder, new_folder
from vidjax.errors import UserError


def test_nothing_that_others_wrote_is_removed(tmp_path):
    """Whenever it appears, and by whatever way the command ends."""
    target, replaces = tmp_path / "to", ("model.json", "params")

    def write(action=lambda: None):
        with new_folder(target, replaces) as folder:
            (folder / "model.json").write_text("ours")
            (folder / "params").mkdir()
            action()

    def appears():
        target.mkdir(exist_ok=True)
        (target / "mine.txt").write_text("x")

    with pytest.raises(UserError, match="changed while this command worked, so nothing was writ"):
        write(appears)
    assert [path.name for path in tmp_path.rglob("*")] == ["to", "mine.txt"]
    with pytest.raises(UserError, match="not empty and no earlier conversion"):
        write()
    (target / "mine.txt").unlink()
    write()
    inside = target / "params/mine.txt"
    with pytest.raises(UserError, match="changed while this command worked"):
        write(lambda: inside.write_text("x"))
    assert inside.exists() and [path.name for path in tmp_path.iterdir()] == ["to"]
    inside.unlink()
    write()
    assert sorted(path.name for path in target.iterdir()) == ["model.json", "params"]
    with pytest.raises(UserError, match="changed while this command worked"):
        write(lambda: (target / "model.json").write_text("edited"))
    assert (target / "model.json").read_text() == "edited"


def test_conversions_into_one_folder(tmp_path):
    """The second one refuses; what a killed one left is used again, or put back."""
    target = tmp_path / "to"
    code = (
        "import sys, pathlib; from converters.target import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1]), ()): print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(target)]
    pipe = subprocess.PIPE
    other = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, cwd=pathlib.Path(__file__).parents[2]
    )
    assert other.stdout.readline() == b"1\n"
    with (
        pytest.raises(UserError, match="another process converts into --to="),
        new_folder(target, ()),
    ):
        pass
    other.kill()
    other.wait()
    temporary = tmp_path / ".to.converting"
    (temporary / "new/half").touch()
    (temporary / "old").mkdir()
    (temporary / "old/model.json").write_text("earlier")
    with (
        pytest.raises(UserError, match="nothing to see"),
        new_folder(target, ("model.json",)),
    ):
        raise UserError("nothing to see")
    assert (target / "model.json").read_text() == "earlier" and not temporary.exists()
    temporary.mkdir()
    (temporary / "mine.txt").touch()
    with (
        pytest.raises(UserError, match=r"needs .*converting, which exists; remove that"),
        new_folder(target, ("model.json",)),
    ):
        pass
    assert (temporary / "mine.txt").exists()


def test_places_that_are_no_folders_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folder("~/model") == tmp_path / "model"
    with pytest.raises(UserError, match="--to=gs://b/model must be a folder of this machine"):
        local_folder("gs://b/model")
    with (
        pytest.raises(UserError, match="--to=/proc/model cannot be written"),
        new_folder(pathlib.Path("/proc/model"), ()),
    ):
        pass
