"""Which judge picks the better of n candidates: a video reward or an image reward (OnlineVPO, table 1).

The candidates are samples of the base model, `COUNT` of each held-out prompt. A judge's pick is right when it is also the
pick of the held-out judge `gold`, and it is worth what `gold` and the closed-form truth say of it. What all judges say of
each is kept: from it the boards know how lucky their noises are.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from benchmarks import facts
from benchmarks.claims import page, plots
from benchmarks.claims.boards import BRIEF_PROMPTS, Boards
from benchmarks.claims.design import Claim, outcome
from benchmarks.claims.image import Frames
from benchmarks.claims.scores import MODEL, keep_candidates
from vpo_kit import models
from vpo_kit.evaluation.measuring import measure
from vpo_kit.evaluation.samples import SamplePlan, videos
from vpo_kit.evaluation.statistics import paired
from vpo_kit.folders import prompts_of
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.truth import truth_of

PROMPTS, COUNT = 144, 8
WORTH = ("gold", "flawed", "speed", "motion")


def run(boards: Boards) -> None:
    """Writes ``results/claims/judges.json`` and ``.png``; briefly, of few prompts, it only prints."""
    design, size = boards.design, BRIEF_PROMPTS if boards.brief else PROMPTS
    model = models.load(MODEL)
    file = prompts_of(MODEL, "heldout")
    assert file is not None
    texts = read_prompts(file)[:size]
    both = rewards.load([*rewards.plan("vqa", {}), *rewards.plan("gold", {})], model.device)
    image = Frames()
    rows: dict[str, list[float]] = {}
    for items, video in videos(
        model, SamplePlan(inputs=texts, videos_per_prompt=COUNT, settings=model.settings, batch_size=32, seed=0)
    ):
        prompts = [texts[i] for i, _ in items]
        found = measure(video, prompts, both.parts, model.settings.fps, truth=truth_of(model, texts))
        with torch.no_grad():
            found["image"] = image(video, fps=model.settings.fps).score.tolist()
        for key, values in found.items():
            rows.setdefault(key, []).extend(values)
    table = {key: np.array(values).reshape(size, COUNT) for key, values in rows.items()}
    found = {name: _picks(table, name) for name in ("vqa", "image", "gold")}
    claims = {claim.name: _decided(claim, table) for claim in design.of("judges")}
    page.say(claims)
    if boards.brief:
        return
    keep_candidates(texts, [place for place in range(size) for _ in range(COUNT)], rows)
    facts.write("claims/judges", {
        "design": design.commit, "prompts": PROMPTS, "candidates": COUNT, "seed": 0, "judges": found, "claims": claims,
    })  # fmt: skip
    head = [
        "judge",
        "picks as `gold`",
        "by chance",
        *(f"{key}: picked, mean {found['gold'][key]['mean']:.3g}" for key in WORTH),
    ]
    rows = [
        [f"`{name}`", f"{one['picks as gold']:g}", f"{one['by chance']:g}", *(_worth(one[key]) for key in WORTH)]
        for name, one in found.items()
    ]
    _picture(found)
    page.fill("judges", "\n".join(page.table(head, rows)))


def _picture(found: Mapping[str, Mapping[str, Any]]) -> None:
    """What each judge's picks are worth against the mean candidate."""
    rows = [
        {"name": name, "passes": None, "changes": {key: {**one[key], "by_seed": {}} for key in WORTH}}
        for name, one in found.items()
    ]
    plots.board({"rows": rows}, WORTH, facts.RESULTS / "claims" / "judges.png")


def _worth(change: dict[str, float]) -> str:
    return f"{change['picked']:.3g} ({page.span(change)})"


def _decided(claim: Claim, table: dict[str, np.ndarray]) -> dict[str, Any]:
    """What two judges' picks are worth, one minus the other, by prompt."""
    other, one = (_picked(table, judge, claim.metric) for judge in (claim.other, claim.one))
    change = paired(other, one, list(range(len(one))))
    return outcome(claim, (change.difference, change.low, change.high), claim.effect)


def _picked(table: dict[str, np.ndarray], judge: str, key: str) -> list[float]:
    best = table[judge].argmax(1)[:, None]
    return [float(value) for value in np.take_along_axis(table[key], best, 1)[:, 0]]


def _picks(table: dict[str, np.ndarray], judge: str) -> dict[str, Any]:
    """How often the judge's pick is that of `gold`, and how its picks differ from the mean candidate, by prompt."""
    best = table[judge].argmax(1)
    groups = range(len(best))
    right = (best == table["gold"].argmax(1)).mean()
    found: dict[str, Any] = {"picks as gold": round(float(right), 3), "by chance": round(1 / table["gold"].shape[1], 3)}
    for key in WORTH:
        change = paired(table[key].mean(1).tolist(), _picked(table, judge, key), list(groups))
        found[key] = {
            "mean": change.before, "picked": change.after, "difference": change.difference,
            "low": change.low, "high": change.high,
        }  # fmt: skip
    return found
