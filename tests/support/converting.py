"""The converter, without its folders where these cost time, and checks that nothing is lost."""

import functools
import json
import pathlib

import numpy as np

from converters import Options, convert, formats
from converters.mapping import from_params, to_params
from vidjax import models, pretrained
from vidjax.card import Card
from vidjax.lazy import merge


def described(family, path, **options):
    """Returns what a converter module makes of a file: its card, parameters and notes."""
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


def converted(folder, cases, checkpoint):
    """Converts golden checkpoints by the real command, each below `folder`, and returns that.

    Args:
        cases: case -> options of the command.
        checkpoint: function from a case to the path of its checkpoint.
    """
    for case, options in cases.items():
        command(checkpoint(case), folder / case, **options)
    return folder


def zeros(model):
    """Returns a model's parameters as zeros without memory: one value, strided."""
    specs = pretrained.param_specs(model)
    return {name: np.broadcast_to(np.zeros((), np.float32), x.shape) for name, x in specs.items()}


def reread(family, card, params, format, *, config=False, **options):
    """Exports a model without writing it, and describes the result.

    Args:
        config: whether config.json, where the format has one, lies beside the weights.

    Returns:
        The source that the export would be, and its Conversion.
    """
    plan = family.export(card, format, {})
    exported = from_params(params, plan.rules)
    assert len(exported) == len(set(exported))
    beside = ["config.json"] if config and "config.json" in plan.files else []
    source = formats.Source(
        pathlib.Path("x"),
        merge(exported, plan.computed),
        (pathlib.Path(plan.weights),),
        {name: json.loads(plan.files[name]) for name in beside},
    )
    return source, family.describe(source, Options(**options))


def command(source, target, format=None, **options):
    """Runs the real command; returns its report."""
    lines = []
    convert.convert(str(source), target, format, options=Options(**options), say=lines.append)
    return "\n".join(lines)


def assert_comes_back(source, folder, format="hf"):
    """Converts a folder by the command, to `folder`/v, and exports that, to `folder`/out.

    Every file comes back byte by byte, those of HDF5 as their tensors. Returns the first report.
    """
    report = command(source, folder / "v")
    assert "all bytes reproduced" in report
    command(folder / "v", folder / "out", format)
    files, ours = (
        {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        for root in (source, folder / "out")
    )
    assert ours == files
    for name in files:
        if name.endswith(".h5"):
            same_tensors(formats.read(folder / "out" / name), formats.read(source / name))
        else:
            assert (folder / "out" / name).read_bytes() == (source / name).read_bytes(), name
    return report


def same_tensors(ours, theirs):
    assert list(ours) and set(ours) == set(theirs)
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].shape == theirs[name].shape, name
        assert ours[name].tobytes() == theirs[name].tobytes(), name


@functools.cache  # reading takes 10 ms a tensor
def params_of(folder):
    """Returns the parameters of a folder that stays as it is."""
    return dict(pretrained.open_params(folder))


def same_params(a, b):
    """Compares parameters by name, or those of folders, byte by byte."""
    a, b = (params_of(x) if isinstance(x, pathlib.Path) else x for x in (a, b))
    assert set(a) == set(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
