"""Licenses that publishers give weights: the front matter of README.md, the hub's model card."""

from collections.abc import Mapping
from pathlib import Path

from vidjax.card import LICENSE, Card
from vidjax.errors import first_line

README = "README.md"
_MAX_BYTES = 200_000  # PyYAML takes a second for 100 kB


def read(folder: Path | None, notes: list[str]) -> dict[str, str]:
    """Returns the fields about the license in a folder's README.md; {} where it tells none.

    Args:
        folder: None: there is no README.md.
        notes: gets one if the file cannot be read.
    """
    path = folder and folder / README
    if not path or not path.is_file():
        return {}
    from huggingface_hub import metadata_load

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES // 1000} kB")
        fields = metadata_load(path) or {}
    except Exception as error:  # PyYAML raises all sorts
        notes.append(f"{README} cannot be read ({first_line(error)[:200]}): it may tell a license")
        return {}
    words = {name: _words(fields.get(name)) for name in LICENSE}
    return {name: text for name, text in words.items() if text}


def _words(value: object) -> str:
    """Returns a field's text, of a list its texts, on one line; "" if it is something else."""
    values = value if isinstance(value, list) else [value]
    texts = [" ".join(x.split()) for x in values[:10] if isinstance(x, str)]
    return ", ".join(texts)[:300]


def write(folder: Path, card: Card) -> None:
    """Writes a README.md that gives the license of a card's weights, if the card has one."""
    fields: Mapping[str, str] | None = card.provenance.get("license")
    if not fields or (folder / README).exists():
        return
    from huggingface_hub import metadata_save

    (folder / README).write_text(
        f"\nExported by vidjax from {card.provenance['source']}. The license above is the one that "
        "the publisher of the original weights gave them.\n"
    )
    metadata_save(folder / README, dict(fields))
