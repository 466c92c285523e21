"""Decodes every video of a list and writes a manifest that the loader trusts.

    python -m vidjax.data.check train.csv [--root=...] [--workers=8] [--out=...]

Each file is decoded once from the first frame to the last. Then single frames and clips are sought
as the loader would do it, which must give the same pictures. This happens in child processes that
are killed and replaced when they hang. A verdict says how vidjax's own reader must read the file:

    ok           seeking gives the right frames
    sequential   it does not; decode from the first frame on
    trim:N       the same, and N frames can be decoded, another number than the file promises
    reject       it cannot be decoded

The manifest holds one JSON line per video, in the order of the list. An interrupted check goes on
where it was; a file is checked again only if its size or modification time changed, or if its line
was damaged, which each line's checksum tells.
"""

import bisect
import collections
import contextlib
import hashlib
import math
import multiprocessing
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from absl import flags

from vidjax import checksums, errors, files, json_files, signals
from vidjax.data import datasets, lists
from vidjax.data.lists.formats import hmdb51, json_lines, msrvtt
from vidjax.data.lists.source import is_glob
from vidjax.data.reading import frame_folders, locators, pyav, video, watchdog
from vidjax.errors import UserError, VideoError, run_main
from vidjax.progress import track

_READER = "pyav"  # whose verdicts these are; those of another are not taken over
_ROW_TYPES = {
    "path": json_lines.LINE_TYPES["path"],
    "frames": json_lines.LINE_TYPES["frames"],
    "verdict": json_lines.LINE_TYPES["verdict"],
    "reason": str,
    "size": int | None,
    "mtime": int | None,
}
_PROGRESS, _ANSWER = "progress", "answer"  # what a child process sends


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
        path, root, classes, split: as of `lists.read_list`.
        out: the manifest; "" is <list>.manifest.jsonl beside the list, or in a folder
            manifest.jsonl, for HMDB51's split1_train.manifest.jsonl or split1_test.manifest.jsonl,
            for a json of MSR-VTT with several splits <list>.train.manifest.jsonl or .test.
        workers: child processes; 0 is one per core.
        timeout: seconds without progress after which a decoder counts as hanging.

    Returns:
        The manifest's path.

    Raises:
        UserError: the list is wrong, there is no place for the manifest or another file in it, or
            a glob has no `out`.
    """
    path, root = os.path.expanduser(path), os.path.expanduser(root)
    out = os.path.expanduser(out) or _default_out(path, split)
    if json_lines.is_manifest(path):
        raise UserError(f"{path} is a manifest itself; check the list that it was made from")
    folder = os.path.dirname(os.path.abspath(out))
    if locators.is_url(out) or os.path.isdir(out) or not os.path.isdir(folder):
        raise UserError(f"--out={out} must be a file in a folder of this machine")
    videos = lists.read_list(path, root, classes=classes, split=split)
    for notice in videos.notices:
        print(notice)

    earlier = _earlier(out)
    try:
        files.lock(f"{out}.part", f"another process checks into {out}; wait for it")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose a place by --out") from None
    names = _names(videos, path, root, out)
    paths = dict(zip(names, (v.path for v in videos), strict=True))
    rows = {
        name: row
        for name, row in (earlier | _earlier(f"{out}.part")).items()
        if name in paths and _stamp(paths[name]) == (row["size"], row["mtime"])
    }
    todo = [name for name in paths if name not in rows]
    workers = workers or os.cpu_count() or 1
    print(f"{path}: {len(paths)} videos, {len(todo)} to check, {workers} processes", flush=True)
    with errors.disk_errors(out):
        with open(f"{out}.part", "a", encoding="utf-8") as part:
            answers = killable_map(inspect, [paths[name] for name in todo], workers, timeout)
            for index, facts in track(answers, len(todo), "checked"):
                name = todo[index]
                rows[name] = _row(name, paths[name], facts)
                part.write(checksums.sealed_line(rows[name]))
                part.flush()
        _write(out, videos, names, rows)
        os.remove(f"{out}.part")
        files.unlock(f"{out}.part")
    _summary([rows[name] for name in paths], out, root)
    return out


def inspect(path: str) -> dict[str, Any]:
    """Returns what a manifest says of one video, its verdict included.

    Meant for a child process, as a decoder may hang or crash on a damaged file.

    Args:
        path: any locator of vidjax.data.reading.locators.

    Raises:
        VideoError: it cannot be decoded.
    """
    with video.local_file(path) as file:
        index = video.index_of(file, "ok", timed=False)
        if index.problem:  # its count is one of packets
            pictures = map(pyav.Pictures(file), pyav.decode(file))
        else:
            pictures = (show() for show in video.in_order(file, index))
        checksums, shape = [], ()
        for picture in pictures:
            shape = shape or picture.shape
            checksums.append(zlib.crc32(picture))
        verdict, reason = _verdict(file, index, checksums)
        return {
            "frames": len(checksums),
            "fps": None if math.isnan(index.rate) else round(index.rate, 3),
            "height": shape[0],
            "width": shape[1],
            "codec": index.codec,
            "verdict": verdict,
            "reason": reason,
            "reader": _READER,
            "sha256": _sha256(file),
        }


def _verdict(file: str, index: video.Index, checksums: list[int]) -> tuple[str, str]:
    """Returns the verdict on a local file with these checksums of its pictures, and the reason."""
    count = len(checksums)
    if index.count != count or index.problem == pyav.CUT_OFF:
        reason = f"; {index.problem}" if index.problem else ""
        return f"trim:{count}", f"{index.count} packets hold {count} frames{reason}"
    if os.path.isdir(file):
        return "ok", ""
    if not index.keyframes:
        return "sequential", index.problem
    for indices in _trials(index):
        found = pyav.read_at(file, index, indices, zlib.crc32)
        if found is None:
            return "sequential", f"seeking does not find frame {indices[0]} or one after it"
        wrong = [i for i, one in zip(indices, found, strict=True) if one != checksums[i]]
        if wrong:
            return "sequential", f"seeking gives another picture of frame {wrong[0]}"
    return "ok", ""


def _trials(index: video.Index) -> Iterator[list[int]]:
    """Yields frames to seek: some at once, as a clip's are, then single ones, mostly keyframes."""
    random = np.random.default_rng(0).integers(0, index.count, 8).tolist()
    spread = np.linspace(0, index.count - 1, 16, dtype=int).tolist()
    yield sorted({*spread, *random})
    chosen = np.linspace(0, len(index.keyframes) - 1, 16, dtype=int)
    keyframes = {bisect.bisect_left(index.times, index.keyframes[i][0]) for i in chosen}
    keyframes.discard(index.count)  # one that an edit list hides
    yield from ([frame] for frame in sorted({*keyframes, *random[:4]}))


def killable_map(
    task: Callable[[Any], Any], items: Sequence, workers: int, timeout: float
) -> Iterator[tuple[int, Any]]:
    """Yields (index, task(item) or the VideoError) as they finish, in persistent child processes.

    A child that makes no progress (see vidjax.data.reading.watchdog) for `timeout` seconds, or
    dies, is replaced, and its item yields a VideoError. (concurrent.futures and
    multiprocessing.Pool can do neither.)
    """
    context = multiprocessing.get_context("spawn")
    todo = collections.deque(enumerate(items))
    children: dict[Any, multiprocessing.Process] = {}
    busy: dict[Any, tuple[int, float]] = {}  # index, deadline

    def start() -> None:
        here, there = context.Pipe()
        child = context.Process(target=_serve, args=(task, there, timeout / 4), daemon=True)
        with signals.hidden_from_children():
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
                    kind, answer = connection.recv()
                except (EOFError, ConnectionResetError):
                    kind, answer = _ANSWER, VideoError("the decoder crashed")
                    stop(connection)
                    if index is None:
                        raise RuntimeError("a child process of the check cannot start") from None
                if kind == _PROGRESS:
                    busy[connection] = index, time.monotonic() + timeout
                    continue
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
                    yield index, VideoError(f"{watchdog.HANG} {timeout:g} s, the decoder hangs")
                    if todo:
                        start()
    finally:
        for connection in list(children):
            stop(connection)


def _serve(task: Callable[[Any], Any], connection, interval: float) -> None:
    """Serves tasks in a child process, and reports progress at most every `interval` seconds."""
    signals.end_with_parent()
    said = 0.0

    def report() -> None:
        nonlocal said
        if time.monotonic() - said > interval:
            said = time.monotonic()
            connection.send((_PROGRESS, None))

    with contextlib.suppress(EOFError, OSError):  # the parent ended, or was killed
        connection.send((_ANSWER, None))  # so that starting up does not count as hanging
        while True:
            item = connection.recv()
            said = time.monotonic()
            with watchdog.reports_to(report):
                answer = _answer(task, item)
            connection.send((_ANSWER, answer))


def _answer(task: Callable[[Any], Any], item: Any) -> Any:
    try:
        return task(item)
    except VideoError as error:
        return error
    except Exception as error:  # one strange file must not stop the check of 240,000
        return VideoError(errors.brief(error))


def _default_out(path: str, split: str) -> str:
    if is_glob(path):
        raise UserError(f"{path} is many files; say where their manifest goes: --out=FILE.jsonl")
    if hmdb51.is_folder(path):
        return os.path.join(path, f"split1_{split}.manifest.jsonl")
    if os.path.isdir(path):
        return os.path.join(path, "manifest.jsonl")
    stem = os.path.splitext(path)[0]
    if msrvtt.holds_splits(path):
        stem += f".{split}"
    return f"{stem}.manifest.jsonl"


def _names(videos: Sequence[datasets.Video], path: str, root: str, out: str) -> list[str]:
    """Spells paths for the manifest: relative where read_list will find them again."""
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
    """Returns size and time of a file, or of a record's shard; (None, None) for an object."""
    return files.stamp(locators.container(path)) or (None, None)


def _earlier(manifest: str) -> dict[str, dict[str, Any]]:
    """Returns rows of an earlier or interrupted check by path.

    Raises:
        UserError: the file is something else, which must not be replaced.
    """
    rows = {}
    for row in _entries(manifest):
        with contextlib.suppress(UserError):  # damaged, and without a checksum that tells it
            json_files.check(row, _ROW_TYPES, manifest)
            is_whole = row.keys() >= _ROW_TYPES.keys() and row.get("reader") == _READER
            # A hang may have been the machine's fault: such files are checked again.
            if is_whole and not row["reason"].startswith(watchdog.HANG):
                rows[row["path"]] = row
    return rows


def _entries(manifest: str) -> list[dict[str, Any]]:
    try:
        entries = checksums.read_lines(manifest)
        has_content = os.path.exists(manifest) and os.path.getsize(manifest) > 0
    except OSError as error:
        raise UserError(f"{manifest} cannot be read: {error.strerror}") from None
    is_ours = any("manifest" in entry or "verdict" in entry for entry in entries)
    # Of an interrupted check there may be no more than the start of a line.
    if has_content and not is_ours and not manifest.endswith(".part"):
        raise UserError(
            f"{manifest} exists and holds no line of a manifest; choose another --out, or delete it"
        )
    return entries


def _row(name: str, path: str, facts: dict[str, Any] | VideoError) -> dict[str, Any]:
    if isinstance(facts, VideoError):
        empty = dict.fromkeys(("frames", "fps", "height", "width", "codec"))
        facts = {**empty, "verdict": "reject", "reason": str(facts)}
        facts |= {"reader": _READER, "sha256": None}
    size, mtime = _stamp(path)
    return {"path": name, "label": -1, **facts, "size": size, "mtime": mtime}


def _write(out: str, videos: datasets.VideoList, names: list[str], rows: dict[str, dict]) -> None:
    entries = [{"manifest": 1, "classes": videos.classes, "videos": len(videos)}]
    for item, name in zip(videos, names, strict=True):
        row = {**rows[name], "label": item.label, "captions": item.captions}
        if not item.captions:
            del row["captions"]
        entries.append(row)
    checksums.write_lines(out, entries)


def _sha256(path: str) -> str:
    """Hashes a file, or the pictures of a folder one after the other."""
    digest = hashlib.sha256()
    for name in frame_folders.frames_of(path) if os.path.isdir(path) else [path]:
        with open(name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                watchdog.progress()
    return digest.hexdigest()


def _summary(rows: list[dict[str, Any]], out: str, root: str) -> None:
    from rich.console import Console
    from rich.table import Table

    meaning = {
        "ok": "by seeking",
        "sequential": "from the first frame on, slower",
        "trim": "the same, as many frames as there are",
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
    check(argv[1], **{name: flags.FLAGS[name].value for name in names})


if __name__ == "__main__":
    # Not at module level: the children import this module again.
    flags.DEFINE_string("root", "", "folder that the list's relative paths start from")
    flags.DEFINE_string("out", "", "the manifest (default: by LIST; a glob needs one)")
    flags.DEFINE_string("classes", "", "text file with one class name a line")
    flags.DEFINE_enum("split", "train", ["train", "test"], "of HMDB51 and MSR-VTT")
    flags.DEFINE_integer("workers", 0, "processes (default: one per core)", lower_bound=0)
    flags.DEFINE_float("timeout", 60.0, "seconds without progress: a decoder hangs", 0.1)
    run_main(main, interrupted="interrupted; the same command continues from here")
