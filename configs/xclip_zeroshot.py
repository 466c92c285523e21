"""X-CLIP for zero-shot recognition: trained on Kinetics-400, tested on classes it has not seen.

    python -m vidjax.train --config=configs/xclip_zeroshot.py --workdir=runs/xclip_zero \
        --config.init=clip_b16/ --config.data.train=k400/train.csv \
        --config.data.classes=kinetics_400_labels.csv --config.data.val=ucf101/testlist01.txt \
        --config.data.val_classes=ucf_101_labels.csv
    python -m vidjax.eval --config=configs/xclip_zeroshot.py --checkpoint=runs/xclip_zero \
        --config.data.name=hmdb51 --config.data.val=hmdb51/splits \
        --config.data.classes=hmdb_51_labels.csv

The second command takes any labelled list (--config.data.name=custom for classes of your own) and
any X-CLIP or, with --config.model.head=image_text, CLIP. Names go into
`--config.evals.val.templates="('a video of {}.',)"`; the reference uses the bare names.
Argument: `frames`; `demo`, whose classes are two things that happen at once: the words of the four
unseen classes are known, their combinations are not.
Published top-1, for weights of the original code; not measured here: HMDB-51 44.6 +- 5.2 and UCF101
72.0 +- 2.3 over their three test splits, K600 65.2 +- 0.4 over three draws of 160 of the 220
classes that K400 does not have (a list for each draw).
Source: Ni et al. 2022 (arXiv:2208.02816), microsoft/VideoX issues 68, 70 and 77.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, frames=32, demo=False)
    config = configlib.base()
    config.train_epochs = 10.0
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
        name="k400", frames=arg.frames, sampling="segment", batch_size=256, size=224,
        short_side=256, views_short_side=224, resize="mmcv_linear", augment="corner_crop", flip=0.5,
    )  # fmt: skip
    config.optim.update(
        schedule="timm_cosine", lr=8e-6, min_lr=8e-8, warmup_epochs=5.0, b2=0.98,
        weight_decay=1e-3, freeze=("text/.*", "text_proj/.*", "logit_scale"),
        rates=((".*/message_.*|mit/.*|prompts/.*", 10.0),),
    )  # fmt: skip
    config.evals.val = dict(name="zero_shot", every=2_000, templates=("{}",), average="softmax")
    if arg.demo:
        configlib.use_demo(
            config, steps=500, lr=1e-3, data="demo_unseen", patch_size=(1, 8, 8), width=64, depth=2
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
