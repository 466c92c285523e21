"""X-CLIP on HMDB-51 with a few videos of each class.

    python -m vidjax.train --config=configs/xclip_fewshot_hmdb51.py:8 --workdir=runs/hmdb51_8 \
        --config.init=clip_b16/ --config.data.train=hmdb51/splits \
        --config.data.val=hmdb51/splits --config.data.root=hmdb51/videos \
        --config.data.classes=hmdb_51_labels.csv

`config.init` is a converted CLIP, or an X-CLIP. The videos are drawn from the whole training list
by config.data.shots_seed; those of 2 shots are among those of 4.
Argument: shots, 2, 4, 8 or 16; `frames`; `demo`.
Published top-1 (split 1, one view), for weights of the original code; not measured here:
2-shot 53.0, 4-shot 57.3, 8-shot 62.8, 16-shot 64.0. Which videos they were trained on is not said.
Source: Ni et al. 2022 (arXiv:2208.02816), microsoft/VideoX X-CLIP/configs/hmdb51.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, shots=16, frames=32, demo=False)
    config = configlib.base()
    config.train_epochs = 50.0
    config.model.update(
        name="xclip", variant="B/16", head="video_text", eps=1e-5,
        **configlib.unset_keys(pos_grid=tuple, patch_size=tuple, embed_dim=int, text_width=int),
        **configlib.unset_keys(text_num_heads=int, text_depth=int, vocab_size=int),
        **configlib.unset_keys(mit_num_heads=int, prompt_num_heads=int, drop_path=float),
        dtype="bfloat16",
    )  # fmt: skip
    config.objective = dict(
        name="text_classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0,
        color_jitter=0.8, grey=0.2, jitter_frames=True,
    )  # fmt: skip
    config.init_missing = (".*/message_.*", "mit/.*", "prompts/.*")
    config.data.update(
        name="hmdb51", shots=arg.shots, frames=arg.frames, sampling="segment", batch_size=64,
        size=224, short_side=256, views_short_side=224, resize="mmcv_linear",
        augment="corner_crop", flip=0.5,
    )  # fmt: skip
    config.optim.update(
        schedule="timm_cosine", lr=2e-6, min_lr=2e-8, warmup_epochs=5.0, b2=0.98,
        weight_decay=1e-3, freeze=("text/.*", "text_proj/.*", "logit_scale"),
        rates=((".*/message_.*|mit/.*|prompts/.*", 10.0),),
    )  # fmt: skip
    config.evals.val = dict(name="zero_shot", templates=("{}",), average="softmax")
    if arg.demo:
        configlib.use_demo(
            config,
            steps=600,
            lr=1e-3,
            data="demo_captions",
            patch_size=(1, 8, 8),
            width=64,
            depth=2,
        )
        config.data.update(sampling="segment", batch_size=64)
        config.model.update(
            embed_dim=64, text_width=64, text_num_heads=4, mit_num_heads=4, prompt_num_heads=4
        )
        # There is no CLIP to start from: all is learned. Positions start near 0, and without them
        # no motion shows, so they learn fast.
        config.optim.update(
            freeze=(), rates=(("mit/pos_embed", 20.0), ("encoder/pos_embed", 10.0)),
            clip_norm=1.0, warmup_epochs=4.0,
        )  # fmt: skip
    return config
