"""Goldens of X-CLIP: model and tokeniser."""

import dataclasses
import functools
import logging
import pathlib

import numpy as np

from tests.goldens.makers import frame
from tests.goldens.makers.frame import Golden, Original, Texts
from tests.goldens.makers.originals import VIDEOX


@dataclasses.dataclass(frozen=True)
class XCLIP(Golden):
    """A model; checkpoint.pth by the original's `epoch_saving`, with optimizer and schedule.

    Attributes:
        sizes: Arguments of the original's class.
        texts: Number of texts.
    """

    sizes: dict = dataclasses.field(default_factory=dict)
    texts: int = 4
    originals: tuple[Original, ...] = (VIDEOX,)
    packages: tuple[str, ...] = (
        "torch==2.13.0",
        "timm==1.0.31",
        "yacs==0.1.8",
        "ftfy==6.3.1",
        "regex",
        "einops",
    )
    stand_ins: tuple[str, ...] = ("torchvision", "apex", "pandas")

    def build(self):
        import clip  # noqa: F401 - first, as it and models.xclip import each other
        from models.xclip import XCLIP

        return XCLIP(**self.sizes, use_cache=False)

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        import torch

        model = self.build()
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        weights = frame.random_weights(shapes, rng)
        weights["logit_scale"] = np.float32(1.9)
        model.load_state_dict({name: torch.as_tensor(array) for name, array in weights.items()})
        self.save(model, folder)
        size = self.sizes["image_resolution"]
        video = frame.random_video((2, self.sizes["T"], 3, size, size), rng)
        vocabulary, length = self.sizes["vocab_size"], self.sizes["context_length"]
        ids = np.zeros((self.texts, length), np.int64)
        for row, end in zip(ids, (length // 10, 1, length // 4, length - 1), strict=True):
            row[1:end] = rng.integers(1, vocabulary - 2, end - 1)
            row[0], row[end] = vocabulary - 2, vocabulary - 1
        np.savez_compressed(folder / "inputs.npz", pixel_values=video, input_ids=ids)

    def save(self, model, folder: pathlib.Path) -> None:
        """Writes checkpoint.pth with a pickled yacs configuration, as training does."""
        from utils import config, optimizer, tools

        settings = config._C.clone()
        settings.DATA.INPUT_SIZE = self.sizes["image_resolution"]
        settings.DATA.NUM_FRAMES = self.sizes["T"]
        settings.DATA.NUM_CLASSES = self.texts
        adam = optimizer.build_optimizer(settings, model)
        tools.epoch_saving(
            settings,
            epoch=0,
            model=model,
            max_accuracy=12.5,
            optimizer=adam,
            lr_scheduler=optimizer.build_scheduler(settings, adam, 10),
            logger=logging.getLogger("xclip"),
            working_dir=str(folder),
            is_best=False,
        )
        (folder / "ckpt_epoch_0.pth").rename(folder / "checkpoint.pth")

    def compute(self, folder: pathlib.Path) -> dict:
        return frame.both_precisions(functools.partial(self.run, folder))

    def run(self, folder: pathlib.Path, dtype: str) -> dict:
        import torch

        # Trusted: the committed golden, or what `draw` has just written.
        checkpoint = torch.load(folder / "checkpoint.pth", weights_only=False)
        model = self.build().eval()
        model.load_state_dict(checkpoint["model"])
        model = model.to(getattr(torch, dtype))
        inputs = np.load(folder / "inputs.npz")
        video = torch.from_numpy(inputs["pixel_values"]).to(getattr(torch, dtype))
        ids = torch.from_numpy(inputs["input_ids"])
        with torch.no_grad():
            frames, _ = model.encode_image(video.flatten(0, 1))
            features, patches = model.encode_video(video)
            patches = patches.mean(1)
            texts = model.encode_text(ids)
            prompts = model.prompts_generator(texts.expand(len(video), -1, -1), patches)
            outputs = {
                "frame_cls_features": frames.view(*video.shape[:2], -1),
                "video_features": features,
                "img_features_mean": patches,
                "text_features": texts,
                "video_specific_prompts": prompts,
                "logits": model(video, ids),
            }
        return {name: value.numpy() for name, value in outputs.items()}


@dataclasses.dataclass(frozen=True)
class Tokenizer(Texts):
    """Texts and the ids of the original's copy of OpenAI's tokeniser, without start and end."""

    originals: tuple[Original, ...] = (VIDEOX,)
    packages: tuple[str, ...] = ("torch==2.13.0", "timm==1.0.31", "ftfy==6.3.1", "regex")
    stand_ins: tuple[str, ...] = ("torchvision",)

    def encoder(self):
        from clip.simple_tokenizer import SimpleTokenizer

        tokenizer = SimpleTokenizer()
        return lambda text: {"ids": tokenizer.encode(text)}


GOLDENS = {
    "clip_tokenizer": Tokenizer(source="clip_tokenizer"),
    "xclip": XCLIP(
        sizes={
            "embed_dim": 64,
            "image_resolution": 32,
            "vision_layers": 2,
            "vision_width": 64,
            "vision_patch_size": 8,
            "context_length": 77,
            "vocab_size": 200,
            "transformer_width": 128,
            "transformer_heads": 2,
            "transformer_layers": 1,
            "T": 5,
            "mit_layers": 1,
            "prompts_alpha": 0.1,
            "prompts_layers": 2,
        },
    ),
}
