"""VideoPrism's golden files and presets, and folders of Hugging Face's layout."""

import functools
import shutil

import numpy as np
import pytest

from converters import formats, videoprism
from converters.mapping import from_params
from tests.support import converting, hugging_face
from tests.support.goldens import GOLDENS

NPZ = ("videoprism_video", "videoprism_lvt", "videoprism_classifier")

described = functools.partial(converting.described, videoprism)
written = functools.partial(converting.written, videoprism)


@functools.cache
def converted(case):
    """Card and parameters of a golden npz file."""
    return described(GOLDENS / case / "checkpoint.npz")[:2]


def lvt_tensors():
    return formats.read(GOLDENS / "videoprism_lvt/checkpoint.npz")


KERAS = ("kerashub_videoprism_video", "kerashub_videoprism_multimodal")
EXTRA = "layers/video_prism_encoder_2/layer_norm/vars/"


def preset(case, folder, change=lambda tensors: tensors):
    """A copy of a golden preset, with other tensors."""
    pytest.importorskip("h5py")
    shutil.copytree(GOLDENS / case / "preset", folder)
    tensors = dict(formats.read(folder / formats.KERAS_WEIGHTS))
    formats.write_h5(folder / formats.KERAS_WEIGHTS, change(tensors))
    return folder


def hf_tensors(npz, exponent=1.0, length=64):
    """The tensors of transformers' VideoPrismClipModel, written out by hand."""
    t = {name.removeprefix("params/"): array for name, array in npz.items()}
    out = {}

    def put(name, weight, bias=None):
        out[f"{name}.weight"] = np.ascontiguousarray(weight)
        if bias is not None:
            out[f"{name}.bias"] = np.ascontiguousarray(bias)

    def norm(name, source, layer=...):
        put(name, t[f"{source}/scale"][layer], t[f"{source}/bias"][layer])

    def attention(name, source, layer=...):
        for ours in ("query", "key", "value"):
            w, b = (t[f"{source}/{ours}/{x}"][layer] for x in "wb")
            put(f"{name}.{ours[0]}_proj", w.reshape(len(w), -1).T, b.reshape(-1))
        w, b = (t[f"{source}/post/{x}"][layer] for x in "wb")
        put(f"{name}.o_proj", w.reshape(len(w), -1), b)

    def layers(name, source):
        source += "/x_layers"
        for i in range(len(t[f"{source}/layer_norm/scale"])):
            norm(f"{name}.{i}.layernorm_before", f"{source}/layer_norm", i)
            norm(f"{name}.{i}.layernorm_after", f"{source}/ff_layer/layer_norm", i)
            attention(f"{name}.{i}.attention", f"{source}/self_attention", i)
            for k in (1, 2):
                fc = f"{source}/ff_layer/ffn_layer{k}/linear"
                put(f"{name}.{i}.mlp.fc{k}", t[f"{fc}/kernel"][i].T, t[f"{fc}/bias"][i])

    vision, video, text = "video_model.vision_model.", "video_model.", "text_model."
    encoder, embed = "vision_encoder/", f"{text}embeddings."
    kernel = t[f"{encoder}patch_projection/linear/kernel"].reshape(8, 8, 3, -1)
    put(
        f"{vision}spatial_embeddings.patch_embeddings.projection",
        kernel.transpose(3, 2, 0, 1)[:, :, None],
        t[f"{encoder}patch_projection/linear/bias"],
    )
    for k, stage in enumerate(("spatial", "temporal"), 1):
        table = t[f"{encoder}{stage}_pos_emb/emb_var"][None]
        out[f"{vision}{stage}_embeddings.position_embeddings"] = table
        layers(f"{vision}{stage}_layers", f"{encoder}{stage}_encoder/transformers_stack")
        norm(f"{vision}layernorm{k}", f"{encoder}{stage}_ln")
    layers(f"{video}auxiliary_layers", "auxiliary_encoder/transformers_stack")
    pooler = "contrastive_vision_pooler"
    out[f"{video}head.pooling_attention_query"] = t[f"{pooler}/pooling_attention_query"][None]
    out[f"{video}head.per_dim_scale"] = t[f"{pooler}/pooling_attention/per_dim_scale/per_dim_scale"]
    attention(f"{video}head", f"{pooler}/pooling_attention")
    norm(f"{video}head_layernorm", f"{pooler}/pooling_attention_layer_norm")
    put(f"{embed}token_embedding", t["text_encoder/token_emb/emb_var"])
    out[f"{embed}cls_emb"] = t["text_encoder/cls_emb"]
    layers(f"{text}layers", "text_encoder/unimodal_transformer")
    norm(f"{text}layernorm", "text_encoder/unimodal_ln")
    # As a float32 computation has it, not rounded from float64.
    rates = np.float32(10000) ** -np.linspace(0, exponent, 16, dtype=np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * rates
    out[f"{embed}position_embedding"] = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    out[f"{embed}position_ids"] = np.arange(length)[None]
    return out


HF_CONFIG = {
    "architectures": ["VideoPrismClipModel"],
    "model_type": "videoprism",
    "text_config": {
        "model_type": "videoprism_text_model",
        "vocab_size": 1000,
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    },
    "vision_config": {
        "model_type": "videoprism_vision_model",
        "image_size": 24,
        "num_frames": 4,
        "tubelet_size": [1, 8, 8],
        "hidden_size": 32,
        "num_spatial_layers": 3,
        "num_temporal_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    },
}

PROCESSOR = {
    "video_processor_type": "LlavaOnevisionVideoProcessor",
    "do_normalize": False,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "num_frames": 4,
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"height": 24, "width": 24},
}


def hf_folder(folder, tensors=None, config=HF_CONFIG, processor=PROCESSOR):
    tensors = tensors or hf_tensors(lvt_tensors())
    return hugging_face.write(folder, tensors, config, processor, "video_preprocessor_config.json")


def keras_tensors(params):
    """KerasHub's file of our parameters, with scales + 1."""
    card, _ = converted("videoprism_lvt")
    scaled = {k: v + np.float32(1) if k.endswith("/scale") else v for k, v in params.items()}
    tensors = dict(from_params(scaled, videoprism.keras.rules(card.model)))
    return tensors | {EXTRA + "0": np.ones(32, np.float32), EXTRA + "1": np.zeros(32, np.float32)}
