"""Published checkpoints as vidjax folders."""

import dataclasses
import datetime
import gc
import math
from collections.abc import Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from flax import traverse_util

import vidjax
from converters import Options, formats, hub, licenses, originals, registry
from converters.mapping import Ignore, ignored_names, to_params, without_wrapper
from converters.verification import dtypes_of, is_finite, summary, verify
from vidjax import checksums, models, pretrained
from vidjax.card import Card
from vidjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Report:
    """Summary of a conversion.

    Attributes:
        lines: on the model and its files.
        notes: what the person should know, one sentence each.
        num_params: number of the model's parameters.
    """

    lines: Sequence[str]
    notes: Sequence[str]
    num_params: int


def import_checkpoint(
    location: hub.Location, folder: Path, family: str | None, options: Options
) -> Report:
    """Writes a published checkpoint as a vidjax folder.

    Raises:
        UserError: it cannot be read, does not fit its model, or does not survive the way there and
            back; or an option decides what it does not tell.
    """
    if location.origin is not None:
        options = Options(location.name.partition("@")[0], **options.given)
    source = formats.open_source(location.path)
    wrapper, tensors = without_wrapper(source.tensors)
    source = dataclasses.replace(source, tensors=tensors)
    conversion = registry.describe(registry.recognise(source, family), source, options)
    model = models.build(**conversion.model)
    want = pretrained.param_specs(model)
    with futures.ThreadPoolExecutor(1) as beside:
        digests = beside.submit(
            lambda: {file.name: checksums.sha256(file) for file in source.files}
        )
        params = to_params(tensors, conversion.rules, want, conversion.ignore)
    ignored, notes = ignored_names(tensors, conversion.ignore), list(conversion.notes)
    provenance = {
        "source": location.origin or location.name,
        "format": conversion.format,
        "files": digests.result(),
        "naming": conversion.naming,
        "wrapper": wrapper,
        "dtypes": dtypes_of(tensors.select(x for x in tensors if x not in ignored)),
        "notes": list(conversion.notes),
        "kept": dict(conversion.kept),
        "vidjax": vidjax.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if license := licenses.read(location.repository, notes):
        provenance["license"] = license
    card = Card(
        model=models.config_of(model),
        preprocessing=conversion.preprocessing,
        classes=conversion.classes,
        tokenizer=conversion.tokenizer.card if conversion.tokenizer else None,
        provenance=provenance,
    )
    diverged = [name for name, x in params.items() if not is_finite(x)]
    pretrained.save_pretrained(folder, traverse_util.unflatten_dict(params, sep="/"), card)
    params.clear()  # the check reads the folder, and shall not need the memory twice;
    gc.collect()  # Orbax leaves what it saved in reference cycles
    originals.copy(source, [name for name, entry in ignored.items() if entry.keep], folder)
    if conversion.tokenizer:
        conversion.tokenizer.write(conversion.tokenizer.path, folder / card.tokenizer["file"])
        notes += _check_tokenizer(folder, card)
    verify(tensors, pretrained.open_params(folder), conversion.rules, ignored)
    if diverged:
        notes.append(
            f"WARNING: {len(diverged)} parameters hold NaN or infinity ({diverged[0]}, ...), so "
            "outputs will: its training diverged, or the file is damaged"
        )
    count = sum(math.prod(spec.shape) for spec in want.values())
    counts = f"{len(tensors)} tensors, {count:,} parameters, all bytes reproduced"
    return Report(_lines(card, counts, ignored), notes, count)


def _lines(card: Card, counts: str, ignored: Mapping[str, Ignore]) -> list[str]:
    """Lines that say what a conversion made."""
    facts = card.provenance
    report = [
        f"{facts['source']}: {card.model['name']}, head {card.model['head']}, {facts['format']}",
        counts,
    ]
    for reason in dict.fromkeys(entry.reason for entry in ignored.values()):
        names = [name for name, entry in ignored.items() if entry.reason == reason]
        report.append(f"left out {len(names)} tensors ({names[0]}, ...): {reason}")
    if card.license:
        report.append(f"license of the weights: {card.license}")
    if facts["dtypes"] != "float32":
        dtypes = summary(facts["dtypes"])
        report.append(f"{dtypes} in the file, float32 here (exact; an export undoes it)")
    report += [f"sha256 {digest} {file}" for file, digest in facts["files"].items()]
    sections: dict[str, Mapping[str, Any]] = {
        "model": card.model,
        "preprocessing": vars(card.preprocessing),
        "tokenizer": card.tokenizer or {"file": None},
    }
    for title, values in sections.items():
        report.append(f"{title}: " + ", ".join(f"{k}={v}" for k, v in values.items()))
    return report


def _check_tokenizer(folder: Path, card: Card) -> list[str]:
    """Returns a note if the vocabulary is smaller than the model's.

    Raises:
        UserError: it cannot be read, or is larger.
    """
    tokenizer, known = pretrained.load_tokenizer(folder), card.model["vocab_size"]
    if not tokenizer.fits(known):
        raise UserError(
            f"the vocabulary has {tokenizer.vocab_size} token ids and the model {known}; give the "
            "one that it was trained with as --tokenizer=FILE"
        )
    if tokenizer.vocab_size < known:
        return [
            f"the vocabulary has {tokenizer.vocab_size} token ids and the model {known}: it may be "
            "cut off, or another model's (--tokenizer=FILE)"
        ]
    return []
