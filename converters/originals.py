"""Files of a source that an export needs to write the same bytes again, in a vidjax folder."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters import formats

FOLDER = "source"
_KEPT = "buffers.safetensors"  # in it


def copy(source: formats.Source, kept: Sequence[str], folder: Path) -> None:
    """Copies the source's JSON files, and its tensors `kept`, which no parameter tells."""
    if source.json or kept:
        (folder / FOLDER).mkdir(exist_ok=True)
    for name in source.json:
        shutil.copyfile(source.files[0].parent / name, folder / FOLDER / name)
    if kept:
        tensors = {name: source.tensors[name] for name in kept}
        formats.write_safetensors(folder / FOLDER / _KEPT, tensors)


def json_files(folder: Path) -> dict[str, bytes]:
    """Returns the contents of the JSON files by name."""
    return {
        name: (folder / FOLDER / name).read_bytes()
        for name in formats.JSON_FILES
        if formats.read_json(folder / FOLDER / name) is not None
    }


def of_format(
    provenance: Mapping[str, Any], format: str, files: Mapping[str, bytes]
) -> tuple[Mapping[str, Any] | None, Mapping[str, bytes]]:
    """Returns the naming of a card's source and its `files`, for an export in its own format.

    None and no files for another format, whose names and JSON files are others.
    """
    same = provenance.get("format") == format
    return (provenance["naming"], files) if same else (None, {})


def tensors(folder: Path) -> Mapping[str, np.ndarray]:
    """Returns the tensors that no parameter tells."""
    path = folder / FOLDER / _KEPT
    return formats.read(path) if path.is_file() else {}
