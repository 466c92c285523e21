"""Origin of measured numbers: machine, versions, commit and date."""

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

from vidjax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = """
    jax jaxlib flax optax orbax-checkpoint numpy grain decord av torch transformers tokamax libtpu
"""


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def origin(*, gpu: str | None = None, commit: str | None = None) -> dict[str, Any]:
    """Returns what a report says about where it was made.

    Args:
        gpu: see `gpu_name`.
        commit: of a copy that is no git repository.
    """
    machine = {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "load_before": os.getloadavg()[0],
    }
    if gpu:
        machine["gpu"] = gpu
    versions = {"python": platform.python_version()}
    for package in _PACKAGES.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "machine": machine,
        "versions": versions,
        "commit": commit or _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "uncommitted_changes": bool(_git("status", "--porcelain", "vidjax", "converters")),
        "date": datetime.date.today().isoformat(),
    }


def gpu_name() -> str:
    """Returns name and driver of the first NVIDIA GPU.

    Raises:
        UserError: there is none.
    """
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise UserError(
            "there is no NVIDIA GPU here (nvidia-smi names none); --device=cpu --quick shows that "
            "the command runs"
        ) from None
    return listed.strip().splitlines()[0]


def _cpu() -> str:
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as lines:
        return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    return platform.machine()


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""
