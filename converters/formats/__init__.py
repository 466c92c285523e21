"""Files of weights <-> named arrays: safetensors, PyTorch, Flax msgpack, npz, Keras h5, folders.

Reading is lazy (a tensor is read when asked for), so converting holds one copy of the weights.
msgpack, npz and h5 files hold trees; their arrays are named by the path to them, joined with "/".
"""

from converters.formats.containers import read, write
from converters.formats.h5 import write_h5
from converters.formats.msgpack import write_msgpack
from converters.formats.npz import SUFFIX as NPZ_SUFFIX
from converters.formats.npz import write_npz
from converters.formats.safetensors import write_safetensors
from converters.formats.source import (
    CONFIG,
    IMAGE_CONVERTER,
    JSON_FILES,
    KERAS_TOKENIZER,
    KERAS_WEIGHTS,
    MERGES,
    PREPROCESSOR,
    PROCESSOR,
    TOKENIZERS,
    VIDEO_PREPROCESSOR,
    WEIGHTS,
    Source,
    count,
    open_source,
    read_json,
    shapes,
)
from converters.formats.torch import write_torch
