"""Names of checkpoints: what `load_model`, --checkpoint, config.init and --from take.

    runs/a, gs://bucket/a                       a folder of vidjax: converted, a run's workdir, or
                                                one of its checkpoints
    org/name, org/name@revision                 a repository of the Hugging Face hub
    org/name/path/to/file                       a file in it
    videoprism_public_v1_base                   a published name
    folder, weights.safetensors, weights.pth    a folder of Hugging Face's or KerasHub's layout, or
                                                a weight file

Whatever is no folder of vidjax is converted once, into `files.cache_folder("models")`. A hub id
without a revision then means the commit that was converted, without a look at the network;
`org/name@main` asks the hub for the newest one. A local file or folder that has changed is
converted again, and so is a damaged entry of the cache.

    models/ENTRY/                a folder of vidjax, which may be removed at any time
    models/.index/KEY.json       record of the name with this key: its entry, its source's stamps
    models/.index/ENTRY.lock     held by the process that converts, for which others wait
    models/.index/ENTRY/         what it has written so far

`python -m vidjax.sources NAME` prints the folder, for a machine that has the network to fetch it
for others that share the cache.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from vidjax import distributed, errors, files, json_files
from vidjax.card import CARD, Folder, home, read_card
from vidjax.errors import UserError

if TYPE_CHECKING:
    from converters import hub

Stamps = dict[str, list[int]] | None  # size and time of change by file; None of the hub's

HELP = "Folder of vidjax, a run's workdir, a hub id, published weights; see vidjax.sources."

_INDEX = ".index"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_RECORD = {
    "entry": str,
    "num_params": int,
    "files": Mapping[str, int],
    "stamps": Mapping[str, tuple[int, int]] | None,
}


def find(name: Folder) -> Folder:
    """Returns the folder of vidjax that a checkpoint's name means; converts it if need be.

    Logs a line on stderr about what is converted or taken from the cache.

    Raises:
        UserError: nothing has this name, it cannot be converted, or the cache cannot be written.
    """
    if is_ours(name):
        return name
    name = os.path.expanduser(os.fspath(name))
    is_local = os.path.exists(name)
    name = os.path.abspath(name) if is_local else name
    cache, key = files.cache_folder("models"), _key(name)
    stamps = _stamps(Path(name)) if is_local else None
    revision = "" if is_local else name.partition("@")[2]
    is_fixed = not revision or _COMMIT.fullmatch(revision)
    record = _sound(cache, key, stamps) if is_fixed else None
    if record:
        return _folder_of(name, cache, record, "taken from")
    if jax.process_count() > 1:
        return _found_by_another_process(name)
    location, state = _resolve(name), "taken from"
    entry = _key(location.origin) if location.origin else key
    if not is_fixed:
        record = _sound(cache, entry, stamps)
    if not record:
        with _alone(cache, entry, name):
            if not (record := _sound(cache, entry, stamps)):
                record, state = _convert(location, cache, entry, stamps), "converted to"
            if is_fixed and key != entry:
                _write(cache, key, record)
    return _folder_of(name, cache, record, state)


def is_ours(name: Folder) -> bool:
    """Whether a name is a folder of vidjax: with a card, or a checkpoint of a run with one."""
    with suppress(UserError):  # no file system opens it, as that of a published name kaggle://...
        return (home(name) / CARD).is_file()
    return False


def _key(name: str) -> str:
    """Returns a file name for a name: what can be read of it, and a digest of all of it."""
    words = re.sub(r"[^\w.@-]+", "--", os.path.basename(name) if os.path.isabs(name) else name)
    return f"{words[:120].strip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _stamps(path: Path) -> Stamps:
    """Returns size and time of change of each file that the conversion of a path may read."""
    from converters import formats

    beside = [path]
    if path.is_dir() or path.name in formats.WEIGHTS:
        folder = path if path.is_dir() else path.parent
        beside = [*folder.iterdir(), folder / formats.KERAS_TOKENIZER]
    stamps = {str(file): files.stamp(file) for file in beside if file.is_file()}
    return {file: list(stamp) for file, stamp in sorted(stamps.items()) if stamp}


def _sound(cache: Path, key: str, stamps: Stamps) -> dict[str, Any] | None:
    """Returns the record of a key, if its source is as it was and its entry is whole."""
    path = cache / _INDEX / f"{key}.json"
    try:
        record = json_files.read(path)
        json_files.check_keys(record, _RECORD, _RECORD, path)
        json_files.check(record, _RECORD, path)
        folder = cache / record["entry"]
        read_card(folder)
    except UserError:
        return None
    is_whole = record["stamps"] == stamps and record["files"] == _sizes(folder)
    return record if is_whole else None


def _sizes(folder: Path) -> dict[str, int]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


def _write(cache: Path, key: str, record: dict[str, Any]) -> None:
    files.write_whole(cache / _INDEX / f"{key}.json", json.dumps(record, indent=1) + "\n")


def _resolve(name: str) -> "hub.Location":
    """Finds the published weights that a name means.

    Raises:
        UserError: nothing has this name.
    """
    from converters import hub

    published = hub.published_files()
    if os.path.exists(name) or name in published:
        return hub.resolve(name)
    if files.is_remote(name):
        raise UserError(
            f"{name} is no vidjax model: it has no {CARD}; to convert published weights, copy them "
            "to this machine first"
        )
    if "/" not in name or name.startswith(("/", "./", "../", "~")):
        hint = errors.did_you_mean(name, published)
        raise UserError(
            f"{name} is no vidjax model: nothing of that name is here; name a folder with a "
            f"{CARD}, a folder or file of published weights, a hub id such as org/name, or a "
            f"published name{hint and f' ({hint})'}"
        )
    return hub.resolve(name)


@contextmanager
def _alone(cache: Path, entry: str, name: str) -> Iterator[None]:
    """Makes this the only process that works on an entry; waits for another one.

    Raises:
        UserError: the cache cannot be written.
    """
    import filelock

    lock = filelock.FileLock(cache / _INDEX / f"{entry}.lock")
    with _writing(cache, name):
        (cache / _INDEX).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log(f"waiting for another process, which converts {name}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(cache: Path, name: str) -> Iterator[None]:
    """Turns a disk's error while the cache is written into one sentence.

    Raises:
        UserError: a disk's error.
    """
    with errors.disk_errors(name):  # of a source that cannot be read
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            file = getattr(error, "filename", None) or cache
            in_cache = cache.is_relative_to(file) or Path(file).is_relative_to(cache)
            problem = errors.disk_problem(error) or getattr(error, "strerror", None)
            if not (in_cache and problem):
                raise
            raise UserError(
                f"{name} is to be converted into {cache}, which cannot be written ({problem}); "
                "mend that, or set VIDJAX_CACHE to another folder"
            ) from error


def _convert(location: "hub.Location", cache: Path, entry: str, stamps: Stamps) -> dict[str, Any]:
    """Converts a source into the cache; returns its record.

    Raises:
        UserError: it cannot be converted.
    """
    from converters import Options, importing

    _log(f"converting {location.name}, once")
    folder, new = cache / entry, cache / _INDEX / entry
    shutil.rmtree(folder, ignore_errors=True)  # damaged, or of a source that changed
    _remove_unfinished(cache, entry)
    with _writing(cache, location.name):
        try:
            report = importing.import_checkpoint(location, new, None, Options())
            new.rename(folder)
        except UserError as error:
            raise _refusal(location, str(error)) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        record = {
            "entry": entry,
            "num_params": report.num_params,
            "files": _sizes(folder),
            "stamps": stamps,
        }
        _write(cache, entry, record)
    for note in report.notes:
        _log(f"note: {note}")
    if command := _command(location, " ".join(report.notes)):
        _log(f"note: to decide otherwise, run {command}")
    return record


def _remove_unfinished(cache: Path, entry: str) -> None:
    """Removes what killed processes have left: of an entry that is locked here, and of others."""
    import filelock

    for folder in (path for path in (cache / _INDEX).iterdir() if path.is_dir()):
        if folder.name == entry:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with (
            suppress(filelock.Timeout, OSError),
            filelock.FileLock(f"{folder}.lock", timeout=0),  # else a process is at work there
        ):
            shutil.rmtree(folder, ignore_errors=True)


def _refusal(location: "hub.Location", reason: str) -> UserError:
    """Returns the error for a source that cannot be converted."""
    command = _command(location, reason)
    reason = reason.removeprefix(f"{location.path}: ")
    if reason.startswith(f"{location.path} "):
        reason = f"it{reason.removeprefix(str(location.path))}"
    if command:
        reason += f"; to decide that, run {command}"
    if location.path.is_dir() and not location.origin:
        return UserError(f"{location.name} is no vidjax model: it has no {CARD}, and {reason}")
    return UserError(f"{location.name} cannot be converted: {reason}")


def _command(location: "hub.Location", text: str) -> str:
    """Returns the command that converts with the flags that a text names; "" if it names none."""
    from converters import registry

    options = {option.name for family in registry.families().values() for option in family.OPTIONS}
    asked = [flag for flag in dict.fromkeys(re.findall(r"--(\w+)", text)) if flag in options]
    if not asked:
        return ""
    words = ["python -m converters.convert", f"--from={shlex.quote(location.name)}", "--to=FOLDER"]
    return " ".join([*words, *(f"--{flag}=..." for flag in asked), "and name FOLDER"])


def _found_by_another_process(name: str) -> str:
    """Converts in a process by itself, as Orbax would wait for all processes of this run."""
    command = [sys.executable, "-m", "vidjax.sources", name]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    *lines, last = done.stderr.splitlines() or [""]
    if done.returncode:
        raise UserError(last.removeprefix("error: "))
    for line in (*lines, last):
        _log(line)
    return done.stdout.strip()


def _folder_of(name: str, cache: Path, record: dict[str, Any], state: str) -> str:
    """Returns the folder of a record's entry, and logs a line about it."""
    folder = cache / record["entry"]
    card = read_card(folder)
    words = [card.model["name"], f"{record['num_params']:,} parameters"]
    words += [f"license {card.license}"] if card.license else []
    if not record["stamps"]:
        commit = card.provenance["source"].partition("@")[2].partition("/")[0]
        words.insert(0, f"commit {commit[:12]}")
    _log(f"{name}: {state} {folder} ({', '.join(words)})")
    return str(folder)


def _log(text: str) -> None:
    """Writes a line to stderr, as stdout is for answers; of several processes the first one's."""
    if distributed.is_first():
        print(errors.printable(text), file=sys.stderr, flush=True)


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError("name one checkpoint: python -m vidjax.sources NAME")
    print(find(argv[1]))


if __name__ == "__main__":
    errors.run_main(main)
