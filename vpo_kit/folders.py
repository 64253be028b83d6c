"""Model folders: what a model's name stands for, and what lies in its folder beside the weights. No torch here."""

from __future__ import annotations

from pathlib import Path

from vpo_kit.errors import ModelError

_PLACES = {name: Path(__file__).parent / name / "pipeline" for name in ("sprites", "duets")}
EMBEDDED = {name: path for name, path in _PLACES.items() if (path / "model_index.json").is_file()}
"""Models that ship inside the package, by name."""


def resolve(name_or_path: str) -> str:
    """A folder or hub id for `name_or_path`. Raises `ModelError` for a local folder that is no pipeline."""
    path = place(name_or_path)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            if (path / "modular_model_index.json").is_file():
                raise ModelError(
                    f"{path} holds modular pipelines alone (modular_model_index.json), which are not supported: give a "
                    "folder with a model_index.json"
                )
            raise ModelError(f"{path} holds no model_index.json: give a diffusers pipeline folder")
        return str(path)
    if path.exists() or name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") != 1:
        names = ", ".join(EMBEDDED)
        raise ModelError(
            f"no model {name_or_path!r}: give {names}, a diffusers pipeline folder or a hub id (owner/name)"
        )
    return name_or_path


def place(name_or_path: str) -> Path:
    """The place where a model's folder would be on this machine."""
    return EMBEDDED.get(name_or_path, Path(name_or_path))


def is_embedded(name_or_path: str) -> bool:
    """Whether this is a model that ships inside the package, by its name or by its folder."""
    return place(name_or_path).resolve() in {path.resolve() for path in EMBEDDED.values()}


def same(one: str, other: str) -> bool:
    """Whether two names stand for one model: the same hub id, or one folder by name, link or path."""
    return one == other or place(one).resolve() == place(other).resolve()


def prompts_of(name_or_path: str, split: str) -> Path | None:
    """The prompt file (`split` is ``train``, ``validation`` or ``heldout``) that ships with a model folder, where it
    has one.
    """
    path = place(name_or_path) / "prompts" / f"{split}.txt"
    return path if path.is_file() else None


def recipe_of(name_or_path: str) -> Path | None:
    """The file with the settings that were found for a model, where its folder has one."""
    path = place(name_or_path) / "recipe.yaml"
    return path if path.is_file() else None
