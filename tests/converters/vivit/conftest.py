"""Golden checkpoints of ViViT, converted once."""

import pytest

from tests.support.converting import converted
from tests.support.sources.vivit import CASES, checkpoint


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Every golden checkpoint, converted by the real command."""
    return converted(tmp_path_factory.mktemp("converted"), CASES, checkpoint)
