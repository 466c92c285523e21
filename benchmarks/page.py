"""Markdown pages: tables of measured values, and the marked blocks of a page that they fill."""

import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

NOT_MEASURED = "not measured"
_BLOCK = re.compile(r"(<!-- made: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Returns a page with `blocks` between `<!-- made: NAME -->` and `<!-- end -->`.

    Blocks that are not given stay as they are.

    Raises:
        ValueError: the page has no place for a block.
    """
    if unknown := blocks.keys() - {block[2] for block in _BLOCK.finditer(text)}:
        raise ValueError(f"the page has no <!-- made: NAME --> for {sorted(unknown)}")

    def filled(block: re.Match) -> str:
        new = blocks.get(block[2])
        return block[0] if new is None else f"{block[1]}\n{new.strip()}\n\n{block[3]}"

    return _BLOCK.sub(filled, text)


def update(path: pathlib.Path, blocks: Mapping[str, str]) -> None:
    """Fills a page on disk; see `fill`."""
    path.write_text(fill(path.read_text(), blocks))


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns a Markdown table; its columns are the keys of the longest row.

    Args:
        rows: values by column; see `cell`. A row {"failed": why, ...} shows the reason in the first
            column that it lacks.
    """
    rows = list(rows)
    complete = [list(row) for row in rows if "failed" not in row]
    header = max(complete, key=len, default=list(rows[0]))
    lines = [header, ["---", *["--:"] * (len(header) - 1)]]
    for row in rows:
        if "failed" in row:
            column = next((name for name in header if name not in row), "failed")
            row = {**row, column: f"failed: {row['failed'][:80]}"}
        lines.append([cell(row.get(name)) for name in header])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    """Formats text, a count, a number, a summary (`harness.summary`), or None as a dash."""
    match value:
        case None:
            return "-"
        case str():
            return value
        case int():
            return f"{value:,}"
        case Mapping():
            return f"{number(value['median'])} ({number(value['min'])} to {number(value['max'])})"
        case _:
            return number(value)


def number(value: float) -> str:
    """Formats a number with three significant digits."""
    if value == 0 or 1 <= abs(value) < 10**6:
        before = len(str(int(abs(value))))
        return f"{value:,.{max(3 - before, 0)}f}"
    return f"{value:.3g}"


def scaled(summary: Mapping[str, float], factor: float) -> dict[str, float]:
    """Returns a summary in another unit."""
    return {key: summary[key] * factor for key in ("median", "min", "max")}


def named(values: Mapping[str, Any], separator: str = ", ") -> str:
    """Formats values by name as "a 1.00, b 2.00"."""
    return separator.join(f"{name} {cell(value)}" for name, value in values.items())


def times(ratio: float | None) -> str:
    """Formats a ratio as "1.20 x"."""
    return NOT_MEASURED if ratio is None else f"{ratio:.2f} x"


def where(report: Mapping[str, Any]) -> str:
    """Returns a sentence on the machine, date, commit and versions of a report."""
    machine = report["machine"]
    device = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    changed = " with uncommitted changes" if report["uncommitted_changes"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return f"{device}; {report['date']}, commit {report['commit']}{changed}; {versions}."
