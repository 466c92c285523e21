"""gpu.md: the rows of every GPU that was measured."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import goals, harness
from benchmarks.gpu.checks import FORMS
from benchmarks.gpu.rows import Row, rows

PAGE = harness.ROOT / "benchmarks" / "gpu.md"
NOT_MEASURED = goals.NOT_MEASURED
Report = Mapping[str, Any]
NOTHING: Report = {"gpu": "none yet", "origins": [], "rows": {}, "unfinished": {}}

_HEAD = """# GPUs

    python -m benchmarks.gpu --minutes=7

measures an NVIDIA GPU, the most important rows first, and writes each to `results/gpu/` as soon as
it is there; called again, it goes on with the rows that are missing. PyTorch and transformers 5.23
or later should be installed beside vidjax's `cuda` and `tokamax` extras; what is missing is left
out and said to be. decord and av are not needed. `--rows='Train steps'` measures rows anew,
`--peer=videoprism=CHECKOUT` adds google-deepmind's code, and `--device=cpu --quick` walks through
all rows with tiny models, in some minutes, to see that the command runs.

A machine that has JAX and PyTorch but no network gets the rest as wheels. Where there is a network:

    pip download --no-deps --only-binary=:all: --python-version=3.12 -d wheels \\
        array_record ftfy grain ml_collections tensorboardX transformers wcwidth
    pip download --no-deps --only-binary=:all: --python-version=3.12 -d wheels \\
        tokamax annotated_types fire immutabledict pydantic pydantic_core qwix termcolor \\
        typing_inspection xprof

and there `pip install --no-index --no-deps --target=site wheels/*.whl`, with `PYTHONPATH=site`, and
`--commit=` with the commit where the copy is no git repository.

Each library has a process of its own, and they take turns of half a second, in which calls follow
each other without waiting; medians of five turns (minimum to maximum). Batches are tried in turn
while a larger one is 3% faster and fits into 45% of the memory; each side has its own best batch.
All is in bfloat16, and train steps keep parameters in float32. transformers uses SDPA (eager
attention for VideoPrism, which has no SDPA there) with torch.compile; train steps use autocast and
fused AdamW. MFU: model operations (matrix products of a forward pass; three times as many for a
train step, whatever is computed twice) over the time, as a share of the better measured matrix
product. `vidjax / it` compares clips/s; above 1, vidjax is faster.
"""


def reports() -> list[Report]:
    """The files of results, by name."""
    return [json.loads(x.read_text()) for x in sorted((harness.RESULTS / "gpu").glob("*.json"))]


def rendered() -> str:
    """The page; with all rows as not measured while no GPU was."""
    parts = [_HEAD]
    for report in reports() or [NOTHING]:
        parts += [f"## {report['gpu']}", render(report)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def render(report: Report) -> str:
    """The tables of one GPU."""
    parts = [
        f"{'' if len(report['origins']) == 1 else f'({i + 1}) '}{harness.where(origin)}"
        for i, origin in enumerate(report["origins"])
    ]
    parts += ["### Goals", goals_table(report)]
    plan = _plan(report)
    for table in dict.fromkeys(row.table for row in plan):
        some = [row for row in plan if row.table == table]
        there = [row for row in some if row.key in report["rows"]]
        parts.append(f"### {table}")
        if there:
            parts.append(_TABLES[table](report, there))
        if missing := [_missing(report, row) for row in some if row not in there]:
            parts.append(f"{NOT_MEASURED.capitalize()}: {'; '.join(missing)}.")
    return "\n\n".join(parts)


def _missing(report: Report, row: Row) -> str:
    """A row that is not measured, how long it may take, and what was seen before it was stopped."""
    if not (one := report["unfinished"].get(row.key)):
        return f"{row.name} (about {row.seconds} s)"
    seen = [f"stopped after {one['seconds']:.0f} s"]
    seen += [f"{name} {harness.number(x)} clips/s" for name, x in one["clips_per_second"].items()]
    return f"{row.name} ({', '.join(seen)})"


def goals_table(report: Report) -> str:
    """The goals for GPUs and what was measured."""
    plan = {table: [row for row in _plan(report) if row.table == table] for table in _TABLES}

    def ratios(table: str) -> str:
        return "; ".join(
            f"{row.name} {goals.times(ratio(report, row, _peer(row)))}"
            for row in plan[table]
            if "vidjax" in row.variants
        )

    shares = []
    for row in plan["Train steps"]:
        share = mfu(report, row)
        shares.append(f"{row.name} {NOT_MEASURED if share is None else f'{share:.0%}'}")
    lines = [
        [
            "forward: at least 1.5 x transformers' SDPA with torch.compile; VideoPrism at least "
            "2 x google-deepmind's code",
            ratios("Forward passes"),
        ],
        ["train step: at least 1.3 x transformers with torch.compile", ratios("Train steps")],
        [
            "MFU: at least 55% for VideoMAE-L fine-tuning, 45% for VideoMAE-B pre-training",
            "; ".join(shares),
        ],
        ["one clip: no slower than transformers with CUDA graphs", ratios("One clip at a time")],
    ]
    return harness.table(["goal, in bfloat16", "measured"], lines)


def _peer(row: Row) -> str:
    """The peer of a row that its goal names."""
    prism = row.table == "Forward passes" and row.name == "VideoPrism-B"
    return "google-deepmind" if prism else "transformers"


def _plan(report: Report) -> list[Row]:
    return rows("gpu", report["gpu"] == "quick", {"videoprism": ""})


def variants_of(report: Report, row: Row) -> Mapping[str, Any]:
    """Returns a row's measurements by variant; empty if it was not measured."""
    return report["rows"].get(row.key, {}).get("variants", {})


def ceiling(report: Report) -> float | None:
    """FLOP/s of the better matrix product; None while it is not measured."""
    (row,) = (row for row in _plan(report) if row.table == "Ceilings")
    found = variants_of(report, row)
    rates = [
        found[name]["facts"]["flops"] / found[name]["seconds"]["median"]
        for name in ("jax", "torch")
        if "seconds" in found.get(name, {})
    ]
    return max(rates, default=None)


def clips_per_second(one: Mapping[str, Any] | None) -> float | None:
    """Clips/s of a variant; None if it was not measured."""
    return one["batch"] / one["seconds"]["median"] if one and "seconds" in one else None


def ratio(report: Report, row: Row, peer: str) -> float | None:
    """How many times the peer's clips/s vidjax has in a row."""
    found = variants_of(report, row)
    ours, theirs = (clips_per_second(found.get(name)) for name in ("vidjax", peer))
    return ours / theirs if ours and theirs else None


def mfu(report: Report, row: Row) -> float | None:
    """Model operations of vidjax's variant over its time, as a share of the ceiling."""
    ours, best = variants_of(report, row).get("vidjax"), ceiling(report)
    if not best or not clips_per_second(ours):
        return None
    return ours["facts"]["flops"] / ours["seconds"]["median"] / best


def wrong(facts: Mapping[str, Any]) -> str:
    """Lists the errors of a check that exceed their limits; empty if none does."""
    return "; ".join(
        f"{x['form']} in {x['precision']}, {x['what']}: {x['error']:.1e} > {x['limit']:.1e}"
        for x in facts.get("errors", ())
        if x["limit"] is not None and not x["error"] <= x["limit"]
    )


def _line(header: Sequence[str], *cells: str) -> list[str]:
    """A line of a table; what it lacks becomes dashes."""
    return [*cells, *"-" * (len(header) - len(cells))]


def _failure(one: Mapping[str, Any]) -> str:
    return f"failed: {one['failed'][:80]}"


def _correctness(report: Report, some: Sequence[Row]) -> str:
    """A line for each check and precision, with the largest error of each form of attention."""
    header = ["check", "precision", *FORMS]
    lines, notes = [], []
    without: dict[str, list[str]] = {}
    for row in some:
        for name, one in variants_of(report, row).items():
            check = f"{row.name}: {name}"
            if "failed" in one:
                lines.append(_line(header, check, _failure(one)))
                continue
            facts = one["facts"]
            by_precision: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
            for error in facts["errors"]:
                by_form = by_precision.setdefault(error["precision"], {})
                by_form.setdefault(error["form"], []).append(error)
            for precision, by_form in by_precision.items():
                cells = [_largest(by_form.get(form, [])) for form in FORMS]
                lines.append([check, precision, *cells])
            if bad := wrong(facts):
                notes.append(f"Wrong, {check}: {bad}.")
            for form, why in facts["skipped"].items():
                if "float32" not in form:  # which the kernels do not compute in
                    without.setdefault(f"{form} ({why})", []).append(check)
    head = (
        "The largest error of output and gradients. Attention: ‖x - reference‖ / ‖reference‖ "
        "beside einsum in float64. Goldens: the output beside that of the original code, as a "
        "share of the largest value; gradients of all parameters beside einsum in float64. Models: "
        "full size, random parameters, beside einsum in float32. A kernel is wrong if its error is "
        "more than twice einsum's. float32 is without TF32; JAX's default precision is for "
        "information."
    )
    notes += [f"Without {why}: {'; '.join(checks)}." for why, checks in without.items()]
    return "\n\n".join([head, harness.table(header, lines), *notes])


def _largest(errors: Sequence[Mapping[str, Any]]) -> str:
    if not errors:
        return "-"
    bad = " **wrong**" if wrong({"errors": errors}) else ""
    return f"{max(x['error'] for x in errors):.1e}{bad}"


def _ceilings(report: Report, some: Sequence[Row]) -> str:
    lines = []
    for name, one in variants_of(report, some[0]).items():
        if "failed" in one:
            lines.append([name, _failure(one)])
            continue
        facts, seconds = one["facts"], one["seconds"]["median"]
        if "flops" in facts:
            rate = f"{facts['flops'] / seconds / 1e12:,.1f} TFLOP/s"
            lines.append([f"matrix product, {name}", rate])
        else:
            rate = f"{facts['bytes'] / seconds / 1e12:.2f} TB/s"
            lines.append(["copy, read and written", rate])
    return harness.table(["ceiling", "measured"], lines)


def _timed(report: Report, some: Sequence[Row]) -> str:
    """A line for each variant of each row, and one for transformers without torch.compile."""
    header = ["row", "variant", "batch", "ms a call", "clips/s", "vidjax / it", "MFU"]
    header += ["prepared in s"]
    best, lines = ceiling(report), []
    for row in some:
        found = variants_of(report, row)
        ours = found.get("vidjax", {})
        rate = clips_per_second(ours)
        flops = ours["facts"]["flops"] / ours["batch"] if rate else None
        for name, one in found.items():
            tried = {int(b): x for b, x in one["search"].items() if isinstance(x, float)}
            if name == "transformers" and tried:
                batch, clips = max(tried.items(), key=lambda item: item[1])
                ms, times = 1e3 * batch / clips, rate and rate / clips
                cells = [str(batch), *map(harness.number, (ms, clips, times))]
                lines.append(_line(header, row.name, f"{name}, not compiled", *cells))
            if "failed" in one:
                lines.append(_line(header, row.name, name, _failure(one)))
                continue
            clips = clips_per_second(one)
            lines.append(
                [
                    row.name,
                    name,
                    str(one["batch"]),
                    harness.spread(one["seconds"], 1e3),
                    harness.number(clips),
                    harness.number(rate and rate / clips),
                    f"{flops * clips / best:.0%}" if flops and best else "-",
                    harness.number(one["prepared_seconds"]),
                ]
            )
    return harness.table(header, lines)


def _attention(report: Report, some: Sequence[Row]) -> str:
    header = ["tokens", "form", "forward", "TFLOP/s", "forward and backward"]
    lines = []
    for row in some:
        one = variants_of(report, row)["vidjax"]
        if "failed" in one:
            lines.append(_line(header, row.name, _failure(one)))
            continue
        facts = one["facts"]
        for form, passes in facts["by form"].items():
            rate = facts["flops"] / passes["forward"]["median"] / 1e9
            forward, both = (harness.spread(passes[name]) for name in ("forward", "backward"))
            lines.append([row.name, form, forward, f"{rate:,.1f}", both])
        for form, why in facts["skipped"].items():
            lines.append(_line(header, row.name, form, why[:80]))
    head = "Twelve heads of width 64 in bfloat16, 32,768 tokens in all; milliseconds."
    return f"{head}\n\n{harness.table(header, lines)}"


def _parts(report: Report, some: Sequence[Row]) -> str:
    parts = []
    for row in some:
        one = variants_of(report, row)["vidjax"]
        parts.append(f"{row.name}:")
        if "failed" in one:
            parts.append(_failure(one))
            continue
        facts = one["facts"]
        figures = facts["milliseconds"]
        if "all" in facts:
            lines = [
                [f"`{name[:70]}`", harness.number(ms), f"{ms / facts['all']:.1%}"]
                for name, ms in list(figures.items())[:15]
            ]
            parts.append(harness.table(["kernel", "ms a step", "share"], lines))
            continue
        lines = [[name, harness.spread(value)] for name, value in figures.items()]
        parts.append(harness.table(["", "ms"], lines))
        if "copy" in figures:
            alone, fed = (figures[name]["median"] for name in ("step", "step with its copy"))
            parts.append(f"The copy adds {(fed - alone) / fed:.1%} of a step.")
    return "\n\n".join(parts)


def _choices(report: Report, some: Sequence[Row]) -> str:
    header = ["change", "ms as it is", "ms changed", "times as fast"]
    lines = []
    for row in some:
        pair = [variants_of(report, row)[name] for name in ("as it is", row.name)]
        cells = [
            _failure(one) if "failed" in one else harness.spread(one["seconds"], 1e3)
            for one in pair
        ]
        before, after = map(clips_per_second, pair)
        times = harness.number(after / before) if before and after else "-"
        lines.append([row.name, *cells, times])
    head = "VideoMAE-L's fine-tuning step with one thing changed, in turns with the step as it is."
    return f"{head}\n\n{harness.table(header, lines)}"


_TABLES = {
    "Correctness": _correctness,
    "Ceilings": _ceilings,
    "Train steps": _timed,
    "Forward passes": _timed,
    "Attention by length": _attention,
    "One clip at a time": _timed,
    "Parts of a train step": _parts,
    "Choices": _choices,
}
