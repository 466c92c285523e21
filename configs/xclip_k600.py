"""X-CLIP on Kinetics-600, fully supervised: as xclip_k400.py.

    python -m vidjax.train --config=configs/xclip_k600.py:B/16 --workdir=runs/xclip_k600 \
        --config.init=clip_b16/ --config.data.train=k600/train.csv --config.data.val=k600/val.csv \
        --config.data.classes=kinetics_600_labels.csv

Argument: variant, in the paper B/16 or L/14; `frames`, there 8 or 16; `demo`.
Published top-1/top-5 (4x3 views), for weights of the original code; not measured here:
B/16 85.3/97.1 (8 frames), 85.8/97.3 (16); L/14 88.3/97.7 (8).
Source: Ni et al. 2022 (arXiv:2208.02816), microsoft/VideoX X-CLIP/configs/k600.
"""

from vidjax import configlib


def get_config(arg=None):
    arg = configlib.parse_arg(arg, variant="B/16", frames=8, demo=False)
    base = f"xclip_k400.py:{arg.variant},frames={arg.frames},demo={arg.demo}"
    config = configlib.load_beside(__file__, base)
    if not arg.demo:
        config.data.name = "k600"
    return config
