"""How many passes a step of `instruct` is planned with, by the chain's own arithmetic."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.places import ROOT
from vpo_kit.methods.editing import EditingConfig
from vpo_kit.planning.skeleton import build
from vpo_kit.sampler import chain_levels

STEPS, TAU = 50, EditingConfig().tau


def wan() -> list[float]:
    """Levels of a flow from 1 down by equal steps to 1/1000, each u shifted to 3 u / (1 + 2 u)."""
    times = [1 - i * (1 - 0.001) / STEPS for i in range(STEPS)]
    return [3 * u / (1 + 2 * u) for u in times]


def ltx() -> list[float]:
    """A shift by exp(mu), mu a line through .95 at 1024 and 2.05 at 4096 tokens (161 frames of 704 x 512 are 21 x 16 x
    22), and what is left of 1 stretched so that the last step starts at .1.
    """
    mu = 0.95 + (2.05 - 0.95) * (21 * 16 * 22 - 1024) / (4096 - 1024)
    times = [1 - i / STEPS for i in range(STEPS)]
    shifted = [math.exp(mu) / (math.exp(mu) + 1 / u - 1) for u in times]
    return [1 - (1 - s) * (1 - 0.1) / (1 - shifted[-1]) for s in shifted]


@pytest.mark.parametrize(
    ("name", "model", "levels", "entered", "steps"),
    [
        ("Wan 2.1 1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", wan(), 0.667, 20),
        ("LTX-Video 2B", "Lightricks/LTX-Video", ltx(), 0.642, 5),
    ],
)
def test_a_chain_is_entered_at_the_nearest_level(
    name: str, model: str, levels: list[float], entered: float, steps: int
) -> None:
    """Of each step that is run two passes, with the prompt and without; where memory is short the last one runs again
    for its gradient.
    """
    adapter = build(model, FakeTensorMode(allow_non_fake_inputs=True))
    s = adapter.settings
    shape = adapter.latent_shape(s.frames, s.height, s.width)
    torch.testing.assert_close(chain_levels(adapter, STEPS, shape).tolist(), levels, atol=2e-3, rtol=0)
    first = min(range(STEPS), key=lambda i: abs(levels[i] - TAU))
    assert levels[first] == pytest.approx(entered, abs=1e-3)
    assert STEPS - first == steps
    rows = json.loads((ROOT / "benchmarks" / "results" / "plans.json").read_text())["rows"]
    planned = {key: row["passes"] for key, row in rows.items() if key.startswith(f"{name} / instruct")}
    assert planned == {key: 2 * steps + ("checkpointing" in key) for key in planned}
    assert len(planned) == 2
