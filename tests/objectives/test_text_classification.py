import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vidjax import augment, models, objectives
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

RNG = np.random.default_rng(0)
INPUT = Preprocessing(mean=(0.4, 0.4, 0.4), std=(0.2, 0.3, 0.2))
TEXT, MASK = ((18, 3, 19), (18, 19, 0), (18, 4, 19)), ((1, 1, 1), (1, 1, 0), (1, 1, 1))
BATCH = {
    "video": RNG.integers(0, 256, (4, 2, 8, 8, 3)).astype(np.uint8),
    "label": np.array([2, 0, 1, 2], np.int32),
}
MODEL = models.build(
    "xclip", head="video_text", width=16, depth=1, num_heads=2, mlp_dim=32, patch_size=(1, 4, 4),
    eps=1e-5, pos_grid=(2, 2, 2), text_width=8, text_num_heads=2, text_depth=1, vocab_size=20,
    context_length=6, embed_dim=8, mit_num_heads=2, prompt_num_heads=2, prompt_depth=1,
)  # fmt: skip


def build(**fields):
    fields = {"text": TEXT, "text_mask": MASK} | fields
    return objectives.build("text_classification", MODEL, INPUT, **fields)


@pytest.fixture(scope="module")
def params():
    return nn.meta.unbox(jax.jit(build().init)(jax.random.key(0), BATCH))


def logits_of(params, video):
    return MODEL.apply({"params": params}, video, jnp.array(TEXT), jnp.array(MASK))


@pytest.fixture(scope="module")
def logits(params):
    video = INPUT.normalise(BATCH["video"])
    return np.asarray(jax.jit(logits_of)(params, video), np.float64)


def cross_entropy(logits, targets):
    log_z = np.log(np.exp(logits).sum(1, keepdims=True))
    return -(targets * (logits - log_z)).sum(1)


def test_similarities_are_class_scores(params, logits):
    objective = build(label_smoothing=0.3)
    loss, figures = jax.jit(lambda p: objective.loss(p, BATCH, rng=jax.random.key(1)))(params)
    targets = 0.7 * np.eye(3)[BATCH["label"]] + 0.1
    np.testing.assert_allclose(loss, cross_entropy(logits, targets).mean(), rtol=1e-5)
    right = (logits.argmax(1) == BATCH["label"]).mean()
    np.testing.assert_allclose(figures["accuracy"], right)
    plain = cross_entropy(logits, np.eye(3)[BATCH["label"]])
    found = jax.jit(objective.predict["loss"])(params, BATCH)["loss"]
    np.testing.assert_allclose(found, plain, rtol=1e-5)


def test_mixed_clips_have_mixed_targets(params):
    objective, rng = build(mixup=0.8), jax.random.key(3)
    mix_rng = jax.random.split(rng, 4)[2]
    video = INPUT.normalise(BATCH["video"])
    video, targets = augment.mix(
        mix_rng, video, jax.nn.one_hot(BATCH["label"], 3), mixup=0.8, cutmix=0.0
    )
    assert 0.01 < np.asarray(targets).max(1).min() < 0.99
    expected = cross_entropy(np.asarray(jax.jit(logits_of)(params, video)), np.asarray(targets))
    found = jax.jit(lambda p: objective.loss(p, BATCH, rng=rng)[0])(params)
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("of_frames", [True, False])
def test_whose_colours_change(params, of_frames):
    objective, rng = build(color_jitter=0.7, grey=0.3, jitter_frames=of_frames), jax.random.key(0)
    jitter = augment.frame_jitter if of_frames else augment.color_jitter
    video = jitter(jax.random.split(rng, 4)[0], jnp.asarray(BATCH["video"]), 0.7, 0.3)
    logits = jax.jit(logits_of)(params, INPUT.normalise(video))
    expected = cross_entropy(np.asarray(logits), np.eye(3)[BATCH["label"]]).mean()
    found = jax.jit(lambda p: objective.loss(p, BATCH, rng=rng)[0])(params)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_predicts_what_a_comparison_does(params, logits):
    predict = build().predict
    batch = {"text": np.array(TEXT), "text_mask": np.array(MASK, bool)}
    texts = jax.jit(predict["text_embedding"])(params, batch)
    found = jax.jit(predict["similarity"])(params, BATCH, texts)
    np.testing.assert_allclose(found, logits, atol=1e-4)
    np.testing.assert_allclose(jax.jit(predict["logits"])(params, BATCH), logits, atol=1e-4)


PAIRS = np.array([[18, 3, 19], [18, 5, 19], [18, 6, 19], [18, 7, 19]])


@pytest.fixture(scope="module")
def return_loss(params):
    """The loss of transformers' XCLIPModel, and its gradient."""
    video = INPUT.normalise(BATCH["video"])

    def loss(params):
        logits = MODEL.apply({"params": params}, video, PAIRS)
        both = [jax.nn.log_softmax(logits, axis) for axis in (0, 1)]
        return -sum(jnp.diagonal(x).mean() for x in both) / 2

    return jax.jit(jax.value_and_grad(loss))(params)


def test_what_only_training_does(params):
    batch = BATCH | {"text": np.array(TEXT[:1] * 4), "text_mask": np.ones((4, 3), bool)}
    model = models.replace(MODEL, drop_path=0.5, depth=2)
    two = nn.meta.unbox(
        jax.jit(model.init)(jax.random.key(0), *(np.zeros((1, 2, 8, 8, 3)), np.zeros((1, 3), int)))
    )
    objective = objectives.build("contrastive", model, INPUT)
    loss = jax.jit(lambda seed: objective.loss(two["params"], batch, rng=jax.random.key(seed))[0])
    assert len({float(loss(seed)) for seed in range(4)}) > 1
    with pytest.raises(UserError, match="drop_tokens to 0"):
        objectives.build("contrastive", MODEL, INPUT, drop_tokens=0.5)


@pytest.mark.parametrize("parts", [1, 2])
def test_contrastive_loss_sees_what_videos_do_to_texts(params, return_loss, parts):
    batch = BATCH | {"text": PAIRS, "text_mask": np.ones_like(PAIRS, bool)}
    objective = objectives.build("contrastive", MODEL, INPUT, parts=parts)
    loss = jax.jit(jax.value_and_grad(lambda p: objective.loss(p, batch, rng=jax.random.key(0))[0]))
    found, gradient = loss(params)
    value, there = return_loss
    np.testing.assert_allclose(found, value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradient, there)
