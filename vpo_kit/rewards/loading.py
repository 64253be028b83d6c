"""From ``--reward`` and the recipe's `reward` section to loaded judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vpo_kit.config import validate
from vpo_kit.errors import ConfigError
from vpo_kit.registry import REWARDS
from vpo_kit.rewards.base import Mixture, Reward, RewardConfig, parse


@dataclass(frozen=True)
class Plan:
    """A reward's class, checked settings and weight; no weights are read yet."""

    kind: type[Reward]
    config: RewardConfig
    weight: float


def plan(text: str, settings: Mapping[str, Any]) -> list[Plan]:
    """Check names and settings. One reward takes `settings` as they are, each of several its own section by name.

    Raises `ConfigError`.
    """
    parts = parse(text)
    plans = []
    for name, weight in parts:
        kind = REWARDS.load(name)
        if not (isinstance(kind, type) and issubclass(kind, Reward)):
            raise ConfigError(f"{name} is not a reward: it must be a subclass of vpo_kit.rewards.base.Reward")
        own = settings if len(parts) == 1 else settings.get(name, {})
        plans.append(Plan(kind, validate(kind.Config, own, "reward."), weight))
    unknown = set(settings) - {name for name, _ in parts} if len(parts) > 1 else set()
    if unknown:
        raise ConfigError(f"reward.{unknown.pop()}: with several rewards, write reward.NAME.setting")
    return plans


def load(plans: list[Plan], device: torch.device) -> Mixture:
    """Read the weights. Raises `ModelError` where a file is missing or damaged."""
    mixture = Mixture([(p.kind(p.config), p.weight) for p in plans])
    return mixture.requires_grad_(False).eval().to(device)
