"""Folders of Hugging Face's layout, made without transformers."""

import json

from converters import formats


def write(folder, tensors, config, processor, processor_file="preprocessor_config.json"):
    """Writes weights and JSON files, which are left out where they are None; returns the folder."""
    folder.mkdir()
    formats.write_safetensors(folder / "model.safetensors", tensors)
    for name, content in (("config.json", config), (processor_file, processor)):
        if content is not None:  # indented unlike anything that we write
            (folder / name).write_text(json.dumps(content, indent=7))
    return folder


def nested(config, part, **changes):
    """Returns a config.json with changes in one of its parts."""
    return config | {part: config[part] | changes}
