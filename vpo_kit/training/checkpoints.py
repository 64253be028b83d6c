"""Checkpoints that are whole or not there: written beside, synced, renamed; read back only when every hash fits."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vpo_kit import files, step_folders
from vpo_kit.errors import CheckpointError, OutputError, first_line


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run's state after `step` optimiser steps; `seconds` of training, where they are limited."""

    step: int
    policy: dict[str, Tensor]
    reference: dict[str, Tensor] | None
    method: dict[str, Tensor]
    optimiser: dict[str, Any]
    best: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write ``folder/step-000200`` and remove all but the newest `keep`, those of later steps first: they were passed
    over as damaged, and would count as the newest. Raises `OutputError`.
    """
    final = folder / step_folders.name(checkpoint.step)
    try:
        with files.beside(final) as partial:
            partial.mkdir()
            _put(partial, checkpoint)
    except (OutputError, RuntimeError) as error:  # torch has its own for a disk that is full
        raise OutputError(f"cannot write the checkpoint, the ones before it are untouched: {error}") from error
    for step, path in step_folders.by_step(folder).items():
        if step > checkpoint.step:
            files.remove(path)
    prune(folder, keep)


def _put(folder: Path, checkpoint: Checkpoint) -> None:
    tensors = {
        "lora": checkpoint.policy,
        "reference": checkpoint.reference,
        "method": checkpoint.method,
        "best": checkpoint.best,
        "average": checkpoint.average,
    }
    for name, values in tensors.items():
        if values is not None:
            files.put_tensors(folder / f"{name}.safetensors", values)
    torch.save(checkpoint.optimiser, folder / "optimiser.pt")
    hashes = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    state = {"step": checkpoint.step, "seconds": checkpoint.seconds, "sha256": hashes}
    (folder / "state.json").write_text(json.dumps(state))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints. Raises `OutputError`."""
    for old in _folders(folder)[keep:]:
        files.remove(old)


def latest(folder: Path) -> tuple[Checkpoint, list[str]] | None:
    """The newest checkpoint that reads, and a line for each damaged one passed over; None where there is none.

    Raises `CheckpointError` when there are checkpoints and none of them reads.
    """
    damaged: list[str] = []
    for path in _folders(folder):
        try:
            return _read(path), damaged
        except (OSError, ValueError, KeyError, RuntimeError, RecursionError, SafetensorError) as error:
            damaged.append(f"{path} is damaged ({' '.join(str(error).split()) or type(error).__name__})")
    if damaged:
        raise CheckpointError(f"no checkpoint can be read: {'; '.join(damaged)}; start again with --overwrite")
    return None


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if not isinstance(state, dict) or not isinstance(state["sha256"], dict):
        raise ValueError("state.json is not what a run writes")
    if type(state["step"]) is not int or path.name != step_folders.name(state["step"]):
        raise ValueError(f"state.json is of step {state['step']}")
    seconds = state.get("seconds", 0.0)
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"state.json is of {seconds} seconds")
    found = {file.name: files.sha256(file) for file in path.iterdir() if file.name != "state.json"}
    for name in sorted(found.keys() | state["sha256"].keys()):
        if found.get(name) != state["sha256"].get(name):
            raise ValueError(f"{name} {'has changed' if name in found else 'is missing'}")
    reference = path / "reference.safetensors"
    return Checkpoint(
        step=state["step"],
        policy=load_file(path / "lora.safetensors"),
        reference=load_file(reference) if reference.is_file() else None,
        method=load_file(path / "method.safetensors"),
        optimiser=_optimiser(path / "optimiser.pt"),
        best=load_file(path / "best.safetensors"),
        average=load_file(path / "average.safetensors"),
        seconds=seconds,
    )


def _optimiser(path: Path) -> dict[str, Any]:
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # of a dozen kinds
        raise ValueError(f"{path.name} cannot be read: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is not an optimiser's state")
    return found


def _folders(folder: Path) -> list[Path]:
    """The newest first."""
    return list(step_folders.by_step(folder).values())[::-1]
