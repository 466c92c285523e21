"""TensorBoard's event files, read back record by record."""

import io
import struct

import numpy as np
import pytest
from etils import epath
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from vidjax import writers


def events(folder):
    """All events of a folder, oldest file first."""
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:  # length, its checksum, event, its checksum
            (size,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]


def test_scalars_and_pictures_are_read_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    both = writers.build(["tensorboard"], epath.Path(tmp_path), 0, {})
    both.scalars(1, {"loss": 0.25, "val/top1": float("nan")})
    both.pictures(3, {"reconstruction": image})
    both.close()
    values = {
        (event.step, value.tag): value
        for event in events(tmp_path / "tensorboard")
        for value in event.summary.value
    }
    assert list(values) == [(1, "loss"), (1, "val/top1"), (3, "reconstruction")]
    assert values[1, "loss"].simple_value == 0.25
    assert np.isnan(values[1, "val/top1"].simple_value)
    png = values[3, "reconstruction"].image.encoded_image_string
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), image)


@pytest.mark.parametrize("start", [0, 4])
def test_a_restart_purges_the_steps_that_it_repeats(tmp_path, start):
    writers.build(["tensorboard"], epath.Path(tmp_path), start, {}).close()
    (session,) = [e for e in events(tmp_path / "tensorboard") if e.HasField("session_log")]
    assert session.step == start + 1 and session.session_log.status == SessionLog.START


@pytest.mark.parametrize("name", ["reconstruction", "val/confusion"])
def test_names_of_pictures_stay(tmp_path, name):
    both = writers.build(["tensorboard"], epath.Path(tmp_path), 0, {})
    both.pictures(1, {name: np.zeros((2, 2, 3), np.uint8)})
    both.close()
    tags = [v.tag for event in events(tmp_path / "tensorboard") for v in event.summary.value]
    assert tags == [name]
