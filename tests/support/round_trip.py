"""The converter's command, and the way back to Hugging Face's format."""

import os
import subprocess
import sys

from converters import formats


def command(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(
        [sys.executable, "-m", "converters.convert", *arguments], check=True, env=environment
    )


def randomise(model):
    """Makes a torch model's parameters random: matrices small, biases larger, norms around 1."""
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0, 0.02 if parameter.ndim > 1 else 0.1)
        if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
            parameter.data.add_(1)


def check_back_to_hugging_face(folder, model_class):
    """Exports folder/vidjax to folder/again and compares that with folder/hf, byte for byte."""
    command(f"--from={folder}/vidjax", f"--to={folder}/again", "--format=hf")
    before, after = (formats.read(folder / name / "model.safetensors") for name in ("hf", "again"))
    assert set(before) == set(after)
    for name in before:
        assert before[name].dtype == after[name].dtype
        assert before[name].tobytes() == after[name].tobytes(), name
    assert (folder / "hf/config.json").read_bytes() == (folder / "again/config.json").read_bytes()
    # transformers takes what we wrote, and finds every tensor in it.
    _, report = model_class.from_pretrained(folder / "again", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
