"""Folders onto the Hugging Face Hub, and only when that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vpo_kit.errors import ConfigError, OutputError, first_line


def check_name(repository: str) -> None:
    """Raises `ConfigError` for a name that no repository can have, before anything is made that would go there."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--push-to-hub {repository}: {first_line(error)}") from error


def push(folder: Path, repository: str, kind: Literal["dataset", "model"]) -> str:
    """Put a folder on the Hub, private where the repository is new; its address. Raises `OutputError`."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, repo_type=kind)
    except Exception as error:  # those of its HTTP library too, which is another one from version to version
        raise OutputError(f"cannot push to {repository}: {first_line(error)}; the folder {folder} is whole") from error
    return str(address)
