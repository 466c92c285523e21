"""A local cache of the Hugging Face hub, without the hub."""

import pathlib


def offline(monkeypatch, cache):
    """Makes a folder the hub's local cache, and forbids downloads; returns the folder."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


def snapshot(cache, repository, commit="abc123"):
    """Makes an empty commit the newest one of a repository; returns its folder."""
    folder = pathlib.Path(cache) / f"models--{repository.replace('/', '--')}"
    path = folder / "snapshots" / commit
    path.mkdir(parents=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return path
