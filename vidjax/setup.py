"""Data, model, objective and evaluators of a config. Shared by train and eval."""

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from vidjax import configlib, data, evaluators, models, objectives, pretrained, sharding, sources
from vidjax.card import Card, read_card
from vidjax.data import datasets, demo, frame_cache
from vidjax.errors import UserError
from vidjax.evaluators import split_of
from vidjax.preprocessing import Preprocessing, check_views
from vidjax.splits import Splits
from vidjax.tokenizers import ClipTokenizer, Tokenizer, open_tokenizer
from vidjax.training import optim

# Preprocessing that comes from the checkpoint rather than from the config, and fields of a model
# that evaluation takes from the config rather than from the checkpoint.
_CARD_FACTS = ("mean", "std", "resize", "fit", "stretch_to")
_SPEED = ("dtype", "remat", "unroll", "attention")


class Setup:
    """Reads a config; lists of videos are read when they are first asked for.

    Attributes:
        config: as given, with the checkpoint's input where its own is unset: see `_with_input`.
        checkpoint: name of the model that is evaluated, see vidjax.sources; None in training.
        folder: of vidjax, with that model, or in training with that of config.init; None without.
        without_lists: whether texts are stand-ins, as nothing is read but what only lists can tell:
            for shapes and sizes alone.
        card: of the model that is evaluated.
        mesh: of all devices.
        share: what this process reads of every batch.
        splits: lists of videos.
        clips_at_once: clips that a training step holds at once, over all devices; evaluation takes
            no more.
        preprocessing: of its clips.
        model: the linen module; that of `card` if there is one, as are mean, std, resize and fit.
            In training they are those of config.init if the model's family KEEPS_INPUT.
        kept: see Conversion.kept of the converters.
        license: of the weights of config.init, as on its card; {} if nothing tells it.
        objective_class: of `objective`, see vidjax.objectives.
        objective: what it is trained for.

    Raises:
        UserError: for whatever in the config does not fit.
    """

    def __init__(
        self,
        config: ConfigDict,
        checkpoint: str | None = None,
        *,
        without_lists: bool = False,
    ):
        self.checkpoint, self.without_lists = checkpoint, without_lists
        self.folder = sources.find(checkpoint) if checkpoint else None
        self.card = read_card(self.folder) if checkpoint else None
        self.objective_class = objectives.find(config.objective.name)
        self._check_config(config)
        source = None
        if config.init and not checkpoint:
            self.folder = sources.find(config.init)
            source = read_card(self.folder)
        self.config = config = _with_input(config, self.card or source, checkpoint or config.init)
        self.mesh = sharding.make_mesh(config.mesh)
        self.share = sharding.host_share(self.mesh)
        self.splits = Splits(config, self.card, self.share.count)
        self._check_batch()
        self.clips_at_once = self._clips_at_once()
        fields = self._model_fields(source)
        keeps_input = self.card or (source and models.declared(fields["name"], "KEEPS_INPUT"))
        self.preprocessing = Preprocessing.from_config(config.data)
        if keeps_input:
            card = self.card or source
            facts = {key: getattr(card.preprocessing, key) for key in _CARD_FACTS}
            self.preprocessing = dataclasses.replace(self.preprocessing, **facts)
        same_family = source and fields["name"] == source.model["name"]
        self.kept: dict[str, Any] = source.provenance.get("kept", {}) if same_family else {}
        self.license: dict[str, str] = source.provenance.get("license", {}) if source else {}
        clip = (config.data.frames, config.data.size, config.data.size)
        self.model = models.build(**fields, clip=clip)
        self._check_model(clip)
        texts = self._class_texts() if self._reads("classes") else {}
        self.objective = objectives.from_config(config, self.model, self.preprocessing, **texts)

    def _check_config(self, config: ConfigDict) -> None:
        training = not self.checkpoint
        configlib.check(config)
        name = config.data.name
        if name not in datasets.DATASETS and name != "custom":
            raise UserError(
                f"config.data.name must be one of {', '.join(datasets.DATASETS)}, or custom for "
                f"your own data, not {name!r}"
            )
        if config.data.cache:
            frame_cache.parse(config.data.cache)
        models.check_config(config.model.to_dict())
        if config.model.dtype == "float16" and training:
            raise UserError(
                "config.model.dtype = float16 is for evaluation only: in training its small "
                "gradients become 0, as losses are not scaled here; set it to bfloat16 or float32"
            )
        if self.card and self.card.model["head"] != config.model.head:
            raise UserError(
                f"the config evaluates a model with head {config.model.head!r}, the checkpoint has "
                f"head {self.card.model['head']!r}; choose the config it was trained with"
            )
        self.objective_class.check(config, training=training)

    def _check_batch(self) -> None:
        config, parts = self.config, sharding.batch_parts(self.mesh)
        if self.clips_per_step % (parts * config.grad_accum):
            raise UserError(
                f"config.data.batch_size = {config.data.batch_size} (x {config.data.repeats} "
                f"repeats) must divide into {parts} devices x {config.grad_accum} parts "
                f"(config.grad_accum)"
            )
        if self.share.count > 1 and config.data.batch_size % parts:
            raise UserError(
                f"config.data.batch_size = {config.data.batch_size} must divide into {parts} "
                f"devices where several processes read, as all clips of a video go to one device"
            )

    def _clips_at_once(self) -> int:
        config, shards = self.config, self.config.optim.clip_parts
        clips = self.clips_per_step // config.grad_accum
        if shards > 1 and not self.checkpoint:
            axes = sharding.clip_axes(shards, self.clips_per_step, config.grad_accum, self.mesh)
            clips //= shards // math.prod(self.mesh.shape[axis] for axis in axes)
        return clips

    def _model_fields(self, source: Card | None) -> dict[str, Any]:
        """Returns the keywords of `models.build`, what `source` and the lists decide included."""
        config = self.config.model.to_dict()
        fields = {key: x for key, x in config.items() if x is not None or key == "head"}
        if self.card:
            speed = {key: fields[key] for key in _SPEED if key in fields}
            return self.card.model | speed
        fields = models.start_from(fields, source and source.model)
        if self._has_field("num_classes"):
            fields.setdefault("num_classes", self.splits.num_classes)
            if self.splits.groups:
                fields.setdefault("groups", self.splits.groups)
        if self.reads_text and "vocab_size" not in fields:
            fields["vocab_size"] = self.tokenizer.vocab_size
        return fields

    def _check_model(self, clip: tuple[int, int, int]) -> None:
        """Raises UserError for a model that does not fit clips, labels or vocabulary."""
        patch = self.model.patch_size
        rest = any(side % step for side, step in zip(clip, patch, strict=True))
        if rest and not self.checkpoint:
            raise UserError(
                f"config.data.frames={clip[0]} and config.data.size={clip[1]} leave a rest beside "
                f"patches of {patch}, which the model would not see; use multiples of them"
            )
        groups, labelled = self.model.config.get("groups", ()), self.splits.groups
        if self._has_field("groups") and self.splits.dataset and groups != labelled:
            raise UserError(
                f"videos of {self.config.data.name} are labelled with {_names(labelled)}, but the "
                f"model answers {_names(groups)}; choose the config of its own data"
            )
        if self.reads_text and not self.without_lists:
            self._check_vocabulary()

    def _check_vocabulary(self) -> None:
        tokenizer, name = self.tokenizer, self.config.model.name
        kind = models.declared(name, "TOKENIZER")
        if tokenizer.kind != kind:
            raise UserError(
                f"{tokenizer.path} is a vocabulary of another kind ({tokenizer.kind}) than {name} "
                f"reads ({kind}); set config.data.tokenizer to its own"
            )
        known = self.model.config["vocab_size"]
        if not tokenizer.fits(known):
            raise UserError(
                f"{tokenizer.path} has {tokenizer.vocab_size} tokens, but the model knows {known}; "
                f"set config.data.tokenizer to its own"
            )

    def _class_texts(self) -> dict[str, Any]:
        """Returns token ids and mask of the names of the classes, as fields of the objective.

        Empty in the evaluation of a checkpoint that was not trained by names.
        """
        if self.without_lists:
            shape = self.splits.num_classes, 16
            ids, mask = np.zeros(shape, int), np.ones(shape, bool)
        else:
            names = self._learned_names()
            if not names and self.card:
                return {}  # its evaluators bring the names
            if not names:
                raise UserError(
                    f"{self.config.objective.name} needs the names of the classes: set "
                    f"config.data.classes to a text file with one name a line, or put it as "
                    f"classes.txt beside the list"
                )
            ids, mask = self.tokenizer(names)
            longest = mask.sum(1).max()  # nothing before it sees the padding
            ids, mask = ids[:, :longest], mask[:, :longest]
        rows = {"text": ids, "text_mask": mask}
        return {key: tuple(map(tuple, x.tolist())) for key, x in rows.items()}

    def _reads(self, texts: str) -> bool:
        """Whether the objective reads the "captions" of videos or the names of "classes"."""
        return self.objective_class.reads == texts

    def _has_field(self, field: str) -> bool:
        return models.has_field(self.config.model.name, self.config.model.head, field)

    @property
    def reads_text(self) -> bool:
        """Whether the model compares videos with texts."""
        return models.reads_text(self.config.model.name, self.config.model.head)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | ClipTokenizer | None:
        """Tokeniser of texts; None if the model reads none.

        That of config.data.tokenizer, or of the checkpoint that is evaluated or started from; with
        config.data.text_length, canonicalise and truncate where they are given.

        Raises:
            UserError: there is none of these.
        """
        if not self.reads_text:
            return None
        cfg, folder = self.config.data, self.folder
        keys = {"length": "text_length", "canonicalise": "canonicalise", "truncate": "truncate"}
        options = {option: cfg[key] for option, key in keys.items()}
        options = {key: value for key, value in options.items() if value is not None}
        inherit = not cfg.tokenizer and folder
        if inherit and (found := pretrained.load_tokenizer(folder, **options)):
            return found
        path = cfg.tokenizer
        if not path and cfg.name in demo.LISTS:
            kind = models.declared(self.config.model.name, "TOKENIZER")
            path = demo.tokenizer_of(cfg.name, demo.default_folder(), kind)
        if not path:
            raise UserError(
                "texts need a tokeniser: set config.data.tokenizer to a SentencePiece .model or a "
                "tokenizer.json, or config.init to a checkpoint that has one"
            )
        return open_tokenizer(path, **options)

    @property
    def notices(self) -> list[str]:
        """Notes about lists, a frozen text tower, and a checkpoint's clips."""
        found = self.splits.notices
        freeze = self.config.optim.freeze
        scratch = self._reads("classes") and not (self.checkpoint or self.config.init)
        if scratch and any(re.fullmatch(pattern, "text/token_embed") for pattern in freeze):
            found.append(
                "the text tower stays as it was drawn at random, as config.optim.freeze has it and "
                "config.init names no model that knows words, such as a converted CLIP"
            )
        for key in ("frames", "size") if self.checkpoint else ():
            there, here = getattr(self.card.preprocessing, key), self.config.data[key]
            if there != here:
                found.append(f"{self.checkpoint} was made for {key} {there}, not {here}")
        return found

    @property
    def clips_per_step(self) -> int:
        return self.config.data.batch_size * self.config.data.repeats

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training list, at least 1."""
        return max(1, len(self.splits.videos("train")) // self.config.data.batch_size)

    @property
    def total_steps(self) -> int:
        config = self.config
        epochs = round(config.train_epochs * self.steps_per_epoch)
        steps = config.train_steps or (config.train_epochs and max(config.min_steps, epochs))
        if steps < 1:
            raise UserError("set config.train_steps or config.train_epochs to train for some time")
        return steps

    def example_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a batch of `size` clips."""
        cfg = self.config.data
        video = (size, cfg.frames, cfg.size, cfg.size, 3)
        groups = (len(self.splits.groups),) if self.splits.groups else ()
        batch = {
            "video": jax.ShapeDtypeStruct(video, "uint8"),
            "label": jax.ShapeDtypeStruct((size, *groups), "int32"),
            "video_id": jax.ShapeDtypeStruct((size,), "int32"),
            "weight": jax.ShapeDtypeStruct((size,), "float32"),
        }
        if self._reads("captions"):
            length = 64 if self.without_lists else self.tokenizer.length
            text = (size, cfg.text_length or length)
            batch["text"] = jax.ShapeDtypeStruct(text, "int32")
            batch["text_mask"] = jax.ShapeDtypeStruct(text, "bool")
        return batch

    @functools.cached_property
    def abstract_params(self) -> Any:
        """Shapes of the model's parameters, with their logical axes (boxed)."""
        return jax.eval_shape(self.objective.init, jax.random.key(0), self.example_batch(1))

    @contextlib.contextmanager
    def on_mesh(self) -> Iterator[None]:
        """Makes `mesh` the current one, with the sharding rules of the config."""
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(sharding.rules(self.config.mesh)):
            yield

    def param_shardings(self) -> Any:
        """Where each of the model's parameters lies on the mesh."""
        return sharding.param_shardings(self.abstract_params, self.mesh)

    def train_batches(self, start_step: int, workdir: epath.Path):
        """Endless batches from `start_step` on, of this host: see `data.train_loader`."""
        return data.train_loader(
            self.splits.videos("train"),
            self.config.data,
            seed=self.config.seed,
            bad_videos=self.splits.bad_videos("train", workdir),
            start_step=start_step,
            rows=self.share.rows(self.config.data.batch_size),
            workers=self.config.data.workers,
            tokenize=self.tokenizer if self._reads("captions") else None,
        )

    def evaluators(
        self, workdir: epath.Path, between: Callable[[], None] = lambda: None
    ) -> dict[str, tuple[evaluators.Evaluator, int]]:
        """The evaluators of `config.evals` and the steps between their runs.

        Videos that cannot be read are listed in `workdir`; `between` is called before each batch.
        """

        def batches(split: str, views: tuple[int, int]):
            parts = sharding.batch_parts(self.mesh)
            loader = data.eval_loader(
                self.splits.videos(split),
                self.preprocessing,
                batch_size=-(-self.clips_at_once // parts) * parts,
                views=views,
                share=(self.share.index, self.share.count),
                workers=self.config.data.workers,
                bad_videos=self.splits.bad_videos(split, workdir),
                patience=self.config.data.patience,
                cache=self.config.data.cache,
            )
            with contextlib.closing(loader):
                for batch in loader:
                    between()
                    yield sharding.put_batch(batch, self.mesh)

        for entry in self.splits.evals.values():
            check_views(self.preprocessing, entry.get("views", (1, 1))[1])
        self._check_names()
        context = evaluators.Context(
            predict=self.objective.predict,
            batches=batches,
            num_videos=lambda split: len(self.splits.videos(split)),
            num_classes=self.model.config.get("num_classes") or len(self._learned_names()),
            groups=self.model.config.get("groups", ()),
            captions=lambda split: [video.captions for video in self.splits.videos(split)],
            tokenize=self.tokenizer,
            classes=lambda split: self.splits.videos(split).classes,
            put=lambda batch: sharding.put_whole(
                batch, jax.NamedSharding(self.mesh, sharding.BATCH)
            ),
            parts=sharding.batch_parts(self.mesh),
        )
        return evaluators.build(self.splits.evals, context)

    def _learned_names(self) -> tuple[str, ...]:
        """Names of the classes that a model trained by names has learned."""
        if not self._reads("classes"):
            return ()
        return (self.card.classes if self.card else self.splits.classes) or ()

    def _check_names(self) -> None:
        for key, entry in self.splits.evals.items():
            if not self._reads("classes") or evaluators.find(key, entry).any_classes:
                continue
            if self.splits.videos(split_of(entry)).classes != self._learned_names():
                raise UserError(
                    f"config.evals.{key} ({entry['name']}) compares videos with the classes of "
                    f"training, but {split_of(entry)} has others; use zero_shot, which takes any"
                )

    def describe_evaluation(self) -> list[str]:
        """Returns one line per evaluator: what is measured, how, on how many videos."""
        return [
            evaluators.describe(key, entry, self.preprocessing)
            if self.splits.has(split_of(entry))
            else f"{key}: left out, as config.data.{split_of(entry)} names no list"
            for key, entry in self.config.evals.to_dict().items()
        ]

    def optimizer(self, schedule: optim.Schedule) -> optax.GradientTransformation:
        """The config's optimizer, with the stages of its model for layer decay."""
        return optim.make_optimizer(self.config.optim, schedule, models.stages(self.model.config))


def _with_input(config: ConfigDict, card: Card | None, folder: str) -> ConfigDict:
    """Returns a config whose clips are as those of a checkpoint where config.data leaves it open.

    Args:
        config: its keys configlib.INPUT of config.data that are unset come from the card.
        card: of the checkpoint that is started from or evaluated.
        folder: of the checkpoint, for messages.

    Raises:
        UserError: keys are unset, and there is no checkpoint, or one of single images.
    """
    unset = [key for key in configlib.INPUT if config.data[key] is None]
    if not unset:
        return config
    if card is None:
        raise UserError(
            f"config.data.{unset[0]} is unset and so as the checkpoint's, but there is none to "
            f"start from; name one as config.init"
        )
    preprocessing = card.preprocessing
    if "frames" in unset and preprocessing.frames == 1:
        raise UserError(
            f"{folder} is a model of single images, which sees no motion; start from a model of "
            f"videos, or set config.data.frames to see so many images of each video"
        )
    if "short_side" in unset:
        unset.append("views_short_side")
    config = config.copy_and_resolve_references()
    config.data.update({key: getattr(preprocessing, key) for key in unset})
    return config.lock()


def _names(groups: tuple[tuple[str, int], ...]) -> str:
    return " and ".join(f"{name} ({size} classes)" for name, size in groups) or "one class"
