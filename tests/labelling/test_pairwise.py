"""A labeller as reward: the tournament's best and worst are the judge's own, and what it costs is said and counted."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import ImageStat

from tests.support.brief_runs import PROMPTS
from tests.support.bright_pairs import fails, works
from tests.support.vlm_server import Asked, Handler, Stub, opened
from tests.support.vlm_server import stub as stub
from vpo_kit import models
from vpo_kit.errors import DataError
from vpo_kit.labelling.by_scores import ByScores
from vpo_kit.labelling.comparing import Match
from vpo_kit.labelling.tournament import Game, Kind, games, of, play
from vpo_kit.labelling.vlm.comparer import VlmComparer
from vpo_kit.labelling.vlm.settings import VlmLabelling
from vpo_kit.models.base import VideoModel
from vpo_kit.pairing.records import Scores
from vpo_kit.pairing.settings import Cutting, Labelling
from vpo_kit.rewards.loading import load, plan
from vpo_kit.testing.runs import train_briefly

CPU = torch.device("cpu")


class Plain(Labelling):
    tie_margin: float | None = 0.0
    motion_veto: float | None = 0.0


class BySpread(ByScores):
    """The member whose pixels are further apart."""

    Config: ClassVar[type[Cutting]] = Plain
    name = "spread"

    def scorer(self, device):  # type: ignore[no-untyped-def]
        def scores(first, second, pair):  # type: ignore[no-untyped-def]
            one, other = ([float(video[start:end].std()) for start, end in pair.segments] for video in (first, second))
            return Scores(first=one, second=other, first_clip=sum(one), second_clip=sum(other))

        return scores


SPREAD = f"pairwise:{__name__}:BySpread"


def judge(values: Sequence[float], asked: list[Game], *, without: int = -1) -> object:
    """A transitive judge of rows by their `values`; whatever row `without` is in has no answer."""

    def ask(pairs: Sequence[Game]) -> list[int | None]:
        asked.extend(pairs)
        signs = [(values[a] > values[b]) - (values[a] < values[b]) for a, b in pairs]
        return [None if without in pair else sign for pair, sign in zip(pairs, signs, strict=True)]

    return ask


@pytest.mark.parametrize("kind", ["all", "knockout", "auto"])
@pytest.mark.parametrize("size", range(2, 12))
def test_best_and_worst_are_the_judges_own(kind: Kind, size: int) -> None:
    groups = 20
    values = torch.rand(groups, size, generator=torch.Generator().manual_seed(size)).double()
    asked: list[Game] = []
    table = play(groups, size, kind, judge(values.flatten().tolist(), asked))  # type: ignore[arg-type]
    scores = torch.tensor(table.scores).view(groups, size)
    assert torch.equal(scores.argmax(1), values.argmax(1))
    assert torch.equal(scores.argmin(1), values.argmin(1))
    assert ((scores == 1).sum(1) == 1).all()
    assert ((scores == 0).sum(1) == 1).all()
    assert len(asked) == table.asked == groups * games(kind, size)
    assert len({frozenset(game) for game in asked}) == len(asked)  # nobody meets twice
    assert all(a // size == b // size for a, b in asked)
    if of(kind, size) == "all":
        assert torch.equal(scores.argsort(1), values.argsort(1))
        places = Counter(first for first, _ in asked if first < size)
        assert max(places.values()) - min(places.get(i, 0) for i in range(size)) <= 1 + size % 2


def test_the_numbers_of_games_are_the_known_ones() -> None:
    assert [games("all", n) for n in (2, 3, 4, 8)] == [1, 3, 6, 28]
    assert [games("knockout", n) for n in (2, 3, 4, 5, 8, 24)] == [1, 3, 4, 6, 10, 34]
    assert [games("auto", n) for n in (4, 5)] == [6, 6]


@pytest.mark.parametrize("kind", ["all", "knockout"])
def test_ties_and_missing_answers_are_no_wins(kind: Kind) -> None:
    """All alike: nobody is better. A row without any answer is in the middle, and changes no one's share."""
    assert play(1, 5, kind, judge([1.0] * 5, [])).scores == [0.5] * 5  # type: ignore[arg-type]
    table = play(1, 4, kind, judge([4, 3, 2, 1], [], without=1))  # type: ignore[arg-type]
    assert table.scores[1] == 0.5
    assert (table.scores[0], table.scores[3]) == (1, 0)
    assert 0 < table.failed < table.asked == games(kind, 4)
    rings = play(1, 3, kind, lambda pairs: [1 if (b - a) % 3 == 1 else -1 for a, b in pairs])
    assert rings.scores == [0.5] * 3  # rock, scissors, paper


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.mark.parametrize("candidates", [3, 6])
def test_a_planted_labeller_orders_as_its_score(candidates: int) -> None:
    video = torch.rand(2 * candidates, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    video *= torch.linspace(0.4, 1, 2 * candidates)[torch.randperm(2 * candidates), None, None, None, None]
    mixture = load(plan(SPREAD, {}, in_groups=True), CPU)
    texts = [prompt for prompt in PROMPTS[:2] for _ in range(candidates)]
    found = mixture(video, texts, fps=8, group=candidates)
    scores, truth = found.score.view(2, -1), video.flatten(1).std(1).view(2, -1)
    assert torch.equal(scores.argmax(1), truth.argmax(1))
    assert torch.equal(scores.argmin(1), truth.argmin(1))
    assert found.report == {"comparisons_tied": 0, "comparisons_failed": 0}
    (part,) = mixture.parts
    assert part.spent() == [f"{SPREAD}: {2 * games('auto', candidates)} comparisons, 0 ties, 0 failed"]


@pytest.mark.parametrize("method", ["online", "nft"])
def test_a_run_resumes_exactly(model: VideoModel, tmp_path: Path, method: str) -> None:
    def run(folder: Path, steps: int) -> list[dict[str, float]]:
        return train_briefly(
            model, PROMPTS, folder, load(plan(SPREAD, {}, in_groups=True), CPU), steps=steps, batch_size=2,
            lora={"rank": 4, "alpha": 8}, checkpoints={"every": 2, "keep": 3}, optimiser={"lr": 1e-3},
            method={"name": method, "num_candidates": 3, "updates_per_rollout": 2},
        )  # fmt: skip

    whole = run(tmp_path / "whole", 5)
    run(tmp_path / "parts", 3)
    assert run(tmp_path / "parts", 5) == whole
    assert whole[0]["reward_mean"] == 0.5  # shares of wins add up to half of the games
    assert whole[0]["reward_margin"] == 1
    assert whole[0]["comparisons_failed"] == 0


def brighter(handler: Handler, asked: Asked) -> None:
    """Whatever is shown first, the clip with more red; no two of them are alike."""
    parts = asked.body["messages"][-1]["content"]
    reds = [ImageStat.Stat(opened(part["image_url"]["url"])).sum[0] for part in parts if part["type"] == "image_url"]
    half = len(reds) // 2
    handler.verdict(asked, "first" if sum(reds[:half]) > sum(reds[half:]) else "second")


def options(stub: Stub, folder: Path, tmp_path: Path, **vlm: object) -> list[str]:
    """Two steps on one prompt a step, one segment a clip."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:2]) + "\n")
    own = {"base_url": stub.url, "segment_seconds": 99, "vlm": {"backoff_s": 0.005, "retries": 1, **vlm}}
    settings = {
        "reward.labelling": json.dumps(own), "method.num_candidates": 3, "method.updates_per_rollout": 1,
        "batch_size": 1, "evaluation.num_prompts": 0, "lora.rank": 2, "lora.alpha": 2,
    }  # fmt: skip
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return [
        "--method", "online", "--reward", "pairwise:vlm:stub", "--model", str(folder), "--steps", "2", "--prompts",
        str(tmp_path / "prompts.txt"), *changes,
    ]  # fmt: skip


def test_a_model_behind_http_judges_a_run_and_costs_what_the_plan_says(
    stub: Stub, tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stub.behave = brighter
    wanted = options(stub, tiny_wan, tmp_path)
    planned = works(capsys, "plan", *wanted)
    assert not stub.asked
    assert re.search(r"pairwise:vlm:stub: comparisons of a rollout\s+3, 6 in the run, without retries", planned)
    assert re.search(r"pairwise:vlm:stub: requests of a rollout\s+6, 12 in the run, without retries", planned)
    shown = works(capsys, "train", *wanted, "--output", tmp_path / "run")
    assert len(stub.asked) == 12
    assert "pairwise:vlm:stub: 6 comparisons, 0 ties, 0 failed" in shown
    assert "pairwise:vlm:stub: both orders agree in 100% of 6 segments" in shown
    assert "pairwise:vlm:stub: 12 requests, 9000 tokens" in shown
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["reward_margin"] for row in rows] == [1, 1]
    assert [row["skipped"] for row in rows] == [0, 0]


def test_answers_that_fail_are_left_out_and_counted(
    stub: Stub, tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first comparison of each rollout gets no usable answer; where none gets one, the run ends in one line."""
    wanted = options(stub, tiny_wan, tmp_path, tries=2, concurrency=1)

    def first_fails(handler: Handler, asked: Asked) -> None:
        if asked.number < 2:
            handler.say(asked, "Both are nice.")
        else:
            brighter(handler, asked)

    stub.behave = first_fails
    shown = works(capsys, "train", *wanted, "--output", tmp_path / "run")
    assert "6 comparisons, 0 ties, 1 failed" in shown
    assert "2 x an answer that could not be read" in shown
    stub.behave = lambda handler, asked: handler.say(asked, "Both are nice.")
    code, lines, said = fails(capsys, "train", *wanted, "--output", tmp_path / "none")
    assert code == 1
    assert "none of 3 comparisons of a step was answered" in said
    assert any("3 failed" in line for line in lines)


def test_a_budget_and_failures_in_a_row_end_it(stub: Stub) -> None:
    clips = torch.rand(3, 8, 3, 16, 16)
    matches = [Match(clips[a], clips[b], "", 8) for a, b in ((0, 1), (0, 2), (1, 2))]

    def ask(**vlm: object) -> list[int | None]:
        own = {"base_url": stub.url, "model": "stub", "segment_seconds": 1, "vlm": {"backoff_s": 0, **vlm}}
        return VlmComparer(VlmLabelling.model_validate(own)).compare(matches)

    stub.behave = brighter
    red = clips[:, :, 0].mean((1, 2, 3))
    assert ask() == [1 if red[a] > red[b] else -1 for a, b in ((0, 1), (0, 2), (1, 2))]
    with pytest.raises(DataError, match=r"the budget of the judge is spent \(4 requests, \d+ tokens\)"):
        ask(budget_requests=4)
    stub.behave = lambda handler, asked: handler.verdict(asked, "first")
    assert ask() == [0, 0, 0]  # the order alone: ties
    stub.behave = lambda handler, asked: handler.say(asked, "Both are nice.")
    assert ask(tries=1) == [None] * 3
    with pytest.raises(DataError, match="2 comparisons in a row failed, the last: 1 answers could not be read"):
        ask(tries=1, max_failed=2)


ONLINE = ("train", "--method", "online", "--reward")
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "a gradient method": (("train", "--method", "draft", "--reward", SPREAD), "needs a differentiable reward"),
    "no labeller": ((*ONLINE, "pairwise"), "write pairwise:NAME"),
    "an unknown one": ((*ONLINE, "pairwise:vml"), "unknown labeller"),
    "people": ((*ONLINE, "pairwise:people"), "labels whole sets"),
    "no address": ((*ONLINE, "pairwise:vlm:m"), "give --base-url"),
    "a wrong setting": ((*ONLINE, SPREAD, "--set", "reward.labelling.fps=3"), "reward.labelling.fps"),
    "a judge": ((*ONLINE, "vqa", "--set", f"evaluation.judges=[{SPREAD}]"), "each video is scored alone"),
    "a strength's choice": ((*ONLINE, SPREAD, "--set", "selection.strengths=[1.0]"), "scores no video alone"),
    "scores": (("score", "x", "--reward", SPREAD), "each video is scored alone"),
    "labels of a set": (("label", "x", "--with", f"reward:{SPREAD}"), "each video is scored alone"),
    "a server that is away": (
        (*ONLINE, "pairwise:vlm:m", "--set", "selection.strengths=[]", "--set",
         "reward.labelling.vlm.retries=0", "--set", "reward.labelling.base_url=http://127.0.0.1:9/v1"),
        "--base-url http://127.0.0.1:9/v1: the server does not answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_is_said_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, said = REFUSED[name]
    assert said in fails(capsys, *arguments)[2]
