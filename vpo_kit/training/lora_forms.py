"""Other programs' LoRA files in diffusers' names: each of their factors finds its layer, or the file is refused.

Legend: of a layer with weight ``[out, in]`` a LoRA has ``A [rank, in]``, called down or A, and ``B [out, rank]``,
called up or B, and is applied as ``alpha / rank B A``. What is read here has alpha in ``B``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vpo_kit.errors import ModelError
from vpo_kit.models.base import VideoModel

FACTOR = re.compile(
    r"^(?P<layer>.+?)(?:\.lora_(?P<letter>[AB])(?:\.\w+)?\.weight"
    r"|[._]lora(?:_linear_layer)?[._](?P<word>down|up)\.weight)$"
)
"""``x.lora_A.weight``, ``x.lora_A.NAME.weight`` (PEFT); ``x.lora_down.weight`` (kohya), ``x.lora.down.weight``,
``x.processor.to_q_lora.down.weight`` (older diffusers)."""
PREFIXES = (
    "base_model.model.",
    "module.",
    "model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "lora_unet_",
    "lora_transformer_",
)
TEXT = ("lora_te", "text_encoder.", "text_model.")
PEFT_CONFIG = "adapter_config.json"
ORIGINAL = (
    (re.compile(r"^(?=blocks\.\d+\.)"), "diffusion_model."),  # DiffSynth's Wan: the published names, without a prefix
    # musubi's Hunyuan: the published names, with underscores between their parts
    (re.compile(r"^lora_unet_(double|single)_blocks_(\d+)_(img|txt)_(mlp|mod)_"), r"transformer.\1_blocks.\2.\3_\4."),
    (re.compile(r"^lora_unet_single_blocks_(\d+)_modulation_"), r"transformer.single_blocks.\1.modulation."),
    (re.compile(r"^lora_unet_(double|single)_blocks_(\d+)_"), r"transformer.\1_blocks.\2."),
)
"""Names of the published networks, brought to what diffusers' own converters of the family look for."""


@dataclass(frozen=True)
class Factors:
    """The two factors of one layer, by the layer's name in the file, and its alpha; None is the rank."""

    down: Tensor
    up: Tensor
    alpha: float | None

    @property
    def scaled_up(self) -> Tensor:
        """The factor ``B`` with ``alpha / rank`` in it."""
        return self.up if self.alpha is None else self.up * (self.alpha / len(self.down))


def read(model: VideoModel, network: str, path: Path) -> dict[str, Tensor] | None:
    """The LoRA at `path` for one network of `model`, in the names that diffusers writes or its converters know; None
    for a file that diffusers wrote itself, which it reads with its alpha.

    Raises `ModelError` for a file with anything else than a plain LoRA of that network.
    """
    raw = _tensors(path)
    own = f"{model.network_name}."
    settings = _peft(path)
    plain = all(key.startswith(own) and key.endswith((".lora_A.weight", ".lora_B.weight")) for key in raw)
    if plain and settings is None:
        return None
    found = dict(_factors(raw, settings or {}, path))
    weights = {name: getattr(part, "weight", None) for name, part in model.networks[network].named_modules()}
    layers = {name: one for name, one in weights.items() if isinstance(one, Tensor) and one.ndim > 1}
    flat = {name.replace(".", "_"): name for name in layers}
    places = {name: _place(name, layers, flat, own) for name in found}
    if all(places.values()):
        return {
            f"{own}{place}.{letter}.weight": value
            for name, place in places.items()
            if place
            for letter, value in zip(("lora_A", "lora_B"), _shaped(found[name], layers[place], name, path), strict=True)
        }
    if any(places.values()):
        lost = [name for name, place in places.items() if place is None]
        raise ModelError(
            f"{path} is the LoRA of another model: {len(lost)} of its {len(places)} layers have no place in "
            f"{model.source}, {lost[0]} for one"
        )
    original = {_original(name): one for name, one in found.items()}
    return {f"{name}.lora_A.weight": one.down for name, one in original.items()} | {
        f"{name}.lora_B.weight": one.scaled_up for name, one in original.items()
    }


def count(path: Path) -> int:
    """How many layers a file changes: the number of its factors ``A``. Raises `ModelError`."""
    found = (FACTOR.match(key) for key in _tensors(path))
    return sum(one is not None and (one["letter"] == "A" or one["word"] == "down") for one in found)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from error


def _peft(path: Path) -> dict[str, Any] | None:
    """PEFT's settings beside the file. Raises `ModelError` for what is no plain LoRA."""
    file = path.with_name(PEFT_CONFIG)
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        special = [key for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern") if found.get(key)]
        settings = {"alpha": float(found["lora_alpha"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is no settings of a LoRA: {error!r}") from error
    if special:
        raise ModelError(f"{file} sets {', '.join(special)}: only a plain LoRA of one rank and one alpha can be used")
    return settings


def _factors(raw: Mapping[str, Tensor], settings: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Factors]]:
    """Layers by the names in the file. Raises `ModelError` for keys that belong to no factor."""
    halves: dict[str, dict[str, Tensor]] = {}
    others: list[str] = []
    for key, value in raw.items():
        found = FACTOR.match(key)
        if found is None:
            others += [] if key.endswith(".alpha") else [key]
            continue
        side = "down" if found["letter"] == "A" or found["word"] == "down" else "up"
        halves.setdefault(found["layer"], {})[side] = value
    if others:
        raise ModelError(f"{path} is not a plain LoRA: {_kind(others)} ({len(others)} tensors, {others[0]} for one)")
    text = [name for name in halves if name.startswith(TEXT)]
    if text:
        raise ModelError(
            f"{path} also changes the text encoder ({len(text)} of its {len(halves)} layers), which stays "
            "as it is here: give a LoRA of the video network alone"
        )
    for name, both in halves.items():
        if len(both) < 2:
            raise ModelError(f"{path} has only one factor of {name}: copy or download it again")
        alpha = raw.get(f"{name}.alpha")
        yield name, Factors(both["down"], both["up"], settings.get("alpha") if alpha is None else float(alpha))


def _kind(keys: Sequence[str]) -> str:
    known = {"dora_scale": "a DoRA", "lora_magnitude": "a DoRA", "hada_": "a LoHa", "lokr_": "a LoKr"}
    return next((name for part, name in known.items() if any(part in key for key in keys)), "it holds other tensors")


def _place(name: str, layers: Mapping[str, Any], flat: Mapping[str, str], own: str) -> str | None:
    """The layer that a file's name stands for."""
    for known in _names(name, own):
        for one in (known, f"{known}.0", flat.get(known, ""), flat.get(f"{known}_0", "")):
            if one in layers:
                return one
    return None


def _names(name: str, own: str) -> Iterator[str]:
    """A layer's name without what programs put before and into it."""
    name = name.replace(".processor.", ".").replace("temporal_transformer.transformer_blocks.", "transformer_blocks.")
    name = re.sub(r"\.attention_blocks\.(\d)", lambda found: f".attn{int(found[1]) + 1}", name)
    yield name
    for prefix in (own, *PREFIXES):
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            yield name


def _original(name: str) -> str:
    for pattern, replacement in ORIGINAL:
        name, changed = pattern.subn(replacement, name)
        if changed:
            break
    return name


def _shaped(one: Factors, weight: Tensor, name: str, path: Path) -> tuple[Tensor, Tensor]:
    """Both factors as PEFT has them for a layer of this weight. Raises `ModelError` where they do not fit it."""
    down, up = one.down, one.scaled_up
    if weight.ndim == 2:
        down, up = (value.flatten(1) if value.shape[2:].numel() == 1 else value for value in (down, up))
    if (down.ndim, down.shape[1], up.shape[0]) != (weight.ndim, weight.shape[1], weight.shape[0]):
        raise ModelError(
            f"{path}: {name} is {tuple(up.shape)} by {tuple(down.shape)}, and the layer of the model "
            f"{tuple(weight.shape)}: it is the LoRA of a model of another size"
        )
    return down.contiguous(), up.contiguous()


def all_loaded(model: VideoModel, wanted: int, path: Path) -> None:
    """Raises `ModelError` where the pipeline holds fewer layers of a LoRA than its file has."""
    parts = [part for part in model.pipeline.components.values() if isinstance(part, nn.Module)]
    loaded = sum(isinstance(one, BaseTunerLayer) for part in parts for one in part.modules())
    if loaded < wanted:
        raise ModelError(f"{path}: only {loaded} of its {wanted} layers have a place in {model.source}")
