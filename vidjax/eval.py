"""Evaluates a checkpoint by the evaluators of a config.

python -m vidjax.eval --config=configs/videomae_k400_finetune.py --checkpoint=NAME
"""

import contextlib
import json
import os

from absl import flags
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from vidjax import (
    compilation,
    configlib,
    distributed,
    evaluators,
    files,
    pretrained,
    sources,
    writers,
)
from vidjax.card import home
from vidjax.data.lists.digests import digests_of
from vidjax.errors import UserError, disk_errors, run_main
from vidjax.setup import Setup
from vidjax.training.workdir import check_held_out


def evaluate(config: ConfigDict, checkpoint: str, output: str | os.PathLike) -> dict[str, float]:
    """Runs every evaluator of `config` on a checkpoint.

    The model with its numerics, and mean, deviation and resizing of its input are the
    checkpoint's; what is evaluated and on how many views is the config's. Metrics go to
    output/results.json, with the protocol that they were measured by; these and pictures to
    `config.writers`, at the checkpoint's step (0 if it is no run's); videos that could not be read
    to output/bad_videos.jsonl. Each video counts once on any number of devices and processes.

    Raises:
        UserError: the checkpoint does not fit the config's objective, no evaluators, or videos held
            out that its run may have trained on.
    """
    setup = Setup(config, checkpoint)
    if setup.splits.holds_out:
        check_held_out(home(setup.folder), digests_of(setup.splits.videos("val")))
    output = epath.Path(output).expanduser()

    def make_output() -> None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output={output} cannot be written: {error}") from None

    distributed.from_first(make_output)
    with disk_errors(output), setup.on_mesh():
        evals = setup.evaluators(output)
        if not evals:
            raise UserError(
                "there is nothing to evaluate: point --config.data.val at a list, or set "
                "config.evals"
            )
        name = f"{files.absolute(setup.folder).name}/{output.name}"
        plain = configlib.plain(config)
        with contextlib.closing(writers.build(config.writers, output, 0, plain, name)) as to:
            shardings = traverse_util.flatten_dict(setup.param_shardings(), sep="/")
            stored = pretrained.open_params(setup.folder)
            params = stored.place(stored.references(), shardings)
            params = traverse_util.unflatten_dict(params, sep="/")
            if distributed.is_first():
                for line in setup.describe_evaluation():
                    print(f"evaluation {line}")
                for line in setup.notices:
                    print(f"note: {line}")
            found = evaluators.run_all(evals, params)
            to.pictures(stored.step, found.pictures)
            to.scalars(stored.step, found.metrics)
            for line in found.lines if distributed.is_first() else ():
                print(line)
    report = {
        "checkpoint": str(checkpoint),
        "protocol": setup.describe_evaluation(),
        "results": found.metrics,
    }
    if distributed.is_first():
        with disk_errors(output):
            (output / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    return found.metrics


def main(argv: list[str]) -> None:
    config, checkpoint = flags.FLAGS.config, flags.FLAGS.checkpoint
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; overrides look like --config.data.val=list.csv")
    if config is None or not checkpoint:
        raise UserError("say what to evaluate: --config=configs/CONFIG.py --checkpoint=NAME")
    output = flags.FLAGS.output
    if not output and not sources.is_ours(checkpoint):
        raise UserError(f"--checkpoint={checkpoint} is no folder for results; give --output=FOLDER")
    output = output or str(epath.Path(checkpoint) / "eval")
    with distributed.session():
        compilation.keep_programs()
        results = evaluate(config, checkpoint, output)
        if distributed.is_first():
            for name, value in results.items():
                print(f"{name}: {value:.6g}")
            print(f"results: {epath.Path(output) / 'results.json'}")


if __name__ == "__main__":
    configlib.define_flag()
    distributed.define_flags()
    flags.DEFINE_string("checkpoint", None, sources.HELP)
    flags.DEFINE_string(
        "output",
        None,
        "Folder for results; default: eval in a --checkpoint that is a folder of vidjax.",
    )
    run_main(main, configlib.parse_flags)
