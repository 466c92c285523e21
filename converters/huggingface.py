"""What the JSON files of Hugging Face's folders say, and how they are written; for all families."""

import json
from collections.abc import Mapping
from typing import Any

from vidjax.errors import UserError


def num_heads(
    flag: str,
    width: int,
    given: int | None,
    stated: int | None,
    published: Mapping[int, int],
    notes: list[str],
) -> int:
    """The number of attention heads, which no tensor's shape tells.

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


def classes(
    config: Mapping[str, Any] | None, model: Mapping[str, Any], notes: list[str]
) -> tuple[str, ...] | None:
    """Names of the classes by config.json's id2label; None, with a note, if it has none."""
    if model["head"] != "classify" or not model["num_classes"]:
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
        want = {key: value for key, value in want.items() if stated[key] != value}
        if not want:
            return original
    want = dict(want)
    if "id2label" in want:
        want["label2id"] = {label: int(k) for k, label in want["id2label"].items()}
    return to_json({"architectures": [architecture], "model_type": model_type} | config | want)


def contradictions(config: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises UserError if config.json is not about the tensors with the sizes `found`."""
    wrong = [f"{k} {config.get(k)} instead of {v}" for k, v in found.items() if config.get(k) != v]
    if wrong:
        raise UserError(
            f"config.json is not about these tensors: it has {', '.join(wrong)}; fetch both anew "
            "from one place"
        )


def to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _default_labels(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{k}" for k in range(count))
