"""Paired statistics on planted cases, metrics, and a page that escapes what it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vpo_kit.errors import DataError
from vpo_kit.evaluation import report
from vpo_kit.evaluation.evaluate import Evaluation, compare, measure
from vpo_kit.evaluation.statistics import paired
from vpo_kit.models.sprites import world
from vpo_kit.video import motion, read_video, write_video


def test_identical_models_are_rarely_significant() -> None:
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        before, after = rng.normal(size=60), rng.normal(size=60)
        found += paired(before, after, range(60), resamples=1000).significant
    assert found <= 20  # 5% of 200 are 10; more than 20 has a chance of one in a thousand


def test_a_known_shift_is_found() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=80)
    change = paired(before, before + 0.3 + rng.normal(scale=0.3, size=80), range(80))
    assert change.significant
    assert change.low < 0.3 < change.high
    assert change.difference == pytest.approx(0.3, abs=0.1)


def test_videos_of_one_prompt_are_not_independent() -> None:
    # ten copies of each change add nothing: the interval must stay that of the ten prompts
    rng = np.random.default_rng(1)
    change = rng.normal(size=10)
    few = paired(np.zeros(10), change, range(10))
    many = paired(np.zeros(100), change.repeat(10), np.arange(10).repeat(10))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.1)


def test_win_rate_counts_ties_half() -> None:
    assert paired([0, 0, 0, 0], [1, 1, -1, 0], range(4)).win_rate == 0.625
    with pytest.raises(ValueError, match="one length"):
        paired([1], [1, 2], [0])


def clip(speed: str, seed: int = 0) -> torch.Tensor:
    scene = world.Scene("red", "circle", "moving right", speed, "navy")
    return torch.from_numpy(world.render(scene, np.random.default_rng(seed)).video)


def test_motion_orders_speeds_and_ignores_a_flicker() -> None:
    slow, fast = clip("slowly")[None], clip("quickly")[None]
    still = slow[:, :1].expand_as(slow)
    flicker = still.clone()
    flicker[:, 4:8:2] *= 0.6
    assert motion(still).item() == motion(flicker).item() == 0
    assert 0 < 1.5 * motion(slow).item() < motion(fast).item()


def test_truth_is_measured_for_sprite_prompts_only() -> None:
    video = clip("quickly")[None]
    known = measure(video, ["a red circle moving right quickly on a navy background"], [], fps=8)
    assert (known["text_accuracy"], known["flawed"]) == ([1.0], [0.0])
    assert set(measure(video, ["a cat"], [], fps=8)) == {"motion"}


def test_video_round_trip(tmp_path: Path) -> None:
    video = clip("quickly")
    write_video(tmp_path / "a.mp4", video, fps=8)
    back, fps = read_video(tmp_path / "a.mp4")
    assert (back.shape, fps) == (video.shape, 8.0)
    assert float((back - video).abs().mean()) < 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def evaluation(name: str, values: list[float]) -> Evaluation:
    return Evaluation(name, ["<script>alert(1)</script>", "b"], [0, 1], ["0.mp4", "1.mp4"], {"vqa": values})


def test_page_escapes_prompts_and_pairs_by_prompt() -> None:
    before, after = evaluation("before", [0.0, 0.0]), evaluation("after", [1.0, 0.5])
    page = report.Page(
        "t", [before, after], ["a", "b"], {"model": "<b>"}, {"vqa": "Apache-2.0"}, [{"step": 1, "loss": 0.5}]
    )
    text = report.render(page)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "&lt;b&gt;" in text
    assert 'src="a/0.mp4"' in text
    assert 'src="b/1.mp4"' in text
    assert "<svg" in text
    other = Evaluation("after", ["c", "b"], [0, 1], ["0.mp4", "1.mp4"], {"vqa": [1.0, 2.0]})
    with pytest.raises(DataError, match="same prompts"):
        compare(before, other)
