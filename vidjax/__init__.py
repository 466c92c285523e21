"""vidjax: the JAX home of video encoders.

`load_model(name)` opens a converted, trained or published model, `read_video(path)` decodes a
video. Both are imported on first use, so that `import vidjax` stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vidjax import signals

if TYPE_CHECKING:
    from vidjax.data.reading.video import read_video
    from vidjax.pretrained import load_model

__version__ = "0.1.0"
__all__ = ["load_model", "read_video"]

_HOMES = {"load_model": "vidjax.pretrained", "read_video": "vidjax.data.reading.video"}

if signals.is_command():  # before the imports of the command, which take seconds
    signals.listen()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vidjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
