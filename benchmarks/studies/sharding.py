"""Study `sharding`: memory and collectives of train steps, as XLA's TPU compiler plans them.

    pip install -e .[tpu] && python -m benchmarks.studies.sharding --sections=memory,plan

No accelerator is needed: train steps are compiled for TPUs that are not there, which needs the
library libtpu and one to three minutes each. Keeps sharding.json and the tables of sharding.md,
beside this file, up to date row by row.
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
from absl import flags
from jax.experimental import topologies
from jax.sharding import AxisType
from ml_collections import ConfigDict

from benchmarks import page
from benchmarks.origin import origin
from vidjax import configlib
from vidjax.errors import UserError, run_main
from vidjax.setup import Setup
from vidjax.training.estimate import bytes_on_device
from vidjax.training.program import Program

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
Sizes = tuple[int, int, int]  # of the mesh: data, fsdp, tensor
Row = dict[str, Any]

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
LONG = {"data.frames": 64, "data.size": 224}  # a clip of 6,272 tokens


def recipe(name: str, overrides: dict[str, Any]) -> ConfigDict:
    """Returns the config `name` with its argument and overrides."""
    config = configlib.load(f"configs/{name}").unlock()
    # Mixing clips of a group costs what mixing all of them does, and fits any batch.
    alike = {"model.attention": "einsum", "data.repeats": 1, "data.mix_group": 0}
    config.update_from_flattened_dict({**alike, **overrides})
    return config


def program_on(config: ConfigDict, devices: list[jax.Device], sizes: Sizes) -> Program:
    """Returns the program of a config on a mesh, which need not be one of this machine's."""
    setup = Setup(config, without_lists=True)
    _ = setup.abstract_params  # traced before the mesh is one that cannot run anything
    axes = ("data", "fsdp", "tensor")
    setup.mesh = jax.make_mesh(sizes, axes, axis_types=(AxisType.Auto,) * 3, devices=devices)
    return Program(setup, lambda step, factor=1.0: 1e-3 * factor)


def tpu_devices(name: str) -> list[jax.Device]:
    """Returns absent TPUs.

    Raises:
        UserError: libtpu is not installed.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # it would ask a TPU machine's metadata
    try:
        return topologies.get_topology_desc(name, platform="tpu").devices
    except (RuntimeError, ValueError) as error:
        raise UserError(f"compiling for TPUs needs `pip install -e .[tpu]`: {error}") from None


def planned(program: Program) -> Row:
    """Returns what the compiler plans for a step; no collectives where a chip has less memory."""
    start = time.perf_counter()
    try:
        compiled = program.compile_step()
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"required for HLO temporaries \(([\d.]+)G\)", str(error))
        if not needed:
            raise
        state, temporaries = bytes_on_device(program.state), int(float(needed[1]) * 2**30)
        return {"state": state, "temporaries": temporaries, "needs": state + temporaries}
    memory = compiled.memory_analysis()
    instructions = re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", compiled.as_text())
    return {
        "state": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "needs": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        "collectives": dict(collections.Counter(instructions)),  # those of a loop count once
        "compile_seconds": round(time.perf_counter() - start),
    }


def measure_memory() -> Iterator[Row]:
    """Plans a long clip on 8 v5e chips: what remat and sequence sharding save."""
    for remat in ("none", "full"):
        for sequence in (False, True):
            overrides = {
                **LONG,
                "data.batch_size": 4,
                "model.remat": remat,
                "mesh.sequence": sequence,
                "mesh.data": 1,
                "mesh.fsdp": 4,
                "mesh.tensor": 2,
            }
            config = recipe("videomae_k400_finetune.py:B", overrides)
            program = program_on(config, tpu_devices(TOPOLOGIES["8 v5e"]), (1, 4, 2))
            yield {"remat": remat, "sequence": sequence, **planned(program)}


def plan_config(variant: str, phase: str, clips: int, remat: str) -> ConfigDict:
    """Returns H's recipe, for the giant too, with this many clips a step."""
    overrides = {"model.variant": variant, "model.remat": remat, "data.batch_size": clips}
    if phase == "fine-tuning":
        return recipe("videomae_k400_finetune.py:H", overrides)
    if variant == "g":
        overrides["objective.decoder_mask_ratio"] = 0.5  # dual masking, as VideoMAE V2 trains it
    return recipe("videomae_k400.py:H", overrides)


@functools.cache
def operations(variant: str, phase: str, remat: str) -> float:
    """Returns operations of a train step for each clip, by XLA before optimisation."""
    clips = 8
    config = plan_config(variant, phase, clips, remat)
    config.model.unroll = 64  # XLA counts a loop once
    program = program_on(config, jax.devices(), (8, 1, 1))
    with program.setup.on_mesh():
        lowered = program.train_step.lower(program.state, program.setup.example_batch(clips))
        return lowered.cost_analysis()["flops"] / clips


def measure_plan() -> Iterator[Row]:
    """Plans train steps of the large models on large machines."""
    for variant, phase, machine, clips, remat in PLAN:
        sizes = SIZES[machine][variant]
        config = plan_config(variant, phase, clips * math.prod(sizes), remat)
        program = program_on(config, tpu_devices(TOPOLOGIES[machine]), sizes)
        state = program.state
        row = {
            "model": variant,
            "phase": phase,
            "machine": machine,
            "mesh": sizes,
            "clips": clips,
            "remat": remat,
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
            "params": bytes_on_device(state.params),
            "moments": bytes_on_device(state.opt_state),
            "operations": operations(variant, phase, "none"),
            "operations_done": operations(variant, phase, remat),
        }
        yield row | (planned(program) if flags.FLAGS.compile else {})


def bounds(row: Row) -> dict[str, float]:
    """Returns lower bounds of a step's seconds, and the bytes that a chip must receive.

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


def _gib(row: Row, key: str) -> str:
    return f"{row[key] / 2**30:.2f}" if key in row else "-"


def render_memory(rows: list[Row]) -> str:
    return page.table(
        {
            "remat": row["remat"],
            "sequence": "yes" if row["sequence"] else "no",
            "state GiB": _gib(row, "state"),
            "temporaries GiB": _gib(row, "temporaries"),
            "needs GiB": _gib(row, "needs"),
            "collectives": page.named(row.get("collectives", {})) or None,
        }
        for row in rows
    )


def render_plan(rows: list[Row]) -> str:
    memory, times = [], []
    for row in rows:
        bound, chips = bounds(row), MACHINES[row["machine"]]["chips"]
        run = {
            "model": f"{row['model']} {row['phase']}",
            "machine": row["machine"],
            "mesh": f"({', '.join(map(str, row['mesh']))})",
            "remat": row["remat"],
        }
        memory.append(
            {
                **run,
                "clips a chip": row["clips"],
                "params": _gib(row, "params"),
                "moments": _gib(row, "moments"),
                "gradients": _gib(row, "params"),
                "temporaries": _gib(row, "temporaries"),
                "needs GiB": _gib(row, "needs"),
            }
        )
        slowest = max(bound["compute"], bound["exchange"])
        times.append(
            {
                **run,
                "TFLOP a clip": f"{row['operations'] / 1e12:.2f}",
                "with remat": f"{row['operations_done'] / 1e12:.2f}",
                "compute ms": f"{bound['compute'] * 1e3:.0f}",
                "GB received": f"{bound['received'] / 1e9:.1f}",
                "exchange ms": f"{bound['exchange'] * 1e3:.0f}",
                "clips/s at most": f"{chips * row['clips'] / slowest:,.0f}",
            }
        )
    return f"{page.table(memory)}\n\n{page.table(times)}"


SECTIONS = {"memory": (measure_memory, render_memory), "plan": (measure_plan, render_plan)}
RESULTS = pathlib.Path(__file__).with_suffix(".json")


def blocks(report: dict[str, Any]) -> dict[str, str]:
    """Returns the generated parts of sharding.md."""
    return {
        name: f"{page.where(report[name])}\n\n{render(report[name]['rows'])}"
        for name, (_, render) in SECTIONS.items()
    }


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; options look like --sections=memory,plan")
    if unknown := set(values.sections) - set(SECTIONS):
        raise UserError(f"unknown --sections {sorted(unknown)}; there are {list(SECTIONS)}")
    report = json.loads(RESULTS.read_text())
    for name in values.sections:
        report[name] = {**origin(), "rows": []}
        for row in SECTIONS[name][0]():
            print(name, row, flush=True)
            report[name]["rows"].append(row)
            RESULTS.write_text(json.dumps(report, indent=1) + "\n")
            page.update(RESULTS.with_suffix(".md"), blocks(report))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_platforms", "cpu")
    flags.DEFINE_list("sections", list(SECTIONS), f"Of {', '.join(SECTIONS)}.")
    flags.DEFINE_bool("compile", True, "Whether steps of the plan are compiled or only counted.")
    run_main(main)
