"""Eight CPU devices, full-precision products, one demo set for the whole session."""

import os
import pathlib
import tempfile

# Before jax first looks for devices.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

jax.config.update("jax_default_matmul_precision", "highest")
# Compiling is most of the suite's time; the cache lies outside the repository.
jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.get("JAX_COMPILATION_CACHE_DIR") or f"{tempfile.gettempdir()}/vidjax_test_cache",
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> pathlib.Path:
    """A small demo set: 32 training and 16 validation clips."""
    from vidjax.data import demo

    return pathlib.Path(
        demo.make(tmp_path_factory.mktemp("demo") / "set", num_train=32, num_val=16)
    )
