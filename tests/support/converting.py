"""What the converter does, without its folders where these cost time, and what must be the same."""

import json
import pathlib

from converters import Options, convert, formats
from converters.mapping import from_params, to_params
from vidjax import models, pretrained
from vidjax.card import Card


def described(family, path, **options):
    """What a converter module makes of a file: its card, parameters and notes."""
    source = formats.open_source(pathlib.Path(path))
    conversion = family.describe(source, Options(**options))
    model = models.build(**conversion.model)
    want = pretrained.param_specs(model)
    params = to_params(source.tensors, conversion.rules, want, conversion.ignore)
    card = Card(
        models.config_of(model),
        conversion.preprocessing,
        conversion.classes,
        {"format": conversion.format, "naming": json.loads(json.dumps(conversion.naming))},
        conversion.tokenizer.card if conversion.tokenizer else None,
    )
    return card, params, "\n".join(conversion.notes)


def written(family, card, params, folder, format, originals=()):
    """Exports a model as the command does; returns its notes."""
    plan = family.export(card, format, dict(originals))
    folder.mkdir()
    tensors = dict(from_params(params, plan.rules)) | plan.computed
    formats.write(folder / plan.weights, tensors, plan.beside, plan.wrapper)
    for name, content in plan.files.items():
        (folder / name).write_bytes(content)
    return "\n".join(plan.notes)


def command(source, target, format=None, **options):
    """The real command; returns what it says."""
    lines = []
    convert.convert(str(source), target, format, options=Options(**options), say=lines.append)
    return "\n".join(lines)


def same_tensors(ours, theirs):
    assert list(ours) and set(ours) == set(theirs)
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].shape == theirs[name].shape, name
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def same_params(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
