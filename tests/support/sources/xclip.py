"""The golden X-CLIP, the CLIP in it, and both as folders of Hugging Face's layout."""

import functools

import numpy as np

from converters import formats, xclip
from tests.support import converting, hugging_face
from tests.support.goldens import GOLDENS

CHECKPOINT = GOLDENS / "xclip/checkpoint.pth"

described = functools.partial(converting.described, xclip)
written = functools.partial(converting.written, xclip)


@functools.cache
def original():
    """The tensors of the golden file."""
    return dict(formats.read(CHECKPOINT))


@functools.cache
def converted(**options):
    """Card and parameters of the golden file."""
    return described(CHECKPOINT, **options)[:2]


def transposed(kernel):
    return np.ascontiguousarray(kernel.swapaxes(-1, -2))


def hf_tensors(t):
    """The tensors of transformers' XCLIPModel, or CLIPModel, written out by hand."""
    out = {}
    clip = "mit.positional_embedding" not in t

    def copy(name, source):
        for kind in ("weight", "bias"):
            out[f"{name}.{kind}"] = t[f"{source}.{kind}"]

    def attention(name, source):
        for kind in ("weight", "bias"):
            thirds = np.split(t[f"{source}.in_proj_{kind}"], 3)
            for letter, part in zip("qkv", thirds, strict=True):
                out[f"{name}.{letter}_proj.{kind}"] = part
        copy(f"{name}.out_proj", f"{source}.out_proj")

    def layers(name, source):
        for i in range(99):
            old, new = f"{source}.{i}", f"{name}.encoder.layers.{i}"
            if f"{old}.ln_1.weight" not in t:
                break
            copy(f"{new}.layer_norm1", f"{old}.ln_1")
            copy(f"{new}.layer_norm2", f"{old}.ln_2")
            copy(f"{new}.mlp.fc1", f"{old}.mlp.c_fc")
            copy(f"{new}.mlp.fc2", f"{old}.mlp.c_proj")
            attention(f"{new}.self_attn", f"{old}.attn")
            if f"{old}.message_fc.weight" in t:
                copy(f"{new}.message_fc", f"{old}.message_fc")
                copy(f"{new}.message_ln", f"{old}.message_ln")
                attention(f"{new}.message_attn", f"{old}.message_attn")

    text, vision = "text_model.embeddings", "vision_model.embeddings"
    out[f"{text}.token_embedding.weight"] = t["token_embedding.weight"]
    out[f"{text}.position_embedding.weight"] = t["positional_embedding"]
    layers("text_model", "transformer.resblocks")
    copy("text_model.final_layer_norm", "ln_final")
    out["text_projection.weight"] = transposed(t["text_projection"])
    out[f"{vision}.class_embedding"] = t["visual.class_embedding"]
    out[f"{vision}.position_embedding.weight"] = t["visual.positional_embedding"]
    out[f"{vision}.patch_embedding.weight"] = t["visual.conv1.weight"]
    copy("vision_model.pre_layrnorm" if clip else "vision_model.pre_layernorm", "visual.ln_pre")
    copy("vision_model.post_layernorm", "visual.ln_post")
    layers("vision_model", "visual.transformer.resblocks")
    out["visual_projection.weight"] = transposed(t["visual.proj"])
    out["logit_scale"] = t["logit_scale"]
    if clip:
        return out
    out["mit.position_embedding"] = t["mit.positional_embedding"]
    layers("mit", "mit.resblocks")
    copy("prompts_visual_layernorm", "prompts_visual_ln")
    out["prompts_visual_projection"] = t["prompts_visual_proj"]
    copy("prompts_generator.layernorm", "prompts_generator.norm")
    for name in t:
        if name.startswith("prompts_generator.") and ".norm." not in name:
            out[name] = t[name]
    return out


def clip_tensors():
    """A CLIP's state dict: what of the golden X-CLIP is CLIP's."""
    new = ("message_", "mit.", "prompts_")
    return {name: t for name, t in original().items() if not any(part in name for part in new)}


TEXT_CONFIG = {
    "vocab_size": 200,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "eos_token_id": 2,
}

VISION_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "image_size": 32,
    "patch_size": 8,
}

MIT_CONFIG = {
    "num_frames": 5,
    "mit_hidden_size": 64,
    "mit_intermediate_size": 256,
    "mit_num_attention_heads": 1,
}

HF_CONFIG = {
    "architectures": ["XCLIPModel"],
    "model_type": "xclip",
    "projection_dim": 64,
    "prompt_num_attention_heads": 1,
    "text_config": TEXT_CONFIG,
    "text_config_dict": None,
    "vision_config": VISION_CONFIG | MIT_CONFIG,
    "vision_config_dict": None,
}

CLIP_CONFIG = {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": 64,
    "text_config": TEXT_CONFIG,
    "vision_config": VISION_CONFIG,
}

PROCESSOR = {
    "crop_size": 32,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "size": 32,
}

CLIP_PROCESSOR = PROCESSOR | {
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
}


def hf_folder(folder, tensors=None, config=HF_CONFIG, processor=PROCESSOR):
    return hugging_face.write(folder, tensors or hf_tensors(original()), config, processor)


def clip_folder(folder, **changes):
    tensors = hf_tensors(clip_tensors())
    return hf_folder(folder, tensors, CLIP_CONFIG | changes, CLIP_PROCESSOR)


def tower(name, prefix):
    start = f"{name}_model."
    tensors = hf_tensors(original())
    return {prefix + n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
