"""`vpo methods`, `rewards`, `metrics`, `models` and `config`: what there is, built in or from plug-ins, a line each.

No torch here: the built-in parts are read from the catalogue, of a plug-in its name and package are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

from vpo_kit import catalogue, fields
from vpo_kit.catalogue import MethodFacts, Setting
from vpo_kit.config import Run
from vpo_kit.errors import ConfigError
from vpo_kit.folders import EMBEDDED
from vpo_kit.registry import METHODS, METRICS, MODELS, REWARDS, TRUTHS, Registry, nearest

WIDTH = 80
REWARDS_OF = {"none": "", "any": "a reward", "differentiable": "a differentiable reward"}


def methods() -> None:
    """The methods, by what they need."""
    groups: dict[str, list[str]] = {}
    for name, facts in catalogue.methods().items():
        groups.setdefault(needs(facts), []).append(f"{name:10}  {facts.summary}")
    for heading, lines in groups.items():
        print(f"from {heading}:", *lines, "", sep="\n")
    _plugins(METHODS)
    print("vpo methods NAME: what a method needs, and every setting of it")


def rewards() -> None:
    """The rewards, with what a choice between them turns on."""
    print(f"{'reward':11} {'for':8} {'grad':4} {'seg':3} {'prompt':6} {'ships':5} licence")
    for name, facts in catalogue.rewards().items():
        cells = [
            f"{'training' if facts.training else 'checking':8}",
            f"{_yes(facts.gradient):4}",
            f"{_yes(facts.segments):3}",
            f"{_yes(facts.prompt):6}",
            f"{_yes(facts.ships):5}",
        ]
        print(_cut(" ".join([f"{name:11}", *cells, facts.licence])))
    _plugins(REWARDS)
    print(
        "\ngrad: passes a gradient; seg: scores segments; ships: needs no download",
        "vpo rewards NAME: scale, weights (here or missing), licence, settings",
        sep="\n",
    )


def metrics() -> None:
    """The metrics of the built-in measures, of sets and of made worlds, in the order of a table."""
    better = {"higher": "more is better", "lower": "less is better", "neutral": "no better and no worse"}
    for name, facts in catalogue.metrics().items():
        print(f"{name}  ({'; '.join([facts.unit, better[facts.direction], *_needed(facts.needs)])})\n    {facts.about}")
    for registry in (METRICS, TRUTHS):
        _plugins(registry)


def _needed(needs: Sequence[str]) -> list[str]:
    return [f"needs {', '.join(needs)}"] if needs else []


def models() -> None:
    """The embedded models, and the pipeline classes that have an adapter."""
    for name in EMBEDDED:
        print(f"{name:24}  embedded model, ships with the package")
    for family in MODELS.builtins:
        print(f"{family:24}  a diffusers folder or hub id of this pipeline class")
    _plugins(MODELS)


def settings(text: str | None) -> None:
    """The fields of a recipe, those of the methods and rewards too; or those that `text` names or that speak of it.

    Raises `ConfigError` where none does.
    """
    found = every()
    chosen = fields.find(list(found), text) if text else list(found)
    if not chosen:
        leaves = {one.name.rpartition(".")[2] for one in found}
        raise ConfigError(f"no field of a recipe speaks of {text!r}{nearest(text or '', leaves)}")
    for one in chosen:
        show(one, found[one])


def every() -> Mapping[Setting, list[str]]:
    """All fields of a recipe, each with the methods or rewards that have it; nothing for those of every run."""
    found: dict[Setting, list[str]] = {one: [] for one in fields.of(Run)}
    for name, method in catalogue.methods().items():
        for one in method.settings:
            found.setdefault(one, []).append(name)
    for name, reward in catalogue.rewards().items():
        for one in reward.settings:
            found.setdefault(one, []).append(name)
    return found


def show(one: Setting, owners: list[str] | None = None) -> None:
    """One field: its name, values and default in a line, its meaning below."""
    print(f"{one.name} = {one.default}  ({one.values})")
    meaning = one.meaning + (f" [{', '.join(owners)}]" if owners else "")
    print(fill(meaning, WIDTH, initial_indent="    ", subsequent_indent="    "))


def needs(facts: MethodFacts) -> str:
    """What a method learns from, in words."""
    names = {"pairs": f"{facts.strategy} pairs" if facts.strategy else "pairs", "videos": "real clips"}
    data = " or ".join(names.get(kind, kind) for kind in facts.data)
    return ", ".join(filter(None, [data, REWARDS_OF[facts.reward]]))


def _plugins(registry: Registry) -> None:
    """Those of other packages; two parts of one name are an error."""
    registry.targets()
    for name, package in registry.packages().items():
        print(_cut(f"{name}  {registry.kind} of the package {package}"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."
