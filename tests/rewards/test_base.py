"""Mixtures by hand: weights, fixed scales, groups of one prompt, segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vpo_kit.registry import REWARDS
from vpo_kit.rewards.base import Mixture, Reward, RewardOutput, add_fixed
from vpo_kit.testing.rewards import stub


def first_pixel(video: Tensor, _: Sequence[str]) -> Tensor:
    """The mean over frames of the top left pixel's red."""
    return video[:, :, 0, 0, 0].mean(1)


def last_pixel(video: Tensor, _: Sequence[str]) -> Tensor:
    return 10 * video[:, :, 2, -1, -1].mean(1)


FIRST = stub("first", first_pixel, mean=0.5, std=0.2, per_segment=True)
LAST = stub("last", last_pixel, mean=3.0, std=4.0)
"""A reward that scores segments, and one that knows whole clips alone."""


def clips(first: Sequence[Sequence[float]], last: Sequence[Sequence[float]]) -> Tensor:
    """Clips ``[B, F, 3, 2, 2]`` by both pixels' values in each frame."""
    video = torch.zeros(len(first), len(first[0]), 3, 2, 2)
    video[:, :, 0, 0, 0], video[:, :, 2, -1, -1] = torch.tensor(first), torch.tensor(last)
    return video


VIDEO = clips([[0.1, 0.3], [0.5, 0.7], [0.2, 0.2], [0.9, 0.5]], [[0.0, 0.2], [0.4, 0.4], [0.6, 0.2], [1.0, 0.0]])
ONE, OTHER = [0.2, 0.6, 0.2, 0.7], [1.0, 4.0, 4.0, 5.0]
"""What the two rewards give for these four."""
PROMPTS = ["a", "a", "b", "b"]


def test_fixed_scales() -> None:
    mixture = Mixture([(FIRST(), 0.7), (LAST(), 0.3)])
    found = mixture.fixed(VIDEO, PROMPTS, fps=8)
    expected = [0.7 * (a - 0.5) / 0.2 + 0.3 * (b - 3) / 4 for a, b in zip(ONE, OTHER, strict=True)]
    assert found.score.tolist() == pytest.approx(expected)
    assert found.components["first"].tolist() == pytest.approx(ONE)
    assert found.components["last"].tolist() == pytest.approx(OTHER)
    specs = [(FIRST.spec, 0.7), (LAST.spec, 0.3)]
    assert add_fixed(specs, {"first": ONE, "last": OTHER}) == pytest.approx(expected)
    assert add_fixed(specs[:1], {"first": ONE}) == ONE
    summed = mixture(VIDEO, PROMPTS, fps=8, group=2, decoupled=False)
    assert summed.score.tolist() == pytest.approx(expected)


def test_each_segment_has_its_own_score() -> None:
    """Also of a reward that knows whole clips: each segment is then a clip."""
    segments = [(0, 1), (1, 2)]
    found = Mixture([(FIRST(), 0.7), (LAST(), 0.3)]).fixed(VIDEO, PROMPTS, fps=8, segments=segments)
    assert found.segments is not None
    for row in range(4):
        for place in range(2):
            a, b = float(VIDEO[row, place, 0, 0, 0]), 10 * float(VIDEO[row, place, 2, 1, 1])
            assert float(found.segments[row, place]) == pytest.approx(0.7 * (a - 0.5) / 0.2 + 0.3 * (b - 3) / 4)
    alone = Mixture([(LAST(), 0.3)]).fixed(VIDEO, PROMPTS, fps=8, segments=segments).segments
    assert alone is not None
    assert alone.flatten().tolist() == pytest.approx([0, 2, 4, 4, 6, 2, 10, 0])


def test_among_the_candidates_of_a_prompt() -> None:
    """Of two, the better is at 1 and the other at -1; a reward that does not tell them apart adds nothing."""
    found = Mixture([(FIRST(), 0.7), (LAST(), 0.3)])(VIDEO, PROMPTS, fps=8, group=2)
    assert found.score.tolist() == pytest.approx([-1.0, 1.0, -1.0, 1.0], abs=1e-4)
    even = clips([[0.1], [0.5]], [[0.3], [0.3]])
    assert Mixture([(FIRST(), 0.7), (LAST(), 0.3)])(even, ["a"] * 2, fps=8, group=2).score.tolist() == pytest.approx(
        [-0.7, 0.7], abs=1e-4
    )
    whole = Mixture([(FIRST(), 0.7), (LAST(), 0.3)])(VIDEO, ["a"] * 4, fps=8, group=4)
    one, other = torch.tensor(ONE), torch.tensor(OTHER)
    expected = sum(w * (x - x.mean()) / x.std(correction=0) for w, x in ((0.7, one), (0.3, other)))
    torch.testing.assert_close(whole.score, expected, atol=1e-4, rtol=1e-4)  # type: ignore[arg-type]


class Telling(FIRST):  # type: ignore[valid-type, misc]
    """A reward with something to say beside its score."""

    def among(self, video: Tensor, prompts: Sequence[str], *, fps: float, group: int) -> RewardOutput:
        return replace(self(video, prompts, fps=fps), report={"told": float(group)})


@pytest.mark.parametrize("others", [[], [(LAST(), 0.3)]])
def test_what_a_reward_reports_reaches_the_log_alone_and_in_company(others: list[tuple[Reward, float]]) -> None:
    assert Mixture([(Telling(), 0.7), *others])(VIDEO, PROMPTS, fps=8, group=2).report == {"told": 2.0}


FIXED = {
    "vqa": (-1.3, 1.7), "gold": (-1.2, 1.6), "technical": (-1.0, 1.6), "niqe": (-5.0, 2.0), "brisque": (-35.0, 15.0),
    "text": (0.97, 0.08), "cuts": (-0.05, 0.2), "hpsv2": (0.275, 0.0375), "hpsv2.1": (0.275, 0.0375),
    "pickscore": (21.0, 1.5), "clip": (0.275, 0.0375), "aesthetic": (4.7, 0.5), "hpsv3": (7.0, 3.0),
    "pairwise": (0.5, 0.37),
}  # fmt: skip
"""Where a judge's scores lie, as mixtures of fixed scale take them; of all others they are at 0 and 1 already."""


def test_the_fixed_scale_of_every_judge() -> None:
    specs = {name: REWARDS.load(name).spec for name in REWARDS.builtins}
    assert {name: (spec.mean, spec.std) for name, spec in specs.items() if (spec.mean, spec.std) != (0, 1)} == FIXED
