"""Goldens of VideoMAE and VideoMAEv2: pre-training with its loss, and fine-tuned classifiers."""

import argparse
import contextlib
import dataclasses
import functools
import importlib
import pathlib

import numpy as np

from tests.goldens.makers import frame
from tests.goldens.makers.frame import Golden
from tests.goldens.makers.originals import VIDEOMAE, VIDEOMAEV2


class _Scaler:
    """Loss scaler that records the loss and updates nothing."""

    def __call__(self, loss, *args, **kwargs):
        self.loss = loss.detach().numpy()
        return 0.0

    def state_dict(self):
        return {"scale": 1.0}


@dataclasses.dataclass(frozen=True)
class VideoMAE(Golden):
    """Base of the two kinds: checkpoint-0.pth by the original's `utils.save_model`.

    Attributes:
        frames: Frames of a clip.
        sizes: Arguments of the original's model class.
        model_class: Its name.
    """

    frames: int = 16
    sizes: dict = dataclasses.field(default_factory=dict)
    model_class: str = ""
    packages: tuple[str, ...] = (
        "torch==2.13.0",
        "timm==1.0.31",
        "einops==0.8.2",
        "tensorboardX>=2.6",
    )
    stand_ins: tuple[str, ...] = ("torchvision", "torch._six", "pandas", "decord")

    @property
    def package(self) -> str:
        return "models." if self.originals == (VIDEOMAEV2,) else ""

    def module(self, name: str):
        return importlib.import_module(self.package + name)

    def build(self):
        import torch

        name = (
            "modeling_pretrain" if self.model_class.startswith("Pretrain") else "modeling_finetune"
        )
        norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
        sizes = {"mlp_ratio": 4, "qkv_bias": True, "norm_layer": norm, **self.sizes}
        return getattr(self.module(name), self.model_class)(**sizes)

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        import torch
        import utils

        model = self.build()
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        weights = frame.random_weights(shapes, rng)
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        utils.save_model(
            argparse.Namespace(output_dir=str(folder), **self.namespace()),
            epoch=0,
            model=model,
            model_without_ddp=model,
            optimizer=torch.optim.AdamW(model.parameters()),
            loss_scaler=_Scaler(),
        )
        size = self.sizes["img_size"]
        video = frame.random_video((2, 3, self.frames, size, size), rng)
        np.savez_compressed(folder / "inputs.npz", pixel_values=video, **self.masks(rng))

    def namespace(self) -> dict:
        """Returns arguments of the training script that readers of the file may look at."""
        raise NotImplementedError

    def masks(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {}

    def compute(self, folder: pathlib.Path) -> dict:
        return frame.both_precisions(functools.partial(self.run, folder))

    def run(self, folder: pathlib.Path, dtype: str) -> dict:
        """Returns the outputs of one precision; position tables stay those of float32."""
        import torch

        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(folder / "checkpoint-0.pth", weights_only=True)
        model = self.build().eval()
        model.load_state_dict(checkpoint["model"])
        inputs = {name: torch.from_numpy(a) for name, a in np.load(folder / "inputs.npz").items()}
        torch.set_default_dtype(getattr(torch, dtype))
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.get_default_dtype())
        try:
            return self.outputs(model.to(torch.get_default_dtype()), **inputs)
        finally:
            torch.set_default_dtype(torch.float32)

    def outputs(self, model, pixel_values, **masks) -> dict:
        """Returns what the model computes of its inputs."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Pretraining(VideoMAE):
    """Masked autoencoder; labels and loss come from the original's `train_one_epoch`."""

    model_class: str = "PretrainVisionTransformer"

    def namespace(self) -> dict:
        return {
            "model": "custom",
            "mask_ratio": 0.75,
            "mask_type": "tube",
            "input_size": self.sizes["img_size"],
            "num_frames": self.frames,
            "decoder_depth": self.sizes["decoder_depth"],
            "normlize_target": True,
        }

    def masks(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        side = self.sizes["img_size"] // self.sizes["patch_size"]
        grid = (self.frames // 2, side, side)
        v2 = self.originals == (VIDEOMAEV2,)
        masking = importlib.import_module("dataset." * v2 + "masking_generator")
        np.random.seed(rng.integers(2**32))  # the generators draw from numpy's own state
        tubes = masking.TubeMaskingGenerator(grid, 0.75)
        masks = {"bool_masked_pos": np.stack([tubes().ravel() for _ in range(2)]).astype(bool)}
        if v2:
            cells = masking.RunningCellMaskingGenerator(grid, 0.5)
            masks["decode_masked_pos"] = np.stack([cells().ravel() for _ in range(2)]).astype(bool)
        return masks

    def outputs(self, model, pixel_values, bool_masked_pos, decode_masked_pos=None) -> dict:
        import torch

        masks = [bool_masked_pos]
        outputs = {}
        with torch.no_grad():
            outputs["encoder_features"] = model.encoder(pixel_values, bool_masked_pos).numpy()
            if decode_masked_pos is not None:
                whole = model(pixel_values, bool_masked_pos)
                outputs["predictions_without_decoder_mask"] = whole.numpy()
                masks.append(decode_masked_pos)
            outputs["predictions"] = model(pixel_values, *masks).numpy()
        for name, normalise in (("norm", True), ("raw", False)):
            labels, loss = self.train(model, (pixel_values, *masks), normalise)
            outputs[f"labels_{name}"], outputs[f"loss_{name}"] = labels, loss
        return outputs

    def train(self, model, batch, normalise: bool) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels and loss of one step of the original's loop, without an update."""
        import engine_for_pretraining
        import torch

        labels = []

        class Predictions(torch.Tensor):
            """Predictions that record the tensor that they are compared with."""

            @classmethod
            def __torch_function__(cls, function, types, args=(), kwargs=None):
                kwargs = kwargs or {}
                others = [
                    x
                    for x in (*args, *kwargs.values())
                    if isinstance(x, torch.Tensor) and not isinstance(x, cls)
                ]
                labels.extend(others[:1])
                with torch._C.DisableTorchFunctionSubclass():
                    return function(*args, **kwargs)

        class Recorded(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, *inputs):
                return self.model(*inputs).as_subclass(Predictions)

        scaler, torch.cuda.synchronize = _Scaler(), lambda: None
        with open("/dev/null", "w") as quiet, contextlib.redirect_stdout(quiet):
            engine_for_pretraining.train_one_epoch(
                Recorded(),
                [batch],
                torch.optim.AdamW(model.parameters()),
                torch.device("cpu"),
                epoch=0,
                loss_scaler=scaler,
                patch_size=self.sizes["patch_size"],
                normlize_target=normalise,
                start_steps=0,
            )
        model.eval()
        return labels[0].numpy(), scaler.loss


@dataclasses.dataclass(frozen=True)
class Classifier(VideoMAE):
    """Fine-tuned classifier: hidden states before any norm, features before the head, logits."""

    model_class: str = "VisionTransformer"

    def namespace(self) -> dict:
        return {
            "model": "custom",
            "nb_classes": self.sizes["num_classes"],
            "input_size": self.sizes["img_size"],
            "num_frames": self.frames,
            "tubelet_size": 2,
            "use_mean_pooling": self.sizes.get("use_mean_pooling", True),
        }

    def outputs(self, model, pixel_values) -> dict:
        import torch

        outputs = {}
        for name, block in (("first", model.blocks[0]), ("last", model.blocks[-1])):
            block.register_forward_hook(
                lambda module, args, result, name=name: outputs.update(
                    {f"{name}_block_output": result.numpy()}
                )
            )
        with torch.no_grad():
            outputs["features"] = model.forward_features(pixel_values).numpy()
            outputs["logits"] = model(pixel_values).numpy()
        return outputs


GOLDENS = {
    "videomae_pretrain": Pretraining(
        originals=(VIDEOMAE,),
        frames=16,
        sizes={
            "img_size": 18,
            "patch_size": 6,
            "encoder_embed_dim": 40,
            "encoder_depth": 3,
            "encoder_num_heads": 4,
            "decoder_num_classes": 216,
            "decoder_embed_dim": 35,
            "decoder_depth": 2,
            "decoder_num_heads": 5,
        },
    ),
    "videomae_finetune_meanpool": Classifier(
        originals=(VIDEOMAE,),
        frames=10,
        sizes={
            "img_size": 32,
            "patch_size": 8,
            "num_classes": 7,
            "embed_dim": 36,
            "depth": 3,
            "num_heads": 4,
            "all_frames": 10,
        },
    ),
    "videomae_finetune_nopool": Classifier(
        originals=(VIDEOMAE,),
        frames=6,
        sizes={
            "img_size": 36,
            "patch_size": 12,
            "num_classes": 5,
            "embed_dim": 32,
            "depth": 3,
            "num_heads": 2,
            "all_frames": 6,
            "use_mean_pooling": False,
        },
    ),
    "videomaev2_pretrain": Pretraining(
        originals=(VIDEOMAEV2,),
        frames=12,
        sizes={
            "img_size": 24,
            "patch_size": 6,
            "encoder_embed_dim": 40,
            "encoder_depth": 3,
            "encoder_num_heads": 5,
            "decoder_num_classes": 216,
            "decoder_embed_dim": 32,
            "decoder_depth": 1,
            "decoder_num_heads": 2,
            "all_frames": 12,
        },
    ),
    "videomaev2_finetune": Classifier(
        originals=(VIDEOMAEV2,),
        frames=8,
        sizes={
            "img_size": 28,
            "patch_size": 14,
            "num_classes": 6,
            "embed_dim": 33,
            "depth": 2,
            "num_heads": 3,
            "mlp_ratio": 48 / 11,
            "all_frames": 8,
        },
    ),
}
