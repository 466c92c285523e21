"""JSON files of Hugging Face's folders, read and written for all families; and vocabularies."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters import Options
from converters.formats import CONFIG, Source
from vidjax.errors import UserError

ACTIVATIONS = {  # transformers' names -> ours
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
# Defaults that transformers' configs of video encoders have in common: ViT-B's sizes.
VIT_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "num_channels": 3,
}


def num_heads(
    flag: str,
    width: int,
    given: int | None,
    stated: int | None,
    published: Mapping[int, int],
    notes: list[str],
) -> int:
    """Returns the number of attention heads, which no tensor's shape tells.

    Args:
        flag: by which the person converting can give it.
        width: of the model.
        given, stated: by the person, and by config.json.
        published: number of heads by width, where neither says it.
        notes: gets one if it is assumed.

    Raises:
        UserError: nothing tells it, or it does not divide the width.
    """
    heads = given or stated or published.get(width)
    if not heads:
        raise UserError(
            f"nothing in the file tells its number of heads, and no model of width {width} was "
            f"published; give it as --{flag}=..."
        )
    if width % heads:
        raise UserError(f"--{flag}={heads} does not divide the width {width}; correct it")
    if not (given or stated):
        notes.append(f"{heads} heads are assumed, as in the published model of width {width}")
    return heads


def vocabulary(
    source: Source,
    options: Options,
    reads_texts: bool,
    endings: tuple[str, ...],
    expected: str,
    released: str,
    notes: list[str],
) -> Path | None:
    """Returns the vocabulary's file: --tokenizer, or the one beside the weights; None without one.

    Args:
        reads_texts: whether the model does.
        endings: of the names of files that can be read.
        expected, released: which files these are, and which one the released models have, in words.
        notes: gets one if there is no vocabulary.

    Raises:
        UserError: the file is none, or the model reads no texts.
    """
    if not reads_texts:
        if options.tokenizer or options.raw_text is not None:
            raise UserError("--tokenizer and --raw_text are about texts, and this model reads none")
        return None
    path = Path(options.tokenizer) if options.tokenizer else source.tokenizer
    if path is None:
        notes.append(
            "no vocabulary beside the weights, so the model takes token ids only; the released "
            f"models' is {released}"
        )
    elif not path.is_file() or not path.name.endswith(endings):
        raise UserError(f"--tokenizer={path} is no {expected}; name such a file")
    return path


def counts(ids: np.ndarray) -> str | None:
    """Returns why the tensor position_ids cannot be ignored, if it is not 0, 1, 2, ..."""
    return None if np.array_equal(ids, np.arange(ids.size)[None]) else "not 0, 1, 2, ..."


def one_value(key: str, values: Mapping[str, Any], family: str) -> Any:
    """Returns the value that config.json's parts have in common.

    Raises:
        UserError: they differ.
    """
    if len(set(values.values())) > 1:
        words = ", ".join(f"{part} {value}" for part, value in values.items())
        raise UserError(
            f"{CONFIG} has different values of {key} ({words}); {family} here has one for all"
        )
    return next(iter(values.values()))


def sizes(model: Mapping[str, Any], ours: str = "", theirs: str = "") -> dict[str, Any]:
    """Returns a transformer's sizes in the words of transformers; prefixes name one of several."""
    return {
        f"{theirs}hidden_size": model[f"{ours}width"],
        f"{theirs}num_hidden_layers": model[f"{ours}depth"],
        f"{theirs}intermediate_size": model[f"{ours}mlp_dim"] or 4 * model[f"{ours}width"],
    }


def activation(config: Mapping[str, Any], known: Collection[str], what: str) -> str:
    """Returns our name of config.json's hidden_act.

    Raises:
        UserError: it is none of `known`, our names of those that `what` can compute.
    """
    name = ACTIVATIONS.get(config["hidden_act"])
    if name not in known:
        names = ", ".join(theirs for theirs, ours in ACTIVATIONS.items() if ours in known)
        raise UserError(
            f"config.json has hidden_act {config['hidden_act']!r}, and {what} here computes "
            f"{names} only; there is no way to convert it"
        )
    return name


def hidden_act(name: str, stated: str) -> str:
    """Returns transformers' name of one of our activations: `stated`, if that means the same."""
    same = [theirs for theirs, ours in ACTIVATIONS.items() if ours == name]
    return stated if stated in same else same[0]


def kept(config: Mapping[str, Any] | None, keys: Collection[str]) -> dict[str, Any]:
    """Returns what config.json says under some of its keys, see Conversion."""
    return {key: config[key] for key in keys if key in (config or {})}


def has_no_classes(config: Mapping[str, Any] | None) -> bool:
    """Whether config.json is of a classifier with num_labels 0, which has no weights of its own."""
    config = config or {}
    names = config.get("architectures") or ()
    is_classifier = any(name.endswith("ForVideoClassification") for name in names)
    return is_classifier and config.get("id2label") == {}


def square(size: Any) -> int:
    """Returns the side that config.json's image_size means, a number or a pair of them.

    Raises:
        UserError: the frames are not square.
    """
    if not isinstance(size, list | tuple):
        return size
    if len(set(size)) > 1:
        raise UserError(
            f"config.json has image_size {size}; only square frames can be prepared here: give the "
            "side of such as --size=..."
        )
    return size[0]


def check_channels(channels: int) -> None:
    """Raises UserError unless a patch embedding sees RGB."""
    if channels != 3:
        raise UserError(
            f"the patch embedding has num_channels {channels}; expected 3, as videos are read in "
            "RGB here: there is no way to convert it"
        )


def note_crop(crop: int, size: int, notes: list[str]) -> None:
    """Notes that a processor makes other frames than config.json's image_size, if it does."""
    if crop != size:
        notes.append(
            f"its processor makes frames of {crop} pixels, which are followed, and config.json has "
            f"image_size {size}: transformers' model refuses them, and here positions are made for "
            f"them; convert with --size={size} for frames of that"
        )


def note_rest(what: str, have: int, step: int, notes: list[str]) -> None:
    """Notes that clips leave a rest beside their patches, if they do."""
    if have % step:
        notes.append(
            f"{have} {what} leave a rest of {have % step} beside patches of {step}: the model cuts "
            "it off, as transformers does"
        )


def classes(
    config: Mapping[str, Any] | None, model: Mapping[str, Any], notes: list[str]
) -> tuple[str, ...] | None:
    """Returns the classes' names by config.json's id2label; None, with a note, if it has none."""
    if not model.get("num_classes"):
        return None
    labels = {int(k): v for k, v in ((config or {}).get("id2label") or {}).items()}
    if sorted(labels) != list(range(model["num_classes"])):
        notes.append("the names of the classes are unknown")
        return None
    found = tuple(labels[k] for k in sorted(labels))
    return None if found == _default_labels(len(found)) else found


def id2label(names: tuple[str, ...] | None, count: int) -> dict[str, str]:
    """The reverse of `classes`."""
    return {str(k): name for k, name in enumerate(names or _default_labels(count))}


def config_json(
    original: bytes | None,
    want: Mapping[str, Any],
    defaults: Mapping[str, Any],
    model_type: str,
    architecture: str,
) -> bytes:
    """A config.json that says `want`; the original as it was if it says that already.

    Args:
        original: the config.json that the model came with, or None.
        want: what the new one must say.
        defaults: of transformers' class, for what the original leaves out.
        model_type, architecture: of a new file.
    """
    config = json.loads(original) if original else {}
    stated = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}} | dict(defaults) | config
    if original:
        want = {key: value for key, value in want.items() if not same(stated[key], value)}
        if not want:
            return original
    want = dict(want)
    if "id2label" in want:
        want["label2id"] = {label: int(k) for k, label in want["id2label"].items()}
    return to_json({"architectures": [architecture], "model_type": model_type} | config | want)


def contradictions(config: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises UserError if config.json is not about the tensors with the sizes `found`."""
    wrong = [
        f"{k} {config.get(k)} instead of {v}"
        for k, v in found.items()
        if not same(config.get(k), v)
    ]
    if wrong:
        raise UserError(
            f"config.json is not about these tensors: it has {', '.join(wrong)}; fetch both anew "
            "from one place"
        )


def same(a: Any, b: Any) -> bool:
    """Whether two values of a config.json mean the same: a pair of equal sides is one side."""

    def plain(value: Any) -> Any:
        value = list(value) if isinstance(value, tuple) else value
        is_square = isinstance(value, list) and len(value) == 2 and value[0] == value[1]
        return value[0] if is_square else value

    return plain(a) == plain(b)


def to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _default_labels(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{k}" for k in range(count))
