"""An adapter held against its pipeline: what `vpo model check` says, and writes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import diffusers

from vpo_kit.evaluation.report import versions
from vpo_kit.registry import MODELS
from vpo_kit.testing import adapter
from vpo_kit.testing.finding import AdapterFinding
from vpo_kit.testing.parity import Case, open_case
from vpo_kit.testing.precision import exact


def open_model(name: str, **how: Any) -> Case:
    """The case of a model's folder, hub id or embedded name; `how` is that of `parity.open_case`, which says what it
    raises.
    """
    with _quiet():
        return open_case(name, **how)


def check(case: Case) -> Iterator[AdapterFinding]:
    """Every check in turn, without what the libraries print beside it."""
    with _quiet(), exact():
        yield from adapter.check(case)


@contextmanager
def _quiet() -> Iterator[None]:
    level = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers.utils.logging.set_verbosity(level)


def facts(case: Case, found: Iterable[AdapterFinding]) -> dict[str, Any]:
    """What was checked, how, and the findings, plain; a figure that is infinite, or no number, is None."""
    family = type(case.model.pipeline).__name__
    rows = [
        {**asdict(one), "figure": one.figure if math.isfinite(one.figure or 0) else None, "passed": one.passed}
        for one in found
    ]
    return {
        "model": case.model.source,
        "pipeline": family,
        "adapter": MODELS.check(family),
        "package": MODELS.packages().get(family, "vpo-kit"),
        "device": str(case.model.device),
        "call": asdict(case.call),
        "versions": versions(),
        "findings": rows,
    }
