"""Figures that were written down, so that nothing changes them unseen: `VPO_WRITE_KNOWN=1 pytest ...` writes them anew.

Results of one commit are held against those of another, and judges' scores against each other's: a constant, a factor
or a default that moves makes them incomparable. A change that is meant shows as a change of ``tests/data/known``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.places import ROOT
from vpo_kit.pairing import store
from vpo_kit.pairing.store import PairSet

Found = Mapping[str, Any] | list[dict[str, Any]]
FOLDER = ROOT / "tests" / "data" / "known"


def check(name: str, found: Found, relative: float = 2e-3, absolute: float = 5e-5) -> None:
    """That numbers, in lists and tables of any depth, are those of ``tests/data/known/NAME.json``; other processors'
    rounding may move them by so much.
    """
    path = FOLDER / f"{name}.json"
    if os.environ.get("VPO_WRITE_KNOWN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rounded(found), indent=1) + "\n", encoding="utf-8")
    known = json.loads(path.read_text(encoding="utf-8"))
    flat, wanted = flattened(rounded(found)), flattened(known)
    assert flat.keys() == wanted.keys(), f"others are there: {sorted(flat.keys() ^ wanted.keys())}"
    off = {key: (flat[key], wanted[key]) for key in wanted if not same(flat[key], wanted[key], relative, absolute)}
    assert not off, f"{len(off)} of {len(wanted)} are other ones, found and known: {off}"


def of_pairs(pairs: PairSet) -> list[dict[str, Any]]:
    """The rows of a set, and how long the latents of each pair are."""
    found = []
    for pair in pairs.pairs:
        assert pair.latents is not None
        lengths = {name: float(x.float().norm()) for name, x in store.read_latents(pairs.path / pair.latents).items()}
        found.append({**pair.model_dump(mode="json", exclude={"sha256"}), "lengths": lengths})
    return found


def same(found: Any, known: Any, relative: float, absolute: float) -> bool:
    if not isinstance(found, float):
        return bool(found == known)
    return bool(found == pytest.approx(known, rel=relative, abs=absolute))


def rounded(value: Any) -> Any:
    """With six digits, which files can be compared by."""
    if isinstance(value, Mapping):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def flattened(value: Any, at: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: one for name, part in value.items() for key, one in flattened(part, f"{at}/{name}").items()}
    if isinstance(value, list):
        return {key: one for i, part in enumerate(value) for key, one in flattened(part, f"{at}/{i}").items()}
    return {at: value}
