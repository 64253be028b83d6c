"""What older versions wrote: read where it still means the same, refused in one line where it does not. No torch here.

Format 2 came with vpo 0.2.0. What changed since format 1, which has no number in recipes, runs and boards:

- `method.tau` is a noise level, where it was a share of the chain's steps;
- training times are drawn as the model's family was trained, where they were logit-normal for every flow model;
- `lora.alpha` follows the rank unless it is given, where it was 16;
- `method.per: sum` became `mean`, which does not make the logit grow with the number of frames;
- `method.low_memory` became `micro_batch_size: 1`;
- the embedded model samples with Wan's scheduler, and brings its own settings along.

Format 3, of pair sets alone, came with vpo 0.3.0: the seeds of a set's items follow from what is in them, where they
followed from their places. What is in a finished set means the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpo_kit import config
from vpo_kit.config import FORMAT
from vpo_kit.errors import ConfigError

DRAWS_TIMES = ("online", "dense", "structural", "dpo", "sft")
"""Methods of format 1 that draw training times."""


SETS = 3
"""The number of the format of pair sets that `vpo pair` makes."""
EARLIER = {
    1: ("0.1.0", "drew training times and sampled the embedded model in another way"),
    2: ("0.2.0", "knew clips and prompts by their places and drew their seeds from these"),
}
"""The formats before: the version that wrote each, and what it did."""

SINCE_2: dict[str, Any] = {"optimiser": {"schedule": "constant", "ema": 0.0}, "selection": {"strengths": []}}
"""What format 1 did where it had no setting: a model's own defaults may be others now."""


def recipe(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings of a file, in the present format. Raises `ConfigError` for what cannot be converted.

    A file that `vpo` has written says its format, or, in format 1, names every setting; one that was written by hand
    and says nothing is taken for the present format unless it holds a setting whose meaning has changed.
    """
    found = dict(values)
    if found.get("format", 1 if _written_by_vpo(found) else FORMAT) == FORMAT:
        if "format" not in found:
            _refuse_changed(found, path, "it says no format")
        return {**found, "format": FORMAT}
    if found.get("format", 1) != 1:
        raise _newer(path, found["format"])
    _refuse_changed(found, path, "it is of format 1 (vpo 0.1.0)")
    method = _method(found)
    if method.get("low_memory"):
        found["micro_batch_size"] = 1
    method.pop("low_memory", None)
    if method.get("name") in DRAWS_TIMES:
        method.setdefault("times", "logit_normal")
    old = config.merge(SINCE_2, {key: value for key, value in found.items() if key in SINCE_2})
    return {**found, **old, "method": method, "format": FORMAT}


def unchanged(values: Mapping[str, Any], path: Path, what: str, present: int = FORMAT) -> None:
    """Raises `ConfigError` for something half done by an older version: what is left would be done in another way."""
    number = values.get("format", 1)
    if number == present:
        return
    if number not in range(1, present):
        raise _newer(path, number, present)
    version, did = EARLIER[number]
    raise ConfigError(
        f"{path}: this {what} was begun by vpo {version}, which {did}, so going on would mix two: finish it with "
        f"{version}, or begin anew"
    )


def _newer(path: Path, number: Any, present: int = FORMAT) -> ConfigError:
    return ConfigError(f"{path} is of format {number!r}, and this vpo reads up to {present}: install a newer one")


def _written_by_vpo(values: Mapping[str, Any]) -> bool:
    return {"method", "reward", "model", "lora", "optimiser", "checkpoints", "health"} <= set(values)


def _method(values: Mapping[str, Any]) -> dict[str, Any]:
    method = values.get("method", {})
    return dict(method) if isinstance(method, Mapping) else {"name": method}


def _refuse_changed(values: Mapping[str, Any], path: Path, why: str) -> None:
    method = _method(values)
    hint = f"{why}: write format: {FORMAT} on top where it is meant so"
    if "tau" in method and method.get("start", "clip") == "clip":
        raise ConfigError(
            f"{path}: method.tau {method['tau']} was a share of the chain's steps and is a noise level now "
            f"(InstructVideo's .6 of the steps is .66), and {hint}"
        )
    if method.get("per") == "sum":
        raise ConfigError(
            f"{path}: method.per sum made the logit grow with the number of frames; it is mean now, with a larger beta"
        )
