"""A vocabulary of VideoPrism's kind."""

import pytest

from vidjax import tokenizers


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "a.model"
    words = ["a red ball sliding left", "blue shapes going up and down"]
    tokenizers.train_tokenizer(words, path, 60)
    return path
