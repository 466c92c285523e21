"""Suite `data` compares like with like, and its growth of memory is what it says."""

import numpy as np
import pytest

from benchmarks import videos
from benchmarks.suites import data, readers
from vidjax.data import frame_cache
from vidjax.data.frames import clips
from vidjax.data.reading import decord_reader
from vidjax.preprocessing import Preprocessing

needs_decord = pytest.mark.skipif(not decord_reader.is_installed(), reason="needs decord")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return videos.make_videos(folder, 12, count=1, frames=70, height=64, width=96)[0]


def make(variant, file, recipe):
    read, recipes = readers.VARIANTS[variant]()
    assert recipe in recipes
    cfg = readers.settings_of(recipe, size=48, short_side=48)
    return read(*file, recipe, cfg, np.random.default_rng(5))


@needs_decord
@pytest.mark.parametrize("recipe", ["pre-training", "fine-tuning", "evaluation"])
def test_all_variants_read_the_same_frames(file, recipe):
    bare = make("decord", file, recipe)
    assert bare.shape == (16, 64, 96, 3)
    assert np.array_equal(bare, make("PyAV", file, recipe))
    ours = make("vidjax", file, recipe)
    assert np.array_equal(ours, make("vidjax, decord", file, recipe))
    cfg, rng = readers.settings_of(recipe, size=48, short_side=48), np.random.default_rng(5)
    if recipe == "evaluation":
        facts = Preprocessing.from_config(cfg)
        assert np.array_equal(ours, clips.eval_views(bare, facts))
    else:
        readers.indices(recipe, file[1], cfg, rng)  # drawn before the crop
        assert np.array_equal(ours, clips.train_clip(bare, rng, cfg))


def test_a_cache_is_measured_by_the_clip(file, monkeypatch):
    _, once = readers.cached({"made": [file], "demo": [file]}, "20MB", 48, 16)
    once()
    monkeypatch.setattr(frame_cache, "read_frames", None)  # all is kept by now
    figures = once()
    assert {*figures} == {f"{g}/{kind}" for g in ("made", "demo") for kind in ("ms", "cpu_ms")}
    summary = {key: {"median": x, "min": x, "max": x, "n": 1} for key, x in figures.items()}
    rows = data._cache_table({"cache": {"memory": {"figures": summary}}})
    assert "| memory: made |" in rows and "| memory: demo |" in rows


def test_growth_of_memory_leaves_out_the_start():
    memory = {done: 10**8 + 250.0 * done for done in range(500, 10_001, 500)}
    memory |= {500: 10.0, 1000: 20.0}  # while caches fill
    found = data.slope(memory)
    assert found["bytes_per_clip"] == pytest.approx(250)
    assert found["error"] == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(0).normal(0, 1e6, len(memory))
    noisy = {done: size + one for (done, size), one in zip(memory.items(), noise, strict=True)}
    found = data.slope(noisy)
    assert 0 < found["error"] < 200
    assert abs(found["bytes_per_clip"] - 250) < 4 * found["error"]
