"""The right adapter for a name, a folder or a hub id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import nn

from vpo_kit.config import validate
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.folders import resolve
from vpo_kit.models import encoders
from vpo_kit.models.attention import check_attention, set_attention
from vpo_kit.models.attention import check_family as check_attention_of
from vpo_kit.models.base import VideoModel
from vpo_kit.models.group_offload import check_family, check_group_offload
from vpo_kit.models.group_offload import group_offload as swap_blocks
from vpo_kit.models.offload import offload as offload_parts
from vpo_kit.models.offload import place
from vpo_kit.models.preview import load_preview
from vpo_kit.models.quantising import check_quantise, load_options
from vpo_kit.models.settings import Settings
from vpo_kit.models.small_linear import KINDS, shrink
from vpo_kit.registry import MODELS


class _Extras(BaseModel):
    """`vpo.json` beside `model_index.json`: the sizes that a model was made for, and the made world whose truth can be
    read from its clips (`vpo_kit.truths`). Optional.
    """

    model_config = ConfigDict(extra="forbid")

    frames: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    fps: float = Field(gt=0)
    steps: int = Field(ge=1)
    guidance: float = Field(ge=1)
    negative_prompt: str = ""
    truth: str | None = None

    @property
    def settings(self) -> Settings:
        """The sizes."""
        return Settings(**self.model_dump(exclude={"truth"}))


def check_dtype(name: str, device: torch.device) -> None:
    """Raises `ConfigError` where `device` cannot calculate in the dtype `name`: it tries."""
    try:
        one = torch.ones(1, 1, 1, 1, 1, dtype=getattr(torch, name), device=device)
        torch.nn.functional.conv3d(one, one) @ one
    except RuntimeError as error:
        raise ConfigError(f"dtype: {device.type} here cannot calculate in {name}: use float32") from error


NAMES = ("diffusion_pytorch_model", "model")
"""Names of weight files in a pipeline folder: diffusers' and transformers'."""


def load(
    name_or_path: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    attention: str = "auto",
    offload: bool = False,
    quantise: str = "none",
    group_offload: bool = False,
    late_encoders: bool = False,
) -> VideoModel:
    """Load a pipeline and wrap it in the adapter of its class, on the GPU where there is one.

    `name_or_path` is an embedded model's name, a local folder or a hub id (`HF_HUB_OFFLINE` is respected); `dtype` a
    torch dtype's name for the weights; `variant` the name of weight files beside the usual ones (``fp16``);
    `attention` is auto (diffusers' own choice), sdpa, xformers, flash or sage (which only samples); with `offload` text
    encoder and autoencoder are on the GPU only while they are used, with `group_offload` each block of the network too;
    `quantise` none, int8, fp8 or nf4 says how the trained
    network's linear layers are kept. With `late_encoders` the encoders of texts and pictures are loaded when something
    is encoded, and leave when `PromptCache.ahead` is done.
    Raises `ModelError`, or `ConfigError` for an option that cannot be had here or in this family.
    """
    check_attention(attention, dtype)
    check_quantise(quantise)
    check_group_offload(group_offload, quantise=quantise)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_dtype(dtype, device)
    source = resolve(name_or_path)
    family, index = read_index(source, revision, name_or_path)
    check_attention_of(attention, family)
    adapter, kind = MODELS.load(family), pipeline_class(family)
    _check_files(Path(source), variant)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()

    def read(**options: Any) -> Any:
        try:
            return kind.from_pretrained(
                source,
                revision=revision,
                variant=variant,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                **options,
            )
        except Exception as error:  # diffusers meets damaged folders with a dozen kinds of error
            raise ModelError(f"cannot load {name_or_path}: {_line(error)}") from error

    late = _late(index) if late_encoders else []
    pipeline = read(**dict.fromkeys(late), **load_options(quantise, index, adapter.network_name))
    pipeline.set_progress_bar_config(disable=True)
    extras = _extras(source)
    model: VideoModel = adapter(pipeline, extras.settings if extras else None, name_or_path)
    model.blocks_wait = group_offload
    check_family(group_offload, model)
    if quantise in KINDS:
        shrink(model, quantise)
    place(model, device, offload=offload)
    model.truth = extras.truth if extras else None
    model.preview = load_preview(Path(source), device)
    if group_offload:
        swap_blocks(model)
    if offload:
        offload_parts(model)
    if late:

        def encoding(names: Sequence[str]) -> dict[str, nn.Module]:
            there = {name: part for name, part in pipeline.components.items() if name not in names}
            found = read(**there)  # by the pipeline's own class, which knows each part's options
            return {name: getattr(found, name) for name in names}

        folder = partial(encoders.part_folder, source, revision)
        encoders.late(encoders.Encoders(model, late, encoding, folder, offload, variant))
    if attention != "auto":
        set_attention(model, attention)
    return model


def _late(index: Mapping[str, Any]) -> list[str]:
    """The encoders of texts and pictures that ``model_index.json`` names."""
    named = [name for name, value in index.items() if isinstance(value, list) and value[0] is not None]
    return [name for name in named if name.startswith((encoders.TEXTS, encoders.EYES))]


def read_index(source: str, revision: str | None, name: str) -> tuple[str, dict[str, Any]]:
    """The pipeline class's name and the whole ``model_index.json`` of a folder or hub id, which the user calls `name`.

    Raises `ModelError` where it cannot be read, or its class has no adapter.
    """
    try:
        index = diffusers.DiffusionPipeline.load_config(source, revision=revision)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read model_index.json of {name}: {_line(error)}") from error
    family = index.get("_class_name", "") if isinstance(index, dict) else ""
    targets = MODELS.targets()
    if not isinstance(family, str) or family not in targets:
        raise ModelError(f"{name} is a {family or 'nameless pipeline'}: supported are {', '.join(sorted(targets))}")
    return family, index


def pipeline_class(family: str) -> Any:
    """The class behind a registered name: the one that its adapter names, or diffusers'. Raises `ModelError`."""
    found = MODELS.load(family).pipeline_class or getattr(diffusers, family, None)
    if found is None:
        raise ModelError(
            f"diffusers {diffusers.__version__} has no {family}: its adapter {MODELS.check(family)} must say where it "
            "is (pipeline_class)"
        )
    return found


def _check_files(folder: Path, variant: str | None) -> None:
    """That every weight file of a local pipeline folder is there and whole, as far as headers and sizes say.

    Raises `ModelError`, which names the file; the libraries' own errors do not always do so.
    """
    word = f".{variant}" if variant else ""
    files = [path for name in NAMES for path in folder.glob(f"*/{name}{word}.safetensors")]
    listings = sorted(folder.glob(f"*/*.safetensors.index{word}.json"))
    if folder.is_dir() and not files and not listings:
        found = {path.name.split(".")[1] for name in NAMES for path in folder.glob(f"*/{name}.*.safetensors")}
        kinds = [f"variant={name}" for name in sorted(found)] + ["none"] * any(
            path.is_file() for name in NAMES for path in folder.glob(f"*/{name}.safetensors*")
        )
        if found or variant:
            raise ModelError(
                f"{folder} has no {f'{variant} weights' if variant else 'weights of the usual names'}: "
                f"set variant to one of what is there ({', '.join(kinds) or 'no safetensors at all'})"
            )
    for listing in listings:
        try:
            names = sorted(set(json.loads(listing.read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{listing} is damaged: copy or download the model again") from error
        missing = [name for name in names if not (listing.parent / name).is_file()]
        if missing:
            raise ModelError(
                f"{listing.parent} lacks {missing[0]}, {len(missing)} of its {len(names)} weight files: "
                "copy or download the model again"
            )
        files += [listing.parent / name for name in names]
    for path in files:
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged or cut short: copy or download the model again") from error


def _settings(source: str) -> Settings | None:
    extras = _extras(source)
    return extras.settings if extras else None


def _extras(source: str) -> _Extras | None:
    path = Path(source) / "vpo.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {_line(error)}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} is not a mapping of names to values")
    return validate(_Extras, values, f"{path}: ")


def _line(error: BaseException) -> str:
    """An error's first line; libraries print whole pages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
