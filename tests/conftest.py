"""Eight CPU devices, full-precision products, one demo set for the whole session."""

import gc
import importlib.metadata
import os
import pathlib
import signal
import sys
import tempfile

# Jobs in the background ignore Ctrl-C, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before jax first looks for devices. Most of the time goes into compiling tiny programs, which is
# several times as fast unoptimised, in one piece and without MLIR; the parity tier compiles as
# users do. XLA ends the process at a flag it does not know, so other versions go without the last
# three.
if "PYTEST_XDIST_WORKER" not in os.environ:  # which has the flags of the process that started it
    _FLAGS = ["--xla_force_host_platform_device_count=8"]
    if "parity" not in sys.argv:
        _FLAGS.append("--xla_backend_optimization_level=0")
        if importlib.metadata.version("jaxlib").startswith("0.10."):
            _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
            _FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
            # Eight devices on two busy cores may wait for each other for longer than 40 seconds.
            _FLAGS.append("--xla_cpu_collective_call_terminate_timeout_seconds=300")
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])
os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling is most of the suite's time; the cache lies outside the repository. Commands that tests
# start have it, too, and leave the user's own alone.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/vidjax_test_cache")

import jax
import numpy as np
import pytest

jax.config.update("jax_default_matmul_precision", "highest")
# Everything goes there, as most programs are small.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_finish(session):
    """Things that take the tests time, and tell nothing."""
    # Orbax lets all devices write a part of what each of them holds: a program for every slice.
    if "orbax.checkpoint" in sys.modules:
        handler = sys.modules["orbax.checkpoint"].type_handlers.get_type_handler(jax.Array)
        handler._min_slice_bytes_for_replica_parallel = 2**20
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Whole runs come first: their tests share programs, and short tests fill the end."""
    first = ("test_train.py", "test_videoprism_stages.py", "test_xclip_from_clip.py")
    items.sort(key=lambda item: item.path.name not in first)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order(request):
    """A test's random numbers do not depend on which tests ran before it."""
    if hasattr(request.module, "RNG"):
        request.module.RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def _old_objects_are_no_garbage(request):
    """Freezes what JAX keeps of traced programs: millions of objects, which every collection (the
    converter asks for some) would go through again."""
    yield
    if request.config.getoption("markexpr") != "parity":  # its models are gigabytes
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> pathlib.Path:
    """A small demo set: 32 training and 16 validation clips."""
    from vidjax.data import demo

    return pathlib.Path(
        demo.make(tmp_path_factory.mktemp("demo") / "set", num_train=32, num_val=16)
    )


WORDS = ("red shapes sliding left", "blue shapes turning", "a video of green dogs")


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory) -> pathlib.Path:
    """A SentencePiece model of a few words."""
    from vidjax import tokenizers

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    tokenizers.train_tokenizer(WORDS, path, vocab_size=64)
    return path


@pytest.fixture(scope="session")
def clip_tokenizer_file(tmp_path_factory) -> pathlib.Path:
    """A vocabulary of CLIP's kind of a few words."""
    from vidjax import tokenizers

    path = tmp_path_factory.mktemp("clip_tokenizer") / "tokenizer.json"
    tokenizers.train_clip_tokenizer(WORDS, path, vocab_size=560)
    return path


@pytest.fixture
def splash(monkeypatch):
    """Splash attention as on a TPU, but interpreted, and for short sequences, too.

    Returns a list that gets the shape of every query whose attention it computes.
    """
    from vidjax.models.layers import attention

    compiled, shapes = attention.FUSED["splash"], []

    def interpreted(query, key, value, *, softcap):
        shapes.append(query.shape)
        return compiled(query, key, value, softcap=softcap, interpret=True)

    monkeypatch.setattr(attention, "machine", lambda: ("tpu", 0.0))
    monkeypatch.setitem(attention.FUSED, "splash", interpreted)
    monkeypatch.setitem(attention.LONG, "splash", 1)
    return shapes


@pytest.fixture(scope="session")
def small(demo_folder):
    """small(name, evals=False, **overrides): a demo config whose steps take milliseconds."""
    from vidjax import configlib

    def make(name="videomae_k400", *, evals=False, **overrides):
        config = configlib.load(f"configs/{name}.py:demo")
        config.data.update(batch_size=16, frames=4, size=32, short_side=32, workers=0)
        config.data.update({s: str(demo_folder / f"{s}.csv") for s in ("train", "val")})
        config.model.update(width=32, depth=2, num_heads=2, mlp_dim=64, patch_size=(2, 8, 8))
        if config.model.head == "reconstruct":
            config.model.update(decoder_width=24, decoder_depth=1, decoder_num_heads=2)
            config.model.update(decoder_mlp_dim=48)
        config.update(train_steps=4, log_every=2)
        config.optim.update(warmup_epochs=0.0, warmup_steps=1)
        config.checkpoint.every = 100
        if not evals:  # each is one more program to compile
            config.evals = {}
        for key, value in overrides.items():
            config.update_from_flattened_dict({key.replace("__", "."): value})
        return config

    return make
