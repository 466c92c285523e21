"""The published X-CLIPs and CLIPs."""

import pytest

from converters import Options, xclip
from converters.mapping import from_params
from tests.support.converting import reread, zeros
from vidjax import models
from vidjax.card import Card
from vidjax.preprocessing import Preprocessing

SIZES = {  # of the fact sheet of each: variant, positions, heads in transformers, parameters
    "base-patch32": ("B/32", (8, 7, 7), 8, 196_585_729),
    "base-patch16": ("B/16", (8, 14, 14), 8, 194_929_153),
    "large-patch14": ("L/14", (8, 16, 16), 8, 575_673_601),
    "large-patch14-16-frames": ("L/14", (16, 24, 24), 8, 576_007_425),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", ["video_text", "image_text"])
def test_tables_cover_every_published_size(size, head):
    """Names and shapes alone lead back to the model, through every format."""
    variant, grid, hf_heads, count = SIZES[size]
    grid = grid if head == "video_text" else (1, *grid[1:])
    model = models.build("xclip", variant, head=head, eps=1e-5, pos_grid=grid)
    params = zeros(model)
    assert head != "video_text" or sum(value.size for value in params.values()) == count
    card = Card(models.config_of(model), Preprocessing())
    for format in xclip.FORMATS:
        source, conversion = reread(xclip, card, params, format, config=True)
        assert xclip.recognises(source)
        again = models.build(**conversion.model)
        assert set(from_params(params, conversion.rules)) == set(source.tensors)
        assert models.config_of(again) == card.model | {
            key: 4 * card.model[width]
            for key, width in (
                ("text_mlp_dim", "text_width"),
                ("mit_mlp_dim", "embed_dim"),
                ("prompt_mlp_dim", "embed_dim"),
            )
            if key in card.model
        }
        facts = conversion.preprocessing
        assert facts.size == grid[1] * model.patch_size[1]
        assert head != "video_text" or facts.frames == grid[0]
        # As the published config.json has it, whose large models have 8 heads as well.
        if format == "hf" and head == "video_text":
            source.json["config.json"]["vision_config"]["mit_num_attention_heads"] = hf_heads
            notes = "\n".join(xclip.describe(source, Options()).notes)
            assert ("WARNING" in notes) == (variant == "L/14")
            assert variant != "L/14" or "convert with --mit_heads=12" in notes
