"""Weights & Biases, offline: ``wandb sync RUN/tracking/wandb/wandb/offline-run-*`` uploads it, or WANDB_MODE=online."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpo_kit.training.trackers.base import Tracker


class WandB(Tracker):
    """A run in its own format, on the disk unless ``WANDB_MODE`` says otherwise."""

    package = "wandb"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._library: Any = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "vpo"),
            name=name,
            dir=str(folder),
            config=dict(settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("optimiser_step")
        self._run.define_metric("*", step_metric="optimiser_step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "optimiser_step": step})

    def table(self, step: int, name: str, rows: Sequence[Sequence[str]]) -> None:
        table = self._library.Table(columns=list(rows[0]), data=[list(row) for row in rows[1:]])
        self._run.log({name: table, "optimiser_step": step})

    def video(self, step: int, name: str, path: Path, caption: str) -> None:
        self._run.log({name: self._library.Video(str(path), caption=caption), "optimiser_step": step})

    def close(self) -> None:
        self._run.finish()
