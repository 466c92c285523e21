"""Suite `startup`: imports, from a command to its first step and prediction, and depth.

python -m benchmarks.suites.startup STARTED VARIANT '{"option": 1}'      # what `first` times
"""

import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks import harness, page, peers
from vidjax.errors import UserError

MODULES = """
    json vidjax jax flax.linen orbax.checkpoint vidjax.predict vidjax.embed vidjax.train
    converters.convert torch transformers
"""
_HF = "transformers.models.videomae.modeling_videomae"
# By name: module that it imports, variant of `peers`, and its own options. Not transformers' train
# step compiled, which alone takes longer than all others together.
STARTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vidjax predict": ("vidjax.pretrained", "vidjax_forward", {}),
    "vidjax train": ("vidjax.train", "vidjax_step", {}),
    "transformers predict": (_HF, "hf_forward", {}),
    "transformers predict compiled": (_HF, "hf_forward", {"compiled": "default"}),
    "transformers train": (_HF, "hf_step", {}),
}
EVENTS = ("imported", "loaded", "first", "second")
DEPTHS = (2, 6, 12, 24)
UNROLLED = 12  # and no more layers without a loop, which take minutes to compile


def imports(rounds: int) -> dict[str, Any]:
    """Measures whole processes that import a module."""
    code = {name: f"import {name}" for name in MODULES.split() if _exists(name)}
    if "transformers" in code:
        code["transformers"] = f"import {_HF}"
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in code}
    for _ in range(rounds + 1):  # the first one reads the libraries from the disk
        for name, line in code.items():
            runs[name].append(harness.whole_process([sys.executable, "-c", line]))
    keys = ("seconds", "cpu_seconds")
    return {"processes": {name: harness.summaries(of[1:], keys) for name, of in runs.items()}}


def _exists(name: str) -> bool:
    return importlib.util.find_spec(name.partition(".")[0]) is not None


def first(settings: harness.Settings) -> dict[str, Any]:
    """Measures seconds from the command to each event, at the first start and at later ones.

    The first step is that of a VideoMAE-B, on a clip in memory. Both vidjax and torch.compile keep
    what they compile.
    """
    case = {"case": "VideoMAE-B", "quick": settings.quick}
    found: dict[str, Any] = {}
    with harness.scratch() as folder:
        peers.prepare(**case, folder=folder)
        common = {**case, "batch": 1, "dtype": "float32", "folder": str(folder)}
        for name, (_, _, options) in STARTS.items():
            runs: dict[str, list] = {"first": [], "later": []}
            try:
                for round in range(min(settings.rounds, 2)):
                    # No spaces, which the compiler command of torch.compile does not stand.
                    cache = f"{folder}/{name.replace(' ', '_')}_{round}"
                    for start in runs:
                        runs[start].append(_start(name, cache, {**common, **options}))
            except UserError as error:  # torch.compile wants a C++ compiler
                found[name] = {"failed": str(error)}
            else:
                found[name] = {k: harness.summaries(of, EVENTS) for k, of in runs.items()}
    return found


def _start(name: str, cache: str, options: Mapping[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.suites.startup", str(time.time()), name]
    env = {"XDG_CACHE_HOME": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    env["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    done = harness.whole_process([*command, json.dumps(options)], **env)
    return json.loads(done["stdout"].splitlines()[-1])


def started(since: float, name: str, options: Mapping[str, Any]) -> dict[str, float]:
    """Runs a variant twice in this process; returns seconds since the command to each event."""
    module, variant, _ = STARTS[name]
    at: dict[str, float] = {}
    importlib.import_module(module)
    if name.startswith("vidjax"):
        from vidjax import compilation

        compilation.keep_programs()
    at["imported"] = time.time() - since
    _, once = getattr(peers, variant)(**options)
    for event in EVENTS[1:]:
        at[event] = time.time() - since
        if event != EVENTS[-1]:
            once()
    return at


def compile_step(depth: int, unroll: int, width: int, clip: list[int]) -> peers.Variant:
    """Traces and compiles a forward and backward pass of a classifier."""
    import jax

    from vidjax import models

    model = models.build(
        "videomae",
        width=width,
        depth=depth,
        num_heads=width // 64,
        mlp_dim=4 * width,
        head="classify",
        num_classes=400,
        patch_size=(2, 16, 16),
        eps=1e-6,
        unroll=unroll,
    )
    params = models.abstract_params(model)
    video = jax.ShapeDtypeStruct((1, *clip, 3), "float32")

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
    """Measures compilation at several depths, as a loop over the layers and without it."""
    sizes = {"width": 384, "clip": [16, 224, 224]}
    if settings.quick:
        sizes = {"width": 64, "clip": [4, 32, 32]}
    found = {}
    for depth in DEPTHS[:2] if settings.quick else DEPTHS:
        unrolls = {"scan": 1, "unrolled": depth} if depth <= UNROLLED else {"scan": 1}
        function = "benchmarks.suites.startup:compile_step"
        children = {
            kind: harness.Child(function, depth=depth, unroll=unroll, **sizes)
            for kind, unroll in unrolls.items()
        }
        found[str(depth)] = harness.interleave(children, min(settings.rounds, 2), settle=False)
    return {**sizes, "by_depth": found}


def run(settings: harness.Settings) -> dict[str, Any]:
    return {
        "imports": imports(settings.rounds),
        "first": first(settings),
        "depth": depths(settings),
    }


def render(report: Mapping[str, Any]) -> str:
    """Returns tables of imports, starts, and compilation by depth."""
    seconds = {k: v["seconds"] for k, v in report["imports"]["processes"].items()}
    processes = [
        {
            "process": f"import {name}" if name != "json" else "Python alone",
            "seconds": took,
            "above Python": took["median"] - seconds["json"]["median"] if name != "json" else None,
        }
        for name, took in seconds.items()
    ]
    starts = []
    for name, both in report["first"].items():
        if "failed" in both:
            starts.append({"start": name, "failed": both["failed"]})
            continue
        for start, events in both.items():
            at = {event: summary["median"] for event, summary in events.items()}
            step = at["first"] - at["loaded"]
            starts.append(
                {
                    "start": f"{name}, {start} start",
                    "imported": at["imported"],
                    "loaded": at["loaded"],
                    "first step done": events["first"],
                    "first step": step,
                    "of the first start's": step / _steps(both["first"])[0]
                    if start == "later"
                    else None,
                    "second step": at["second"] - at["first"],
                }
            )
    depth = report["depth"]
    compiling = [
        {
            "layers": of,
            "as a loop (scan)": _compiling(one, "scan"),
            "unrolled": _compiling(one, "unrolled"),
        }
        for of, one in depth["by_depth"].items()
    ]
    sizes = f"VideoMAE of width {depth['width']}, clip {depth['clip']}; trace + compile, seconds:"
    tables = [page.table(rows) for rows in (processes, starts, compiling)]
    return "\n\n".join([*tables[:2], sizes, tables[2]])


def _compiling(variants: Mapping[str, Any], kind: str) -> str | None:
    figures = variants.get(kind, {}).get("figures")
    return figures and " + ".join(page.cell(figures[x]["median"]) for x in ("trace", "compile"))


def _steps(events: Mapping[str, Any]) -> tuple[float, float]:
    """Returns seconds of the first step, and those that a second one does not take."""
    loaded, first, second = (events[event]["median"] for event in EVENTS[1:])
    return first - loaded, (first - loaded) - (second - first)


def _import(report: Mapping[str, Any]) -> str:
    seconds = {k: v["seconds"]["median"] for k, v in report["imports"]["processes"].items()}
    # Python alone may come out slower, by noise.
    return f"{max(seconds['vidjax'] - seconds['json'], 0.0):.2f} s"


def _second_start(report: Mapping[str, Any]) -> str:
    found = []
    for name, both in report["first"].items():
        if "failed" not in both and name.startswith("vidjax"):
            steps = zip(_steps(both["later"]), _steps(both["first"]), strict=True)
            whole, beside = (later / first for later, first in steps)
            found.append(f"{name} {whole:.2f} of the first, {beside:.2f} without the step itself")
    return "; ".join(found)


def _compilation(report: Mapping[str, Any]) -> str:
    return ", ".join(
        f"depth {depth}: {one['scan']['figures']['compile']['median']:.1f} s"
        for depth, one in report["depth"]["by_depth"].items()
        if "failed" not in one["scan"]
    )


GOALS = {
    "compilation time independent of depth": _compilation,
    "`import vidjax` in less than 0.3 s (above Python's own start)": _import,
    "a second start's first step in less than a third of the first": _second_start,
}


if __name__ == "__main__":
    print(json.dumps(started(float(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))))
