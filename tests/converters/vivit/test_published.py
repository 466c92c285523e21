"""The published ViViTs: sizes, and data sets."""

import numpy as np
import pytest

from converters import formats, vivit
from converters.vivit import published
from tests.support.converting import reread, zeros
from tests.support.sources.vivit import described, weights_of
from vidjax import models, pretrained
from vidjax.card import Card
from vidjax.preprocessing import Preprocessing

SIZES = {  # of the fact sheet: model, clip, parameters
    "B joint": ({"variant": "B", "num_classes": 400}, (32, 224, 224), 88_954_000),
    "B encoder": (
        {"variant": "B", "num_classes": 400, "factorisation": "encoder"},
        (32, 224, 224),
        115_062_928,
    ),
    "L encoder, 24 layers": (
        {"variant": "L", "num_classes": 400, "factorisation": "encoder", "temporal_depth": 24},
        (32, 224, 224),
        606_827_920,
    ),
    "L encoder, SSv2": (
        {"variant": "L", "num_classes": 174, "factorisation": "encoder"},
        (32, 256, 256),
        354_671_790 + (256 - 196) * 1024,  # the sheet counts 224 pixels
    ),
    "B self-attention": (
        {"variant": "B", "num_classes": 400, "factorisation": "self_attention", "pool": "mean"},
        (32, 224, 224),
        117_319_312,
    ),
    "B dot-product": (
        {"variant": "B", "num_classes": 400, "factorisation": "dot_product", "pool": "mean"},
        (32, 224, 224),
        88_952_464,
    ),
}


@pytest.mark.parametrize("size", SIZES)
def test_tables_cover_every_published_size(size):
    """Names and shapes alone lead back to the model, through every format."""
    fields, clip, count = SIZES[size]
    model = models.build("vivit", head="classify", eps=1e-6, clip=clip, **fields)
    params = zeros(model)
    assert sum(value.size for value in params.values()) == count
    card = Card(models.config_of(model), Preprocessing())
    factorisation = model.config["factorisation"]
    joint = factorisation == "joint"
    for format in ("hf", "original", "npz") if joint else ("original", "npz"):
        hint = factorisation if factorisation == "dot_product" else None
        _, conversion = reread(vivit, card, params, format, factorisation=hint)
        again = models.build(**conversion.model)
        assert pretrained.param_specs(again) == pretrained.param_specs(model)
        for key in ("factorisation", "pool", "num_heads", "pos_grid", "patch_size", "eps"):
            assert again.config.get(key) == model.config.get(key), (format, key)
        facts = conversion.preprocessing
        assert (facts.frames, facts.size, facts.short_side) == (*clip[:2], clip[1] + 32)
        assert (facts.temporal_views, facts.spatial_views) == (4, 3)
        assert facts.stride == (1 if fields["num_classes"] == 174 else 2)


def test_published_checkpoints_and_their_data(tmp_path):
    assert all(checkpoint.what for checkpoint in published.CHECKPOINTS.values())
    weights = weights_of("vivit_factorised_encoder")
    folder = tmp_path / "vivit/epic_kitchens/vivit_large_16x2_fe"
    folder.mkdir(parents=True)
    formats.write_msgpack(folder / "checkpoint", weights)
    card, _, notes = described(folder)
    assert "published as ViViT-L/16x2 factorised encoder, Epic-Kitchens" in notes
    facts = card.preprocessing
    assert (facts.stride, facts.spatial_views) == (1, 1)


def test_noun_and_verb_of_epic_kitchens(tmp_path):
    weights = weights_of("vivit_factorised_encoder")
    weights["output_projection/kernel"] = np.zeros((36, 397), np.float32)
    weights["output_projection/bias"] = np.zeros(397, np.float32)
    formats.write_npz(tmp_path / "a.npz", weights)
    card, _, notes = described(tmp_path / "a.npz")
    assert "taken as Epic-Kitchens's 300 nouns and 97 verbs" in notes
    assert card.model["groups"] == [["noun", 300], ["verb", 97]]
