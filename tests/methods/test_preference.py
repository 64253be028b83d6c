"""One step of every method that learns from pairs or verdicts, written plainly: pair by pair, draw by draw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.offline_member import Member
from tests.support.offline_member import model as model
from tests.support.rollout_member import forget
from vpo_kit.methods.base import Batch, StepOutput
from vpo_kit.methods.from_rollouts import Fresh
from vpo_kit.models.base import Conditions, VideoModel
from vpo_kit.registry import METHODS
from vpo_kit.rewards.base import Reward
from vpo_kit.sampler import derive_seed, draw_noise
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.steps import context_of

PROMPTS = ["a red circle moving right", "a blue square", "a green star moving left slowly"]
SHAPE, DRAWS, STEP = (8, 3, 4, 4), 2, 3
LABEL = torch.tensor([1.0, -1.0, 0.0])
LABELS = torch.tensor([[1.0, 0.0, -1.0], [-1.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
VOTES = [0.5, 0.8, 0.9]
MOTION = [(0.1, 0.4), (0.3, 0.2), (0.1, 0.1)]
SCORES = torch.tensor([[1.05, 0.05], [0.0, 2.0], [1.05, 2.0], [math.nan, math.nan], [2.0, 0.05], [0.0, 0.05]])
INDICES = [4, 2, 0]
"""The three pairs are items 4, 2 and 0 of six, whose scores are above: 5 lie in the first of 20 bins, ..."""
ALIKE = {0.05: 5, 1.05: 2, 2.0: 3}
"""... and so many in the bins of these."""


@dataclass(frozen=True)
class Errors:
    """Both networks' errors by frame on one video at one time and noise, and what the networks gave."""

    policy: list[float]
    reference: list[float]
    apart: float
    t: float

    @property
    def change(self) -> list[float]:
        return [a - b for a, b in zip(self.policy, self.reference, strict=True)]


class Bench(Member):
    """Three pairs of prompts of their own; the second is called better by its label, the third is a tie."""

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Prompts in loud voices: of random weights, the network would hardly tell them apart."""
        return Conditions({name: 30 * value for name, value in self.model.encode_prompts(prompts).tensors.items()})

    def batch(self) -> Batch:
        first, second = (draw_noise(SHAPE, [seed, seed + 1, seed + 2]) for seed in (10, 20))
        tensors = {"first": first, "second": second, "clip": first, "label": LABEL, "labels": LABELS}
        tensors |= {"weight": torch.tensor(VOTES), "motion": torch.tensor(MOTION)}
        return Batch(
            step=STEP,
            settings=self.model.settings, prompts=PROMPTS, conditions=self.encode(PROMPTS), positions=[0, 1, 2],
            indices=INDICES, visits=[0, 0, 0], tensors=tensors,
        )  # fmt: skip

    def method(self, name: str, reward: Reward | None = None, **settings: Any) -> Any:
        kind = METHODS.load(name)
        context = context_of(self.policy, reward, batch_size=3, scores=SCORES)
        return kind(kind.Config(num_draws=DRAWS, **settings), context)

    @torch.no_grad()
    def turn(self) -> None:
        """Move the policy the other way, which happens to bring errors down."""
        for name, parameter in self.model.network.named_parameters():
            if ".lora_B." in name:
                parameter.neg_()

    @torch.no_grad()
    def errors(self, method: Any, x: Tensor, pair: int, draw: int, purpose: str = "pair") -> Errors:
        """One video alone, at the time and noise of its pair, under its prompt."""
        seed, schedule = derive_seed(0, purpose, STEP, pair, draw), self.model.schedule
        times = method.time_sampler()
        t, eps, conditions = times.draw([seed]), draw_noise(SHAPE, [seed]), self.encode([PROMPTS[pair]])
        x_t, target = schedule.add_noise(x[None], eps, t), schedule.target(x[None], eps, t)
        own = self.model.predict(x_t, schedule.network_time(t), conditions)
        with self.policy.reference():
            other = self.model.predict(x_t, schedule.network_time(t), conditions)
        found = [(output - target).square().mean((0, 1, 3, 4)).tolist() for output in (own, other)]
        return Errors(found[0], found[1], float((own - other).square().mean()), float(t))

    def every(self, method: Any, purpose: str = "pair") -> Iterator[tuple[int, Errors, Errors]]:
        """The pair and both members' errors, of all pairs and draws."""
        tensors = self.batch().tensors
        for draw in range(DRAWS):
            for pair in range(3):
                yield pair, *(self.errors(method, tensors[n][pair], pair, draw, purpose) for n in ("first", "second"))


@pytest.fixture
def bench(model: VideoModel) -> Iterator[Bench]:
    made = Bench(model)
    yield made
    forget(model)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def falls(logit: float) -> float:
    return math.log1p(math.exp(-logit))


def loss_of(output: StepOutput) -> float:
    assert output.loss is not None
    return float(output.loss.detach())


def rarity(pair: int) -> float:
    """VideoDPO's ``p_max / sqrt(p_w p_l)``."""
    one, other = (ALIKE[round(float(score), 2)] for score in SCORES[INDICES[pair]])
    return 5 / math.sqrt(one * other)


def liveliness(pair: int) -> float:
    """How much a winner moves for what its loser does, at most 1."""
    first, second = MOTION[pair]
    return min(1.0, first / second if LABEL[pair] > 0 else second / first)


WEIGHTS = {
    "structural": lambda pair: VOTES[pair],
    "dpo": lambda pair: VOTES[pair] * rarity(pair) ** 0.7 * liveliness(pair) ** 0.5,
    "dense": lambda pair: VOTES[pair],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "structural": {"sft_weight": 0.3, "loser_weight": 0.6, "beta_schedule": "squared"},
    "dpo": {"weight_alpha": 0.7, "motion_weight": 0.5, "anchor": 0.2},
    "dense": {"sft_weight": 0.3, "loser_weight": 0.6},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_pair_methods_step_written_plainly(bench: Bench, name: str) -> None:
    """Loss, anchor and what is logged; a pair's weight is that of its votes, its scores and its motion."""
    chosen = {"loser_weight": 1.0, "sft_weight": 0.0, **SETTINGS[name]}
    method = bench.method(name, beta=30.0, **SETTINGS[name])
    output = method.step(bench.batch())
    values, changes, apart = list[float](), list[tuple[float, float]](), list[float]()
    for pair, first, second in bench.every(method):
        apart += [first.apart, second.apart]
        beta = 30 * ((1 - first.t) ** 2 if "beta_schedule" in chosen else 1)
        frames = range(3)
        for label, own in (
            [(float(LABELS[pair, f]), [f]) for f in frames] if name == "dense" else [(float(LABEL[pair]), frames)]
        ):
            if not label:
                continue
            winner, loser = (first, second) if label > 0 else (second, first)
            rise, fall = (mean([member.change[f] for f in own]) for member in (winner, loser))
            value = falls(-0.5 * beta * (rise - chosen["loser_weight"] * fall))
            value += chosen["sft_weight"] * mean([winner.policy[f] for f in own])
            values.append(WEIGHTS[name](pair) * value)
            changes.append((rise, fall))
    expected = mean(values) + chosen.get("anchor", 0.0) * mean(apart)
    assert loss_of(output) == pytest.approx(expected, rel=1e-4)
    scale = mean([mean(first.reference) for _, first, _ in bench.every(method)])
    logged = output.by_label
    assert logged["winner_error_change"] == pytest.approx(mean([rise for rise, _ in changes]) / scale, rel=1e-3)
    assert logged["loser_error_change"] == pytest.approx(mean([fall for _, fall in changes]) / scale, rel=1e-3)
    assert logged["implicit_accuracy"] == pytest.approx(mean([float(rise < fall) for rise, fall in changes]))
    assert output.num_labels == len(values)
    if "anchor" in chosen:
        assert output.report["anchor"] == pytest.approx(mean(apart), rel=1e-3)


def test_held_out_pairs_are_held_against_the_reference_as_it_is(bench: Bench) -> None:
    """Once it has become the policy, nothing is left between the two."""
    method = bench.method("structural", beta=30.0, reference_update="hard")
    before = method.validate([bench.batch()])
    assert before["heldout_loss"] != pytest.approx(math.log(2), abs=1e-3)
    assert method.validate([bench.batch()]) == before
    bench.policy.refresh_reference(0.0)
    after = method.validate([bench.batch()])
    assert after == {"heldout_loss": pytest.approx(math.log(2), abs=1e-6), "heldout_accuracy": 0.5}


def test_a_step_on_fresh_pairs_written_plainly(bench: Bench) -> None:
    """Winners come first, whatever was sampled; a pair's draws are those of its place in the global batch."""
    batch = bench.batch()
    settings = {"beta": 2000.0, "motion_weight": 0.5, "beta_schedule": "squared", "anchor": 0.2}
    method = bench.method("online", reward=Brightness(), **settings)
    tensors = {"winners": batch.tensors["first"], "losers": batch.tensors["second"], "motion": batch.tensors["motion"]}
    output = method.update(Fresh(tensors, torch.arange(3), batch.conditions, {}), STEP)
    values, apart = list[float](), list[float]()
    for pair, winner, loser in bench.every(method):
        gap = mean(winner.change) - mean(loser.change)
        moved = min(1.0, MOTION[pair][0] / MOTION[pair][1]) ** 0.5
        values.append(moved * falls(-0.5 * 2000 * (1 - winner.t) ** 2 * gap))
        apart += [winner.apart, loser.apart]
    assert loss_of(output) == pytest.approx(mean(values) + 0.2 * mean(apart), rel=1e-3)


@pytest.mark.parametrize("name", ["structural", "dense", "dpo"])
def test_where_no_pair_weighs_anything_what_is_averaged_by_weight_is_not_told(bench: Bench, name: str) -> None:
    """Votes that are a draw, or winners that stand still: nothing is learned, and nothing is no number."""
    batch = bench.batch()
    still = torch.stack([(LABEL < 0) * 0.1, (LABEL > 0) * 0.1], 1)
    nothing = {"weight": torch.zeros(3)} if name == "structural" else {"motion": still}
    settings = {} if name == "structural" else {"motion_weight": 0.5}
    output = bench.method(name, **settings).step(replace(batch, tensors={**batch.tensors, **nothing}))
    assert loss_of(output) == 0
    assert output.num_labels > 0
    told = {"implicit_accuracy", "winner_error_change", "loser_error_change"}
    assert output.by_label.keys() == told
    assert all(math.isfinite(value) for value in output.by_label.values())


@pytest.mark.parametrize("gained", [True, False])
def test_a_step_of_verdicts_written_plainly(bench: Bench, gained: bool) -> None:
    """The gain of each video is held against the mean gain of those that have a verdict, where that is a gain."""
    if gained:
        bench.turn()
    method = bench.method("kto", beta=40.0, good_weight=0.7, bad_weight=1.4)
    gains = {1.0: list[float](), -1.0: list[float]()}
    for pair, first, second in bench.every(method, "kto"):
        for sign, member in ((float(LABEL[pair]), first), (-float(LABEL[pair]), second)):
            if sign:
                gains[sign].append(-mean(member.change))
    baseline = max(0.0, mean([*gains[1.0], *gains[-1.0]]))
    assert (baseline > 0) == gained
    good, bad = ([1 / (1 + math.exp(40 * sign * (g - baseline))) for g in gains[sign]] for sign in (1.0, -1.0))
    output = method.step(bench.batch())
    assert loss_of(output) == pytest.approx(0.5 * (0.7 * mean(good) + 1.4 * mean(bad)), rel=1e-4)
    scale = mean([mean(one.reference) for _, *both in bench.every(method, "kto") for one in both])
    assert output.by_label["winner_error_change"] == pytest.approx(-mean(gains[1.0]) / scale, rel=1e-3)
    assert output.by_label["loser_error_change"] == pytest.approx(-mean(gains[-1.0]) / scale, rel=1e-3)
    right = [float(sign * (g - baseline) > 0) for sign, own in gains.items() for g in own]
    assert output.by_label["implicit_accuracy"] == pytest.approx(mean(right))
    assert output.by_label["good_share"] == 0.5


@pytest.mark.parametrize("above", [None, 3.5])
def test_a_step_of_ratings_written_plainly(bench: Bench, above: float | None) -> None:
    """A clip above the line is good, one below it bad, and one at it neither."""
    batch, ratings = bench.batch(), [4.0, 2.0, 3.0]
    rated = {"rating": torch.tensor(ratings), "middle": torch.full((3,), 3.0)}
    batch = replace(batch, tensors={"clip": batch.tensors["clip"], **rated})
    method = bench.method("kto", beta=40.0, good_above=above)
    gains = {1: list[float](), 0: list[float](), -1: list[float]()}
    for draw in range(DRAWS):
        for place, rating in enumerate(ratings):
            found = bench.errors(method, batch.tensors["clip"][place], place, draw, "kto")
            line = 3.0 if above is None else above
            gains[(rating > line) - (rating < line)].append(-mean(found.change))
    baseline = max(0.0, mean([*gains[1], *gains[-1]]))
    sides = [mean([1 / (1 + math.exp(40 * sign * (g - baseline))) for g in gains[sign]]) for sign in (1, -1)]
    output = method.step(batch)
    assert loss_of(output) == pytest.approx(0.5 * sum(sides), rel=1e-4)
    assert output.num_labels == len(gains[1]) + len(gains[-1])


def test_a_step_without_a_reference_written_plainly(bench: Bench) -> None:
    method = bench.method("mapo", beta=3.0, temperature=8.0, scale=0.7)
    values, leads = list[float](), list[float]()

    def odds(error: float) -> float:
        return 0.7 * error / math.expm1(0.7 * error)

    for pair, first, second in bench.every(method, "mapo"):
        if LABEL[pair]:
            winner, loser = (mean(one.policy) for one in ((first, second) if LABEL[pair] > 0 else (second, first)))
            values.append(winner + 3 * falls(8 * (odds(winner) - odds(loser))))
            leads.append(loser - winner)
    output = method.step(bench.batch())
    assert loss_of(output) == pytest.approx(sum(values) / (3 * DRAWS), rel=1e-4)  # a tie has its place, and no loss
    assert output.by_label["implicit_accuracy"] == mean([float(lead > 0) for lead in leads])
    lead = output.by_label["loser_error"] - output.by_label["winner_error"]
    assert lead == pytest.approx(mean(leads), rel=1e-3)


def test_a_step_on_clips_written_plainly(bench: Bench) -> None:
    method = bench.method("sft")
    clips = bench.batch().tensors["clip"]
    found = [bench.errors(method, clips[pair], pair, draw, "sft") for draw in range(DRAWS) for pair in range(3)]
    output = method.step(bench.batch())
    assert output.parts is not None
    assert sum(float(part.detach()) for part in output.parts) == pytest.approx(
        mean([mean(one.policy) for one in found]), rel=1e-5
    )


def test_the_safeguard_takes_its_slack_from_the_settings(bench: Bench) -> None:
    """At so much slack nothing is clamped, and the factor is proportional to one less it."""
    factors = [
        bench.method("structural", safeguard=slack).step(bench.batch()).by_label["safeguard"] for slack in (0.9, 0.95)
    ]
    assert 0 < factors[1] < 0.1
    assert factors[0] == pytest.approx(2 * factors[1])
