"""Answers about a video: `python -m vidjax.predict --checkpoint=FOLDER --video=a.mp4`.

A classifier gives the probabilities of its classes. A video-text model gives those of texts:
`--prompt="a video of a dog." --prompt="a video of a cat."`.
"""

from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from vidjax import compilation, pretrained
from vidjax.card import read_card
from vidjax.errors import UserError, printable, run_main


def predict(
    folder: str, videos: Sequence[str], top_k: int = 5
) -> dict[str, list[tuple[str, float]]]:
    """The most probable classes of each video, from one middle clip and its centre crop.

    Args:
        folder: a checkpoint with a classification head, or of a video-text model that was trained
            with the names of classes.
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
    card = read_card(folder)
    if card.classes and card.tokenizer:  # it knows classes by their names
        found = compare(folder, videos, card.classes)
        return {path: answers[:top_k] for path, answers in found.items()}
    loaded = pretrained.load_model(folder)
    if not loaded.card.model.get("num_classes"):
        advice = "fine-tune it, or use a fine-tuned checkpoint"
        if hasattr(loaded.model, "similarity"):
            advice = "say which texts to choose from by --prompt"
        raise UserError(
            f"checkpoint {folder} has no class scores (its head is "
            f"{loaded.card.model['head']!r}); {advice}"
        )
    apply = jax.jit(loaded.model.apply)
    out = {}
    for path in videos:
        logits = apply({"params": loaded.params}, loaded.preprocess(path))[0]
        _check_finite(logits, path, folder)
        out[path], start = [], 0
        for group, size in loaded.card.model.get("groups") or (("", len(logits)),):
            part = slice(start, start + size)
            names = loaded.classes[part] if loaded.classes else [f"class {i}" for i in range(size)]
            probabilities = np.asarray(jax.nn.softmax(logits[part]))
            label = f"{group}: " if group else ""
            for i in np.argsort(-probabilities)[:top_k]:
                out[path].append((label + names[i], float(probabilities[i])))
            start += size
    return out


def compare(
    folder: str,
    videos: Sequence[str],
    prompts: Sequence[str],
    temperature: float | None = None,
) -> dict[str, list[tuple[str, float]]]:
    """How well texts fit videos: their probabilities if one of them has to be right.

    That is the softmax over the texts of the model's similarities (of X-CLIP, with texts as each
    video bends them), or of cosines / temperature, from the clip that `predict` sees.

    Args:
        folder: a checkpoint of a video-text model.
        videos: paths.
        prompts: the texts, such as "a video of a dog."; at least one.
        temperature: None is what the model has learned, or 0.01 where it has learned none, as in
            VideoPrism's example.

    Returns:
        For each path, (text, probability), most probable first.

    Raises:
        UserError: a model without texts, an unreadable video, a temperature that is not above 0.
    """
    if temperature is not None and not temperature > 0:
        raise UserError(f"--temperature must be above 0, not {temperature}")
    if not prompts:
        raise UserError("give at least one text to compare with: --prompt=TEXT")
    loaded = pretrained.load_model(folder)
    if not hasattr(loaded.model, "similarity"):
        raise UserError(
            f"checkpoint {folder} compares no videos with texts (its head is "
            f"{loaded.card.model['head']!r}), which --prompt is for; use one with head 'video_text'"
        )
    params = {"params": loaded.params}
    if temperature is None and loaded.model.logit_scale is None:
        temperature = 0.01
    apply = jax.jit(loaded.model.apply, static_argnames=("method", "temperature"))
    texts = apply(params, *loaded.tokenize(list(prompts)), method="text_features")
    out = {}
    for path in videos:
        features = apply(params, loaded.preprocess(path), method="video_features")
        (scores,) = apply(params, features, texts, temperature=temperature, method="similarity")
        _check_finite(scores, path, folder)
        probabilities = np.asarray(jax.nn.softmax(scores))
        out[path] = [(prompts[i], float(probabilities[i])) for i in np.argsort(-probabilities)]
    return out


def _check_finite(scores: jax.Array, path: str, folder: str) -> None:
    if not np.isfinite(scores).all():
        raise UserError(
            f"the model in {folder} gives NaN or infinity for {path}: its training diverged, or "
            "its file is damaged; use another checkpoint"
        )


def main(argv: list[str]) -> None:
    checkpoint, videos = flags.FLAGS.checkpoint, flags.FLAGS.video
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; videos are given by --video=FILE")
    if not checkpoint or not videos:
        raise UserError("say what to look at: --checkpoint=FOLDER --video=FILE")
    compilation.keep_programs()
    prompts, temperature = flags.FLAGS.prompt, flags.FLAGS.temperature
    if prompts:
        found = compare(checkpoint, videos, prompts, temperature)
    elif temperature is not None:
        raise UserError("--temperature is of the comparison with texts; give --prompt, too")
    else:
        found = predict(checkpoint, videos, flags.FLAGS.top_k)
    for path, answers in found.items():
        print(printable(path))
        for name, probability in answers:
            print(f"  {probability:6.1%}  {printable(name)}")


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "Folder of a converted checkpoint or of a run.")
    flags.DEFINE_multi_string("video", [], "A video file; may be given several times.")
    flags.DEFINE_integer("top_k", 5, "How many classes to print for each video.")
    flags.DEFINE_multi_string("prompt", [], "A text to compare with; may be given several times.")
    flags.DEFINE_float("temperature", None, "Of --prompt; default: the model's, or 0.01.")
    run_main(main)
