"""How much to mask and how deep a decoder VideoMAE needs: its ablations on Something-Something V2.

    python -m experiments.launch --sweep=experiments/videomae_masking.py --workdir=runs/masking \
        --set=data.train=ssv2/train.manifest.jsonl --set=data.val=ssv2/val.manifest.jsonl
    python -m experiments.launch --sweep=experiments/videomae_masking.py:pretrained=runs/masking \
        --workdir=runs/masking_finetune --set=...

The first pre-trains ViT-B for 800 epochs with each value, the other one at its default (ratio 0.9,
depth 4). The second fine-tunes what the first has made, which tells what it is worth: losses of
different ratios cannot be compared.
Argument: `pretrained`, the folder of the first sweep; `demo`.
Published top-1 after fine-tuning with the defaults: 69.6; the paper finds ratios from 0.90 to 0.95
favourable. Ratios and depths are chosen to lie around the defaults.
Source: Tong et al. 2022 (arXiv:2203.12602), section 4.2.
"""

from vidjax import configlib

RATIOS, DEPTHS = (0.5, 0.75, 0.9, 0.95), (1, 2, 4, 8)


def sweep(arg=None):
    arg = configlib.parse_arg(arg, pretrained="", demo=False)
    points = [(ratio, 4) for ratio in RATIOS] + [(0.9, depth) for depth in DEPTHS if depth != 4]
    for ratio, depth in points:
        name = f"ratio{ratio:g}_depth{depth}"
        if arg.pretrained:
            yield dict(
                name=name,
                config="configs/videomae_ssv2_finetune.py:" + ("demo" if arg.demo else "B800"),
                overrides={"init": f"{arg.pretrained}/{name}"},
            )
        else:
            yield dict(
                name=name,
                config="configs/videomae_ssv2.py:" + ("demo" if arg.demo else "B,epochs=800"),
                overrides={"objective.mask_ratio": ratio, "model.decoder_depth": depth},
            )
