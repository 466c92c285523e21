"""Damage to files, as disks and networks do it, from a seed."""

import json
import pathlib

import numpy as np


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns other bytes: flipped, overwritten, removed, repeated or cut off."""
    changed = data
    while changed == data:
        content = bytearray(data)
        start = int(rng.integers(len(content)))
        stop = min(len(content), start + int(rng.choice([1, 2, 8, 100])))
        match rng.integers(7):
            case 0 | 1:
                content[start] ^= 1 << int(rng.integers(8))
            case 2:
                content[start:stop] = rng.bytes(stop - start)
            case 3:
                content[start:stop] = bytes(stop - start)
            case 4:
                del content[start:stop]
            case 5:
                content[start:start] = content[start:stop] * int(rng.choice([1, 3, 50]))
            case 6:
                del content[start * int(rng.integers(2)) :]
        changed = bytes(content)
    return changed


def change_card(folder: pathlib.Path, part: str = "model", **changes) -> None:
    """Changes a card as a person who removes the checksum, or an older version, does."""
    content = json.loads((folder / "model.json").read_text())
    content[part] |= changes
    content.pop("checksum", None)
    (folder / "model.json").write_text(json.dumps(content))
