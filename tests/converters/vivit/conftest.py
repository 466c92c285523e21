"""Golden checkpoints of ViViT, converted once."""

import pytest

from tests.support.converting import command
from tests.support.sources.vivit import CASES, checkpoint


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Every golden checkpoint, converted by the real command."""
    root = tmp_path_factory.mktemp("converted")
    for case, options in CASES.items():
        command(checkpoint(case), root / case, **options)
    return root
