"""Checkpoints that are whole or not there: written beside, synced, renamed; read back only when every hash fits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpo_kit.errors import CheckpointError, OutputError


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after `step` optimiser steps."""

    step: int
    policy: dict[str, Tensor]
    reference: dict[str, Tensor] | None
    method: dict[str, Tensor]
    optimiser: dict[str, Any]
    best: dict[str, Tensor]


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write ``folder/step-000200`` and remove all but the newest `keep`. Raises `OutputError`."""
    final = folder / f"step-{checkpoint.step:06d}"
    partial = folder / f".{final.name}.part"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(checkpoint.policy, partial / "lora.safetensors")
        if checkpoint.reference is not None:
            save_file(checkpoint.reference, partial / "reference.safetensors")
        save_file({k: v.contiguous() for k, v in checkpoint.method.items()}, partial / "method.safetensors")
        save_file(checkpoint.best, partial / "best.safetensors")
        torch.save(checkpoint.optimiser, partial / "optimiser.pt")
        hashes = {path.name: _hash(path) for path in sorted(partial.iterdir())}
        state = {"step": checkpoint.step, "sha256": hashes}
        (partial / "state.json").write_text(json.dumps(state))
        for path in partial.iterdir():
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _sync(folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OutputError(f"cannot write the checkpoint {final}: {error}; the ones before it are untouched") from error
    for old in _folders(folder)[keep:]:
        shutil.rmtree(old)


def latest(folder: Path) -> tuple[Checkpoint, list[str]] | None:
    """The newest checkpoint that reads, and a line for each damaged one passed over; None where there is none.

    Raises `CheckpointError` when there are checkpoints and none of them reads.
    """
    damaged: list[str] = []
    for path in _folders(folder):
        try:
            return _read(path), damaged
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            damaged.append(f"{path} is damaged ({str(error).splitlines()[0]})")
    if damaged:
        raise CheckpointError(f"no checkpoint can be read: {'; '.join(damaged)}; start again with --overwrite")
    return None


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text())
    for name, expected in state["sha256"].items():
        if _hash(path / name) != expected:
            raise ValueError(f"{name} has changed")
    reference = path / "reference.safetensors"
    return Checkpoint(
        step=state["step"],
        policy=load_file(path / "lora.safetensors"),
        reference=load_file(reference) if reference.is_file() else None,
        method=load_file(path / "method.safetensors"),
        optimiser=torch.load(path / "optimiser.pt", weights_only=True, map_location="cpu"),
        best=load_file(path / "best.safetensors"),
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
