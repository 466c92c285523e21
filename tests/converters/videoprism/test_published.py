"""The published VideoPrisms."""

import shutil

import pytest

from converters import hub, videoprism
from converters.mapping import from_params
from tests.support import hub as support
from tests.support.converting import reread, zeros
from tests.support.goldens import GOLDENS
from tests.support.sources.videoprism import described
from vidjax import models
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

SIZES = {  # of the fact sheet: head, fields, parameters
    "base": (None, {"variant": "B", "pos_grid": (16, 16, 16)}, 114_365_184),
    "large": (None, {"variant": "L", "pos_grid": (8, 16, 16)}, 353_965_056),
    "LvT base": ("video_text", {"variant": "B", "pos_grid": (16, 16, 16)}, 247_623_424),
    "LvT large": ("video_text", {"variant": "L", "pos_grid": (8, 16, 16)}, 579_877_120),
    "LvT giant": ("video_text", {"variant": "g", "pos_grid": (8, 16, 16)}, None),
}


@pytest.mark.parametrize("size", SIZES)
def test_tables_cover_every_published_size(size):
    """Names and shapes alone lead back to the model, through every format."""
    head, fields, count = SIZES[size]
    words = {"vocab_size": 32000} if head else {}
    numerics = {"eps": 1e-6, "scale_offset": 1.0}
    model = models.build("videoprism", head=head, **numerics, **fields, **words)
    params = zeros(model)
    assert count in (None, sum(value.size for value in params.values()))
    for format in videoprism.FORMATS:
        offset = 0.0 if format == "keras" else 1.0
        fields = models.config_of(model) | {"scale_offset": offset}
        card = Card(fields, Preprocessing())
        if size == "LvT giant" and format != "original":
            with pytest.raises(UserError, match=r"norms after the branches|other layers for texts"):
                videoprism.export(card, format, {})
            continue
        source, conversion = reread(videoprism, card, params, format)
        assert any("pre_layer_norm" in n for n in source.tensors) == (size == "LvT giant")
        again = models.build(**conversion.model)
        there = dict(params)
        if conversion.model.get("text_inner_norm"):  # KerasHub's, which the export adds
            there |= {f"text/inner_norm/{k}": params["text/norm/scale"] for k in ("scale", "bias")}
        computed = videoprism.export(card, format, {}).computed
        assert {*from_params(there, conversion.rules), *computed} == set(source.tensors)
        for key in ("depth", "mlp_dim", "num_heads", "pos_grid", "patch_size", "softcap"):
            assert again.config.get(key) == model.config.get(key), (format, key)
        assert again.config["scale_offset"] == offset
        facts = conversion.preprocessing
        assert (facts.frames, facts.size) == (model.config["pos_grid"][0], 288)


def test_published_names_lead_to_one_file():
    for name, entry in videoprism.published.CHECKPOINTS.items():
        files = {
            videoprism.HUB_FILES[alias]
            for alias in (name, f"kaggle://keras/videoprism/keras/{name}/1")
        }
        assert files == {f"{entry.hub}/{entry.file}"}
    assert videoprism.published.CHECKPOINTS["videoprism_lvt_public_v1_large"].hub == (
        "google/videoprism-lvt-large-f8r288"
    )


@pytest.mark.parametrize(
    "name",
    [
        "videoprism_lvt_public_v1_base",
        "google/videoprism-lvt-base-f16r288",
        "google/videoprism-lvt-base-f16r288@main",
        "kaggle://keras/videoprism/keras/videoprism_lvt_public_v1_base/1",
    ],
)
def test_published_names_come_from_the_local_cache(tmp_path, monkeypatch, name):
    cache = support.offline(monkeypatch, tmp_path / "cache")
    snapshot = support.snapshot(cache, "google/videoprism-lvt-base-f16r288")
    entry = videoprism.published.CHECKPOINTS["videoprism_lvt_public_v1_base"]
    shutil.copyfile(GOLDENS / "videoprism_lvt/checkpoint.npz", snapshot / entry.file)
    found = hub.resolve(name)
    path = found.path
    assert path == snapshot / entry.file
    assert found.repository == snapshot
    assert found.origin == f"google/videoprism-lvt-base-f16r288@abc123/{entry.file}"
    notes = described(path, hub_id=name.partition("@")[0])[2]
    assert "published as VideoPrism-LvT-B (videoprism_lvt_public_v1_base)" in notes
