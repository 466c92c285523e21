"""VideoPrism's original files, and what formats cannot hold."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from converters import formats
from tests.support.converting import command, same_params, same_tensors
from tests.support.goldens import GOLDENS
from tests.support.sources.videoprism import NPZ, converted, described, lvt_tensors, written
from vidjax import pretrained
from vidjax.card import Card, write_card
from vidjax.errors import UserError


@pytest.mark.parametrize("root", ["params/", ""])
@pytest.mark.parametrize("case", NPZ)
def test_npz_round_trip(tmp_path, case, root):
    tensors = formats.read(GOLDENS / case / "checkpoint.npz")
    tensors = {root + n.removeprefix("params/"): tensors[n] for n in tensors}
    formats.write_npz(tmp_path / "a.npz", tensors)
    card, params, _ = described(tmp_path / "a.npz")
    written(card, params, tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out/checkpoint.npz"), tensors)


def test_layers_of_an_npz_file_one_by_one(tmp_path):
    tensors = {}
    for name, array in lvt_tensors().items():
        if "/x_layers/" in name:
            for i, layer in enumerate(array):
                tensors[name.replace("/x_layers/", f"/x_layers_{i}/")] = layer
        else:
            tensors[name] = array
    formats.write_npz(tmp_path / "a.npz", tensors)
    card, params, _ = described(tmp_path / "a.npz")
    same_params(params, converted("videoprism_lvt")[1])
    written(card, params, tmp_path / "out", "original")
    same_tensors(formats.read(tmp_path / "out/checkpoint.npz"), tensors)


def test_learned_temperature_is_left_out(tmp_path):
    card, params = converted("videoprism_lvt")
    fields = card.model | {"logit_scale": 2.0, "logit_bias": -1.0}
    scalars = {"logit_scale": np.float32(2), "logit_bias": np.float32(-1)}
    tree = traverse_util.unflatten_dict(params | scalars, sep="/")
    card = Card(fields, card.preprocessing)
    pretrained.save_pretrained(tmp_path / "v", jax.tree.map(np.asarray, tree), card)
    report = command(tmp_path / "v", tmp_path / "out", "original")
    assert "logit_scale and logit_bias are left out: no published format has them" in report
    same_tensors(formats.read(tmp_path / "out/checkpoint.npz"), lvt_tensors())


def test_what_other_homes_cannot_express(tmp_path):
    card, params = converted("videoprism_classifier")
    with pytest.raises(UserError, match="a pooler of width 36 instead of the MLP's 144"):
        written(card, params, tmp_path / "a", "hf")
    card = Card(card.model | {"pool_dim": 144}, card.preprocessing)
    with pytest.raises(UserError, match="a pooler of width 144 instead of 36; export by"):
        written(card, params, tmp_path / "b", "original")
    card, params = converted("videoprism_lvt")
    card = Card(card.model | {"text_norm_out": True}, card.preprocessing)
    with pytest.raises(UserError, match="norms after the branches of text layers"):
        written(card, params, tmp_path / "c", "hf")
    card = Card(card.model | {"scale_offset": 0.0, "head": "video"}, card.preprocessing)
    with pytest.raises(UserError, match="KerasHub has no VideoPrism with head 'video'"):
        written(card, params, tmp_path / "d", "keras")


def test_models_that_were_never_published(tmp_path):
    card, params = converted("videoprism_lvt")
    distil, probe = (
        Card(card.model | fields, card.preprocessing)
        for fields in ({"head": "distil"}, {"name": "probe"})
    )
    with pytest.raises(UserError, match="no published format has a VideoPrism with head 'distil'"):
        written(distil, params, tmp_path / "distil", "hf")
    write_card(tmp_path, probe)
    with pytest.raises(UserError, match="models of kind 'probe' have no published format"):
        command(tmp_path, tmp_path / "out", "hf")
