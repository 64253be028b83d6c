"""`vpo methods NAME` and `vpo rewards NAME`: all that one part says of itself."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

from vpo_kit.commands.lists import WIDTH, needs, show
from vpo_kit.errors import ModelError
from vpo_kit.library.lists import method_facts, reward_facts
from vpo_kit.registry import METHODS
from vpo_kit.rewards import loading


def method(name: str) -> None:
    """What a method does and needs, and its settings. Raises `ConfigError`."""
    facts = method_facts(METHODS.load(name))
    print(f"{name}: {facts.summary}\nlearns from {needs(facts)}\n")
    for one in facts.settings:
        show(one)


def reward(name: str) -> None:
    """A reward's facts, whether its weights are here, and its settings. Raises `ConfigError`."""
    (plan,) = loading.plan(name, {})
    spec, facts = plan.kind.spec, reward_facts(plan.kind)
    uses = [
        "for training" if spec.for_training else "a held-out judge: for checking, never for training",
        "passes a gradient" if spec.differentiable else "passes no gradient",
        "scores segments" if spec.per_segment else "scores whole clips",
        "needs the prompt" if spec.needs_prompt else "needs no prompt",
        *(["knows the embedded model's world alone"] if spec.embedded_only else []),
    ]
    print(fill(f"{spec.name}: {', '.join(uses)}", WIDTH))
    for label, text in (
        ("scale", spec.scale),
        ("source", spec.source),
        ("licence", spec.licence),
        ("weights", _weights(plan)),
    ):
        print(fill(f"{label:8} {text}", WIDTH, subsequent_indent=" " * 9))
    for one in facts.settings:
        show(one)


def _weights(plan: loading.RewardPlan) -> str:
    """Where they are with their size, or what is to be got."""
    try:
        found = plan.kind.locate(plan.config)
    except ModelError as error:
        return f"missing: {error}"
    if found:
        return "here: " + ", ".join(_sized(path) for path in found)
    return "ship with the package, where it has any" if plan.kind.spec.self_contained else "looked for when loaded"


def _sized(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return f"{path} ({sum(file.stat().st_size for file in files) / 1e6:,.1f} MB)"
