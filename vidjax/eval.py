"""Evaluation of a checkpoint: the evaluators of a config, without an optimizer.

`python -m vidjax.eval --config=configs/videomae_k400_finetune.py --checkpoint=FOLDER`
"""

import json
import pathlib

import jax
from absl import flags
from flax import linen as nn
from ml_collections import ConfigDict

from vidjax import checkpoint, configlib, models, pretrained, sharding, task
from vidjax.errors import UserError, run_main

_CONFIG = configlib.define_flag()
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of a converted checkpoint, or workdir of a run."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for results.json, pictures and the list of bad videos."
)


def evaluate(config: ConfigDict, folder: str, output: str | pathlib.Path) -> dict[str, float]:
    """Runs every evaluator of `config` on the parameters in `folder`.

    Figures go to output/results.json, with the protocol that they were measured by; videos that
    could not be read to output/bad_videos.jsonl. Each video counts once on any number of devices.

    Raises:
        UserError: the checkpoint does not fit the config's model, or no evaluators.
    """
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    work = task.Task(config)
    with jax.set_mesh(work.mesh), nn.logical_axis_rules(sharding.RULES):
        evaluators = work.evaluators(output)
        if not evaluators:
            raise UserError("the config has no evaluators: set config.evals")
        params, _, _ = checkpoint.merge_params(
            models.abstract_params(work.model),
            pretrained.load_params(folder),
            missing=(),
            unused=(),
            source=folder,
        )
        boxed = jax.eval_shape(work.objective.init, jax.random.key(0), work.example_batch(1))
        params = jax.device_put(params, sharding.param_shardings(boxed, work.mesh))
        for line in work.describe_evaluation():
            print(f"evaluation {line}")
        results = {
            f"{key}/{name}": value
            for key, (evaluator, _) in evaluators.items()
            for name, value in evaluator.run(params, 0).items()
        }
    report = {
        "checkpoint": str(folder),
        "protocol": work.describe_evaluation(),
        "results": results,
    }
    (output / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    return results


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; overrides look like --config.data.val=list.csv")
    if _CONFIG.value is None or not _CHECKPOINT.value:
        raise UserError("say what to evaluate: --config=configs/NAME.py --checkpoint=FOLDER")
    output = _OUTPUT.value or str(pathlib.Path(_CHECKPOINT.value) / "eval")
    for name, value in evaluate(_CONFIG.value, _CHECKPOINT.value, output).items():
        print(f"{name}: {value:.6g}")
    print(f"results: {pathlib.Path(output) / 'results.json'}")


if __name__ == "__main__":
    run_main(main, configlib.parse_flags)
