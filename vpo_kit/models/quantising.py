"""The frozen network in eight bits, through diffusers and torchao; the LoRA stays in float32."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from vpo_kit.errors import ConfigError


def check_quantise(name: str) -> None:
    """Raises `ConfigError` where the extra that `name` needs is not installed."""
    if name != "none" and importlib.util.find_spec("torchao") is None:
        raise ConfigError(f"quantise: {name} needs torchao: pip install 'vpo-kit[quantised]', or use none")


def load_options(name: str, index: Mapping[str, Any], network_name: str) -> dict[str, Any]:
    """What ``from_pretrained`` takes for `name`: int8 keeps the weight of each linear layer of the networks in `index`
    (``model_index.json``) as integers with a scale for each output, and multiplies in the dtype of the input.
    """
    if name == "none":
        return {}
    from diffusers import PipelineQuantizationConfig, TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    parts = [part for part in (network_name, f"{network_name}_2") if (index.get(part) or [None])[0]]
    mapping = {part: TorchAoConfig(Int8WeightOnlyConfig()) for part in parts}
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping)}
