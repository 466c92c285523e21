"""The card of a model folder, model.json: how to build and feed the model."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from vidjax import checksums, files, json_files
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

CARD = "model.json"
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
LICENSE = ("license", "license_name", "license_link")  # fields of a model card's front matter
_FORMAT = 1

Folder = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Card:
    """The content of model.json.

    Attributes:
        model: keywords of `vidjax.models.build`, every size spelled out.
        preprocessing: how the model wants its video.
        classes: names of the classes in the order of the logits, or None.
        provenance: where the weights come from; `license`, if their source tells it, has the
            fields LICENSE.
        tokenizer: of a model that reads text: `file`, in the folder, and the options with which
            vidjax.tokenizers.open_tokenizer opens it. None: there is none.
    """

    model: dict[str, Any]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None = None
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: dict[str, Any] | None = None

    @property
    def license(self) -> str | None:
        """License that the publisher gives the weights, or those that a run started from.

        None where their source does not tell it.
        """
        fields = self.provenance.get("license") or {}
        texts = [fields[key] for key in LICENSE if key in fields]
        return f"{texts[0]} ({', '.join(texts[1:])})" if texts[1:] else "".join(texts) or None


def write_card(folder: Folder, card: Card) -> None:
    """Writes `folder`/model.json."""
    # The checksum is of the content as it is read: with lists for tuples.
    content = json.loads(json.dumps({"format": _FORMAT, **dataclasses.asdict(card)}))
    content["checksum"] = checksums.json_sha256(content)
    files.write_whole(epath.Path(folder) / CARD, json.dumps(content, indent=1) + "\n")


_TOKENIZER = {
    "file": Literal[TOKENIZERS],  # in the folder, and no other
    "length": json_files.Size,
    "canonicalise": bool,
    "pad": str,
    "truncate": bool,
}
_Floats = Literal["float16", "bfloat16", "float32", "float64"]
_CARD = {
    "model": {"name": str, "head": str | None, "num_classes": json_files.Count},
    "preprocessing": {field.name: field.type for field in dataclasses.fields(Preprocessing)},
    "classes": tuple[str, ...] | None,
    "provenance": {
        "format": str,
        "files": Mapping[str, str],
        "naming": Mapping[str, Any],
        "dtypes": _Floats | Mapping[str, _Floats],
        "license": Mapping[Literal[LICENSE], str],
    },
    "tokenizer": json_files.Nullable(_TOKENIZER),
    "checksum": str,
}


def read_card(folder: Folder) -> Card:
    """Reads `folder`/model.json.

    Raises:
        UserError: there is none, it is not what was written, or it cannot be understood.
    """
    path = home(folder) / CARD
    if not path.is_file():
        raise UserError(
            f"{folder} is no vidjax model: it has no {CARD}; convert published weights with "
            f"python -m converters.convert --from={folder} --to=FOLDER"
        )
    content = json_files.read(path)
    if (version := content.pop("format", None)) != _FORMAT:
        raise UserError(f"{path} has format {json_files.shown(version)}, this vidjax reads 1")
    # Folders of older versions have neither of the last two.
    keys = ("model", "preprocessing", "classes", "provenance")
    json_files.check_keys(content, keys, (*keys, "tokenizer", "checksum"), path)
    checksum = content.pop("checksum", None)
    if checksum not in (None, checksums.json_sha256({"format": version, **content})):
        raise UserError(
            f"{path} is not what was written, as its checksum shows; copy or convert that folder "
            "again (if you changed it on purpose, remove its line 'checksum')"
        )
    json_files.check(content, _CARD, path)
    json_files.check_keys(content["model"], ("name", "head"), content["model"], path, "model.")
    json_files.check_keys(
        content["preprocessing"], (), _CARD["preprocessing"], path, "preprocessing."
    )
    tokenizer = content.get("tokenizer")
    if tokenizer is not None:
        required = ("file", "length", "canonicalise")
        json_files.check_keys(tokenizer, required, _TOKENIZER, path, "tokenizer.")
    classes, count = content["classes"], content["model"].get("num_classes")
    if classes is not None and count and len(classes) != count:
        raise UserError(f"{path} has {len(classes)} classes and num_classes {count}; correct it")
    content["preprocessing"] = Preprocessing(**content["preprocessing"])
    content["classes"] = None if classes is None else tuple(classes)
    return Card(**content)


def home(folder: Folder) -> epath.Path:
    """Returns the folder with the card: that of the run, if `folder` is one of its checkpoints."""
    folder = files.absolute(folder)
    is_step = folder.name.isdigit() and folder.parent.name == "checkpoints"
    return folder.parent.parent if is_step else folder
