"""Damaged and hostile files of every format that vidjax reads, made from sound ones by a seed.

`KINDS` says for each how a sound file is made, how it is mutated and how it is read. The property
is: one sentence (UserError), or what the sound file gives; where a format has neither a checksum
nor a type that the mutation breaks, other values. `outcome` tells which.
"""

import functools
import gzip
import io
import json
import math
import pathlib
import shutil
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from converters import Options, formats, registry, videomae, videoprism, vivit, xclip
from converters.mapping import to_params
from tests.support.damage import damage
from vidjax import models, pretrained, tokenizers
from vidjax.card import Card, read_card
from vidjax.data import lists
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
_RNG = np.random.default_rng(0)
ARRAYS = {
    "encoder.weight": _RNG.standard_normal((7, 5), np.float32),
    "encoder.bias": _RNG.standard_normal(300, np.float32),
    "half": _RNG.standard_normal(9).astype(np.float16),
}


class Kind(NamedTuple):
    """One format.

    Attributes:
        make: writes sound files into a folder; returns the one to mutate.
        mutate: from a file's bytes and a random generator to other bytes.
        read: reads the folder, and gives something that can be compared.
        checked: whether every mutation that changes what is read must be noticed.
    """

    make: Callable[[pathlib.Path], pathlib.Path]
    mutate: Callable[[bytes, np.random.Generator], bytes]
    read: Callable[[pathlib.Path], Any]
    checked: bool = False


def outcome(kind: Kind, folder: pathlib.Path, seed: int, sound: bytes, expected: Any) -> str:
    """Reads one mutated file; "same", "different" or the sentence that refuses it."""
    rng = np.random.default_rng(seed)
    path = kind.make(folder) if not (folder / ".made").exists() else None
    path = path or pathlib.Path((folder / ".made").read_text())
    path.write_bytes(kind.mutate(sound, rng))
    try:
        found = kind.read(folder)
    except UserError as error:
        return str(error)
    finally:
        path.write_bytes(sound)
    return "same" if found == expected else "different"


def prepare(kind: Kind, folder: pathlib.Path) -> tuple[bytes, Any]:
    """Makes the sound files; returns the bytes of the one to mutate, and what reading gives."""
    folder.mkdir(parents=True)
    path = kind.make(folder)
    (folder / ".made").write_text(str(path))
    return path.read_bytes(), kind.read(folder)


# --- mutations ----------------------------------------------------------------------------------


ODD = (
    *(None, True, False, 0, -1, -16, 1.5, 1e308, 2**31, 2**63, 10**30, "", "x", "NaN", "\x1b[31m"),
    *([], {}, [0], [[]], [1, 2], ["a"], {"a": 1}, [None] * 3, [0, 0, 0], "é" * 1000, 10**12),
)
RAW = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"\\ud800"', b"[" * 100_000, b"9" * 5000)
_MARK = '"here stands something else"'


def nonsense(data: bytes, rng: np.random.Generator) -> bytes:
    """Replaces, removes, renames or adds a value of JSON; all of it stays JSON, or nearly."""
    if rng.integers(10) == 0:
        return damage(data, rng)
    content = json.loads(data)
    places: list[tuple[Any, Any]] = []
    nodes = [content]
    while nodes:
        node = nodes.pop()
        keys = node if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        nodes += [node[key] for key in keys if isinstance(node[key], dict | list)]
    node, key = places[rng.integers(len(places))]
    match rng.integers(8):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[f"{key}s"] = node.pop(key)
        case 2:
            node[key] = json.loads(_MARK)
            raw = RAW[rng.integers(len(RAW))]
            return json.dumps(content).encode().replace(_MARK.encode(), raw)
        case 3:
            content = ODD[rng.integers(len(ODD))]
        case _:
            node[key] = ODD[rng.integers(len(ODD))]
    return json.dumps(content).encode()


def without_checksum(data: bytes, rng: np.random.Generator) -> bytes:
    """Changes values of a card that has no checksum, as those of older versions."""
    content = json.loads(data)
    content.pop("checksum", None)
    return nonsense(json.dumps(content).encode(), rng)


def in_zip(ending: str, data: bytes, rng: np.random.Generator) -> bytes:
    """Damages one member of a zip file, whose checksums are right."""
    source, target = io.BytesIO(data), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, damage(content, rng) if name.endswith(ending) else content)
    return target.getvalue()


def in_gzip(data: bytes, rng: np.random.Generator) -> bytes:
    """Damages what is compressed, or the compressed bytes."""
    if rng.integers(2):
        return damage(data, rng)
    return gzip.compress(damage(gzip.decompress(data), rng))


# --- formats ------------------------------------------------------------------------------------


def arrays_of(path: pathlib.Path) -> dict[str, Any]:
    tensors = formats.read(path)
    specs = {name: tensors.spec(name) for name in tensors}
    found = {name: tensors[name] for name in tensors}
    assert all(specs[name] == (x.shape, x.dtype) for name, x in found.items())
    return {name: (x.shape, x.dtype.str, x.tobytes()) for name, x in found.items()}


def weights(name: str, mutate: Callable, checked: bool = False) -> Kind:
    def make(folder: pathlib.Path) -> pathlib.Path:
        arrays = ARRAYS
        if name.endswith((".msgpack", ".h5")):
            arrays = {key.replace(".", "/"): x for key, x in ARRAYS.items()}
        if name == "deflated.npz":
            np.savez_compressed(folder / name, **arrays)
        else:
            formats.write(folder / name, arrays, {"step": 3})
        return folder / name

    return Kind(make, mutate, lambda folder: arrays_of(folder / name), checked)


FAMILIES = {
    "videomae": (
        *(videomae, "videomae_finetune_meanpool/checkpoint-0.pth"),
        {"heads": 4, "frames": 10, "size": 32},
    ),
    "vivit": (vivit, "vivit_spacetime/checkpoint_100", {"frames": 10, "size": 32}),
    "xclip": (xclip, "xclip/checkpoint.pth", {}),
    "videoprism": (videoprism, "videoprism_lvt/checkpoint.npz", {}),
}


@functools.cache
def hugging_face(family: str, parent: pathlib.Path) -> pathlib.Path:
    """A folder of Hugging Face's layout, exported from a golden checkpoint."""
    from tests.support.converting import described, written

    module, path, options = FAMILIES[family]
    card, params, _ = described(module, GOLDENS / path, **options)
    written(module, card, params, parent / f"hf_{family}", "hf")
    return parent / f"hf_{family}"


def conversion_of(module: Any, path: pathlib.Path) -> Any:
    """Returns what a source's card would say; its values must be of sound types and ranges."""
    conversion = registry.describe(module, formats.open_source(path), Options())
    model = models.config_of(models.build(**conversion.model))
    assert np.isfinite([*conversion.preprocessing.mean, *conversion.preprocessing.std]).all()
    assert min(conversion.preprocessing.std) > 0 < conversion.preprocessing.size
    return model, conversion.preprocessing, conversion.classes


def params_of(module: Any, path: pathlib.Path) -> dict[str, bytes]:
    source = formats.open_source(path)
    conversion = registry.describe(module, source, Options())
    want = pretrained.param_specs(models.build(**conversion.model))
    params = to_params(source.tensors, conversion.rules, want, conversion.ignore)
    return {name: x.tobytes() for name, x in params.items()}


def header(data: bytes, rng: np.random.Generator) -> bytes:
    """Changes values in the header of a safetensors file, and leaves its layout sound."""
    size = int.from_bytes(data[:8], "little")
    content = json.loads(data[8 : 8 + size])
    name = sorted(content)[rng.integers(1, len(content))]
    entry, (start, stop) = content[name], content[name]["data_offsets"]
    match rng.integers(4):
        case 0:  # as many numbers in another shape
            entry["shape"] = [[math.prod(entry["shape"])], [1, 1, *entry["shape"]]][rng.integers(2)]
        case 1:
            entry["dtype"], entry["shape"] = "I8", [stop - start]
        case 2:
            content[f"{name}{'x' * int(rng.integers(3))}\x1b[31m"] = content.pop(name)
        case 3:
            entry["shape"] = [*entry["shape"][::-1]]
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def hugging_face_file(family: str, pattern: str) -> Kind:
    """A file in a folder of Hugging Face's layout."""

    def make(folder: pathlib.Path) -> pathlib.Path:
        source = hugging_face(family, folder.parent)
        shutil.copytree(source, folder / "hf", dirs_exist_ok=True)
        return next((folder / "hf").glob(pattern))

    module = FAMILIES[family][0]
    if pattern.endswith(".safetensors"):
        return Kind(make, header, lambda folder: params_of(module, folder / "hf"))
    return Kind(make, nonsense, lambda folder: conversion_of(module, folder / "hf"))


def keras(name: str) -> Kind:
    def make(folder: pathlib.Path) -> pathlib.Path:
        preset = GOLDENS / "kerashub_videoprism_multimodal/preset"
        shutil.copytree(preset, folder / "preset", dirs_exist_ok=True)
        return folder / "preset" / name

    return Kind(make, nonsense, lambda folder: conversion_of(videoprism, folder / "preset"))


FIELDS = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 24, "eps": 1e-6}


@functools.cache
def vidjax_folder(parent: pathlib.Path) -> pathlib.Path:
    model = models.build("videomae", head="classify", patch_size=(2, 4, 4), num_classes=3, **FIELDS)
    rng = np.random.default_rng(0)
    import jax

    specs, tree = jax.tree.flatten(models.abstract_params(model))
    params = tree.unflatten([rng.standard_normal(s.shape).astype(s.dtype) for s in specs])
    facts = Preprocessing(frames=4, stride=2, size=8, short_side=10)
    card = Card(models.config_of(model), facts, ("a", "b", "c"), {"source": "here", "notes": ["x"]})
    pretrained.save_pretrained(parent / "vidjax", params, card)
    return parent / "vidjax"


def of_vidjax(pattern: str, mutate: Callable, read: Callable, checked: bool) -> Kind:
    def make(folder: pathlib.Path) -> pathlib.Path:
        shutil.copytree(vidjax_folder(folder.parent), folder / "m", dirs_exist_ok=True)
        return max((folder / "m").glob(pattern), key=lambda path: path.stat().st_size)

    return Kind(make, mutate, lambda folder: read(folder / "m"), checked)


def loaded(folder: pathlib.Path) -> Any:
    stored = pretrained.open_params(folder)
    return {name: x.tobytes() for name, x in stored.read(stored).items()}


def card_and_shapes(folder: pathlib.Path) -> Any:
    stored = pretrained.open_params(folder)
    return read_card(folder), {name: stored.spec(name) for name in stored}


WORDS = ("red shapes sliding left", "blue shapes turning", "a video of green dogs")


@functools.cache
def vocabulary(kind: str, parent: pathlib.Path) -> pathlib.Path:
    path = parent / {"clip": "clip.json", "sentencepiece": "words.model"}[kind]
    if kind == "clip":
        tokenizers.train_clip_tokenizer(WORDS, path, 560)
    else:
        tokenizers.train_tokenizer(WORDS, path, 64)
    return path


def ids_of(path: pathlib.Path) -> Any:
    ids, mask = tokenizers.open_tokenizer(path, length=20)(list(WORDS))
    return ids.tolist(), mask.tolist()


def one_vocabulary(kind: str, mutate: Callable) -> Kind:
    def make(folder: pathlib.Path) -> pathlib.Path:
        source = vocabulary(kind, folder.parent)
        shutil.copyfile(source, folder / f"tokenizer{source.suffix}")
        return folder / f"tokenizer{source.suffix}"

    return Kind(make, mutate, lambda folder: ids_of(next(folder.glob("tokenizer.*"))))


def clip_vocabulary(name: str, mutate: Callable) -> Kind:
    """One of the files that CLIP's vocabulary comes in."""

    def make(folder: pathlib.Path) -> pathlib.Path:
        model = json.loads(vocabulary("clip", folder.parent).read_text())["model"]
        lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        (folder / "merges.txt").write_text("\n".join(lines))
        (folder / "bpe.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
        return folder / name

    def read(folder: pathlib.Path) -> Any:
        source = folder / name if name.endswith(".gz") else folder
        tokenizers.clip_tokenizer_json(source, folder / "made.json")
        return ids_of(folder / "made.json")

    return Kind(make, mutate, read)


def video_list(name: str, content: str, mutate: Callable) -> Kind:
    def make(folder: pathlib.Path) -> pathlib.Path:
        (folder / name).write_text(content)
        for row in range(9):
            (folder / f"{row}.mp4").touch()
        return folder / name

    def read(folder: pathlib.Path) -> Any:
        return lists.read_list(folder / name)

    return Kind(make, mutate, read)


def lines_of_nonsense(data: bytes, rng: np.random.Generator) -> bytes:
    """`nonsense` in one line."""
    lines = data.splitlines()
    row = int(rng.integers(len(lines)))
    lines[row] = nonsense(lines[row], rng)
    return b"\n".join(lines)


ROWS = [
    {"manifest": 1, "classes": ["a", "b"]},
    *({"path": f"{k}.mp4", "label": k % 2, "frames": 30, "verdict": "ok"} for k in range(6)),
]
MANIFEST = "".join(json.dumps(row) + "\n" for row in ROWS)
CAPTIONS = "".join(json.dumps({"path": f"{k}.mp4", "captions": ["a dog"]}) + "\n" for k in range(6))
TABLE = "path,label\n" + "".join(f"{k}.mp4,{k % 3}\n" for k in range(9))

KINDS: dict[str, Kind] = {
    "pth": weights("a.pth", damage, checked=True),
    "pickle": weights("a.pth", functools.partial(in_zip, "data.pkl")),
    "safetensors": weights("a.safetensors", damage),
    "npz": weights("a.npz", damage, checked=True),
    "npz, deflated": weights("deflated.npz", damage, checked=True),
    "npz, members": weights("a.npz", functools.partial(in_zip, ".npy")),
    "msgpack": weights("a.msgpack", damage),
    "h5": weights("a.weights.h5", damage),
    **{f"config.json, {family}": hugging_face_file(family, "config.json") for family in FAMILIES},
    **{
        f"processor, {family}": hugging_face_file(family, "*processor_config.json")
        for family in FAMILIES
    },
    **{f"header, {family}": hugging_face_file(family, "*.safetensors") for family in FAMILIES},
    "config.json, KerasHub": keras("config.json"),
    "image_converter.json": keras("image_converter.json"),
    "model.json": of_vidjax("model.json", damage, read_card, checked=True),
    "model.json, values": of_vidjax("model.json", nonsense, read_card, checked=True),
    "model.json, old": of_vidjax("model.json", without_checksum, card_and_shapes, checked=False),
    "params": of_vidjax("params/**/d/*", damage, loaded, checked=True),
    "params, metadata": of_vidjax("params/_METADATA", damage, loaded, checked=False),
    "tokenizer.json": one_vocabulary("clip", damage),
    "tokenizer.json, values": one_vocabulary("clip", nonsense),
    "tokenizer.model": one_vocabulary("sentencepiece", damage),
    "vocab.json": clip_vocabulary("vocab.json", nonsense),
    "merges.txt": clip_vocabulary("merges.txt", damage),
    "vocabulary, .gz": clip_vocabulary("bpe.txt.gz", in_gzip),
    "manifest": video_list("list.manifest.jsonl", MANIFEST, damage),
    "manifest, values": video_list("list.manifest.jsonl", MANIFEST, lines_of_nonsense),
    "captions": video_list("captions.jsonl", CAPTIONS, lines_of_nonsense),
    "table": video_list("list.csv", TABLE, damage),
}
