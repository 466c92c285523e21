"""Layers that the encoders share; one file per subject."""

from vidjax.models.layers.blocks import (
    REMAT_POLICIES,
    Block,
    Mlp,
    Speed,
    drop_path,
    dropout,
    finish_block,
    is_training,
    scan_blocks,
)
from vidjax.models.layers.dense import (
    ACTIVATIONS,
    Array,
    LayerNorm,
    Linear,
    at_least_float32,
    constrain,
    look_up,
    record,
    unit,
)
from vidjax.models.layers.initializers import INITS, torch_uniform
from vidjax.models.layers.multihead import Attention, AttentionPool, Rotate
from vidjax.models.layers.patches import PatchEmbed, grid_of, patchify, take_tokens
