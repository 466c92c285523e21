"""Verifies every video of a list and writes the manifest that the loader trusts.

    python -m vidjax.data.check train.csv [--root=...] [--workers=8] [--out=...]

Each file is decoded once in order by PyAV, then opened afresh for random access as the loader would
do it; the two must return the same frames. This happens in child processes that are killed and
replaced when they hang. Verdicts:

    ok           random access returns the right frames
    sequential   it does not, or cannot be trusted; decode in order from the first frame
    trim:N       likewise, and only the first N frames are real
    reject       not decodable

The manifest holds one JSON line per video, in the order of the list. An interrupted check goes on
where it was; a file is checked again only if its size or modification time changed.
"""

import collections
import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from absl import flags

from vidjax.data import datasets, locators, video
from vidjax.errors import UserError, run_main


def check(
    path: str | os.PathLike,
    root: str | os.PathLike = "",
    *,
    out: str | os.PathLike = "",
    classes: str | os.PathLike = "",
    split: str = "train",
    workers: int = 0,
    timeout: float = 60.0,
) -> str:
    """Verifies the videos of a list; prints progress and a summary.

    Args:
        path, root, classes, split: as of `datasets.read_list`.
        out: the manifest; "" is <list>.manifest.jsonl beside the list, or in a folder
            manifest.jsonl, for HMDB51's split1_train.manifest.jsonl or split1_test.manifest.jsonl,
            for a json of MSR-VTT with several splits <list>.train.manifest.jsonl or .test.
        workers: child processes; 0 is one per core.
        timeout: seconds after which a file counts as hanging its decoder.

    Returns:
        The manifest's path.

    Raises:
        UserError: the list is wrong, there is no place for the manifest, or a glob has no `out`.
    """
    path, root = os.path.expanduser(path), os.path.expanduser(root)
    out = os.path.expanduser(out) or _default_out(path, split)
    if datasets.is_manifest(path):
        raise UserError(f"{path} is a manifest itself; check the list that it was made from")
    if locators.is_url(out) or not os.path.isdir(os.path.dirname(os.path.abspath(out))):
        raise UserError(f"--out={out} must be a file in a folder of this machine")
    videos = datasets.read_list(path, root, classes=classes, split=split)
    for notice in videos.notices:
        print(notice)

    names = _names(videos, path, root, out)
    paths = dict(zip(names, (v.path for v in videos), strict=True))
    rows = {
        name: row
        for name, row in (_earlier(out) | _earlier(f"{out}.part")).items()
        if name in paths and _stamp(paths[name]) == (row["size"], row["mtime"])
    }
    todo = [name for name in paths if name not in rows]
    workers = workers or os.cpu_count() or 1
    print(f"{path}: {len(paths)} videos, {len(todo)} to check, {workers} processes", flush=True)
    try:
        part = open(f"{out}.part", "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose a place by --out") from None
    with part:
        answers = killable_map(inspect, [paths[name] for name in todo], workers, timeout)
        for index, facts in with_progress(answers, len(todo), "checked"):
            name = todo[index]
            rows[name] = _row(name, paths[name], facts)
            part.write(json.dumps(rows[name]) + "\n")
            part.flush()
    _write(out, videos, names, rows)
    os.remove(f"{out}.part")
    _summary([rows[name] for name in paths], out, root)
    return out


def inspect(path: str, still_end: bool = False) -> dict[str, Any]:
    """The facts of one file, with its verdict; raises VideoError if it cannot be decoded.

    Meant for a child process: decord may hang or crash on a damaged file.

    Args:
        path: any locator of vidjax.data.locators.
        still_end: whether a long exact repeat at the end is known to be real.
    """
    with video.local_file(path) as file:
        return _inspect(file, still_end)


def _inspect(path: str, still_end: bool) -> dict[str, Any]:
    checksums, times, shape = [], [], None
    for frame in video.decode_in_order(path):
        picture = video.upright_rgb(frame)
        shape = shape or picture.shape
        if picture.shape != shape:
            raise video.VideoError("the picture size changes within it")
        checksums.append(zlib.crc32(picture))
        times.append(frame.time)
    count = len(checksums)
    if not count:
        raise video.VideoError("it holds no frames")
    with video.open_stream(path) as (_, stream):
        codec, rate = stream.codec_context.name, stream.average_rate
    monotonic = None not in times and all(np.diff(times) > 0)
    if monotonic and count > 1:
        rate = (count - 1) / (times[-1] - times[0])
    real = count if still_end else real_frames(checksums)
    if real < count:
        verdict, reason = f"trim:{real}", f"the last {count - real + 1} frames are the same"
    else:
        verdict, reason = _verdict(path, checksums, monotonic)
    return dict(
        frames=int(verdict[5:]) if verdict.startswith("trim:") else count,
        fps=round(float(rate), 3) if rate else None,
        height=shape[0],
        width=shape[1],
        codec=codec,
        verdict=verdict,
        reason=reason,
        sha256=_sha256(path),
    )


def real_frames(checksums: list[int]) -> int:
    """The number of frames before the end only repeats the last of them exactly.

    A short repeat is a clip that stands still at its end; a long one is a broken download.
    """
    count = len(checksums)
    tail = next((i for i, c in enumerate(reversed(checksums)) if c != checksums[-1]), count)
    return count - tail + 1 if max(4, count // 20) < tail <= count // 2 else count


def _verdict(path: str, checksums: list[int], monotonic: bool) -> tuple[str, str]:
    count = len(checksums)
    if video.container_of(path) not in video.SEEKABLE:
        return _in_order(path, count, "only MP4, MOV, MKV and WebM are accessed at random")
    if not monotonic:
        return _in_order(path, count, "timestamps are missing or not increasing")
    rng = np.random.default_rng(0)
    indices = np.unique([*np.linspace(0, count - 1, 16, dtype=int), *rng.integers(0, count, 8)])
    try:
        reader = video.decord_reader(path)
        if reader and len(reader) != count:
            return f"trim:{count}", f"decord counts {len(reader)} frames, of which {count} are real"
        frames, found = video.read_frames(path, lambda n: indices[indices < n], verdict="ok")
    except video.VideoError as error:
        return _in_order(path, count, f"random access fails: {error}")
    if found != count:
        return f"trim:{count}", f"{found} packets hold {count} frames"
    right = [zlib.crc32(f) == checksums[i] for f, i in zip(frames, indices, strict=True)]
    if not all(right):
        # Decoders of MPEG-4 may round differently, by less than a level on average.
        reference, _ = video.read_frames(path, lambda n: indices, verdict=f"trim:{count}")
        right = [
            np.abs(f.astype(np.int16) - r).mean() < 1
            for f, r in zip(frames, reference, strict=True)
        ]
    if wrong := right.count(False):  # other frames, or other colours (10-bit video)
        return "sequential", f"random access gets {wrong} of {len(indices)} frames wrong"
    return "ok", ""


def _in_order(path: str, count: int, reason: str) -> tuple[str, str]:
    promised = len(video.packets_of(path))
    if promised != count:
        return f"trim:{count}", f"{promised} packets hold {count} frames"
    return "sequential", reason


def killable_map(
    task: Callable[[Any], Any], items: Sequence, workers: int, timeout: float
) -> Iterator[tuple[int, Any]]:
    """Yields (index, task(item) or the VideoError) as they finish, in persistent child processes.

    A child that takes longer than `timeout` seconds, or dies, is replaced, and its item yields a
    VideoError. (concurrent.futures and multiprocessing.Pool can do neither.)
    """
    context = multiprocessing.get_context("spawn")
    todo = collections.deque(enumerate(items))
    children: dict[Any, multiprocessing.Process] = {}
    busy: dict[Any, tuple[int, float]] = {}  # index, deadline

    def start() -> None:
        here, there = context.Pipe()
        child = context.Process(target=_serve, args=(task, there), daemon=True)
        child.start()
        there.close()
        children[here] = child

    def stop(connection) -> None:
        children[connection].kill()
        children.pop(connection).join()
        connection.close()

    try:
        for _ in range(min(workers, len(items))):
            start()
        while todo or busy:
            patience = min((deadline for _, deadline in busy.values()), default=math.inf)
            patience = min(max(0.0, patience - time.monotonic()), 3600.0)
            for connection in wait(list(children), patience):
                index = busy.pop(connection, (None,))[0]
                try:
                    answer = connection.recv()
                except (EOFError, ConnectionResetError):
                    answer = video.VideoError("the decoder crashed")
                    stop(connection)
                    if index is None:
                        raise RuntimeError("a child process of the check cannot start") from None
                if index is not None:
                    yield index, answer
                if connection in children and todo:
                    busy[connection] = todo[0][0], time.monotonic() + timeout
                    connection.send(todo.popleft()[1])
                elif todo:
                    start()
            for connection, (index, deadline) in list(busy.items()):
                if time.monotonic() > deadline:
                    del busy[connection]
                    stop(connection)
                    yield index, video.VideoError(f"{video.HANG} {timeout:g} s, the decoder hangs")
                    if todo:
                        start()
    finally:
        for connection in list(children):
            stop(connection)


def _serve(task: Callable[[Any], Any], connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    video.quiet_worker()
    with contextlib.suppress(EOFError, OSError):  # the parent ended, or was killed
        connection.send("ready")  # so that starting up does not count as hanging
        while True:
            connection.send(_answer(task, connection.recv()))


def _answer(task: Callable[[Any], Any], item: Any) -> Any:
    try:
        return task(item)
    except video.VideoError as error:
        return error
    except Exception as error:  # one strange file must not stop the check of 240,000
        return video.VideoError(f"{type(error).__name__}: {error}".splitlines()[0])


def _default_out(path: str, split: str) -> str:
    if datasets.is_glob(path):
        raise UserError(f"{path} is many files; say where their manifest goes: --out=FILE.jsonl")
    if datasets.is_hmdb51(path):
        return os.path.join(path, f"split1_{split}.manifest.jsonl")
    if os.path.isdir(path):
        return os.path.join(path, "manifest.jsonl")
    stem = os.path.splitext(path)[0]
    if datasets.holds_splits(path):
        stem += f".{split}"
    return f"{stem}.manifest.jsonl"


def _names(videos: Sequence[datasets.Video], path: str, root: str, out: str) -> list[str]:
    """Paths as the manifest spells them: relative where read_list will find them again."""
    base = root or (path if os.path.isdir(path) else os.path.dirname(path))
    base = base if locators.is_url(base) else os.path.abspath(base)
    movable = root or base == os.path.dirname(os.path.abspath(out))
    names = []
    for item in videos:
        full = item.path if locators.is_url(item.path) else os.path.abspath(item.path)
        inside = movable and full.startswith(os.path.join(base, ""))
        names.append(os.path.relpath(full, base) if inside else full)
    return names


def _stamp(path: str) -> tuple[int | None, int | None]:
    """Size and time of a file; of what is no file, its shard's, and nothing of an object."""
    try:
        status = os.stat(locators.container(path))
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns


def _earlier(manifest: str) -> dict[str, dict[str, Any]]:
    """Rows of an earlier or interrupted check by path."""
    rows = {}
    if os.path.isfile(manifest):
        with open(manifest, encoding="utf-8") as file:
            for line in file:
                try:
                    row = json.loads(line)
                    # A hang may have been the machine's fault: such files are checked again.
                    if "path" in row and not row["reason"].startswith(video.HANG):
                        rows[row["path"]] = row
                except ValueError:  # the line that was being written when the check was killed
                    continue
    return rows


def _row(name: str, path: str, facts: dict[str, Any] | video.VideoError) -> dict[str, Any]:
    if isinstance(facts, video.VideoError):
        empty = dict.fromkeys(("frames", "fps", "height", "width", "codec"))
        facts = {**empty, "verdict": "reject", "reason": str(facts), "sha256": None}
    size, mtime = _stamp(path)
    return {"path": name, "label": -1, **facts, "size": size, "mtime": mtime}


def _write(out: str, videos: datasets.VideoList, names: list[str], rows: dict[str, dict]) -> None:
    with open(f"{out}.tmp", "w", encoding="utf-8") as file:
        file.write(json.dumps({"manifest": 1, "classes": videos.classes}) + "\n")
        for item, name in zip(videos, names, strict=True):
            row = {**rows[name], "label": item.label, "captions": item.captions}
            if not item.captions:
                del row["captions"]
            file.write(json.dumps(row) + "\n")
    os.replace(f"{out}.tmp", out)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_progress(answers: Iterator, total: int, done: str) -> Iterator:
    """A bar on a terminal, else a line now and then; `done` is the verb, such as "checked"."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console()
    if console.is_terminal:
        columns = done, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console) as progress:
            yield from progress.track(answers, total=total)
        return
    start = shown = time.monotonic()
    for count, answer in enumerate(answers, 1):
        yield answer
        now = time.monotonic()
        if now - shown > 10:
            shown = now
            left = (now - start) / count * (total - count)
            print(f"{done} {count} of {total}, about {left:.0f} s left", flush=True)


def _summary(rows: list[dict[str, Any]], out: str, root: str) -> None:
    from rich.console import Console
    from rich.table import Table

    meaning = {
        "ok": "random access",
        "sequential": "decoded in order, slower",
        "trim": "the real frames only, in order",
        "reject": "left out",
    }
    kinds = collections.Counter(row["verdict"].partition(":")[0] for row in rows)
    table = Table("verdict", "videos", "share", "how it is read")
    for kind, how in meaning.items():
        table.add_row(kind, str(kinds[kind]), f"{kinds[kind] / len(rows):.1%}", how)
    Console().print(table)
    notable = [row for row in rows if row["verdict"] != "ok"]
    for row in sorted(notable, key=lambda row: row["verdict"])[:20]:
        print(f"  {row['verdict']:<11} {row['path']}: {row['reason']}")
    if len(notable) > 20:
        print(f"  … and {len(notable) - 20} more, in the `reason` fields of the manifest")
    print(f"manifest: {out}\ntrain from it with")
    print(f"  --config.data.train={out}" + (f" --config.data.root={root}" if root else ""))


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError("usage: python -m vidjax.data.check LIST [--root=FOLDER] [--out=FILE]")
    names = ("root", "out", "classes", "split", "workers", "timeout")
    try:
        check(argv[1], **{name: flags.FLAGS[name].value for name in names})
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    # Not at module level: the children import this module again.
    flags.DEFINE_string("root", "", "folder that the list's relative paths start from")
    flags.DEFINE_string("out", "", "the manifest (default: by LIST; a glob needs one)")
    flags.DEFINE_string("classes", "", "text file with one class name a line")
    flags.DEFINE_enum("split", "train", ["train", "test"], "of HMDB51 and MSR-VTT")
    flags.DEFINE_integer("workers", 0, "processes (default: one per core)", lower_bound=0)
    flags.DEFINE_float("timeout", 60.0, "seconds after which a decoder counts as hung", 0.1)
    run_main(main)
