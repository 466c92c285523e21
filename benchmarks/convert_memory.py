"""Peak memory of converting a full-size VideoMAE-base checkpoint, in units of its file size.

    python benchmarks/convert_memory.py

Makes a random Hugging Face folder (ViT-B classifier, 400 classes), converts it with the real
command in a child process, and exports it again in another. The peak is the child's VmHWM (Linux)
minus that of a child that only imports the same modules. Writes convert_memory.json beside this.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flax import traverse_util

from converters import formats, videomae
from converters.mapping import from_params
from vidjax import models

LIMIT = 1.5
_CHILD = """
import sys
from converters import convert, videomae
if len(sys.argv) > 1:
    convert.convert(*sys.argv[1:], say=lambda line: None)
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def make_checkpoint(folder: Path) -> int:
    """Writes a random ViT-B classifier in Hugging Face's layout; returns the file's size."""
    model = models.build(
        "videomae", "B", head="classify", num_classes=400, eps=1e-12, fc_norm_eps=1e-5
    )
    rng = np.random.default_rng(0)
    want = traverse_util.flatten_dict(models.abstract_params(model), sep="/")
    params = {k: rng.standard_normal(v.shape, np.float32) * 0.02 for k, v in want.items()}
    naming = videomae.Naming(encoder="videomae.")
    rules = videomae.hf_rules(models.config_of(model), naming)
    path = folder / "model.safetensors"
    formats.write_safetensors(path, from_params(params, rules))
    labels = {str(k): f"class {k}" for k in range(400)}
    (folder / "config.json").write_text(json.dumps({"model_type": "videomae", "id2label": labels}))
    return path.stat().st_size


def peak(*arguments: str) -> tuple[int, float]:
    """Peak resident bytes, and seconds, of a child that calls convert(*arguments)."""
    start = time.perf_counter()
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, *arguments],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(child.stdout.split()[-1]) * 1024, time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hf").mkdir()
        size = make_checkpoint(folder / "hf")
        base, import_seconds = peak()
        results = {}
        for key, arguments in {
            "hf_to_vidjax": (f"{folder}/hf", f"{folder}/vidjax"),
            "vidjax_to_hf": (f"{folder}/vidjax", f"{folder}/again", "hf"),
        }.items():
            source, target, *rest = arguments
            # The first target is kept for the other direction; the others show the spread.
            runs = [peak(source, target + suffix, *rest) for suffix in ("", "_2", "_3")]
            peaks = [run[0] - base for run in runs]
            results[key] = {
                "peak_bytes_above_base": peaks,
                "peak_over_file_size": round(max(peaks) / size, 3),
                "seconds": [round(run[1] - import_seconds, 1) for run in runs],
            }
        same = formats.sha256(folder / "hf/model.safetensors") == formats.sha256(
            folder / "again/model.safetensors"
        )
    packages = ("jax", "flax", "orbax-checkpoint", "numpy", "safetensors")
    report = {
        "file_bytes": size,
        "base_bytes": base,
        **results,
        "whole_file_reproduced": same,
        "limit": LIMIT,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
        "date": datetime.date.today().isoformat(),
    }
    text = json.dumps(report, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n")
    print(text)
    if results["hf_to_vidjax"]["peak_over_file_size"] >= LIMIT:
        sys.exit(f"converting takes more than {LIMIT} times the file's size")


if __name__ == "__main__":
    main()
