"""Vidjax folders in published formats."""

import math
from concurrent import futures
from pathlib import Path

from converters import formats, licenses, originals, registry
from converters.mapping import from_params, without_wrapper
from converters.verification import restore_dtypes, summary, verify
from vidjax import checksums, pretrained
from vidjax.card import home, read_card
from vidjax.lazy import merge


def export_folder(source: str, folder: Path, format: str) -> list[str]:
    """Writes a model in a published format; returns lines to print.

    Args:
        source: a folder of vidjax, a run's workdir or one of its checkpoints; local or in a bucket.
        folder: to write into.
        format: one of the family's FORMATS.

    Raises:
        UserError: the source is damaged, or the format cannot express it.
    """
    card, place = read_card(source), home(source)
    plan = registry.export(card, format, place)
    stored = pretrained.open_params(source)
    params = stored.select(name for name in stored if name not in plan.left_out)
    notes = list(plan.notes)
    # The dtypes were noted by the source's names, so they hold for its own format only.
    same = card.provenance.get("format") == format
    dtypes = card.provenance.get("dtypes", "float32") if same else "float32"
    tensors = restore_dtypes(from_params(params, plan.rules), dtypes)
    if tensors is None:
        notes.append(f"the weights are no longer {summary(dtypes)} values: exported as float32")
        dtypes, tensors = "float32", from_params(params, plan.rules)
    others = dict(plan.computed)
    if same and others:
        others |= originals.tensors(place)
    # transformers would find no tensor by names with a wrapper's prefix.
    wrapper = card.provenance.get("wrapper", "") if same and format != "hf" else ""
    tensors = merge(tensors, others).rename(lambda name: wrapper + name)
    path, num_tensors = folder / plan.weights, len(tensors)
    formats.write(path, tensors, plan.beside, plan.wrapper)
    del tensors  # it holds parameters, which the check reads again
    for name, content in plan.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if card.tokenizer and plan.tokenizer:
        (folder / plan.tokenizer).parent.mkdir(parents=True, exist_ok=True)
        (folder / plan.tokenizer).write_bytes((place / card.tokenizer["file"]).read_bytes())
    if format == "hf":
        licenses.write(folder, card)
    with futures.ThreadPoolExecutor(1) as beside:
        digest = beside.submit(checksums.sha256, path)
        _, written = without_wrapper(formats.read(path)) if wrapper else ("", formats.read(path))
        verify(written, params, plan.rules, others)

    count = sum(math.prod(stored.spec(name).shape) for name in params)
    return [
        f"{source}: {num_tensors} tensors, {count:,} parameters as {summary(dtypes)}, "
        "all bytes reproduced",
        f"sha256 {digest.result()} {path.name}",
        *([f"license of the weights: {card.license}"] if card.license else []),
        *(f"note: {note}" for note in notes),
    ]
