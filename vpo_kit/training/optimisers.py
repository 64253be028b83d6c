"""The optimiser of a run."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vpo_kit.config import Optimiser
from vpo_kit.errors import ConfigError
from vpo_kit.training.rates import FULL


def check(name: str) -> None:
    """Raises `ConfigError` where the extra that the optimiser `name` needs is not installed."""
    if name == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "optimiser.name: adamw_8bit needs bitsandbytes: pip install 'vpo-kit[quantised]', or use adamw"
        )


def build(settings: Optimiser, groups: Mapping[str, Sequence[nn.Parameter]]) -> torch.optim.Optimizer:
    """AdamW over the parameters of each trained network, or the one of bitsandbytes with its averages in eight bits
    (tensors of fewer than 4096 numbers keep 32). Its state holds plain tensors, so checkpoints are read without pickle
    and go on exactly.

    Raises `ConfigError` where the extra is missing, and for rates by expert that are not those of the networks.
    """
    check(settings.name)
    eight = settings.name == "adamw_8bit"
    kind = importlib.import_module("bitsandbytes").optim.AdamW8bit if eight else torch.optim.AdamW
    rates = {name: _rate(settings, name) for name in groups}
    listed = [{"params": list(own), "lr": rates[name], FULL: rates[name]} for name, own in groups.items()]
    optimiser: torch.optim.Optimizer = kind(
        listed, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    return optimiser


def _rate(settings: Optimiser, name: str) -> float:
    if not isinstance(settings.lr, dict):
        return settings.lr
    for word, rate in settings.lr.items():
        if word == name:
            return rate
    raise ConfigError(f"optimiser.lr has no rate for {name}: give one number, or one for each expert that is trained")
