"""The optimiser of a run."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence

import torch
from torch import nn

from vpo_kit.config import Optimiser
from vpo_kit.errors import ConfigError


def check(name: str) -> None:
    """Raises `ConfigError` where the extra that the optimiser `name` needs is not installed."""
    if name == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "optimiser.name: adamw_8bit needs bitsandbytes: pip install 'vpo-kit[quantised]', or use adamw"
        )


def build(settings: Optimiser, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW over `parameters`, or the one of bitsandbytes with its averages in eight bits (tensors of fewer than 4096
    numbers keep 32). Its state holds plain tensors, so checkpoints are read without pickle and go on exactly.

    Raises `ConfigError` where the extra is missing.
    """
    check(settings.name)
    eight = settings.name == "adamw_8bit"
    kind = importlib.import_module("bitsandbytes").optim.AdamW8bit if eight else torch.optim.AdamW
    optimiser: torch.optim.Optimizer = kind(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return optimiser
