"""Write what is generated from the classes: ``catalogue.json``, which the lists read, and ``docs/recipe.md``.

``python -m vpo_kit.library.lists`` in a checkout, or ``make lists``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vpo_kit import catalogue, fields, files
from vpo_kit.catalogue import MethodFacts, ModelFacts, RewardFacts, Setting
from vpo_kit.config import Run
from vpo_kit.evaluation import metrics
from vpo_kit.methods.base import Method, MethodConfig
from vpo_kit.models.base import VideoModel
from vpo_kit.pairing.settings import PairSettings
from vpo_kit.registry import LABELLERS, METHODS, METRICS, MODELS, REWARDS, TRUTHS
from vpo_kit.rewards.base import Reward
from vpo_kit.training import comfyui

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"
HEAD = """# The fields of a recipe

Written by `make lists` from the program's own settings; `vpo config [SEARCH]` prints and searches the same. Every field
can be set in a YAML file, or by `--set section.field=value`; `null` is no value. The defaults are the program's; a
method and a model may bring others, and `vpo train --dry-run` says which a run gets and where they come from.
"""
PAIRS = "What is in a set, beside data, strategy, LoRA and seed; `labelling` is the labeller's own, below.\n"


def method_facts(kind: type[Method]) -> MethodFacts:
    """What a method says of itself."""
    needs = kind.needs
    settings = tuple(fields.of(kind.Config, "method."))
    return MethodFacts(
        summary=kind.summary, data=tuple(needs.data), reward=needs.reward, strategy=needs.strategy, settings=settings
    )


def reward_facts(kind: type[Reward]) -> RewardFacts:
    """What a reward says of itself, before its settings are known."""
    spec = kind.spec
    return RewardFacts(
        training=spec.for_training,
        gradient=spec.differentiable,
        segments=spec.per_segment,
        in_groups=spec.in_groups,
        prompt=spec.needs_prompt,
        ships=spec.self_contained,
        licence=spec.licence,
        scale=spec.scale,
        settings=tuple(fields.of(kind.Config, "reward.")),
    )


def metric_facts() -> dict[str, dict[str, Any]]:
    """The metrics that come with this package, in the order of a table."""
    kinds = [metrics.kind_of(registry, name) for registry in (METRICS, TRUTHS) for name in registry.builtins]
    found = {metric.name: metric for metric in (*(one for kind in kinds for one in kind.metrics), *metrics.OF_SETS)}
    plain = {name: asdict(found[name]) for name in metrics.ordered(found)}
    return {name: {key: value for key, value in one.items() if key != "name"} for name, one in plain.items()}


def model_facts(name: str) -> ModelFacts:
    """What an adapter says of its pipeline class."""
    kind: type[VideoModel] = MODELS.load(name)
    known = name in comfyui.NAMES
    return ModelFacts(published=kind.published, inputs=tuple(kind.inputs), experts=kind.may_have_experts, comfyui=known)


def facts() -> dict[str, dict[str, Any]]:
    """The catalogue of the built-in parts, plain."""
    methods = {name: asdict(method_facts(METHODS.load(name))) for name in METHODS.builtins}
    rewards = {name: asdict(reward_facts(REWARDS.load(name))) for name in REWARDS.builtins}
    models = {name: asdict(model_facts(name)) for name in MODELS.builtins}
    return {"methods": methods, "rewards": rewards, "metrics": metric_facts(), "models": models}


def text() -> str:
    """``catalogue.json`` as it should be."""
    return json.dumps(facts(), indent=1) + "\n"


def page() -> str:
    """``docs/recipe.md`` as it should be."""
    parts = [HEAD, "## Every run\n", _table(_of_sections(Run))]
    shared = {one.name: one for one in fields.of(MethodConfig, "method.")}
    for name in METHODS.builtins:
        kind = METHODS.load(name)
        own = [one for one in fields.of(kind.Config, "method.") if one.name not in shared]
        parts += [f"## Method `{name}`\n", f"{kind.summary}.\n", _table(own)]
    for name in REWARDS.builtins:
        if own := list(fields.of(REWARDS.load(name).Config, "reward.")):
            parts += [f"## Reward `{name}`\n", _table(own)]
    parts += ["## Pairs: `vpo pair --set`\n", PAIRS, _table(fields.of(PairSettings))]
    for name in LABELLERS.builtins:
        parts += [f"## Labels: `--with {name}`\n", _table(fields.of(LABELLERS.load(name).Config, "labelling."))]
    return "\n".join(parts)


def _of_sections(kind: type[BaseModel]) -> list[Setting]:
    """Fields without a section first, then section by section."""
    return sorted(fields.of(kind), key=lambda one: "." in one.name)


def _table(settings: Iterable[Setting]) -> str:
    rows = ["| field | values | default | meaning |", "|---|---|---|---|"]
    for one in settings:
        values, default, meaning = (text.replace("|", r"\|") for text in (one.values, one.default, one.meaning))
        meaning = re.sub(r"(?<![\w.`])([-+]\d+|\d+\.\d+)(?![\w.`])", r"`\1`", meaning)  # settings, and no results
        rows.append(f"| `{one.name}` | `{values}` | `{default}` | {meaning} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    files.write(catalogue.FILE, text())
    files.write(PAGE, page())
