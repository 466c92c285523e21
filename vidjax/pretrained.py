"""Self-contained model folders: weights, and a card that says how to build and feed the model.

    folder/model.json     the card
    folder/params/        the parameters (Orbax)
    folder/tokenizer.*    of a model that reads text: its vocabulary

The working directory of a training run is such a folder too, with its parameters in
`checkpoints/<step>/default`; the newest step is read, and its moving average if it keeps one.
"""

import contextlib
import dataclasses
import functools
import math
import numbers
import operator
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import linen as nn
from flax import traverse_util

from vidjax import files, json_files, models, sources
from vidjax.card import CARD, Card, Folder, home, read_card, write_card
from vidjax.data import inputs
from vidjax.data.reading.ahead import read_ahead
from vidjax.errors import UserError, some
from vidjax.inference import Runner
from vidjax.params import FINGERPRINTS, differences, fingerprint, flatten, saved_fingerprints
from vidjax.stored import PARAMS, StoredParams, find_params, metadata_of
from vidjax.tokenizers import ClipTokenizer, Tokenizer, open_tokenizer

# Orbax holds every chunk that it encodes, and what a data file gets until it is full: with these
# sizes a tenth of the parameters, with its defaults as much again as all of them.
_CHUNK_BYTES = 2_000_000
_FILE_BYTES = 8_000_000

Params = Mapping[str, Any]
Clips = Iterator[tuple[int, np.ndarray]]  # of a stream: key and clip, or key and row


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model ready for use.

        m.classify("a.mp4")                          [(class, probability), ...]
        m.embed(["a.mp4", "b.mp4"])                  float32 [2, D]
        m.features("a.mp4")                          float32 [t, h, w, D]
        m.compare("a.mp4", ["a dog", "a cat"])       [(text, probability), ...]

    Each of these takes one video, or several as a list, which it answers with a list or one array:

        a video     a path of a file or of a folder of pictures; an array of any library
                    [N, H, W, 3] or [N, 3, H, W] of integers from 0 to 255 in RGB; a list of such
                    frames or of PIL images; a decoder that gives frames by index
        several     a list of videos of any of these kinds; an array [V, N, H, W, 3]

    The model sees the centre crop of a video's middle clip; a video in memory of as many frames as
    the model's clips have is that clip. Videos are read in threads, ahead of the model, which is
    compiled once for any number of them and runs on all devices. A verb raises UserError for
    what is no video, and names a video that cannot be read, or for which the model gives NaN or
    infinity.

    The parts can be used by themselves:

        m.model.apply({"params": m.params}, m.preprocess("a.mp4"))
        m.model.apply({"params": m.params}, video, *m.tokenize(["a dog"]))     of video and text

    Attributes:
        model, params, card, tokenizer: see there; the tokenizer is None where no text is read.
        folder: name that it was loaded by, for messages.
        batch_size: clips on each device at once.
    """

    model: models.Model
    params: Params
    card: Card
    tokenizer: Tokenizer | ClipTokenizer | None = None
    folder: str = ""
    batch_size: int = 1

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.card.classes

    @functools.cached_property
    def runner(self) -> Runner:
        """The model on all devices; made at the first use."""
        return Runner(self.model, self.params, self.card.preprocessing, self.batch_size)

    def classify(self, video: Any, top_k: int = 5) -> list[Any]:
        """Finds the most probable classes of a video; see the class.

        Args:
            video: one or several.
            top_k: classes of each; all of them where there are fewer.

        Returns:
            (class name, probability), most probable first; of a model with several answers (such
            as noun and verb), so many of each, after the name of the answer. Classes without a
            name are called by their index. Of several videos, a list of such lists.

        Raises:
            UserError: the model has no class scores, or top_k is below 1.
        """
        _check_count("top_k", top_k)
        if self.classes and self.tokenizer:  # it knows classes by their names
            return self._compare(video, self.classes, None, top_k)
        if not self.card.model.get("num_classes"):
            advice = "fine-tune it, or use a fine-tuned checkpoint"
            if hasattr(self.model, "similarity"):
                advice = "say which texts to choose from: compare(video, texts), or --prompt"
            self._refuse("has no class scores", advice)

        def ranked(logits: np.ndarray) -> list[tuple[str, float]]:
            answers, start = [], 0
            for group, size in self.card.model.get("groups") or (("", len(logits)),):
                part = slice(start, start + size)
                names = self.classes[part] if self.classes else [f"class {i}" for i in range(size)]
                label = f"{group}: " if group else ""
                answers += _ranked([label + name for name in names], logits[part], top_k)
                start += size
            return answers

        return self._each(video, lambda clips: self.runner.rows(clips, "__call__"), ranked)

    def embed(self, video: Any) -> np.ndarray:
        """Returns a vector for a video, float32 [D], or [V, D] for several; see the class.

        `vidjax.embed` gives the same vector for a video of one window, and one for every window
        of longer videos.

        Raises:
            UserError: the model embeds no videos.
        """
        self.check_embeds()
        return self._stacked(video, lambda clips: self.runner.rows(clips, "embed"))

    def features(self, video: Any, layers: int | Sequence[int] | None = None) -> np.ndarray:
        """Returns all tokens of a video on their grid; see the class, and `models.grid_tokens`.

        Args:
            video: one or several.
            layers: None: the tokens that the encoder ends with, after its last norm if it has one.
                Index of a block, or several: what these give, before any norm that follows; 0 is
                the first and -1 the last one.

        Returns:
            float32 [t, h, w, D], one vector for each patch, class tokens left out; of several
            layers [L, t, h, w, D]. Of several videos [V, ...].

        Raises:
            UserError: the model sees no video, or there is no such layer.
        """
        if not hasattr(self.model, "encoder"):
            self._refuse("has no video encoder", "use one of a model that sees videos")
        layers = _layers(layers)
        return self._stacked(video, lambda clips: self.runner.rows(clips, "grid_tokens", layers))

    def compare(
        self, video: Any, texts: str | Sequence[str], temperature: float | None = None
    ) -> list[Any]:
        """Finds how well texts fit a video: their probabilities if one of them has to be right.

        That is the softmax over the texts of the model's similarities (of X-CLIP, with texts as
        each video bends them), or of cosines / temperature.

        Args:
            video: one or several, see the class.
            texts: at least one, such as "a video of a dog."; those of the last call are kept.
            temperature: None is what the model has learned, or 0.01 where it has learned none, as
                in VideoPrism's example.

        Returns:
            (text, probability), most probable first; of several videos, a list of such lists.

        Raises:
            UserError: a model without texts, no texts, or a temperature that is not above 0.
        """
        return self._compare(video, texts, temperature, None)

    def _compare(
        self, video: Any, texts: str | Sequence[str], temperature: float | None, top_k: int | None
    ) -> list[Any]:
        if temperature is not None:
            try:
                temperature = float(temperature)
            except (TypeError, ValueError):
                raise UserError(f"temperature must be a number, not {temperature!r}") from None
            if not temperature > 0:
                raise UserError(f"temperature must be above 0, not {temperature}")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, Iterable):
            raise UserError(f"{texts!r} are no texts; give a list of strings to compare with")
        texts = [str(text) if isinstance(text, str) else text for text in texts]
        if not texts:
            raise UserError("give at least one text to compare with (of a command: --prompt=TEXT)")
        if odd := [text for text in texts if not isinstance(text, str)]:
            kind = type(odd[0]).__name__
            raise UserError(f"texts to compare with must be strings, not of type {kind}")
        if not hasattr(self.model, "similarity"):
            advice = "for this and for --prompt, use one with head 'video_text'"
            self._refuse("compares no videos with texts", advice)
        if temperature is None and self.model.logit_scale is None:
            temperature = 0.01
        tokens = tuple(map(np.asarray, self.tokenize(texts)))

        def rows(clips: Clips) -> Clips:
            return self.runner.similarities(clips, tokens, temperature)

        return self._each(video, rows, lambda scores: _ranked(texts, scores, top_k))

    def check_embeds(self) -> None:
        """Raises UserError if the model embeds no videos."""
        if not hasattr(self.model, "embed"):
            self._refuse("embeds no videos", "use one of a model that sees videos")

    def preprocess(self, video: Any) -> jax.Array:
        """Prepares one video, as the class takes them.

        Returns:
            The middle clip's centre crop, normalised: float32 [1, T, size, size, 3].

        Raises:
            UserError: an array of something else, or a file that cannot be read as video.
        """
        facts = self.card.preprocessing
        return jnp.asarray(facts.normalise(inputs.clip_of(video, facts)[None]))

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

    def _refuse(self, lack: str, advice: str) -> NoReturn:
        head = self.card.model["head"]
        raise UserError(f"checkpoint {self.folder} {lack} (its head is {head!r}); {advice}")

    def _each(
        self, video: Any, rows: Callable[[Clips], Clips], make: Callable[[np.ndarray], Any]
    ) -> Any:
        """Returns make(row) for the row of one video, or a list of these; see `_rows`."""
        videos, several = inputs.as_list(video)
        out = [None] * len(videos)
        for index, row in self._rows(videos, rows):
            out[index] = make(row)
        return out if several else out[0]

    def _stacked(self, video: Any, rows: Callable[[Clips], Clips]) -> np.ndarray:
        """Returns the row of one video, or an array of those of several; see `_rows`."""
        videos, several = inputs.as_list(video)
        out = None
        for index, row in self._rows(videos, rows):
            if out is None:
                out = np.empty((len(videos), *row.shape), row.dtype)
            out[index] = row
        return out if several else out[0]

    def _rows(
        self, videos: Sequence[Any], rows: Callable[[Clips], Clips]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields index and row of each video, in any order.

        Args:
            rows: from a stream of pairs of a key and a clip to one of the key and the clip's row.

        Raises:
            UserError: a video cannot be read, or its row has NaN or infinity.
        """

        def name(index: int) -> str:
            is_path = isinstance(videos[index], str | os.PathLike)
            return os.fspath(videos[index]) if is_path else f"videos[{index}]"

        def read(index: int) -> Iterator[np.ndarray]:
            try:
                yield inputs.clip_of(videos[index], self.card.preprocessing)
            except UserError as error:
                is_named = len(videos) == 1 or str(error).startswith(name(index))
                raise error if is_named else UserError(f"{name(index)}: {error}") from None

        clips = read_ahead(range(len(videos)), read, ahead=self.runner.size)
        with contextlib.closing(clips):
            for index, row in rows(clips):
                if not np.isfinite(row).all():
                    raise UserError(
                        f"the model in {self.folder} gives NaN or infinity for {name(index)}: its "
                        "training diverged, or its file is damaged; use another checkpoint"
                    )
                yield index, row


def _ranked(names: Sequence[str], scores: np.ndarray, top_k: int | None) -> list[tuple[str, float]]:
    """Returns names with the softmax of their scores [K], the `top_k` most probable first."""
    probabilities = np.exp(scores - scores.max())
    probabilities /= probabilities.sum()
    return [(names[i], float(probabilities[i])) for i in np.argsort(-probabilities)[:top_k]]


def _check_count(name: str, value: Any) -> None:
    """Raises UserError if a value is no integer from 1 on."""
    if not isinstance(value, numbers.Integral) or value < 1:
        raise UserError(f"{name} must be at least 1, not {value!r}")


def _layers(layers: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    """Returns indices of layers as `models.grid_tokens` takes them.

    Raises:
        UserError: they are something else, or none.
    """
    if layers is None:
        return None
    is_one = isinstance(layers, numbers.Integral) and not isinstance(layers, bool)
    try:
        indices = int(layers) if is_one else tuple(map(operator.index, layers))
    except TypeError:
        indices = ()
    if indices == ():
        raise UserError(
            f"layers={layers!r} must be the index of a layer or several, such as -1 or (-1, -4)"
        )
    return indices


def load_model(name: Folder, dtype: Any = "float32", batch_size: int | None = None) -> Pretrained:
    """Loads a converted, trained or published model.

    Args:
        name: a folder written by `converters.convert` or by training, local or gs:// and the like;
            or published weights, such as "MCG-NJU/videomae-base": see `vidjax.sources`.
        dtype: of the computation, such as "bfloat16"; the parameters stay float32.
        batch_size: clips that each device is given at once, also where there is but one video;
            None: 1 on CPUs, where more are no faster, and 8 elsewhere.

    Raises:
        UserError: nothing has this name, it cannot be converted, it is damaged, or batch_size is
            below 1.
    """
    if batch_size is None:
        batch_size = 1 if jax.default_backend() == "cpu" else 8
    _check_count("batch_size", batch_size)
    folder = sources.find(name)
    card = read_card(folder)
    try:
        dtype = jnp.dtype(dtype).name
    except TypeError:
        raise UserError(
            f"there is no dtype {dtype!r}; choose float32, bfloat16, float16 or float64"
        ) from None
    model = models.build(**card.model | {"dtype": dtype})
    params = jax.device_put(_nested(open_params(folder, card, model)))
    tokenizer = load_tokenizer(folder, card)
    return Pretrained(model, params, card, tokenizer, os.fspath(name), batch_size)


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
    return _nested(open_params(folder, card))


def _nested(stored: StoredParams) -> dict[str, Any]:
    return traverse_util.unflatten_dict(stored.read(stored), sep="/")


def open_params(
    folder: Folder, card: Card | None = None, model: models.Model | None = None
) -> StoredParams:
    """Opens the parameters of a folder by "/"-joined name; each is read on demand and not kept.

    Args:
        folder: written on any machine.
        card: of the folder, if it was read before.
        model: of the card, if it was built before.

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
    model = model or models.build(**card.model)
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
