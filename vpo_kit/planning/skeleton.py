"""A pipeline without its weights: modules from their configurations alone, behind the production adapters."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.initialization import no_init_weights

from vpo_kit import folders
from vpo_kit.errors import ModelError, first_line
from vpo_kit.models import loading
from vpo_kit.models.base import VideoModel
from vpo_kit.models.preview import PreviewDecoder, read_shape
from vpo_kit.planning.published import PUBLISHED, tokenizer
from vpo_kit.registry import MODELS


def build(
    name_or_path: str, fake: FakeTensorMode, *, revision: str | None = None, dtype: str = "float32"
) -> VideoModel:
    """The model behind an embedded name, a folder or a hub id, with fake weights of `dtype`.

    Of a folder only the JSON files are read, of a hub id only they are downloaded, and nothing at all for the ids in
    `PUBLISHED`. Raises `ModelError`.
    """
    if name_or_path in PUBLISHED and not Path(name_or_path).is_dir():
        family, made = PUBLISHED[name_or_path]()
        components = {name: _made(name, make, fake) for name, make in made.items()}
        settings, more, shape = None, dict[str, Any](), None
    else:
        source = folders.resolve(name_or_path)
        family, components, more = _from_configs(source, revision, fake)
        settings = loading._settings(source)
        shape = read_shape(Path(source))
    for part in components.values():
        if isinstance(part, nn.Module):
            cast(part, getattr(torch, dtype))
    kind = loading.pipeline_class(family)
    taken = inspect.signature(kind.__init__).parameters  # as from_pretrained leaves out what the class does not take
    pipeline = kind(**{key: value for key, value in {**components, **more}.items() if key in taken})
    adapter = MODELS.load(family)
    model: VideoModel = adapter(pipeline, settings, name_or_path)
    if shape is not None:
        with fake:
            model.preview = PreviewDecoder(shape).requires_grad_(False)
    return model


def _made(name: str, make: Callable[[], Any], fake: FakeTensorMode) -> Any:
    with fake if name not in ("scheduler", "tokenizer", "tokenizer_2", "guider") else nullcontext():
        return make()


def _from_configs(
    source: str, revision: str | None, fake: FakeTensorMode
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The pipeline's class, its components and its other settings."""
    family, index = loading.read_index(source, revision, source)
    components: dict[str, Any] = {}
    own = MODELS.check(family).partition(":")[0].partition(".")[0]
    more = {key: value for key, value in index.items() if not key.startswith("_") and not isinstance(value, list)}
    for name, value in index.items():
        if isinstance(value, list):
            components[name] = (
                None if value[1] is None else _component(source, revision, name, value[0], value[1], own, fake)
            )
    return family, components, more


def _component(
    source: str, revision: str | None, name: str, library: str, kind: str, own: str, fake: FakeTensorMode
) -> Any:
    where = {"subfolder": name, "revision": revision}
    if "tokenizer" in name:
        try:
            return getattr(transformers, kind).from_pretrained(source, **where)
        except (OSError, ValueError, AttributeError, TypeError):
            return tokenizer(512)  # a folder of configurations alone
    found = _class(library, kind, own)
    if found is None:
        raise ModelError(f"{source}: {library}.{kind} of {name} is not known here")
    try:
        if not issubclass(found, nn.Module):
            return found.from_pretrained(source, **where)
        if issubclass(found, diffusers.ModelMixin):
            config = found.load_config(source, **where)
            with fake:
                return found.from_config(config)
        settings = found.config_class.from_pretrained(source, **where)
        with fake, no_init_weights():  # some first values are drawn until they lie in a range: there are no data to ask
            return found(settings)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {name} of {source}: {first_line(error)}") from error


def _class(library: str, kind: str, own: str) -> Any:
    """A component's class, of diffusers, of transformers, or of the package `own` that the adapter is in."""
    if library.partition(".")[0] not in ("diffusers", "transformers", own):
        return None
    try:
        return getattr(importlib.import_module(library), kind, None)
    except ImportError:
        return None


def cast(part: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights as loading in `dtype` does it: some layers stay float32, and so does what no file holds."""
    kept = set(getattr(part, "_keep_in_fp32_modules", None) or ())
    if isinstance(part, transformers.PreTrainedModel) and dtype != torch.float16:
        kept = set()  # transformers keeps them for float16 alone
    kept |= set(getattr(part, "_keep_in_fp32_modules_strict", None) or ())
    saved = set(part.state_dict())
    for name, tensor in (*part.named_parameters(), *part.named_buffers()):
        if name in saved and tensor.is_floating_point() and not kept & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)
