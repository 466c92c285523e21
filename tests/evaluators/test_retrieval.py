"""Ranks against brute force, and both evaluators of texts on toy vectors."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax import evaluators, sharding
from vidjax.errors import UserError
from vidjax.evaluators.retrieval import ranks, recalls

WIDTH = 12


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def vectors(seed, *shape):
    return unit(np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def brute_force(texts, videos, owners):
    scores = np.asarray(texts, float) @ np.asarray(videos, float).T
    t2v = [sum(row[j] >= row[own] for j in range(len(videos)) if j != own)
           for row, own in zip(scores, owners, strict=True)]  # fmt: skip
    v2t = []
    for video, column in enumerate(scores.T):
        best = column[owners == video].max()
        v2t.append(sum(column[k] >= best for k in range(len(texts)) if owners[k] != video))
    return t2v, v2t


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_ranks_are_those_of_the_whole_matrix(block):
    owners = np.random.default_rng(1).permutation([*range(13), 3, 3, 7, 12, 0, 0])
    texts, videos = vectors(2, len(owners), WIDTH), vectors(3, 13, WIDTH)
    found = ranks(texts, videos, owners, block)
    expected = brute_force(texts, videos, owners)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert min(found[0]) == 0 and max(found[0]) > 3


def test_only_the_best_caption_of_a_video_counts():
    # Video 0's second caption is nearer to video 1, its first the nearest of all.
    videos = np.array([[1.0, 0.0], [0.0, 1.0]])
    texts = unit(np.array([[1.0, 0.1], [0.2, 1.0], [0.5, 1.0]]))
    t2v, v2t = ranks(texts, videos, np.array([0, 0, 1]))
    assert t2v.tolist() == [0, 1, 0]
    assert v2t.tolist() == [0, 1]  # and for video 1 that second caption is a wrong answer


@pytest.mark.parametrize("width", [3, 768])  # with 768, equal vectors' float32 products differ
def test_equal_scores_count_against(width):
    same = np.repeat(vectors(0, 1, width), 1500, axis=0)
    t2v, v2t = ranks(vectors(1, 1500, width), same, np.arange(1500))
    assert set(t2v) == {1499}
    t2v, v2t = ranks(same, vectors(1, 1500, width), np.arange(1500))
    assert set(v2t) == {1499}
    assert recalls(v2t) == {"r1": 0, "r5": 0, "r10": 0, "median_rank": 1500, "mean_rank": 1500}


def test_nan_counts_against():
    texts, videos = vectors(0, 20, WIDTH), vectors(0, 20, WIDTH)
    assert set(ranks(texts, videos, np.arange(20))[0]) == {0}
    videos[4] = np.nan
    t2v, v2t = ranks(texts, videos, np.arange(20))
    assert t2v[4] == v2t[4] == 19 and set(np.delete(t2v, 4)) == {1} and set(v2t) == {0, 19}


def test_ranks_count_from_one():
    found = recalls(np.array([0, 0, 2, 4, 9, 30]))
    assert found == {
        **{"r1": pytest.approx(2 / 6), "r5": pytest.approx(4 / 6), "r10": pytest.approx(5 / 6)},
        **{"median_rank": 4.0, "mean_rank": pytest.approx(51 / 6)},
    }


# A toy: a "video" is a vector that `put` carries as its pixels; a text is the number of a vector.
class Toy:
    text_length = 1.0

    def __init__(self, vectors, texts, *, views=1, bad=(), batch=8, mesh=None, noise=0.0):
        self.vectors, self.texts, self.views, self.bad = vectors, texts, views, bad
        self.batch, self.mesh, self.noise, self.asked = batch, mesh, noise, []

    def put(self, batch):
        if self.mesh is None:
            return jax.device_put(batch)
        return sharding.put_batch(batch, self.mesh)

    def batches(self, split, views):
        assert views[0] * views[1] == self.views
        ids = np.repeat(np.arange(len(self.vectors)), self.views)
        rng = np.random.default_rng(5)
        clips = self.vectors[ids] + self.noise * rng.standard_normal((len(ids), WIDTH))
        clips[np.isin(ids, self.bad)] = 0
        for start in range(0, len(ids), self.batch):
            part = ids[start : start + self.batch]
            room = self.batch - len(part)
            yield self.put({
                "video": np.float32(np.pad(clips[start : start + self.batch],
                                           ((0, room), (0, 0)), constant_values=7.0)),
                "video_id": np.int32(np.pad(part, (0, room), constant_values=-1)),
                "label": np.int32(np.pad(part % 3, (0, room), constant_values=-1)),
                "weight": np.float32(np.pad(~np.isin(part, self.bad), (0, room))),
            })  # fmt: skip

    def tokenize(self, texts):
        self.asked += texts
        ids = np.array([[int(text.split()[-1].rstrip("."))] for text in texts], np.int32)
        return ids, np.ones_like(ids, bool)

    def context(self):
        def text_embedding(params, batch):
            assert batch["text_mask"].dtype == bool
            x = params["texts"][batch["text"][:, 0]]
            return self.text_length * x / jnp.linalg.norm(x, axis=1, keepdims=True)

        def video_embedding(params, batch):
            x = batch["video"] * params["scale"]
            return x / jnp.linalg.norm(x, axis=1, keepdims=True)

        def similarity(params, batch, texts):
            return video_embedding(params, batch) @ texts.T

        fields = {
            "predict": {
                "video_embedding": video_embedding,
                "text_embedding": text_embedding,
                "similarity": similarity,
            },
            "batches": self.batches,
            "num_videos": lambda split: len(self.vectors),
            "num_classes": 0,
            "captions": lambda split: [(f"number {i}",) for i in range(len(self.vectors))],
            "tokenize": self.tokenize,
            "put": self.put,
            "parts": 1 if self.mesh is None else sharding.batch_parts(self.mesh),
        }
        return evaluators.Context(**fields)

    def run(self, entry=None, **fields):
        entry = entry or {"name": "retrieval", "views": (self.views, 1)}
        if "classes" in fields:
            fields["classes"] = lambda split, names=fields["classes"]: names
        context = dataclasses.replace(self.context(), **fields)
        params = {"texts": jnp.asarray(self.texts), "scale": jnp.float32(1.0)}
        return evaluators.build({"x": entry}, context)["x"][0].run(params).metrics


def test_matching_embeddings_are_found_and_scrambled_ones_by_chance():
    x = vectors(0, 101, WIDTH)
    found = Toy(x, x).run()
    assert found["t2v_r1"] == found["v2t_r1"] == found["v2t_mean_rank"] == 1.0
    assert (found["videos"], found["captions"], found["unreadable"]) == (101, 101, 0)
    scrambled = x[np.random.default_rng(1).permutation(101)]
    found = Toy(x, scrambled).run()
    assert found["t2v_r1"] < 0.05 and found["v2t_r10"] < 0.25
    assert 40 < found["t2v_mean_rank"] < 62 and 40 < found["v2t_median_rank"] < 62


def test_a_mesh_and_padding_change_nothing():
    x = vectors(0, 27, WIDTH)
    texts = x + 0.9 * vectors(1, 27, WIDTH)
    alone = Toy(x, texts, batch=9).run()
    assert 0 < alone["t2v_r1"] < 1 and 0 < alone["v2t_r1"] < 1
    mesh = sharding.make_mesh(SimpleNamespace(data=8, fsdp=1, tensor=1))
    with jax.set_mesh(mesh):
        assert Toy(x, texts, batch=8, mesh=mesh).run() == alone
    assert Toy(x, texts, batch=40).run() == alone


def test_several_captions_and_views():
    x = vectors(0, 11, WIDTH)
    texts = np.concatenate([vectors(9, 11, WIDTH), x])  # the second caption of each is right
    toy = Toy(x, texts, views=3, batch=4, noise=0.05)
    found = toy.run(captions=lambda _: [(f"a {i}", f"b {i + 11}") for i in range(11)])
    assert found["captions"] == 22 and found["v2t_r1"] == 1.0
    assert 0.5 <= found["t2v_r1"] < 0.9
    assert toy.asked == [f"{k} {i + 11 * (k == 'b')}" for i in range(11) for k in "ab"]


def test_unreadable_videos_are_no_answers_and_not_asked_for():
    x = vectors(0, 10, WIDTH)
    # The unreadable one would be every text's nearest, and its text every video's.
    x[4] = unit(x.sum(0))
    texts = 0.1 * x + x[4]
    texts[4] = x[4]
    toy = Toy(x, texts, bad=(4,))
    found = toy.run()
    assert (found["videos"], found["captions"], found["unreadable"]) == (9, 9, 1)
    assert "number 4" not in toy.asked and len(toy.asked) == 9
    alone = Toy(np.delete(x, 4, 0), np.delete(texts, 4, 0)).run()
    assert found == alone | {"unreadable": 1}


def test_lists_without_captions_are_answered():
    x = vectors(0, 3, WIDTH)
    with pytest.raises(UserError, match="which 3 videos of the val split do not have"):
        Toy(x, x).run(captions=None)
    with pytest.raises(UserError, match="which 1 videos"):
        Toy(x, x).run(captions=lambda _: [("0",), (), ("2",)])
    with pytest.raises(UserError, match="no tokeniser"):
        Toy(x, x).run(tokenize=None)
    with pytest.raises(UserError, match="predicts 'text_embedding' and 'video_embedding'"):
        Toy(x, x).run(predict={"logits": None})


ZERO_SHOT = {"name": "zero_shot"}
NAMES = ("0", "1", "2")  # the toy's labels are 0, 1, 2, 0, 1, 2, ...


def test_zero_shot_finds_the_classes_by_their_texts():
    classes = vectors(0, 3, WIDTH)
    x = unit(classes[np.arange(14) % 3] + 0.3 * vectors(1, 14, WIDTH))
    toy = Toy(x, classes, bad=(5,))
    found = toy.run(ZERO_SHOT, classes=NAMES)
    expected = {"top1": 1.0, "top5": 1.0, "videos": 13.0, "unreadable": 1.0, "top1_high": 1.0}
    expected |= {"mean_class_top1": 1.0, "chance": 5 / 13, "top1_low": 0.7719}
    assert found == pytest.approx(expected, abs=1e-4)
    assert toy.asked == ["a video of 0.", "a video of 1.", "a video of 2."]
    wrong = Toy(x, classes[[1, 2, 0]]).run(ZERO_SHOT, classes=NAMES)
    assert wrong["top1"] == 0.0
    same = Toy(x, classes[[1, 1, 1]]).run(ZERO_SHOT, classes=NAMES)
    assert same["top1"] == 0.0  # equal texts are no answer


@pytest.mark.parametrize("average", ["logits", "softmax"])
def test_zero_shot_averages_views_on_a_mesh(average):
    classes = vectors(0, 3, WIDTH)
    x = classes[np.arange(7) % 3]
    entry = ZERO_SHOT | {"views": (2, 3), "average": average}
    mesh = sharding.make_mesh(SimpleNamespace(data=8, fsdp=1, tensor=1))
    with jax.set_mesh(mesh):
        toy = Toy(x, classes, views=6, noise=0.3, mesh=mesh)
        assert toy.run(entry, classes=NAMES)["top1"] == 1.0
    assert toy.asked[:3] == ["a video of 0.", "a video of 1.", "a video of 2."]


def test_templates_are_an_ensemble_of_unit_vectors():
    # Texts i and 3 + i are class i in two templates.
    texts = vectors(0, 6, WIDTH) * np.linspace(1, 9, 6, dtype=np.float32)[:, None]
    toy = Toy(vectors(1, 4, WIDTH), texts)
    toy.tokenize = lambda asked: (
        np.array([[int(t[2]) + 3 * t.startswith("b")] for t in asked]),
        np.ones((len(asked), 1), bool),
    )
    toy.text_length = 3.0  # as X-CLIP's, which are of no certain length
    context = dataclasses.replace(toy.context(), classes=lambda split: NAMES)
    entry = ZERO_SHOT | {"templates": ("a {}", "b {}")}
    evaluator = evaluators.build({"x": entry}, context)["x"][0]
    found = evaluator.class_embeddings({"texts": jnp.asarray(texts)})
    np.testing.assert_allclose(found, 3 * unit(unit(texts[:3]) + unit(texts[3:])), atol=1e-5)
    one = evaluators.build({"x": ZERO_SHOT | {"templates": ("a {}",)}}, context)["x"][0]
    found = one.class_embeddings({"texts": jnp.asarray(texts)})
    np.testing.assert_allclose(found, 3 * unit(texts[:3]), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "entry", "message"),
    [
        ({"classes": None}, {}, "config.data.classes"),
        ({}, {"templates": "a video of {}."}, "tuple of sentences"),
        ({}, {"templates": ("a video",)}, "tuple of sentences"),
        ({"classes": ("0", "1")}, {}, "go from 0 to 2, but must lie from 0 to 1"),
    ],
)
def test_wrong_zero_shot_settings_are_answered(fields, entry, message):
    x = vectors(0, 3, WIDTH)
    with pytest.raises(UserError, match=message):
        Toy(x, x).run(ZERO_SHOT | entry, **{"classes": NAMES} | fields)
