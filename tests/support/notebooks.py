"""Execution of notebooks, in place: `python -m tests.support.notebooks docs/first_steps.ipynb`.

Outputs are stored without what differs from run to run and between machines, and with a digest of
the sources that they are of. Notebooks are nbformat's, which are dicts, or what json makes of them.
"""

import hashlib
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]

# Progress of a run, empty lines, and warnings of libraries.
_NOISE = re.compile(r"step \d+/\d+ .*|compiling.*|\s*|[WIE]\d{4} .*|WARNING.*")


def code_cells(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def digest(notebook: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the sources of all code cells."""
    sources = ("".join(cell["source"]) for cell in code_cells(notebook))
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def execute(path: pathlib.Path) -> dict[str, Any]:
    """Runs all cells in a new kernel of this Python, in the notebook's folder.

    Returns:
        The notebook with its outputs; the file stays as it is.

    Raises:
        CellExecutionError: a cell raises.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=900,  # seconds a cell
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    for cell in code_cells(notebook):
        cell["outputs"] = [output for output in cell["outputs"] if _scrub(output)]
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "sources_sha256": digest(notebook),
    }
    return notebook


def _scrub(output: dict[str, Any]) -> bool:
    """Removes paths of the machine and progress from printed text; False if nothing is left."""
    if output["output_type"] != "stream":
        return True
    text = output["text"].replace(f"{ROOT}/", "").replace(str(pathlib.Path.home()), "~")
    lines = [line for line in re.split(r"[\r\n]+", text) if not _NOISE.fullmatch(line)]
    output["text"] = "".join(f"{line}\n" for line in lines)
    return bool(lines)


if __name__ == "__main__":
    import nbformat

    file = pathlib.Path(sys.argv[1])
    nbformat.write(execute(file), file)
    print(f"{file}: {file.stat().st_size:,} bytes")
