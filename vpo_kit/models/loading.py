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


PACKAGES = {"xformers": ("xformers", "vpo-kit[xformers]"), "flash": ("flash_attn", "flash-attn")}
"""Attention backends beside torch's own: module, and what to install. Sage is not here: it has no backward pass."""

UNMASKED = {"WanPipeline"}
"""Families that mask no tokens: the flash kernels take no mask."""


def check_attention(name: str, dtype: str | None = None) -> None:
    """Raises `ConfigError` where the attention backend `name` cannot run here, with weights of `dtype` where given."""
    if name not in PACKAGES:
        return
    module, package = PACKAGES[name]
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"attention: {name} is not installed: pip install '{package}', or use sdpa")
    if not torch.cuda.is_available():
        raise ConfigError(f"attention: {name} needs a CUDA device, and there is none: use sdpa")
    if name == "flash" and dtype == "float32":
        raise ConfigError("attention: flash takes no float32: set dtype to bfloat16 or float16, or use sdpa")


def load(
    name_or_path: str, *, revision: str | None = None, dtype: str = "float32", attention: str = "auto"
) -> VideoModel:
    """Load a pipeline and wrap it in the adapter of its class, on the GPU where there is one.

    `name_or_path` is an embedded model's name, a local folder or a hub id (`HF_HUB_OFFLINE` is respected); `dtype` a
    torch dtype's name for the weights; `attention` is auto (diffusers' own choice), sdpa, xformers or flash.
    Raises `ModelError`, or `ConfigError` for an attention backend that cannot run here or in this family.
    """
    check_attention(attention, dtype)
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
    if attention == "flash" and family not in UNMASKED:
        raise ConfigError(f"attention: {family} masks its tokens, which flash cannot: use sdpa or xformers")
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
        _set_attention(model, attention)
    return model


def prompts_of(name_or_path: str, split: str) -> Path | None:
    """The prompt file (`split` is ``train`` or ``heldout``) that ships with a model folder, where it has one."""
    path = EMBEDDED.get(name_or_path, Path(name_or_path)) / "prompts" / f"{split}.txt"
    return path if path.is_file() else None


def _set_attention(model: VideoModel, name: str) -> None:
    """Through diffusers' dispatch. Processors that do not use it would only ignore the choice; theirs is sdpa."""
    processors = [getattr(module, "processor", None) for module in model.network.modules()]
    if any(hasattr(processor, "_attention_backend") for processor in processors):
        model.network.set_attention_backend({"sdpa": "native"}.get(name, name))
    elif name != "sdpa":
        raise ConfigError(f"attention: {type(model.network).__name__} has only sdpa in this version of diffusers")


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
