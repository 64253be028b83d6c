"""`vpo rewards`: the rewards, or all that one of them says of itself."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from vpo_kit import catalogue
from vpo_kit.cli.listing import WIDTH, cut, show, show_plugins, yes
from vpo_kit.cli.options import app
from vpo_kit.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from vpo_kit.rewards.base import RewardSpec
    from vpo_kit.rewards.loading import RewardPlan


@app.command()
def rewards(name: Annotated[str | None, typer.Argument(help="one reward: weights, licence, settings")] = None) -> None:
    """List the rewards, or show one with its weights, its licence and all of its settings."""
    if name is None:
        _show_all()
    else:
        _show_one(name)


def _show_all() -> None:
    """Print the rewards, with what a choice between them turns on; of those of other packages name and package."""
    from vpo_kit.registry import REWARDS

    print(f"{'reward':11} {'for':8} {'grad':4} {'seg':3} {'prompt':6} {'ships':5} licence")
    for name, facts in catalogue.rewards().items():
        cells = [
            f"{'training' if facts.training else 'checking':8}",
            f"{yes(facts.gradient):4}",
            f"{yes(facts.segments):3}",
            f"{yes(facts.prompt):6}",
            f"{yes(facts.ships):5}",
        ]
        print(cut(" ".join([f"{name:11}", *cells, facts.licence])))
    show_plugins(REWARDS)
    print(
        "\ngrad: passes a gradient; seg: scores segments; ships: needs no download",
        "vpo rewards NAME: scale, weights (here or missing), licence, settings",
        sep="\n",
    )


def _show_one(name: str) -> None:
    """Print a reward's facts, whether its weights are here, and its settings. Raises `ConfigError`."""
    from vpo_kit.library.lists import reward_facts
    from vpo_kit.rewards import loading

    plan, *others = loading.plan(name, {}, in_groups=True)
    if others:
        raise ConfigError(f"{name!r} is a mixture: name one of its rewards")
    spec = plan.kind.spec
    print(fill(f"{spec.name}: {', '.join(_uses(spec))}", WIDTH))
    for label, text in (
        ("scale", spec.scale),
        ("source", spec.source),
        ("licence", spec.licence),
        ("weights", _weights(plan)),
    ):
        print(fill(f"{label:8} {text}", WIDTH, subsequent_indent=" " * 9))
    for one in reward_facts(plan.kind).settings:
        show(one)


def _uses(spec: RewardSpec) -> list[str]:
    return [
        "for training" if spec.for_training else "a held-out judge: for checking, never for training",
        "passes a gradient" if spec.differentiable else "passes no gradient",
        _scored(spec),
        "needs the prompt" if spec.needs_prompt else "needs no prompt",
        *(["knows the embedded model's world alone"] if spec.embedded_only else []),
    ]


def _weights(plan: RewardPlan) -> str:
    """The place of the weights, with their size, or what is to be got."""
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


def _scored(spec: RewardSpec) -> str:
    if spec.in_groups:
        return "compares a prompt's candidates"
    return "scores segments" if spec.per_segment else "scores whole clips"
