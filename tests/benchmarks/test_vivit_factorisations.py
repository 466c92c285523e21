"""The benchmark's counts are the paper's (Arnab et al. 2021, table 2, ViViT-B/16x2)."""

import pathlib
import runpy

import jax
import pytest

from vidjax import models

ROOT = pathlib.Path(__file__).parents[2]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "vivit_factorisations.py"))
CLIP = (32, 224, 224)


@pytest.mark.parametrize("name", BENCHMARK["MODELS"])
def test_counts_are_the_papers(name):
    gflops, mparams = BENCHMARK["PAPER"][name]
    model = BENCHMARK["build"](name, "B", CLIP)
    parameters = sum(x.size for x in jax.tree.leaves(models.abstract_params(model)))
    assert parameters / 1e6 == pytest.approx(mparams, abs=0.06)
    # Only 0.5 GFLOPs lie between the encoder with temporal layers and the one without.
    operations = BENCHMARK["forward_operations"](model, CLIP)
    assert operations / 2e9 == pytest.approx(gflops, abs=0.06)
    products = 2 * sum(BENCHMARK["multiply_adds"](model, CLIP).values())
    assert 0.99 < products / operations < 1
