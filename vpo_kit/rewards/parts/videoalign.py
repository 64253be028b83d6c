"""VideoReward's folder: its settings, and its checkpoint as one plain set of weights for today's `Qwen2VLModel`.

The checkpoints were written by transformers 4.45 and PEFT.

Layouts, newest ``checkpoint-N`` of the folder: ``model.pth`` with every weight, with or without PEFT's wrapping (the
published file is wrapped: the LoRA is beside its base layers), or ``adapter_model.safetensors`` and
``non_lora_state_dict.pth``, which need the base model's weights. A LoRA is added into its layer:
``W + scale B A``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from vpo_kit.config import validate
from vpo_kit.errors import ModelError
from vpo_kit.rewards.parts.weights import State, WeightsSource, read_folder, read_state

RENAMED = {  # transformers 4 to 5, seen from inside Qwen2VLModel
    "model.visual.": "visual.",
    "model.language_model.": "language_model.",
    "model.": "language_model.",
}
WRAPPING = "base_model.model."


class DataLayout(BaseModel):
    max_frame_pixels: int = Field(ge=28 * 28)
    fps: float = Field(2.0, gt=0)
    num_frames: float | None = Field(None, ge=2)
    sample_type: Literal["uniform"] = "uniform"
    prompt_template_type: Literal["detailed_special"]


class _Network(BaseModel):
    model_name_or_path: str
    use_special_tokens: Literal[True]


class _Lora(BaseModel):
    lora_r: int = Field(16, ge=1)
    lora_alpha: float = 32
    use_rslora: bool = False

    @property
    def scale(self) -> float:
        """The factor by which ``B A`` is multiplied."""
        return self.lora_alpha / (math.sqrt(self.lora_r) if self.use_rslora else self.lora_r)


class _Norm(BaseModel):
    VQ_mean: float
    VQ_std: float = Field(gt=0)
    MQ_mean: float
    MQ_std: float = Field(gt=0)
    TA_mean: float
    TA_std: float = Field(gt=0)


class ModelLayout(BaseModel):
    """What is needed of ``model_config.json``; other layouts of the same code are refused."""

    data: DataLayout = Field(alias="data_config")
    network: _Network = Field(alias="model_config")
    lora: _Lora = Field(alias="peft_lora_config")
    norm: _Norm | None = Field(None, alias="inference_config")


def read_settings(path: Path) -> ModelLayout:
    """Raises `ModelError` where the file cannot be read, `ConfigError` where it describes another kind of model."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}, which VideoReward's folder must hold: {error}") from None
    return validate(ModelLayout, values, f"{path}: ")


def base_folder(given: Path | None, name: str) -> Path:
    """`given`, or the folder `name`, or what the local hub cache holds of it; nothing is downloaded."""
    from huggingface_hub import snapshot_download

    if given is None and Path(name).is_dir():
        given = Path(name)
    if given is None:
        try:
            given = Path(snapshot_download(name, local_files_only=True))
        except (OSError, ValueError):
            given = None
    what = "the model folder Qwen/Qwen2-VL-2B-Instruct"
    return WeightsSource(
        reward="videoreward",
        what=what,
        place="the Hugging Face hub",
        size="4.4 GB",
        licence="Apache-2.0",
        folder=True,
        setting="base",
    ).require(given)


def read_checkpoint(folder: Path, base: Path, scale: float) -> State:
    """Weights of `Qwen2VLModel` and ``rm_head.weight``; what only a text generator needs is left out.

    `folder` holds ``checkpoint-N``; `base` is the base model's folder; `scale` is the LoRA's alpha over its rank.
    Raises `ModelError` where files are missing, cannot be read, or do not belong together.
    """
    last = newest(folder)
    if (last / "model.pth").is_file():
        return merged(read_state(last / "model.pth"), scale, last)
    adapter, rest = last / "adapter_model.safetensors", last / "non_lora_state_dict.pth"
    missing = [file.name for file in (adapter, rest) if not file.is_file()]
    if missing:
        raise ModelError(f"{last} holds neither model.pth nor {missing[0]}: download the whole folder")
    lora, others = read_state(adapter), read_state(rest)
    if not any(key.endswith("embed_tokens.weight") for key in others):
        raise ModelError(f"{rest} does not hold the embeddings, and with them the three reward tokens")
    return merged({**plain(read_folder(base)), **plain(others), **plain(lora)}, scale, last)


def newest(folder: Path) -> Path:
    """The ``checkpoint-N`` with the largest N. Raises `ModelError`."""
    found = {
        int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()
    }
    if not found:
        raise ModelError(f"{folder} holds no checkpoint-N: give VideoReward's whole folder")
    return found[max(found)]


def plain(state: State) -> State:
    """The weights without PEFT's wrapping, under today's names."""
    return {_renamed(key.removeprefix(WRAPPING)): value for key, value in state.items()}


def merged(state: State, scale: float, path: Path) -> State:
    """`plain`, with each LoRA added into its layer, in float32 and back. Raises `ModelError`."""
    found: State = {}
    loras: dict[str, State] = {}
    for key, value in plain(state).items():
        layer, lora, half = key.partition(".lora_")
        if lora:
            loras.setdefault(layer, {})[half[0]] = value
        elif not key.startswith("lm_head."):
            found[key.replace(".base_layer.", ".")] = value
    for layer, halves in loras.items():
        weight = found.get(f"{layer}.weight")
        if weight is None or set(halves) != {"A", "B"}:
            raise ModelError(f"{path}: the LoRA of {layer} lacks its layer or one of its halves")
        change = halves["B"].float() @ halves["A"].float()
        if change.shape != weight.shape:
            raise ModelError(f"{path}: the LoRA of {layer} does not fit its layer")
        found[f"{layer}.weight"] = (weight.float() + scale * change).to(weight.dtype)
    return found


def _renamed(key: str) -> str:
    return next((new + key[len(old) :] for old, new in RENAMED.items() if key.startswith(old)), key)
