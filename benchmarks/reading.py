"""Suite `data`: from video files to batches, beside the bare decoders and the peers' loaders."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import av
import cv2
import numpy as np

from benchmarks import harness, readers
from vidjax.data import check
from vidjax.data.reading import pyav
from vidjax.errors import UserError, VideoError

GOAL = 0.9  # clips/s of vidjax, decode + sample + crop, over those of decord alone
WAITING_GOAL = 0.02
_SPAN = 64  # frames that a clip of 16, 4 apart, reaches over
_PLAIN = ("pre-training", "fine-tuning", "evaluation")  # what bare decoders are compared in


def make_videos(
    folder: pathlib.Path, keyframes: int, *, count: int, frames: int, height: int, width: int
) -> list[tuple[str, int]]:
    """H.264 files as Kinetics has them, with a keyframe every so many frames: paths and lengths."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        sheet = rng.integers(0, 256, (height + 64, width + frames, 3), np.uint8)
        sheet = cv2.normalize(cv2.GaussianBlur(sheet, (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)
        path = folder / f"{keyframes}_{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(
                "libx264", rate=30, options={"g": str(keyframes), "crf": "23", "threads": "1"}
            )
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for time in range(frames):
                top = round(32 + 30 * math.sin(time / 20))
                picture = sheet[top : top + height, time : time + width].copy()
                place = (width // 2 + round(width / 3 * math.sin(time / 9)), height // 2)
                cv2.circle(picture, place, height // 6, (250, 40, 40), -1)
                noise = rng.integers(-4, 5, picture.shape, np.int16)
                picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
                image = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode())
        made.append((str(path), frames))
    return made


def make_large_video(folder: pathlib.Path, side: int, repeats: int) -> str:
    """A 16:9 video of `side` rows whose 20 pictures are encoded once and come `repeats` times."""
    ((source, _),) = make_videos(folder, 20, count=1, frames=20, height=side, width=side * 16 // 9)
    path = str(folder / "large.mp4")
    with av.open(path, "w") as writer:
        with av.open(source) as reader:
            new = writer.add_stream_from_template(reader.streams.video[0])
        for repeat in range(repeats):
            with av.open(source) as reader:
                old = reader.streams.video[0]
                for packet in reader.demux(old):
                    if packet.size:
                        packet.pts += repeat * old.duration
                        packet.dts += repeat * old.duration
                        packet.stream = new
                        writer.mux(packet)
    return path


def find_videos(folder: str) -> list[tuple[str, int]]:
    """Files of a folder that pass the check and are long enough for a clip."""
    paths = sorted(str(path) for path in pathlib.Path(folder).iterdir() if path.is_file())
    answers = check.killable_map(check.inspect, paths, 2, 60.0)
    found = {}
    for index, facts in answers:
        if isinstance(facts, VideoError) or facts["verdict"] != "ok":
            continue
        if facts["frames"] > _SPAN:
            found[paths[index]] = facts["frames"]
    if not found:
        raise UserError(f"--peer=clips={folder} holds no video that passes the check")
    return sorted(found.items())


def run(settings: harness.Settings) -> dict[str, Any]:
    quick = settings.quick
    shape = {"height": 72, "width": 96} if quick else {"height": 256, "width": 340}
    size, count, frames = (64, 2, 80) if quick else (224, 4, 300)
    with harness.scratch() as folder:
        groups = {
            f"made, keyframe every {gap}": make_videos(
                folder, gap, count=count, frames=frames, **shape
            )
            for gap in (12, 250)
        }
        if "clips" in settings.peers:
            groups["real"] = find_videos(settings.peers["clips"])
        files = [file for group in groups.values() for file in group]
        tiny = make_videos(folder, 6, count=10, frames=24, height=48, width=64)
        return {
            "size": size,
            "threads": settings.threads,
            "groups": {name: _facts(group) for name, group in groups.items()},
            "one_core": _one_core(settings, groups, size),
            "loaders": _loaders(settings, files, size),
            "memory": _memory(settings, tiny),
            "views": _views(settings, folder, size),
        }


def _facts(files: list[tuple[str, int]]) -> dict[str, Any]:
    sizes = set()
    for path, _ in files:
        with pyav.open_stream(path) as (_, stream):
            sizes.add(f"{stream.width}x{stream.height}")
    return {"videos": len(files), "frames": sum(n for _, n in files), "sizes": sorted(sizes)}


def _one_core(settings: harness.Settings, groups: Mapping, size: int) -> dict[str, Any]:
    children = {
        variant: harness.Child(
            "benchmarks.readers", "one_core", variant=variant, groups=groups, size=size,
            clips=2 if settings.quick else 8,
        )
        for variant in readers.VARIANTS
    }  # fmt: skip
    return harness.interleave(children, settings.rounds, print, settle=False)  # of many seconds


def _loaders(settings: harness.Settings, files: list, size: int) -> dict[str, Any]:
    workers = (0, 1) if settings.quick else (0, 1, 2, 4)
    kinds = [("vidjax", count) for count in workers] + [
        ("torch", workers[-1 if settings.quick else 2])
    ]
    options = {"files": files, "size": size, "batch_size": 4 if settings.quick else 8}
    children = {
        f"{kind}, {f'{count} workers' if count else 'threads'}": harness.Child(
            "benchmarks.readers", "loading", kind=kind, workers=count, **options,
            batches=3 if settings.quick else 12,
        )
        for kind, count in kinds
    }  # fmt: skip
    rounds = 1 if settings.quick else min(settings.rounds, 3)
    return harness.interleave(children, rounds, print, settle=False)


def _memory(settings: harness.Settings, files: list) -> dict[str, Any]:
    clips, every = (400, 100) if settings.quick else (10_000, 500)
    found = {}
    for workers in (0, 2):
        child = harness.Child(
            "benchmarks.readers", "memory", files=files, workers=workers, size=48, clips=clips,
            every=every, batch_size=10,
        )  # fmt: skip
        try:
            answers = [child.ask("ready"), child.ask("run")]
        finally:
            child.close()
        failed = next((answer for answer in answers if "failed" in answer), None)
        name = f"{workers} workers" if workers else "threads"
        if failed is not None:
            found[name] = failed
            continue
        figures = answers[1]["figures"]
        seconds = figures.pop("seconds")
        memory = {int(done): size for done, size in figures.items()}
        found[name] = {"seconds": seconds, "bytes": memory, **slope(memory)}
        print(f"  memory, {name}: {found[name]}", flush=True)
    return found


def _views(settings: harness.Settings, folder: pathlib.Path, size: int) -> dict[str, Any]:
    """Memory that one video's 5 x 3 views take, at three resolutions."""
    found, rows = {}, (72, 144) if settings.quick else (720, 1080, 2160)
    for side in rows:
        path = make_large_video(folder, side, repeats=4 if settings.quick else 15)
        options = {"path": path, "size": size, "temporal": 5, "spatial": 3}
        child = harness.Child("benchmarks.readers", "views", **options)
        try:
            answers = [child.ask("ready"), child.ask("run")]
        finally:
            child.close()
        failed = next((answer for answer in answers if "failed" in answer), None)
        found[str(side)] = failed or answers[1]["figures"]
        print(f"  5 x 3 views of {side} rows: {found[str(side)]}", flush=True)
    return found


def slope(memory: Mapping[int, float]) -> dict[str, float]:
    """Bytes per clip and their standard error, by a line through all but the first tenth."""
    done = np.array(sorted(memory), float)
    used = np.array([memory[int(x)] for x in done], float)
    done, used = done[len(done) // 10 :], used[len(done) // 10 :]
    away = done - done.mean()
    rate = (away @ used) / (away @ away)
    rest = used - used.mean() - rate * away
    error = math.sqrt(rest @ rest / max(len(done) - 2, 1) / (away @ away))
    return {"bytes_per_clip": float(rate), "error": error}


def render(report: Mapping[str, Any]) -> str:
    groups = "; ".join(
        f"{name}: {facts['videos']} videos, {', '.join(facts['sizes'])}"
        for name, facts in report["groups"].items()
    )
    side = report["size"]
    return "\n\n".join([
        f"Clips of 16 frames, 4 apart, {side} x {side}, from H.264 files ({groups}).",
        "### One core",
        "Each variant is a process pinned to one core, with one thread of its own for decoding, "
        "taking turns; all make the same clips. Milliseconds a clip, medians (minimum to maximum); "
        "CPU is that of all threads of the process. decord and PyAV alone decode the same frames "
        "to RGB, and neither crop nor resize; vidjax and the peers' steps go on to crops of the "
        "final size (uint8; the peers' to normalised floats). `vidjax / it` compares clips/s: the "
        f"goal is {GOAL} beside decord alone. RandAugment is fine-tuning with its four operations.",
        *(_one_core_table(report, group) for group in report["groups"]),
        "### Loaders",
        f"All {report['threads']} cores, batches of the pre-training recipe, all groups of files "
        "mixed. The first batch is that of a loader just made, start of its workers included. CPU "
        "is a clip's; the parent's share of it is what the process that trains pays. Waiting: the "
        "share of time that a made-up device waits whose step takes 1.5 times as long as the "
        f"loader needs for a batch (goal: below {WAITING_GOAL:.0%}).",
        _loader_table(report["loaders"]),
        "### Memory",
        "Memory in RAM of the process and its workers (not of files), shared pages counted once, "
        "while the training loader reads small clips; growth by a line through all but the first "
        "tenth, with its standard error.",
        _memory_table(report["memory"]),
        *_views_text(report.get("views", {})),
    ])  # fmt: skip


def _one_core_table(report: Mapping[str, Any], group: str) -> str:
    variants, rows = report["one_core"], []
    for recipe in readers.RECIPES:
        ours = variants["vidjax"]["figures"][f"{group}/{recipe}/ms"]["median"]
        for name, found in variants.items():
            if "failed" in found:
                if recipe == _PLAIN[0]:
                    rows.append([f"{name}: {found['failed']}", *["-"] * 4])
                continue
            if (key := f"{group}/{recipe}/ms") not in found["figures"]:
                continue
            wall, cpu = found["figures"][key], found["figures"][f"{group}/{recipe}/cpu_ms"]
            ratio = "" if name == "vidjax" else harness.number(wall["median"] / ours)
            clips = harness.number(1e3 / wall["median"])
            rows.append([
                f"{recipe}: {name}", harness.spread(wall), harness.spread(cpu), clips, ratio
            ])  # fmt: skip
    return f"Videos: {group}.\n\n" + harness.table(
        ["recipe: variant", "ms", "CPU ms", "clips/s", "vidjax / it"], rows
    )


def _loader_table(loaders: Mapping[str, Any]) -> str:
    rows = []
    for name, found in loaders.items():
        if "failed" in found:
            rows.append([f"{name}: {found['failed']}", *["-"] * 5])
            continue
        figures = found["figures"]
        rows.append([
            name,
            harness.spread(figures["clips_per_second"]),
            harness.number(figures["cpu_ms"]["median"]),
            harness.number(figures["parent_cpu_ms"]["median"]),
            harness.number(figures["first_batch_seconds"]["median"]),
            f"{figures['waiting_share']['median']:.1%}",
        ])  # fmt: skip
    return harness.table(
        ["loader", "clips/s", "CPU ms", "of it parent's", "first batch s", "waiting"], rows
    )


def _memory_table(memory: Mapping[str, Any]) -> str:
    rows = []
    for name, found in memory.items():
        if "failed" in found:
            rows.append([f"{name}: {found['failed']}", *["-"] * 5])
            continue
        done = sorted(found["bytes"], key=int)
        first, last = (f"{found['bytes'][key] / 2**20:,.0f}" for key in (done[0], done[-1]))
        rate = f"{found['bytes_per_clip']:,.0f} ± {found['error']:,.0f}"
        rows.append([name, f"{int(done[-1]):,}", first, last, rate, f"{found['seconds']:,.0f}"])
    return harness.table(
        ["loader", "clips", "MiB at first", "MiB at last", "bytes a clip", "seconds"], rows
    )


def _views_text(views: Mapping[str, Any]) -> list[str]:
    rows = [
        [side, f"{one['bytes'] / 2**20:,.0f}", f"{one['seconds']:.1f}"]
        for side, one in views.items()
        if "failed" not in one
    ]
    if not rows:
        return []
    return [
        "One video of 300 frames in 5 x 3 views: how far the peak of a process's memory rises.",
        harness.table(["rows of pixels", "MiB", "seconds"], rows),
    ]
