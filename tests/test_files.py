"""Files written whole, and locks between processes."""

import subprocess
import sys

import pytest

from vidjax import files
from vidjax.errors import UserError


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_whole(path, "old")

    def cut_off(file):
        file.write(b"ne")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        files.write_whole(path, cut_off)
    assert path.read_text() == "old"
    files.write_whole(path, lambda file: file.write(b"new"), tmp_path / "aside")
    assert path.read_text() == "new"
    files.write_whole(path, b"last")  # over what the one that failed left
    assert [x.name for x in tmp_path.iterdir()] == ["a.json"] and path.read_text() == "last"


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/x")
    assert str(files.absolute("a/../b")) == str(tmp_path / "b")
    assert str(files.absolute("~/a")) == "/home/x/a"
    assert str(files.absolute("gs://bucket/a")) == "gs://bucket/a"
    with pytest.raises(UserError, match="ftp://host/a is neither a folder nor in a bucket"):
        files.absolute("ftp://host/a")


def test_the_cache_s_place(tmp_path, monkeypatch):
    for name in ("VIDJAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/x")
    assert str(files.cache_folder("a")) == "/home/x/.cache/vidjax/a"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert str(files.cache_folder("a")) == "/caches/vidjax/a"
    monkeypatch.chdir(tmp_path)
    for chosen, root in (("/b", "/b"), ("~/b", "/home/x/b"), ("b", tmp_path / "b")):
        monkeypatch.setenv("VIDJAX_CACHE", chosen)
        assert str(files.cache_folder("a")) == f"{root}/a"
    monkeypatch.setenv("VIDJAX_CACHE", "~nobody-of-this-name/a")
    with pytest.raises(UserError, match="no home for a cache; set VIDJAX_CACHE to a folder"):
        files.cache_folder("a")


def test_a_lock_is_one_process_s(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import sys; from vidjax import files, errors\n"
        "try: files.lock(sys.argv[1], 'busy')\n"
        "except errors.UserError as error: print(error)\n"
        "else: print('ours')"
    )

    def other():
        return subprocess.check_output([sys.executable, "-c", code, path], text=True).strip()

    files.lock(path, "busy")
    files.lock(path, "busy")  # again by the same process
    assert other() == "busy"
    files.unlock(path)
    assert other() == "ours"
    files.lock(path, "busy")  # the other one ended
    files.unlock(path)
