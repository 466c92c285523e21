"""Every config builds, is locked, has its published figures, and traces its train step."""

import dataclasses
import glob
import json
import math
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from vidjax import configlib, models, objectives, pretrained
from vidjax.card import Card, write_card
from vidjax.data import datasets, lists
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing
from vidjax.setup import Setup
from vidjax.training import optim
from vidjax.training.program import Program

DEMO = "--config=configs/videomae_k400.py:demo"
CONFIGS = sorted(glob.glob("configs/*.py"))
FACTS = Preprocessing()
RATES = {"lr", "min_lr", "lr_batch_size", "warmup_epochs", "warmup_steps", "schedule"}
TRACED = set()  # objectives, with what else their steps are made of: tracing one takes seconds


def with_list(config, tmp_path, monkeypatch):
    """Points a config at a list of paths that need not exist."""
    videos = tuple(datasets.Video(f"{i}.mp4", i % 8, captions=("a",)) for i in range(128))
    names = tuple("abcdefgh") if config.model.head == "video_text" else None
    monkeypatch.setattr(
        lists, "read_list", lambda *args, **kwargs: datasets.VideoList(videos, names)
    )
    config.data.train = config.data.val = "list.csv"
    return config


@pytest.mark.parametrize("arg", ["", ":demo"])
@pytest.mark.parametrize("path", CONFIGS)
def test_config_traces_its_step(
    path, arg, tmp_path, monkeypatch, tokenizer_file, clip_tokenizer_file
):
    config = with_list(configlib.load(path + arg), tmp_path, monkeypatch)
    assert config.is_locked
    assert configlib.plain(config) == json.loads(json.dumps(config.to_dict()))
    config.train_steps = 10
    if config.model.head == "video_text":
        files = {"sentencepiece": tokenizer_file, "clip": clip_tokenizer_file}
        config.data.tokenizer = str(files[models.declared(config.model.name, "TOKENIZER")])
    if config.model.head == "distil" or (config.model.name == "probe" and not arg):
        sizes = dict(eps=1e-6, patch_size=(1, 16, 16), pos_grid=(8, 14, 14))
        encoder = models.build("videoprism", "B", head="video", **sizes)
        write_card(tmp_path, Card(models.config_of(encoder), FACTS))
        config.init = str(tmp_path)
    setup = Setup(config)
    assert setup.evaluators(tmp_path)  # they exist, and the objective predicts what they need
    size = math.lcm(16, config.data.mix_group or 1, config.optim.clip_parts)
    batch = setup.example_batch(size)
    # Recipes that differ only in rates, and in what they are called, share a step.
    plain = configlib.plain(config)["optim"]
    cfg = {key: value for key, value in plain.items() if key not in RATES}
    objective = dataclasses.replace(setup.objective, preprocessing=FACTS)
    key = objective, str((cfg, batch, config.ema_decay, setup.mesh))
    if key in TRACED:
        return
    program = Program(setup, lambda step, factor=1.0: 1e-3 * factor)
    state, figures = jax.eval_shape(program.train_step, program.state, batch)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (program.state, state))
    assert shapes[0] == shapes[1]
    assert figures["loss"].shape == () and figures["loss"].dtype == jnp.float32
    TRACED.add(key)


@pytest.mark.parametrize(
    ("name", "batch", "peak", "final", "decay", "epochs"),
    [
        ("videomae_k400.py:S", 1024, 6e-4, 4e-5, 1.0, 1600),
        ("videomae_k400.py:B,epochs=800", 2048, 1.2e-3, 8e-5, 1.0, 800),
        ("videomae_k400.py:L", 512, 3e-4, 2e-5, 1.0, 1600),
        ("videomae_ssv2.py:B", 2048, 1.2e-3, 8e-5, 1.0, 2400),
        ("videomae_ucf101.py", 192, 2.25e-4, 7.5e-6, 1.0, 3200),
        ("videomae_k400_finetune.py:S", 384, 7.5e-4, 1.5e-6, 0.75, 150),
        ("videomae_k400_finetune.py:B800", 512, 2e-3, 2e-6, 0.75, 100),
        ("videomae_k400_finetune.py:L", 128, 1e-3, 5e-7, 0.75, 35),
        ("videomae_k400_finetune.py:H", 512, 2e-3, 2e-5, 0.75, 50),
        ("videomae_ssv2_finetune.py:S", 384, 1.5e-3, 1.5e-6, 0.7, 40),
        ("videomae_ssv2_finetune.py:B", 384, 7.5e-4, 1.5e-6, 0.75, 30),
        ("videomae_ucf101_finetune.py", 128, 2.5e-4, 5e-6, 0.7, 100),
    ],
)
def test_published_recipes(name, batch, peak, final, decay, epochs):
    config = configlib.load(f"configs/{name}")
    assert config.data.batch_size == batch and config.train_epochs == epochs
    assert optim.scaled_rates(config.optim, batch) == pytest.approx((peak, final))
    assert config.optim.layer_decay == decay
    assert config.optim.b2 == (0.999 if "finetune" in name else 0.95)


@pytest.mark.parametrize(
    ("variant", "batch", "peak", "final", "parameters", "clip_norm"),
    [
        ("B", 1024, 4e-3, 4e-5, 94_210_944, 0.0),
        # 8 layers of the decoder less than VideoMAE's; H's is as wide as L's.
        ("L", 1536, 6e-3, 6e-5, 342_996_992 - 8 * 3_151_872, 0.0),
        ("H", 2048, 8e-3, 8e-5, None, 0.0),
        ("g", 2048, 4.8e-3, 8e-5, None, 0.02),
    ],
)
def test_published_videomaev2_recipes(variant, batch, peak, final, parameters, clip_norm):
    config = configlib.load(f"configs/videomaev2_pretrain.py:{variant}")
    assert (config.data.batch_size, config.data.repeats) == (batch, 4)
    assert optim.scaled_rates(config.optim, batch) == pytest.approx((peak, final))
    assert config.train_epochs == (200 if variant == "B" else 300)
    assert config.optim.warmup_epochs == config.train_epochs / 10
    assert (config.optim.b2, config.optim.clip_norm) == (0.95, clip_norm)
    objective = config.objective
    assert (objective.mask_ratio, objective.decoder_mask_ratio) == (0.9, 0.5)
    model = Setup(config).model
    fields = model.config
    assert fields["decoder_depth"] == 4
    assert (
        tuple(fields[f"decoder_{size}"] for size in ("width", "num_heads", "mlp_dim"))
        == {
            "B": (384, 6, 1536),
            "L": (512, 8, 2048),
            "H": (512, 8, 2048),
            "g": (512, 8, 2234),
        }[variant]
    )
    if parameters:
        found = pretrained.param_specs(model)
        assert sum(math.prod(x.shape) for x in found.values()) == parameters


@pytest.mark.parametrize(
    ("name", "batch", "peak", "epochs", "decay", "drop_path", "head_dropout", "weight_decay"),
    [
        ("B_k400", 512, 1.4e-3, 90, 0.75, 0.1, 0.0, 0.05),
        ("B_ssv2", 256, 2e-3, 25, 0.65, 0.1, 0.0, 0.05),
        ("L_ssv2", 192, 3.75e-4, 20, 0.75, 0.2, 0.0, 0.05),
        ("H_k400", 128, 5e-4, 40, 0.8, 0.2, 0.5, 0.05),
        ("g_k400", 192, 7.5e-4, 30, 0.9, 0.2, 0.0, 0.1),
        ("g_k710", 96, 3.75e-4, 35, 0.9, 0.3, 0.0, 0.1),
        ("g_ssv2", 96, 1.125e-4, 20, 0.9, 0.25, 0.0, 0.05),
        ("g_k710_hmdb51", 24, 4.6875e-5, 15, 0.9, 0.35, 0.5, 0.05),
    ],
)
def test_published_videomaev2_finetuning(
    name, batch, peak, epochs, decay, drop_path, head_dropout, weight_decay
):
    config = configlib.load(f"configs/videomaev2_finetune.py:{name}")
    assert (config.data.batch_size, config.data.repeats) == (batch, 2)
    assert optim.scaled_rates(config.optim, batch)[0] == pytest.approx(peak)
    assert (config.train_epochs, config.optim.warmup_epochs) == (epochs, 5)
    assert (config.optim.layer_decay, config.optim.weight_decay) == (decay, weight_decay)
    assert (config.model.drop_path, config.model.head_dropout) == (drop_path, head_dropout)
    ssv2 = name.endswith("ssv2")
    assert (config.data.flip, config.data.sampling, config.evals.test.views) == (
        (0.0, "segment", (2, 3)) if ssv2 else (0.5, "dense_linspace", (5, 3))
    )
    assert config.data.stride == (2 if name.endswith("hmdb51") else 4)
    assert (
        Setup(config).splits.num_classes
        == {"k400": 400, "k710": 710, "ssv2": 174, "hmdb51": 51}[config.data.name]
    )


@pytest.mark.parametrize(
    ("name", "group", "partners"),
    [
        ("videomae_k400_finetune.py:S", 24, "reversed"),
        ("videomae_k400_finetune.py:B", 12, "reversed"),
        ("videomae_k400_finetune.py:B800", 8, "reversed"),
        ("videomae_k400_finetune.py:L", 4, "reversed"),
        ("videomae_k400_finetune.py:H", 16, "reversed"),
        ("videomae_ssv2_finetune.py:S", 24, "reversed"),
        ("videomae_ssv2_finetune.py:B", 12, "reversed"),
        ("videomae_ssv2_finetune.py:B800", 8, "reversed"),
        ("videomae_ucf101_finetune.py", 32, "reversed"),
        ("videomaev2_finetune.py:B_k710", 32, "reversed"),
        ("videomaev2_finetune.py:L_k400", 12, "reversed"),
        ("videomaev2_finetune.py:H_ssv2", 8, "reversed"),
        ("videomaev2_finetune.py:g_k710_ucf101", 6, "reversed"),
        ("vivit_ssv2.py", 0, "reversed"),  # a shard of clip_parts
        ("xclip_k400.py:B/32,frames=16", 8, "permuted"),
        ("xclip_k400.py:B/16", 8, "permuted"),
        ("xclip_k400.py:B/16,frames=16", 4, "permuted"),
        ("xclip_k400.py:L/14", 4, "permuted"),
        ("xclip_k400.py:L/14@336,frames=16", 1, "permuted"),
        ("xclip_k600.py", 8, "permuted"),
        ("xclip_fewshot_ucf101.py:2", 4, "permuted"),
        ("xclip_zeroshot.py", 4, "permuted"),
    ],
)
def test_published_groups_of_mixed_clips(name, group, partners):
    config = configlib.load(f"configs/{name}")
    assert (config.data.mix_group, config.data.mix_partners) == (group, partners)
    clips = config.data.batch_size * config.data.repeats
    assert clips // 4 % max(1, group) == 0  # with up to four slices


def test_a_mix_group_that_does_not_divide():
    config = configlib.load("configs/videomae_ucf101_finetune.py")
    config.data.mix_group = 24
    with pytest.raises(UserError, match="mix_group = 24 must divide the 256 clips"):
        Setup(config)
    config.data.update(mix_group=64, mix_partners="shuffled")
    with pytest.raises(UserError, match="mix_partners must be reversed or permuted"):
        Setup(config)


# Of Kinetics, Something-Something and Epic-Kitchens.
COLOURS = dict(color_jitter=0.8, grey=0.1)
KINETICS = [2, 256, 224, 0.5, "", 0.0, COLOURS, (4, 3)]
SSV2 = [1, 288, 256, 0.0, "scenic-n2-m20", 0.3, dict(label_smoothing=0.3, mixup=0.3), (4, 3)]
EPIC = [1, 256, 224, 0.5, "scenic-n2-m15", 0.2, dict(label_smoothing=0.2, mixup=0.1), (4, 1)]


@pytest.mark.parametrize(
    ("name", "lr", "epochs", "parameters", "recipe"),
    [
        ("vivit_k400.py", 0.1, 30, 88_954_000, KINETICS),
        ("vivit_k400.py:B_encoder", 0.05, 30, 115_062_928, KINETICS),
        ("vivit_k400.py:B_self_attention", 0.1, 30, 117_319_312, KINETICS),
        ("vivit_k400.py:B_dot_product", 0.1, 30, 88_952_464, KINETICS),
        ("vivit_k400.py:L_encoder", 0.1, 30, 606_827_920, KINETICS),
        ("vivit_k600.py", 0.05, 30, 607_032_920, KINETICS),  # 200 classes more than on K400
        # 16 x 16 instead of 14 x 14 places.
        ("vivit_ssv2.py", 0.4, 35, 354_671_790 + 60 * 1024, SSV2),
        ("vivit_epic.py", 0.5, 50, 354_900_365, EPIC),  # 397 scores instead of 174
    ],
)
def test_published_vivit_recipes(name, lr, epochs, parameters, recipe):
    config = configlib.load(f"configs/{name}")
    assert config.optim.name == "sgd" and config.optim.momentum == 0.9
    assert config.optim.clip_norm == 1.0 and config.optim.weight_decay == 0.0
    assert config.optim.clip_parts == 32
    assert config.optim.warmup_epochs == 2.5
    assert optim.scaled_rates(config.optim, config.data.batch_size) == (lr, 0.0)
    assert config.train_epochs == epochs and config.data.batch_size == 64
    assert config.evals.test.average == "logits"
    keys = ("stride", "short_side", "size", "flip", "rand_augment")
    objective = {k: v for k, v in config.objective.to_dict().items() if k != "name" and v}
    found = [config.data[key] for key in keys]
    assert [*found, config.model.drop_path, objective, config.evals.test.views] == recipe
    assert (config.data.frames, config.data.augment) == (32, "scale_jitter")
    found = pretrained.param_specs(Setup(config).model)
    assert sum(math.prod(x.shape) for x in found.values()) == parameters


def test_labels_of_another_kind_than_the_models_answers(tmp_path):
    model = Setup(configlib.load("configs/vivit_k400.py:demo")).model
    write_card(tmp_path, Card(models.config_of(model), FACTS))
    with pytest.raises(UserError, match=r"motion \(4 classes\) and direction \(2 classes\), but"):
        Setup(configlib.load("configs/vivit_epic.py:demo"), str(tmp_path))


def test_ssv2_is_never_flipped(tmp_path, monkeypatch):
    assert configlib.load("configs/videomae_ssv2_finetune.py").data.flip == 0
    config = with_list(configlib.load("configs/videomae_ssv2_finetune.py"), tmp_path, monkeypatch)
    config.data.flip = 0.5
    setup = Setup(config)
    with pytest.raises(UserError, match="mirror"):
        setup.train_batches(0, tmp_path)


def test_parse_arg():
    def parse(arg):
        return vars(configlib.parse_arg(arg, variant="B", frames=16, demo=False))

    assert parse(None) == {"variant": "B", "frames": 16, "demo": False}
    assert parse("L,frames=32,demo") == {"variant": "L", "frames": 32, "demo": True}
    with pytest.raises(UserError, match="did you mean 'frames'"):
        parse("L,frame=32")
    with pytest.raises(UserError, match="frames must be an integer, not 'many'"):
        parse("frames=many")


def test_sizes_can_be_set_that_no_config_names():
    config = configlib.load("configs/videomae_k400_finetune.py:S")
    config.model.num_heads = 16  # as Hugging Face's small says
    assert config.model.fc_norm_eps is None
    config.model.fc_norm_eps = 1e-5
    assert Setup(config).model.config["num_heads"] == 16


@pytest.mark.parametrize("arg", ["", ":demo"])
@pytest.mark.parametrize("path", CONFIGS)
def test_all_fields_are_keys(path, arg):
    """Config blocks have the fields of model and objective that the config file does not set."""
    config = configlib.load(path + arg)
    fields = set(models.fields_of(config.model.name, config.model.head))
    assert fields | {"name", "head"} <= set(config.model) <= fields | {"name", "head", "variant"}
    keys = set(objectives.keys_of(config.objective.name))
    assert set(config.objective) == keys | {"name"}
    unset = [key for key in fields if config.model[key] is None]
    assert unset and type(None) not in [config.model.get_type(key) for key in unset]


def test_unset_keys_take_values_of_their_types():
    overrides = {
        "model.patch_size": (2, 14, 14),
        "model.variant": "B",
        "model.pos_grid": (8, 2, 2),
        "model.fc_norm_eps": 1e-5,
        "model.unroll": 2,
        "model.pool": "first",
        "objective.color_jitter": 0.5,
        "objective.jitter_frames": True,
    }
    arguments = ["--config=configs/videomae_k400_finetune.py:demo"]
    arguments += [f"--config.{key}={value}" for key, value in overrides.items()]
    config = configlib.of_command(arguments)
    assert config.is_locked
    for key, value in overrides.items():
        block, _, name = key.partition(".")
        assert config[block][name] == value and type(config[block][name]) is type(value)
    assert objectives.keywords(config) == dict(
        name="classification", label_smoothing=0.1, mixup=0.0, cutmix=0.0, erase=0.0,
        color_jitter=0.5, jitter_frames=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "get_config of .* must return a config, not None"),
        ("return configlib.base()", "config.model.name is missing"),
        ("config.model.update(name='vivid', head=None); return config", "unknown model: 'vivid'"),
        ("config.model.update(name='vivit', head='x'); return config", "unknown head of vivit"),
    ],
)
def test_a_config_file_that_is_wrong(tmp_path, body, message):
    lines = ["def get_config(arg):", "  config = configlib.base()"]
    lines += ["  config.objective.name = 'classification'", f"  {body}"]
    (tmp_path / "mine.py").write_text("\n".join(["from vidjax import configlib", *lines]))
    with pytest.raises(UserError, match=message):
        configlib.load(f"{tmp_path}/mine.py")


def test_validation_labels_are_the_training_lists(tmp_path):
    for name, classes in (("train", ("apple", "bear", "cat")), ("val", ("cat", "apple"))):
        (tmp_path / f"{name}.csv").write_text("".join(f"{c}.mp4,{c}\n" for c in classes))
    for name in ("apple", "bear", "cat"):
        (tmp_path / f"{name}.mp4").touch()
    config = configlib.load("configs/videomae_k400_finetune.py:demo")
    config.data.update(name="custom", train=str(tmp_path / "train.csv"))
    config.data.val = str(tmp_path / "val.csv")
    setup = Setup(config)
    assert setup.splits.num_classes == 3
    assert [video.label for video in setup.splits.videos("val")] == [2, 0]
    (tmp_path / "val.csv").write_text("cat.mp4,dog\n")
    with pytest.raises(UserError, match="'dog' is unknown"):
        Setup(config).splits.videos("val")


MISTAKES = [
    ((), "say what to train"),
    (("--config=configs/videomae_k440.py",), "did you mean 'configs/videomae_k400.py'"),
    (("--config=configs/videomae_k400.py", "--config.optim.lrr=1"), "'optim.lr'"),
    ((DEMO, "--config.optim.lr=fast"), "config.optim.lr must be a number, not 'fast'"),
    (("--config=configs/videomae_k400.py:XXL",), "no recipe for variant 'XXL'"),
    (("--config=configs/videomae_k400.py",), "--config.data.train"),
    ((DEMO,), "--workdir"),
    (("--config=configs/videomae_k400.py", "--config.data.train=no.csv"), "no.csv"),
    ((DEMO, "stray"), "stray"),
    (("--config", "configs/no.py"), "there is no config file configs/no.py"),
    (("--config",), "--config needs a file"),
    (("--config", "--workdir=runs"), "--config needs a file"),
    (("--config.seed=1", DEMO), "--config.seed must come after --config=FILE"),
    ((DEMO, "--config.batch_size=8"), "did you mean 'data.batch_size'?"),
    ((DEMO, "--config.seed.x=1"), "config.seed is a single value"),
    ((DEMO, "--noconfig.estimation"), "did you mean 'estimate'?"),
    ((DEMO, "--config.estimate=maybe"), "config.estimate must be true or false, not 'maybe'"),
    ((DEMO, "--config.model.variant=XXL"), "unknown variant of videomae: 'XXL'"),
    ((DEMO, "--config.model.patch_sizes=(2,8,8)"), "did you mean 'model.patch_size'?"),
    ((DEMO, "--config.model.pos_grid=(2,a"), "config.model.pos_grid must be a tuple, such as"),
    ((DEMO, "--config.model.pos_grid=(2,14)"), "config.model.pos_grid must be a list of 3"),
    ((DEMO, "--config.model.decoder_norm_eps=small"), "decoder_norm_eps must be a number, not"),
    ((DEMO, "--config.objective=0.5"), "config.objective must be a dict, not '0.5'"),
    ((DEMO, "--config.evals={'val': 1}"), "config.evals.val must be a dict with the name of"),
    (("--config=configs/videomae_ucf101.py:B",), "config argument 'B' is unknown; known here:"),
    (("--config", "configs/videomae_k400.py", "--config.optim.lrr=1"), "'optim.lr'"),
    (
        ("--config=configs/videomae_k400.py:demo", "--config.model.remat=dot"),
        "config.model.remat must be 'none' or 'dots' or 'full', not 'dot'",
    ),
    (
        ("--config=configs/videomae_k400.py:demo", "--config.model.attention=einsums"),
        "must be 'auto' or 'einsum' or 'cudnn'",
    ),
    (("--config=configs/videomae_k400.py:demo", "--config.model.dtype=bf16"), "bfloat16"),
    (("--config=configs/videomae_k400.py:demo", "--config.grad_accum=0"), "at least 1"),
    ((DEMO, "--config.model.dtype=float16"), "float16 is for evaluation only"),
    ((DEMO, "--config.optim.lr=-1"), "config.optim.lr must be at least 0, not -1"),
    ((DEMO, "--config.seed=-1"), "config.seed must be at least 0, not -1"),
    ((DEMO, "--config.optim.lr=nan"), "config.optim.lr must be at least 0, not nan"),
    ((DEMO, "--config.optim.b2=1.5"), "config.optim.b2 must be at least 0 and below 1, not 1.5"),
    ((DEMO, "--config.ema_decay=1.5"), "config.ema_decay must be at least 0 and below 1, not 1.5"),
    ((DEMO, "--config.model.drop_path=2.0"), "config.model.drop_path must be a number of at least"),
    ((DEMO, "--config.model.width=0"), "config.model.width must be an integer from 1 to 2^24"),
    ((DEMO, "--config.optim.weight_decay=-0.1"), "weight_decay must be at least 0, not -0.1"),
    ((DEMO, "--config.optim.clip_norm=-1.0"), "clip_norm must be at least 0, not -1.0"),
    ((DEMO, "--config.optim.clip_parts=0"), "clip_parts must be at least 1, not 0"),
    ((DEMO, "--config.optim.layer_decay=0.0"), "must be above 0 and at most 1, not 0.0"),
    ((DEMO, "--config.data.flip=1.5"), "config.data.flip must be from 0 to 1, not 1.5"),
    (
        (DEMO, "--config.objective.mask_ratio=1.0"),
        "config.objective.mask_ratio must be a number of at least 0 and below 1, not 1.0",
    ),
    ((DEMO, "--config.objective.mask_ratio=nan"), "below 1, not nan"),
    ((DEMO, "--config.optim.freeze=('encoder/[',)"), "'encoder/[' is no regular expression"),
    ((DEMO, "--config.optim.rates=('head/.*',10.0)"), "must be pairs of a pattern and a factor"),
    (
        (DEMO, "--config.estimate", "--config.optim.freeze=('encoder/blocks',)"),
        "did you mean 'encoder/blocks/.*'?",
    ),
    ((DEMO, "--config.estimate", "--config.optim.freeze=('.*',)"), "leaves nothing to train"),
    (("--config=configs/videomae_k400.py:demo", "--config.mesh.fsdp=0"), "does not make"),
]

# Imports what takes seconds once, and answers each command line in a process of its own.
ANSWER = """
import json, os, runpy, sys
import vidjax.train
from vidjax.card import Card, write_card
for index, arguments in enumerate(json.loads(sys.argv[1])):
    if os.fork() == 0:
        sys.argv = ["vidjax.train", *arguments]
        os.dup2(os.open(f"{sys.argv[0]}.{index}", os.O_WRONLY | os.O_CREAT), 2)
        try:
            runpy.run_module("vidjax.train", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(end.code)  # without half a second of tidying up
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_command_line_answers_in_one_sentence(tmp_path):
    (tmp_path / "configs").symlink_to(pathlib.Path("configs").absolute())
    arguments = json.dumps([arguments for arguments, _ in MISTAKES])
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", ANSWER, arguments]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    codes = done.stdout.split()
    assert len(codes) == len(MISTAKES)
    for index, (arguments, message) in enumerate(MISTAKES):
        said = (tmp_path / f"vidjax.train.{index}").read_text()
        assert codes[index] == "2", (arguments, said)
        assert said.startswith("error: ") and message in said, (arguments, said)
        assert "Traceback" not in said and said.count("\n") == 1, (arguments, said)


@pytest.mark.parametrize(
    ("name", "epochs", "peak", "end", "batch", "frames"),
    [
        ("xclip_k400.py:B/32", 30, 8e-6, 8e-8, 256, 8),
        ("xclip_k400.py:L/14@336,frames=16", 30, 8e-6, 8e-8, 256, 16),
        ("xclip_k600.py", 30, 8e-6, 8e-8, 256, 8),
        ("xclip_fewshot_ucf101.py:2", 50, 2e-6, 2e-8, 64, 32),
        ("xclip_fewshot_hmdb51.py:16", 50, 2e-6, 2e-8, 64, 32),
        ("xclip_zeroshot.py", 10, 8e-6, 8e-8, 256, 32),
    ],
)
def test_published_xclip_recipes(name, epochs, peak, end, batch, frames):
    config = configlib.load(f"configs/{name}")
    cfg, data, side = config.optim, config.data, 336 if "336" in name else 224
    assert (config.train_epochs, cfg.warmup_epochs) == (epochs, 5)
    assert (cfg.lr, cfg.min_lr, cfg.lr_batch_size, cfg.schedule) == (peak, end, 0, "timm_cosine")
    assert (cfg.b1, cfg.b2, cfg.eps, cfg.weight_decay) == (0.9, 0.98, 1e-8, 1e-3)
    assert (data.batch_size, data.frames, data.sampling, data.min_frames) == (
        batch,
        frames,
        "segment",
        1,
    )
    assert (data.size, data.short_side, data.views_short_side) == (side, side * 256 // 224, side)
    assert (data.resize, data.augment, data.flip) == ("mmcv_linear", "corner_crop", 0.5)
    assert data.shots == (int(name.rpartition(":")[2]) if "fewshot" in name else 0)
    assert objectives.keywords(config) == dict(
        name="text_classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0,
        color_jitter=0.8, grey=0.2, jitter_frames=True,
    )  # fmt: skip
    assert all(e.templates == ("{}",) and e.average == "softmax" for e in config.evals.values())
    if "k400" in name or "k600" in name:
        assert config.evals.test.views == (4, 3)

    model = models.build(
        "xclip", config.model.variant, head="video_text", eps=1e-5, pos_grid=(1, 2, 2)
    )
    paths = list(pretrained.param_specs(model))
    frozen = {p for p in paths if any(re.fullmatch(f, p) for f in cfg.freeze)}
    assert frozen == {p for p in paths if p.startswith(("text/", "text_proj/", "logit_scale"))}
    ((pattern, factor),) = cfg.rates
    fast = {p for p in paths if re.fullmatch(pattern, p)}
    # The original's groups have these words in their names.
    assert factor == 10.0 and fast == {
        p for p in paths if p.startswith(("mit/", "prompts/")) or "message_" in p
    }
    assert fast == {p for p in paths if any(re.fullmatch(f, p) for f in config.init_missing)}
