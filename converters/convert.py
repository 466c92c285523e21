"""Converts published weights to a vidjax folder, and back.

    python -m converters.convert --from=MCG-NJU/videomae-base-finetuned-kinetics --to=b_k400
    python -m converters.convert --from=checkpoint.pth --to=videomae_b
    python -m converters.convert --from=b_k400 --to=exported --format=hf

`--from` is a weight file (.safetensors, .pth, .npz, .h5, .msgpack, Scenic's `checkpoint`), a folder
(Hugging Face's, KerasHub's or Scenic's layout, or ours, or a training run's), a published name such
as `videoprism_public_v1_base`, or a Hugging Face hub id: `org/name`, `org/name@revision` or
`org/name/path/to/file.pth`, taken from the local cache where it is there. What was written is read
again and compared with the source, byte for byte, before the target appears.
"""

import contextlib
import dataclasses
import datetime
import errno
import gc
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from absl import app, flags
from flax import traverse_util

import converters
import vidjax
from converters import Conversion, Option, Options, formats
from converters.mapping import (
    Rule,
    from_params,
    ignored_names,
    to_params,
    without_wrapper,
)
from vidjax import errors, files, models, pretrained
from vidjax.card import CARD, TOKENIZERS, Card, read_card
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays, merge
from vidjax.stored import PARAMS

_FROM = flags.DEFINE_string("from", None, "What to convert: a file, a folder or a hub id.")
_TO = flags.DEFINE_string("to", None, "Folder to write; must not exist, or be a converted model.")
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    ["vidjax", "hf", "original", "npz", "keras"],
    "Default: vidjax, or hf from a vidjax folder. What the paper's code reads is original.",
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
        option for family in converters.families().values() for option in family.OPTIONS
    )
}

_ORIGINALS = "source"  # what of the source an export needs to write the same bytes
_KEPT = "buffers.safetensors"  # in it


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
    source, target = os.path.expanduser(source), _folder(target)
    ours = (Path(source) / CARD).is_file()
    format = format or ("hf" if ours else "vidjax")
    if ours and format == "vidjax":
        raise UserError(f"--from={source} is a vidjax folder already; export by --format=hf")
    if not ours and format != "vidjax":
        raise UserError(
            f"--format={format} exports a vidjax folder, and --from={source} is none: it has no "
            f"{CARD}; convert it to vidjax first"
        )
    if ours:
        with _new_folder(target, replaces=()) as folder:
            report = _export(Path(source), folder, format)
    else:
        written = (CARD, PARAMS, _ORIGINALS, *TOKENIZERS)
        with _new_folder(target, replaces=written) as folder:
            report = _import(source, folder, model, options)
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
    return use and f"train --config={_family(card).TRAIN} --config.init={folder}"


def _import(name: str, folder: Path, family: str | None, options: Options) -> list[str]:
    """Writes a published checkpoint as a vidjax folder; returns lines to be printed."""
    path, origin = _resolve(name)
    if origin is not None:
        options = Options(name.partition("@")[0], **options.given)
    source = formats.open_source(path)
    wrapper, tensors = without_wrapper(source.tensors)
    source = dataclasses.replace(source, tensors=tensors)
    module = _module(family, source)
    known = {option.name for option in module.OPTIONS}
    if unknown := sorted(options.given.keys() - known):
        raise UserError(
            f"--{unknown[0]} means nothing for {_name(module)}, which {path} holds; there are "
            + ", ".join(f"--{option}" for option in sorted(known))
        )
    conversion = describe(module, source, options)
    model = models.build(**conversion.model)
    want = pretrained.param_specs(model)
    with futures.ThreadPoolExecutor(1) as beside:
        digests = beside.submit(lambda: {file.name: formats.sha256(file) for file in source.files})
        params = to_params(source.tensors, conversion.rules, want, conversion.ignore)
    ignored = ignored_names(source.tensors, conversion.ignore)
    dtypes = _dtypes(source.tensors, ignored)

    card = Card(
        model=models.config_of(model),
        preprocessing=conversion.preprocessing,
        classes=conversion.classes,
        tokenizer=conversion.tokenizer.card if conversion.tokenizer else None,
        provenance={
            "source": origin or name,
            "format": conversion.format,
            "files": digests.result(),
            "naming": conversion.naming,
            "wrapper": wrapper,
            "dtypes": dtypes,
            "notes": list(conversion.notes),
            "kept": dict(conversion.kept),
            "vidjax": vidjax.__version__,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )
    diverged = [name for name, x in params.items() if not _is_finite(x)]
    pretrained.save_pretrained(folder, traverse_util.unflatten_dict(params, sep="/"), card)
    params.clear()  # the check reads the folder, and shall not need the memory twice;
    gc.collect()  # Orbax leaves what it saved in reference cycles
    notes = list(conversion.notes)
    kept = [name for name, entry in ignored.items() if entry.keep]
    _copy_originals(source, kept, folder)
    if conversion.tokenizer:
        conversion.tokenizer.write(conversion.tokenizer.path, folder / card.tokenizer["file"])
        notes += _check_tokenizer(folder, card)
    _verify(source.tensors, pretrained.open_params(folder), conversion.rules, ignored)

    count = sum(math.prod(spec.shape) for spec in want.values())
    report = [
        f"{origin or name}: {card.model['name']}, head {card.model['head']}, {conversion.format}",
        f"{len(source.tensors)} tensors, {count:,} parameters, all bytes reproduced",
    ]
    for reason in dict.fromkeys(entry.reason for entry in ignored.values()):
        names = [name for name, entry in ignored.items() if entry.reason == reason]
        report.append(f"left out {len(names)} tensors ({names[0]}, ...): {reason}")
    if dtypes != "float32":
        report.append(f"{_summary(dtypes)} in the file, float32 here (exact; an export undoes it)")
    report += [f"sha256 {digest} {file}" for file, digest in card.provenance["files"].items()]
    titles = {"model": card.model, "preprocessing": vars(card.preprocessing)}
    for title, values in (titles | {"tokenizer": card.tokenizer or {"file": None}}).items():
        report.append(f"{title}: " + ", ".join(f"{k}={v}" for k, v in values.items()))
    if diverged:
        notes.append(
            f"WARNING: {len(diverged)} parameters hold NaN or infinity ({diverged[0]}, ...), so "
            "outputs will: its training diverged, or the file is damaged"
        )
    return report + [f"note: {note}" for note in notes]


def describe(module: ModuleType, source: formats.Source, options: Options) -> Conversion:
    """Returns what a converter module says of a source.

    Raises:
        UserError: as the module; or a tensor's shape is of another kind than the module unpacks.
    """
    with _fitting(f"{source.path} has the names of {_name(module)}, but not its shapes or values"):
        return module.describe(source, options)


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


def _export(source: Path, folder: Path, format: str) -> list[str]:
    """Writes a vidjax folder, or a run's workdir, in a published format; returns lines to print."""
    card = read_card(source)
    module = _family(card)
    if format not in module.FORMATS:
        raise UserError(
            f"--format={format} does not exist for {card.model['name']}; there are "
            + ", ".join(module.FORMATS)
        )
    originals = {
        name: (source / _ORIGINALS / name).read_bytes()
        for name in formats.JSON_FILES
        if formats.read_json(source / _ORIGINALS / name) is not None
    }
    with _fitting(f"{source}/{CARD} and {_ORIGINALS}/ do not fit {_name(module)}"):
        plan = module.export(card, format, originals)
    stored = pretrained.open_params(source)
    names = [name for name in stored if name not in plan.left_out]
    params = stored.select(names)
    notes = list(plan.notes)
    # The dtypes were noted by the source's names, so they hold for its own format only.
    same = card.provenance.get("format") == format
    dtypes = card.provenance.get("dtypes", "float32") if same else "float32"
    tensors = _restore_dtypes(from_params(params, plan.rules), dtypes)
    if tensors is None:
        notes.append(f"the weights are no longer {_summary(dtypes)} values: exported as float32")
        dtypes, tensors = "float32", from_params(params, plan.rules)
    others = dict(plan.computed)
    if same and others and (source / _ORIGINALS / _KEPT).is_file():
        others |= formats.read(source / _ORIGINALS / _KEPT)
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
        shutil.copyfile(source / card.tokenizer["file"], folder / plan.tokenizer)
    with futures.ThreadPoolExecutor(1) as beside:
        digest = beside.submit(formats.sha256, path)
        _, written = without_wrapper(formats.read(path)) if wrapper else ("", formats.read(path))
        _verify(written, params, plan.rules, others)

    count = sum(math.prod(stored.spec(name).shape) for name in params)
    return [
        f"{source}: {num_tensors} tensors, {count:,} parameters as {_summary(dtypes)}, "
        "all bytes reproduced",
        f"sha256 {digest.result()} {path.name}",
        *(f"note: {note}" for note in notes),
    ]


def _verify(
    tensors: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    ignored: Mapping[str, Any],
) -> None:
    """Compares the file's tensors with what the written parameters give back, rule by rule."""
    left = set(tensors) - set(ignored)

    def compare(rule: Rule, some: Mapping[str, np.ndarray]) -> None:
        for name, tensor in from_params(some, [rule]).items():
            left.discard(name)
            original = tensors[name]
            if not _same(tensor.astype(original.dtype, copy=False), original):
                raise UserError(
                    f"{name} does not come back byte for byte (it may hold NaNs, or the disk "
                    "is faulty); nothing was written"
                )

    # While the parameters of one rule are compared, those of the next are read.
    with futures.ThreadPoolExecutor(1) as beside:
        waiting: futures.Future | None = None
        for rule in rules:
            some = {target: params[target] for target in rule.targets}
            if waiting:
                waiting.result()
            waiting = beside.submit(compare, rule, some)
        if waiting:
            waiting.result()
    if left:
        raise AssertionError(f"never compared: {sorted(left)}")


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one dtype hold the same bytes."""
    return a.shape == b.shape and np.array_equal(_bytes(a), _bytes(b))


def _bytes(tensor: np.ndarray) -> np.ndarray:
    flat = np.asarray(tensor, order="C").reshape(-1)
    return flat.view(f"uint{8 * flat.itemsize}")


def _is_finite(x: np.ndarray) -> bool:
    """Whether all values are; NaN and infinity show in the extremes, which need no memory."""
    return not x.size or bool(np.isfinite(x.min()) and np.isfinite(x.max()))


def _dtypes(tensors: LazyArrays, ignored: Mapping[str, Any]) -> str | dict[str, str]:
    """The tensors' dtype, or that of each where they differ."""
    names = [name for name in tensors if name not in ignored]
    found = {name: tensors.spec(name).dtype.name for name in names}
    return next(iter(found.values())) if len(set(found.values())) == 1 else found


def _summary(dtypes: str | Mapping[str, str]) -> str:
    return dtypes if isinstance(dtypes, str) else " and ".join(sorted(set(dtypes.values())))


def _restore_dtypes(tensors: LazyArrays, dtypes: str | Mapping[str, str]) -> LazyArrays | None:
    """The tensors in the dtypes of the file they once came from; None if that would round them."""
    if dtypes == "float32":
        return tensors
    names = {name: dtypes if isinstance(dtypes, str) else dtypes[name] for name in tensors}
    cast = tensors.cast({name: np.dtype(dtype) for name, dtype in names.items()})
    if all(_same(cast[name].astype(np.float32), tensors[name]) for name in tensors):
        return cast
    return None


def _hub_files() -> dict[str, str]:
    """Where on the hub files are that are published under other names."""
    families = converters.families().values()
    return {k: v for family in families for k, v in getattr(family, "HUB_FILES", {}).items()}


def _module(family: str | None, source: formats.Source) -> ModuleType:
    """The converter module that `family` names, or that recognises the source's tensors."""
    families = converters.families()
    if family is not None and family not in families:
        raise UserError(f"--model={family} is unknown; there are {', '.join(families)}")
    for name, module in families.items():
        if family in (None, name) and module.recognises(source):
            return module
    some = ", ".join(sorted(source.tensors)[:3])
    raise UserError(
        f"{source.path} holds no weights of {family or ' or '.join(families)}: its "
        f"{len(source.tensors)} tensors are named {some}, ..."
    )


def _family(card: Card) -> ModuleType:
    families = converters.families()
    if card.model["name"] not in families:
        raise UserError(
            f"models of kind {card.model['name']!r} have no published format; there are formats of "
            + ", ".join(families)
        )
    return families[card.model["name"]]


_ONE_FILE = "*.npz"
# Patterns of weights in a hub's folder, in order of preference.
_HUB_WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*", formats.KERAS_WEIGHTS, _ONE_FILE)


def _resolve(name: str) -> tuple[Path, str | None]:
    """A local path, and for a hub id `id@commit`; downloads what the cache lacks."""
    path = Path(name)
    if not path.exists():
        name = _hub_files().get(name, name)
    repository, _, revision = name.partition("@")
    parts = repository.split("/")
    if path.exists() or len(parts) < 2 or not all(parts) or parts[0] in (".", "..", "~"):
        return path, None  # open_source says it if nothing is there
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        for weights in [file] if file else _HUB_WEIGHTS:
            tokenizers = [*formats.TOKENIZERS, formats.MERGES, formats.KERAS_TOKENIZER]
            patterns = [*formats.JSON_FILES, *tokenizers, weights]
            folder = Path(
                huggingface_hub.snapshot_download(
                    repo, revision=revision or None, allow_patterns=patterns
                )
            )
            found = [path.name for path in folder.glob(weights)]
            if found and weights == _ONE_FILE and not file:
                if len(found) > 1:
                    raise UserError(
                        f"{name} holds several npz files; name one, such as {repo}/{found[0]}"
                    )
                file = found[0]
            if found:
                origin = f"{repo}@{folder.name}" + (f"/{file}" if file else "")
                return folder / file if file else folder, origin
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name} is neither a path here nor available from the Hugging Face hub or its local "
            f"cache ({type(error).__name__}); check the name, and HF_HUB_OFFLINE if that is set"
        ) from error
    raise UserError(
        f"{name} is on the hub, or in its local cache, without {file or 'the usual weight files'}; "
        f"name a file as {repo}/path/to/file.pth, and check HF_HUB_OFFLINE if that is set"
    )


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


def _copy_originals(source: formats.Source, kept: Sequence[str], folder: Path) -> None:
    """Copies the source's JSON files, and those of its tensors that no parameter tells."""
    if source.json or kept:
        (folder / _ORIGINALS).mkdir(exist_ok=True)
    for name in source.json:
        shutil.copyfile(source.files[0].parent / name, folder / _ORIGINALS / name)
    if kept:
        tensors = {name: source.tensors[name] for name in kept}
        formats.write_safetensors(folder / _ORIGINALS / _KEPT, tensors)


@contextlib.contextmanager
def _new_folder(target: Path, replaces: tuple[str, ...]) -> Iterator[Path]:
    """Makes a temporary folder beside `target` that becomes it when the block ends well.

    A target that holds exactly what an earlier conversion wrote (`replaces`) is replaced, if nobody
    changed it meanwhile. The temporary folder is locked, and that of a conversion that was killed
    is used again.

    Raises:
        UserError: the target holds something else or cannot be written, or another process converts
            into it.
    """
    if target.is_symlink():
        target = target.resolve()
    if target.exists() and not target.is_dir():
        raise UserError(f"--to={target} is a file; name a new folder")
    temporary = target.with_name(f".{target.name[:200]}.converting")
    new, old, mark = temporary / "new", temporary / "old", temporary / "lock"
    with errors.disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if temporary.is_dir() and not mark.is_file() and any(temporary.iterdir()):
                raise UserError(f"--to={target} needs {temporary}, which exists; remove that")
            temporary.mkdir(exist_ok=True)
            files.lock(mark, f"another process converts into --to={target}; wait for it")
        except OSError as error:
            raise UserError(
                f"--to={target} cannot be written: {error.strerror}; name another folder"
            ) from None
        try:
            if old.exists() and not target.exists():  # killed between two renames
                old.rename(target)
            before = _content(target)
            there = {path.parts[0] for path in before}
            if there and not (replaces and replaces[0] in there and there <= set(replaces)):
                raise UserError(
                    f"--to={target} is not empty and no earlier conversion; name a new folder, or "
                    f"remove it"
                )
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            yield new
            _replace(target, new, before, old)
        except UserError as error:  # of what is gone when it is read
            raise type(error)(str(error).replace(str(new), str(target))) from error
        finally:
            for folder in (new, temporary / "trash"):
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                if not old.exists():
                    mark.unlink()
                    temporary.rmdir()
            files.unlock(mark)


def _replace(target: Path, new: Path, before: dict[Path, tuple[int, ...]], old: Path) -> None:
    """Puts `new` in the place of `target`, of which nothing but its content `before` is removed.

    By way of `old`, in a folder of its own.
    """
    changed = False
    if before:
        target.rename(old)
        changed = _content(old) != before
    if not changed:
        try:
            new.rename(target)  # onto nothing, or an empty folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            changed = True
    if changed:
        with contextlib.suppress(OSError):
            old.rename(target)
        raise UserError(
            f"--to={target} changed while this command worked, so nothing was written"
            + (f" and what was there before is in {old}" if old.exists() else " or removed")
            + "; name a new folder"
        )
    if before:
        old.rename(old.with_name("trash"))


def _content(folder: Path) -> dict[Path, tuple[int, ...]]:
    """Returns what tells whether the files and folders below a folder change."""
    found = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        status = path.lstat()
        stamp = (status.st_size, status.st_mtime_ns) if path.is_file() else ()
        found[path.relative_to(folder)] = (status.st_ino, *stamp)
    return found


def _folder(target: str | os.PathLike) -> Path:
    if "://" in os.fspath(target):
        raise UserError(f"--to={target} must be a folder of this machine; copy it up when done")
    return Path(target).expanduser()


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
