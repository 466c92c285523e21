"""Compiled programs kept on disk, so that the same command starts faster the next time."""

import hashlib
import os
import platform

import jax

from vidjax import files
from vidjax.errors import UserError

_MAX_BYTES = 2 * 2**30  # then the programs that were not used for longest go
# JAX keeps what takes a second or more to compile; a start compiles dozens of smaller programs.
_MIN_SECONDS = 0.1


def keep_programs() -> None:
    """Lets JAX keep what it compiles in a folder of `files.cache_folder`.

    Where the user has chosen by JAX_COMPILATION_CACHE_DIR (a folder, or a bucket that all hosts of
    a pod read) or JAX_ENABLE_COMPILATION_CACHE=false, that holds. In a run of several processes
    nothing is kept unless they say where, as their hosts need not share folders; nor where the
    folder cannot be written. Call it before anything is compiled.
    """
    config = jax.config
    chosen = config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache
    if chosen or jax.distributed.is_initialized():
        return
    try:
        folder = files.cache_folder(f"programs-{_processor()}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, UserError):  # the latter: this user has no home
        return
    if os.access(folder, os.W_OK | os.X_OK):
        config.update("jax_compilation_cache_dir", str(folder))
        config.update("jax_compilation_cache_max_size", _MAX_BYTES)
        config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)


def _processor() -> str:
    """A word for the kind of processor: machines that share a home cannot share programs.

    XLA compiles for the processor that it runs on, and JAX's keys do not tell which one that was.
    """
    lines = [platform.machine()]
    try:
        with open("/proc/cpuinfo") as file:
            kinds = ("model name", "flags", "Features", "CPU part")
            lines += {line for line in file if line.startswith(kinds)}
    except OSError:
        lines.append(platform.processor())
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:12]
