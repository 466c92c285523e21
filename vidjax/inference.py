"""Models applied to streams of clips, in batches of one size, on all devices of this process."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from flax import linen as nn

from vidjax import models, sharding
from vidjax.preprocessing import Preprocessing

Key = TypeVar("Key")
Answers = Iterable[tuple[Key, Any]]


class Runner:
    """A model with its parameters on all devices of this process, which split each batch.

    The last batch of a stream is filled up with zeros, so that each method is compiled once. In a
    run of several processes they need not wait for each other.

    Args:
        model, params, preprocessing: of a checkpoint.
        batch_size: clips on each device at once.

    Attributes:
        size: clips in a batch.
    """

    def __init__(
        self, model: models.Model, params: Any, preprocessing: Preprocessing, batch_size: int
    ):
        self._mesh = sharding.local_mesh()
        self.size = batch_size * sharding.batch_parts(self._mesh)
        self._params = jax.device_put(params, sharding.replicated(self._mesh))
        self._texts: tuple[Any, jax.Array | None] = (None, None)

        def on_clips(params, clips, method, layers):
            variables, video = {"params": params}, preprocessing.normalise(clips)
            if method == "grid_tokens":
                return models.grid_tokens(model, variables, video, layers)
            return model.apply(variables, video, method=method)

        def on_texts(params, ids, mask):
            return model.apply({"params": params}, ids, mask, method="text_features")

        def on_features(params, videos, texts, temperature):
            options = {"temperature": temperature, "method": "similarity"}
            return model.apply({"params": params}, videos, texts, **options)

        self._on_clips = jax.jit(on_clips, static_argnames=("method", "layers"))
        self._on_texts = jax.jit(on_texts)
        self._on_features = jax.jit(on_features)

    def rows(
        self, answers: Answers, method: str, layers: int | tuple[int, ...] | None = None
    ) -> Iterator[tuple[Key, Any]]:
        """Applies a method of the model to the clips in a stream.

        Args:
            answers: pairs of a key and a clip, uint8 [T, size, size, 3], or something else, which
                is handed on as it comes.
            method: from normalised video [B, T, H, W, 3] to an array [B, ...]; or "grid_tokens".
            layers: see `models.grid_tokens`.

        Yields:
            The key and float32 [...] for each clip, once its batch is full.
        """
        return self._batched(
            answers, lambda clips: self._on_clips(self._params, clips, method, layers)
        )

    def similarities(
        self, answers: Answers, texts: tuple[np.ndarray, np.ndarray], temperature: float | None
    ) -> Iterator[tuple[Key, Any]]:
        """Compares the clips in a stream with texts, which are embedded once.

        Args:
            answers: see `rows`.
            texts: token ids int32 [K, L] and mask bool [K, L]; those of the last call are kept.
            temperature: see `TwoTowers.similarity`.

        Yields:
            The key and similarities float32 [K] for each clip, once its batch is full.
        """
        key = tuple(x.tobytes() for x in texts)
        if self._texts[0] != key:
            self._texts = key, self._call(self._on_texts, self._params, *texts)
        features = self._texts[1]

        def compare(clips: jax.Array) -> jax.Array:
            videos = self._on_clips(self._params, clips, "video_features", None)
            return self._on_features(self._params, videos, features, temperature)

        return self._batched(answers, compare)

    def _batched(
        self, answers: Answers, function: Callable[[jax.Array], jax.Array]
    ) -> Iterator[tuple[Key, Any]]:
        """Yields what a function of clips [B, ...] on the devices gives for each; see `rows`."""
        keys, clips = [], []

        def flush() -> Iterator[tuple[Key, np.ndarray]]:
            padding = [np.zeros_like(clips[0])] * (self.size - len(clips))
            batch = sharding.put_batch({"clips": np.stack(clips + padding)}, self._mesh)["clips"]
            rows = np.asarray(self._call(function, batch))
            found = [*zip(keys, rows.astype(np.float32), strict=False)]
            keys.clear()
            clips.clear()
            yield from found

        for key, answer in answers:
            if not isinstance(answer, np.ndarray):
                yield key, answer
                continue
            keys.append(key)
            clips.append(answer)
            if len(clips) == self.size:
                yield from flush()
        if clips:
            yield from flush()

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        with jax.set_mesh(self._mesh), nn.logical_axis_rules(sharding.RULES):
            return function(*args)
