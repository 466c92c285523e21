"""X-CLIP on HMDB-51 with a few videos of each class: else as xclip_fewshot_ucf101.py.

    python -m vidjax.train --config=configs/xclip_fewshot_hmdb51.py:8 --workdir=runs/hmdb51_8 \
        --config.init=clip_b16/ --config.data.train=hmdb51/splits \
        --config.data.val=hmdb51/splits --config.data.root=hmdb51/videos \
        --config.data.classes=hmdb_51_labels.csv

`config.init` is a converted CLIP, or an X-CLIP. The videos are drawn from the training list by
config.data.shots_seed; those of 2 shots are among those of 4.
Argument: shots, in the paper 2, 4, 8 or 16; `frames`; `demo`.
Published top-1 (split 1, one view), for weights of the original code; not measured here:
2-shot 53.0, 4-shot 57.3, 8-shot 62.8, 16-shot 64.0. Which videos they were trained on is not said.
Source: Ni et al. 2022 (arXiv:2208.02816), microsoft/VideoX X-CLIP/configs/hmdb51.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, shots=16, frames=32, demo=False)
    base = f"xclip_fewshot_ucf101.py:{arg.shots},frames={arg.frames},demo={arg.demo}"
    config = configlib.load_beside(__file__, base)
    if not arg.demo:
        config.data.name = "hmdb51"
    return config
