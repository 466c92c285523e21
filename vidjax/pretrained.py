"""Self-contained model folders: weights, and a card that says how to build and feed the model.

    folder/model.json     the card
    folder/params/        the parameters (Orbax)
    folder/tokenizer.*    of a model that reads text: its vocabulary

The working directory of a training run is such a folder too, with its parameters in
`checkpoints/<step>/default`; the newest step is read, and its moving average if it keeps one.
"""

import dataclasses
import functools
import math
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import linen as nn
from flax import traverse_util

from vidjax import files, json_files, models
from vidjax.card import CARD, Card, Folder, home, read_card, write_card
from vidjax.data.frames.clips import eval_views, prepare, video_array
from vidjax.data.reading.video import VideoError
from vidjax.errors import UserError, some
from vidjax.params import FINGERPRINTS, differences, fingerprint, flatten, saved_fingerprints
from vidjax.stored import PARAMS, StoredParams, find_params, metadata_of
from vidjax.tokenizers import ClipTokenizer, Tokenizer, open_tokenizer

# Orbax holds every chunk that it encodes, and what a data file gets until it is full: with these
# sizes a tenth of the parameters, with its defaults as much again as all of them.
_CHUNK_BYTES = 2_000_000
_FILE_BYTES = 8_000_000

Params = Mapping[str, Any]


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
        return jnp.asarray(facts.normalise(clip))

    def tokenize(self, texts: str | Sequence[str]) -> tuple[jax.Array, jax.Array]:
        """Returns token ids int32 [K, L] and mask bool [K, L] (True = real) of K texts.

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
    params = jax.device_put(load_params(folder, card))
    return Pretrained(model, params, card, load_tokenizer(folder, card))


def load_tokenizer(
    folder: Folder, card: Card | None = None, **options: Any
) -> Tokenizer | ClipTokenizer | None:
    """Loads the tokeniser of a folder, None if it has none; `options` replace the card's.

    Raises:
        UserError: its file is gone or damaged, or its kind lacks one of the options.
    """
    card = card or read_card(folder)
    if card.tokenizer is None:
        return None
    options = {k: v for k, v in card.tokenizer.items() if k != "file"} | options
    return open_tokenizer(home(folder) / card.tokenizer["file"], **options)


def load_params(folder: Folder, card: Card | None = None) -> dict[str, Any]:
    """Loads the parameters of a folder as nested dicts of numpy arrays; arguments as `open_params`.

    Raises:
        UserError: as `open_params`.
    """
    stored = open_params(folder, card)
    return traverse_util.unflatten_dict(stored.read(stored), sep="/")


def open_params(folder: Folder, card: Card | None = None) -> StoredParams:
    """Opens the parameters of a folder by "/"-joined name; each is read on demand and not kept.

    Args:
        folder: written on any machine.
        card: of the folder, if it was read before.

    Raises:
        UserError: the folder is not one of ours, is damaged, or holds other parameters (names,
            shapes, dtypes) than its card's model has.
    """
    card = card or read_card(folder)
    path, root = find_params(folder)
    metadata = metadata_of(path)
    saved = metadata.tree
    for key in root:
        saved = saved[key]
    have = traverse_util.flatten_dict(saved, sep="/")
    model = models.build(**card.model)
    _check_sizes(card.model, have, epath.Path(folder) / CARD)
    want = param_specs(model)
    if problems := differences(have, want):
        raise UserError(
            f"the parameters in {path} are not those of the model in {folder}/{CARD}: "
            + some(problems, limit=8)
        )
    return StoredParams(path, root, want, saved_fingerprints(metadata, path))


def _check_sizes(model: Mapping[str, Any], stored: Mapping[str, Any], path: epath.Path) -> None:
    """Raises UserError for sizes far beyond the stored parameters, before any table is made."""
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
    """Returns shape and dtype of every parameter of a model by "/"-joined name."""
    specs = traverse_util.flatten_dict(models.abstract_params(model), sep="/")
    return types.MappingProxyType(specs)


def save_pretrained(folder: Folder, params: Params, card: Card) -> None:
    """Writes a self-contained folder; the card comes last, so a cut-off write has none.

    Args:
        folder: created if need be; parameters in it are replaced.
        params: nested dicts of numpy or jax arrays.
        card: must describe a model with just these parameters.
    """
    folder = files.absolute(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # On a CPU this is no copy for well-aligned arrays; Orbax would copy numpy arrays.
    params = jax.device_put(params)
    arrays = {path: np.asarray(x) for path, x in flatten(params).items()}
    prints = {path: fingerprint(x) for path, x in arrays.items()}
    args = ocp.args.PyTreeSave(
        params,
        custom_metadata={FINGERPRINTS: prints},
        save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), params),
        ocdbt_target_data_file_size=_FILE_BYTES,
    )
    # Weights do not shrink by a tenth, and trying takes longer than writing them.
    handler = ocp.PyTreeCheckpointHandler(use_compression=False)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(folder / PARAMS, args=args, force=True)
    write_card(folder, card)


def keep_tokenizer(tokenizer: Tokenizer | ClipTokenizer, folder: Folder) -> dict[str, Any]:
    """Copies a tokeniser's file into a folder; returns what the folder's card says of it.

    Raises:
        UserError: the folder has another one.
    """
    name = "tokenizer" + os.path.splitext(tokenizer.path)[1]
    target, content = epath.Path(folder) / name, epath.Path(tokenizer.path).read_bytes()
    if not target.exists():
        files.write_whole(target, content)
    elif target.read_bytes() != content:
        raise UserError(
            f"{target} is not the tokeniser in {tokenizer.path}, with which this run shall go on; "
            f"put the old file back there, or choose a new folder"
        )
    return {"file": name, **tokenizer.options}
