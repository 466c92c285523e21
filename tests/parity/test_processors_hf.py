"""Random processor files of all families, ours against transformers', on frames of odd sizes.

A case is a folder with a small model and one description of a processor, in one of the files of
either generation, drawn from all that transformers' classes take: sizes and crops in every
spelling, flags, factors, filters, sampling, fields left out. It must become the same inputs, and an
export must give the file back. Half of the cases have one fault besides, which must be refused by
its name. Runs in half a minute.
"""

import dataclasses
import importlib
import json
import re
import types

import numpy as np
import pytest

from converters import Options, formats
from vidjax import models
from vidjax.card import Card
from vidjax.data.frames.clips import eval_views
from vidjax.data.frames.sampling import view_indices
from vidjax.errors import UserError

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.24")

import transformers  # noqa: E402
from transformers import image_processing_backends, video_processing_utils  # noqa: E402

CASES = 100  # of each class
SIZE, FRAMES, VIDEO = 48, 4, 37
IMAGE, NAMED = "preprocessor_config.json", "image_processor_type"
# Family, class (of image processors the one that uses Pillow) and its module.
CLASSES = {
    "VideoMAEImageProcessor": ("videomae", "videomae.image_processing_pil_videomae", "Pil"),
    "VideoMAEVideoProcessor": ("videomae", "videomae.video_processing_videomae", ""),
    "VivitImageProcessor": ("vivit", "vivit.image_processing_vivit", ""),
    "VivitVideoProcessor": ("vivit", "vivit.video_processing_vivit", ""),
    "CLIPImageProcessor": ("clip", "clip.image_processing_pil_clip", "Pil"),
    "XCLIP": ("xclip", "videomae.image_processing_pil_videomae", "Pil"),
    "LlavaOnevisionVideoProcessor": (
        "videoprism",
        "llava_onevision.video_processing_llava_onevision",
        "",
    ),
}
TOWER = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 128,
}
TEXT = TOWER | {"vocab_size": 600, "bos_token_id": 0, "eos_token_id": 2}
VISION = TOWER | {"image_size": SIZE, "patch_size": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a small model of each family."""
    mit = {f"mit_{key}": value for key, value in TOWER.items()} | {"mit_intermediate_size": 256}
    clip = {"projection_dim": 64, "text_config": TEXT}
    prism = {"num_spatial_layers": 1, "num_temporal_layers": 1, "tubelet_size": [1, 16, 16]}
    prism |= {key: value for key, value in VISION.items() if key not in ("num_hidden_layers",)}
    del prism["patch_size"]
    sizes = {
        "videomae": ("VideoMAEModel", VISION | {"num_frames": FRAMES}),
        "vivit": ("VivitModel", VISION | {"num_frames": FRAMES, "tubelet_size": [2, 16, 16]}),
        "clip": ("CLIPModel", clip | {"vision_config": VISION}),
        "xclip": (
            "XCLIPModel",
            clip
            | {"vision_config": VISION | mit | {"num_frames": FRAMES}}
            | {"prompt_layers": 1, "prompt_num_attention_heads": 1},
        ),
        "videoprism": ("VideoPrismVisionModel", prism | {"num_frames": FRAMES}),
    }
    sizes["vivit"][1].pop("patch_size")
    root = tmp_path_factory.mktemp("models")
    for family, (name, fields) in sizes.items():
        model_class = getattr(transformers, name)
        model_class(model_class.config_class(**fields)).save_pretrained(root / family)
    return root


@pytest.fixture(scope="module")
def videos():
    """Smooth moving frames [37, H, W, 3] with edges, of odd sizes."""
    rng, out = np.random.default_rng(0), []
    for height, width in ((257, 341), (301, 223), (101, 135)):
        y, x = np.mgrid[:height, :width] / 100
        t = np.arange(VIDEO)[:, None, None, None] / 10
        frequency = rng.uniform(1, 25, (2, 3, 4))
        waves = np.sin(y[..., None, None] * frequency[0] + x[..., None, None] * frequency[1])
        picture = waves.mean(-1) + np.sign(np.sin(8 * x + 5 * y))[..., None] / 2
        moved = picture[None] * np.cos(t + picture[None])
        out.append(np.clip(128 + 110 * moved, 0, 255).astype(np.uint8))
    return out


@pytest.fixture(autouse=True)
def torchvision(monkeypatch):
    """The functions of torchvision that transformers calls, where it is not installed.

    They are PyTorch's: torchvision/transforms/v2/functional/_geometry.py calls the same ones.
    """
    if transformers.utils.is_torchvision_available():
        return

    def resize(image, size, interpolation, antialias):
        flat = image.reshape(-1, *image.shape[-3:])
        flat = torch.nn.functional.interpolate(
            flat, list(size), mode=interpolation, align_corners=False, antialias=antialias
        )
        return flat.reshape(*image.shape[:-2], *size)

    def normalize(image, mean, std, inplace):
        mean, std = (torch.as_tensor(x, dtype=torch.float32) for x in (mean, std))
        return (image - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)

    functions = types.SimpleNamespace(
        resize=resize,
        normalize=normalize,
        crop=lambda image, top, left, h, w: image[..., top : top + h, left : left + w],
        grayscale_to_rgb=lambda image: image,
        InterpolationMode=types.SimpleNamespace(LANCZOS="lanczos", BICUBIC="bicubic"),
    )
    modes = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
    for module in (image_processing_backends, video_processing_utils):
        monkeypatch.setattr(module, "tvF", functions, raising=False)
    monkeypatch.setattr(image_processing_backends, "pil_torch_interpolation_mapping", modes)
    monkeypatch.setattr(
        image_processing_backends, "is_torchvision_greater_or_equal", lambda version: True
    )


class Draw:
    """A random processor's fields, and the name of the one that is at fault, if one is."""

    def __init__(self, name, seed):
        self.rng = np.random.default_rng([list(CLASSES).index(name), seed])
        self.name = "VideoMAEImageProcessor" if name == "XCLIP" else name
        self.video = self.name.endswith("VideoProcessor")
        self.fields = self.geometry() | self.range()
        if self.video:
            self.fields |= self.sampling()
        self.harmless()
        self.fault = self.spoil() if self.chance(0.5) else None
        self.leave_out()

    def chance(self, probability):
        return self.rng.random() < probability

    def one(self, *values):
        return values[self.rng.integers(len(values))]

    def spelled(self, height, width):
        """Height and width as a dict, a list, or (where it means that) a number."""
        forms = [{"height": height, "width": width}, [height, width]]
        return self.one(*forms, *([height] if height == width else []))

    def geometry(self):
        crop = {"do_center_crop": True, "crop_size": self.spelled(SIZE, SIZE)}
        fields = {"do_resize": True, "resample": self.one(1, 2, 3)}
        side = self.one(48, 49, 56, 64, 71, 96)
        self.fit = self.one("crop", "crop", "stretch", "stretch_and_crop", "no_resize")
        match self.fit:
            case "crop":
                return fields | crop | {"size": self.one({"shortest_edge": side}, side)}
            case "stretch":
                size = self.one({"height": SIZE, "width": SIZE}, [SIZE, SIZE])
                return fields | {"size": size, "do_center_crop": self.one(False, None)}
            case "stretch_and_crop":
                size = {"height": side, "width": self.one(48, 57, 80)}
                return fields | crop | {"size": self.one(size, list(size.values()))}
        return fields | crop | {"do_resize": self.one(False, None), "size": {"shortest_edge": side}}

    def range(self):
        fields = {
            "do_rescale": self.chance(0.8) or self.one(False, None),
            "rescale_factor": self.one(1 / 255, 1 / 255, 0.003921569, 1 / 127.5, 0.01, 1),
            "do_normalize": self.chance(0.7) or self.one(False, None),
            "image_mean": self.one([0.485, 0.456, 0.406], [0.5] * 3, 0.5, 0),
            "image_std": self.one([0.229, 0.224, 0.225], [0.5] * 3, 0.25, 1),
        }
        if self.name == "VivitImageProcessor":
            fields["offset"] = bool(fields["do_rescale"]) and self.one(True, False, None)
        return fields

    def sampling(self):
        if self.chance(0.6):
            return {"do_sample_frames": self.one(False, None), "fps": self.one(2, None)}
        free = "Llava" in self.name
        frames = self.one(3, 4, 7, 24) if free else FRAMES
        return {"do_sample_frames": True, "num_frames": frames, "fps": None}

    def harmless(self):
        for key, value in {
            "do_convert_rgb": self.one(True, False, None),
            "data_format": "channels_first",
            "return_tensors": None,
            "do_pad": self.one(False, None),
            "some_field_of_another_version": None,
            "processor_class": "SomeProcessor",
        }.items():
            if self.chance(0.2):
                self.fields[key] = value
        has = self.name != "VivitImageProcessor"
        if has and self.fit == "stretch_and_crop" and self.chance(0.3):
            side = self.one(48, 60)
            self.fields |= {"size": side, "default_to_square": True}

    def spoil(self):
        """Makes one field impossible, and the flags such that it counts; returns its name."""
        faults = {
            "size": [{"longest_edge": 48}, {"shortest_edge": 48, "longest_edge": 60}, -16, 0, "48",
                     {"shortest_edge": 48.5}, {}, {"height": 48}, [48], True,
                     {"max_height": 48, "max_width": 48}],
            "crop_size": [{"height": 48, "width": 47}, {"shortest_edge": 48}, 200, 0, "48", [48]],
            "do_center_crop": ["false", 1],
            "do_resize": ["true", 0],
            "resample": [0, 4, 5, 9, "bilinear", 2.0],
            "rescale_factor": [0, -1, None, "1/255", [1]],
            "image_mean": [[0.5], [0.5] * 4, "0.5", [None] * 3, [0.5, "0.5", 0.5], {"r": 0.5}],
            "image_std": [0, [0.5, 0.0, 0.5], [0.5] * 2, [], "0.5", -1],
            "do_normalize": ["false"],
            "do_pad": [True],
            "antialias": [False],
            "size_divisor": [32],
        }  # fmt: skip
        if self.name == "VivitImageProcessor":  # whose null is the default
            faults["default_to_square"] = [True]
        else:
            for key in ("size", "crop_size", "image_mean", "image_std"):
                faults[key].append(None)
        if self.video:
            faults |= {"num_frames": [0, -1, 2.5, "4"], "fps": [2, 8.5]}
        if self.name == "VivitVideoProcessor":
            faults["offset"] = [False]
        key = self.one(*faults)
        value = self.one(*faults[key])
        counts = {"do_resize": True, "do_rescale": True, "do_normalize": True}
        if key == "crop_size":
            counts |= {"do_center_crop": True, "size": {"shortest_edge": 64}}
        if key in ("num_frames", "fps"):
            counts |= {"do_sample_frames": True, "num_frames": FRAMES, "fps": None}
        self.fields |= counts | {key: value}
        if self.fit == "no_resize":
            self.fields["do_center_crop"] = self.fields.get("do_center_crop", True)
        return key

    def leave_out(self):
        """Leaves out some of what the class has a default for that makes no difference in kind."""
        free = ["resample", "rescale_factor", "do_normalize", "image_mean", "image_std"]
        if self.fields["do_rescale"] is True:
            free.append("do_rescale")
        if self.fields["do_resize"] is True:
            free.append("do_resize")
        if self.fields["do_center_crop"] is True and "Llava" not in self.name:
            free.append("do_center_crop")
        if self.fit in ("crop", "no_resize"):
            free.append("size")
        for key in free:
            if key != self.fault and key in self.fields and self.chance(0.15):
                del self.fields[key]

    def write(self, folder, model):
        """Writes the file and returns its path; the weights are those of `model`."""
        for file in model.iterdir():
            (folder / file.name).symlink_to(file)
        kind = "video" if self.video else "image"
        suffix = "Fast" if kind == "image" and "Vivit" not in self.name else ""
        key, value = f"{kind}_processor_type", self.name + self.one("", "", suffix)
        if kind == "image" and self.chance(0.2):
            key = "feature_extractor_type"
            value = self.name.replace("ImageProcessor", "FeatureExtractor")
        content = self.fields | {key: value}
        path = folder / ("video_" * self.video + IMAGE)
        if self.chance(0.25):
            path, content = folder / "processor_config.json", {f"{kind}_processor": content}
        path.write_text(json.dumps(content, indent=3))
        return path


def ours(name, path, video, samples):
    """Inputs [T, H, W, 3] by the card that the folder becomes, and whether an export keeps it."""
    family, _, _ = CLASSES[name]
    module = importlib.import_module(f"converters.{'xclip' if family == 'clip' else family}")
    conversion = module.describe(formats.open_source(path.parent), Options())
    facts = conversion.preprocessing
    naming = json.loads(json.dumps(conversion.naming))
    model = models.config_of(models.build(**conversion.model))
    card = Card(model, facts, None, {"format": conversion.format, "naming": naming})
    content = path.read_bytes()
    # As model.json gives it back.
    again = dataclasses.replace(facts, **json.loads(json.dumps(dataclasses.asdict(facts))))
    assert again == facts
    originals = {path.name: content, "config.json": (path.parent / "config.json").read_bytes()}
    kept = module.export(card, "hf", originals).files
    processors = {name for name in kept if "processor" in name}
    clip = video[:FRAMES]
    if samples:
        (indices,) = view_indices(facts.sampling, len(video), facts.frames, facts.stride, 1)
        clip = video[indices]
    (clip,) = eval_views(clip, facts)
    pixels = (clip / np.float32(255) - np.float32(facts.mean)) / np.float32(facts.std)
    same = processors == {path.name} and kept[path.name] == content
    return pixels, 255 * np.abs(np.float32(facts.std)), same


def theirs(name, path, video):
    """Inputs [T, H, W, 3] of transformers' class, and whether it chose the frames."""
    _, module, suffix = CLASSES[name]
    class_name = ("VideoMAEImageProcessor" if name == "XCLIP" else name) + suffix
    module = importlib.import_module(f"transformers.models.{module}")
    processor = getattr(module, class_name).from_pretrained(path.parent)
    samples = bool(getattr(processor, "do_sample_frames", False))
    frames = video if samples else video[:FRAMES]
    if class_name.endswith("VideoProcessor"):
        metadata = {"total_num_frames": len(frames), "fps": 30.0}
        out = processor(frames, video_metadata=metadata, return_tensors="np")
        (pixels,) = out.get("pixel_values", out.get("pixel_values_videos"))
    else:
        pixels = processor(list(frames), return_tensors="np")["pixel_values"]
    pixels = np.asarray(pixels, np.float32)
    return pixels.reshape(-1, *pixels.shape[-3:]).transpose(0, 2, 3, 1), samples


@pytest.mark.parametrize("name", CLASSES)
def test_random_processors(name, folders, videos, tmp_path, record_property):
    counts = {"equal": 0, "refused": 0}
    worst = 0.0
    for seed in range(CASES):
        draw, video = Draw(name, seed), videos[seed % len(videos)]
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = draw.write(folder, folders / CLASSES[name][0])
        case = f"seed {seed}: {path.read_text()}"
        if draw.fault:
            with pytest.raises(UserError) as refused:
                ours(name, path, video, False)
            assert re.search(rf"{path.name} has (no )?{draw.fault}\b", str(refused.value)), case
            counts["refused"] += 1
            continue
        wanted, samples = theirs(name, path, video)
        pixels, level, same = ours(name, path, video, samples)
        assert same, case
        assert pixels.shape == wanted.shape, case
        error = np.abs(pixels - wanted)
        if draw.video:
            # PyTorch rounds between its passes otherwise than Pillow does.
            levels = error * level
            worst = max(worst, float(levels.max()))
            assert levels.max() < 1.01, case
            assert levels.mean() < 0.02, case
        else:
            relative = error.max() / max(1, np.abs(wanted).max())
            worst = max(worst, float(relative))
            assert relative < 1e-6, case  # rounding: the bytes are the same
        counts["equal"] += 1
    record_property("counts", counts)
    print(f"\n{name}: {counts}, worst {worst:.3g} {'levels' if draw.video else 'of the largest'}")
    assert min(counts.values()) > CASES / 4


def test_fields_that_contradict_each_other_are_refused_as_transformers_does(tmp_path, folders):
    """Fields of ViViT's class of images, which subtracts 1 from what it rescales only."""
    path = tmp_path / IMAGE
    for file in (folders / "vivit").iterdir():
        (tmp_path / file.name).symlink_to(file)
    fields = {NAMED: "VivitImageProcessor", "crop_size": SIZE, "do_rescale": False}
    path.write_text(json.dumps(fields))
    video = np.zeros((FRAMES, 60, 80, 3), np.uint8)
    with pytest.raises(ValueError, match="do_rescale must also be set"):
        theirs("VivitImageProcessor", path, video)
    with pytest.raises(UserError, match="has no offset, so True; expected false"):
        ours("VivitImageProcessor", path, video, False)
