"""Computes embeddings of videos of any length.

    python -m vidjax.embed --checkpoint=NAME --videos=FOLDER_OR_LIST --output=out.npz

Videos are cut into windows (see vidjax.data.windows), which are decoded on all cores and embedded
on all devices; of several processes (see vidjax.distributed) each takes its share of the videos,
and all must see the same OUTPUT. What is in the output stands in vidjax.embeddings. Videos that
cannot be read have no rows in it; OUTPUT.bad_videos.jsonl lists them with reasons, and
OUTPUT.bad_videos.N.jsonl those of process N.

Nothing has the name OUTPUT before it is complete. Until then each finished video has a file in
OUTPUT.part, and after an interruption of any kind the same command goes on from there. Files that
are damaged or whose video changed do not count. Videos that could not be read are tried again, but
not those that hung their decoder; see vidjax.data.BadVideos.
"""

import collections
import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import traverse_util

from vidjax import compilation, distributed, files, pretrained, sources
from vidjax.data import BadVideos, datasets, lists
from vidjax.data.reading import containers, locators, video_files
from vidjax.data.windows import Windows, read_all
from vidjax.embeddings import Part, is_finished
from vidjax.errors import UserError, run_main
from vidjax.inference import Runner
from vidjax.progress import Progress


def embed(
    checkpoint: str,
    videos: str,
    output: str,
    *,
    root: str = "",
    pool: str = "none",
    window_seconds: float | None = None,
    window_stride: float | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
) -> str:
    """Embeds videos by a checkpoint's method `embed`; see the module.

    Args:
        checkpoint: any name of vidjax.sources.
        videos: a list in any format of vidjax.data.lists; a folder, of which all videos are
            taken, however deep; or a video.
        output: a file .npz or .npy; left as it is if it is complete, of the same settings and of
            the videos as they are now.
        root: folder that relative paths of a list start from.
        pool: "none" has a row for each window, "mean" one for each video, their mean.
        window_seconds, window_stride: see vidjax.data.windows.
        batch_size: windows on each device at once.
        dtype: of the computation.

    Returns:
        The output's path.

    Raises:
        UserError: wrong arguments, an output of other settings or videos, a file of the user's in
            its place, or no video that can be read.
    """
    output = _checked(output, pool, batch_size)
    loaded = pretrained.load_model(checkpoint, dtype, batch_size)
    loaded.check_embeds()
    preprocessing = loaded.card.preprocessing
    windows = Windows(preprocessing, window_seconds, window_stride)
    items = {item.path: item for item in find_videos(videos, root)}  # each once
    settings = {
        "model": loaded.card.model,
        "preprocessing": dataclasses.asdict(preprocessing),
        "parameters": _digest(loaded.params),
        "dtype": dtype,
        "pool": pool,
        "window_seconds": window_seconds,
        "window_stride": window_stride,
    }
    settings, stamps = json.loads(json.dumps(settings)), stamps_of(items)
    if is_finished(output, settings, stamps):
        shutil.rmtree(f"{output}.part", ignore_errors=True)
        return output
    part = Part(f"{output}.part", settings, stamps, alone=distributed.is_first())
    mine = dict(itertools.islice(items.items(), jax.process_index(), None, jax.process_count()))
    bad = _bad_videos(output, mine)
    hanging = bad.hanging
    left = [item for path, item in mine.items() if path not in hanging and not part.find(path)]
    embedded = _embedded(left, windows, loaded.runner, len(mine))
    with contextlib.closing(embedded):
        for path, answer, vectors in embedded:
            if vectors is None:
                bad.add(path, answer)
            else:
                part.add(path, answer, vectors, pool)
    if bad.count:
        print(f"{bad.count} of {len(mine)} videos cannot be read; {bad.path} says why")
    distributed.wait_for_all("embedded")

    def write() -> None:
        for path in items.keys() - mine.keys():
            part.find(path)
        if not part.windows:
            raise UserError(f"none of the {len(items)} videos can be read; {bad.path} says why")
        part.write(output)
        shutil.rmtree(f"{output}.part")

    distributed.from_first(write)
    return output


def _checked(output: str, pool: str, batch_size: int) -> str:
    """Returns the absolute path of the output; raises UserError for a wrong argument."""
    if locators.is_url(output):
        raise UserError(f"--output={output} must be a file of this machine; copy it up when done")
    output = os.fspath(files.absolute(output))
    if not output.endswith((".npz", ".npy")):
        raise UserError(f"--output={output} must end in .npz or .npy")
    if pool not in ("none", "mean") or batch_size < 1:
        raise UserError("--pool must be none or mean, and --batch_size at least 1")
    return output


def _bad_videos(output: str, mine: Mapping[str, datasets.Video]) -> BadVideos:
    """Opens this process's list of bad videos, in which those that hung a decoder are added."""
    index = jax.process_index()
    name = f"{output}.bad_videos.{index}.jsonl" if index else f"{output}.bad_videos.jsonl"
    others = glob.glob(f"{glob.escape(output)}.bad_videos*.jsonl")
    bad = BadVideos(name, len(mine), 1.0, [other for other in others if other != name])
    for path, why in bad.hanging.items():
        if path in mine:
            bad.add(path, why)
    return bad


def _embedded(
    videos: Sequence[datasets.Video], windows: Windows, runner: Runner, total: int
) -> Iterator[tuple[str, Any, np.ndarray | None]]:
    """Embeds the videos that are left of `total`, with a progress bar.

    Yields:
        (path, windows, vectors float32 [W, D]), or (path, reason, None) where it cannot be read.
    """
    done, rows = total - len(videos), 0
    vectors, ended = collections.defaultdict(list), {}
    progress = Progress("videos", total, done)
    with (
        contextlib.closing(progress),
        contextlib.closing(read_all(videos, windows, ahead=runner.size)) as clips,
    ):
        for path, answer in runner.rows(clips, "embed"):
            if isinstance(answer, np.ndarray):
                vectors[path].append(answer)
                rows += 1
            else:
                ended[path] = answer
            end = ended.get(path, ())
            if isinstance(end, str) or len(end) == len(vectors[path]) > 0:
                found = vectors.pop(path, None)
                done += 1
                yield path, ended.pop(path), None if isinstance(end, str) else np.stack(found)
            progress.advance(done, f"{rows} windows")


def stamps_of(paths: Iterable[str]) -> dict[str, list[int]]:
    """Returns the stamps that tell whether videos changed; those in object stores have none."""
    return {path: list(files.stamp(locators.container(path)) or (-1, -1)) for path in paths}


def find_videos(videos: str, root: str = "") -> Sequence[datasets.Video]:
    """The videos of a list, of a folder and its folders in the order of their paths, or of a file.

    Raises:
        UserError: there are none, or the list is wrong.
    """
    videos = os.path.expanduser(videos)
    if os.path.isdir(videos):
        names, others = video_files.below(videos)
        if not names:
            instead = f", but {len(others)} other files, such as {others[0]}" if others else ""
            raise UserError(f"folder {videos} holds no videos{instead}")
        return [datasets.Video(os.path.join(videos, name).rstrip("/")) for name in names]
    # Lists are text, and no video is.
    is_video = video_files.is_video(videos) and locators.is_file(videos)
    if is_video or (os.path.isfile(videos) and not containers.is_text(videos)):
        return [datasets.Video(videos)]
    return lists.read_list(videos, root)


def _digest(params: pretrained.Params) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(traverse_util.flatten_dict(params, sep="/").items()):
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; videos are given by --videos=FOLDER_OR_LIST")
    if not (values.checkpoint and values.videos and values.output):
        raise UserError("say what to embed: --checkpoint=NAME --videos=FOLDER --output=FILE.npz")
    names = ("root", "pool", "window_seconds", "window_stride", "batch_size", "dtype")
    options = {name: values[name].value for name in names}
    with distributed.session():
        compilation.keep_programs()
        print(embed(values.checkpoint, values.videos, values.output, **options))


if __name__ == "__main__":
    distributed.define_flags()
    flags.DEFINE_string("checkpoint", None, sources.HELP)
    flags.DEFINE_string("videos", None, "A folder, taken with its folders, or a list file.")
    flags.DEFINE_string("output", None, "File to write, .npz, or .npy with a .json beside it.")
    flags.DEFINE_string("root", "", "Folder that relative paths of a list start from.")
    flags.DEFINE_enum("pool", "none", ["none", "mean"], "A row for each window, or each video.")
    flags.DEFINE_float("window_seconds", None, "Length of windows; default: the checkpoint's.")
    flags.DEFINE_float("window_stride", None, "Seconds between their starts; default: no overlap.")
    flags.DEFINE_integer("batch_size", 8, "Windows on each device at once.", lower_bound=1)
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the computation.")
    run_main(main, interrupted="interrupted; the same command continues from here")
