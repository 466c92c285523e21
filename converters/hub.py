"""Names of sources: local paths, published names and ids of the Hugging Face hub."""

import os
from pathlib import Path
from typing import NamedTuple

from converters import formats, licenses, registry
from vidjax.errors import UserError, brief, disk_problem

_ONE_FILE = "*.npz"
# Patterns of weights in a hub's folder, in order of preference.
_HUB_WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*", formats.KERAS_WEIGHTS, _ONE_FILE)
_BESIDE = (
    *formats.JSON_FILES,
    *formats.TOKENIZERS,
    formats.MERGES,
    formats.KERAS_TOKENIZER,
    licenses.README,
)


class Location(NamedTuple):
    """Place of a source on this machine.

    Attributes:
        name: as it was given.
        path: of the file or folder, which need not exist if it is no hub id.
        origin: of what came from the hub `org/name@commit`, or `org/name@commit/path/to/file`.
        repository: folder of what belongs together, None for a file by itself.
    """

    name: str
    path: Path
    origin: str | None = None
    repository: Path | None = None


def resolve(name: str) -> Location:
    """Finds a source; downloads what the hub's local cache lacks.

    Raises:
        UserError: it is a hub id that is not available, or that holds no weights.
    """
    path = Path(name)
    if os.path.exists(path):  # False for names that are too long
        return Location(name, path, repository=path if path.is_dir() else None)
    place = published_files().get(name, name)
    hub_id, _, revision = place.partition("@")
    parts = hub_id.split("/")
    if len(parts) < 2 or not all(parts) or parts[0] in (".", "..", "~"):
        return Location(name, path)  # open_source says it if nothing is there
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    for weights in [file] if file else _HUB_WEIGHTS:
        folder = _fetch(name, repo, revision or None, weights)
        found = [path.name for path in folder.glob(weights)]
        if found and weights == _ONE_FILE and not file:
            if len(found) > 1:
                raise UserError(
                    f"{name} holds several npz files; name one, such as {repo}/{found[0]}"
                )
            file = found[0]
        if found:
            origin = f"{repo}@{folder.name}" + (f"/{file}" if file else "")
            return Location(name, folder / file if file else folder, origin, folder)
    raise UserError(
        f"{name} is on the hub, or in its local cache, without {file or 'the usual weight files'}; "
        f"name a file as {repo}/path/to/file.pth, and check HF_HUB_OFFLINE if that is set"
    )


def _fetch(name: str, repo: str, revision: str | None, weights: str) -> Path:
    """Returns the local folder of a repository's commit, with the weights of a pattern if any."""
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=[*_BESIDE, weights]
            )
        )
    except Exception as error:  # the hub's library raises all sorts, of other libraries, too
        # Offline, files that lie there do where others are missing, such as README.md.
        if snapshot := getattr(error, "snapshot_path", None):
            return Path(snapshot)
        known = "" if name.startswith(repo) else f" ({repo})"
        raise UserError(
            f"{name}{known} is neither a path here nor available from the Hugging Face hub: "
            + _reason(error, revision)
        ) from error


def _reason(error: Exception, revision: str | None) -> str:
    """Says why a repository cannot be had, and the fix."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub_errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub_errors.GatedRepoError):
        return (
            "its publisher asks to accept terms first; accept them on the repository's page, and "
            "log in by `hf auth login`"
        )
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        return (
            "there is no such repository, or it is private; check the name, or log in by "
            "`hf auth login`"
        )
    if status in (401, 403):
        return f"it refuses access (HTTP {status}); log in by `hf auth login`"
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return f"the repository has no revision {revision}; check what follows the @"
    if isinstance(error, hub_errors.HFValidationError):
        return "that is no id of a repository, which looks like org/name; check the name"
    if constants.HF_HUB_OFFLINE:
        return (
            "it is not in the local cache, and HF_HUB_OFFLINE forbids to download; check the name, "
            "or unset that"
        )
    if problem := disk_problem(error):
        return (
            f"the local cache cannot be written ({problem}); make room there, or set HF_HOME to "
            "another folder"
        )
    return (
        "it is not in the local cache, and the hub does not answer "
        f"({brief(error.__cause__ or error)}); check the network"
    )


def published_files() -> dict[str, str]:
    """Places on the hub of files that are published under other names."""
    families = registry.families().values()
    return {k: v for family in families for k, v in getattr(family, "HUB_FILES", {}).items()}
