"""Goldens of preprocessing: frames, and what the originals' evaluation transforms make of them.

Those of a real clip need VIDJAX_CLIPS, a folder with mmaction2_demo.mp4: demo/demo.mp4 of
github.com/open-mmlab/mmaction2.
"""

import ast
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile

import numpy as np

from tests.goldens.makers.frame import Golden, MakerError, Original
from tests.goldens.makers.originals import DMVR, SCENIC, VIDEOMAE, VIDEOPRISM, VIDEOX

DEMO_SHA256 = "071e60535eaf0aed475ddac06269ee0cdfc4740158f22d9ccd2c3b93b42aa344"


def demo_clip() -> str:
    """Returns the path of mmaction2's demo clip."""
    path = pathlib.Path(os.environ.get("VIDJAX_CLIPS", ""), "mmaction2_demo.mp4")
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != DEMO_SHA256:
        raise MakerError(
            f"{path} is not mmaction2's demo clip (SHA-256 {DEMO_SHA256}); set VIDJAX_CLIPS to a "
            "folder that has it as mmaction2_demo.mp4"
        )
    return str(path)


def samples(video: np.ndarray, rows: str = "exact_rows") -> dict[str, np.ndarray]:
    """Returns the means of all frames [T, C], and three rows of three frames of [T, H, W, C]."""
    frames = np.array([0, len(video) // 2, len(video) - 1])
    index = np.array([0, video.shape[1] // 3, video.shape[1] - 1])
    return {
        "frame_mean": video.astype(np.float64).mean((1, 2)),
        rows: video[frames][:, index],
        f"{rows}_index": index,
        f"{rows}_frames": frames,
    }


def named(case: str, arrays: dict) -> dict:
    """Returns the arrays by "case/name"."""
    return {f"{case}/{name}": array for name, array in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Preprocessing(Golden):
    """Base: golden.npz holds frames and results.

    Attributes:
        frames: Shape of the random uint8 frames by the name of a case.
    """

    frames: dict = dataclasses.field(default_factory=dict)

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        np.savez_compressed(folder / "golden.npz", **self.draw_frames(rng))

    def draw_frames(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {
            f"{case}/frames": rng.integers(0, 256, shape, np.uint8)
            for case, shape in self.frames.items()
        }

    def compute(self, folder: pathlib.Path) -> dict:
        given = dict(np.load(folder / "golden.npz"))
        given = {name: array for name, array in given.items() if self.is_given(name)}
        return {**given, **self.transform(given)}

    def is_given(self, name: str) -> bool:
        """Returns whether an array of golden.npz is not computed."""
        return name.endswith("/frames")

    def transform(self, given: dict) -> dict:
        """Returns what the original makes of the given arrays."""
        raise NotImplementedError

    def write(self, folder: pathlib.Path, computed: dict) -> None:
        np.savez_compressed(folder / "golden.npz", **computed)

    def read(self, folder: pathlib.Path) -> dict:
        return dict(np.load(folder / "golden.npz"))


@dataclasses.dataclass(frozen=True)
class VideoMAEFrames(Preprocessing):
    """kinetics.py's `VideoClsDataset`; inputs.npz holds the frames, outputs.npz the rest.

    The frames of the validation clip are every fourth from the fifth on; the original draws a
    start. Its test views are those of the first and of the last crop and segment.
    """

    originals: tuple[Original, ...] = (VIDEOMAE,)
    packages: tuple[str, ...] = (
        "torch==2.13.0",
        "opencv-python-headless==5.0.0.93",
        "decord==0.6.0",
        "pandas",
    )
    stand_ins: tuple[str, ...] = ("torchvision", "numpy.lib.function_base")
    frames: dict = dataclasses.field(
        default_factory=lambda: {"synthetic0": (3, 72, 96, 3), "synthetic1": (2, 90, 51, 3)}
    )

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        np.savez_compressed(folder / "inputs.npz", **self.draw_frames(rng))

    def compute(self, folder: pathlib.Path) -> dict:
        return self.transform(dict(np.load(folder / "inputs.npz")))

    def read(self, folder: pathlib.Path) -> dict:
        return Golden.read(self, folder)

    def write(self, folder: pathlib.Path, computed: dict) -> None:
        Golden.write(self, folder, computed)

    def transform(self, given: dict) -> dict:
        import decord

        computed = {}
        for case, short_side, crop in (("synthetic0", 40, 32), ("synthetic1", 48, 40)):
            data = self.dataset("validation", short_side_size=short_side, crop_size=crop)
            clip = data.data_transform(given[f"{case}/frames"])
            computed[f"{case}/output_CTHW"] = clip.numpy()
        indices = np.arange(5, 69, 4)
        reader = decord.VideoReader(demo_clip())
        data = self.dataset("validation", short_side_size=256, crop_size=224)
        clip = data.data_transform(reader.get_batch(indices).asnumpy())
        case = samples(clip.numpy().transpose(1, 2, 3, 0)) | {"frame_indices": indices}
        computed |= named("validation_256_224", case)
        sizes = {"clip_len": 8, "frame_sample_rate": 4, "short_side_size": 224, "crop_size": 224}
        data = self.dataset("test", test_num_segment=2, test_num_crop=3, **sizes)
        for index in (0, len(data) - 1):
            clip, _, _, segment, crop = data[index]
            case = samples(clip.numpy().transpose(1, 2, 3, 0))
            computed |= named(f"test_view_t{segment}_s{crop}", case)
        return computed

    def dataset(self, mode: str, **sizes):
        """Returns the original's data set of the demo clip alone."""
        import kinetics

        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            file.write(f"{demo_clip()} 0\n")
            file.flush()
            return kinetics.VideoClsDataset(file.name, "", mode, **sizes)


@dataclasses.dataclass(frozen=True)
class VideoPrismFrames(Preprocessing):
    """Functions of the two notebooks: "square" of the encoder's, the others of the classifier's."""

    originals: tuple[Original, ...] = (VIDEOPRISM,)
    packages: tuple[str, ...] = ("mediapy==1.2.7", "pillow>=12", "ffmpeg, the program")
    stand_ins: tuple[str, ...] = ("IPython", "matplotlib")
    frames: dict = dataclasses.field(
        default_factory=lambda: {"square": (1, 96, 96, 3), "wide": (1, 60, 84, 3)}
    )

    def transform(self, given: dict) -> dict:
        import mediapy

        read_video = mediapy.read_video
        encoder = notebook_function("videoprism_video_encoder_demo", "read_and_preprocess_video")
        classifier = notebook_function(
            "videoprism_video_classification_demo", "read_and_preprocess_frames"
        )
        computed = {}
        for case, function, size in (("square", encoder, 40), ("wide", classifier, 36)):
            frames = given[f"{case}/frames"]
            mediapy.read_video = lambda _, frames=frames: frames
            computed[f"{case}/output"] = to_uint8(function("", len(frames), (size, size)))
        frames = read_video(demo_clip())
        mediapy.read_video = lambda _: frames
        clip = classifier("", 16, (180, 180))
        indices = np.linspace(0, len(frames), 16, endpoint=False, dtype=np.int32)
        case = samples(to_uint8(clip), "rows")
        case |= {"frame_indices": indices, "frame_mean": clip.astype(np.float64).mean((1, 2))}
        return computed | named("clip", case)


def to_uint8(clip: np.ndarray) -> np.ndarray:
    """Returns the uint8 values that a float clip in 0..1 was divided from."""
    return np.round(clip * 255).astype(np.uint8)


def notebook_function(notebook: str, name: str):
    """Returns a function that a notebook of VideoPrism's checkout defines."""
    import mediapy
    import PIL.Image
    import videoprism

    folder = pathlib.Path(next(iter(videoprism.__path__)), "colabs")
    cells = json.loads((folder / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = next(s for s in ("".join(cell["source"]) for cell in cells) if f"def {name}(" in s)
    body = [node for node in ast.parse(source).body if getattr(node, "name", "") == name]
    scope = {"mediapy": mediapy, "np": np, "PIL": PIL, "NUM_FRAMES": 16, "FRAME_SIZE": 288}
    exec(compile(ast.Module(body, []), notebook, "exec"), scope)
    return scope[name]


@dataclasses.dataclass(frozen=True)
class XCLIPFrames(Preprocessing):
    """Steps of the `val_pipeline` of datasets/build.py; frames of several clips are drawn."""

    originals: tuple[Original, ...] = (VIDEOX,)
    packages: tuple[str, ...] = (
        "torch==2.13.0",
        "timm==1.0.31",
        "mmcv==1.7.2",
        "opencv-python-headless==5.0.0.93",
        "decord==0.6.0",
        "pandas",
    )
    stand_ins: tuple[str, ...] = ("torchvision", "apex")
    frames: dict = dataclasses.field(
        default_factory=lambda: {"synthetic0": (3, 72, 96, 3), "synthetic1": (2, 66, 100, 3)}
    )

    def draw_frames(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        np.random.seed(rng.integers(2**32))  # the original draws from numpy's own state
        sampled = self.sample({"type": "SampleFrames", "multiview": 4})
        return super().draw_frames(rng) | {"three/frame_indices": sampled["frame_inds"]}

    def is_given(self, name: str) -> bool:
        return name.endswith("/frames") or name == "three/frame_indices"

    def transform(self, given: dict) -> dict:
        computed = {}
        for case, views in (("synthetic0", 1), ("synthetic1", 3)):
            frames = list(given[f"{case}/frames"])
            results = {"imgs": frames, "img_shape": frames[0].shape[:2]}
            computed[f"{case}/output"] = self.crops(results, 32, views)
        sampled = self.sample({"type": "SampleFrames", "test_mode": True})
        case = {"frame_indices": sampled["frame_inds"]}
        computed |= named("one", case | samples(self.crops(self.decode(sampled), 224, 1)))
        sampled = self.sample() | {"frame_inds": given["three/frame_indices"]}
        clips = self.crops(self.decode(sampled), 224, 3)
        kept = np.arange(0, len(clips), 4)
        case = {"frame_mean_frames": kept}
        return computed | named("three", case | samples(clips[kept]))

    def sample(self, *steps: dict) -> dict:
        """Returns the pipeline's record of the demo clip after `DecordInit` and `steps`."""
        steps = [step | {"clip_len": 1, "frame_interval": 1, "num_clips": 8} for step in steps]
        record = {"filename": demo_clip(), "tar": False, "start_index": 0, "modality": "RGB"}
        return run_pipeline(record, {"type": "DecordInit"}, *steps)

    def decode(self, record: dict) -> dict:
        return run_pipeline(record, {"type": "DecordDecode"})

    def crops(self, record: dict, size: int, views: int) -> np.ndarray:
        """Returns float32 [N, H, W, C], N the frames of one crop after those of another."""
        from datasets import build

        short_side, crop = (size, "ThreeCrop") if views == 3 else (size * 256 // 224, "CenterCrop")
        record = run_pipeline(
            record | {"modality": "RGB"},
            {"type": "Resize", "scale": (-1, short_side)},
            {"type": crop, "crop_size": size},
            {"type": "Normalize", **build.img_norm_cfg},
            {"type": "FormatShape", "input_format": "NCHW"},
        )
        return record["imgs"].transpose(0, 2, 3, 1)


def run_pipeline(record: dict, *steps: dict) -> dict:
    """Returns the record after steps of X-CLIP's pipeline."""
    np.int = int  # NumPy has it no longer; the original uses it
    from datasets import pipeline
    from mmcv.utils import build_from_cfg

    for step in steps:
        record = build_from_cfg(step, pipeline.PIPELINES)(record)
    return record


@dataclasses.dataclass(frozen=True)
class ViViTFrames(Preprocessing):
    """Scenic's RandAugment, colours, resizes, crops and views as its DMVR graph calls them.

    RandAugment's operations see the frames below each other, with the arguments of
    `level_to_arg`; where a magnitude changes nothing about an operation, it stands there once.
    New random frames may have more values at the edge of an integer than test_resize.py allows.
    """

    originals: tuple[Original, ...] = (SCENIC, DMVR)
    packages: tuple[str, ...] = (
        "tensorflow-cpu==2.15.1",
        "numpy==1.26.4",
        "tf-models-official==2.8.0",
    )
    stand_ins: tuple[str, ...] = (
        "keras.layers.preprocessing",
        "clip",
        "tensorflow_text",
        "sentencepiece",
        "simclr",
    )
    environment: tuple[tuple[str, str], ...] = (
        ("TF_ENABLE_ONEDNN_OPTS", "0"),  # its sums change some values of Sharpness
        ("TF_CPP_MIN_LOG_LEVEL", "2"),
    )

    def draw_frames(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        import tensorflow as tf
        from scenic.dataset_lib import video_ops

        tf.random.set_seed(rng.integers(2**31))  # cutout draws its place
        clip = rng.integers(60, 240, (3, 12, 16, 3), np.uint8)
        cut = clip
        while (cut[0] == 0).all(-1).sum() < 64:  # until the box is inside the frame
            tall = tf.constant(clip.reshape(-1, *clip.shape[2:]))
            cut = video_ops.cutout(tall, 4, len(clip)).numpy().reshape(clip.shape)
        frames = {
            "clip": clip,
            "randaugment/cutout_pad4": cut,
            "resize/frames": rng.integers(0, 256, (2, 21, 31, 3), np.uint8),
        }
        for name, size in (("wide", (11, 13)), ("tall", (13, 11)), ("square", (11, 11))):
            places = np.moveaxis(np.indices(size, np.uint8), 0, -1)
            frames[f"crops/{name}/frames"] = np.pad(places, ((0, 0), (0, 0), (0, 1)))[None]
        return frames

    def is_given(self, name: str) -> bool:
        return name in ("clip", "randaugment/cutout_pad4") or name.endswith("/frames")

    def transform(self, given: dict) -> dict:
        computed = self.randaugment(given["clip"])
        computed |= self.colours(given["clip"])
        computed |= self.resizes(given)
        computed |= self.views()
        return {name: np.asarray(array) for name, array in computed.items()}

    def randaugment(self, clip: np.ndarray) -> dict:
        import tensorflow as tf
        from scenic.dataset_lib import video_ops

        tall, computed = tf.constant(clip.reshape(-1, *clip.shape[2:])), {}
        for magnitude in (5, 15, 20, 25):
            for name in video_ops.NAME_TO_FUNC:
                once = name in ("AutoContrast", "Equalize", "Invert") and magnitude > 5
                if name != "Cutout" and not once:
                    function, _, args = video_ops._parse_policy_info(
                        name, 1.0, magnitude, [128] * 3, 40, 100
                    )
                    changed = function(tall, *args).numpy().reshape(clip.shape)
                    computed[f"randaugment/{name}/{magnitude}"] = changed
        return computed

    def colours(self, clip: np.ndarray) -> dict:
        """Returns float32 results of `tf.image`, in the order of DMVR's `color_default_augm`."""
        import tensorflow as tf

        image, video = tf.image, tf.constant(clip / np.float32(255))

        def every(brightness, saturation, contrast, hue):
            frames = image.adjust_brightness(video, brightness)
            frames = image.adjust_saturation(frames, saturation)
            frames = image.adjust_contrast(frames, contrast)
            return tf.clip_by_value(image.adjust_hue(frames, hue), 0, 1)

        return {
            "color/brightness_saturation": image.adjust_saturation(
                image.adjust_brightness(video, -32 / 255), 1.4
            ),
            "color/saturation0.6": image.adjust_saturation(video, 0.6),
            "color/contrast1.4": image.adjust_contrast(video, 1.4),
            "color/hue0.2": image.adjust_hue(video, 0.2),
            "color/hue-0.13": image.adjust_hue(video, -0.13),
            "color/all": every(-0.12, 1.35, 1.4, -0.17),
            "color/grey": tf.tile(image.rgb_to_grayscale(video), [1, 1, 1, 3]),
        }

    def resizes(self, given: dict) -> dict:
        import tensorflow as tf
        from dmvr import processors
        from scenic.dataset_lib import video_ops

        frames, computed = tf.constant(given["resize/frames"]), {}
        for side in (16, 50):
            computed[f"resize/smallest{side}"] = processors.resize_smallest(frames, side)
        computed["resize/28x33"] = tf.cast(tf.image.resize(frames, (28, 33)), tf.uint8)
        for name in ("wide", "tall", "square"):
            frames = tf.constant(given[f"crops/{name}/frames"])
            computed[f"crops/{name}/three"] = video_ops.three_spatial_crops(frames, 6)
            computed[f"crops/{name}/centre"] = processors.crop_image(frames, 6, 6)
        return computed

    def views(self) -> dict:
        """Returns int16 [views, 32]: indices of a video's frames, one view in its middle."""
        import tensorflow as tf
        from dmvr import processors

        computed = {}
        for length in (1, 5, 31, 32, 60, 63, 64, 65, 100, 250, 300):
            frames = tf.range(length)
            for stride in (1, 2):
                for views in (3, 4, 7):
                    indices = processors.sample_linspace_sequence(frames, views, 32, stride)
                    computed[f"views/{length}/{stride}/{views}"] = indices
                middle = processors.sample_sequence(frames, 32, False, stride)
                computed[f"views/{length}/{stride}/1"] = middle
        return {
            name: np.reshape(indices, (-1, 32)).astype(np.int16)
            for name, indices in computed.items()
        }


GOLDENS = {
    "preprocess_videomae": VideoMAEFrames(),
    "preprocess_videoprism": VideoPrismFrames(),
    "preprocess_vivit": ViViTFrames(),
    "preprocess_xclip": XCLIPFrames(),
}
