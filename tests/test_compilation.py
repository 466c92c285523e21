"""Where compiled programs are kept, and where they are not."""

import os
import pathlib
import stat
import subprocess
import sys

import jax
import pytest

import vidjax
from vidjax import compilation

NAMES = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def cache_home(tmp_path, monkeypatch):
    """Another cache folder of the user, as if nothing had been chosen."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VIDJAX_CACHE", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)


def folder():
    compilation.keep_programs()
    return jax.config.jax_compilation_cache_dir


def test_one_folder_for_each_kind_of_processor(cache_home, monkeypatch):
    first = pathlib.Path(folder())
    assert first.parent == cache_home / "vidjax"
    assert stat.S_IMODE(first.stat().st_mode) == 0o700  # what is in it will be run
    assert jax.config.jax_compilation_cache_max_size == 2 * 2**30
    jax.config.update("jax_compilation_cache_dir", None)
    assert folder() == str(first)
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(compilation.platform, "machine", lambda: "another")
    assert pathlib.Path(folder()).parent == first.parent
    assert jax.config.jax_compilation_cache_dir != str(first)


def test_what_the_user_chose_holds(cache_home, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", "gs://bucket/programs")
    assert folder() == "gs://bucket/programs"
    jax.config.update("jax_compilation_cache_dir", None)
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert folder() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    assert not cache_home.exists()


def test_nothing_is_kept_where_it_cannot_be(cache_home, monkeypatch):
    cache_home.write_text("a file, where a folder is wanted")
    assert folder() is None
    cache_home.unlink()
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert folder() is None
    assert not cache_home.exists()


def test_programs_are_written_there(tmp_path):
    code = (
        "import jax; from vidjax import compilation; compilation.keep_programs()\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "print(jax.jit(lambda x: x * 3)(2))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {
        "PYTHONPATH": str(pathlib.Path(vidjax.__file__).parents[1]),
        "XDG_CACHE_HOME": str(tmp_path),
        "VIDJAX_CACHE": "",
    }
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert said.strip() == "6"
    assert len(list(tmp_path.glob("vidjax/programs-*/jit__lambda*-cache"))) == 1
