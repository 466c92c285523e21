"""Probes of all encoders of a folder: what their frozen features are worth on the same videos.

    python -m converters.convert --from=MCG-NJU/videomae-base --to=encoders/videomae_b
    python -m converters.convert --from=videoprism_public_v1_base --to=encoders/videoprism_b
    python -m experiments.launch --sweep=experiments/probe_encoders.py:encoders \
        --workdir=runs/probes --set=data.name=ucf101 \
        --set=data.train=ucf101/trainlist01.txt --set=data.val=ucf101/testlist01.txt

Each subfolder is a converted checkpoint or the folder of a run, and is given clips of as many
frames and of the size that it was made for. Each is probed twice: by attention and linearly.
Argument: the folder; `demo`, which probes demo runs, and without a folder random features.
"""

import json
import pathlib

from vidjax import configlib
from vidjax.errors import UserError


def sweep(arg=None):
    arg = configlib.parse_arg(arg, folder="", demo=False)
    cards = sorted(pathlib.Path(arg.folder).glob("*/model.json")) if arg.folder else []
    if not cards and (arg.folder or not arg.demo):
        raise UserError(
            f"there are no encoders in {arg.folder!r}; name a folder of converted checkpoints, as "
            f"in --sweep=experiments/probe_encoders.py:FOLDER"
        )
    for card in cards or [None]:
        facts = json.loads(card.read_text())["preprocessing"] if card else {}
        clip = "" if arg.demo else f",frames={facts['frames']},size={facts['size']}"
        for pool in ("attention", "mean"):
            yield dict(
                name=f"{card.parent.name if card else 'random'}_{pool}",
                config=f"configs/probe.py:{pool}{clip}" + (",demo" if arg.demo else ""),
                overrides={"init": card.parent} if card else {},
            )
