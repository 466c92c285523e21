import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax import configlib
from vidjax.errors import UserError
from vidjax.params import split_params
from vidjax.training import optim

PARAMS = {
    "encoder": {
        "patch_embed": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "blocks": {"attn": {"query": {"kernel": jnp.ones((12, 3, 1, 3))}}},
    },
    "fc_norm": {"scale": jnp.ones(3)},
    "head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
}


def test_schedule_is_the_references():
    # MCG-NJU/VideoMAE utils.py cosine_scheduler(1.2e-3, 1e-5, epochs=4, niter_per_ep=5, warmup=2).
    warmup = np.linspace(0, 1.2e-3, 10)
    i = np.arange(10)
    cosine = 1e-5 + 0.5 * (1.2e-3 - 1e-5) * (1 + np.cos(np.pi * i / 10))
    schedule = optim.cosine_with_warmup(1.2e-3, 1e-5, total=20, warmup=10)
    found = [float(schedule(step)) for step in range(20)]
    np.testing.assert_allclose(found, np.concatenate([warmup, cosine]), rtol=1e-5, atol=1e-9)


def test_rates_follow_the_batch():
    cfg = configlib.base().optim
    cfg.update(lr=1.5e-4, min_lr=1e-5, lr_batch_size=256)
    np.testing.assert_allclose(optim.scaled_rates(cfg, 2048), (1.2e-3, 8e-5))
    cfg.lr_batch_size = 0
    assert optim.scaled_rates(cfg, 2048) == (1.5e-4, 1e-5)


def test_warmup_longer_than_the_run():
    cfg = configlib.base().optim
    cfg.warmup_epochs = 5.0
    with pytest.raises(UserError, match="warm-up of 50 steps"):
        optim.make_schedule(
            cfg, batch_size=8, total=40, warmup=optim.warmup_steps(cfg, steps_per_epoch=10)
        )


def test_layer_factors_are_the_references():
    factors = optim.layer_factors(PARAMS, 0.75)
    # Twelve layers: ids 0 (patches), 1..12 (blocks), 13 (norm and head).
    np.testing.assert_allclose(factors["encoder"]["patch_embed"]["kernel"], 0.75**13, rtol=1e-6)
    blocks = factors["encoder"]["blocks"]["attn"]["query"]["kernel"]
    assert blocks.shape == (12, 1, 1, 1)
    np.testing.assert_allclose(blocks.ravel(), [0.75 ** (13 - i) for i in range(1, 13)], rtol=1e-6)
    assert float(factors["head"]["kernel"]) == 1.0 == float(factors["fc_norm"]["scale"])


def test_first_step_of_the_optimizer():
    cfg = configlib.base().optim
    cfg.update(weight_decay=0.1, layer_decay=0.5, eps=0.0)
    optimizer = optim.make_optimizer(cfg, lambda step: 0.01)
    grads = jax.tree.map(lambda x: 3.0 * x, PARAMS)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    # Adam's first step is the sign of the gradient; decay goes to kernels only, and both are
    # scaled by the layer's factor.
    np.testing.assert_allclose(updates["head"]["kernel"], -0.01 * (1 + 0.1), rtol=1e-5)
    np.testing.assert_allclose(updates["head"]["bias"], -0.01, rtol=1e-5)
    np.testing.assert_allclose(updates["fc_norm"]["scale"], -0.01, rtol=1e-5)
    embed = updates["encoder"]["patch_embed"]
    np.testing.assert_allclose(embed["kernel"], -0.01 * 1.1 * 0.5**13, rtol=1e-5)
    np.testing.assert_allclose(embed["bias"], -0.01 * 0.5**13, rtol=1e-5)


def test_layer_decay_beside_frozen_blocks():
    trained, _ = split_params(PARAMS, ("encoder/.*",))
    factors = optim.layer_factors(trained, 0.75)
    assert all(float(f) == 1.0 for f in jax.tree.leaves(factors))
    trained, _ = split_params(PARAMS, ("encoder/blocks/.*",))
    with pytest.raises(UserError, match="freeze it too"):
        optim.layer_factors(trained, 0.75)


STAGES = ("encoder/spatial/", "encoder/temporal/")


def test_layer_factors_count_on_through_the_stages_of_an_encoder():
    stage = {"pos_embed": jnp.ones((1, 5, 3)), "norm": {"scale": jnp.ones(3)}}
    params = {
        "encoder": {
            "patch_embed": {"bias": jnp.ones(3)},
            "spatial": {**stage, "blocks": {"mlp": {"fc1": {"bias": jnp.ones((3, 6))}}}},
            "temporal": {**stage, "blocks": {"mlp": {"fc1": {"bias": jnp.ones((2, 6))}}}},
        },
        "head": {"bias": jnp.ones(2)},
    }
    encoder = optim.layer_factors(params, 0.5, STAGES)["encoder"]
    assert float(encoder["patch_embed"]["bias"]) == 0.5**6
    expected = {"spatial": (6, [5, 4, 3], 3), "temporal": (3, [2, 1], 0)}
    for name, (tokens, blocks, norm) in expected.items():
        assert float(encoder[name]["pos_embed"]) == 0.5**tokens
        found = encoder[name]["blocks"]["mlp"]["fc1"]["bias"].ravel()
        np.testing.assert_allclose(found, [0.5**power for power in blocks])
        assert float(encoder[name]["norm"]["scale"]) == 0.5**norm
    trained, _ = split_params(params, ("encoder/spatial/blocks/.*",))
    with pytest.raises(UserError, match="blocks of encoder/spatial/ are frozen"):
        optim.layer_factors(trained, 0.5, STAGES)
    trained, _ = split_params(params, ("encoder/spatial/.*", "encoder/patch_embed/.*"))
    found = optim.layer_factors(trained, 0.5, STAGES)["encoder"]["temporal"]["pos_embed"]
    assert float(found) == 0.5**3


def test_sgd_has_momentum():
    cfg = configlib.base().optim
    cfg.update(name="sgd", momentum=0.9, clip_norm=1.0)
    optimizer = optim.make_optimizer(cfg, lambda step: 0.1)
    params = {"head": {"kernel": jnp.zeros(2)}}
    grads = {"head": {"kernel": jnp.array([3.0, 4.0])}}  # clipped to norm 1: 0.6, 0.8
    state = optimizer.init(params)
    for momentum in (1.0, 1.9):
        updates, state = optimizer.update(grads, state, params)
        expected = -0.1 * momentum * np.array([0.6, 0.8])
        np.testing.assert_allclose(updates["head"]["kernel"], expected, rtol=1e-6)
    with pytest.raises(UserError, match="adamw, sgd, adafactor"):
        cfg.name = "adam"
        optim.make_optimizer(cfg, lambda step: 0.1)


def test_rates_of_some_parameters():
    cfg = configlib.base().optim
    cfg.rates = (("head/.*", 10.0), (".*", 0.5))
    optimizer = optim.make_optimizer(cfg, lambda step, factor: 0.01 * factor)
    grads = jax.tree.map(lambda x: 3.0 * x, PARAMS)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["head"]["bias"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["fc_norm"]["scale"], -0.005, rtol=1e-5)


def test_other_peaks_fall_to_the_same_end():
    # timm's CosineLRScheduler(t_initial=20, lr_min=1e-2, warmup_t=5, warmup_lr_init=0) by steps.
    schedule = optim.timm_cosine(1.0, 1e-2, total=20, warmup=5)
    found = [float(schedule(step)) for step in (0, 1, 4, 5, 10, 19)]
    np.testing.assert_allclose(
        found, [0.0, 0.2, 0.8, 0.855017849, 0.505, 0.016094243], rtol=1e-6, atol=1e-7
    )
    for make in optim.SCHEDULES.values():
        schedule = make(1.0, 1e-2, total=20, warmup=5)
        np.testing.assert_allclose(schedule(3, 10.0), 10 * schedule(3), rtol=1e-6)
        np.testing.assert_allclose(schedule(20, 10.0), 1e-2, rtol=1e-4)

    cfg = configlib.base().optim
    cfg.rates = (("head/.*", 10.0),)
    optimizer = optim.make_optimizer(cfg, optim.timm_cosine(1.0, 0.1, total=4, warmup=0))
    state = optimizer.init(PARAMS)
    for rate in (10.0, 0.1 + 4.95 * (1 + 0.5**0.5)):
        updates, state = optimizer.update(PARAMS, state, PARAMS)
        np.testing.assert_allclose(updates["head"]["bias"], -rate, rtol=1e-4)


def test_linear_schedule():
    schedule = optim.linear_with_warmup(1.0, 0.2, total=12, warmup=4)
    found = [float(schedule(step)) for step in (0, 3, 4, 8, 12)]
    np.testing.assert_allclose(found, [0.0, 1.0, 1.0, 0.6, 0.2], rtol=1e-6)
    cfg = configlib.base().optim
    cfg.schedule = "step"
    with pytest.raises(UserError, match="cosine, linear, timm_cosine, not 'step'"):
        optim.make_schedule(cfg, batch_size=8, total=40, warmup=1)


def test_adafactor_keeps_rows_and_columns_only():
    cfg = configlib.base().optim
    cfg.update(name="adafactor", b1=0.0)
    optimizer = optim.make_optimizer(cfg, lambda step: 0.1)
    params = {"head": {"kernel": jnp.zeros((128, 256)), "bias": jnp.zeros(256)}}
    state = optimizer.init(params)
    kept = [x.shape for x in jax.tree.leaves(state)]
    assert (128,) in kept and kept.count((128, 256)) == 1  # the average of the updates alone
    # Of a rank-1 gradient rows and columns tell all: every update is its sign.
    grads = {
        "head": {"kernel": jnp.outer(jnp.linspace(1, 2, 128), jnp.linspace(1, 3, 256)),
                 "bias": -jnp.ones(256)}
    }  # fmt: skip
    updates, _ = optimizer.update(grads, state, params)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1, rtol=1e-3)
    np.testing.assert_allclose(updates["head"]["bias"], 0.1, rtol=1e-3)


def test_adafactor_cuts_the_update_of_each_layer():
    cfg = configlib.base().optim
    cfg.update(name="adafactor", b1=0.0)
    optimizer = optim.make_optimizer(cfg, lambda step: 0.1)

    def moved(params, *grads):
        state = optimizer.init(params)
        for grad in grads:
            updates, state = optimizer.update(grad, state, params)
        return updates

    # Two steps: the first one's update has root mean square 1 whatever the gradient. In the second
    # one the first layer's gradient grows, and the second one's falls.
    rng = np.random.default_rng(0)
    first = rng.normal(size=(2, 128, 256)).astype(np.float32)
    second = first * np.float32([30, 0.1])[:, None, None]
    stacked = moved(
        {"encoder": {"blocks": {"kernel": jnp.zeros((2, 128, 256))}}},
        *({"encoder": {"blocks": {"kernel": x}}} for x in (first, second)),
    )["encoder"]["blocks"]["kernel"]
    for layer in range(2):
        alone = moved(
            {"encoder": {"kernel": jnp.zeros((128, 256))}},
            *({"encoder": {"kernel": x[layer]}} for x in (first, second)),
        )["encoder"]["kernel"]
        np.testing.assert_allclose(stacked[layer], alone, rtol=1e-5, atol=1e-8)
    sizes = np.sqrt(np.square(stacked).mean((1, 2)))
    assert sizes[0] == pytest.approx(0.1, rel=1e-4) and sizes[1] < 0.05


def test_patterns_that_match_nothing_are_refused():
    cfg = configlib.base().optim
    cfg.update(freeze=("encoder/.*",), rates=(("head/kernel", 10.0),))
    optim.check_patterns(cfg, PARAMS)
    for key, value, message in (
        ("freeze", ("encoder/blocks",), "'encoder/blocks' .* did you mean 'encoder/blocks/.*'?"),
        ("freeze", ("backbone/.*",), "freeze: 'backbone/.*' .* start with encoder, fc_norm, head"),
        ("rates", (("mit/.*", 10.0),), "rates: 'mit/.*' matches no parameter"),
        ("freeze", (".*",), "matches all 6 parameters, which leaves nothing to train"),
    ):
        wrong = configlib.base().optim
        wrong[key] = value
        with pytest.raises(UserError, match=message):
            optim.check_patterns(wrong, PARAMS)
