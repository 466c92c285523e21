"""gpu.md: the rows of every GPU that was measured."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import page
from benchmarks.gpu.checks import FORMS
from benchmarks.gpu.rows import Row, rows
from benchmarks.origin import RESULTS, ROOT

PAGE = ROOT / "benchmarks" / "gpu.md"
Report = Mapping[str, Any]
NOTHING: Report = {"gpu": "none yet", "origins": [], "rows": {}, "unfinished": {}}


def reports() -> list[Report]:
    """Returns the files of results, by name."""
    return [json.loads(x.read_text()) for x in sorted((RESULTS / "gpu").glob("*.json"))]


def update() -> None:
    """Writes the tables of the page anew."""
    page.update(PAGE, blocks())


def blocks() -> dict[str, str]:
    """Returns the page's block; with all rows as not measured while no GPU was."""
    gpus = [f"## {one['gpu']}\n\n{render(one)}" for one in reports() or [NOTHING]]
    return {"gpus": "\n\n".join(gpus)}


def render(report: Report) -> str:
    """Returns the tables of one GPU."""
    origins = [page.where(origin) for origin in report["origins"]]
    if len(origins) > 1:
        origins = [f"({i}) {text}" for i, text in enumerate(origins, 1)]
    parts = [*origins, "### Goals", goals_table(report)]
    plan = _plan(report)
    for table in dict.fromkeys(row.table for row in plan):
        some = [row for row in plan if row.table == table]
        there = [row for row in some if row.key in report["rows"]]
        parts.append(f"### {table}")
        if there:
            parts.append(_TABLES[table](report, there))
        if missing := [_missing(report, row) for row in some if row not in there]:
            parts.append(f"{page.NOT_MEASURED.capitalize()}: {'; '.join(missing)}.")
    return "\n\n".join(parts)


def _missing(report: Report, row: Row) -> str:
    """Returns how long a row may take, or what was seen before it was stopped."""
    if not (one := report["unfinished"].get(row.key)):
        return f"{row.name} (about {row.seconds} s)"
    seen = [f"stopped after {one['seconds']:.0f} s"]
    seen += [f"{name} {page.number(x)} clips/s" for name, x in one["clips_per_second"].items()]
    return f"{row.name} ({', '.join(seen)})"


def goals_table(report: Report) -> str:
    """Returns the goals for GPUs and what was measured."""
    plan = {table: [row for row in _plan(report) if row.table == table] for table in _TABLES}

    def ratios(table: str) -> str:
        return "; ".join(
            f"{row.name} {page.times(ratio(report, row, _peer(row)))}"
            for row in plan[table]
            if "vidjax" in row.variants
        )

    shares = {row.name: mfu(report, row) for row in plan["Train steps"]}
    goals = {
        "forward: at least 1.5 x transformers' SDPA with torch.compile; VideoPrism at least 2 x "
        "google-deepmind's code": ratios("Forward passes"),
        "train step: at least 1.3 x transformers with torch.compile": ratios("Train steps"),
        "MFU: at least 55% for VideoMAE-L fine-tuning, 45% for VideoMAE-B pre-training": "; ".join(
            f"{name} {page.NOT_MEASURED if x is None else f'{x:.0%}'}" for name, x in shares.items()
        ),
        "one clip: no slower than transformers with CUDA graphs": ratios("One clip at a time"),
    }
    return page.table({"goal, in bfloat16": goal, "measured": x} for goal, x in goals.items())


def _peer(row: Row) -> str:
    """Returns the peer of a row that its goal names."""
    prism = row.table == "Forward passes" and row.name == "VideoPrism-B"
    return "google-deepmind" if prism else "transformers"


def _plan(report: Report) -> list[Row]:
    return rows("gpu", report["gpu"] == "quick", {"videoprism": ""})


def variants_of(report: Report, row: Row) -> Mapping[str, Any]:
    """Returns a row's measurements by variant; empty if it was not measured."""
    return report["rows"].get(row.key, {}).get("variants", {})


def _each(report: Report, some: Sequence[Row]) -> Iterator[tuple[Row, str, Mapping[str, Any]]]:
    return ((row, name, one) for row in some for name, one in variants_of(report, row).items())


def ceiling(report: Report) -> float | None:
    """Returns FLOP/s of the better matrix product; None while it is not measured."""
    (row,) = (row for row in _plan(report) if row.table == "Ceilings")
    rates = [
        one["facts"]["flops"] / one["seconds"]["median"]
        for name, one in variants_of(report, row).items()
        if name != "copy" and "seconds" in one
    ]
    return max(rates, default=None)


def clips_per_second(one: Mapping[str, Any] | None) -> float | None:
    """Returns clips/s of a variant; None if it was not measured."""
    return one["batch"] / one["seconds"]["median"] if one and "seconds" in one else None


def ratio(report: Report, row: Row, peer: str) -> float | None:
    """Returns how many times the peer's clips/s vidjax has in a row."""
    found = variants_of(report, row)
    ours, theirs = (clips_per_second(found.get(name)) for name in ("vidjax", peer))
    return ours / theirs if ours and theirs else None


def mfu(report: Report, row: Row) -> float | None:
    """Returns model operations of vidjax's variant over its time, as a share of the ceiling."""
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


def _correctness(report: Report, some: Sequence[Row]) -> str:
    """Returns a line for each check and precision, with each form's largest error."""
    lines, notes = [], []
    without: dict[str, list[str]] = {}
    for row, name, one in _each(report, some):
        check = f"{row.name}: {name}"
        if "failed" in one:
            lines.append({"check": check, "failed": one["failed"]})
            continue
        errors = one["facts"]["errors"]
        for precision in dict.fromkeys(x["precision"] for x in errors):
            line = {"check": check, "precision": precision}
            for form in FORMS:
                its = [x for x in errors if (x["form"], x["precision"]) == (form, precision)]
                bad = " **wrong**" if wrong({"errors": its}) else ""
                line[form] = f"{max(x['error'] for x in its):.1e}{bad}" if its else None
            lines.append(line)
        if bad := wrong(one["facts"]):
            notes.append(f"Wrong, {check}: {bad}.")
        for form, why in one["facts"]["skipped"].items():
            if "float32" not in form:  # which the kernels do not compute in
                without.setdefault(f"{form} ({why})", []).append(check)
    notes += [f"Without {why}: {'; '.join(checks)}." for why, checks in without.items()]
    return "\n\n".join([page.table(lines), *notes])


def _ceilings(report: Report, some: Sequence[Row]) -> str:
    lines = []
    for _, name, one in _each(report, some):
        title = "copy, read and written" if name == "copy" else f"matrix product, {name}"
        if "failed" in one:
            lines.append({"ceiling": title, "failed": one["failed"]})
            continue
        count, unit = ("bytes", "TB/s") if name == "copy" else ("flops", "TFLOP/s")
        rate = one["facts"][count] / one["seconds"]["median"] / 1e12
        lines.append({"ceiling": title, "measured": f"{page.number(rate)} {unit}"})
    return page.table(lines)


def _timed(report: Report, some: Sequence[Row]) -> str:
    """Returns a line for each variant of each row, and one for transformers not compiled."""
    best, lines = ceiling(report), []
    for row, name, one in _each(report, some):
        ours = variants_of(report, row).get("vidjax", {})
        rate = clips_per_second(ours)
        line = {"row": row.name, "variant": name}
        tried = {int(b): x for b, x in one["search"].items() if isinstance(x, float)}
        if name == "transformers" and tried:
            batch, clips = max(tried.items(), key=lambda item: item[1])
            plain = {"batch": batch, "ms a call": 1e3 * batch / clips, "clips/s": clips}
            plain["vidjax / it"] = rate and rate / clips
            lines.append({**line, "variant": f"{name}, not compiled", **plain})
        if "failed" in one:
            lines.append(line | {"failed": one["failed"]})
            continue
        clips, flops = clips_per_second(one), ours["facts"]["flops"] / ours["batch"] if rate else 0
        line |= {"batch": one["batch"], "ms a call": page.scaled(one["seconds"], 1e3)}
        line |= {"clips/s": clips, "vidjax / it": rate and rate / clips}
        line["MFU"] = f"{flops * clips / best:.0%}" if flops and best else None
        lines.append(line | {"prepared in s": one["prepared_seconds"]})
    return page.table(lines)


def _attention(report: Report, some: Sequence[Row]) -> str:
    lines = []
    for row, _, one in _each(report, some):
        if "failed" in one:
            lines.append({"tokens": row.name, "failed": one["failed"]})
            continue
        facts = one["facts"]
        for form, passes in facts["by form"].items():
            rate = facts["flops"] / passes["forward"]["median"] / 1e9
            line = {"tokens": row.name, "form": form, "forward": passes["forward"]}
            line |= {"TFLOP/s": f"{rate:,.1f}", "forward and backward": passes["backward"]}
            lines.append(line)
        for form, why in facts["skipped"].items():
            lines.append({"tokens": row.name, "form": form, "forward": why[:80]})
    return page.table(lines)


def _parts(report: Report, some: Sequence[Row]) -> str:
    parts = []
    for row, _, one in _each(report, some):
        if "failed" in one:
            parts.append(f"{row.name} failed: {one['failed'][:80]}")
            continue
        facts, figures = one["facts"], one["facts"]["milliseconds"]
        lines = [{"": name, "ms": value} for name, value in figures.items()]
        if "all" in facts:
            lines = [
                {"kernel": f"`{name[:70]}`", "ms a step": ms, "share": f"{ms / facts['all']:.1%}"}
                for name, ms in list(figures.items())[:15]
            ]
        parts += [f"{row.name}:", page.table(lines)]
        if "copy" in figures:
            alone, fed = (figures[name]["median"] for name in ("step", "step with its copy"))
            parts.append(f"The copy adds {(fed - alone) / fed:.1%} of a step.")
    return "\n\n".join(parts)


def _choices(report: Report, some: Sequence[Row]) -> str:
    lines = []
    for row in some:
        pair = [variants_of(report, row)[name] for name in ("as it is", row.name)]
        why = next((one["failed"] for one in pair if "failed" in one), None)
        line: dict[str, Any] = {"change": row.name}
        if why:
            lines.append(line | {"failed": why})
            continue
        line["ms as it is"], line["ms changed"] = (page.scaled(x["seconds"], 1e3) for x in pair)
        before, after = map(clips_per_second, pair)
        lines.append(line | {"times as fast": after / before})
    return page.table(lines)


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
