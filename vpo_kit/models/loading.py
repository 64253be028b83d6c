"""From a name, a folder or a hub id to the right adapter."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError

from vpo_kit.config import validate
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.registry import MODELS

EMBEDDED = {"sprites": Path(__file__).parent / "sprites" / "pipeline"}
"""Models that ship inside the package, by name."""


class _Extras(BaseModel):
    """`vpo.json` beside `model_index.json`: the sizes that a model was made for. Optional."""

    model_config = ConfigDict(extra="forbid")

    frames: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    fps: float = Field(gt=0)
    steps: int = Field(ge=1)
    guidance: float = Field(ge=1)
    negative_prompt: str = ""


def resolve(name_or_path: str) -> str:
    """A folder or hub id for `name_or_path`. Raises `ModelError` for a local folder that is no pipeline."""
    path = EMBEDDED.get(name_or_path, Path(name_or_path))
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(f"{path} holds no model_index.json: give a diffusers pipeline folder")
        return str(path)
    if path.exists() or name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") != 1:
        names = ", ".join(EMBEDDED)
        raise ModelError(
            f"no model {name_or_path!r}: give {names}, a diffusers pipeline folder or a hub id (owner/name)"
        )
    return name_or_path


def check_attention(name: str) -> None:
    """Raises `ConfigError` where the attention backend `name` cannot run here."""
    if name != "xformers":
        return
    if importlib.util.find_spec("xformers") is None:
        raise ConfigError("attention: xformers is not installed: pip install 'vpo-kit[xformers]', or use sdpa")
    if not torch.cuda.is_available():
        raise ConfigError("attention: xformers needs a CUDA device, and there is none: use sdpa")


def load(
    name_or_path: str, *, revision: str | None = None, dtype: str = "float32", attention: str = "auto"
) -> VideoModel:
    """Load a pipeline and wrap it in the adapter of its class, on the GPU where there is one.

    `name_or_path` is an embedded model's name, a local folder or a hub id (`HF_HUB_OFFLINE` is respected); `dtype` a
    torch dtype's name for the weights; `attention` is auto (diffusers' own choice), sdpa or xformers.
    Raises `ModelError`, or `ConfigError` for an attention backend that cannot run here.
    """
    check_attention(attention)
    source = resolve(name_or_path)
    try:
        index = diffusers.DiffusionPipeline.load_config(source, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read model_index.json of {name_or_path}: {_line(error)}") from error
    family = index.get("_class_name", "")
    targets = MODELS.targets()
    if family not in targets:
        raise ModelError(
            f"{name_or_path} is a {family or 'nameless pipeline'}: supported are {', '.join(sorted(targets))}"
        )
    adapter = MODELS.load(family)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        pipeline = getattr(diffusers, family).from_pretrained(
            source, revision=revision, dtype=getattr(torch, dtype), use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot load {name_or_path}: {_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    model: VideoModel = adapter(_on_device(pipeline), _settings(source), name_or_path)
    if attention != "auto":
        model.network.set_attention_backend({"sdpa": "native"}.get(attention, attention))
    return model


def prompts_of(name_or_path: str, split: str) -> Path | None:
    """The prompt file (`split` is ``train`` or ``heldout``) that ships with a model folder, where it has one."""
    path = EMBEDDED.get(name_or_path, Path(name_or_path)) / "prompts" / f"{split}.txt"
    return path if path.is_file() else None


def _settings(source: str) -> Settings | None:
    path = Path(source) / "vpo.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {_line(error)}") from error
    return Settings(**validate(_Extras, values, f"{path}: ").model_dump())


def _on_device(pipeline: Any) -> Any:
    return pipeline.to("cuda") if torch.cuda.is_available() else pipeline


def _line(error: BaseException) -> str:
    """An error's first line; libraries print whole pages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
