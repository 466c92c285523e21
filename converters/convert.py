"""Converts published weights to a vidjax folder, and back.

    python -m converters.convert --from=MCG-NJU/videomae-base-finetuned-kinetics --to=b_k400
    python -m converters.convert --from=checkpoint.pth --to=videomae_b
    python -m converters.convert --from=b_k400 --to=exported --format=hf

`--from` is a weight file (.safetensors, .pth, .npz, .h5, .msgpack, Scenic's `checkpoint`), a folder
of Hugging Face's, KerasHub's or Scenic's layout, a published name such as
`videoprism_public_v1_base`, or a Hugging Face hub id: `org/name`, `org/name@revision` or
`org/name/path/to/file.pth`, taken from the local cache where it is there; or, to be exported, a
folder of ours, a training run's workdir or one of its checkpoints. What was written is read again
and compared with the source, byte for byte, before the target appears.
"""

import os
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

from converters import Option, Options, hub, originals, registry
from converters.exporting import export_folder
from converters.importing import import_checkpoint
from converters.target import local_folder, new_folder
from vidjax import errors, models, sources
from vidjax.card import CARD, TOKENIZERS, Card, read_card
from vidjax.errors import UserError
from vidjax.stored import PARAMS

_FROM = flags.DEFINE_string("from", None, "Source: a file, a folder or a hub id.")
_TO = flags.DEFINE_string("to", None, "Folder to write; must not exist, or be a converted model.")
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    ["vidjax", "hf", "original", "npz", "keras"],
    "Default: vidjax, or hf from a vidjax folder; original is the format of the paper's code.",
)
_MODEL = flags.DEFINE_string("model", None, "Family of the weights, where the file cannot tell.")


def _define(option: Option) -> flags.FlagHolder:
    """Defines the flag of an option."""
    if isinstance(option.type, tuple):
        return flags.DEFINE_enum(option.name, None, option.type, option.help)
    define = {
        int: flags.DEFINE_integer,
        str: flags.DEFINE_string,
        bool: flags.DEFINE_boolean,
        list: flags.DEFINE_list,
    }
    return define[option.type](option.name, None, option.help)


_OPTIONS = {
    option: _define(option)
    for option in dict.fromkeys(
        option for family in registry.families().values() for option in family.OPTIONS
    )
}


def convert(
    source: str,
    target: str | os.PathLike,
    format: str | None = None,
    *,
    model: str | None = None,
    options: Options = Options(),  # noqa: B008 (frozen)
    say: Callable[[str], None] = print,
) -> None:
    """Converts `source` to `target`; see the module and its flags.

    Raises:
        UserError: the source cannot be read, does not fit its model, does not survive the way
            there and back, or the target is in use or cannot be written.
    """
    source, target = os.path.expanduser(source), local_folder(target)
    ours = sources.is_ours(source)
    format = format or ("hf" if ours else "vidjax")
    if ours and format == "vidjax":
        raise UserError(f"--from={source} is a vidjax folder already; export by --format=hf")
    if not ours and format != "vidjax":
        raise UserError(
            f"--format={format} exports a vidjax folder, and --from={source} is none: it has no "
            f"{CARD}; convert it to vidjax first"
        )
    if ours:
        with new_folder(target, replaces=()) as folder:
            report = export_folder(source, folder, format)
    else:
        written = (CARD, PARAMS, originals.FOLDER, *TOKENIZERS)
        with new_folder(target, replaces=written) as folder:
            imported = import_checkpoint(hub.resolve(source), folder, model, options)
        report = [*imported.lines, *(f"note: {note}" for note in imported.notes)]
    for line in report:
        say(errors.printable(line))
    say(errors.printable(f"written to {target}"))
    if not ours and (command := _next(read_card(target), target)):
        say(f"next: python -m vidjax.{command}")


def _next(card: Card, folder: Path) -> str | None:
    """Returns a command that uses a converted model, if there is one."""
    use = models.declared(card.model["name"], "USES").get(card.model["head"], "train")
    if use == "predict" and card.preprocessing.frames > 1:
        return f"predict --checkpoint={folder} --video=a.mp4"
    if use == "compare" and card.tokenizer:
        return f'predict --checkpoint={folder} --video=a.mp4 --prompt="a dog" --prompt="a cat"'
    if use in ("compare", "embed"):
        return f"embed --checkpoint={folder} --videos=FOLDER --output=embeddings.npz"
    # A model without a head, or of single frames, is to train another one from.
    family = registry.families()[card.model["name"]]
    return use and f"train --config={family.TRAIN} --config.init={folder}"


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected {argv[1:]}; use --from=SOURCE --to=FOLDER")
    if not _FROM.value or not _TO.value:
        raise app.UsageError("give --from=SOURCE and --to=FOLDER")
    given = {option: flag.value for option, flag in _OPTIONS.items() if flag.value is not None}
    options = Options(**{option.name: option.parse(value) for option, value in given.items()})
    convert(_FROM.value, _TO.value, _FORMAT.value, model=_MODEL.value, options=options)


if __name__ == "__main__":
    errors.run_main(main)
