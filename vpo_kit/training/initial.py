"""A run that starts from a finished LoRA, `lora.init`: what the file says, and its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from vpo_kit import config
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.models.base import VideoModel
from vpo_kit.training import lora_forms, loras
from vpo_kit.training.lora import Start
from vpo_kit.training.recipe import Recipe

METADATA = "lora_adapter_metadata"
DOWN = ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down")
"""How the factors ``[rank, in]`` are called in the known formats."""


def resolve(recipe: Recipe) -> Recipe:
    """`recipe` with rank and alpha of the LoRA that it starts from, as far as the file's header gives them.

    Raises `ModelError` for a path without a LoRA, `ConfigError` where rank or alpha were given and are others.
    """
    settings = recipe.run.lora
    if settings.init is None:
        made = settings.model_copy(update={"alpha": settings.scale * settings.rank})
        return replace(recipe, run=recipe.run.model_copy(update={"lora": made}))
    given = recipe.given.get("lora", {})
    for path in loras.weights_of(settings.init).values():
        found = _header(path)
        for name, value in found.items():
            if name in given and getattr(settings, name) != value:
                raise ConfigError(
                    f"lora.{name} is {getattr(settings, name):g}, and {path} has {value:g}: leave it out, "
                    "and it is taken from the file"
                )
    # without metadata diffusers takes alpha for the rank, or scales the weights so that it is
    guess = {} if "alpha" in given else {"alpha": float(found["rank"])}
    lora = settings.model_copy(update={**guess, **found})
    return replace(recipe, run=recipe.run.model_copy(update={"lora": lora}))


def start(model: VideoModel, settings: config.Lora) -> Start | None:
    """The weights behind ``settings.init``, or None where there is none. Raises `ModelError` or `ConfigError`."""
    if settings.init is None:
        return None
    path = settings.init
    found = read(model, path)
    alpha = settings.scale * settings.rank
    if (found.rank, found.alpha) != (settings.rank, alpha):
        raise ConfigError(
            f"lora: {path} has rank {found.rank} and alpha {found.alpha:g}, not {settings.rank} and {alpha:g}: "
            f"give --set lora.rank={found.rank} --set lora.alpha={found.alpha:g}"
        )
    return found


def read(model: VideoModel, path: Path) -> Start:
    """The LoRA behind `path` for `model`, in any form that diffusers reads for its family.

    The pipeline loads it once, so that rank and alpha are those that every user of the file gets; the weights are then
    taken in the file's own precision, which loading would round to the model's. Raises `ModelError`.
    """
    files = loras.places(model, path)
    with loras.loaded(model, path):
        parts = [_part(model, name, file) for name, file in files.items()]
    first = parts[0]
    if any((part.rank, part.alpha, part.targets) != (first.rank, first.alpha, first.targets) for part in parts):
        raise ModelError(f"{path}: the LoRAs of the experts differ in rank, alpha or layers: give one of the files")
    return replace(first, state={key: value for part in parts for key, value in part.state.items()})


def _part(model: VideoModel, network: str, path: Path) -> Start:
    """What the file at `path` has put into one network, whose LoRA is loaded."""
    name, made = next(iter(model.networks[network].peft_config.items()))
    loaded = get_peft_model_state_dict(model.networks[network], adapter_name=name)
    if made.rank_pattern or made.alpha_pattern or made.use_rslora or made.use_dora or made.lora_bias:
        raise ModelError(f"{path} is not a plain LoRA of one rank and one alpha: it cannot be trained on or exported")
    where = loras.given(lora_forms.read(model, network, path), path)
    found = model.pipeline.lora_state_dict(where.pop("what"), **where)
    exact = found[0] if isinstance(found, tuple) else found
    prefix = f"{model.network_name}."
    others = sorted({key.partition(".")[0] for key in exact if not key.startswith(prefix)})
    if others:
        raise ModelError(f"{path} also changes {', '.join(others)}: only the LoRA of {model.network_name} can be used")
    own = model.prefix(network)
    state = {own + key: exact.get(prefix + key, value).float().cpu().contiguous() for key, value in loaded.items()}
    targets = [made.target_modules] if isinstance(made.target_modules, str) else sorted(made.target_modules)
    return Start(state, int(made.r), float(made.lora_alpha), targets)


def _header(path: Path) -> dict[str, Any]:
    """``rank`` and, where the file has metadata, ``alpha``. Raises `ModelError`."""
    try:
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            ranks = {file.get_slice(k).get_shape()[0] for k in file.keys() if any(name in k for name in DOWN)}  # noqa: SIM118
        values = json.loads(metadata[METADATA]) if METADATA in metadata else {}
        made = {key.rpartition(".")[2]: value for key, value in values.items()}
        alpha = {"alpha": float(made["lora_alpha"])} if "lora_alpha" in made else {}
    except (
        SafetensorError,
        OSError,
        ValueError,
        IndexError,
        AttributeError,
        TypeError,
        RecursionError,
        OverflowError,
    ) as error:
        what = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{path} cannot be read: {what}") from error
    if len(ranks) != 1:
        what = f"layers of ranks {', '.join(map(str, sorted(ranks)))}" if ranks else "no LoRA factors"
        raise ModelError(f"{path} has {what}: a run can start from a LoRA of one rank only")
    return {"rank": ranks.pop(), **alpha}
