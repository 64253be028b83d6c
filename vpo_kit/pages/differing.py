"""Settings that are not what they would be by themselves: what a reader of a page wants to see first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vpo_kit.fields import said

Differing = Sequence[tuple[str, str, str]]
"""A setting's name with its sections, its value and its default, in words."""


def differing(here: Mapping[str, Any], default: Mapping[str, Any]) -> Differing:
    """The settings of `here` with another value than `default` has, sections as ``section.name``, in their order."""
    usual = dict(_leaves(default))
    return [(name, said(value), said(usual.get(name))) for name, value in _leaves(here) if value != usual.get(name)]


def of_rows(rows: Mapping[str, Differing]) -> Differing:
    """What differs in all rows, then what differs in some only, under the row's name."""
    shared = [one for one in next(iter(rows.values()), []) if all(one in found for found in rows.values())]
    own = [(f"{name}: {one[0]}", *one[1:]) for name, found in rows.items() for one in found if one not in shared]
    return [*shared, *own]


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
