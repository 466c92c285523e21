"""Packs the videos of a list into ArrayRecord shards, and can make them small on the way.

    python -m vidjax.data.pack train.csv --output=/data/k400 [--short_side=320] [--gop=16]

Thousands of small files become a few large ones, which disks and object stores like better. The
output holds 00000.array_record, 00001.array_record, … and manifest.jsonl, the list to train from.
Paths in it are relative, so that the folder can be moved or copied to a bucket. A record is a line
of JSON (path, label, captions, sha256) and then the video file.

With --short_side or --gop each video is encoded anew, as H.264 in MP4: turned upright, no larger
than it was, every frame at its time, without sound. Few frames from keyframe to keyframe make
reading a clip out of the middle cheap.

Every video is decoded and judged as by vidjax.data.check, every record read back and compared.
What cannot be decoded is left out and listed in bad_videos.jsonl. A pack that was killed goes on
with the first shard that is not complete, and ends with the same bytes.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from absl import flags

from vidjax.data import datasets, locators, pyav, video
from vidjax.data.check import inspect, killable_map, with_progress
from vidjax.errors import UserError, VideoError, run_main

# Nothing to see at this rate; smaller files decode faster, slower presets gain little.
# Without cpu-independent, x264's bytes differ by machine, and by chance where it has AVX-512.
_ENCODER = {"crf": "20", "preset": "fast", "x264-params": "cpu-independent=1"}
_DEFAULT_GOP = 16


class _Task(NamedTuple):
    """What a child process needs to make one record."""

    item: datasets.Video
    name: str  # the path, as the list has it
    place: str  # the file that the record is written to
    short_side: int
    gop: int
    check: bool


def pack(
    path: str | os.PathLike,
    output: str | os.PathLike,
    root: str | os.PathLike = "",
    *,
    classes: str | os.PathLike = "",
    split: str = "train",
    short_side: int = 0,
    gop: int = 0,
    videos_per_shard: int = 256,
    workers: int = 0,
    check: bool = True,
    timeout: float = 600.0,
) -> str:
    """Packs a list; prints progress and a summary.

    Args:
        path, root, classes, split: as of `datasets.read_list`. Of a manifest, videos that it
            rejects are left out.
        output: the folder of the shards; made if missing. It must be on this machine.
        short_side: pixels that the shorter side of larger videos is reduced to; 0: no change.
        gop: most frames from one keyframe to the next; 0: 16 if short_side is given. If both are 0,
            files are packed as they are.
        videos_per_shard: how many of the list, bad ones included.
        workers: child processes; 0 is one per core.
        check: decode every video to judge it (and twice, encoded anew). Without, files that are
            packed as they are keep what the list knows of them.
        timeout: seconds without progress after which a decoder counts as hanging.

    Returns:
        The manifest's path.

    Raises:
        UserError: the list or a setting is wrong, the output cannot be written, holds a pack of
            another list or with other settings, or is being packed now; or a record that was
            written is not what is read.
    """
    path, root, output = (os.path.expanduser(place) for place in (path, root, output))
    if locators.is_url(output):
        raise UserError(f"--output={output} must be a folder of this machine; copy it up when done")
    if min(short_side, gop) < 0 or videos_per_shard < 1 or short_side == 1:
        raise UserError(
            f"--short_side={short_side} must be 0 or at least 2, --gop={gop} at least 0, "
            f"--videos_per_shard={videos_per_shard} at least 1"
        )
    if short_side and not gop:
        gop = _DEFAULT_GOP
    videos = datasets.read_list(path, root, classes=classes, split=split)
    for notice in videos.notices:
        print(notice)
    base = root or (path if os.path.isdir(path) else os.path.dirname(path))
    names = [_relative(item.path, base) for item in videos]
    settings = {
        "pack": 1,
        "short_side": short_side,
        "gop": gop,
        "encoder": _ENCODER if gop else None,
        "videos_per_shard": videos_per_shard,
        "check": check,
        "videos": len(videos),
        "list": _fingerprint(videos, names),
    }
    manifest = os.path.join(output, "manifest.jsonl")
    with _claim(output, settings):
        if not os.path.exists(manifest):
            for folder in os.listdir(output):  # of packs that were killed
                if folder.startswith("tmp-"):
                    shutil.rmtree(os.path.join(output, folder), ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="tmp-", dir=output) as aside:
                tasks = [
                    _Task(item, name, os.path.join(aside, str(index)), short_side, gop, check)
                    for index, (item, name) in enumerate(zip(videos, names, strict=True))
                ]
                _pack_shards(tasks, output, videos_per_shard, workers, timeout)
        _join(output, videos, -(-len(videos) // videos_per_shard))
    _summary(output, path)
    return manifest


def _relative(path: str, base: str) -> str:
    """The path below the list's folder or root, so that it is the same on another machine."""
    inside = os.path.join(base, "")
    return path.removeprefix(inside) if base else path


def _fingerprint(videos: Sequence[datasets.Video], names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for item, name in zip(videos, names, strict=True):
        facts = [name, item.label, item.num_frames, item.verdict, item.captions]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _claim(output: str, settings: dict[str, Any]) -> Iterator[None]:
    """The folder belongs to this process alone, and to this list and these settings."""
    path = os.path.join(output, "pack.json")
    try:
        os.makedirs(output, exist_ok=True)
        if not os.path.exists(path) and os.listdir(output):
            raise UserError(f"--output={output} is not empty; choose a new folder")
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write to --output={output}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
        except BlockingIOError:
            raise UserError(f"another process packs into {output} now; wait for it") from None
        file.seek(0)
        text = file.read()
        # A line cut short is that of a pack killed before it did anything.
        earlier = json.loads(text) if text.endswith("\n") else settings
        if changed := [key for key in settings if earlier.get(key) != settings[key]]:
            other = {"list", "videos"} & {*changed}
            what = "another list" if other else "other settings"
            raise UserError(
                f"{output} holds a pack of {what}, as {', '.join(changed)} differ; choose a new "
                f"folder, or delete this one"
            )
        if not text.endswith("\n"):
            file.truncate(0)
            file.write(json.dumps(settings) + "\n")
            file.flush()
        yield


def _pack_shards(
    tasks: Sequence[_Task], output: str, videos_per_shard: int, workers: int, timeout: float
) -> None:
    """Writes the shards that are not there, each when all its videos are made."""
    shards = {
        number: tasks[start : start + videos_per_shard]
        for number, start in enumerate(range(0, len(tasks), videos_per_shard))
    }
    todo = [number for number in shards if not os.path.exists(_rows_file(output, number))]
    items = [(number, task) for number in todo for task in shards[number]]
    workers = workers or os.cpu_count() or 1
    print(f"{len(tasks)} videos, {len(items)} to pack, {workers} processes", flush=True)
    made: dict[int, dict[_Task, Any]] = {number: {} for number in todo}
    answers = killable_map(_make, [task for _, task in items], workers, timeout)
    for index, facts in with_progress(answers, len(items), "packed"):
        number, task = items[index]
        if isinstance(facts, str):  # nothing that another video could mend
            raise UserError(f"{facts}; start again when that is mended, and the pack goes on")
        made[number][task] = facts
        if len(made[number]) == len(shards[number]):
            facts = made.pop(number)
            _write_shard(output, number, [(task, facts[task]) for task in shards[number]])


def _make(task: _Task) -> dict[str, Any] | str:
    """Makes the video file of a record and its facts, or says why no video can be made.

    Runs in a child process.

    Raises:
        VideoError: this video cannot be decoded.
    """
    item, encode = task.item, bool(task.gop)
    frames, verdict = item.num_frames, item.verdict
    try:
        with video.local_file(item.path) as file:
            if encode:
                content, frames = _encoded(file, verdict, task.short_side, task.gop)
                verdict = None
            else:
                content = _content(file)
    except VideoError as error:
        if locators.is_url(item.path) and str(error).startswith(video.FETCH):
            return f"{item.path} {error}"
        raise
    try:
        with open(task.place, "wb") as file:
            file.write(content)
    except OSError as error:
        return f"cannot write {task.place}: {error.strerror}"
    facts = {"frames": frames, "verdict": verdict, "sha256": hashlib.sha256(content).hexdigest()}
    if task.check:
        facts = inspect(task.place)
        if encode and (facts["verdict"], facts["frames"]) != ("ok", frames):
            raise VideoError(f"cannot be encoded anew: {facts['reason'] or 'frames are lost'}")
    return facts | {"size": len(content)}


def _content(path: str) -> bytes:
    if os.path.isdir(path):
        raise VideoError("a folder of pictures is packed with --gop or --short_side only")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise VideoError(f"cannot be opened: {error.strerror}") from None


def _encoded(path: str, verdict: str | None, short_side: int, gop: int) -> tuple[bytes, int]:
    """Encodes a video as H.264 in MP4; returns its bytes and the number of frames.

    Raises:
        VideoError: it cannot be decoded.
    """
    import av

    index = video.index_of(path, verdict)
    times, unit = index.times, index.unit
    # PyAV takes fractions; a file that promises no rate gets 25 frames a second.
    rate = Fraction(25 if math.isnan(index.rate) else index.rate).limit_denominator(1001)
    if not len(times):
        times, unit = range(index.count), 1 / rate
    buffer, out = io.BytesIO(), None
    with av.open(buffer, "w", format="mp4") as container:
        for show, time in zip(video.in_order(path, index, pyav.EXACT), times, strict=True):
            picture = show()
            if out is None:
                options = _ENCODER | {"g": str(gop)}
                out = container.add_stream("libx264", rate=rate, options=options)
                out.codec_context.thread_count = 1  # the bytes depend on it
                out.codec_context.time_base = unit
                out.height, out.width = _size(*picture.shape[:2], short_side)
                out.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(out.width, out.height, out.pix_fmt, interpolation=pyav.EXACT)
            frame.pts, frame.time_base = time - times[0], unit
            container.mux(out.encode(frame))
        container.mux(out.encode())
    return buffer.getvalue(), index.count


def _size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Even, of the same shape, and with this shorter side unless that is larger."""
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    return tuple(max(2, min(round(side * scale / 2), side // 2) * 2) for side in (height, width))


def _write_shard(output: str, number: int, made: Sequence[tuple[_Task, Any]]) -> None:
    """Writes a shard and its rows, reads it back, and renames both into place, the rows last."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    name, rows = f"{number:05d}.array_record", []
    part = os.path.join(output, f"{name}.part")
    try:
        writer = ArrayRecordWriter(part, "group_size:1,uncompressed")
        for task, facts in made:
            if isinstance(facts, VideoError):
                rows.append({"path": task.item.path, "reason": str(facts)})
                continue
            label, captions = task.item.label, task.item.captions
            head = {"path": task.name, "label": label, "captions": captions}
            head["sha256"] = facts["sha256"]
            with open(task.place, "rb") as file:
                writer.write(json.dumps(head).encode() + b"\n" + file.read())
            os.remove(task.place)
            place = f"{name}#{sum('verdict' in row for row in rows)}"
            row = {"path": place, "label": label, **facts, "source": task.name}
            rows.append(row | ({"captions": captions} if captions else {}))
        writer.close()
        reader = ArrayRecordReader(part)
        good = [row for row in rows if "verdict" in row]
        if reader.num_records() != len(good):
            raise OSError(f"{reader.num_records()} of {len(good)} records can be read back")
        for index, row in enumerate(good):
            content = locators.video_in(reader.read([index])[0])
            if hashlib.sha256(content).hexdigest() != row["sha256"]:
                raise OSError(f"record {index} is not what was written")
        reader.close()
        _sync(part)
        os.replace(part, os.path.join(output, name))
        _write_lines(_rows_file(output, number), rows)
    except (OSError, RuntimeError) as error:  # array_record raises the latter
        raise UserError(
            f"cannot write {part}: {error}; start again when that is mended, and the pack goes on"
        ) from None


def _rows_file(output: str, number: int) -> str:
    return os.path.join(output, f"{number:05d}.rows.jsonl")


def _write_lines(path: str, entries: Sequence[dict[str, Any]]) -> None:
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)
    _sync(f"{path}.part")
    os.replace(f"{path}.part", path)


def _sync(path: str) -> None:
    """Onto the disk, so that a file that is in place is whole after a power cut, too."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _join(output: str, videos: datasets.VideoList, count: int) -> None:
    """Makes one manifest and one list of bad videos of the rows of `count` shards."""
    manifest = os.path.join(output, "manifest.jsonl")
    if not os.path.exists(manifest):
        rows = []
        for number in range(count):
            with open(_rows_file(output, number), encoding="utf-8") as file:
                rows += map(json.loads, file)
        bad = [row for row in rows if "verdict" not in row]
        if len(bad) == len(rows):
            raise UserError(
                f"none of the {len(rows)} videos can be decoded, such as {bad[0]['path']}: "
                f"{bad[0]['reason']}"
            )
        _write_lines(os.path.join(output, "bad_videos.jsonl"), bad)
        good = [row for row in rows if "verdict" in row]
        _write_lines(manifest, [{"manifest": 1, "classes": videos.classes}, *good])
    for number in range(count):
        with contextlib.suppress(FileNotFoundError):
            os.remove(_rows_file(output, number))


def _summary(output: str, path: str) -> None:
    manifest, bad = (os.path.join(output, n) for n in ("manifest.jsonl", "bad_videos.jsonl"))
    with open(manifest, encoding="utf-8") as file:
        sizes = [json.loads(line)["size"] for line in file if not line.startswith('{"manifest"')]
    with open(bad, encoding="utf-8") as file:
        left_out = [json.loads(line) for line in file]
    print(f"{path}: {len(sizes)} videos packed, {sum(sizes) / 1e6:,.1f} MB")
    if left_out:
        print(f"{len(left_out)} videos could not be decoded and are left out; {bad} lists them:")
        for row in left_out[:5]:
            print(f"  {row['path']}: {row['reason']}")
    print(f"train from it with\n  --config.data.train={manifest}")


def main(argv: list[str]) -> None:
    if len(argv) != 2 or not flags.FLAGS["output"].value:
        raise UserError("usage: python -m vidjax.data.pack LIST --output=FOLDER [--short_side=320]")
    names = ("output", "root", "classes", "split", "short_side", "gop", "videos_per_shard")
    names += ("workers", "check", "timeout")
    try:
        pack(argv[1], **{name: flags.FLAGS[name].value for name in names})
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    # Not at module level: the children import this module again.
    flags.DEFINE_string("output", "", "the folder of the shards")
    flags.DEFINE_string("root", "", "folder that the list's relative paths start from")
    flags.DEFINE_string("classes", "", "text file with one class name a line")
    flags.DEFINE_enum("split", "train", ["train", "test"], "of HMDB51 and MSR-VTT")
    flags.DEFINE_integer("short_side", 0, "reduce the shorter side to it (0: no change)")
    flags.DEFINE_integer("gop", 0, "most frames from keyframe to keyframe (0: 16 if short_side)")
    flags.DEFINE_integer("videos_per_shard", 256, "how many videos a shard holds")
    flags.DEFINE_integer("workers", 0, "processes (default: one per core)", lower_bound=0)
    flags.DEFINE_boolean("check", True, "decode every video to judge it")
    flags.DEFINE_float("timeout", 600.0, "seconds without progress: a decoder hangs", 0.1)
    run_main(main)
