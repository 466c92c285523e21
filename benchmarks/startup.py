"""Suite `startup`: imports, from a command to its first step and prediction, and depth.

python -m benchmarks.startup STARTED FUNCTION '{"option": 1}'      # what `first` times
"""

import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import conversion, harness
from vidjax.errors import UserError

GOALS = {"import_seconds": 0.3, "second_start": 1 / 3}
MODULES = (
    *("json", "vidjax", "jax", "flax.linen", "orbax.checkpoint", "vidjax.predict", "vidjax.embed"),
    *("vidjax.train", "converters.convert", "torch", "transformers"),
)
DEPTHS = (2, 6, 12, 24)
UNROLLED = 12  # and no more layers without a loop, which take minutes to compile
_TRANSFORMERS = "from transformers import VideoMAEForVideoClassification"


def imports(rounds: int) -> dict[str, Any]:
    """Seconds of whole processes that import something, and what vidjax.train's time goes to."""
    code = {name: f"import {name}" for name in MODULES} | {"transformers": _TRANSFORMERS}
    code = {name: line for name, line in code.items() if _exists(name)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in code}
    for _ in range(rounds + 1):  # the first one reads the libraries from the disk
        for name, line in code.items():
            runs[name].append(harness.whole_process([sys.executable, "-c", line]))
    listing = harness.whole_process(
        ["/bin/sh", "-c", f"{sys.executable} -X importtime -c 'import vidjax.train' 2>&1"]
    )["stdout"]
    own: dict[str, int] = {}
    for microseconds, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", listing):
        package = name.partition(".")[0]
        own[package] = own.get(package, 0) + int(microseconds)
    largest = sorted(own.items(), key=lambda item: -item[1])[:10]
    keys = ("seconds", "cpu_seconds")
    return {
        "processes": {
            name: {key: harness.summary(run[key] for run in found[1:]) for key in keys}
            for name, found in runs.items()
        },
        "packages_of_vidjax_train": {name: total / 1e6 for name, total in largest},
    }


def _exists(name: str) -> bool:
    return importlib.util.find_spec(name.partition(".")[0]) is not None


Say = Callable[[str], None]


def vidjax_predict(say: Say, folder: str, shape: list[int]) -> None:
    """From a converted folder to the first class scores of a clip in memory."""
    from vidjax import compilation, load_model

    compilation.keep_programs()
    import jax

    say("imported")
    loaded = load_model(f"{folder}/vidjax")
    apply = jax.jit(loaded.model.apply)
    video = jax.device_put(np.zeros(shape, np.float32))
    say("loaded")
    for word in ("first", "second"):
        jax.block_until_ready(apply({"params": loaded.params}, video))
        say(word)


def vidjax_train(say: Say, folder: str, shape: list[int]) -> None:
    """From a converted folder to the first step of fine-tuning on a batch in memory."""
    from vidjax import compilation, configlib, load_model
    from vidjax.objectives.classification import Classification
    from vidjax.preprocessing import Preprocessing
    from vidjax.training import optim
    from vidjax.training.step import TrainState, make_train_step

    compilation.keep_programs()
    import jax
    import jax.numpy as jnp

    say("imported")
    loaded = load_model(f"{folder}/vidjax")
    optimizer = optim.make_optimizer(configlib.base().optim, lambda step: 1e-4)
    objective = Classification(loaded.model, Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3))
    init = jax.jit(optimizer.init)
    state = TrainState(jnp.int32(0), loaded.params, init(loaded.params), {})
    del loaded
    batch = jax.device_put(
        {"video": np.zeros(shape, np.uint8), "label": np.zeros(shape[0], np.int32)}
    )
    step = make_train_step(objective, optimizer)
    say("loaded")
    for word in ("first", "second"):
        state, figures = step(state, batch)
        float(figures["loss"])
        say(word)


def hf(say: Say, folder: str, shape: list[int], train: bool, compiled: bool) -> None:
    """The same of transformers."""
    import torch
    from transformers import VideoMAEForVideoClassification

    say("imported")
    model = VideoMAEForVideoClassification.from_pretrained(f"{folder}/hf")
    model = model.train() if train else model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    call = torch.compile(model) if compiled else model
    batch, frames, height, width, channels = shape
    video = torch.zeros(batch, frames, channels, height, width)
    say("loaded")
    for word in ("first", "second"):
        with torch.set_grad_enabled(train):
            out = call(
                pixel_values=video, **({"labels": torch.zeros(batch).long()} if train else {})
            )
            if train:
                out.loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        float(out.logits.sum())
        say(word)


def first(settings: harness.Settings) -> dict[str, Any]:
    """Seconds from the command to each event, at the first start and at later ones."""
    shape = (1, 16, 224, 224, 3)
    if settings.quick:
        shape = (1, 16, 64, 64, 3)
    with harness.scratch() as folder:
        variant = "S" if settings.quick else "B"
        conversion.made_apart(folder / "hf", variant, size=shape[2])
        converter = [sys.executable, "-m", "converters.convert"]
        harness.whole_process([*converter, f"--from={folder}/hf", f"--to={folder}/vidjax"])
        common = {"folder": str(folder), "shape": shape}
        variants: dict[str, tuple[str, dict[str, Any]]] = {
            "vidjax predict": ("vidjax_predict", common),
            "vidjax train": ("vidjax_train", common),
        }
        if _exists("transformers") and _exists("torch") and settings.device == "cpu":
            # Not its train step compiled, which alone takes longer than all others together.
            for name, train, compiled in (
                ("transformers predict", False, False),
                ("transformers predict compiled", False, True),
                ("transformers train", True, False),
            ):
                variants[name] = "hf", common | {"train": train, "compiled": compiled}
        found: dict[str, dict[str, list]] = {n: {"first": [], "later": []} for n in variants}
        broken: dict[str, str] = {}
        for round in range(min(settings.rounds, 2)):
            for name, (function, options) in variants.items():
                # Of vidjax and of torch.compile, both of which keep what they compile. No spaces,
                # which the compiler command of torch.compile does not stand.
                caches = {"XDG_CACHE_HOME": f"{folder}/{name.replace(' ', '_')}_{round}"}
                caches["TORCHINDUCTOR_CACHE_DIR"] = caches["XDG_CACHE_HOME"]
                caches["JAX_ENABLE_COMPILATION_CACHE"] = "true"
                if name in broken:
                    continue
                for start in ("first", "later"):
                    command = [sys.executable, "-m", "benchmarks.startup", str(time.time())]
                    command += [function, json.dumps(options)]
                    try:
                        done = harness.whole_process(command, device=settings.device, **caches)
                    except UserError as error:  # torch.compile wants a C++ compiler
                        broken[name] = str(error)
                        break
                    found[name][start].append(json.loads(done["stdout"].splitlines()[-1]))
    return {
        name: {
            start: {word: harness.summary(run[word] for run in runs) for word in runs[0]}
            for start, runs in both.items()
        }
        for name, both in found.items()
        if name not in broken
    } | {name: {"failed": why} for name, why in broken.items()}


def compile_step(depth: int, unroll: int, width: int, tokens: list[int]) -> tuple[dict, Any]:
    """Variant: traces and compiles a forward and backward pass of a classifier."""
    import jax
    import jax.numpy as jnp

    from vidjax import models

    model = models.build(
        "videomae", width=width, depth=depth, num_heads=width // 64, mlp_dim=4 * width,
        head="classify", num_classes=400, patch_size=(2, 16, 16), eps=1e-6, unroll=unroll,
    )  # fmt: skip
    params = models.abstract_params(model)
    video = jax.ShapeDtypeStruct((1, *tokens, 3), jnp.float32)

    def loss(params, video):
        return model.apply({"params": params}, video).sum()

    def once() -> dict[str, float]:
        jax.clear_caches()
        start = time.perf_counter()
        lowered = jax.jit(jax.grad(loss)).lower(params, video)
        traced = time.perf_counter()
        lowered.compile()
        return {"trace": traced - start, "compile": time.perf_counter() - traced}

    return {}, once


def depths(settings: harness.Settings) -> dict[str, Any]:
    """Seconds to compile models of several depths, as a loop over the layers and without it."""
    clip = [4, 32, 32] if settings.quick else [16, 224, 224]
    width = 64 if settings.quick else 384
    found = {}
    for depth in DEPTHS[:2] if settings.quick else DEPTHS:
        children = {
            kind: harness.Child(
                "benchmarks.startup", "compile_step", device=settings.device, depth=depth,
                unroll=unroll, width=width, tokens=clip,
            )
            for kind, unroll in (("scan", 1), ("unrolled", depth))[: 1 + (depth <= UNROLLED)]
        }  # fmt: skip
        found[str(depth)] = harness.interleave(children, min(settings.rounds, 2), settle=False)
    return {"width": width, "clip": clip, "by_depth": found}


def run(settings: harness.Settings) -> dict[str, Any]:
    """Measures; see the module."""
    return {
        "goals": GOALS,
        "imports": imports(settings.rounds),
        "first": first(settings),
        "depth": depths(settings),
    }


def render(report: Mapping[str, Any]) -> str:
    """The tables of a report."""
    seconds = {k: v["seconds"] for k, v in report["imports"]["processes"].items()}
    python = seconds["json"]["median"]
    rows = [
        [
            "Python alone" if name == "json" else f"`{name}`",
            harness.spread(found),
            "-" if name == "json" else harness.number(found["median"] - python),
        ]
        for name, found in seconds.items()
    ]
    packages = ", ".join(
        f"{name} {harness.number(took)}"
        for name, took in report["imports"]["packages_of_vidjax_train"].items()
    )
    starts = []
    for name, both in report["first"].items():
        if "failed" in both:
            starts.append([f"{name} failed", *"------"])
            continue
        for start, words in both.items():
            at = {word: found["median"] for word, found in words.items()}
            step = at["first"] - at["loaded"]
            before = both["first"]["first"]["median"] - both["first"]["loaded"]["median"]
            starts.append(
                [
                    f"{name}, {start} start",
                    *(harness.number(at[word]) for word in ("imported", "loaded")),
                    harness.spread(words["first"]),
                    harness.number(step),
                    "-" if start == "first" else harness.number(step / before),
                    harness.number(at["second"] - at["first"]),
                ]
            )
    depth = report["depth"]
    compiling = [
        [of, *(_compiling(found.get(kind)) for kind in ("scan", "unrolled"))]
        for of, found in depth["by_depth"].items()
    ]
    goals = report["goals"]
    return "\n\n".join(
        [
            f"Whole processes that import a module, once it has been read from the disk; the goal "
            f"for `import vidjax` is {goals['import_seconds']} s above Python alone.",
            harness.table(["", "seconds", "above Python"], rows),
            f"Of `vidjax.train`, seconds by package (-X importtime, without what they import): "
            f"{packages}.",
            f"Seconds from the command to a VideoMAE's first step, on a clip in memory; of later "
            f"starts, with what the first one left in its cache, as both vidjax and torch.compile "
            f"keep what they compile. Goal: the first step of a later start in less than "
            f"{harness.number(goals['second_start'], 2)} of that of the first start.",
            harness.table(
                ["", "imported", "loaded", "first step done", "first step", "of the first start's",
                 "second step"],
                starts,
            ),
            f"Seconds to trace + compile a forward and backward pass (VideoMAE of width "
            f"{depth['width']}, clip {depth['clip']}), by number of layers:",
            harness.table(["layers", "as a loop (scan)", "unrolled"], compiling),
        ]
    )  # fmt: skip


def _compiling(found: Mapping[str, Any] | None) -> str:
    if found is None or "failed" in found:
        return "-"
    figures = found["figures"]
    trace, compiled = (harness.number(figures[key]["median"]) for key in ("trace", "compile"))
    return f"{trace} + {compiled}"


def _main(started: str, function: str, options: str) -> None:
    at: dict[str, float] = {}

    def say(word: str) -> None:
        at[word] = time.time() - float(started)

    globals()[function](say, **json.loads(options))
    print(json.dumps(at))


if __name__ == "__main__":
    _main(*sys.argv[1:])
