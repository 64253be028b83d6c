"""What a table of changes says, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from vpo_kit.evaluation import tables
from vpo_kit.evaluation.metrics import verdict
from vpo_kit.evaluation.statistics import Paired

NAMED = 3
"""Metrics of one verdict that are named; of more the number is told."""


def sentence(base: str, name: str, changes: Mapping[str, Paired]) -> str:
    """``after against before: better in vqa (+0.12 [+0.03, +0.21]); 7 of 8 metrics are unclear.``"""
    found: dict[str, list[str]] = {"better": [], "worse": [], "changed": [], "unclear": []}
    for metric, change in changes.items():
        found[verdict(metric, change)].append(f"{metric} ({tables.span(change)})")
    unclear = len(found.pop("unclear"))
    told = [f"{said}{' in' if said != 'changed' else ''} {_few(names)}" for said, names in found.items() if names]
    total = len(changes)
    if not told:
        return f"{name} against {base}: none of {total} metrics changed by more than chance explains."
    rest = [f"{unclear} of {total} metrics {'is' if unclear == 1 else 'are'} unclear"] if unclear else []
    return f"{name} against {base}: {'; '.join([*told, *rest])}."


def _few(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
