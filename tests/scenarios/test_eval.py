import json

import pytest

from vidjax import eval as evaluation
from vidjax import pretrained, train
from vidjax.card import Card, read_card
from vidjax.errors import UserError


@pytest.fixture(scope="module")
def workdir(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval") / "run"
    train.train(small("videomae_k400_finetune", evals=True), folder)
    return folder


def test_eval_repeats_what_training_measured(small, workdir, tmp_path):
    config = small("videomae_k400_finetune", evals=True)
    found = evaluation.evaluate(config, str(workdir), tmp_path / "out")
    assert found == json.loads((workdir / "DONE").read_text())
    report = json.loads((tmp_path / "out/results.json").read_text())
    assert report["results"] == found
    assert "3x1 views" in " ".join(report["protocol"])


def test_numerics_come_from_the_checkpoint(small, workdir, tmp_path):
    card = read_card(workdir)
    model = card.model | {"eps": 1e-3}
    preprocessing = json.loads((workdir / "model.json").read_text())["preprocessing"]
    preprocessing |= {"mean": [0.5] * 3, "std": [0.5] * 3, "resize": "pil_bilinear"}
    other = Card(model, type(card.preprocessing)(**preprocessing), card.classes, card.provenance)
    pretrained.save_pretrained(tmp_path / "other", pretrained.load_params(workdir), other)
    config = small("videomae_k400_finetune", evals=True)
    evaluation.evaluate(config, str(tmp_path / "other"), tmp_path / "out")
    report = json.loads((tmp_path / "out/results.json").read_text())
    assert "pil_bilinear" in report["protocol"][0]
    setup = evaluation.Setup(config, str(tmp_path / "other"))
    assert setup.model.config["eps"] == 1e-3
    assert setup.objective.preprocessing.mean == (0.5,) * 3


def test_wrong_checkpoints_are_answered_and_leave_nothing(small, workdir, tmp_path):
    config = small("videomae_k400_finetune", evals=True)
    with pytest.raises(UserError, match="nowhere"):
        evaluation.evaluate(config, str(tmp_path / "nowhere"), tmp_path / "nowhere/eval")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(UserError, match="has head 'classify'"):
        evaluation.evaluate(small(evals=True), str(workdir), tmp_path / "out")
