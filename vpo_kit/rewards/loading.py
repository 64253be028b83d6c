"""Judges, loaded as ``--reward`` and the recipe's `reward` section say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from vpo_kit.config import validate
from vpo_kit.errors import ConfigError
from vpo_kit.folders import is_embedded
from vpo_kit.models.offload import offload_module
from vpo_kit.registry import REWARDS
from vpo_kit.rewards.base import Mixture, Reward, RewardConfig, RewardSpec, parse


@dataclass(frozen=True)
class RewardPlan:
    """A reward's class, checked settings and weight; no weights are read yet."""

    kind: type[Reward]
    config: RewardConfig
    weight: float

    @cached_property
    def spec(self) -> RewardSpec:
        """The reward's facts; a remote one is asked for them. Raises `ModelError` where it does not answer."""
        return self.kind.describe(self.config)


def plan(text: str, settings: Mapping[str, Any], *, in_groups: bool = False) -> list[RewardPlan]:
    """Check names and settings. One reward takes `settings` as they are, each of several its own section by name.

    Raises `ConfigError`, also for a reward that only compares candidates where there are none (not `in_groups`).
    """
    parts = [(*_split(term), weight) for term, weight in parse(text)]
    plans = []
    for name, argument, weight in parts:
        kind = REWARDS.load(name)
        if not (isinstance(kind, type) and issubclass(kind, Reward)):
            raise ConfigError(f"{name} is not a reward: it must be a subclass of vpo_kit.rewards.base.Reward")
        if kind.spec.in_groups and not in_groups:
            raise ConfigError(
                f"reward {name!r} only compares the candidates of a prompt, and here each video is scored alone: it is "
                "for training by a method that samples candidates (online, nft, grpo, rwr)"
            )
        own = settings if len(parts) == 1 else settings.get(name, {})
        if not isinstance(own, Mapping):
            raise _astray(name)
        if argument:
            own = _with_argument(kind, name, argument, own)
        plans.append(RewardPlan(kind, validate(kind.Config, own, "reward."), weight))
    unknown = set(settings) - {name for name, _, _ in parts} if len(parts) > 1 else set()
    if unknown:
        raise _astray(min(unknown))
    return plans


def _astray(setting: str) -> ConfigError:
    return ConfigError(f"reward.{setting}: with several rewards, write reward.NAME.setting")


def locate(plans: Sequence[RewardPlan]) -> None:
    """That no file of weights is missing, as far as that is known before it is read. Raises `ModelError`."""
    for one in plans:
        one.kind.locate(one.config)


def check_prompts(plans: Sequence[RewardPlan], prompts: Sequence[str]) -> None:
    """That each reward can say something of each prompt. Raises `DataError`; nothing is loaded."""
    for one in plans:
        one.kind.check_prompts(one.config, prompts)


def foreign(plans: Sequence[RewardPlan], model: str) -> list[str]:
    """A line where some of them know the embedded model's world alone, and videos are of another `model`."""
    names = list(dict.fromkeys(one.spec.name for one in plans if one.spec.embedded_only))
    if not names or is_embedded(model):
        return []
    what = f"{', '.join(names)}: {'a judge' if len(names) == 1 else 'judges'} of the embedded model's world"
    return [f"warning: {what}, which means little for {model}: take one for real videos (docs/judges.md)"]


def load(plans: list[RewardPlan], device: torch.device, *, offload: bool = False) -> Mixture:
    """Read the weights. With `offload` each reward is on `device` only while it scores, one after the other.

    Raises `ModelError` where a file is missing or damaged, `ConfigError` for two of one name.
    """
    mixture = Mixture([(p.kind(p.config), p.weight) for p in plans])
    names = [part.spec.name for part in mixture.parts]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two rewards are called {min(twice)!r}, and scores are kept by name: give one of them")
    mixture.requires_grad_(False).eval()
    if not offload:
        return mixture.to(device)
    for part in mixture.parts:
        offload_module(part, device)
    return mixture


def _split(term: str) -> tuple[str, str]:
    """A registered name and what is written behind it; ``package.module:Class`` is a name as it stands."""
    name, _, argument = term.partition(":")
    return (name, argument) if argument and name in REWARDS.targets() else (term, "")


def _with_argument(kind: type[Reward], name: str, argument: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    if kind.argument is None:
        raise ConfigError(f"reward {name!r} takes nothing but a weight behind its name, not {argument!r}")
    if kind.argument in settings:
        raise ConfigError(f"reward {name!r}: its {kind.argument} is given twice, behind its name and as a setting")
    return {**settings, kind.argument: argument}
