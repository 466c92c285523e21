"""Suite `convert`: published weights in and out, beside copying the file."""

import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks import harness, page, peers
from vidjax import checksums

_START = [sys.executable, "-c", "from converters import convert, videomae"]
_COPY = "cp of the file"
_KEYS = ("seconds", "cpu_seconds", "peak_bytes")


def _forget(path: pathlib.Path) -> None:
    """Lets the system drop files from its cache, so that they are read from the disk again."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(command: list[str], source: pathlib.Path, target: pathlib.Path, cold: bool) -> dict:
    """Runs a command, from its start until what it wrote is on the disk."""
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    os.sync()
    if cold:
        _forget(source)
    start = time.perf_counter()
    done = harness.whole_process(command)
    os.sync()
    return done | {"seconds": time.perf_counter() - start}


def run(settings: harness.Settings) -> dict[str, Any]:
    with harness.scratch() as folder:
        # Published sizes, by which the converter knows a PyTorch file's number of heads.
        peers.prepare("VideoMAE-B" if settings.quick else "VideoMAE-L", False, folder)
        hf, ours, hf2, original, copy, again = (
            folder / name for name in ("hf", "vidjax", "hf2", "original", "copy", "again")
        )
        file, convert = hf / "model.safetensors", peers.convert_command
        ways = {  # command, what it reads, what it writes
            _COPY: (["cp", str(file), str(copy)], file, copy),
            "Hugging Face to vidjax": (convert(hf, ours), hf, ours),
            "vidjax to Hugging Face": (convert(ours, hf2, "--format=hf"), ours, hf2),
            "vidjax to PyTorch": (convert(ours, original, "--format=original"), ours, original),
            "PyTorch to vidjax": (convert(original / "checkpoint.pth", again), original, again),
        }
        start = [harness.whole_process(_START) for _ in range(max(settings.rounds, 2))]
        runs: dict[str, dict[str, list]] = {name: {"warm": [], "cold": []} for name in ways}
        for _ in range(settings.rounds):
            for cache in ("warm", "cold"):
                for name, (command, source, target) in ways.items():
                    runs[name][cache].append(_timed(command, source, target, cache == "cold"))
        both = {checksums.sha256(path / file.name) for path in (hf, hf2)}
        return {
            "file_bytes": file.stat().st_size,
            "folder_bytes": sum(x.stat().st_size for x in ours.rglob("*")),
            "start": harness.summaries(start[1:], _KEYS),  # the first one reads from the disk
            "ways": {
                name: {cache: harness.summaries(of, _KEYS) for cache, of in caches.items()}
                for name, caches in runs.items()
            },
            "whole_file_reproduced": len(both) == 1,
        }


def render(report: Mapping[str, Any]) -> str:
    """Returns a sentence on the file, and a table of commands."""
    size, start, ways = report["file_bytes"], report["start"], report["ways"]
    rows = []
    for name, caches in ways.items():
        for cache, measured in caches.items():
            row = {
                "command": f"{name}, {cache} cache",
                "seconds": measured["seconds"],
                "CPU seconds": measured["cpu_seconds"]["median"],
            }
            if name != _COPY:
                copy = ways[_COPY][cache]["seconds"]["median"]
                seconds = measured["seconds"]["median"]
                row["of cp"] = seconds / copy
                row["of cp, without start"] = (seconds - start["seconds"]["median"]) / copy
                row["peak / file"] = _peak(report, measured)
            rows.append(row)
    text = (
        f"The file has {size / 1e9:.2f} GB, the vidjax folder {report['folder_bytes'] / 1e9:.2f}; "
        f"{page.number(start['seconds']['median'])} s of each command are its start; the exported "
        f"file {'is' if report['whole_file_reproduced'] else 'is NOT'} the first one byte for byte."
    )
    return f"{text}\n\n{page.table(rows)}"


def _peak(report: Mapping[str, Any], measured: Mapping[str, Any]) -> float:
    """Returns the peak memory above that of a process that only imports, relative to the file."""
    above = measured["peak_bytes"]["max"] - report["start"]["peak_bytes"]["median"]
    return above / report["file_bytes"]


def _commands(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((name, caches) for name, caches in report["ways"].items() if name != _COPY)


def _peaks(report: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} {max(_peak(report, measured) for measured in caches.values()):.2f} x"
        for name, caches in _commands(report)
    )


def _copies(report: Mapping[str, Any]) -> str:
    copy = report["ways"][_COPY]["warm"]["seconds"]["median"]
    return "; ".join(
        f"{name} {caches['warm']['seconds']['median'] / copy:.1f} x"
        for name, caches in _commands(report)
    )


GOALS = {
    "conversion of 1.2 GB: peak at most 1.3 x the file above the start": _peaks,
    "conversion of 1.2 GB: at most 3 x the time of copying it": _copies,
}
