import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vidjax import evaluators
from vidjax.errors import UserError
from vidjax.evaluators import check_views
from vidjax.evaluators.classification import accuracies, certainty, confusion, figure, ranks
from vidjax.evaluators.reconstruction import figure as reconstruction_figure


def context(batches, num_videos, **predict):
    return evaluators.Context(
        predict=predict,
        batches=lambda split, views: iter(batches),
        num_videos=lambda split: num_videos,
        num_classes=3,
    )


def batch(logits, video_id, label, weight):
    return {
        "logits": jnp.asarray(logits, jnp.float32),
        "video_id": jnp.asarray(video_id),
        "label": jnp.asarray(label),
        "weight": jnp.asarray(weight, jnp.float32),
    }


def logits_of(params, batch):
    return batch["logits"]


def evaluate(entry, batches, num_videos, **predict):
    predict = predict or {"logits": logits_of}
    built = evaluators.build({"x": entry}, context(batches, num_videos, **predict))
    return built["x"][0].run(None)


def run(*args, **predict):
    return evaluate(*args, **predict).metrics


# Two views of three videos; the last batch is padded with a confident wrong answer.
VIEWS = [
    batch([[9, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 0, 1], [1, 1, 2], [1, 1, 1]),
    batch([[0, 0, 1], [2, 1, 0], [1, 2, 0]], [1, 2, 2], [2, 0, 0], [1, 1, 1]),
    batch([[99, 0, 0], [99, 0, 0], [99, 0, 0]], [0, 1, 2], [1, 2, 0], [0, 0, 0]),
]


def test_padding_does_not_count_and_ties_are_wrong():
    found = run({"name": "classification", "views": (2, 1)}, VIEWS, 3)
    # Video 0 is wrong, video 1 right, and video 2 ties between classes 0 and 1.
    expected = {"top1": 1 / 3, "top5": 1.0, "videos": 3, "unreadable": 0}
    expected |= {"mean_class_top1": 1 / 3, "chance": 1 / 3, "top1_low": 0.0615, "top1_high": 0.7923}
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("average", "top1"), [("softmax", 1.0), ("logits", 0.0)])
def test_views_are_averaged_as_asked(average, top1):
    # One loud wrong view against two that are right: probabilities outvote it, logits do not.
    views = [batch([[9, 0, 0], [0, 2.9, 0], [0, 2.9, 0]], [0] * 3, [1] * 3, [1] * 3)]
    entry = {"name": "classification", "views": (3, 1), "average": average}
    assert run(entry, views, 1)["top1"] == top1


def test_partial_or_double_counts_are_a_bug():
    with pytest.raises(RuntimeError, match="1 of 3 videos"):
        check_views(np.array([2, 2, 1]), 2)
    with pytest.raises(RuntimeError, match="1 of 3 videos"):
        check_views(np.array([2, 4, 2]), 2)


def test_unreadable_videos_are_left_out_and_counted():
    batches = [batch([[9, 0, 0], [0, 9, 0]], [0, 2], [0, 0], [1, 1])]
    found = run({"name": "classification"}, batches, 3)
    expected = {"top1": 0.5, "top5": 1.0, "videos": 2.0, "unreadable": 1.0}
    expected |= {"mean_class_top1": 0.5, "chance": 1.0, "top1_low": 0.0945, "top1_high": 0.9055}
    assert found == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UserError, match="no video"):
        check_views(np.array([0, 0]), 1)


def test_accuracy_comes_with_its_interval_chance_and_confusion():
    # Four videos of class 0, of which three are right, and one of class 2, a tie with class 0.
    logits = [[9, 0, 0], [9, 0, 0], [9, 0, 0], [0, 9, 0], [1, 0, 1]]
    found = evaluate(
        {"name": "classification"}, [batch(logits, range(5), [0, 0, 0, 0, 2], [1] * 5)], 5
    )
    assert found.metrics["mean_class_top1"] == (3 / 4 + 0) / 2 and found.metrics["chance"] == 0.8
    (line,) = found.lines
    assert line.startswith("3 of 5 right, 60.0% (95% interval 23.1 to 88.2); chance 80.0%")
    picture = found.pictures["confusion"]
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    right = np.array([True, True, True, False, False])
    counts = confusion(np.array(logits, float), np.array([0, 0, 0, 0, 2]), right)
    np.testing.assert_array_equal(counts, [[3, 1, 0], [0, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize(("right", "videos"), [(41, 48), (0, 10), (10, 10), (1, 1)])
def test_interval_of_few_videos_is_wilsons(right, videos):
    found = certainty(np.arange(videos) < right, np.zeros((videos, 1), int))
    expected = stats.binomtest(right, videos).proportion_ci(method="wilson")
    assert (found["top1_low"], found["top1_high"]) == pytest.approx(expected, abs=1e-4)


def test_confusion_matrices_are_legible_or_not_drawn():
    def drawn(classes):
        logits = np.eye(classes)[:6]
        made = context([batch(logits, range(6), range(6), [1] * 6)], 6, logits=logits_of)
        names = tuple(f"{'very ' * 9}{i}" if i % 2 else f"été {i}" for i in range(classes))
        made = dataclasses.replace(made, num_classes=classes, classes=lambda split: names)
        return evaluators.build({"x": {"name": "classification"}}, made)["x"][0].run(None).pictures

    sizes = [drawn(classes)["confusion"].shape for classes in (6, 30, 100)]
    assert max(map(max, sizes)) < 1600
    assert not drawn(101)
    # Names in other letters than Pillow's font has become numbers, not boxes.
    found = [figure(np.eye(2, dtype=int), names).size for names in (("猫", "b"), ("class 0", "b"))]
    assert found[0] == found[1]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_constant_scores_are_not_right(value):
    found = ranks([np.full((4, 9), value)], np.zeros((4, 1), int))
    assert accuracies(found) == {"top1": 0.0, "top5": 0.0}


def test_several_answers_are_ranked_one_by_one_and_together():
    # Two nouns, three verbs. Video 0 has both right, video 1 only its noun.
    logits = [[0, 2, 1, 0, 0], [3, 0, 0, 2, 0], [0, 0, 0, 0, 0]]
    batches = [batch(logits, [0, 1, 1], [[1, 0], [0, 2], [0, 0]], [1, 1, 0])]
    groups = dict(groups=(("noun", 2), ("verb", 3)))
    for average in ("softmax", "logits"):
        entry = {"name": "classification", "average": average}
        made = context(batches, 2, logits=logits_of)
        made = dataclasses.replace(made, num_classes=5, **groups)
        found = evaluators.build({"x": entry}, made)["x"][0].run(None).metrics
        assert found["noun_top1"] == 1.0 and found["verb_top1"] == 0.5 and found["top1"] == 0.5
        assert found["noun_top5"] == found["verb_top5"] == 1.0


def test_an_action_scores_the_product_of_its_probabilities():
    rng = np.random.default_rng(0)
    nouns, verbs = rng.normal(size=(20, 4)), 3 * rng.normal(size=(20, 3))
    labels = np.stack([rng.integers(4, size=20), rng.integers(3, size=20)], axis=1)
    found = ranks([nouns, verbs], labels, are_logits=True)
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (nouns, verbs))
    actions = (p[:, :, None] * q[:, None, :]).reshape(20, 12)
    own = np.take_along_axis(actions, (labels[:, :1] * 3 + labels[:, 1:]), 1)
    np.testing.assert_array_equal(found, (actions > own).sum(1))
    assert (ranks([nouns, verbs], labels) != found).any()  # of products of logits


def test_loss_ignores_padding():
    batches = [
        {"weight": jnp.array([1.0, 1.0]), "value": jnp.array([1.0, 2.0])},
        {"weight": jnp.array([1.0, 0.0]), "value": jnp.array([6.0, np.nan])},
    ]

    def losses(params, batch):
        return {"loss": batch["value"]}

    found = run({"name": "loss"}, batches, 3, loss=losses)
    assert found == {"loss": 3.0, "videos": 3.0}


def test_figure_has_a_row_per_name_and_clip():
    rows = {f"{i} x": np.full((3, 8, 16, 16, 3), i / 4, np.float32) for i in range(3)}
    image = reconstruction_figure(rows, clips=2, columns=4, scale=2)
    assert image.width == 4 * (32 + 4) + 4
    pixels = np.asarray(image)
    middle = [4 + 14 + 16 + row * (32 + 14) for row in range(3)]
    assert [pixels[y, 20, 0] for y in middle] == [0, 64, 128]


def test_picture_skips_what_could_not_be_read():
    batches = [{"weight": jnp.zeros(2)}, {"weight": jnp.array([0.0, 1.0])}]

    def pictures(params, batch):
        return {"1 original": jnp.stack([jnp.full((2, 16, 16, 3), v) for v in (1.0, 0.5)])}

    entry = {"name": "reconstruction", "scale": 1}
    found = evaluate(entry, batches, 2, reconstruction=pictures)
    assert found.metrics == {} and list(found.pictures) == ["reconstruction"]
    pixels = found.pictures["reconstruction"]
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] < 2 * (16 + 14) and pixels[4 + 14 + 8, 8, 0] == 128


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "clasification"}, "must be one of"),
        ({"name": "classification", "view": (1, 1)}, "unknown keys"),
        ({"name": "classification", "average": "mean"}, "'softmax' or 'logits'"),
        ({"name": "reconstruction"}, "predicts 'reconstruction'"),
    ],
)
def test_wrong_entries_are_answered(entry, message):
    with pytest.raises(UserError, match=message):
        run(entry, [], 1)


def test_names_of_several_evaluators():
    """Pictures are known by their evaluators only where several have the same name."""

    class Fake:
        def __init__(self, *pictures):
            self.pictures = pictures

        def run(self, params):
            pictures = {name: np.zeros((1, 1, 3), np.uint8) for name in self.pictures}
            return evaluators.Evaluation({"top1": params}, pictures)

    both = {"val": (Fake("confusion"), 1), "test": (Fake("confusion", "mistakes"), 0)}
    found = evaluators.run_all(both, 0.5)
    assert found.metrics == {"val/top1": 0.5, "test/top1": 0.5}
    assert list(found.pictures) == ["val/confusion", "test/confusion", "mistakes"]
