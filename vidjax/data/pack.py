"""Packs the videos of a list into ArrayRecord shards, and shrinks them if asked.

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

The same command on a finished pack compares all shards with their SHA-256 in the manifest's first
line (packs without them: all records with theirs), and packs those again that are damaged or
missing. Records that are still whole are taken from the damaged shard, not made of their videos.
"""

import collections
import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from absl import flags

from vidjax import checksums, files
from vidjax.data import datasets, lists
from vidjax.data.check import inspect, killable_map
from vidjax.data.reading import locators, pyav, video
from vidjax.errors import UserError, VideoError, run_main
from vidjax.progress import track

# Nothing to see at this rate; smaller files decode faster, slower presets gain little.
# Without cpu-independent, x264's bytes differ by machine, and by chance where it has AVX-512.
_ENCODER = {"crf": "20", "preset": "fast", "x264-params": "cpu-independent=1"}
_DEFAULT_GOP = 16
_SHARD_OF_ROW = re.compile(r"(\d{5,9})\.array_record#\d+")


class _Task(NamedTuple):
    """Task of a child process that makes one record."""

    item: datasets.Video
    name: str  # the path, as the list has it
    place: str  # the file that the record is written to
    short_side: int
    gop: int
    check: bool
    record: str = ""  # a locator of what was made of it before


class _Shard(NamedTuple):
    """A shard that is whole."""

    sha256: str
    rows: list[dict[str, Any]]  # of its records, and of the bad videos between them


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
        path, root, classes, split: as of `lists.read_list`. Of a manifest, videos that it
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
            another list or with other settings or one whose pack.json is damaged, or is being
            packed now; or a record that was written is not what is read.
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
    videos = lists.read_list(path, root, classes=classes, split=split)
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
    with _claim(output, settings):
        for folder in os.listdir(output):  # of packs that were killed
            if folder.startswith("tmp-"):
                shutil.rmtree(os.path.join(output, folder), ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="tmp-", dir=output) as aside:
            tasks = [
                _Task(item, name, os.path.join(aside, str(index)), short_side, gop, check)
                for index, (item, name) in enumerate(zip(videos, names, strict=True))
            ]
            shards = {
                number: tasks[start : start + videos_per_shard]
                for number, start in enumerate(range(0, len(tasks), videos_per_shard))
            }
            whole, records = _earlier(output, shards)
            if records:
                whole |= _pack_shards(output, shards, records, workers, timeout)
        ordered = [whole[number] for number in shards]
        rows = [row for shard in ordered for row in shard.rows]
        _join(output, videos, [shard.sha256 for shard in ordered], rows)
    _summary(output, path, rows)
    return _manifest_file(output)


def _relative(path: str, base: str) -> str:
    """Returns the path below the list's folder or root, which is the same on another machine."""
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
    """Claims the folder for this process alone, this list and these settings."""
    path = os.path.join(output, "pack.json")
    try:
        os.makedirs(output, exist_ok=True)
        if not os.path.exists(path) and os.listdir(output):
            raise UserError(f"--output={output} is not empty; choose a new folder")
        files.lock(path, f"another process packs into {output} now; wait for it")
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write to --output={output}: {error.strerror}") from None
    with file, contextlib.ExitStack() as stack:
        stack.callback(files.unlock, path)
        earlier, is_new = settings, os.listdir(output) == [os.path.basename(path)]
        try:
            file.seek(0)
            text = file.read()
            # A line cut short is that of a pack killed before it did anything.
            if text.endswith("\n") or not is_new:
                earlier = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError):
            raise UserError(
                f"{path} is damaged, so that the settings of this pack are unknown; restore it "
                f"from a copy, or choose a new folder"
            ) from None
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
            os.fsync(file.fileno())
        yield


_Listed = dict[int, tuple[str | None, list[dict[str, Any]]]]  # digest and rows by shard


def _earlier(
    output: str, shards: Mapping[int, Sequence[_Task]]
) -> tuple[dict[int, _Shard], dict[int, dict[str, str]]]:
    """Returns the whole shards by number, and for each other shard what `_records` finds in it."""
    lists = _listed_by_manifest(output, shards), _listed_by_shards(output, shards)
    whole, records, broken = {}, {}, []
    numbers = iter(shards)
    if any(os.path.exists(_shard_file(output, number)) for number in shards):
        numbers = track(numbers, len(shards), "compared")  # terabytes take hours
    for number in numbers:
        path, listed = _shard_file(output, number), [found[number] for found in lists]
        for sha256, rows in listed:
            with contextlib.suppress(OSError, RuntimeError):  # array_record raises the latter
                if rows and number not in whole:
                    digest = checksums.sha256(path)
                    if sha256 is None:  # written before there were digests
                        _check_records(path, rows)
                    if sha256 in (None, digest):
                        whole[number] = _Shard(digest, rows)
        if number not in whole:
            records[number] = _records(path, [row for _, rows in listed for row in rows])
            if os.path.exists(path) or os.path.exists(_manifest_file(output)):
                broken.append(os.path.basename(path))
    if broken:
        print(
            f"{len(broken)} of {len(shards)} shards in {output}, such as {broken[0]}, or their "
            f"rows, are damaged or missing; they are packed again"
        )
    return whole, records


def _listed_by_shards(output: str, shards: Mapping[int, Sequence[_Task]]) -> _Listed:
    """Reads the files that list the shards of an unfinished pack, one for each."""
    listed = {}
    for number, tasks in shards.items():
        rows = checksums.read_lines(_rows_file(output, number))
        sha256 = rows.pop(0)["shard"] if rows and "shard" in rows[0] else None
        listed[number] = sha256, _matched(number, tasks, rows)
    return listed


def _listed_by_manifest(output: str, shards: Mapping[int, Sequence[_Task]]) -> _Listed:
    """Reads the manifest and the bad videos of a finished pack."""
    rows, digests = collections.defaultdict(list), {}
    for row in checksums.read_lines(_manifest_file(output)):
        if "manifest" in row:
            digests = dict(enumerate(row.get("shards", ())))
        elif match := _SHARD_OF_ROW.fullmatch(str(row.get("path"))):
            rows[int(match[1])].append(row)
    bad = checksums.read_lines(_bad_file(output), are_sealed=bool(digests))
    return {
        number: (digests.get(number), _matched(number, tasks, rows[number] + bad))
        for number, tasks in shards.items()
    }


def _matched(
    number: int, tasks: Sequence[_Task], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns a row for each task of a shard; none at all if one is missing or of another video."""
    good = collections.deque(row for row in rows if "verdict" in row)
    bad = {str(row.get("source", row.get("path"))): row for row in rows if "verdict" not in row}
    matched, count = [], 0
    for task in tasks:
        expected = _row(number, count, task)
        row = bad.get(task.name) or bad.get(task.item.path)
        if good and expected.items() <= good[0].items() and good[0].keys() >= {"sha256", "size"}:
            matched.append(good.popleft())
            count += 1
        elif row and "reason" in row:
            matched.append(row | {"source": task.name})
        else:
            return []
    return [] if good else matched


def _row(number: int, index: int, task: _Task) -> dict[str, Any]:
    """Returns the fields of a record's row that the list decides."""
    label, captions = json.loads(json.dumps([task.item.label, task.item.captions]))
    row = {"path": f"{number:05d}.array_record#{index}", "label": label, "source": task.name}
    return row | ({"captions": captions} if captions else {})


def _pack_shards(
    output: str,
    shards: Mapping[int, Sequence[_Task]],
    records: Mapping[int, Mapping[str, str]],
    workers: int,
    timeout: float,
) -> dict[int, _Shard]:
    """Writes the shards that `records` has, each when all its videos are made; returns them."""
    items = [
        (number, task._replace(record=records[number].get(task.name, "")))
        for number in records
        for task in shards[number]
    ]
    workers, count = workers or os.cpu_count() or 1, sum(map(len, shards.values()))
    print(f"{count} videos, {len(items)} to pack, {workers} processes", flush=True)
    made, written = collections.defaultdict(dict), {}
    answers = killable_map(_make, [task for _, task in items], workers, timeout)
    for index, facts in track(answers, len(items), "packed"):
        number, task = items[index]
        if isinstance(facts, str):  # nothing that another video could mend
            raise UserError(f"{facts}; start again when that is mended, and the pack goes on")
        made[number][task.place] = task, facts
        if len(made[number]) == len(shards[number]):
            facts = made.pop(number)
            ordered = [facts[task.place] for task in shards[number]]
            written[number] = _write_shard(output, number, ordered)
    return written


def _records(shard: str, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Returns locators of a damaged shard's whole records by the path in the list.

    Args:
        shard: its file.
        rows: of it. If there are none, each record is compared with the digest in itself only.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    wanted, records = {row.get("sha256") for row in rows}, {}
    if not os.path.isfile(shard):
        return {}
    with contextlib.suppress(OSError, RuntimeError):
        reader = ArrayRecordReader(shard, "readahead_buffer_size:0")
        for index in range(reader.num_records()):
            with contextlib.suppress(RuntimeError, ValueError, KeyError, TypeError):
                record = reader.read([index])[0]
                head = json.loads(record[: record.index(b"\n")])
                digest = hashlib.sha256(locators.video_in(record)).hexdigest()
                if digest == head["sha256"] and digest in (wanted or {digest}):
                    records[head["path"]] = f"{shard}#{index}"
    return records


def _make(task: _Task) -> dict[str, Any] | str:
    """Makes the video file of a record and its facts, or says why no video can be made.

    Runs in a child process.

    Raises:
        VideoError: this video cannot be decoded.
    """
    item, encode = task.item, bool(task.gop)
    frames, verdict = item.num_frames, item.verdict
    try:
        with video.local_file(task.record or item.path) as file:
            if task.record:
                content = _content(file)
                if encode:
                    frames, verdict = video.index_of(file, None).count, None
            elif encode:
                content, frames = _encoded(file, verdict, task.short_side, task.gop)
                verdict = None
            else:
                content = _content(file)
    except VideoError as error:
        if task.record:
            return _make(task._replace(record=""))
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
    """Returns an even size of the same shape, with this shorter side unless that is larger."""
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    return tuple(max(2, min(round(side * scale / 2), side // 2) * 2) for side in (height, width))


def _write_shard(output: str, number: int, made: Sequence[tuple[_Task, Any]]) -> _Shard:
    """Writes a shard and its rows, reads it back, and renames both into place, the rows last."""
    from array_record.python.array_record_module import ArrayRecordWriter

    path, rows = _shard_file(output, number), []
    part = f"{path}.part"
    try:
        writer = ArrayRecordWriter(part, "group_size:1,uncompressed")
        for task, facts in made:
            if isinstance(facts, VideoError):
                row = {"path": task.item.path, "reason": str(facts), "source": task.name}
                rows.append(row)
                continue
            label, captions = task.item.label, task.item.captions
            head = {"path": task.name, "label": label, "captions": captions}
            head["sha256"] = facts["sha256"]
            with open(task.place, "rb") as file:
                writer.write(json.dumps(head).encode() + b"\n" + file.read())
            os.remove(task.place)
            row = _row(number, sum("verdict" in row for row in rows), task)
            rows.append({"path": row.pop("path"), "label": row.pop("label"), **facts, **row})
        writer.close()
        _check_records(part, rows)
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # what is in place is whole after a power cut, too
        shard = _Shard(checksums.sha256(part), rows)
        os.replace(part, path)
        checksums.write_lines(_rows_file(output, number), [{"shard": shard.sha256}, *rows])
        return shard
    except (OSError, RuntimeError) as error:  # array_record raises the latter
        raise UserError(
            f"cannot write {part}: {error}; start again when that is mended, and the pack goes on"
        ) from None


def _check_records(path: str, rows: Sequence[dict[str, Any]]) -> None:
    """Raises OSError or RuntimeError if a shard does not hold the records of these rows."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(path)
    good = [row for row in rows if "verdict" in row]
    if reader.num_records() != len(good):
        raise OSError(f"{reader.num_records()} of {len(good)} records can be read back")
    for index, row in enumerate(good):
        content = locators.video_in(reader.read([index])[0])
        if hashlib.sha256(content).hexdigest() != row["sha256"]:
            raise OSError(f"record {index} is not what was written")
    reader.close()


def _shard_file(output: str, number: int) -> str:
    return os.path.join(output, f"{number:05d}.array_record")


def _rows_file(output: str, number: int) -> str:
    return os.path.join(output, f"{number:05d}.rows.jsonl")


def _manifest_file(output: str) -> str:
    return os.path.join(output, "manifest.jsonl")


def _bad_file(output: str) -> str:
    return os.path.join(output, "bad_videos.jsonl")


def _join(
    output: str, videos: datasets.VideoList, digests: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    """Makes one manifest and one list of bad videos of the rows of all shards."""
    good = [row for row in rows if "verdict" in row]
    bad = [row for row in rows if "verdict" not in row]
    if not good:
        raise UserError(
            f"none of the {len(rows)} videos can be decoded, such as {bad[0]['path']}: "
            f"{bad[0]['reason']}"
        )
    header = {"manifest": 1, "classes": videos.classes, "videos": len(good), "shards": digests}
    try:
        checksums.write_lines(_bad_file(output), bad)
        checksums.write_lines(_manifest_file(output), [header, *good])
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}") from None
    for number in range(len(digests)):
        with contextlib.suppress(FileNotFoundError):
            os.remove(_rows_file(output, number))


def _summary(output: str, path: str, rows: Sequence[dict[str, Any]]) -> None:
    sizes = [row["size"] for row in rows if "verdict" in row]
    left_out = [row for row in rows if "verdict" not in row]
    print(f"{path}: {len(sizes)} videos packed, {sum(sizes) / 1e6:,.1f} MB")
    if left_out:
        print(
            f"{len(left_out)} videos could not be decoded and are left out; {_bad_file(output)} "
            f"lists them:"
        )
        for row in left_out[:5]:
            print(f"  {row['path']}: {row['reason']}")
    print(f"train from it with\n  --config.data.train={_manifest_file(output)}")


def main(argv: list[str]) -> None:
    if len(argv) != 2 or not flags.FLAGS["output"].value:
        raise UserError("usage: python -m vidjax.data.pack LIST --output=FOLDER [--short_side=320]")
    names = ("output", "root", "classes", "split", "short_side", "gop", "videos_per_shard")
    names += ("workers", "check", "timeout")
    pack(argv[1], **{name: flags.FLAGS[name].value for name in names})


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
    run_main(main, interrupted="interrupted; the same command continues from here")
