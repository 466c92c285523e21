"""Shared frame of the makers: originals, checkouts, random weights, and comparison."""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import types
import warnings

import numpy as np

from tests.goldens import makers

GOLDENS = pathlib.Path(__file__).parents[1]


class MakerError(Exception):
    """Something that the caller of a maker can fix; its message is one sentence."""


def git(folder: pathlib.Path, *arguments: str) -> str:
    """Returns what a git command prints, "" where it fails."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


@dataclasses.dataclass(frozen=True)
class Original:
    """A repository of original code on GitHub.

    Attributes:
        repository: "owner/name".
        commit: 40 hex digits, the commit that the goldens were compared with.
        licence: The licence of its code.
        file: A file by which a checkout is recognised.
        root: The folder of the checkout that goes on `sys.path`.
    """

    repository: str
    commit: str
    licence: str
    file: str
    root: str = "."

    def find(self, checkouts: list[pathlib.Path]) -> pathlib.Path:
        """Returns the checkout of this original; raises MakerError where there is none of `commit`.

        A folder without `.git`, for example an unpacked archive, is taken as it is, and a line
        says so.
        """
        address = f"https://github.com/{self.repository}"
        for folder in checkouts:
            if not (folder / self.file).is_file():
                continue
            if not (folder / ".git").exists():
                print(f"{folder} has no .git: taken for {self.repository} at {self.commit}")
                return folder
            head = git(folder, "rev-parse", "HEAD")
            if head != self.commit:
                raise MakerError(
                    f"{folder} is {self.repository} at commit {head or 'unknown'}, not at "
                    f"{self.commit}; check that one out"
                )
            changes = git(folder, "status", "--porcelain", "--untracked-files=no")
            if changes:
                raise MakerError(f"{folder} has changes ({changes}); undo them with git stash")
            return folder
        raise MakerError(
            f"no --checkout has {self.file}: pass --checkout=FOLDER of {self.repository} at commit "
            f"{self.commit} (git clone {address})"
        )


@dataclasses.dataclass(frozen=True)
class Golden:
    """A golden and how its original makes it; families derive from it.

    Attributes:
        originals: The checkouts needed.
        packages: The packages needed with the versions that the committed outputs come from.
        stand_ins: Modules that the original imports and this golden never calls; where one is
            missing, `StandIn` takes its place.
        environment: Names and values that the original's libraries read when they are imported.
        tolerance: Largest difference of float32 outputs, relative to an output's largest
            magnitude, that is rounding; other CPUs and releases add in another order.
        tolerance_f64: The same for float64 outputs.
    """

    originals: tuple[Original, ...] = ()
    packages: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    tolerance: float = 5e-6
    tolerance_f64: float = 1e-12

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        """Writes a new checkpoint, where the golden has one, and inputs into `folder`."""
        raise NotImplementedError

    def compute(self, folder: pathlib.Path) -> dict:
        """Returns everything that `write` stores, by the original code from what `draw` wrote."""
        raise NotImplementedError

    def write(self, folder: pathlib.Path, computed: dict) -> None:
        """Stores the result of `compute`."""
        np.savez_compressed(folder / "outputs.npz", **computed)

    def read(self, folder: pathlib.Path) -> dict:
        """Returns the committed counterpart of the result of `compute`."""
        return dict(np.load(folder / "outputs.npz"))


@dataclasses.dataclass(frozen=True)
class Texts(Golden):
    """A golden of a tokeniser: golden.json, a list of {"text": ..., ...}, one entry a line.

    Attributes:
        source: Name of the committed golden whose texts a new one gets; others are written into
            golden.json by hand.
    """

    source: str = ""

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        committed = self.read(GOLDENS / self.source)
        self.write(folder, {k: v for k, v in committed.items() if k.endswith("/text")})

    def compute(self, folder: pathlib.Path) -> dict:
        encode, computed = self.encoder(), {}
        for name, text in self.read(folder).items():
            if name.endswith("/text"):
                entry = name.removesuffix("text")
                computed |= {name: text, **{entry + k: v for k, v in encode(text).items()}}
        return computed

    def encoder(self):
        """Returns the original as a function from a text to the other values of its entry."""
        raise NotImplementedError

    def read(self, folder: pathlib.Path) -> dict:
        """Returns the values by "index/key"."""
        entries = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
        return {
            f"{i}/{key}": value for i, entry in enumerate(entries) for key, value in entry.items()
        }

    def write(self, folder: pathlib.Path, computed: dict) -> None:
        entries = {}
        for name, value in computed.items():
            entry, key = name.split("/")
            entries.setdefault(int(entry), {})[key] = value
        lines = ",\n".join(json.dumps(entries[i]) for i in sorted(entries))
        (folder / "golden.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def all_goldens() -> dict[str, list[Golden]]:
    """Returns the goldens of all modules in this folder by name; a name should have one."""
    goldens = {}
    for info in pkgutil.iter_modules(makers.__path__):
        module = importlib.import_module(f"{makers.__name__}.{info.name}")
        if info.name not in ("frame", "__main__"):
            for name, golden in getattr(module, "GOLDENS", {}).items():
                goldens.setdefault(name, []).append(golden)
    return goldens


class StandIn(type):
    """Class of classes that take the place of a missing module's attributes.

    They can be imported, subclassed and asked for further attributes; calling one raises.
    """

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(name, (), {})

    def __call__(cls, *args, **kwargs):
        raise MakerError(f"{cls.__name__} is a stand-in of a package that is missing; install it")


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last finder of `sys.meta_path`: answers for missing modules of given names, and below."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if any(f"{name}.".startswith(f"{known}.") for known in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(StandIn(spec.name, (), {}), name)
        return module

    def exec_module(self, module):
        pass


def open_originals(golden: Golden, checkouts: list[pathlib.Path]) -> None:
    """Makes the golden's originals importable; raises MakerError without their checkouts."""
    roots = [
        str((original.find(checkouts) / original.root).resolve()) for original in golden.originals
    ]
    warnings.simplefilter("ignore")  # the originals' own
    sys.path[:0] = roots
    os.environ.update(golden.environment)
    with contextlib.suppress(ImportError):
        importlib.import_module("flax.io")  # looks for TensorFlow: before its stand-in comes
    missing = [name for name in golden.stand_ins if importlib.util.find_spec(name) is None]
    sys.meta_path.append(_StandIns(missing))


def torch_fan_in(shape: tuple) -> int:
    """Returns the number of inputs that a torch kernel [out, in, ...] adds up."""
    return int(np.prod(shape[1:]))


def flax_fan_in(shape: tuple) -> int:
    """Returns the same of a Flax kernel [..., in, out], or attention's of three axes."""
    return int(max(shape[0], shape[-1]) if len(shape) == 3 else np.prod(shape[:-1]))


def random_weights(shapes: dict, rng: np.random.Generator, fan_in=torch_fan_in) -> dict:
    """Draws float32 [shape] for every name, nothing left at 0 or 1, so that a swap shows.

    Args:
        shapes: Shape by name of the parameter.
        rng: Source of the numbers.
        fan_in: Function of a kernel's shape: the number of inputs that it adds up.
    """
    weights = {}
    for name, shape in shapes.items():
        noise = rng.standard_normal(shape)
        last = name.replace("/", ".").rsplit(".", 1)[-1]
        if re.search(r"pos_?emb|positional|token|cls|class_emb|pooling_attention_query$", name):
            weight = 0.4 * noise
        elif len(shape) < 2:
            weight = 1 + 0.3 * noise if last in ("weight", "scale", "gamma") else 0.2 * noise
        else:
            weight = noise / np.sqrt(fan_in(shape))
        weights[name] = weight.astype(np.float32)
    return weights


def random_video(shape: tuple, rng: np.random.Generator, unit: bool = False) -> np.ndarray:
    """Draws float32 [shape] of few digits, which compress well: in -3..3, or 0..1 with `unit`."""
    steps = rng.integers(0, 256, shape) / 255
    return (steps if unit else np.round(steps * 6 - 3, 2)).astype(np.float32)


def both_precisions(run, limit: int = 3000) -> dict[str, np.ndarray]:
    """Calls `run` with "float32" and "float64"; the second's small outputs end in `__f64`."""
    outputs = dict(run("float32"))
    for name, value in run("float64").items():
        if np.size(value) <= limit:
            outputs[f"{name}__f64"] = value
    return {name: np.asarray(value) for name, value in outputs.items()}


def compare(golden: Golden, committed: dict, computed: dict) -> list[tuple[str, float, bool]]:
    """Returns name, largest difference relative to the largest magnitude, and whether it passes.

    Names that only one side has, other shapes and other texts count as infinitely different.
    """
    rows = []
    for name in sorted(committed.keys() | computed.keys()):
        ours, theirs = committed.get(name), computed.get(name)
        if np.shape(ours) != np.shape(theirs) or (ours is None) != (theirs is None):
            difference = np.inf
        elif np.asarray(ours).dtype.kind != "f":
            difference = 0.0 if np.array_equal(ours, theirs) else np.inf
        else:
            error = np.abs(np.asarray(ours, np.float64) - theirs).max(initial=0)
            difference = float(error / max(np.abs(ours).max(initial=0), 1e-30))
        allowed = golden.tolerance_f64 if name.endswith("__f64") else golden.tolerance
        rows.append((name, difference, difference <= allowed))
    return rows


def main(argv: list[str]) -> int:
    """Checks a golden, or writes a new one; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.goldens.makers", allow_abbrev=False)
    parser.add_argument("golden", nargs="?", help="folder of tests/goldens; without it, a list")
    parser.add_argument("--checkout", action="append", default=[], type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, help="new folder for a new golden")
    parser.add_argument("--seed", type=int, default=0, help="of a new golden's random numbers")
    args = parser.parse_args(argv)
    goldens = {name: made for name, (made, *_) in sorted(all_goldens().items())}
    if args.golden is None:
        for name, golden in goldens.items():
            sources = ", ".join(f"{o.repository}@{o.commit[:12]}" for o in golden.originals)
            print(f"{name}: {sources}; {' '.join(golden.packages)}")
        return 0
    try:
        if args.golden not in goldens:
            raise MakerError(f"no maker of {args.golden}; there are {', '.join(goldens)}")
        golden = goldens[args.golden]
        if args.output and args.output.exists():
            raise MakerError(f"--output={args.output} exists; name a new folder")
        open_originals(golden, args.checkout)
        if args.output:
            with tempfile.TemporaryDirectory() as scratch:
                folder = pathlib.Path(scratch, args.golden)
                folder.mkdir()
                golden.draw(folder, np.random.default_rng(args.seed))
                golden.write(folder, golden.compute(folder))
                shutil.copytree(folder, args.output)
            return 0
        folder = GOLDENS / args.golden
        rows = compare(golden, golden.read(folder), golden.compute(folder))
    except MakerError as error:
        print(error, file=sys.stderr)
        return 2
    for name, difference, passes in rows:
        print(f"{'ok  ' if passes else 'FAIL'} {difference:9.2e}  {name}")
    return 0 if all(passes for _, _, passes in rows) else 1
