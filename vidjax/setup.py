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

from vidjax import configlib, data, evaluators, models, objectives, pretrained, sharding
from vidjax.card import Card, read_card
from vidjax.data import datasets, demo, frame_cache, lists
from vidjax.data.lists.digests import digests_of
from vidjax.errors import UserError
from vidjax.evaluators import split_of
from vidjax.preprocessing import Preprocessing, check_views
from vidjax.tokenizers import ClipTokenizer, Tokenizer, open_tokenizer
from vidjax.training import optim

# Preprocessing that comes from the checkpoint rather than from the config, and fields of a model
# that evaluation takes from the config rather than from the checkpoint.
_CARD_FACTS = ("mean", "std", "resize", "fit", "stretch_to")
_SPEED = ("dtype", "remat", "unroll", "attention")


class Setup:
    """Reads a config; opens lists when they are first asked for.

    Attributes:
        config: as given.
        checkpoint: the folder that is evaluated; None in training.
        without_lists: whether texts are stand-ins, as nothing is read but what only lists can tell:
            for shapes and sizes alone.
        card: of that folder.
        mesh: of all devices.
        share: what this process reads of every batch.
        clips_at_once: clips that a training step holds at once, over all devices; evaluation takes
            no more.
        preprocessing: of its clips.
        model: the linen module; that of `card` if there is one, as are mean, std, resize and fit.
            In training they are those of config.init if the model's family KEEPS_INPUT.
        kept: see Conversion.kept of the converters.
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
        self.config, self.checkpoint, self.without_lists = config, checkpoint, without_lists
        self.card = read_card(checkpoint) if checkpoint else None
        self.objective_class = objectives.find(config.objective.name)
        self._check_config()
        self.mesh = sharding.make_mesh(config.mesh)
        self.share = sharding.host_share(self.mesh)
        self.dataset = datasets.DATASETS.get(config.data.name)
        self._check_batch()
        self.clips_at_once = self._clips_at_once()
        source = read_card(config.init) if config.init and not checkpoint else None
        fields = self._model_fields(source)
        keeps_input = self.card or (source and models.declared(fields["name"], "KEEPS_INPUT"))
        self.preprocessing = Preprocessing.from_config(config.data)
        if keeps_input:
            card = self.card or source
            facts = {key: getattr(card.preprocessing, key) for key in _CARD_FACTS}
            self.preprocessing = dataclasses.replace(self.preprocessing, **facts)
        same_family = source and fields["name"] == source.model["name"]
        self.kept: dict[str, Any] = source.provenance.get("kept", {}) if same_family else {}
        clip = (config.data.frames, config.data.size, config.data.size)
        self.model = models.build(**fields, clip=clip)
        self._check_model(clip)
        texts = self._class_texts() if self._reads("classes") else {}
        self.objective = objectives.from_config(config, self.model, self.preprocessing, **texts)

    def _check_config(self) -> None:
        config, training = self.config, not self.checkpoint
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
            fields.setdefault("num_classes", self.num_classes)
            if self.dataset and self.dataset.groups:
                fields.setdefault("groups", self.dataset.groups)
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
        groups = self.model.config.get("groups", ())
        if self._has_field("groups") and self.dataset and groups != self.dataset.groups:
            raise UserError(
                f"videos of {self.config.data.name} are labelled with "
                f"{_names(self.dataset.groups)}, but the model answers {_names(groups)}; choose "
                f"the config of its own data"
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
            ids, mask = np.zeros((self.num_classes, 16), int), np.ones((self.num_classes, 16), bool)
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

    @property
    def learns_classes(self) -> bool:
        """Whether the labels of the training list are what is learned."""
        return self.objective_class.learns_classes

    def has(self, split: str) -> bool:
        """Whether the config says where the videos of a split are."""
        return bool(self.config.data[split]) or self.config.data.name in demo.LISTS

    @property
    def evals(self) -> dict[str, dict[str, Any]]:
        """The entries of `config.evals` whose videos the config names."""
        evals = self.config.evals.to_dict()
        return {key: entry for key, entry in evals.items() if self.has(split_of(entry))}

    @functools.cache  # noqa: B019 - a setup lives as long as its run
    def videos(self, split: str) -> datasets.VideoList:
        """The videos of a split, "train" or "val"."""
        if split not in ("train", "val"):
            raise UserError(f"there is no split {split!r}; splits are 'train' and 'val'")
        cfg = self.config.data
        path = cfg[split]
        if not path and cfg.name in demo.LISTS:
            path = demo.list_of(cfg.name, split, demo.default_folder())
        if not self.has(split):
            raise UserError(
                f"no {split} videos: point --config.data.{split} at a list file of "
                f"{cfg.name} (lines of `path label`; --config.data.root for relative paths), or "
                f"append :demo to the config's name, which needs no data"
            )
        classes, num_classes, name = cfg.classes, self.config.model.get("num_classes"), cfg.name
        training = split == "train" and not self.checkpoint
        own_classes = self.dataset and self.dataset.own_classes
        if split == "val" and (cfg.val_classes or own_classes):
            classes, name = cfg.val_classes, "custom"
        elif self.card and cfg.name == "custom" and self._has_field("num_classes"):
            classes = classes or self.card.classes or ""
            num_classes = self.card.model.get("num_classes")
        elif split == "val" and self.has("train") and self.learns_classes:
            # Labels mean what they mean in training, even if a class has no video here.
            classes = classes or self.classes or ""
            num_classes = num_classes or self.num_classes
        videos = lists.read_list(
            path,
            cfg.root,
            name,
            classes=classes,
            split="test" if split == "val" else split,
            num_classes=num_classes,
            need_labels=self._has_field("num_classes")
            or (self.learns_classes and training)
            or self._evaluated(split, "labels"),
            need_captions=self._evaluated(split, "captions")
            or (self._reads("captions") and training),
        )
        if training and cfg.shots:
            return lists.few_shot(videos, cfg.shots, cfg.shots_seed)
        return videos

    def _evaluated(self, split: str, reads: str) -> bool:
        """Whether an evaluator of the split reads "labels" or "captions"."""
        return any(
            split_of(entry) == split and evaluators.find(key, entry).reads == reads
            for key, entry in self.config.evals.to_dict().items()
        )

    def lists(self) -> dict[str, dict[str, Any]]:
        """Returns the digests of the lists that the run reads, by split."""
        splits = {"train"} | {split_of(entry) for entry in self.evals.values()}
        return {split: digests_of(self.videos(split)) for split in sorted(splits)}

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
        cfg, folder = self.config.data, self.checkpoint or self.config.init
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
        splits = filter(self.has, ("train", "val"))
        found = [text for split in splits for text in self.videos(split).notices]
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
    def classes(self) -> tuple[str, ...] | None:
        """Class names, where the training list or `config.data.classes` gives them."""
        return self.videos("train").classes

    @property
    def num_classes(self) -> int:
        """Number of classes: a fact of the dataset, or what the training list shows."""
        if self.dataset:
            return self.dataset.num_classes
        return len(self.classes or ()) or 1 + max(video.label for video in self.videos("train"))

    @property
    def clips_per_step(self) -> int:
        return self.config.data.batch_size * self.config.data.repeats

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training list, at least 1."""
        return max(1, len(self.videos("train")) // self.config.data.batch_size)

    @property
    def total_steps(self) -> int:
        steps = self.config.train_steps or round(self.config.train_epochs * self.steps_per_epoch)
        if steps < 1:
            raise UserError("set config.train_steps or config.train_epochs to train for some time")
        return steps

    def example_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a batch of `size` clips."""
        cfg = self.config.data
        video = (size, cfg.frames, cfg.size, cfg.size, 3)
        groups = (len(self.dataset.groups),) if self.dataset and self.dataset.groups else ()
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

    @functools.cache  # noqa: B019
    def bad_videos(self, split: str, workdir: epath.Path) -> data.BadVideos:
        """Counts the unusable videos of a split, and lists them in workdir/bad_videos.jsonl.

        Of each process: others than the first have its number in the name of the list.
        """
        index, share = jax.process_index(), self.config.data.max_bad_share
        # In evaluation a process sees its share only.
        count = len(self.videos(split)) // (1 if split == "train" else self.share.count)
        path = workdir / (f"bad_videos.{index}.jsonl" if index else "bad_videos.jsonl")
        others = [other for other in workdir.glob("bad_videos*.jsonl") if other != path]
        return data.BadVideos(path, max(1, count), share, others)

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
            self.videos("train"),
            self.config.data,
            seed=self.config.seed,
            bad_videos=self.bad_videos("train", workdir),
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
                self.videos(split),
                self.preprocessing,
                batch_size=-(-self.clips_at_once // parts) * parts,
                views=views,
                share=(self.share.index, self.share.count),
                workers=self.config.data.workers,
                bad_videos=self.bad_videos(split, workdir),
                patience=self.config.data.patience,
                cache=self.config.data.cache,
            )
            with contextlib.closing(loader):
                for batch in loader:
                    between()
                    yield sharding.put_batch(batch, self.mesh)

        for entry in self.evals.values():
            check_views(self.preprocessing, entry.get("views", (1, 1))[1])
        self._check_names()
        context = evaluators.Context(
            predict=self.objective.predict,
            batches=batches,
            num_videos=lambda split: len(self.videos(split)),
            num_classes=self.model.config.get("num_classes") or len(self._learned_names()),
            groups=self.model.config.get("groups", ()),
            captions=lambda split: [video.captions for video in self.videos(split)],
            tokenize=self.tokenizer,
            classes=lambda split: self.videos(split).classes,
            put=lambda batch: sharding.put_whole(
                batch, jax.NamedSharding(self.mesh, sharding.BATCH)
            ),
            parts=sharding.batch_parts(self.mesh),
        )
        return evaluators.build(self.evals, context)

    def _learned_names(self) -> tuple[str, ...]:
        """Names of the classes that a model trained by names has learned."""
        if not self._reads("classes"):
            return ()
        return (self.card.classes if self.card else self.classes) or ()

    def _check_names(self) -> None:
        for key, entry in self.evals.items():
            if not self._reads("classes") or evaluators.find(key, entry).any_classes:
                continue
            if self.videos(split_of(entry)).classes != self._learned_names():
                raise UserError(
                    f"config.evals.{key} ({entry['name']}) compares videos with the classes of "
                    f"training, but {split_of(entry)} has others; use zero_shot, which takes any"
                )

    def describe_evaluation(self) -> list[str]:
        """Returns one line per evaluator: what is measured, how, on how many videos."""
        return [
            evaluators.describe(key, entry, self.preprocessing)
            if self.has(split_of(entry))
            else f"{key}: left out, as config.data.{split_of(entry)} names no list"
            for key, entry in self.config.evals.to_dict().items()
        ]

    def optimizer(self, schedule: optim.Schedule) -> optax.GradientTransformation:
        """The config's optimizer, with the stages of its model for layer decay."""
        stages = models.declared(self.config.model.name, "STAGES")
        return optim.make_optimizer(self.config.optim, schedule, stages)


def _names(groups: tuple[tuple[str, int], ...]) -> str:
    return " and ".join(f"{name} ({size} classes)" for name, size in groups) or "one class"
