"""The frozen network in eight or four bits; the LoRA stays in float32. fp8 and nf4 are in `models.small_linear`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from vpo_kit.errors import ConfigError

PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}


def check_quantise(name: str) -> None:
    """Raises `ConfigError` where the extra that `name` needs is not installed."""
    package = PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(f"quantise: {name} needs {package}: pip install 'vpo-kit[quantised]', or use fp8 or none")


def load_options(name: str, index: Mapping[str, Any], network_name: str) -> dict[str, Any]:
    """What ``from_pretrained`` takes for `name`, nothing where layers are turned afterwards. int8 keeps weights of each
    linear layer of the networks in `index` (``model_index.json``) as integers with a scale for each output, and
    multiplies in the dtype of the input.
    """
    if name != "int8":
        return {}
    from diffusers import PipelineQuantizationConfig, TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    parts = [part for part in (network_name, f"{network_name}_2") if (index.get(part) or [None])[0]]
    mapping = {part: TorchAoConfig(Int8WeightOnlyConfig()) for part in parts}
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping)}
