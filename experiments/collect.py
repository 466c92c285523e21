"""What the runs of a sweep found so far: a table and a plot, whatever state they are in."""

import csv
import io
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from vidjax.errors import EXIT_AGAIN, UserError

_QUIET = 15 * 60  # seconds without a sign of life after which a run is taken for stopped


def report(
    runs: Sequence[Any], folder: epath.Path, figure: str = "", against: Sequence[str] = ()
) -> None:
    """Prints a table of the runs, and writes results.csv and results.png into the sweep's folder.

    Args:
        runs: `launch.Run`s.
        folder: of the sweep.
        figure: what is plotted against the swept values; "": a top-1, or else a loss.
        against: which of the swept keys; empty: all.

    Raises:
        UserError: no run has begun, or none has the figure, or a key is not swept.
    """
    keys = swept(runs)
    if unknown := set(against) - set(keys):
        raise UserError(f"{unknown.pop()!r} is not swept; swept are {', '.join(keys)}")
    rows, curves = collect(runs)
    if all(row["state"] == "not started" for row in rows):
        raise UserError(f"no run of {folder} has begun")
    columns = list(rows[0])
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / "results.csv").write_text(text.getvalue())
    print(table(rows, columns))
    print(f"\ntable: {folder / 'results.csv'}")
    figures = columns[columns.index("step") + 1 + len(keys) :]
    usual = (key for end in ("top1", "/loss", "loss") for key in figures if key.endswith(end))
    figure = figure or next(usual)
    if figure not in figures:
        raise UserError(f"no run has a figure {figure!r}; there are {', '.join(figures)}")
    try:
        plot(rows, curves, against or keys, figure, folder / "results.png")
    except ModuleNotFoundError as error:
        print(f"no plot, as {error.name} is missing: pip install 'vidjax[plots]'")
    else:
        print(f"plot: {folder / 'results.png'}")


def swept(runs: Sequence[Any]) -> list[str]:
    """Keys that tell the runs apart; "config" stands for the config file and its argument."""
    keys = list(dict.fromkeys(key for run in runs for key in run.overrides))
    keys = [key for key in keys if len({run.overrides.get(key) for run in runs}) > 1]
    return [*(["config"] if len({run.config for run in runs}) > 1 else []), *keys]


def collect(runs: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, list[tuple[int, float]]]]:
    """A row for each run, and the losses of each by step.

    A row has run, state, step, the swept values (of the run's config.json if there is one), loss,
    and the last value of every figure that finished runs end with. What is cut off in a run's files
    is left out.
    """
    lines = {run.name: list(_lines(run.workdir / "metrics.jsonl")) for run in runs}
    finals = {run.name: _json(run.workdir / "DONE") for run in runs}
    figures = [key for found in finals.values() for key in found]
    # While none is done, what evaluators report is known by its slash.
    figures = figures or [k for found in lines.values() for line in found for k in line if "/" in k]
    rows, curves = [], {}
    for run in runs:
        mine, config = lines[run.name], _json(run.workdir / "config.json")
        curves[run.name] = [(x["step"], x["loss"]) for x in mine if _is_number(x.get("loss"))]
        row = {
            "run": run.name,
            "state": state(run),
            "step": max((x["step"] for x in mine), default=0),
        }
        for key in swept(runs):
            text = run.config if key == "config" else run.overrides.get(key, "")
            row[key] = _leaf(config, key, _value(text))
        for key in dict.fromkeys(["loss", *figures]):
            found = [x[key] for x in (*mine, finals[run.name]) if key in x]
            row[key] = found[-1] if found else None
        rows.append(row)
    return rows, curves


def state(run: Any) -> str:
    """ "done", "running", "stopped" (it can go on), "failed" or "not started"."""
    if (run.workdir / "DONE").exists():
        return "done"
    signs = [path for path in (run.log, run.workdir / "metrics.jsonl") if path.exists()]
    if not signs:
        return "stopped" if run.workdir.exists() else "not started"
    last = (
        run.log.read_bytes().decode(errors="replace").splitlines()[-1:] if run.log in signs else []
    )
    if ended := re.fullmatch(r"exit code (\d+)", "".join(last)):
        return "stopped" if int(ended[1]) == EXIT_AGAIN else "failed"
    quiet = time.time() - max(path.stat().mtime for path in signs)
    return "running" if quiet < _QUIET else "stopped"


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Aligned columns: texts to the left, numbers to the right."""
    cells = [columns, *([_text(row[key]) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(_is_number(row[key]) for row in rows if row[key] is not None) for key in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def plot(
    rows: Sequence[Mapping[str, Any]],
    curves: Mapping[str, Sequence[tuple[int, float]]],
    keys: Sequence[str],
    figure: str,
    path: epath.Path,
) -> None:
    """Draws the losses of all runs, and `figure` against each of the swept values."""
    from matplotlib.figure import Figure  # an extra

    page = Figure(figsize=(5.5 * (1 + len(keys)), 4.5), layout="constrained")
    first, *others = page.subplots(1, 1 + len(keys), squeeze=False)[0]
    for i, (name, points) in enumerate(curves.items()):
        if points:
            style = ("-", "--", ":", "-.")[i // 10 % 4]  # as there are ten colours
            first.plot(*zip(*points, strict=True), style, label=name, linewidth=1)
    first.set(xlabel="step", ylabel="loss")
    if 0 < len(curves) <= 24:
        first.legend(fontsize="x-small")
    for axes, key in zip(others, keys, strict=True):
        _plot_against(axes, rows, key, [other for other in keys if other != key], figure)
    picture = io.BytesIO()
    page.savefig(picture, dpi=150, format="png")
    path.write_bytes(picture.getvalue())


def _plot_against(
    axes: Any, rows: Sequence[Mapping[str, Any]], key: str, others: Sequence[str], figure: str
) -> None:
    """Draws `figure` by `key`: a line for each combination of the others."""
    rows = [row for row in rows if _is_number(row[figure])]
    values = sorted({row[key] for row in rows}, key=lambda x: (not _is_number(x), x))
    numbers = all(map(_is_number, values))
    log = numbers and values and values[0] > 0 and values[-1] >= 8 * values[0]
    places = {x: x if numbers else i for i, x in enumerate(values)}
    lines: dict[str, list[tuple[float, float, bool]]] = {}
    for row in rows:
        label = ", ".join(f"{k.rpartition('.')[2]} {_text(row[k])}" for k in others)
        lines.setdefault(label, []).append((places[row[key]], row[figure], row["state"] == "done"))
    grid = not others or any(len(points) > 1 for points in lines.values())
    for label, points in lines.items():
        x, y, done = zip(*sorted(points), strict=True)
        (line,) = axes.plot(x, y, label=label, linewidth=1, linestyle="-" if grid else "none")
        for place, value, whole in zip(x, y, done, strict=True):
            face = line.get_color() if whole else "white"  # hollow: not done yet
            axes.plot(place, value, "o", color=line.get_color(), markerfacecolor=face)
    axes.set(xlabel=key, ylabel=figure, xscale="log" if log else "linear")
    axes.minorticks_off()
    if not numbers or len(values) <= 12:
        axes.set_xticks(list(places.values()), [_text(x) for x in values])
    if grid and 1 < len(lines) <= 24:
        axes.legend(fontsize="x-small")


def _lines(path: epath.Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().decode(errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:  # the last one of a run that was killed, or that writes it now
            continue
        if isinstance(value, dict) and "step" in value:
            yield value


def _json(path: epath.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _leaf(config: Any, key: str, default: Any) -> Any:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return default
        config = config[part]
    return config if isinstance(config, int | float | str) else json.dumps(config)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _text(x: Any) -> str:
    return "" if x is None else f"{x:.5g}" if isinstance(x, float) else str(x)
