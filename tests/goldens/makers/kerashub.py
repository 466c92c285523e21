"""Goldens of KerasHub's VideoPrism; preset/ is what `save_to_preset` writes."""

import dataclasses
import functools
import pathlib

import numpy as np

from tests.goldens.makers import frame
from tests.goldens.makers.frame import Golden, Original
from tests.goldens.makers.originals import KERASHUB


@dataclasses.dataclass(frozen=True)
class Backbone(Golden):
    """A `VideoPrismBackbone`, with texts where `sizes` has text layers.

    KerasHub computes the softmax in float32 in its float64 run, too; hence its tolerance.
    """

    sizes: dict = dataclasses.field(default_factory=dict)
    originals: tuple[Original, ...] = (KERASHUB,)
    packages: tuple[str, ...] = ("keras==3.15.1", "jax==0.10.2", "h5py>=3.13")
    environment: tuple[tuple[str, str], ...] = (("KERAS_BACKEND", "jax"),)
    tolerance_f64: float = 5e-6

    def draw(self, folder: pathlib.Path, rng: np.random.Generator) -> None:
        import keras_hub

        model = keras_hub.models.VideoPrismBackbone(attention_logit_soft_cap=50.0, **self.sizes)
        shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
        weights = frame.random_weights(shapes, rng, frame.flax_fan_in)
        for weight in model.weights:
            weight.assign(weights[weight.path])
        model.save_to_preset(str(folder / "preset"))
        converter = keras_hub.layers.VideoPrismImageConverter(
            image_size=self.sizes["image_shape"][:2], scale=1 / 255
        )
        converter.save_to_preset(str(folder / "preset"))
        shape = (2, self.sizes["num_frames"], *self.sizes["image_shape"])
        inputs = {"pixel_values": frame.random_video(shape, rng, unit=True)}
        if self.sizes.get("num_text_layers"):
            ids = rng.integers(1, self.sizes["vocabulary_size"], (2, 10)).astype(np.int32)
            inputs["padding_mask"] = np.int32(np.arange(10) < [[6], [10]])  # 1 = valid
            inputs["token_ids"] = ids * inputs["padding_mask"]
        np.savez_compressed(folder / "inputs.npz", **inputs)

    def compute(self, folder: pathlib.Path) -> dict:
        return frame.both_precisions(functools.partial(self.run, folder))

    def run(self, folder: pathlib.Path, dtype: str) -> dict:
        import jax
        import keras
        import keras_hub

        with jax.enable_x64(dtype == "float64"):
            model = keras_hub.models.VideoPrismBackbone.from_preset(
                str(folder / "preset"), dtype=dtype
            )
            layers = {"spatial_features": model.spatial_encoder.output}
            if isinstance(model.output, dict):
                layers["spatiotemporal_features"] = model.factorized_decoding.output
                layers |= model.output
            else:
                layers["features"] = model.output
            inputs = dict(np.load(folder / "inputs.npz"))
            inputs["pixel_values"] = inputs["pixel_values"].astype(dtype)
            results = keras.Model(model.input, layers)(
                inputs if isinstance(model.input, dict) else inputs["pixel_values"]
            )
            return {name: np.asarray(value) for name, value in results.items()}


GOLDENS = {
    "kerashub_videoprism_video": Backbone(
        sizes={
            "num_frames": 4,
            "patch_size": 8,
            "hidden_dim": 32,
            "intermediate_dim": 128,
            "num_heads": 2,
            "num_spatial_layers": 3,
            "num_temporal_layers": 1,
            "num_auxiliary_layers": 0,
            "image_shape": (40, 40, 3),
        },
    ),
    "kerashub_videoprism_multimodal": Backbone(
        sizes={
            "num_frames": 6,
            "patch_size": 8,
            "hidden_dim": 24,
            "intermediate_dim": 96,
            "num_heads": 4,
            "num_spatial_layers": 2,
            "num_temporal_layers": 1,
            "num_auxiliary_layers": 2,
            "vocabulary_size": 211,
            "num_text_layers": 3,
            "image_shape": (24, 24, 3),
        },
    ),
}
