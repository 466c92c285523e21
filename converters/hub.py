"""Names of sources: local paths, published names and ids of the Hugging Face hub."""

from pathlib import Path

from converters import formats, registry
from vidjax.errors import UserError

_ONE_FILE = "*.npz"
# Patterns of weights in a hub's folder, in order of preference.
_HUB_WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*", formats.KERAS_WEIGHTS, _ONE_FILE)


def resolve(name: str) -> tuple[Path, str | None]:
    """A local path, and for a hub id `id@commit`; downloads what the cache lacks."""
    path = Path(name)
    if not path.exists():
        name = _published_files().get(name, name)
    repository, _, revision = name.partition("@")
    parts = repository.split("/")
    if path.exists() or len(parts) < 2 or not all(parts) or parts[0] in (".", "..", "~"):
        return path, None  # open_source says it if nothing is there
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        for weights in [file] if file else _HUB_WEIGHTS:
            tokenizers = [*formats.TOKENIZERS, formats.MERGES, formats.KERAS_TOKENIZER]
            patterns = [*formats.JSON_FILES, *tokenizers, weights]
            folder = Path(
                huggingface_hub.snapshot_download(
                    repo, revision=revision or None, allow_patterns=patterns
                )
            )
            found = [path.name for path in folder.glob(weights)]
            if found and weights == _ONE_FILE and not file:
                if len(found) > 1:
                    raise UserError(
                        f"{name} holds several npz files; name one, such as {repo}/{found[0]}"
                    )
                file = found[0]
            if found:
                origin = f"{repo}@{folder.name}" + (f"/{file}" if file else "")
                return folder / file if file else folder, origin
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name} is neither a path here nor available from the Hugging Face hub or its local "
            f"cache ({type(error).__name__}); check the name, and HF_HUB_OFFLINE if that is set"
        ) from error
    raise UserError(
        f"{name} is on the hub, or in its local cache, without {file or 'the usual weight files'}; "
        f"name a file as {repo}/path/to/file.pth, and check HF_HUB_OFFLINE if that is set"
    )


def _published_files() -> dict[str, str]:
    """Places on the hub of files that are published under other names."""
    families = registry.families().values()
    return {k: v for family in families for k, v in getattr(family, "HUB_FILES", {}).items()}
