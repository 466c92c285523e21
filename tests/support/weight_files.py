"""Arrays that tests of weight files write, and a pickle that must not run."""

import os

import ml_dtypes
import numpy as np

VALUES = np.arange(24, dtype=np.float32)


class Evil:
    """Runs a command when unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


TREE = {
    "opt": {"step": 3, "empty": {}, "mu": {"w": np.ones(2, np.float32)}},
    "params": {
        "block": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3)},
        "half": np.arange(3).astype(ml_dtypes.bfloat16),
    },
    "text": "x" * 40,
    "numbers": [1, -1, 200, -200, 70000, -70000, 1 << 40, -(1 << 40), 0.5, None, True],
    "many": {str(k): k for k in range(20)},
    "scalar": np.float32(2.5),
    "raw": b"bytes",
}
ARRAYS = {
    "opt/mu/w": TREE["opt"]["mu"]["w"],
    "params/block/kernel": TREE["params"]["block"]["kernel"],
    "params/block/bias": TREE["params"]["block"]["bias"],
    "params/half": TREE["params"]["half"],
    "scalar": np.asarray(TREE["scalar"]),
}
