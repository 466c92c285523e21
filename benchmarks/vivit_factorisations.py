"""What ViViT's four factorisations cost, against what the paper says they do.

    python -m benchmarks.vivit_factorisations
    python -m benchmarks.vivit_factorisations --variant=S --frames=8 --size=64 --output=small.json

Counts parameters and floating-point operations, then times the forward pass and a train step of
one clip in float32 on this machine, the models taking turns. Writes the numbers to --output and
tables of them beside it (.md). --rounds=0 only counts.

Operations are those of XLA's cost analysis of the lowered program, before any optimisation. It
counts the body of a loop once, however often it runs, so the blocks are unrolled for counting (for
timing they are not). A multiply and an add are two operations there and one in the paper, whose
column is half of this count to the last digit: Scenic's common_lib/debug_utils.py compute_flops
takes it from XLA too and halves it. `multiply_adds` counts the matrix products by hand as a check.
The time is that of the arithmetic: one clip that is in memory already, weights at random.
Source: Arnab et al. 2021 (arXiv:2103.15691), table 2.
"""

import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import linen as nn

from benchmarks.harness import table
from vidjax import models
from vidjax.errors import UserError, run_main
from vidjax.objectives.classification import Classification
from vidjax.preprocessing import Preprocessing
from vidjax.training.step import TrainState, make_train_step

NUM_CLASSES = 400
MODELS: dict[str, dict[str, Any]] = {
    "joint": {"factorisation": "joint"},
    "encoder": {"factorisation": "encoder", "temporal_depth": 4},
    "encoder_average": {"factorisation": "encoder", "temporal_depth": 0},
    "self_attention": {"factorisation": "self_attention", "pool": "mean"},
    "dot_product": {"factorisation": "dot_product", "pool": "mean"},
}
PAPER_SETTING = {"variant": "B", "frames": 32, "size": 224}
PAPER = {  # GFLOPs and millions of parameters
    "joint": (455.2, 88.9),
    "encoder": (284.4, 115.1),
    "encoder_average": (283.9, 86.7),
    "self_attention": (372.3, 117.3),
    "dot_product": (277.1, 88.9),
}


def build(name: str, variant: str, clip: tuple[int, int, int], **fields: Any) -> nn.Module:
    """The classifier MODELS[name] for clips of (T, H, W) pixels."""
    fields = MODELS[name] | fields
    return models.build(
        "vivit", variant, head="classify", num_classes=NUM_CLASSES, eps=1e-6, clip=clip, **fields
    )


def make_step(model: nn.Module):
    """The library's train step, SGD with momentum, and a function that makes its first state."""
    objective = Classification(model, Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3))
    optimizer = optax.sgd(1e-3, momentum=0.9)

    def init(rng) -> TrainState:
        video = jnp.zeros(model.example_inputs()["video"].shape)
        params = nn.meta.unbox(objective.init(rng, {"video": video}))
        return TrainState(jnp.int32(0), params, optimizer.init(params), {})

    return make_train_step(objective, optimizer), init


def forward(model: nn.Module):
    """Jitted (params, video) -> class scores."""
    return jax.jit(lambda params, video: model.apply({"params": params}, video))


def inputs(clip: tuple[int, int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of one clip, as training has it."""
    return {
        "video": jax.ShapeDtypeStruct((1, *clip, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
    }


def multiply_adds(model: nn.Module, clip: tuple[int, int, int]) -> dict[str, int]:
    """Multiply-adds of the matrix products in the forward pass of one clip, by part."""
    fields = model.config
    grid = models.token_grid("vivit", fields, clip)
    slices, places, width = grid[0], grid[1] * grid[2], fields["width"]
    patch = math.prod(fields["patch_size"]) * 3
    parts = {
        "patches": slices * places * patch * width,
        "projections": 0,
        "attention": 0,
        "mlp": 0,
        "head": width * fields["num_classes"],
    }

    def add(depth: int, tokens: int, attended: int, mlp_dim: int, attentions: int = 1) -> None:
        parts["projections"] += depth * attentions * tokens * 4 * width**2
        parts["attention"] += depth * tokens * attended * 2 * width
        parts["mlp"] += depth * tokens * 2 * width * mlp_dim

    token, depth, mlp_dim = fields["pool"] == "token", fields["depth"], fields["mlp_dim"]
    if fields["factorisation"] == "joint":
        tokens = slices * places + token
        add(depth, tokens, tokens, mlp_dim)
    elif fields["factorisation"] == "encoder":
        add(depth, slices * (places + token), places + token, mlp_dim)
        add(fields["temporal_depth"], slices + token, slices + token, mlp_dim)
    elif fields["factorisation"] == "self_attention":
        add(depth, slices * places, slices + places, mlp_dim, attentions=2)
    else:  # over time with half of the width, over space with the other half
        add(depth, slices * places, slices + places, mlp_dim)
        parts["attention"] //= 2
    return parts


def forward_operations(model: nn.Module, clip: tuple[int, int, int]) -> int:
    """Operations of the forward pass of one clip, by XLA."""
    video = jax.ShapeDtypeStruct((1, *clip, 3), jnp.float32)
    return _count(forward(_unrolled(model)), models.abstract_params(model), video)


def train_operations(model: nn.Module, clip: tuple[int, int, int]) -> int:
    """Operations of a train step of one clip, with what its `remat` recomputes, by XLA."""
    step, init = make_step(_unrolled(model))
    return _count(step, jax.eval_shape(init, jax.random.key(0)), inputs(clip))


def _count(function: Callable, *arguments: Any) -> int:
    return int(function.lower(*arguments).cost_analysis()["flops"])


def _unrolled(model: nn.Module) -> nn.Module:
    # XLA counts a loop once, be it over layers or, on a CPU, over heads.
    depth = max(model.config["depth"], model.config["temporal_depth"])
    return models.replace(model, unroll=depth, attention="einsum")


def count(model: nn.Module, clip: tuple[int, int, int], *, train: bool) -> dict[str, Any]:
    """Parameters and operations.

    Raises:
        RuntimeError: XLA's count is not that of the matrix products and a little more.
    """
    parts = multiply_adds(model, clip)
    products = 2 * sum(parts.values())
    found = {
        "parameters": sum(x.size for x in jax.tree.leaves(models.abstract_params(model))),
        "multiply_adds": parts,
        "forward": {"operations": forward_operations(model, clip), "products": products},
    }
    if train:
        # Backward there are two products for each: by the weights (or the other factor) and by
        # the input, which the patches have no gradient for.
        products = 3 * products - 2 * parts["patches"]
        found["train_step"] = {
            "operations": train_operations(models.replace(model, remat="none"), clip),
            "products": products,
            "operations_timed": train_operations(model, clip),
        }
    # The others (softmax, LayerNorm, GELU, biases, sums, the optimizer) grow with the width where
    # the products of weights grow with its square.
    limit = 0.03 * 768 / model.config["width"]
    for kind in set(found) & {"forward", "train_step"}:
        excess = found[kind]["operations"] / found[kind]["products"] - 1
        if not 0 < excess < limit:
            raise RuntimeError(
                f"XLA counts {found[kind]['operations']:,} operations in {kind}, the matrix "
                f"products alone are {found[kind]['products']:,}"
            )
    return found


class Timed:
    """A model's compiled programs with their inputs, and the seconds that they took."""

    def __init__(self, model: nn.Module, clip: tuple[int, int, int], *, train: bool):
        rng = np.random.default_rng(0)
        shapes = inputs(clip)
        video = rng.integers(0, 256, shapes["video"].shape, np.uint8)
        self.batch = jax.device_put({"video": video, "label": np.zeros(1, np.int32)})
        self.video = jax.device_put(np.float32(video) / 127.5 - 1.0)
        step, init = make_step(model)
        self.state = jax.jit(init)(jax.random.key(0))
        if not train:
            self.state = self.state.replace(opt_state=())
        self.compile_seconds: dict[str, float] = {}
        self.planned_bytes: dict[str, int] = {}
        self.seconds: dict[str, list[float]] = {"forward": []}
        self.forward = self._compile("forward", forward(model), self.state.params, self.video)
        if train:
            self.seconds["train_step"] = []
            self.step = self._compile("train_step", step, self.state, self.batch)

    def _compile(self, kind: str, function, *arguments):
        start = time.perf_counter()
        compiled = function.lower(*arguments).compile()
        self.compile_seconds[kind] = round(time.perf_counter() - start, 2)
        memory = compiled.memory_analysis()
        self.planned_bytes[kind] = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )
        return compiled

    def run(self, *, keep: bool) -> None:
        """Runs each program once."""
        for kind, seconds in self.seconds.items():
            start = time.perf_counter()
            if kind == "forward":
                jax.block_until_ready(self.forward(self.state.params, self.video))
            else:
                self.state, figures = self.step(self.state, self.batch)
                jax.block_until_ready((self.state, figures))
            if keep:
                seconds.append(round(time.perf_counter() - start, 4))


def machine() -> dict[str, Any]:
    """What the times depend on."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")  # Linux
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    found = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=pathlib.Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "device": jax.devices()[0].device_kind,
        "cpu": found[0] if found else platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
        "commit": git.stdout.strip() or None,
        "date": datetime.date.today().isoformat(),
    }


def measure(
    names: list[str], variant: str, frames: int, size: int, rounds: int, remat: str, train: bool
) -> dict[str, Any]:
    """Counts and times the models `names`; everything that the tables show."""
    clip = (frames, size, size)
    report: dict[str, Any] = {
        "settings": {
            "variant": variant,
            "frames": frames,
            "size": size,
            "patch_size": [2, 16, 16],
            "num_classes": NUM_CLASSES,
            "batch": 1,
            "dtype": "float32",
            "remat": remat,
            "rounds": rounds,
        },
        "machine": machine(),
        "models": {},
    }
    built = {name: build(name, variant, clip, remat=remat) for name in names}
    for name, model in built.items():
        report["models"][name] = count(model, clip, train=train)
        forward = report["models"][name]["forward"]
        print(f"{name}: {forward['operations'] / 1e9:.3f} G operations forward", flush=True)
    if not rounds:
        return report
    timed = {}
    for name, model in built.items():
        timed[name] = Timed(model, clip, train=train)
        print(f"{name}: compiled, seconds {timed[name].compile_seconds}", flush=True)
    for index in range(rounds + 1):
        for one in timed.values():
            one.run(keep=index > 0)  # the first round warms up
        print(f"round {index} of {rounds} done", flush=True)
    for name, one in timed.items():
        for kind, seconds in one.seconds.items():
            report["models"][name][kind] |= {
                "compile_seconds": one.compile_seconds[kind],
                "planned_bytes": one.planned_bytes[kind],
                "seconds": seconds,
            }
    return report


def paper_table(report: dict[str, Any]) -> str:
    """Parameters and forward operations next to the paper's, where it has the same setting."""
    settings, found = report["settings"], report["models"]
    as_paper = all(settings[key] == value for key, value in PAPER_SETTING.items())
    first = next(iter(found))
    header = [
        "model", "M parameters", "paper", "half of forward GFLOP", "paper GFLOPs",
        f"relative to {first}", "paper, relative",
    ]  # fmt: skip
    rows = []
    for name, one in found.items():
        operations = one["forward"]["operations"]
        gflops, mparams = PAPER[name]
        paper = f"{mparams:.1f}", f"{gflops:.1f}", f"{gflops / PAPER[first][0]:.3f}"
        paper = paper if as_paper else ("–",) * 3
        rows.append([
            name,
            f"{one['parameters'] / 1e6:.2f}",
            paper[0],
            f"{operations / 2e9:.1f}",
            paper[1],
            f"{operations / found[first]['forward']['operations']:.3f}",
            paper[2],
        ])  # fmt: skip
    return table(header, rows)


def counts_table(report: dict[str, Any]) -> str:
    """All operations, and what they are."""
    header = ["model", "forward GFLOP", "analytic", "attention's share", "other operations"]
    rows = []
    for name, one in report["models"].items():
        parts, operations = one["multiply_adds"], one["forward"]["operations"]
        rows.append([
            name,
            f"{operations / 1e9:.1f}",
            f"{one['forward']['products'] / 1e9:.1f}",
            f"{parts['attention'] / sum(parts.values()):.1%}",
            f"{1 - one['forward']['products'] / operations:.2%}",
        ])  # fmt: skip
        if "train_step" in one:
            step = one["train_step"]
            rows[-1] += [
                f"{step['operations'] / 1e9:.1f}",
                f"{step['products'] / 1e9:.1f}",
                f"{step['operations'] / operations:.2f}",
                f"{step['operations_timed'] / 1e9:.1f}",
            ]
    extra = ["train step GFLOP", "analytic", "to forward", "with what is recomputed"]
    return table(header + extra[: len(rows[0]) - len(header)], rows)


def times_table(report: dict[str, Any], kind: str) -> str:
    """Times of `kind`, and how far the operations explain them."""
    name = next(iter(report["models"]))
    header = [
        "model", "median s", "min", "max", "GFLOP/s", f"time relative to {name}",
        "GFLOP relative", "time / GFLOP ratio", "compile s", "memory GiB",
    ]  # fmt: skip
    first, rows = None, []
    for name, counted in report["models"].items():
        one = counted[kind]
        median = statistics.median(one["seconds"])
        operations = one.get("operations_timed", one["operations"])
        first = first or (median, operations)
        ratios = median / first[0], operations / first[1]
        rows.append([
            name,
            f"{median:.3g}",
            f"{min(one['seconds']):.3g}",
            f"{max(one['seconds']):.3g}",
            f"{operations / median / 1e9:.1f}",
            f"{ratios[0]:.3f}",
            f"{ratios[1]:.3f}",
            f"{ratios[0] / ratios[1]:.2f}",
            f"{one['compile_seconds']:.1f}",
            f"{one['planned_bytes'] / 2**30:.2f}",
        ])  # fmt: skip
    return table(header, rows)


def render(report: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    settings, where = report["settings"], report["machine"]
    versions = ", ".join(f"{key} {value}" for key, value in where["versions"].items())
    t, h, w = settings["patch_size"]
    size = f"{settings['frames']}x{settings['size']}x{settings['size']}"
    parts = [
        "# ViViT's factorisations",
        f"ViViT-{settings['variant']}, patches {t}x{h}x{w}, {settings['num_classes']} classes, "
        f"one clip of {size} pixels, {settings['dtype']}. Made by "
        f"`python -m benchmarks.vivit_factorisations` on {where['date']}, commit "
        f"{where['commit']}; {versions}.",
        "## Counts",
        "Counted, not measured: operations by XLA's cost analysis of the program before "
        "optimisation, blocks unrolled. A multiply and an add are two operations there; the "
        "paper's column (table 2) is half of such a count.",
        paper_table(report),
        "`analytic` is the matrix products, counted by hand, of which attention's share is the "
        "products of queries with keys and of weights with values; the other operations are "
        "softmax, LayerNorm, GELU, biases and sums. Where there is a train step, it is forward, "
        "backward and SGD with momentum; the last column adds what "
        f'remat="{settings["remat"]}" recomputes, and is what is timed.',
        counts_table(report),
    ]
    kinds = {
        "forward": "Measured: the jitted forward pass of one normalised clip, without reading "
        "and transforming videos.",
        "train_step": "Measured: `make_train_step` with one clip: normalisation, "
        f'forward, backward with remat="{settings["remat"]}" and SGD with momentum; no other '
        "augmentation, no data pipeline. Its GFLOP are those with what is recomputed.",
    }
    for kind, says in kinds.items():
        if "seconds" not in next(iter(report["models"].values())).get(kind, {}):
            continue
        parts += [
            f"## {kind.replace('_', ' ').capitalize()}",
            f"{says} Only on this machine's {where['device'].upper()} ({where['cpu']}, "
            f"{where['cores']} cores): the times say nothing about other devices. "
            f"{settings['rounds']} rounds in which the models take turns, after one of warming "
            "up. Where time / GFLOP ratio is 1, the operations explain the time; below 1 the "
            f"model runs more operations in a second than {next(iter(report['models']))}. Memory "
            "is what XLA plans for parameters, inputs, outputs and temporaries.",
            times_table(report, kind),
        ]
    return "\n\n".join(parts) + "\n"


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; options look like --rounds=5")
    unknown = set(values.factorisations) - set(MODELS)
    if unknown:
        raise UserError(f"unknown --factorisations {sorted(unknown)}; there are {list(MODELS)}")
    report = measure(
        values.factorisations,
        values.variant,
        values.frames,
        values.size,
        values.rounds,
        values.remat,
        values.train,
    )
    output = pathlib.Path(values.output)
    output.write_text(json.dumps(report, indent=1) + "\n")
    text = render(report)
    output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    flags.DEFINE_string("variant", "B", "Size of the models: Ti, S, B, L, H.")
    flags.DEFINE_integer("frames", 32, "Frames of the clip.", lower_bound=2)
    flags.DEFINE_integer("size", 224, "Height and width of the clip.", lower_bound=16)
    flags.DEFINE_list("factorisations", list(MODELS), "The models; the first is compared with.")
    flags.DEFINE_integer("rounds", 5, "Timed rounds; 0 only counts.", lower_bound=0)
    flags.DEFINE_enum("remat", "dots", ["none", "dots", "full"], "See the model's field remat.")
    flags.DEFINE_bool("train", True, "Whether train steps are looked at too.")
    flags.DEFINE_string(
        "output", str(pathlib.Path(__file__).with_suffix(".json")), "The file of numbers."
    )
    run_main(main)
