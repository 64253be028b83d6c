"""`vpo methods`, `vpo rewards`, `vpo models`: what there is, built in or from plugins."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from vpo_kit.folders import EMBEDDED
from vpo_kit.registry import METHODS, MODELS, REWARDS


def methods() -> None:
    table = Table("method", "needs", "what it does")
    for name in METHODS.targets():
        kind = METHODS.load(name)
        needs = [" or ".join(kind.needs.data)]
        needs += [] if kind.needs.reward == "none" else [f"reward ({kind.needs.reward})"]
        table.add_row(name, ", ".join(needs), kind.summary)
    Console().print(table)


def rewards() -> None:
    table = Table("reward", "for", "gradient", "segments", "scale", "licence")
    for name in REWARDS.targets():
        spec = REWARDS.load(name).spec
        table.add_row(
            name, "training" if spec.for_training else "checking", "yes" if spec.differentiable else "no",
            "yes" if spec.per_segment else "no", spec.scale, spec.licence,
        )  # fmt: skip
    Console().print(table)


def models() -> None:
    table = Table("model", "what it is")
    for name in EMBEDDED:
        table.add_row(name, "embedded model, ships with the package")
    for family in MODELS.targets():
        table.add_row(family, "any diffusers folder or hub id of this pipeline class")
    Console().print(table)
