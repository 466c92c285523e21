"""Processor files of Hugging Face folders: how frames become inputs, for all families.

A folder has up to four descriptions, each the fields of one of transformers' processor classes:
preprocessor_config.json (images, the older generation), video_preprocessor_config.json (videos),
and the parts image_processor and video_processor of processor_config.json. transformers 5.24
computes from frames in 0..255

    resize          to `size`: the shorter side, or height and width; Pillow's filters
    centre crop     to `crop_size`; black borders where the frame is smaller
    rescale         times `rescale_factor`; ViViT then subtracts 1 (`offset`)
    normalise       minus `image_mean`, over `image_std`

Every field is honoured or refused by its name. A field that is left out has the default of the
class; a flag that is null is false. Refused is what ends in other than squares of one size, and a
crop larger than the frame, whose black borders can only be a mistake.

Sources: transformers image_processing_backends.py, image_processing_utils.py,
video_processing_utils.py, models/vivit/image_processing_vivit.py.
"""

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converters import huggingface
from converters.formats import PREPROCESSOR, PROCESSOR, VIDEO_PREPROCESSOR
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

Fields = dict[str, Any]

_FILES = {"image": PREPROCESSOR, "video": VIDEO_PREPROCESSOR}
_TYPES = {"image": "image_processor_type", "video": "video_processor_type"}
_OLD_TYPE = "feature_extractor_type"

_BASE: Fields = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": 0.5,
    "image_std": 0.5,
    "default_to_square": False,  # whether a plain number as `size` is both sides
    "do_pad": False,
}
_CLIP = _BASE | {
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_VIVIT = _BASE | {"size": {"shortest_edge": 256}, "rescale_factor": 1 / 127.5, "offset": True}
_SAMPLED = {"do_sample_frames": False, "num_frames": None, "fps": None}
_LLAVA = _CLIP | _SAMPLED | {"do_center_crop": False, "crop_size": None}
# Defaults of transformers' classes, which are all the fields that they look at.
_CLASSES: dict[str, Fields] = {
    "VideoMAEImageProcessor": _BASE,
    "VideoMAEVideoProcessor": _BASE | _SAMPLED,
    "VivitImageProcessor": _VIVIT,
    "VivitVideoProcessor": _VIVIT | _SAMPLED,
    "CLIPImageProcessor": _CLIP,
    "LlavaOnevisionVideoProcessor": _LLAVA | {"size": {"height": 384, "width": 384}},
    # Before transformers had VideoPrism; files of that time are published.
    "VideoPrismVideoProcessor": _LLAVA
    | {"size": {"height": 288, "width": 288}, "do_normalize": False},
}
# They say how the caller's arrays are laid out and where the work is done, or who wrote the file.
_NO_EFFECT = {
    _OLD_TYPE,
    *_TYPES.values(),
    "processor_class",
    "_valid_processor_keys",
    "do_convert_rgb",
    "data_format",
    "input_data_format",
    "device",
    "return_tensors",
    "return_metadata",
    "video_metadata",
    "disable_grouping",
    "image_seq_length",
    "pad_size",
}
# Null is the default here, where the other classes take it as it is.
_VIVIT_NULLS = ("size", "crop_size", "image_mean", "image_std")
_RESIZES = {1: "hf_lanczos", 2: "pil_bilinear", 3: "pil_bicubic"}
_NUMBERS = {name: number for number, name in _RESIZES.items()} | {"pil_lanczos": 1}


@dataclass(frozen=True)
class Family:
    """A family's way with processor files.

    Attributes:
        image, video: classes of files that do not name theirs.
        also: a class that other versions of transformers read such a file with.
        videos_first: whether transformers prefers the descriptions for videos.
        new: file and class of an export without original.
    """

    image: str
    video: str
    videos_first: bool
    new: tuple[str, str]
    also: str | None = None


@dataclass(frozen=True)
class _Section:
    """One description in a folder.

    Attributes:
        file, part: where it is; part is "" where it is the whole file.
        kind: "image" or "video".
        config: its fields.
    """

    file: str
    part: str
    kind: str
    config: Any

    @property
    def name(self) -> str:
        return f"{self.part} in {self.file}" if self.part else self.file


def read(
    files: Mapping[str, Any], family: Family, frames: int | None, notes: list[str]
) -> Fields | None:
    """Reads fields of Preprocessing from a folder's JSON files; None without a processor's.

    Args:
        files: contents of JSON files by name.
        family: of the model.
        frames: the only number of frames that the model takes, if there is one.
        notes: gets one if two descriptions contradict each other.

    Raises:
        UserError: names the field that cannot be honoured.
    """
    sections = _sections(files, family)
    if not sections:
        return None
    used, *others = sections
    fields = _read(used, family)
    if frames and "sampling" in fields and fields["frames"] != frames:
        raise UserError(
            f"{used.name} has num_frames {fields['frames']}; expected {frames}, which the model "
            "takes. Correct the file, or give --frames"
        )
    for other in others:
        try:
            differs = not _same(_read(other, family), fields)
        except UserError:
            differs = True
        if differs:
            notes.append(
                f"{used.name} and {other.name} prepare frames differently: the former is used"
            )
    return fields


def export(
    originals: Mapping[str, bytes],
    facts: Preprocessing,
    family: Family,
    notes: list[str],
    adapt: Callable[[Fields], Fields] = lambda fields: fields,
) -> dict[str, bytes]:
    """Returns the processor files of an export: the originals as they were if they say `facts`.

    Args:
        originals: files of the folder that the model came from, by name.
        facts: of the card.
        family: of the model.
        notes: gets one if transformers cannot prepare frames in this way.
        adapt: from the fields that a file says to those of a card.
    """
    kept = {name: originals[name] for name in (*_FILES.values(), PROCESSOR) if name in originals}
    contents = {name: json.loads(content) for name, content in kept.items()}
    sections = _sections(contents, family)
    if sections and _says(sections[0], family, facts, adapt):
        return kept
    rounds = facts.fit == "crop" and facts.resize == "pil_lanczos"
    if facts.resize not in _NUMBERS or facts.fit == "crop_first" or rounds:
        notes.append(
            f"transformers cannot prepare frames by fit {facts.fit!r} and resize "
            f"{facts.resize!r}: its inputs differ slightly"
        )
    if not sections:
        file, name = family.new
        return {file: huggingface.to_json(_content(name, facts))}
    for section in sections:
        try:
            name = _class_of(section, family)
        except UserError:  # a card may come from elsewhere (--preprocessing)
            name = getattr(family, section.kind)
        content = _content(name, facts)
        whole = contents[section.file] | {section.part: content} if section.part else content
        contents[section.file] = whole
    return {name: huggingface.to_json(content) for name, content in contents.items()}


def _says(
    section: _Section, family: Family, facts: Preprocessing, adapt: Callable[[Fields], Fields]
) -> bool:
    try:
        return _same(adapt(_read(section, family)), vars(facts))
    except UserError:
        return False


def _sections(files: Mapping[str, Any], family: Family) -> list[_Section]:
    """A folder's descriptions, the one that transformers takes first."""
    found = []
    for kind in ("video", "image") if family.videos_first else ("image", "video"):
        part, file = f"{kind}_processor", _FILES[kind]
        if files.get(PROCESSOR, {}).get(part) is not None:
            found.append(_Section(PROCESSOR, part, kind, files[PROCESSOR][part]))
        if file in files:
            found.append(_Section(file, "", kind, files[file]))
    return found


def _class_of(section: _Section, family: Family) -> str:
    """The name in _CLASSES of the class that transformers reads a description with."""
    config = section.config
    if not isinstance(config, Mapping):
        raise UserError(
            f"{section.name} holds {reprlib.repr(config)}; expected the fields of a processor. "
            "Correct or remove it"
        )
    key = next((key for key in (*_TYPES.values(), _OLD_TYPE) if config.get(key)), None)
    if key is None:
        return getattr(family, section.kind)
    name = str(config[key]).removesuffix("Fast").removesuffix("Pil")
    name = name.replace("FeatureExtractor", "ImageProcessor")
    # transformers' AutoVideoProcessor reads an image processor's file in this way.
    for known in (name, name.replace("ImageProcessor", "VideoProcessor")):
        if known in _CLASSES:
            return known
    raise UserError(
        f"{section.name} has {key} {reprlib.repr(config[key])}; expected one of "
        f"{', '.join(_CLASSES)}. Correct or remove the file"
    )


def _read(section: _Section, family: Family) -> Fields:
    """Fields of Preprocessing from one description."""
    name = _class_of(section, family)
    fields = _read_as(name, section)
    named = any(section.config.get(key) for key in (*_TYPES.values(), _OLD_TYPE))
    unsure = family.also and section.kind == "image" and not named
    if unsure and not _same(_read_as(family.also, section), fields):
        raise UserError(
            f"{section.name} names no {_TYPES['image']}, and leaves out fields whose defaults "
            f"depend on it; add it: {name} or {family.also}"
        )
    return fields


def _read_as(name: str, section: _Section) -> Fields:
    """Fields of Preprocessing that the class `name` makes of a description."""
    config, defaults = section.config, _CLASSES[name]
    unknown = sorted(config.keys() - defaults.keys() - _NO_EFFECT)
    if unknown := [key for key in unknown if config[key] is not None]:
        raise UserError(
            f"{section.name} has {unknown[0]} {reprlib.repr(config[unknown[0]])}, a field that "
            f"transformers' {name} does not have; remove the field"
        )
    if name == "VivitImageProcessor":
        config = {k: v for k, v in config.items() if v is not None or k not in _VIVIT_NULLS}
    values = _Values(section.name, name, defaults, config)
    if values.flag("do_pad"):
        raise values.error("do_pad", "false, as models here take frames of one size")
    if config.get("input_data_format") not in (None, "channels_last"):
        raise values.error("input_data_format", "null, as frames here have their channels last")
    return values.geometry() | values.range() | values.sampling()


@dataclass(frozen=True)
class _Values:
    """A description's fields, defaults included, and what they mean here.

    Attributes:
        where: its file.
        name: of its class.
        defaults: of its class.
        stated: by the file.
    """

    where: str
    name: str
    defaults: Fields
    stated: Mapping[str, Any]

    @property
    def fields(self) -> Fields:
        return {**self.defaults, **self.stated}

    def error(self, key: str, expected: str) -> UserError:
        value = reprlib.repr(self.fields[key])
        has = f"has {key} {value}" if key in self.stated else f"has no {key}, so {value}"
        return UserError(f"{self.where} {has}; expected {expected}. Correct or remove the file")

    def flag(self, key: str) -> bool:
        if not isinstance(self.fields[key], bool | None):
            raise self.error(key, "true or false")
        return bool(self.fields[key])

    def number(self, key: str) -> float:
        if not _is_number(self.fields[key]) or self.fields[key] <= 0:
            raise self.error(key, "a positive number")
        return float(self.fields[key])

    def channels(self, key: str, positive: bool = False) -> list[float]:
        """Three numbers, which may be given as one."""
        value = self.fields[key]
        found = [value] * 3 if _is_number(value) else value
        sound = isinstance(found, list) and len(found) == 3 and all(map(_is_number, found))
        if not sound or (positive and min(found) <= 0):
            what = "positive numbers" if positive else "numbers"
            raise self.error(key, f"three {what}, or one for all channels")
        return [float(x) for x in found]

    def sides(self, key: str, square: bool) -> dict[str, int]:
        """{"height", "width"} or {"shortest_edge"}; of a plain number the former if `square`."""
        value, known = self.fields[key], [{"height", "width"}, {"shortest_edge"}]
        expected = "height and width, or shortest_edge, in whole pixels"
        if key == "crop_size":
            known, expected = known[:1], "height and width in whole pixels"
        if _is_whole(value):
            value = {"height": value, "width": value} if square else {"shortest_edge": value}
        if isinstance(value, list) and len(value) == 2:
            value = {"height": value[0], "width": value[1]}
        sound = isinstance(value, Mapping) and set(value) in known
        if not sound or not all(map(_is_whole, value.values())):
            raise self.error(key, expected)
        return dict(value)

    def geometry(self) -> Fields:
        """Fields of Preprocessing that tell which pixels a frame becomes."""
        resample = self.fields["resample"]
        if not _is_whole(resample) or resample not in _RESIZES:
            raise self.error("resample", "1 (LANCZOS), 2 (bilinear) or 3 (bicubic)")
        resizes, crops = self.flag("do_resize"), self.flag("do_center_crop")
        both = self.flag("default_to_square")
        if both and self.name == "VivitImageProcessor":
            raise self.error("default_to_square", f"false, as {self.name} does not look at it")
        target = self.sides("size", both) if resizes else {}
        square = self.sides("crop_size", True) if crops else target
        if "height" not in square:
            raise self.error(
                "do_center_crop",
                "true, or size with height and width and do_resize true, as models here take "
                "squares of one size",
            )
        side, key = square["height"], "crop_size" if crops else "size"
        if square["width"] != side:
            raise self.error(key, "equal height and width, as models here take squares")
        if resizes and min(target.values()) < side:
            raise self.error(
                "crop_size",
                f"at most its size {self.fields['size']}, as transformers would put black borders "
                "around the frames",
            )
        out = {"size": side, "short_side": side, "resize": _RESIZES[resample], "stretch_to": None}
        if "shortest_edge" in target:
            return out | {"fit": "crop", "short_side": target["shortest_edge"]}
        if resample == 1:
            out["resize"] = "pil_lanczos"  # the same, where no side follows from the other
        if set(target.values()) - {side}:
            out["stretch_to"] = (target["height"], target["width"])
        return out | {"fit": "stretch" if resizes else "no_resize", "spatial_views": 1}

    def range(self) -> Fields:
        """Mean and deviation of p / 255 that have the file's effect on pixels p."""
        rescales, offset = self.flag("do_rescale"), 0.0
        white = 255 * self.number("rescale_factor") if rescales else 255.0
        if abs(white - 1) < 1e-9:  # 1/255 is rounded in files
            white = 1.0
        if "offset" in self.fields:
            video = self.name == "VivitVideoProcessor"
            if video and not self.flag("offset"):
                raise self.error("offset", f"true, as {self.name} always subtracts 1")
            if self.flag("offset") and not (video or rescales):
                raise self.error("offset", f"false, as {self.name} demands without do_rescale")
            offset = float(self.flag("offset") and rescales)
        mean, std = [0.0] * 3, [1.0] * 3
        if self.flag("do_normalize"):
            mean, std = self.channels("image_mean"), self.channels("image_std", positive=True)
        if white != 1 or offset:
            mean = [round((offset + m) / white, 12) for m in mean]
            std = [round(s / white, 12) for s in std]
        return {"mean": tuple(mean), "std": tuple(std)}

    def sampling(self) -> Fields:
        """Fields of Preprocessing that tell which frames the processor takes, if it does."""
        frames = self.fields.get("num_frames")
        if frames is not None and not _is_whole(frames):
            raise self.error("num_frames", "a positive whole number")
        if "do_sample_frames" not in self.fields or not self.flag("do_sample_frames"):
            # VideoPrism's files tell its length also where they do not sample.
            prism = self.name in ("LlavaOnevisionVideoProcessor", "VideoPrismVideoProcessor")
            return {"frames": frames} if frames and prism else {}
        if self.fields["fps"] is not None or not frames:
            key = "do_sample_frames" if self.fields["fps"] is None else "fps"
            raise self.error(key, "num_frames alone, as models here take a fixed number of frames")
        # Floats are exact for a power of two.
        sampling = "linspace" if frames.bit_count() == 1 else "linspace_exact"
        return {"sampling": sampling, "frames": frames, "temporal_views": 1}


def _content(name: str, facts: Preprocessing) -> Fields:
    """The fields of the class `name` that say `facts`."""
    defaults = _CLASSES[name]
    video = "do_sample_frames" in defaults
    height, width = facts.stretch_to or (facts.size, facts.size)
    stretches = facts.fit in ("stretch", "crop_first")
    crops = not stretches or facts.stretch_to is not None
    # ViViT's rescaling leads to [-1, 1]; what is left is for its normalisation.
    offset = 1.0 if "offset" in defaults else 0.0
    mean = [(1 + offset) * m - offset for m in facts.mean]
    std = [(1 + offset) * s for s in facts.std]
    out: Fields = {_TYPES["video" if video else "image"]: name}
    if video:
        out["do_sample_frames"] = facts.sampling in ("linspace_exact", "linspace")
    if video and out["do_sample_frames"]:
        out["num_frames"] = facts.frames
    out |= {
        "do_resize": facts.fit != "no_resize",
        "size": {"height": height, "width": width},
        "resample": _NUMBERS.get(facts.resize, defaults["resample"]),
        "do_center_crop": crops,
    }
    if facts.fit == "crop":
        out["size"] = {"shortest_edge": facts.short_side}
    if crops:
        out["crop_size"] = {"height": facts.size, "width": facts.size}
    out |= {"do_rescale": True, "rescale_factor": defaults["rescale_factor"]}
    if name == "VivitImageProcessor":
        out["offset"] = True
    return out | {
        "do_normalize": mean != [0.0] * 3 or std != [1.0] * 3,
        "image_mean": mean,
        "image_std": std,
    }


def _same(fields: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether `facts` says what a file says; evaluation's views are not the file's."""
    return all(
        _equal(value, facts.get(key)) for key, value in fields.items() if not key.endswith("_views")
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        pairs = zip(one, other, strict=False)
        close = all(math.isclose(a, b, rel_tol=0, abs_tol=1e-11) for a, b in pairs)
        return close and len(one) == len(other)
    # Cards that were written before these names were told apart.
    old = {"linspace_exact": "linspace", "hf_lanczos": "pil_lanczos"}
    return one == other or (isinstance(one, str) and old.get(one) == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16
