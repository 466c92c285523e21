"""Time and memory of ranking texts and videos by each other, from their embeddings.

    python -m benchmarks.retrieval
    python -m benchmarks.retrieval --videos=1000 --rounds=1 --output=small.json

Random unit vectors, a text for each video. `ranks` is what the retrieval evaluator calls: both
directions, blocks of float64 products rounded to float32, NumPy. Beside it the faster way that was
not taken, float32 products in a jitted function, and how often these differ where they should not:
of a text with copies of one video. Writes the numbers to --output and a table beside it (.md).
"""

import json
import multiprocessing
import pathlib
import resource
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.harness import table
from benchmarks.vivit_factorisations import machine
from vidjax.errors import UserError, run_main
from vidjax.evaluators.retrieval import ranks


def vectors(seed: int, count: int, width: int) -> np.ndarray:
    """Unit vectors float32 [count, width]."""
    x = np.random.default_rng(seed).standard_normal((count, width), np.float32)
    x /= np.sqrt(np.einsum("nd,nd->n", x, x))[:, None]
    return x


@jax.jit
def _count(texts, videos, own_texts, own_videos):
    scores = jnp.matmul(texts, videos.T, precision="highest")
    return (~(scores < own_texts[:, None])).sum(1), (~(scores < own_videos)).sum(0)


def float32_ranks(texts: np.ndarray, videos: np.ndarray, owners: np.ndarray, block: int = 1024):
    """As `ranks` of one text for each video, in its order, but for the last bits of scores."""
    own = np.einsum("kd,kd->k", texts, videos[owners])
    t2v, v2t = np.zeros(len(texts), int), np.zeros(len(videos), int)
    for i in range(0, len(texts), block):
        for j in range(0, len(videos), block):
            rows, columns = slice(i, i + block), slice(j, j + block)
            found = _count(texts[rows], videos[columns], own[rows], own[columns])
            t2v[rows] += np.asarray(found[0])
            v2t[columns] += np.asarray(found[1])
    return t2v - 1, v2t - 1


def unequal(width: int, count: int = 1000) -> float:
    """Share of float32 products of NumPy, of texts with copies of a video, that are not equal."""
    scores = vectors(0, count, width) @ np.repeat(vectors(1, 1, width), count, axis=0).T
    return float((scores != scores[:, :1]).mean())


def _child(function, videos: int, width: int, rounds: int, connection) -> None:
    texts, gallery, owners = vectors(0, videos, width), vectors(1, videos, width), np.arange(videos)
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    seconds, cpu_seconds = [], []
    for _ in range(rounds):
        start, cpu_start = time.perf_counter(), time.process_time()
        t2v, v2t = function(texts, gallery, owners)
        seconds.append(round(time.perf_counter() - start, 3))
        cpu_seconds.append(round(time.process_time() - cpu_start, 3))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    mean_ranks = float(t2v.mean() + 1), float(v2t.mean() + 1)
    times = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    connection.send({**times, "peak_bytes": peak, "mean_ranks": mean_ranks})


def measure(videos: int, width: int, rounds: int) -> dict[str, Any]:
    """Each way in a process of its own (Linux), whose peak is that above its inputs."""
    report = {
        "settings": {"videos": videos, "texts": videos, "width": width, "rounds": rounds},
        "machine": machine(),
        "whole_matrix_bytes": 4 * videos**2,
        "unequal_float32_products": unequal(width),
        "ways": {},
    }
    context = multiprocessing.get_context("spawn")
    for function in (ranks, float32_ranks):
        here, there = context.Pipe()
        child = context.Process(target=_child, args=(function, videos, width, rounds, there))
        child.start()
        there.close()
        report["ways"][function.__name__] = here.recv()
        child.join()
    return report


def render(report: dict[str, Any]) -> str:
    """The table, in Markdown."""
    settings, where = report["settings"], report["machine"]
    rows = [
        [
            name,
            f"{statistics.median(way['seconds']):.2f}",
            f"{min(way['seconds']):.2f}",
            f"{max(way['seconds']):.2f}",
            f"{statistics.median(way['cpu_seconds']):.2f}",
            f"{way['peak_bytes'] / 1e6:.0f}",
            f"{way['mean_ranks'][0]:.2f}",
            f"{way['mean_ranks'][1]:.2f}",
        ]
        for name, way in report["ways"].items()
    ]
    header = ["way", "median s", "min", "max", "CPU s", "peak MB", "t2v mean rank", "v2t mean rank"]
    versions = ", ".join(f"{key} {value}" for key, value in where["versions"].items())
    parts = [
        "# Retrieval",
        f"{settings['texts']:,} texts by {settings['videos']:,} videos, random unit vectors of "
        f"width {settings['width']}, both directions, {settings['rounds']} rounds, of which the "
        "jitted one's first compiles. Made by `python -m benchmarks.retrieval` on "
        f"{where['date']}, commit {where['commit']}; {versions}; only on this machine's CPU "
        f"({where['cpu']}, {where['cores']} cores). CPU seconds are those of all threads: where "
        "they are fewer than cores times seconds, the machine had other work.",
        table(header, rows),
        "The peak is that of the process above what it held with its float32 inputs "
        f"({2 * 4 * settings['videos'] * settings['width'] / 1e6:.0f} MB); the whole matrix in "
        f"float32 would be {report['whole_matrix_bytes'] / 1e6:.0f} MB. `ranks` is what the "
        "evaluator calls. `float32_ranks` loses ties, also of an item with itself (so its mean "
        f"ranks are lower): {report['unequal_float32_products']:.0%} of NumPy's float32 products "
        "of a vector with copies of another one are not equal.",
    ]
    return "\n\n".join(parts) + "\n"


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; options look like --rounds=5")
    report = measure(values.videos, values.width, values.rounds)
    output = pathlib.Path(values.output)
    output.write_text(json.dumps(report, indent=1) + "\n")
    text = render(report)
    output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    flags.DEFINE_integer("videos", 10_000, "Videos, and texts.", lower_bound=2)
    flags.DEFINE_integer("width", 768, "Of the embeddings.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Timed rounds.", lower_bound=1)
    flags.DEFINE_string(
        "output", str(pathlib.Path(__file__).with_suffix(".json")), "The file of numbers."
    )
    run_main(main)
