"""Suite `convert`: published weights in and out, beside copying the file; and loading a folder."""

import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from benchmarks import harness
from converters import formats
from converters.mapping import from_params
from converters.videomae import architecture, hf
from vidjax import checksums, models

GOALS = {"peak": 1.3, "time": 3.0}  # of the file's size, and of the time that copying it takes
_START = [sys.executable, "-c", "from converters import convert, videomae"]
_CONVERT = [sys.executable, "-m", "converters.convert"]


def make_checkpoint(folder: pathlib.Path, variant: str, size: int = 224) -> pathlib.Path:
    """Writes a random classifier of frames of `size` pixels in Hugging Face's layout.

    Returns its weights' file.
    """
    model = models.build(
        "videomae", variant, head="classify", num_classes=400, eps=1e-12, fc_norm_eps=1e-5
    )
    rng = np.random.default_rng(0)
    want = traverse_util.flatten_dict(models.abstract_params(model), sep="/")
    params = {k: rng.standard_normal(v.shape, np.float32) * 0.02 for k, v in want.items()}
    sizes = models.config_of(model)
    folder.mkdir()
    path = folder / "model.safetensors"
    formats.write_safetensors(
        path,
        from_params(
            params, architecture.rules(sizes, architecture.Naming(encoder="videomae."), hf.FORMAT)
        ),
    )
    config = {
        "model_type": "videomae",
        "image_size": size,
        "architectures": ["VideoMAEForVideoClassification"],
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["num_heads"],
        "intermediate_size": sizes["mlp_dim"],
        "id2label": {str(k): f"class {k}" for k in range(400)},
        "label2id": {f"class {k}": k for k in range(400)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return path


def made_apart(folder: pathlib.Path, variant: str, size: int = 224) -> pathlib.Path:
    """`make_checkpoint` in another process: ru_maxrss of children begins at their parent's peak."""
    code = "import pathlib, sys; from benchmarks import conversion as c; "
    code += "c.make_checkpoint(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
    harness.whole_process([sys.executable, "-c", code, str(folder), variant, str(size)])
    return folder / "model.safetensors"


def _forget(path: pathlib.Path) -> None:
    """Lets the system drop files from its cache, so that they are read from the disk again."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(command: list[str], source: pathlib.Path, target: pathlib.Path, cold: bool) -> dict:
    """A command from start until what it wrote is on the disk."""
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


def vidjax_load(folder: str) -> tuple[dict, Any]:
    """Variant: the converted folder as a model on the device."""
    import jax

    from vidjax import load_model

    return {}, lambda: jax.block_until_ready(load_model(folder).params) and None


def hf_load(folder: str) -> tuple[dict, Any]:
    """Variant: the same of transformers."""
    import transformers

    def once() -> None:
        model = transformers.VideoMAEForVideoClassification.from_pretrained(folder)
        sum(float(x.flatten()[0]) for x in model.parameters())  # so that it is read

    return {}, once


def run(settings: harness.Settings) -> dict[str, Any]:
    """Measures; see the module."""
    with harness.scratch() as folder:
        hf = made_apart(folder / "hf", "S" if settings.quick else "L")
        ways = {
            "cp of the file": (["cp", str(hf), f"{folder}/copy"], hf, folder / "copy"),
            "Hugging Face to vidjax": _way(folder, "hf", "vidjax"),
            "vidjax to Hugging Face": _way(folder, "vidjax", "hf2", "hf"),
            "vidjax to PyTorch": _way(folder, "vidjax", "original", "original"),
            "PyTorch to vidjax": _way(folder, "original", "vidjax2"),
        }
        start = [harness.whole_process(_START) for _ in range(max(settings.rounds, 2))]
        runs: dict[str, dict[str, list]] = {name: {"warm": [], "cold": []} for name in ways}
        for _ in range(settings.rounds):
            for cache in ("warm", "cold"):
                for name, (command, source, target) in ways.items():
                    runs[name][cache].append(_timed(command, source, target, cache == "cold"))
        same = checksums.sha256(hf) == checksums.sha256(folder / "hf2" / hf.name)
        children = {
            "vidjax": harness.Child(
                "benchmarks.conversion", "vidjax_load", folder=f"{folder}/vidjax"
            ),
            "transformers": harness.Child(
                "benchmarks.conversion", "hf_load", folder=f"{folder}/hf"
            ),
        }
        return {
            "file_bytes": hf.stat().st_size,
            "folder_bytes": sum(x.stat().st_size for x in (folder / "vidjax").rglob("*")),
            "goals": GOALS,
            "start": _summaries(start[1:]),  # the first one reads the libraries from the disk
            "ways": {
                name: {cache: _summaries(found) for cache, found in both.items()}
                for name, both in runs.items()
            },
            "whole_file_reproduced": same,
            "loading": harness.interleave(children, settings.rounds),
        }


def _way(folder: pathlib.Path, source: str, target: str, format: str = "") -> tuple:
    command = [*_CONVERT, f"--from={folder}/{source}", f"--to={folder}/{target}"]
    if source == "original":
        command[-2] += "/checkpoint.pth"
    command += [f"--format={format}"] if format else []
    return command, folder / source, folder / target


def _summaries(runs: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("seconds", "cpu_seconds", "peak_bytes")
    return {key: harness.summary(run[key] for run in runs) for key in keys}


def render(report: Mapping[str, Any]) -> str:
    """The tables of a report."""
    size, start = report["file_bytes"], report["start"]
    rows = []
    for name, both in report["ways"].items():
        own = name.startswith("cp ")
        for cache, figures in both.items():
            copy = report["ways"]["cp of the file"][cache]["seconds"]["median"]
            seconds = figures["seconds"]["median"]
            # What the command pays for Python and its modules, whatever the file's size.
            work = seconds - (0 if own else start["seconds"]["median"])
            peak = (figures["peak_bytes"]["max"] - start["peak_bytes"]["median"]) / size
            rows.append(
                [
                    f"{name}, {cache} cache",
                    harness.spread(figures["seconds"]),
                    harness.number(figures["cpu_seconds"]["median"]),
                    "-" if own else harness.number(seconds / copy),
                    "-" if own else harness.number(work / copy),
                    "-" if own else harness.number(peak),
                ]
            )
    header = ["command", "seconds", "CPU seconds", "of cp", "of cp, without start", "peak / file"]
    loading = [
        [name, "-", "-", "-"] if "failed" in found else
        [
            name,
            harness.spread(found["seconds"]),
            harness.number(found["first_seconds"]),
            harness.number(found["peak_bytes"] / size),
        ]
        for name, found in report["loading"].items()
    ]  # fmt: skip
    goals = report["goals"]
    return "\n\n".join(
        [
            f"A random VideoMAE of {size / 1e9:.2f} GB (the vidjax folder has "
            f"{report['folder_bytes'] / 1e9:.2f} GB). Seconds are of the whole command, from its "
            f"start until all that it wrote is on the disk (sync), medians with minimum and "
            f"maximum; {harness.number(start['seconds']['median'])} of them are for starting "
            f"Python and importing the same modules. With a cold cache the source is read from "
            f"the disk. The peak is what the process had in memory at most (ru_maxrss, the largest "
            f"of all runs; it would count mapped files, but the converter maps none) above one "
            f"that only imports. Goals: at most {goals['peak']} of the file, and {goals['time']} "
            f"times the copy. Each command reads back what it wrote and compares all bytes; the "
            f"exported file is "
            + ("the first one" if report["whole_file_reproduced"] else "NOT the first one")
            + " byte for byte.",
            harness.table(header, rows),
            "Loading it again and again in one process (peak of the whole process):",
            harness.table(["", "seconds", "the first time", "peak / file"], loading),
        ]
    )
