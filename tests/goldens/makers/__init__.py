"""Scripts that remake the goldens with the original code, one module per family.

    python -m tests.goldens.makers                                      # list of goldens
    python -m tests.goldens.makers xclip --checkout=../VideoX           # compare with the original
    python -m tests.goldens.makers xclip --checkout=../VideoX --output=/tmp/xclip --seed=1

Without --output, the original code in the checkout computes its outputs from the committed
checkpoint and inputs, and they are compared with the committed outputs. With --output, new weights
and inputs are drawn by --seed, and a whole golden is written. A new case is a line in the `GOLDENS`
of its family's module; --output then writes its folder. The originals are imported from their
checkouts; none of their code is here.
"""
