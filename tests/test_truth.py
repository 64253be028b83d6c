"""Where a model's world tells which words a clip shows, runs log it: of rollouts, and of clips with a gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vpo_kit import models
from vpo_kit.sprites import world
from vpo_kit.sprites.truth import SpriteTruth
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.runs import train_briefly
from vpo_kit.truth import text_of

CAPTIONS = [scene.caption for scene in world.scenes(held_out=False)[::300]]


def test_words_are_read_from_the_pixels() -> None:
    scenes = [world.parse(text) for text in CAPTIONS]
    video = torch.stack([torch.from_numpy(world.render(s, np.random.default_rng(1)).video) for s in scenes])
    video.requires_grad_(True)
    found = text_of(SpriteTruth(), video, CAPTIONS)
    assert found is not None
    assert found.tolist() == [1.0] * len(CAPTIONS)
    assert text_of(SpriteTruth(), video[:1], ["a white cross circling slowly on a brown background"]) == 0.25
    assert text_of(None, video, CAPTIONS) is None


METHODS = {
    "online": {"num_candidates": 2, "updates_per_rollout": 2, "num_draws": 1, "rollout_steps": 1},
    "draft": {"chain_steps": 2, "segments": 0},
}


OTHERS = [*CAPTIONS, "a cat"]


@pytest.mark.parametrize(("method", "prompts"), [("online", CAPTIONS), ("draft", CAPTIONS), ("online", OTHERS)])
def test_a_run_logs_the_share_of_right_words(method: str, prompts: list[str], tmp_path: Path) -> None:
    rows = train_briefly(
        models.load("sprites"), prompts, tmp_path / "run", Brightness(), steps=2, batch_size=2, lora={"rank": 2},
        method={"name": method, **METHODS[method]}, validation={"share": 0.0},
    )  # fmt: skip
    if prompts is OTHERS:
        assert not any("text_accuracy" in row for row in rows)
        return
    assert all(0 <= row["text_accuracy"] <= 1 for row in rows)
    # two prompts a step: with two candidates each for two steps, and as they are
    assert [row["text_clips"] for row in rows] == [2.0, 2.0]
