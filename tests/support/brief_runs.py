"""Runs of a few steps on a tiny model, and rewards in closed form for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vpo_kit import models
from vpo_kit.methods.from_rollouts import FromRollouts
from vpo_kit.methods.online import Online
from vpo_kit.models.base import VideoModel
from vpo_kit.testing.rewards import Brightness, stub
from vpo_kit.testing.runs import train_briefly

PROMPTS = [
    "a red circle moving right slowly on a navy background",
    "a blue square circling quickly on a black background",
]
Broken = stub("broken", lambda video, _: torch.full((len(video),), math.nan), differentiable=False)
Wordy = stub("wordy", needs_prompt=True)


def nothing(*_: object) -> None:
    """No progress bar."""


BRIEF = {"batch_size": 2, "lora": {"rank": 4, "alpha": 8}, "validation": {"share": 0.0}}
"""A run on these two prompts, of which none is held out."""


def run_once(
    model: VideoModel,
    folder: Path,
    steps: int,
    settings: dict[str, object] | None = None,
    every: int = 2,
    kind: type[FromRollouts] = Online,
    limits: dict[str, object] | None = None,
    watch: tuple[Callable[..., None], Callable[[str], None]] = (nothing, nothing),
) -> list[dict[str, float]]:
    """`steps` online steps from wherever `folder` stands, on a model that is left as it was found."""
    drawn = {"num_draws": 1} if "num_draws" in kind.Config.model_fields else {}
    chosen = {"num_candidates": 2, "updates_per_rollout": 2, **drawn, **(settings or {})}
    values = {"checkpoints": {"every": every, "keep": 3}, "optimiser": {"lr": 1e-3}, **BRIEF, **(limits or {})}
    return train_briefly(
        model, PROMPTS, folder, Brightness(), kind=kind, steps=steps, method={"name": "online", **chosen},
        on_step=watch[0], on_notice=watch[1], **values,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))
