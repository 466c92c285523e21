"""Self-contained model folders: weights, and a card that says how to build and feed the model.

    folder/model.json     the card
    folder/params/        the parameters (Orbax)
    folder/tokenizer.*    of a model that reads text: its vocabulary

The working directory of a training run is such a folder too, with its parameters in
`checkpoints/<step>/default`; the newest step is read, and its moving average if it keeps one.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import linen as nn
from flax import traverse_util

from vidjax import checkpoint, json_files, models, sharding
from vidjax.data.frames.clips import eval_views, prepare, video_array
from vidjax.data.reading.video import VideoError
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing, normalise
from vidjax.tokenizers import ClipTokenizer, Tokenizer, open_tokenizer

CARD = "model.json"
PARAMS = "params"
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
_FORMAT = 1
# Orbax holds every chunk that it encodes, and what a data file gets until it is full: with these
# sizes a tenth of the parameters, with its defaults as much again as all of them.
_CHUNK_BYTES = 2_000_000
_FILE_BYTES = 8_000_000
_AHEAD_BYTES = 4_000_000  # of parameters read together, as each reading takes 9 ms

Params = Mapping[str, Any]
Folder = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Card:
    """What a folder says of its model.

    Attributes:
        model: keywords of `vidjax.models.build`, every size spelled out.
        preprocessing: how the model wants its video.
        classes: names of the classes in the order of the logits, or None.
        provenance: where the weights come from.
        tokenizer: of a model that reads text: `file`, in the folder, and the options with which
            vidjax.tokenizers.open_tokenizer opens it. None: there is none.
    """

    model: dict[str, Any]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None = None
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model ready for use: `m.model.apply({"params": m.params}, m.preprocess("a.mp4"))`.

    One of video and text: `m.model.apply({"params": m.params}, video, *m.tokenize(["a dog"]))`.
    """

    model: nn.Module
    params: Params
    card: Card
    tokenizer: Tokenizer | ClipTokenizer | None = None

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.card.classes

    def preprocess(self, video: str | os.PathLike | Any) -> jax.Array:
        """Prepares one video as the card says.

        Args:
            video: path of a video file or of a folder of pictures; or frames in memory, an array of
                any library [N, H, W, 3] or [N, 3, H, W] of bytes in RGB, or a list of such frames
                or PIL images: the clip itself if N is the model's number of frames, and otherwise
                a whole video to sample from.

        Returns:
            The middle clip's centre crop, normalised: float32 [1, T, size, size, 3].

        Raises:
            UserError: an array of something else, or a file that cannot be read as video.
        """
        facts = self.card.preprocessing
        is_path = isinstance(video, str | os.PathLike)
        video = os.path.expanduser(video) if is_path else video_array(video)
        is_clip = not is_path and len(video) == facts.frames
        try:
            clip = eval_views(video, facts) if is_clip else prepare(video, facts)
        except VideoError as error:
            raise UserError(f"{video} cannot be read as video: {error}") from None
        return jnp.asarray(normalise(clip, facts.mean, facts.std))

    def tokenize(self, texts: str | Sequence[str]) -> tuple[jax.Array, jax.Array]:
        """Token ids int32 [K, L] and mask bool [K, L] (True = real) of K texts.

        Raises:
            UserError: the model reads no text, its folder has no tokeniser, or a text has ids that
                the model does not know.
        """
        if self.tokenizer is None:
            head = self.card.model["head"]
            raise UserError(
                f"this checkpoint has no tokeniser (its model is {self.card.model['name']} with "
                f"head {head!r}); if it reads text, convert it again with --tokenizer=FILE"
            )
        ids, mask = self.tokenizer([texts] if isinstance(texts, str) else texts)
        if (known := self.card.model["vocab_size"]) <= ids.max(initial=0):
            raise UserError(
                f"the tokeniser gives the id {ids.max()}, but the model knows {known} tokens; "
                f"convert it again with its own vocabulary as --tokenizer"
            )
        return jnp.asarray(ids), jnp.asarray(mask)


def load_model(folder: Folder, dtype: Any = "float32") -> Pretrained:
    """Loads a converted or trained model.

    Args:
        folder: written by `converters.convert` or by training; local, or gs:// and the like.
        dtype: of the computation, such as "bfloat16"; the parameters stay float32.

    Raises:
        UserError: the folder is not one of ours, or is damaged.
    """
    card = read_card(folder)
    model = models.build(**card.model | {"dtype": jnp.dtype(dtype).name})
    stored = _open_params(folder, card)
    params = jax.device_put(traverse_util.unflatten_dict(stored.read(stored), sep="/"))
    return Pretrained(model, params, card, _open_tokenizer(folder, card))


def load_tokenizer(folder: Folder, **options: Any) -> Tokenizer | ClipTokenizer | None:
    """The tokeniser in a folder; None if it has none. `options` replace the card's.

    Raises:
        UserError: its file is gone or damaged, or its kind lacks one of the options.
    """
    return _open_tokenizer(folder, read_card(folder), **options)


def _open_tokenizer(folder: Folder, card: Card, **options: Any) -> Tokenizer | ClipTokenizer | None:
    if card.tokenizer is None:
        return None
    options = {k: v for k, v in card.tokenizer.items() if k != "file"} | options
    return open_tokenizer(_home(folder) / card.tokenizer["file"], **options)


def load_params(folder: Folder) -> dict[str, Any]:
    """The parameters of a folder as nested dicts of numpy arrays, whatever machine wrote them.

    Raises:
        UserError: as `open_params`.
    """
    stored = open_params(folder)
    return traverse_util.unflatten_dict(stored.read(stored), sep="/")


def open_params(folder: Folder) -> "StoredParams":
    """The parameters of a folder by "/"-joined name, read when asked for and not kept.

    Raises:
        UserError: the folder is not one of ours, is damaged, or holds other parameters (names,
            shapes, dtypes) than its card's model has.
    """
    return _open_params(folder, read_card(folder))


def _open_params(folder: Folder, card: Card) -> "StoredParams":
    path, root = _find_params(folder)
    metadata = _metadata(path)
    saved = metadata.tree
    for key in root:
        saved = saved[key]
    have = traverse_util.flatten_dict(saved, sep="/")
    model = models.build(**card.model)
    _check_sizes(card.model, have, epath.Path(folder) / CARD)
    want = param_specs(model)
    if problems := checkpoint.differences(have, want):
        raise UserError(
            f"the parameters in {path} are not those of the model in {folder}/{CARD}: "
            + checkpoint.some(problems, limit=8)
        )
    prints = (metadata.custom_metadata or {}).get(checkpoint.FINGERPRINTS, {})
    checkpoint.note_missing_prints(path, prints)
    return StoredParams(path, root, want, prints)


def _check_sizes(model: Mapping[str, Any], stored: Mapping[str, Any], path: epath.Path) -> None:
    """Raises UserError for sizes far beyond the stored parameters; no table was made of them."""
    count = sum(math.prod(x.shape) for x in stored.values())
    for key, value in model.items():
        if isinstance(value, Mapping):
            _check_sizes(value, stored, path)
        is_grid = key == "pos_grid" and value is not None
        size = math.prod(value) * model.get("width", 1) if is_grid else value
        if isinstance(size, int) and size > max(count, 2**24 if is_grid else 2**20):
            raise UserError(
                f"{path}: model.{key} is {json_files.shown(value)}, which does not fit the "
                f"{count:,} parameters beside it; copy or convert that folder again"
            )


@functools.lru_cache(maxsize=16)  # tracing a model takes half a second
def param_specs(model: nn.Module) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every parameter of a model by "/"-joined name."""
    specs = traverse_util.flatten_dict(models.abstract_params(model), sep="/")
    return types.MappingProxyType(specs)


class StoredParams(Mapping[str, np.ndarray]):
    """See `open_params`; `read` gives many at once, which takes hardly longer than one."""

    def __init__(
        self,
        path: epath.Path,
        root: tuple[str, ...],
        specs: Mapping[str, jax.ShapeDtypeStruct],
        prints: Mapping[str, int],
    ):
        self._path, self._root, self._specs, self._prints = path, root, specs, prints
        self._groups = _groups(specs)
        self._ahead: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        group = self._groups[name]
        if len(group) == 1:
            return self.read(group)[name]
        if name not in self._ahead:
            self._ahead = {}  # first, so that there are never two groups in memory
            self._ahead = self.read(group)
            for array in self._ahead.values():
                array.flags.writeable = False  # the next one to ask gets the same array
        return self._ahead[name]

    def read(
        self, names: Iterable[str], shardings: Mapping[str, jax.sharding.Sharding] | None = None
    ) -> dict[str, Any]:
        """Some of the parameters by name, in one go.

        With shardings as jax arrays, of which every process reads its share; else as numpy arrays.

        Raises:
            UserError: they cannot be read, or are not what was written.
        """
        keys = {name: (*self._root, *name.split("/")) for name in names}
        specs = {keys[name]: self._specs[name] for name in keys}

        def how(name: str) -> ocp.RestoreArgs:
            dtype = self._specs[name].dtype
            if shardings is None:
                return ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype)
            return ocp.ArrayRestoreArgs(sharding=shardings[name], dtype=dtype)

        # Always an explicit target: without one Orbax wants the devices of the writer.
        restore = {path: how(name) for name, path in keys.items()}
        args = ocp.args.PyTreeRestore(
            item=traverse_util.unflatten_dict(specs),
            restore_args=traverse_util.unflatten_dict(restore),
            partial_restore=True,
        )
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
                tree = checkpointer.restore(self._path, args=args)
        except Exception as error:  # Orbax and tensorstore raise all sorts
            raise UserError(_damaged(self._path, error)) from error
        found = traverse_util.flatten_dict(tree)
        found = {name: found[path] for name, path in keys.items()}
        self._check(found)
        return found

    def _check(self, arrays: Mapping[str, Any]) -> None:
        """Compares arrays with the fingerprints that were taken when they were written."""
        if all(isinstance(x, np.ndarray) for x in arrays.values()):
            now = {name: checkpoint.fingerprint(x) for name, x in arrays.items()}
        else:
            now = jax.device_get(jax.jit(checkpoint.fingerprints)(dict(arrays)))
        now = {"/".join((*self._root, name)): x for name, x in now.items()}
        wrong = sorted(name for name in now if now[name] != self._prints.get(name))
        if wrong and self._prints:
            raise UserError(
                f"the parameters in {self._path} are damaged: what is read is not what was written "
                f"({checkpoint.some(wrong)}); make or copy that folder again"
            )

    def references(self) -> dict[str, "Reference"]:
        """All parameters by name, each to be read when it is looked into."""
        return {name: Reference(self, name) for name in self}

    def place(
        self, params: Mapping[str, Any], shardings: Mapping[str, jax.sharding.Sharding]
    ) -> dict[str, jax.Array]:
        """Arrays on devices, by any names; of `Reference`s every process reads its share only.

        Args:
            params: numpy or jax arrays that every process has whole, jax arrays that lie there
                already, or references.
            shardings: where they shall lie, by the same names.
        """
        placed, left = {}, {}
        for name, x in params.items():
            if isinstance(x, Reference):
                left[name] = x.name
            elif isinstance(x, jax.Array) and x.sharding == shardings[name]:
                placed[name] = x
            else:
                placed[name] = sharding.put_whole(np.asarray(x), shardings[name])
        while left:  # a parameter may be wanted in two places
            now = {stored: name for name, stored in left.items()}
            found = self.read(now, {stored: shardings[name] for stored, name in now.items()})
            placed |= {now[stored]: x for stored, x in found.items()}
            left = {name: stored for name, stored in left.items() if name not in placed}
        return {name: placed[name] for name in params}

    def spec(self, name: str) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a parameter, without reading it."""
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


class Reference:
    """A parameter of StoredParams that is not read before someone looks into it."""

    def __init__(self, stored: StoredParams, name: str):
        self.stored, self.name = stored, name
        self.shape, self.dtype = stored.spec(name).shape, stored.spec(name).dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.stored[self.name], dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.stored[self.name][index]


def _groups(specs: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, list[str]]:
    """For each parameter its neighbours that are read with it: few bytes, or itself alone."""
    groups: dict[str, list[str]] = {}
    group, room = [], 0
    for name, spec in specs.items():
        size = math.prod(spec.shape) * spec.dtype.itemsize
        if size > room:
            group, room = [], _AHEAD_BYTES
        group.append(name)
        groups[name], room = group, room - size
    return groups


def save_pretrained(folder: Folder, params: Params, card: Card) -> None:
    """Writes a self-contained folder; the card comes last, so a cut-off write has none.

    Args:
        folder: created if need be; parameters in it are replaced.
        params: nested dicts of numpy or jax arrays.
        card: must describe a model with just these parameters.
    """
    folder = epath.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    # On a CPU this is no copy for well-aligned arrays; Orbax would copy numpy arrays.
    params = jax.device_put(params)
    arrays = {path: np.asarray(x) for path, x in checkpoint.flatten(params).items()}
    prints = {path: checkpoint.fingerprint(x) for path, x in arrays.items()}
    args = ocp.args.PyTreeSave(
        params,
        custom_metadata={checkpoint.FINGERPRINTS: prints},
        save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), params),
        ocdbt_target_data_file_size=_FILE_BYTES,
    )
    # Weights do not shrink by a tenth, and trying takes longer than writing them.
    handler = ocp.PyTreeCheckpointHandler(use_compression=False)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(_absolute(folder / PARAMS), args=args, force=True)
    write_card(folder, card)


def keep_tokenizer(tokenizer: Tokenizer | ClipTokenizer, folder: Folder) -> dict[str, Any]:
    """Copies a tokeniser's file into a folder; returns what the folder's card says of it.

    Raises:
        UserError: the folder has another one.
    """
    name = "tokenizer" + os.path.splitext(tokenizer.path)[1]
    target, content = epath.Path(folder) / name, epath.Path(tokenizer.path).read_bytes()
    if target.exists() and target.read_bytes() != content:
        raise UserError(
            f"{target} is not the tokeniser in {tokenizer.path}, with which this run shall go on; "
            f"put the old file back there, or choose a new folder"
        )
    if not target.exists():
        checkpoint.write_whole(target, content)
    return {"file": name, **tokenizer.options}


def write_card(folder: Folder, card: Card) -> None:
    """Writes `folder`/model.json."""
    # As JSON has it, lists for tuples, of which the checksum is.
    content = json.loads(json.dumps({"format": _FORMAT, **dataclasses.asdict(card)}))
    content["checksum"] = _checksum(content)
    checkpoint.write_whole(epath.Path(folder) / CARD, json.dumps(content, indent=1) + "\n")


def _checksum(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a card's content without its checksum."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


_TOKENIZER = {
    "file": Literal[TOKENIZERS],  # in the folder, and no other
    "length": json_files.Size,
    "canonicalise": bool,
    "pad": str,
    "truncate": bool,
}
_Floats = Literal["float16", "bfloat16", "float32", "float64"]
_CARD = {
    "model": {"name": str, "head": str | None, "num_classes": json_files.Count},
    "preprocessing": {field.name: field.type for field in dataclasses.fields(Preprocessing)},
    "classes": tuple[str, ...] | None,
    "provenance": {
        "format": str,
        "files": Mapping[str, str],
        "naming": Mapping[str, Any],
        "dtypes": _Floats | Mapping[str, _Floats],
    },
    "tokenizer": json_files.Nullable(_TOKENIZER),
    "checksum": str,
}


def read_card(folder: Folder) -> Card:
    """Reads `folder`/model.json.

    Raises:
        UserError: there is none, it is not what was written, or it cannot be understood.
    """
    path = _home(folder) / CARD
    if not path.is_file():
        raise UserError(
            f"{folder} is no vidjax model: it has no {CARD}; convert published weights with "
            f"python -m converters.convert --from={folder} --to=FOLDER"
        )
    content = json_files.read(path)
    if (version := content.pop("format", None)) != _FORMAT:
        raise UserError(f"{path} has format {json_files.shown(version)}, this vidjax reads 1")
    # Folders of older versions have neither of the last two.
    keys = ("model", "preprocessing", "classes", "provenance")
    json_files.check_keys(content, keys, (*keys, "tokenizer", "checksum"), path)
    checksum = content.pop("checksum", None)
    if checksum is not None and checksum != _checksum({"format": version, **content}):
        raise UserError(
            f"{path} is not what was written, as its checksum shows; copy or convert that folder "
            "again (if you changed it on purpose, remove its line 'checksum')"
        )
    json_files.check(content, _CARD, path)
    json_files.check_keys(content["model"], ("name", "head"), content["model"], path, "model.")
    json_files.check_keys(
        content["preprocessing"], (), _CARD["preprocessing"], path, "preprocessing."
    )
    tokenizer = content.get("tokenizer")
    if tokenizer is not None:
        required = ("file", "length", "canonicalise")
        json_files.check_keys(tokenizer, required, _TOKENIZER, path, "tokenizer.")
    classes, count = content["classes"], content["model"].get("num_classes")
    if classes is not None and count and len(classes) != count:
        raise UserError(f"{path} has {len(classes)} classes and num_classes {count}; correct it")
    return Card(
        model=content["model"],
        preprocessing=Preprocessing(**content["preprocessing"]),
        classes=None if classes is None else tuple(classes),
        provenance=content["provenance"],
        tokenizer=tokenizer,
    )


def _home(folder: Folder) -> epath.Path:
    """The folder with the card: that of the run, if `folder` is one of its checkpoints."""
    folder = epath.Path(folder).expanduser()
    is_step = folder.name.isdigit() and folder.parent.name == "checkpoints"
    return folder.parent.parent if is_step else folder


def _find_params(folder: Folder) -> tuple[epath.Path, tuple[str, ...]]:
    """The Orbax folder that holds the parameters, and where in its tree they are."""
    folder = epath.Path(folder).expanduser()
    if (folder / PARAMS).is_dir():
        return _absolute(folder / PARAMS), ()
    home = _home(folder)
    checkpoints = home / "checkpoints"
    steps = ocp.utils.checkpoint_steps(checkpoints) if checkpoints.is_dir() else []
    if home != folder:
        steps = [step for step in steps if step == int(folder.name)]
    if not steps:
        raise UserError(f"{folder} holds no parameters: neither {PARAMS}/ nor checkpoints/<step>/")
    path = _absolute(checkpoints / str(max(steps)) / "default")
    return path, ("ema_params",) if _metadata(path).tree.get("ema_params") else ("params",)


def _metadata(path: epath.Path) -> Any:
    """Of an Orbax folder: the tree of arrays' metadata, and custom_metadata."""
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            found = checkpointer.metadata(path).item_metadata
        if found is None:
            raise ValueError("it has no metadata")
        return found
    except Exception as error:  # Orbax and tensorstore raise all sorts
        raise UserError(_damaged(path, error)) from error


def _damaged(path: epath.Path, error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return f"the parameters in {path} are damaged or incomplete ({type(error).__name__}: {text})"


def _absolute(path: epath.Path) -> epath.Path:
    """Orbax refuses relative paths; gs:// paths are absolute as they are."""
    return path if "://" in str(path) else epath.Path(os.path.abspath(path))
