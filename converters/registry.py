"""Families of converters by the name of their model."""

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import converters
from converters import Conversion, Export, Options, formats, originals
from vidjax import errors, models
from vidjax.card import CARD, Card
from vidjax.errors import UserError


def families() -> dict[str, ModuleType]:
    """Returns the converter modules by name: those in this package that a model is named as."""
    modules = {module.name for module in pkgutil.iter_modules(converters.__path__)}
    names = sorted(modules & set(models.names()))
    return {name: importlib.import_module(f"converters.{name}") for name in names}


def recognise(source: formats.Source, family: str | None = None) -> ModuleType:
    """Returns the converter module that `family` names, or that recognises a source's tensors.

    Raises:
        UserError: there is none, or it does not recognise them.
    """
    known = families()
    if family is not None and family not in known:
        raise UserError(f"--model={family} is unknown; there are {', '.join(known)}")
    for name, module in known.items():
        if family in (None, name) and module.recognises(source):
            return module
    some = ", ".join(sorted(source.tensors)[:3])
    raise UserError(
        f"{source.path} holds no weights of {family or ' or '.join(known)}: its "
        f"{len(source.tensors)} tensors are named {some}, ..."
    )


def describe(module: ModuleType, source: formats.Source, options: Options) -> Conversion:
    """Returns what a converter module says of a source.

    Raises:
        UserError: as the module; an option that it does not have; or a tensor's shape is of another
            kind than the module unpacks.
    """
    known = {option.name for option in module.OPTIONS}
    if unknown := sorted(options.given.keys() - known):
        raise UserError(
            f"--{unknown[0]} means nothing for {_name(module)}, which {source.path} holds; there "
            "are " + ", ".join(f"--{option}" for option in sorted(known))
        )
    with _fitting(f"{source.path} has the names of {_name(module)}, but not its shapes or values"):
        return module.describe(source, options)


def export(card: Card, format: str, folder: Path) -> Export:
    """Returns what the converter module of a card's family plans for an export of its folder.

    Raises:
        UserError: as the module; no such family or format; or a card and originals that do not fit.
    """
    known = families()
    if card.model["name"] not in known:
        raise UserError(
            f"models of kind {card.model['name']!r} have no published format; there are formats of "
            + ", ".join(known)
        )
    module = known[card.model["name"]]
    if format not in module.FORMATS:
        raise UserError(
            f"--format={format} does not exist for {card.model['name']}; there are "
            + ", ".join(module.FORMATS)
        )
    files = originals.json_files(folder)
    with _fitting(f"{folder}/{CARD} and {originals.FOLDER}/ do not fit {_name(module)}"):
        return module.export(card, format, files)


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[-1]


@contextlib.contextmanager
def _fitting(problem: str) -> Iterator[None]:
    """Turns what a converter module raises where it unpacks odd values into a UserError."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{problem} ({type(error).__name__}: {errors.first_line(error)[:200]}); fetch or "
            "convert it again"
        ) from error
