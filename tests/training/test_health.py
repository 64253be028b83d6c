"""When each health check speaks, to the step and on which side of its limit; and that the loop asks them all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.brief_runs import model as model
from tests.support.brief_runs import nothing, run_once
from tests.support.places import ROOT
from vpo_kit.errors import HealthError
from vpo_kit.methods.base import Batch, StepOutput
from vpo_kit.methods.online import Online
from vpo_kit.models.base import VideoModel
from vpo_kit.testing import runs
from vpo_kit.training import health, loop
from vpo_kit.training.loop import LoopResult, RunParts

FACTS = health.Facts(window=10, start=(math.log(2), 0.5), fixed_labels=True)
LIMITS = [
    # what is logged, a value that is quiet, one that warns, one that stops
    ({}, "gradient_factor", 0.0101, None, 0.0099),  # a fiftieth of the slope at the start, .5
    ({"loser_error_change": 0.0}, "winner_error_change", 0.049, 0.06, 0.11),
    ({}, "informative", 0.11, 0.09, 0.0),
    ({}, "ratio_clipped", 0.89, None, 0.91),
    ({}, "old_distance", 0.09, 0.11, 0.51),
    ({}, "good_share", 0.99, None, 1.0),
    ({}, "good_share", 0.01, None, 0.0),
]


def verdict(rows: Sequence[dict[str, float]], facts: health.Facts = FACTS) -> str:
    try:
        return "warns" if health.check(rows, facts, []) else "quiet"
    except HealthError:
        return "stops"


def first(value: Callable[[int], dict[str, float]], facts: health.Facts = FACTS, most: int = 100) -> int | None:
    """The step after which a run with these rows is stopped or warned."""
    rows = [value(step) for step in range(most)]
    return next((n for n in range(1, most + 1) if verdict(rows[:n], facts) != "quiet"), None)


@pytest.mark.parametrize(("beside", "key", "quiet", "warns", "stops"), LIMITS)
def test_each_limit_is_where_it_is_said_to_be(
    beside: dict[str, float], key: str, quiet: float, warns: float | None, stops: float
) -> None:
    for value, expected in ((quiet, "quiet"), (warns, "warns"), (stops, "stops")):
        if value is not None:
            row = {"loss": 0.6, key: value, **beside}
            assert verdict([row] * 30) == expected
            assert first(lambda _, row=row: row) == (None if expected == "quiet" else 10)  # type: ignore[misc]
            # one window ago it was otherwise: only the last one counts, and all of it
            bad = verdict([{"loss": 0.6, key: quiet, **beside}] * 30 + [row] * 10)
            assert bad == expected
            assert verdict([row] * 30 + [{"loss": 0.6, key: quiet, **beside}] * 10) == "quiet"


def test_the_losers_error_may_rise() -> None:
    """It is meant to; the winner's is not, whatever the loser's does."""
    assert verdict([{"loss": 0.6, "winner_error_change": 0.0, "loser_error_change": 9.0}] * 30) == "quiet"
    assert verdict([{"loss": 0.6, "winner_error_change": 0.2, "loser_error_change": -0.3}] * 30) == "stops"


def test_motion_is_held_against_the_first_steps() -> None:
    """From 1 to .1 at step 21: the mean of the last ten is down to .55 after the fifth step.
    A third less is no matter.
    """
    assert first(lambda step: {"loss": 0.6, "motion": 1.0 if step < 20 else 0.1}) == 25
    assert first(lambda step: {"loss": 0.6, "motion": 1.0 if step < 10 else 0.59}) == 20
    assert first(lambda step: {"loss": 0.6, "motion": 1.0 if step < 10 else 0.61}) is None
    assert first(lambda step: {"loss": 0.6, "motion": 0.2 + 0.1 * step}) is None


def told(before: float, now: float, clips: float = 20.0) -> str:
    """The verdict at the end of a run of three windows whose share of right words has changed."""
    rows = [{"loss": 0.6, "text_accuracy": value, "text_clips": clips} for value in [before] * 10 + [now] * 20]
    return verdict(rows)


def test_words_are_lost_where_a_fall_is_larger_than_its_error() -> None:
    """Of 200 clips in a window the error of a fall from .98 to .89 is .024, three of them .073: .017 are left."""
    assert told(0.98, 0.89) == "quiet"
    assert told(0.98, 0.87) == "warns"
    assert told(0.98, 0.87, clips=2.0) == "quiet"  # the same fall, of which a tenth of the clips says too little
    assert told(0.98, 0.963, clips=5000.0) == "quiet"
    assert told(0.98, 0.93, clips=5000.0) == "warns"  # a small fall, and surely one
    assert told(0.98, 0.80) == "warns"
    assert told(0.98, 0.77) == "stops"  # nearly all colours, of four kinds of words
    assert told(0.74, 0.98) == "quiet"
    rows = [{"loss": 0.6, "text_accuracy": 1.0 if step < 20 else 0.5, "text_clips": 20.0} for step in range(40)]
    assert [verdict(rows[:n]) for n in (19, 20, 21, 22, 30)] == ["quiet", "quiet", "quiet", "warns", "stops"]
    assert verdict([*rows, {"loss": 0.6}]) == "quiet"  # of the row that it looks at
    assert verdict([{"loss": 0.6}] * 30) == "quiet"


def test_words_that_vary_as_by_chance_are_not_lost() -> None:
    """1,000 runs of 28 rollouts, of 8 prompts with 8 candidates that share their prompt's fate in part."""
    rng = np.random.default_rng(0)
    fired = 0
    for _ in range(1000):
        # a word's share in a prompt's candidates is beta-distributed about .977 with an intra-class correlation of .3
        shares = rng.beta(0.977 / 0.3 * 0.7, 0.023 / 0.3 * 0.7, (28, 8))
        words = rng.binomial(32, shares).sum(1) / 256
        rows = [{"loss": 0.6, "text_accuracy": float(w), "text_clips": 16.0} for w in words for _ in range(4)]
        fired += any(health.text_lost(rows[:n], FACTS) for n in range(20, 113, 4))
    assert fired <= 10


def test_the_end_of_a_run_says_what_its_held_out_videos_have_lost() -> None:
    assert health.lost_words(0.98, 0.90, high=-0.019) is None
    assert str(health.lost_words(0.98, 0.90, high=-0.021)).startswith("right words of the captions have fallen")


def test_nothing_learned_is_said_after_three_windows() -> None:
    still = {"loss": math.log(2) * 1.0009, "implicit_accuracy": 0.5, "labels": 8.0}
    assert first(lambda _: still) == 30
    assert first(lambda _: still, health.Facts(warmup_steps=7, start=FACTS.start)) == 37
    assert first(lambda _: {**still, "loss": math.log(2) * 1.0011}, health.Facts(start=FACTS.start)) is None
    assert first(lambda _: still, health.Facts(start=None)) is None
    # the loss moves, and of many fixed labels no more than half come right
    chance = {**still, "loss": 0.8, "labels": 200.0}
    assert first(lambda _: chance) == 30
    assert first(lambda _: {**chance, "implicit_accuracy": 0.54}) is None
    assert first(lambda _: {**chance, "labels": 10.0}, most=60) is None


def reporting(values: Callable[[int], dict[str, float]]) -> Any:
    """`online`, of whose steps something else is logged."""

    class Reporting(Online):
        def step(self, batch: Batch) -> StepOutput:
            output = super().step(batch)
            output.report.update(values(batch.step))
            return output

    return Reporting


QUICK = {"health": {"window": 2}}


def test_the_loop_stops_where_a_check_does_and_saves_that_step(model: VideoModel, tmp_path: Path) -> None:
    still = reporting(lambda step: {"motion": 1.0 if step < 2 else 0.1})
    with pytest.raises(HealthError, match=r"^step 4: motion has fallen") as caught:
        run_once(model, tmp_path / "run", 9, kind=still, limits=QUICK, every=9)
    assert caught.value.check == "motion_collapse"
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-000004"]
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 4
    off = {"health": {"window": 2, "disable": ["motion_collapse"]}}
    assert len(run_once(model, tmp_path / "off", 5, kind=still, limits=off, every=9)) == 5


def test_a_warning_is_said_once(model: VideoModel, tmp_path: Path) -> None:
    said: list[str] = []
    alike = reporting(lambda _: {"informative": 0.05})
    run_once(model, tmp_path / "run", 5, kind=alike, limits=QUICK, watch=(nothing, said.append))
    assert [line.partition(":")[0] for line in said if "same score" in line] == ["no_advantage"]


def test_a_run_ends_with_the_warnings_of_all_its_parts(
    model: VideoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose warning came before it was resumed; and the checks know the run as it is."""
    ended = list[tuple[RunParts, LoopResult]]()

    def train(job: RunParts) -> LoopResult:
        ended.append((job, loop.train(job)))
        return ended[-1][1]

    monkeypatch.setattr(runs, "train", train)
    alike = reporting(lambda step: {"informative": 0.05 if step < 2 else 1.0})
    limits = {**QUICK, "optimiser": {"lr": 1e-3, "warmup_steps": 3}}
    for steps in (3, 6):
        run_once(model, tmp_path / "run", steps, kind=alike, limits=limits)
    (_, first), (job, whole) = ended
    assert first.warnings == whole.warnings
    assert list(whole.warnings) == ["no_advantage"]
    assert whole.warnings["no_advantage"].startswith("step 2: in 95% of the prompts")
    assert len(whole.history) == 6
    assert job.facts == health.Facts(warmup_steps=3, window=2, start=job.method.start, fixed_labels=False)
    assert job.facts.start == pytest.approx((math.log(2), 0.5))


@pytest.mark.parametrize("before", [{"window": 4}, {"window": 2, "disable": ["motion_collapse"]}])
def test_what_a_check_would_have_stopped_is_only_told_once_it_has_passed(
    model: VideoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, Any]
) -> None:
    """A resumed run may have other checks, which look at its first steps at the end alone: it has come through them."""
    ended = list[LoopResult]()
    monkeypatch.setattr(runs, "train", lambda job: ended.append(loop.train(job)) or ended[-1])
    dip = reporting(lambda step: {"motion": 0.1 if step in (2, 3) else 1.0})
    run_once(model, tmp_path / "run", 5, kind=dip, limits={"health": before}, every=9)
    assert ended[-1].warnings == {}
    run_once(model, tmp_path / "run", 7, kind=dip, limits=QUICK, every=9)
    assert len(ended[-1].history) == 7
    assert list(ended[-1].warnings) == ["motion_collapse"]
    assert ended[-1].warnings["motion_collapse"].startswith("step 5: motion has fallen from 1.0000 to 0.5500")


@pytest.mark.parametrize("page", ["faq.md", "methods.md"])
def test_every_check_is_explained(page: str) -> None:
    """Once in each table: what it tells, and when it fires."""
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: rows.count(name) for name in ("not_finite", *health.CHECKS)} == dict.fromkeys(
        ("not_finite", *health.CHECKS), 1
    )
