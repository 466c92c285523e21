"""What fused attention saves on TPUs, by the plans of XLA's TPU compiler. No TPU is needed.

    pip install -e .[tpu] && python -m benchmarks.run --suite=attention --device=tpu

Compiles forward passes and train steps for v5e chips that are not there, with attention by einsum
and as `auto` chooses it there: splash attention. So it is seen that its kernels compile, and what
memory the programs need; how fast they are is not. A program takes up to a minute.
"""

import re
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import harness, sharding
from vidjax import models

TOPOLOGY = "v5e:4x2"
ALONE, EIGHT = (1, 1, 1), (1, 4, 2)  # meshes: data, fsdp, tensor
WAYS = ("einsum", "auto")
KERNEL = re.compile(r'%splash_.* custom_call_target="tpu_custom_call"')  # XLA makes others itself

# Tokens of the longest attention, head width, clips; and what is compiled.
FORWARD = {
    "VideoMAE-B": (1568, 64, 32, dict(name="videomae", variant="B"), (16, 224, 224)),
    "VideoMAE-H": (1568, 80, 16, dict(name="videomae", variant="H"), (16, 224, 224)),
    "ViViT-B": (3137, 64, 8, dict(name="vivit", variant="B"), (32, 224, 224)),
    "VideoPrism-B": (
        *(4096, 64, 16),
        *(dict(name="videoprism", variant="B", head="video"), (16, 288, 288)),
    ),
    "VideoPrism-g": (
        *(2048, 88, 16),
        *(dict(name="videoprism", variant="g", head="video"), (8, 288, 288)),
    ),
}
TRAIN = {
    "VideoMAE-B fine-tuning": (1568, 64, 4, "videomae_k400_finetune.py:B", ALONE),
    "VideoMAE-L pre-training": (1568, 64, 8, "videomae_k400.py:L", ALONE),
    "VideoMAE-H pre-training": (1568, 80, 2, "videomae_k400.py:H", ALONE),
    "ViViT-B training": (3137, 64, 1, "vivit_k400.py:B", ALONE),
    "VideoPrism-B fine-tuning": (4096, 64, 1, "videoprism_msrvtt.py:B", ALONE),
    "VideoMAE-B fine-tuning, 8 chips": (1568, 64, 16, "videomae_k400_finetune.py:B", EIGHT),
}


def run(settings: harness.Settings) -> dict[str, Any]:
    """Compiles everything in both ways; with `quick` only the first forward pass.

    Raises:
        UserError: libtpu is not installed.
    """
    jax.config.update("jax_platforms", "cpu")  # where nothing runs but what decides on shapes
    devices = sharding.tpu_devices(TOPOLOGY)
    cases = [(forward, item) for item in FORWARD.items()]
    cases += [(train_step, item) for item in TRAIN.items()]
    rows = []
    if settings.quick:
        del cases[1:]
    for compiled, (name, (tokens, head_width, clips, *what)) in cases:
        for way in WAYS:
            row = {"name": name, "tokens": tokens, "head_width": head_width, "clips": clips}
            row |= {"attention": way} | plan(compiled, clips, *what, way, devices)
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    return {"topology": TOPOLOGY, "rows": rows}


def forward(
    clips: int,
    fields: dict[str, Any],
    clip: tuple[int, int, int],
    attention: str,
    devices: list[jax.Device],
) -> Any:
    """A compiled forward pass of a whole batch on one chip, in bfloat16."""
    model = models.build(**fields, eps=1e-6, clip=clip, dtype="bfloat16", attention=attention)
    params = models.abstract_params(model)
    mesh = sharding.mesh_of(devices[:1], ALONE)
    place = jax.NamedSharding(mesh, jax.P())
    params, video = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        (params, jax.ShapeDtypeStruct((clips, *clip, 3), jnp.bfloat16)),
    )
    with jax.set_mesh(mesh):
        return jax.jit(model.apply).lower({"params": params}, video).compile()


def train_step(
    clips: int, recipe: str, mesh: sharding.Sizes, attention: str, devices: list[jax.Device]
) -> Any:
    """A compiled train step of a recipe, with nothing recomputed."""
    overrides = {"model.attention": attention, "model.remat": "none"}
    overrides |= {"data.batch_size": clips, "data.repeats": 1}
    config = sharding.recipe(f"configs/{recipe}", overrides)
    if config.model.head == "video_text":
        config.model.vocab_size = 32_000  # VideoPrism's, whose tokeniser need not be at hand
    chips = devices[: mesh[0] * mesh[1] * mesh[2]]
    return sharding.program_on(config, sharding.mesh_of(chips, mesh)).compile_step()


def plan(compiled: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Temporary memory of a program on each chip, in bytes, and how many kernels are in it."""
    start = time.perf_counter()
    try:
        program = compiled(*arguments)
    except (
        jax.errors.JaxRuntimeError
    ) as error:  # it does not fit; then the compiler says by how much
        found = re.search(r"required for HLO temporaries \(([\d.]+)G\)", str(error))
        if not found:
            raise
        return {"temporaries": int(float(found[1]) * 2**30), "fits": False, "kernels": None}
    return {
        "temporaries": program.memory_analysis().temp_size_in_bytes,
        "fits": True,
        "kernels": len(KERNEL.findall(program.as_text())),
        "seconds": round(time.perf_counter() - start),
    }


def render(report: dict[str, Any]) -> str:
    """The table, in Markdown."""
    header = ["program", "tokens", "head width", "clips", "einsum GiB", "splash GiB", "ratio"]
    header += ["kernels"]
    rows = report["rows"]
    lines = []
    for plain, fused in zip(rows[::2], rows[1::2], strict=True):
        sizes = [row["temporaries"] / 2**30 for row in (plain, fused)]
        cells = [
            f"{x:.2f}{'' if row['fits'] else ' (too much)'}"
            for x, row in zip(sizes, (plain, fused), strict=True)
        ]
        lines.append([
            *(plain["name"], f"{plain['tokens']:,}", str(plain["head_width"])),
            *(str(plain["clips"]), *cells, f"{sizes[0] / sizes[1]:.1f}"),
            "-" if fused["kernels"] is None else str(fused["kernels"]),
        ])  # fmt: skip
    return "\n\n".join([
        "Temporary memory on each v5e chip (15.75 GiB) as XLA's TPU compiler plans it, in "
        "bfloat16, nothing recomputed in train steps, attention by einsum and by splash "
        "attention, which `auto` chooses there. Compiled, not run: no time is measured, and where "
        "a program is too large the compiler only says by how much. Kernels are splash attention's "
        "in the program (those of a loop over blocks once); tokens are those of its longest "
        "attention.",
        harness.table(header, lines),
    ])  # fmt: skip
