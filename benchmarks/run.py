"""Runs a suite of benchmarks on this machine's CPU, beside the peers that are installed.

    python -m benchmarks.run --suite=forward
    python -m benchmarks.run --suite=forward --quick             # shows that it runs
    python -m benchmarks.run --suite=forward --peer=videoprism=/path/to/its/checkout
    python -m benchmarks.run --suite=data --peer=clips=/path/to/videos
    python -m benchmarks.run --render                            # only the pages anew

Writes benchmarks/results/SUITE_cpu.json and the tables in benchmarks/README.md. The machine should
do nothing else meanwhile: the numbers are medians of runs in turn, but of wall time.
"""

import importlib
import json
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from absl import flags

from benchmarks import harness, page
from benchmarks.gpu import page as gpu_page
from benchmarks.origin import RESULTS, ROOT, origin
from vidjax.errors import UserError, run_main

SUITES = ("forward", "train", "scaling", "data", "convert", "startup")
README = ROOT / "benchmarks" / "README.md"


def module_of(suite: str) -> ModuleType:
    """Returns a suite: run(settings) -> report, render(report), and GOALS (goal -> measured)."""
    return importlib.import_module(f"benchmarks.suites.{suite}")


def blocks(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns the generated parts of README.md from the reports of the suites."""
    goals, rendered = [], {}
    for suite in SUITES:
        module, report = module_of(suite), reports.get(suite)
        for goal, measured in module.GOALS.items():
            value = measured(report) if report else page.NOT_MEASURED
            goals.append({"goal": goal, "measured": value})
        rendered[suite] = page.NOT_MEASURED.capitalize() + "."
        if report:
            rendered[suite] = f"{page.where(report)}\n\n{module.render(report)}"
    gpus = gpu_page.reports() or [gpu_page.NOTHING]
    tables = [f"{one['gpu']}:\n\n{gpu_page.goals_table(one)}" for one in gpus]
    return {**rendered, "goals": page.table(goals), "gpu-goals": "\n\n".join(tables)}


def render() -> None:
    """Writes the tables of README.md and gpu.md anew."""
    reports = {}
    for path in RESULTS.glob("*_cpu.json"):
        reports[path.name.removesuffix("_cpu.json")] = json.loads(path.read_text())
    page.update(README, blocks(reports))
    gpu_page.update()


def folders(options: list[str]) -> dict[str, str]:
    """Returns the folders of options NAME=FOLDER by name.

    Raises:
        UserError: an option is of another form, or its folder is not there.
    """
    found = {}
    for option in options:
        name, _, folder = option.partition("=")
        if not pathlib.Path(folder).is_dir() or not folder:
            raise UserError(f"--peer={option} must be NAME=FOLDER, and the folder must exist")
        found[name] = folder
    return found


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; options look like --suite=forward")
    if values.render:
        render()
        return
    if values.suite is None:
        raise UserError(f"--suite is missing; it is one of {', '.join(SUITES)}")
    settings = harness.Settings(values.rounds, values.quick, folders(values.peer))
    suite = module_of(values.suite)
    report = {"suite": values.suite, "device": "cpu", **origin(), **suite.run(settings)}
    text = json.dumps(report, indent=1) + "\n"
    print(suite.render(json.loads(text)))
    if not values.quick:  # whose models are tiny
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{values.suite}_cpu.json").write_text(text)
        render()


if __name__ == "__main__":
    flags.DEFINE_enum("suite", None, SUITES, "What is measured.")
    flags.DEFINE_integer("rounds", 5, "Turns that each variant has.", lower_bound=1)
    flags.DEFINE_bool("quick", False, "Tiny models: shows that the suite runs; nothing is written.")
    flags.DEFINE_multi_string("peer", [], "NAME=FOLDER of a project or of videos to measure.")
    flags.DEFINE_bool("render", False, "Only writes the tables of README.md and gpu.md anew.")
    run_main(main)
