"""The published VideoMAEs."""

import pytest

from converters import videomae
from converters.videomae import published
from tests.support.converting import reread, zeros
from vidjax import models
from vidjax.card import Card
from vidjax.preprocessing import Preprocessing


def test_published_checkpoints_say_what_they_are():
    for hub_id, checkpoint in published.CHECKPOINTS.items():
        assert checkpoint.what
        assert (checkpoint.sampling == "segment") == hub_id.endswith("finetuned-ssv2")


@pytest.mark.parametrize("variant", ["S", "B", "L", "H", "g"])
@pytest.mark.parametrize("head", [None, "classify", "reconstruct"])
def test_tables_cover_every_published_size(variant, head):
    """Shapes alone lead back to the variant, through either format."""
    fields = {"num_classes": 5} if head == "classify" else {}
    model = models.build("videomae", variant, head=head, eps=1e-6, **fields)
    params = zeros(model)
    card = Card(models.config_of(model), Preprocessing())
    for format in videomae.FORMATS:
        found = reread(videomae, card, params, format)[1].model
        expected = models.config_of(model)
        for key in found:
            if not key.endswith("eps"):
                assert found[key] == expected[key], (format, key)
