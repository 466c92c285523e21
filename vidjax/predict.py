"""Class scores of videos: `python -m vidjax.predict --checkpoint=FOLDER --video=a.mp4`."""

from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from vidjax import pretrained
from vidjax.errors import UserError, run_main


def predict(
    folder: str, videos: Sequence[str], top_k: int = 5
) -> dict[str, list[tuple[str, float]]]:
    """The most probable classes of each video, from one middle clip and its centre crop.

    Args:
        folder: a checkpoint with a classification head.
        videos: paths.
        top_k: classes per video; all of them when there are fewer.

    Returns:
        For each path, (class name, probability), most probable first; of a model with several
        answers (such as noun and verb), so many of each, after the name of the answer. Classes
        without a name are called by their index.

    Raises:
        UserError: no such head, an unreadable video, top_k below 1.
    """
    if top_k < 1:
        raise UserError(f"--top_k must be at least 1, not {top_k}")
    loaded = pretrained.load_model(folder)
    if not loaded.card.model.get("num_classes"):
        raise UserError(
            f"checkpoint {folder} has no class scores (its head is "
            f"{loaded.card.model['head']!r}); fine-tune it, or use a fine-tuned checkpoint"
        )
    apply = jax.jit(loaded.model.apply)
    out = {}
    for path in videos:
        logits = apply({"params": loaded.params}, loaded.preprocess(path))[0]
        out[path], start = [], 0
        for group, size in getattr(loaded.model, "groups", ()) or (("", len(logits)),):
            part = slice(start, start + size)
            names = loaded.classes[part] if loaded.classes else [f"class {i}" for i in range(size)]
            probabilities = np.asarray(jax.nn.softmax(logits[part]))
            label = f"{group}: " if group else ""
            for i in np.argsort(-probabilities)[:top_k]:
                out[path].append((label + names[i], float(probabilities[i])))
            start += size
    return out


def main(argv: list[str]) -> None:
    checkpoint, videos = flags.FLAGS.checkpoint, flags.FLAGS.video
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; videos are given by --video=FILE")
    if not checkpoint or not videos:
        raise UserError("say what to look at: --checkpoint=FOLDER --video=FILE")
    for path, classes in predict(checkpoint, videos, flags.FLAGS.top_k).items():
        print(path)
        for name, probability in classes:
            print(f"  {probability:6.1%}  {name}")


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "Folder of a converted checkpoint or of a run.")
    flags.DEFINE_multi_string("video", [], "A video file; may be given several times.")
    flags.DEFINE_integer("top_k", 5, "How many classes to print for each video.")
    run_main(main)
