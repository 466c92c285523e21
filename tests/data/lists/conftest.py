"""Fixtures of lists and the files that they name."""

import pytest


@pytest.fixture
def folder(tmp_path):
    """A folder with empty files to list; `read_list` looks at names only."""
    for name in ("a.mp4", "b.mp4", "c d.mp4", "e,f.mp4"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def made(tmp_path):
    """made(names, list name, list) writes empty files and a list; returns the list's path."""

    def make(names, name: str, text: str | bytes = ""):
        for file in names:
            place = tmp_path / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir() if file.endswith("/") else place.touch()
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_dir():
            place.write_bytes(text if isinstance(text, bytes) else text.encode())
        return place

    return make
