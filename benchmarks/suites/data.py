"""Suite `data`: from video files to batches, beside the bare decoders."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import harness, page, videos
from benchmarks.suites import readers
from vidjax.data import demo, lists
from vidjax.data.reading import pyav


def run(settings: harness.Settings) -> dict[str, Any]:
    quick = settings.quick
    shape = {"height": 256, "width": 340, "count": 4, "frames": 300}
    if quick:
        shape = {"height": 72, "width": 96, "count": 2, "frames": 80}
    size = 64 if quick else 224
    with harness.scratch() as folder:
        groups = {
            f"made, keyframe every {gap}": videos.make_videos(folder, gap, **shape)
            for gap in (12, 250)
        }
        if "clips" in settings.peers:
            groups["real"] = videos.find_videos(settings.peers["clips"])
        tiny = videos.make_videos(folder, 6, count=10, frames=24, height=48, width=64)
        return {
            "size": size,
            "threads": settings.threads,
            "groups": {name: _facts(group) for name, group in groups.items()},
            "one_core": _one_core(settings, groups, size),
            "cache": _cache(settings, groups, size, folder),
            "memory": _memory(settings, tiny),
        }


def _facts(files: videos.Files) -> dict[str, Any]:
    sizes = set()
    for path, _ in files:
        with pyav.open_stream(path) as (_, stream):
            sizes.add(f"{stream.width}x{stream.height}")
    return {"videos": len(files), "frames": sum(n for _, n in files), "sizes": sorted(sizes)}


def _one_core(settings: harness.Settings, groups: Mapping, size: int) -> dict[str, Any]:
    options = {"groups": groups, "size": size, "clips": 2 if settings.quick else 8}
    children = {
        name: harness.Child("benchmarks.suites.readers:one_core", variant=name, **options)
        for name in readers.VARIANTS
    }
    return harness.interleave(children, settings.rounds, settle=False)  # of many seconds


def _cache(
    settings: harness.Settings, groups: Mapping, size: int, folder: pathlib.Path
) -> dict[str, Any]:
    count = 16 if settings.quick else 64
    demo.make(folder / "demo", num_train=count, num_val=8)
    listed = lists.read_list(folder / "demo" / "train.csv")
    groups = groups | {"demo": [(video.path, None) for video in listed]}
    options = {"groups": groups, "size": size, "clips": 32 if settings.quick else 64}
    caches = {"none": "", "memory": "2GB", "folder": f"{folder / 'cache'}:2GB"}
    children = {
        name: harness.Child("benchmarks.suites.readers:cached", cache=cache, **options)
        for name, cache in caches.items()
    }
    return harness.interleave(children, settings.rounds, settle=False)


def _memory(settings: harness.Settings, files: videos.Files) -> dict[str, Any]:
    options = {"files": files, "size": 48, "batch_size": 10, "clips": 10_000, "every": 500}
    if settings.quick:
        options |= {"clips": 400, "every": 100}
    found = {}
    for workers in (0, 2):
        child = harness.Child("benchmarks.suites.readers:memory", workers=workers, **options)
        figures = child.once()
        if "failed" not in figures:
            seconds = figures.pop("seconds")
            by_clips = {int(done): size for done, size in figures.items()}
            figures = {"seconds": seconds, "bytes": by_clips, **slope(by_clips)}
        found[f"{workers} workers" if workers else "threads"] = figures
    return found


def slope(memory: Mapping[int, float]) -> dict[str, float]:
    """Returns bytes per clip and their standard error, by a line without the first tenth."""
    done = np.array(sorted(memory), float)
    used = np.array([memory[int(x)] for x in done], float)
    done, used = done[len(done) // 10 :], used[len(done) // 10 :]
    away = done - done.mean()
    rate = (away @ used) / (away @ away)
    rest = used - used.mean() - rate * away
    error = math.sqrt(rest @ rest / max(len(done) - 2, 1) / (away @ away))
    return {"bytes_per_clip": float(rate), "error": error}


def render(report: Mapping[str, Any]) -> str:
    """Returns tables of clips on one core, and of memory."""
    parts = []
    for group, facts in report["groups"].items():
        sizes = ", ".join(facts["sizes"])
        parts += [f"{group}: {facts['videos']} videos, {sizes}.", _one_core_table(report, group)]
    if "cache" in report:
        parts += ["Clips through the loader's threads, by config.data.cache:", _cache_table(report)]
    memory = []
    for name, one in report["memory"].items():
        if "failed" in one:
            memory.append({"loader": name, "failed": one["failed"]})
            continue
        sizes = [one["bytes"][key] for key in sorted(one["bytes"], key=int)]
        row = {"loader": name, "clips": max(map(int, one["bytes"]))}
        row |= {"MiB at first": sizes[0] / 2**20, "MiB at last": sizes[-1] / 2**20}
        row |= {"bytes a clip": _growth(one), "seconds": one["seconds"]}
        memory.append(row)
    return "\n\n".join([*parts, page.table(memory)])


def _one_core_table(report: Mapping[str, Any], group: str) -> str:
    ours, rows = report["one_core"]["vidjax"]["figures"], []
    for recipe in readers.RECIPES:
        for name in readers.VARIANTS:
            one = report["one_core"][name]
            row = {"recipe: variant": f"{recipe}: {name}"}
            key = f"{group}/{recipe}/ms"
            if "failed" in one:
                rows.append(row | {"failed": one["failed"]})
            elif wall := one["figures"].get(key):
                row |= {"ms": wall, "CPU ms": one["figures"][f"{group}/{recipe}/cpu_ms"]}
                row |= {"clips/s": 1e3 / wall["median"]}
                rows.append(row | {"vidjax / it": wall["median"] / ours[key]["median"]})
    return page.table(rows)


def _cache_table(report: Mapping[str, Any]) -> str:
    rows = []
    for name, one in report["cache"].items():
        if "failed" in one:
            rows.append({"cache: videos": name, "failed": one["failed"]})
            continue
        figures = one["figures"]
        for key in (key for key in figures if key.endswith("/ms")):
            group, wall = key.removesuffix("/ms"), figures[key]
            row = {"cache: videos": f"{name}: {group}", "ms": wall}
            row |= {"CPU ms": figures[f"{group}/cpu_ms"], "clips/s": 1e3 / wall["median"]}
            rows.append(row)
    return page.table(rows)


def _growth(one: Mapping[str, Any]) -> str:
    return f"{one['bytes_per_clip']:,.0f} ± {one['error']:,.0f}"


def _beside_decord(report: Mapping[str, Any]) -> str:
    bare = report["one_core"]["decord"].get("figures", {})

    def ratios(variant: str, group: str) -> str:
        figures = report["one_core"][variant].get("figures", {})
        found = [
            bare[key]["median"] / wall["median"]
            for key, wall in figures.items()
            if key.startswith(group + "/") and key.endswith("/ms") and key in bare
        ]
        return f"{min(found):.2f} to {max(found):.2f} x" if found else page.NOT_MEASURED

    return "; ".join(
        f"{group}: {ratios('vidjax', group)}, through decord {ratios('vidjax, decord', group)}"
        for group in report["groups"]
    )


def _flat(report: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} {_growth(one)} bytes a clip"
        for name, one in report["memory"].items()
        if "failed" not in one
    )


GOALS = {
    "decode + sample + crop: at least 0.9 x decord alone, by core": _beside_decord,
    "memory flat over 10,000 clips": _flat,
}
