"""Sizes of ViViT's four factorisations against the paper (Arnab et al. 2021, table 2, B/16x2)."""

import jax
import pytest

from benchmarks import flops
from vidjax import models

CLIP = (32, 224, 224)
# Fields, GFLOPs and millions of parameters. The paper counts a multiply and an add as one.
PAPER = {
    "joint": ({}, 455.2, 88.9),
    "encoder": ({"temporal_depth": 4}, 284.4, 115.1),
    "encoder, average": ({"temporal_depth": 0}, 283.9, 86.7),
    "self_attention": ({"pool": "mean"}, 372.3, 117.3),
    "dot_product": ({"pool": "mean"}, 277.1, 88.9),
}


@pytest.mark.parametrize("name", PAPER)
def test_counts_are_the_papers(name):
    fields, gflops, mparams = PAPER[name]
    fields = fields | {"factorisation": name.partition(",")[0], "num_classes": 400, "eps": 1e-6}
    model = models.build("vivit", "B", head="classify", clip=CLIP, **fields)
    params = models.abstract_params(model)
    parameters = sum(x.size for x in jax.tree.leaves(params))
    assert parameters / 1e6 == pytest.approx(mparams, abs=0.06)
    # XLA counts a loop once, be it over layers or, on a CPU, over heads.
    model = models.replace(model, unroll=12, attention="einsum")
    video = jax.ShapeDtypeStruct((1, *CLIP, 3), "float32")

    def forward(params, video):
        return model.apply({"params": params}, video)

    # Only 0.5 GFLOPs lie between the encoder with temporal layers and the one without.
    operations = jax.jit(forward).lower(params, video).cost_analysis()["flops"]
    assert operations / 2e9 == pytest.approx(gflops, abs=0.06)
    assert 0.99 < flops.matmul_flops(forward, params, video) / operations < 1
