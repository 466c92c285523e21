"""X-CLIP for zero-shot recognition: trained on Kinetics-400, tested on classes it has not seen.

    python -m vidjax.train --config=configs/xclip_zeroshot.py --workdir=runs/xclip_zero \
        --config.init=clip_b16/ --config.data.train=k400/train.csv \
        --config.data.classes=kinetics_400_labels.csv --config.data.val=ucf101/testlist01.txt \
        --config.data.val_classes=ucf_101_labels.csv
    python -m vidjax.eval --config=configs/xclip_zeroshot.py --checkpoint=runs/xclip_zero \
        --config.data.name=hmdb51 --config.data.val=hmdb51/splits \
        --config.data.classes=hmdb_51_labels.csv

Training is as in xclip_k400.py, but shorter and with more frames. The second command takes any
labelled list (--config.data.name=custom for classes of your own), any X-CLIP (say its number of
frames: `xclip_zeroshot.py:frames=8`) and, with --config.model.head=image_text, CLIP. Names go into
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
    base = f"xclip_k400.py:B/16,frames={arg.frames},demo={arg.demo}"
    config = configlib.load_beside(__file__, base)
    del config.evals.test  # one view
    if arg.demo:
        config.data.name = "demo_unseen"
    else:
        config.train_epochs = 10.0
    return config
