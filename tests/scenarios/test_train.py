"""The loop on real encoded clips: it learns, resumes exactly, shards, and answers wrong input."""

import contextlib
import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from vidjax import configlib, models, pretrained, sharding, train
from vidjax.card import Card, read_card, write_card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing
from vidjax.setup import Setup
from vidjax.training import optim
from vidjax.training.estimate import estimate
from vidjax.training.program import Program
from vidjax.training.report import Report
from vidjax.training.start import initial_state
from vidjax.training.step import TrainState, make_train_step


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Of a run whose programs, each compiled in seconds, most tests share.
AVERAGED = {"ema_decay": 0.9, "grad_accum": 2}


@pytest.fixture(scope="module")
def a_run(small, tmp_path_factory):
    """The workdir and the last state of a finished run."""
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    return workdir, train.train(small(evals=True, log_every=1, **AVERAGED), workdir)


@pytest.mark.parametrize("name", ["videomae_k400", "videomae_k400_finetune"])
def test_resuming_is_exact(small, a_run, name, tmp_path):
    if name == "videomae_k400":
        whole = a_run[1]
    else:
        whole = train.train(small(name, **AVERAGED), tmp_path / "whole")
    halves = small(name, **AVERAGED)
    halves.checkpoint.every = 2
    run = Report.step

    def stop_at_3(self, step, *args):
        run(self, step, *args)
        if step == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Report, "step", stop_at_3)
        train.train(halves, tmp_path / "halves")
    halves.data.cache = "20MB"  # which is no other run
    resumed = train.train(halves, tmp_path / "halves")
    assert int(resumed.step) == 4
    assert_same(whole, resumed)
    assert jax.tree.structure(whole.ema_params) == jax.tree.structure(whole.params)
    params, ema = (x["encoder"]["patch_embed"]["kernel"] for x in (whole.params, whole.ema_params))
    assert 0 < np.abs(params - ema).max() < np.abs(params).max()
    steps = [json.loads(line)["step"] for line in (tmp_path / "halves/metrics.jsonl").open()]
    assert steps == sorted(set(steps) | {4})[:1] + [4] * (len(steps) - 1)


def test_a_run_leaves_what_it_promises(a_run):
    workdir, _ = a_run
    names = {path.name for path in workdir.iterdir()}
    assert names >= {"config.json", "model.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert names >= {"DONE", "reconstruction_4.png"}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    assert {"loss", "grad_norm", "lr", "clips_per_second", "waiting_for_data"} <= set(lines[0])
    assert {"val/loss", "val/mean_patch_loss"} <= set(lines[-1])


def test_losses_agree_on_any_mesh(small, a_run, tmp_path):
    def losses(workdir):
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
        return [line["loss"] for line in lines if "loss" in line]

    config = small(log_every=1, **AVERAGED)
    assert Setup(config).mesh.shape == {"data": 8, "fsdp": 1, "tensor": 1}
    config.mesh.update(data=2, fsdp=2, tensor=2)
    train.train(config, tmp_path / "run")
    first = losses(a_run[0])
    assert len(first) == 4
    np.testing.assert_allclose(losses(tmp_path / "run"), first, rtol=1e-5)


def test_fsdp_splits_parameters_and_moments(small):
    config = small()
    config.mesh.update(data=1, fsdp=8, tensor=1)
    setup = Setup(config)
    abstract = Program(setup).state
    kernel = abstract.params["encoder"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 4, 64)
    moments = [x for x in jax.tree.leaves(abstract.opt_state) if x.shape == kernel.shape]
    assert len(moments) == 2
    assert all(x.sharding.shard_shape(x.shape) == (2, 4, 64) for x in moments)


def test_grad_accumulation_averages():
    class Square:
        def loss(self, params, batch, *, rng, ema_params=None):
            return jnp.mean((batch["x"] * params["w"]) ** 2), {}

    cfg = configlib.base().optim
    optimizer = optim.make_optimizer(cfg, lambda step: 0.1)
    batch = {"x": jnp.arange(8.0)}
    results = []
    for parts in (1, 4):
        params = {"w": jnp.float32(2.0)}
        state = TrainState(jnp.int32(0), params, optimizer.init(params), {})
        step = make_train_step(Square(), optimizer, grad_accum=parts)
        results.append(jax.device_get(step(state, batch)))
    np.testing.assert_allclose(results[0][1]["loss"], results[1][1]["loss"], rtol=1e-6)
    np.testing.assert_allclose(results[0][1]["grad_norm"], results[1][1]["grad_norm"], rtol=1e-6)
    np.testing.assert_allclose(results[0][0].params["w"], results[1][0].params["w"], rtol=1e-6)


def shards_of(x, count):
    return np.split(np.asarray(x), count)


class Noisy:
    """An objective that is linear in "w" and in a number drawn for each call."""

    def loss(self, params, batch, *, rng, ema_params=None):
        return jnp.mean(batch["x"] @ params["w"]) * (1.0 + jax.random.uniform(rng)), {}


@pytest.mark.parametrize("sizes", [None, (8, 1, 1), (2, 4, 1), (2, 2, 2)])
@pytest.mark.parametrize(("clip_parts", "grad_accum"), [(8, 1), (16, 1), (8, 2)])
def test_each_shard_is_clipped_before_the_mean(sizes, clip_parts, grad_accum):
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    expected, norms = np.zeros(3), []
    rngs = jax.random.split(jax.random.fold_in(jax.random.key(7), 0), clip_parts)
    for shard, rng in zip(shards_of(x, clip_parts), rngs, strict=True):
        keys = jax.random.split(rng, grad_accum) if grad_accum > 1 else [rng]
        noise = [1.0 + float(jax.random.uniform(key)) for key in keys]
        grad = np.mean([n * shard[i::grad_accum].mean(0) for i, n in enumerate(noise)], axis=0)
        norms.append(np.linalg.norm(grad))
        expected += grad * min(1.0, 1.0 / norms[-1]) / clip_parts
    assert min(norms) < 1.0 < max(norms)

    optimizer, params = optax.sgd(1.0), {"w": jnp.zeros(3)}
    step = make_train_step(
        Noisy(), optimizer, seed=7, grad_accum=grad_accum, clip_parts=clip_parts, clip_norm=1.0
    )
    state, batch = TrainState(jnp.int32(0), params, optimizer.init(params), {}), {"x": x}
    with contextlib.ExitStack() as stack:
        if sizes:
            data, fsdp, tensor = sizes
            mesh = sharding.make_mesh(ConfigDict(dict(data=data, fsdp=fsdp, tensor=tensor)))
            stack.enter_context(jax.set_mesh(mesh))
            stack.enter_context(nn.logical_axis_rules(sharding.RULES))
            batch = sharding.put_batch(batch, mesh)
        state, figures = step(state, batch)
    np.testing.assert_allclose(state.params["w"], -expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(figures["grad_norm"], np.mean(norms), rtol=1e-5)


def test_shards_that_do_not_divide():
    def axes(shards, clips, slices=1, **sizes):
        return sharding.clip_axes(shards, clips, slices, SimpleNamespace(shape=sizes))

    assert axes(32, 64, data=8, fsdp=1) == ("data",)
    assert axes(32, 64, data=32, fsdp=2) == ("data",)  # two devices share a shard's two clips
    assert axes(32, 64, data=1, fsdp=8) == ("data", "fsdp")
    assert axes(2, 64, data=8, fsdp=1) == axes(32, 64) == ()  # one after the other
    with pytest.raises(UserError, match="24 shards must divide the 64 clips of a step"):
        axes(24, 64, data=8, fsdp=1)
    with pytest.raises(UserError, match=r"data = 64 x fsdp = 1; .* with --config.mesh.fsdp=2"):
        axes(32, 64, data=64, fsdp=1)
    with pytest.raises(UserError, match=r"32 shards x 4 slices \(config.grad_accum\) must divide"):
        axes(32, 64, 4, data=8, fsdp=1)


def test_losses_of_vivit_are_those_of_scenics_clipping_on_each_device(small):
    """20 steps at a high rate beside a loop as Scenic's pmap: gradient of each of 8 devices, its
    norm clipped, the mean, SGD with momentum."""
    config = small("vivit_k400", data__batch_size=32, optim__clip_parts=8)
    config.model.num_classes = 8
    assert config.optim.name == "sgd" and config.optim.clip_norm == 1.0
    rng = np.random.default_rng(0)
    batches = [
        {
            "video": rng.integers(0, 256, (32, 4, 32, 32, 3), dtype=np.uint8),
            "label": rng.integers(0, 8, 32).astype(np.int32),
        }
        for _ in range(20)
    ]
    setup = Setup(config, without_lists=True)
    program = Program(setup, lambda step: 0.4)
    with setup.on_mesh():
        start = jax.device_get(jax.jit(program.init)(jax.random.key(0)))

    def losses(clip_parts):
        setup.config.optim.clip_parts = clip_parts
        program = Program(setup, lambda step: 0.4)
        state, found = jax.device_put(start, program.shardings), []
        with setup.on_mesh():
            for batch in batches:
                state, figures = program.train_step(state, sharding.put_batch(batch, setup.mesh))
                found.append(float(figures["loss"]))
        return found

    key = jax.random.key(0)  # without augmentation and dropout nothing is drawn from it
    one_device = jax.jit(
        jax.value_and_grad(lambda params, batch: setup.objective.loss(params, batch, rng=key)[0])
    )
    clip = optax.clip_by_global_norm(1.0)
    params = start.params
    trace = jax.tree.map(np.zeros_like, params)
    expected, clipped = [], 0
    for batch in batches:
        devices = [
            one_device(params, {key: shards_of(x, 8)[i] for key, x in batch.items()})
            for i in range(8)
        ]
        expected.append(np.mean([float(loss) for loss, _ in devices]))
        clipped += sum(float(optax.tree.norm(grads)) > 1.0 for _, grads in devices)
        grads = [jax.device_get(clip.update(g, clip.init(params))[0]) for _, g in devices]
        mean = jax.tree.map(lambda *x: np.mean(x, axis=0), *grads)
        trace = jax.tree.map(lambda m, g: 0.9 * m + g, trace, mean)
        params = jax.tree.map(lambda p, m: p - np.float32(0.4) * m, params, trace)
    assert clipped > 80  # of 160: the clipping is at work
    np.testing.assert_allclose(losses(8), expected, rtol=1e-5)
    assert np.abs(np.array(losses(1)) - expected).max() > 1e-2


def test_frozen_parameters_stay_and_have_no_moments(small, tmp_path, monkeypatch):
    started = []

    def start(*args):
        state = initial_state(*args)
        started.append(jax.tree.map(np.array, state.params))  # a copy: the steps consume it
        return state

    initial_state = train.initial_state
    monkeypatch.setattr(train, "initial_state", start)
    config = small("videomae_k400_finetune", optim__freeze=("encoder/.*",), train_steps=2)
    state = train.train(config, tmp_path / "run")
    moments = {x.shape for x in jax.tree.leaves(state.opt_state)}
    assert (2, 32, 64) not in moments and (32, 8) in moments
    (before,) = started
    assert_same(state.params["encoder"], before["encoder"])
    assert np.abs(state.params["head"]["kernel"] - before["head"]["kernel"]).max() > 0


def test_a_run_hands_on_what_an_export_needs(small, a_run, tmp_path):
    card = read_card(a_run[0])
    assert card.provenance["objective"]["norm_pix"] is True
    kept = {"problem_type": "single_label_classification"}
    provenance = card.provenance | {"kept": kept}
    write_card(tmp_path, dataclasses.replace(card, provenance=provenance))
    setup = Setup(small("videomae_k400_finetune", init=str(tmp_path), init_missing=(".*",)))
    assert setup.kept == kept


def test_clips_that_leave_a_rest_beside_the_patches(small):
    with pytest.raises(UserError, match=r"size=36 leave a rest beside patches of \(2, 8, 8\)"):
        Setup(small(data__size=36, data__short_side=36))


def test_a_cache_of_no_size_is_told_before_lists_are_read(small):
    with pytest.raises(UserError, match=r"config\.data\.cache is '2'; expected"):
        Setup(small(data__cache="2", data__train="/nowhere/list.csv"))


def test_fine_tuning_takes_over_the_encoder(small, a_run, tmp_path, capsys):
    folder, source = a_run
    config = small("videomae_k400_finetune", init=str(folder))
    config.update(train_steps=2)
    config.optim.lr = 0.0
    state = train.train(config, tmp_path / "tuned")
    assert_same(
        state.params["encoder"]["blocks"], jax.device_get(source.ema_params["encoder"]["blocks"])
    )
    said = capsys.readouterr().err
    assert "fresh here: fc_norm/bias, fc_norm/scale, head/bias, head/kernel" in said


@pytest.mark.parametrize("factorisation", ["encoder", "self_attention"])
def test_an_image_model_starts_a_video_model(small, factorisation, tmp_path):
    config = small("vivit_k400", init=str(tmp_path / "image"))
    config.model.update(factorisation=factorisation, temporal_depth=1)
    config.init_options.temporal_attention = "zero"
    if factorisation == "self_attention":
        config.model.pool = "mean"
    sizes = {key: config.model[key] for key in ("width", "depth", "num_heads", "mlp_dim", "eps")}
    image = models.build(
        "vivit", head="classify", num_classes=3, representation_size=5, patch_size=(1, 8, 8),
        pos_grid=(1, 4, 4), **sizes,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    params = {
        path: rng.normal(size=x.shape).astype(np.float32)
        for path, x in pretrained.param_specs(image).items()
    }
    pretrained.save_pretrained(
        tmp_path / "image",
        traverse_util.unflatten_dict(params, sep="/"),
        Card(models.config_of(image), Preprocessing(frames=1)),
    )
    setup, said = Setup(config), []
    with setup.on_mesh():
        state = initial_state(Program(setup), said.append)
    found = traverse_util.flatten_dict(jax.device_get(state.params), sep="/")
    kernel = params["encoder/patch_embed/kernel"][0]
    np.testing.assert_array_equal(found["encoder/patch_embed/kernel"], [0 * kernel, kernel])
    said = "\n".join(said)
    assert "inflated to 2 frames (central_frame)" in said and "pre_logits left out" in said
    if factorisation == "encoder":
        blocks, kernel = "encoder/spatial/blocks/attn", "encoder/temporal/blocks/attn/out/kernel"
        assert found[kernel].any() and "fresh here: encoder/temporal, head" in said
    else:
        blocks, kernel = "encoder/blocks/attn_space", "encoder/blocks/attn_time/out/kernel"
        assert not found[kernel].any() and "fresh here: encoder/blocks/norm_time, head" in said
    query = "query/kernel"
    np.testing.assert_array_equal(
        found[f"{blocks}/{query}"], params[f"encoder/blocks/attn/{query}"]
    )


def test_checkpoint_of_another_architecture(small, a_run, tmp_path):
    config = small("videomae_k400_finetune", init=str(a_run[0]))
    config.model.width = 48
    with pytest.raises(UserError, match=r"encoder/.* is float32.*, expected float32"):
        train.train(config, tmp_path / "tuned")


def test_workdir_of_another_config(small, a_run):
    config = small(evals=True, log_every=1, **AVERAGED)
    config.optim.lr = 0.5
    with pytest.raises(UserError, match=r"optim.lr = 0.003 there, 0.5 now"):
        train.train(config, a_run[0])


def test_workdir_whose_run_saved_nothing_can_be_used_again(small, tmp_path):
    with pytest.raises(UserError, match="typo"):
        train.train(small(init=str(tmp_path / "typo")), tmp_path / "run")
    assert train.train(small(**AVERAGED), tmp_path / "run").step == 4


def test_workdir_with_something_else(small, tmp_path):
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        train.train(small(), tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["VideoMAE"]}')
    with pytest.raises(UserError, match="is not the config of a run"):
        train.train(small(), tmp_path)
    with pytest.raises(UserError, match="neither a folder nor in a bucket"):
        train.train(small(), "ftp://host/run")


def test_estimate_needs_no_data(small):
    found = estimate(small(data__train="", data__val="", train_steps=0))
    state = Program(Setup(small())).state
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state.params))
    assert found["parameters"] == count
    # Parameters and two moments, float32, whole on each device, and two int32 counters.
    assert found["state_bytes"] == 3 * 4 * count + 3 * 4
    assert found["peak_bytes"] > found["state_bytes"] + found["batch_bytes"]


def test_batch_that_does_not_divide(small):
    config = small()
    config.data.batch_size = 12
    with pytest.raises(UserError, match="must divide into 8 devices"):
        Setup(config)


def test_mesh_that_does_not_fit(small):
    config = small()
    config.mesh.update(data=3)
    with pytest.raises(UserError, match="does not make 8 devices; set one"):
        Setup(config)


def test_sharded_init_equals_unsharded(small):
    states = []
    for mesh in ({"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}):
        config = small()
        config.mesh.update(mesh)
        setup = Setup(config)
        with setup.on_mesh():
            state = initial_state(Program(setup), print)
        states.append(jax.device_get(state.params))
    assert_same(*states)
