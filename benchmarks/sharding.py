"""What sharding costs and saves: equal losses, bytes per device, plans of XLA's TPU compiler.

    python -m benchmarks.sharding --sections=losses,state
    pip install -e .[tpu] && python -m benchmarks.sharding --sections=memory,plan

No accelerator is needed. `losses` runs 20 steps on one and on eight forced CPU devices; `state`
adds up the shardings of a train state; `memory` and `plan` compile train steps for TPUs that are
not there, which needs the library libtpu and one to three minutes each, and read what the compiler
says about memory. Keeps --output, and a page beside it (.md), up to date section by section.
"""

import collections
import functools
import json
import math
import os
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from benchmarks.harness import table
from benchmarks.vivit_factorisations import machine
from vidjax import configlib, sharding
from vidjax.errors import UserError, run_main
from vidjax.params import flatten
from vidjax.setup import Setup
from vidjax.training.program import Program

STEPS = 20
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
Sizes = tuple[int, int, int]  # of the mesh: data, fsdp, tensor

# Recipes whose losses are compared: demos, with all that is random switched on.
LOSSES = {
    "VideoMAE pre-training": ("videomae_k400", {}),
    "VideoMAE fine-tuning": (
        "videomae_k400_finetune",
        {
            **{"model.drop_path": 0.2, "model.head_dropout": 0.3},
            **{"objective.mixup": 0.8, "objective.cutmix": 1.0, "objective.erase": 0.25},
        },
    ),
    "VideoPrism stage 1 (video and text)": ("videoprism_stage1", {"objective.drop_tokens": 0.5}),
}
MESHES = (((8, 1, 1), False), ((2, 2, 2), False), ((1, 4, 2), False), ((1, 4, 2), True))

# Machines of the plan: nominal figures of a chip, from the vendors' pages; NVLink's are one way,
# ICI's the sum of a chip's four links.
MACHINES = {
    "v5e-256": {"chips": 256, "gigabytes": 16, "tflops": 197, "gigabytes_per_second": 200},
    "8xH200": {"chips": 8, "gigabytes": 141, "tflops": 790, "gigabytes_per_second": 450},
}
# The chips that the compiler plans for. For GPUs it has none to plan for without one: v5p stand in,
# whose 95 GB are the most that a chip of libtpu's has.
TOPOLOGIES = {"v5e-256": "v5e:16x16", "8xH200": "v5p:2x2x2", "8 v5e": "v5e:4x2"}
SIZES = {"v5e-256": {"H": (8, 32, 1), "g": (4, 64, 1)}, "8xH200": {"H": (1, 8, 1), "g": (1, 8, 1)}}
# Clips per chip and what is recomputed.
PLAN = (
    ("H", "pre-training", "v5e-256", 4, "dots"),
    ("H", "fine-tuning", "v5e-256", 4, "full"),
    ("g", "pre-training", "v5e-256", 8, "dots"),
    ("g", "fine-tuning", "v5e-256", 2, "full"),
    ("H", "pre-training", "8xH200", 64, "dots"),
    ("H", "fine-tuning", "8xH200", 32, "full"),
    ("g", "pre-training", "8xH200", 64, "dots"),
    ("g", "fine-tuning", "8xH200", 16, "full"),
)
LONG = (64, 224)  # frames and size of a clip of 6,272 tokens


def recipe(name: str, overrides: dict[str, Any]) -> ConfigDict:
    """The config `name` with its argument and overrides."""
    config = configlib.load(name).unlock()
    config.update_from_flattened_dict(overrides)
    return config


def mesh_of(devices: list[jax.Device], sizes: Sizes) -> Mesh:
    axes = ("data", "fsdp", "tensor")
    return jax.make_mesh(sizes, axes, axis_types=(AxisType.Auto,) * 3, devices=devices)


def program_on(config: ConfigDict, mesh: Mesh) -> Program:
    """The program of a config on a mesh, which need not be one of this machine's devices."""
    setup = Setup(config, without_lists=True)
    _ = setup.abstract_params  # traced before the mesh is one that cannot run anything
    setup.mesh = mesh
    return Program(setup, lambda step, factor=1.0: 1e-3 * factor)


def losses(program: Program, compiled: Any, steps: int) -> list[float]:
    """Losses of training on noise, the same on any mesh."""
    rng, found, setup = np.random.default_rng(0), [], program.setup
    with setup.on_mesh():
        init = jax.jit(program.init, out_shardings=program.shardings)
        state = init(jax.random.key(0))
        for _ in range(steps):
            batch = noise(setup.example_batch(setup.clips_per_step), rng)
            state, metrics = compiled(state, sharding.put_batch(batch, setup.mesh))
            found.append(float(metrics["loss"]))
    return found


def noise(shapes: dict[str, jax.ShapeDtypeStruct], rng: np.random.Generator) -> dict[str, Any]:
    """A batch of random pixels, and of labels and tokens below 8."""

    def draw(name: str, x: jax.ShapeDtypeStruct) -> np.ndarray:
        if x.dtype in ("bool", "float32"):
            return np.ones(x.shape, x.dtype)
        return rng.integers(0, 256 if name == "video" else 8, x.shape, x.dtype)

    return {name: draw(name, x) for name, x in shapes.items()}


def count_collectives(text: str) -> dict[str, int]:
    """Instructions of a compiled program that exchange data, by kind; a loop's count once."""
    kinds = "|".join(COLLECTIVES)
    found = re.findall(rf" ({kinds})(?:-start)?\(", text)
    return {kind: n for kind, n in collections.Counter(found).items() if n}


def bytes_on_device(tree: Any) -> int:
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def measure_losses() -> Iterator[dict[str, Any]]:
    """Losses on one device and on eight, and how far they are apart at most, relatively."""
    for title, (name, overrides) in LOSSES.items():
        config = recipe(f"configs/{name}.py:demo", {**overrides, "data.batch_size": 32})
        alone = program_on(config, mesh_of(jax.devices()[:1], (1, 1, 1)))
        expected = losses(alone, alone.compile_step(), STEPS)
        for sizes, sequence in MESHES:
            config.mesh.sequence = sequence
            program = program_on(config, mesh_of(jax.devices(), sizes))
            compiled = program.compile_step()
            found = losses(program, compiled, STEPS)
            yield {
                "recipe": title,
                "mesh": sizes,
                "sequence": sequence,
                "first": found[0],
                "last": found[-1],
                "worst": float(np.abs(np.divide(found, expected) - 1).max()),
                "collectives": count_collectives(compiled.as_text()),
            }
        config.mesh.sequence = False


def measure_state() -> Iterator[dict[str, Any]]:
    """Bytes per device of a train state, by part, and of what fsdp leaves whole."""
    for variant in ("H", "g"):
        overrides = {"model.variant": variant, "ema_decay": 0.999}
        config = recipe("configs/videomae_k400.py:H", overrides)
        for fsdp in (1, 2, 4, 8):
            state = program_on(config, mesh_of(jax.devices(), (8 // fsdp, fsdp, 1))).state
            whole = {
                path: x.size * x.dtype.itemsize
                for path, x in flatten(state).items()
                if x.sharding.is_fully_replicated and fsdp > 1
            }
            yield {
                "model": f"VideoMAE-{variant}",
                "fsdp": fsdp,
                "params": bytes_on_device(state.params),
                "moments": bytes_on_device(state.opt_state),
                "ema": bytes_on_device(state.ema_params),
                "whole_bytes": sum(whole.values()),
                "whole": [path for path in whole if path.startswith("params/")],
            }


def planned(program: Program) -> dict[str, Any]:
    """What the compiler plans for a step; no collectives where the chip has less memory."""
    start = time.perf_counter()
    try:
        compiled = program.compile_step()
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"required for HLO temporaries \(([\d.]+)G\)", str(error))
        if not found:
            raise
        state, temporaries = bytes_on_device(program.state), int(float(found[1]) * 2**30)
        return {"state": state, "temporaries": temporaries, "needs": state + temporaries}
    memory = compiled.memory_analysis()
    return {
        "state": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "needs": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        "collectives": count_collectives(compiled.as_text()),
        "compile_seconds": round(time.perf_counter() - start),
    }


def tpu_devices(name: str) -> list[jax.Device]:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # it would ask a TPU machine's metadata
    try:
        return topologies.get_topology_desc(name, platform="tpu").devices
    except (RuntimeError, ValueError) as error:
        raise UserError(f"compiling for TPUs needs `pip install -e .[tpu]`: {error}") from None


def measure_memory() -> Iterator[dict[str, Any]]:
    """A long clip on 8 v5e chips: what remat and sequence sharding save."""
    frames, size = LONG
    for remat in ("none", "full"):
        for sequence in (False, True):
            overrides = {
                **{"model.remat": remat, "model.attention": "einsum"},
                **{"data.frames": frames, "data.size": size},
                **{"data.batch_size": 4, "data.repeats": 1, "mesh.sequence": sequence},
                **{"mesh.data": 1, "mesh.fsdp": 4, "mesh.tensor": 2},
            }
            config = recipe("configs/videomae_k400_finetune.py:B", overrides)
            mesh = mesh_of(tpu_devices(TOPOLOGIES["8 v5e"]), (1, 4, 2))
            yield {"remat": remat, "sequence": sequence, **planned(program_on(config, mesh))}


def plan_config(variant: str, phase: str, clips: int, remat: str) -> ConfigDict:
    """H's recipe, for the giant too, with this many clips a step."""
    name = "videomae_k400" if phase == "pre-training" else "videomae_k400_finetune"
    overrides = {"model.variant": variant, "model.remat": remat, "model.attention": "einsum"}
    overrides["data.repeats"] = 1
    if phase == "pre-training" and variant == "g":
        overrides["objective.decoder_mask_ratio"] = 0.5  # dual masking, as VideoMAE V2 trains it
    return recipe(f"configs/{name}.py:H", {**overrides, "data.batch_size": clips})


@functools.cache
def operations(variant: str, phase: str, remat: str) -> float:
    """Operations of a train step for each clip, by XLA before optimisation, blocks unrolled."""
    clips = 8
    config = plan_config(variant, phase, clips, remat)
    config.model.unroll = 64  # XLA counts a loop once
    program = program_on(config, mesh_of(jax.devices(), (8, 1, 1)))
    with program.setup.on_mesh():
        lowered = program.train_step.lower(program.state, program.setup.example_batch(clips))
        return lowered.cost_analysis()["flops"] / clips


def measure_plan() -> Iterator[dict[str, Any]]:
    """Train steps of the large models on large machines."""
    for variant, phase, name, clips, remat in PLAN:
        sizes = SIZES[name][variant]
        config = plan_config(variant, phase, clips * math.prod(sizes), remat)
        program = program_on(config, mesh_of(tpu_devices(TOPOLOGIES[name]), sizes))
        state = program.state
        yield {
            **{"model": variant, "phase": phase, "machine": name, "mesh": sizes, "clips": clips},
            **{"remat": remat, "parameters": sum(x.size for x in jax.tree.leaves(state.params))},
            **{"params": bytes_on_device(state.params)},
            **{"moments": bytes_on_device(state.opt_state)},
            **{"operations": operations(variant, phase, "none")},
            **{"operations_done": operations(variant, phase, remat)},
            **(planned(program) if flags.FLAGS.compile else {}),
        }


def bounds(row: dict[str, Any]) -> dict[str, float]:
    """Lower bounds of a step's time, in seconds, and the bytes that a chip must receive.

    Weights are gathered in bfloat16 over fsdp, forward and backward, and once more where blocks are
    recomputed; gradients are scattered in bfloat16, too, and over `data` their shards are added up
    (a ring: twice their size).
    """
    chip, (data, fsdp, _) = MACHINES[row["machine"]], row["mesh"]
    gathers = 2 if row["remat"] == "none" else 3
    received = (gathers + 1) * 2 * row["parameters"] * (fsdp - 1) / fsdp
    received += 2 * 2 * row["parameters"] / fsdp * (data - 1) / data
    return {
        "received": received,
        "compute": row["operations_done"] * row["clips"] / chip["tflops"] / 1e12,
        "exchange": received / chip["gigabytes_per_second"] / 1e9,
    }


def gib(size: float) -> str:
    return f"{size / 2**30:.2f}"


def name_of(mesh: Sizes, sequence: bool = False) -> str:
    return f"({', '.join(map(str, mesh))})" + (" sequence" if sequence else "")


def kinds(row: dict[str, Any]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in row.get("collectives", {}).items()) or "-"


def render_losses(rows: list[dict[str, Any]]) -> list[str]:
    header = ["recipe", "mesh", "first loss", "last loss", "worst difference", "collectives"]
    lines = [
        [
            row["recipe"],
            name_of(row["mesh"], row["sequence"]),
            f"{row['first']:.6f}",
            f"{row['last']:.6f}",
            f"{row['worst']:.1e}",
            kinds(row),
        ]
        for row in rows
    ]
    return [
        "## Losses",
        f"{STEPS} steps of the demo recipes in float32 on noise, the same on every mesh (data, "
        "fsdp, tensor) of 8 forced CPU devices; fine-tuning with drop path, dropout, mixup, cutmix "
        "and erasing. The worst difference is relative to the loss of the same step on one device. "
        "Collectives are counted in the compiled program, those of a loop over blocks once.",
        table(header, lines),
    ]


def render_state(rows: list[dict[str, Any]]) -> list[str]:
    header = ["model", "fsdp", "params GiB", "moments GiB", "EMA GiB", "sum GiB", "1/fsdp of"]
    header += ["left whole"]
    first = {row["model"]: row for row in rows if row["fsdp"] == 1}
    parts, lines = ("params", "moments", "ema"), []
    for row in rows:
        size = sum(row[p] for p in parts)
        full = sum(first[row["model"]][p] for p in parts)
        lines.append([
            row["model"],
            str(row["fsdp"]),
            *(gib(row[p]) for p in parts),
            gib(size),
            f"{size * row['fsdp'] / full:.4f}",
            f"{row['whole_bytes'] / 1024:,.0f} KiB",
        ])  # fmt: skip
    names = sorted({path.removeprefix("params/") for row in rows for path in row["whole"]})
    return [
        "## State",
        "Bytes on each device of a pre-training state with EMA, from the shardings of its arrays, "
        "on 8 devices of which fsdp split it. `1/fsdp of` is the sum times fsdp over the sum at "
        "fsdp 1: 1 would be a perfect split. What has no axis named `embed` stays whole: "
        f"{', '.join(f'`{name}`' for name in names)}, with their moments and averages.",
        table(header, lines),
    ]


def render_memory(rows: list[dict[str, Any]]) -> list[str]:
    header = ["remat", "sequence", "state GiB", "temporaries GiB", "needs GiB", "collectives"]
    lines = [
        [
            row["remat"],
            "yes" if row["sequence"] else "no",
            *(gib(row[key]) if key in row else "-" for key in ("state", "temporaries", "needs")),
            kinds(row),
        ]
        for row in rows
    ]
    frames, size = LONG
    return [
        "## A long clip",
        f"VideoMAE-B fine-tuning, {frames}x{size}x{size} (6,272 tokens), bfloat16, one clip for "
        "each of 4 parts of the batch, mesh (1, 4, 2) of 8 v5e chips (16 GB). Compiled by XLA's "
        "TPU compiler, not run. Where there are no collectives, a step needs more than the chip's "
        "15.75 GiB, and the compiler gives up.",
        table(header, lines),
        "Between blocks a clip holds L x N x D values of 2 bytes, with everything recomputed (here "
        "116 MB), of which t chips of `tensor` save (t - 1)/t with sequence; attention's logits in "
        "float32, H/t x N x N (944 MB a block), stay. So sequence sharding pays for deep, wide "
        "models of long clips; remat comes first.",
    ]


def render_plan(rows: list[dict[str, Any]]) -> list[str]:
    memory = ["model", "machine", "mesh", "clips a chip", "remat", "params", "moments", "gradients"]
    memory += ["temporaries", "needs GiB"]
    times = ["model", "machine", "mesh", "remat", "TFLOP a clip", "with remat", "compute ms"]
    times += ["GB received", "exchange ms", "clips/s at most"]
    lines: tuple[list, list] = [], []
    for row in rows:
        bound = bounds(row)
        chips = MACHINES[row["machine"]]["chips"]
        what = f"{row['model']} {row['phase']}"
        lines[0].append([
            *(what, row["machine"], name_of(row["mesh"]), str(row["clips"]), row["remat"]),
            *(gib(row[key]) for key in ("params", "moments", "params")),
            *(gib(row[key]) if key in row else "-" for key in ("temporaries", "needs")),
        ])  # fmt: skip
        lines[1].append([
            *(what, row["machine"], name_of(row["mesh"]), row["remat"]),
            *(f"{row[key] / 1e12:.2f}" for key in ("operations", "operations_done")),
            f"{bound['compute'] * 1e3:.0f}",
            f"{bound['received'] / 1e9:.1f}",
            f"{bound['exchange'] * 1e3:.0f}",
            f"{chips * row['clips'] / max(bound['compute'], bound['exchange']):,.0f}",
        ])  # fmt: skip
    chips = "; ".join(
        f"{name}: {m['chips']} chips of {m['gigabytes']} GB, {m['tflops']} TFLOP/s bfloat16, "
        f"{m['gigabytes_per_second']} GB/s each"
        for name, m in MACHINES.items()
    )
    return [
        "## Plan",
        "On paper but for the compiler: VideoMAE-H (16x224x224, patches of 16) and VideoMAE V2's "
        "giant (patches of 14, dual masking in pre-training), AdamW, float32 state, bfloat16 "
        f"compute. {chips}. The H200's rate is one measured with dense products, the others are "
        "nominal. State and gradients are from the shardings; temporaries (gradients among them) "
        "and what a step needs are XLA's TPU compiler's, for 256 v5e, and for 8 v5p (95 GB) in "
        "place of H200, for which there is no such compiler here: there they tell the size of "
        "activations, not what a GPU's program does. Rows without temporaries were counted, not "
        "compiled.",
        "Widths of 1,408 and 640 do not divide over 256 chips and would stay whole: so fsdp is 32 "
        "or 64 of them, and the other axis is data.",
        table(memory, lines[0]),
        "Operations are XLA's count of a train step before optimisation. Compute is operations, "
        "with what is recomputed, over the machine's rate. A chip receives "
        "(g + 1) x 2P x (f - 1)/f bytes: P parameters are gathered in bfloat16 over f = fsdp chips "
        "g times (forward, backward, and where blocks are recomputed), gradients scattered once; "
        "and 4P/f x (d - 1)/d to add up their shards over d = data. The larger of both times "
        "bounds the clips per second; the two overlap as far as the compiler manages.",
        table(times, lines[1]),
    ]


SECTIONS = {
    "losses": (measure_losses, render_losses),
    "state": (measure_state, render_state),
    "memory": (measure_memory, render_memory),
    "plan": (measure_plan, render_plan),
}


def render(report: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    parts = ["# Sharding", "Made by `python -m benchmarks.sharding`, section by section."]
    for name, (_, write) in SECTIONS.items():
        if name in report:
            where = report[name]["machine"]
            versions = ", ".join(f"{key} {value}" for key, value in where["versions"].items())
            title, *rest = write(report[name]["rows"])
            made = f"{where['date']}, commit {where['commit']}; {versions}."
            parts += [title, made, *rest]
    return "\n\n".join(parts) + "\n"


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; options look like --sections=losses,state")
    unknown = set(values.sections) - set(SECTIONS)
    if unknown:
        raise UserError(f"unknown --sections {sorted(unknown)}; there are {list(SECTIONS)}")
    output = pathlib.Path(values.output)
    report = json.loads(output.read_text()) if output.exists() else {}
    for name in values.sections:
        report[name] = {"machine": machine(), "rows": []}
        for row in SECTIONS[name][0]():
            print(name, row, flush=True)
            report[name]["rows"].append(row)
            output.write_text(json.dumps(report, indent=1) + "\n")
            output.with_suffix(".md").write_text(render(report))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_platforms", "cpu")
    flags.DEFINE_list("sections", list(SECTIONS), f"Of {', '.join(SECTIONS)}.")
    flags.DEFINE_bool("compile", True, "Whether steps of the plan are compiled or only counted.")
    flags.DEFINE_string(
        "output", str(pathlib.Path(__file__).with_suffix(".json")), "The file of numbers."
    )
    run_main(main)
