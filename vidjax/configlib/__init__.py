"""Configs: every key of the train loop with its default, config files, command-line overrides.

A config file defines `get_config(arg)`; `arg` is what follows the colon in
`--config=configs/videomae_k400.py:L,frames=32`, and holds the choices that several keys depend on.
Single keys are set by `--config.optim.lr=3e-4`. Configs are locked: an unknown key is an error.

    keys          every key with its default, and checks of single keys
    recipes       what config files are written with, and loading them
    command_line  overrides of single keys
"""

from vidjax.configlib.command_line import define_flag, of_command, parse_flags
from vidjax.configlib.keys import INPUT, base, check, plain
from vidjax.configlib.recipes import (
    choose,
    load,
    load_beside,
    parse_arg,
    run_file,
    unset_input,
    use_demo,
    use_pretraining_demo,
)
