"""The checkpoints of a run, saved and restored with Orbax."""

import json
import math
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from vidjax import files
from vidjax.errors import UserError, brief, some
from vidjax.params import (
    FINGERPRINTS,
    damaged,
    differences,
    fingerprints,
    flatten,
    saved_fingerprints,
)


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints/<step>`: the latest, and the best.

    Written in the background by all processes, each its shards, and renamed when complete: a killed
    run leaves whole ones only. `fingerprints` of saved and restored arrays are compared.

    Args:
        workdir: of the run.
        keep: number of latest checkpoints that are kept.
        metric: decides which one is the best; "" for none.
        best_is: "max" or "min".

    Attributes:
        best: {"step", "figure", "best_is", "value"} of the best so far, or None.
    """

    def __init__(self, workdir: epath.Path, keep: int, metric: str = "", best_is: str = "max"):
        self.folder = workdir / "checkpoints"
        self._keep, self._metric, self._best_is = keep, metric, best_is
        self._best_path = workdir / "best.json"
        self._saved: int | None = None
        self.best = self._known_best()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )
        self._fingerprints = jax.jit(fingerprints)

    def _known_best(self) -> dict[str, Any] | None:
        try:
            best = json.loads(self._best_path.read_text())
            same = (best["figure"], best["best_is"]) == (self._metric, self._best_is)
            same = same and math.isfinite(best["value"])
            return best if same and (self.folder / str(best["step"])).exists() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Tells Orbax which checkpoints to keep."""
        best, first = self.best and self.best["step"], len(checkpoints) - self._keep
        return [i >= first or checkpoint.step == best for i, checkpoint in enumerate(checkpoints)]

    def judge(self, step: int, value: float) -> None:
        """Makes the latest checkpoint, of `step`, the best one if its `value` is better."""
        better = {"max": max, "min": min}[self._best_is]
        if not math.isfinite(value):
            return
        if self.best and better(value, self.best["value"]) == self.best["value"]:
            return
        self.wait()  # else a kill could leave the name of one that does not exist
        self.best = {"step": step, "figure": self._metric, "best_is": self._best_is, "value": value}
        if jax.process_index() == 0:
            files.write_whole(self._best_path, json.dumps(self.best) + "\n")

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Begins to save, once; returns when `state` may be given away."""
        if step == self._saved:
            return
        self._saved = step
        prints = {path: int(x) for path, x in jax.device_get(self._fingerprints(state)).items()}
        args = ocp.args.StandardSave(state, custom_metadata={FINGERPRINTS: prints})
        self._manager.save(step, args=args, force=True)

    def restore(self, step: int, target: Any) -> Any:
        """Restores a state onto the shapes, dtypes and shardings of `target`.

        Raises:
            UserError: the checkpoint is damaged, is of another step, or has other parameters than
                `target`.
        """
        folder = self.folder / str(step)
        try:
            saved = self._manager.item_metadata(step)
            if problems := differences(flatten(saved.tree), flatten(target)):
                raise UserError(
                    f"checkpoint {folder} does not fit this config's model and optimizer: "
                    f"{some(sorted(problems))}; use the config it was made with, or another "
                    f"--workdir"
                )
            state = self._manager.restore(step, args=ocp.args.StandardRestore(target))
            now = jax.device_get(self._fingerprints(state))
            if wrong := damaged(now, saved_fingerprints(saved, folder)):
                raise UserError(
                    f"checkpoint {folder} is damaged: what is read is not what was saved "
                    f"({some(wrong)}); delete that folder to continue from an older one"
                )
            if (found := int(state.step)) != step:
                raise UserError(
                    f"checkpoint {folder} holds step {found}, not {step}: another one was copied "
                    f"over it; delete that folder to continue from an older one"
                )
            self._saved = step
            return state
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"checkpoint {folder} cannot be read ({brief(error)}); if it is damaged, delete "
                f"that folder to continue from an older one"
            ) from error

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def steps_of(workdir: epath.Path) -> list[int]:
    """Returns the steps of a run's complete checkpoints."""
    folder = workdir / "checkpoints"
    return ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []


def last_good(workdir: epath.Path) -> str:
    """Returns a few words about the newest checkpoint."""
    steps = steps_of(workdir)
    return f"checkpoint {max(steps)} is good" if steps else "there is no checkpoint yet"
