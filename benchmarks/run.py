"""Runs a suite of benchmarks on this machine, beside the peers that are installed.

    python -m benchmarks.run --suite=forward --device=cpu
    python -m benchmarks.run --suite=forward --device=cpu --quick        # shows that it runs
    python -m benchmarks.run --suite=forward --peer=videoprism=/path/to/its/checkout
    python -m benchmarks.run --suite=data --peer=clips=/path/to/videos
    python -m benchmarks.run --render                                    # only the pages anew

Writes benchmarks/results/SUITE_DEVICE.json and the tables in benchmarks/README.md. The machine
should do nothing else meanwhile: the figures are medians of runs in turn, but of wall time.
"""

import importlib
import json
import pathlib
import sys

from absl import flags

from benchmarks import goals, harness
from benchmarks.gpu import page
from vidjax.errors import UserError, run_main

# Suites and their modules, in README.md's order.
SUITES = {
    "forward": "forward",
    "train": "train",
    "scaling": "scaling",
    "data": "reading",
    "convert": "conversion",
    "startup": "startup",
    "attention": "attention",
}
README = harness.ROOT / "benchmarks" / "README.md"
_MARK = "<!-- what follows is made by python -m benchmarks.run -->"


def module_of(suite: str):
    return importlib.import_module(f"benchmarks.{SUITES[suite]}")


def rendered() -> str:
    """README.md with the tables of all results below its mark."""
    parts = [README.read_text().partition(_MARK)[0] + _MARK]
    order = list(SUITES)
    reports = [json.loads(path.read_text()) for path in harness.RESULTS.glob("*.json")]
    by_suite = {(report["suite"], report["device"]): report for report in reports}
    parts += ["## Goals", goals.render(by_suite)]
    for report in page.reports() or [page.NOTHING]:
        parts += [f"On GPUs ([gpu.md](gpu.md)), {report['gpu']}:", page.goals_table(report)]
    for report in sorted(reports, key=lambda x: (order.index(x["suite"]), x["device"])):
        parts.append(f"## {report['suite'].capitalize()}, {report['device'].upper()}")
        parts.append(harness.where(report))
        parts.append(module_of(report["suite"]).render(report).strip())
    return "\n\n".join(parts) + "\n"


def render() -> None:
    """Writes README.md and gpu.md anew."""
    README.write_text(rendered())
    page.PAGE.write_text(page.rendered())


def folders(options: list[str]) -> dict[str, str]:
    """The folders of options NAME=FOLDER by name.

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
        raise UserError(f"say what to run: --suite= one of {', '.join(SUITES)}")
    peers = folders(values.peer)
    settings = harness.Settings(values.device, values.rounds, values.quick, peers)
    suite = module_of(values.suite)
    report = suite.run(settings)
    if values.quick:  # of tiny models, so not kept
        report |= {"suite": values.suite, "device": values.device, **harness.origin(values.device)}
        print(suite.render(json.loads(json.dumps(report))))
        return
    path = harness.record(values.suite, values.device, report)
    render()
    print(suite.render(json.loads(path.read_text())))
    print(f"written: {path} and the tables of {README}", file=sys.stderr)


if __name__ == "__main__":
    flags.DEFINE_enum("suite", None, list(SUITES), "What is measured.")
    flags.DEFINE_enum("device", "cpu", ["cpu", "tpu"], "Where.")
    flags.DEFINE_integer("rounds", 5, "Turns that each variant has.", lower_bound=1)
    flags.DEFINE_bool("quick", False, "Tiny models: shows that the suite runs; nothing is written.")
    flags.DEFINE_multi_string("peer", [], "NAME=FOLDER of a project or of videos to measure.")
    flags.DEFINE_bool("render", False, "Only writes the tables of README.md and gpu.md anew.")
    run_main(main)
