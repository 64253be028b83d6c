"""How the cost of an online step grows when one size doubles, against the growth of the bare passes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.speed import jobs
from benchmarks.speed.jobs import Bench
from benchmarks.speed.steps import bare_online
from benchmarks.speed.timing import Clock, Row, in_turns, ratio
from vpo_kit.rewards.base import Mixture
from vpo_kit.training.loop import backward


@dataclass(frozen=True)
class Size:
    frames: int = 17
    candidates: int = 2
    prompts: int = 1
    steps: int = 8


TWICE = {
    "frames": replace(Size(), frames=33),
    "candidates": replace(Size(), candidates=4),
    "prompts": replace(Size(), prompts=2),
    "steps": replace(Size(), steps=16),
}


def growth() -> list[Row]:
    """One row: the size whose growth is farthest from that of the passes, upwards or downwards.

    Growth against growth is what a step takes of its passes at twice the size, over the same at the size itself.
    """
    bench, reward = Bench.make(), jobs.judge()
    found = {}
    for name, size in TWICE.items():
        sides: dict[str, Callable[[], object]] = {}
        for which, one in (("once", Size()), ("twice", size)):
            sides |= {which: _ours(bench, reward, one), f"{which}, passes": _bare(bench, reward, one)}
        clocks = {side: clock.processor for side, clock in in_turns(sides, rounds=9).items()}
        shares = {w: [a / b for a, b in zip(clocks[w], clocks[f"{w}, passes"], strict=True)] for w in ("once", "twice")}
        found[f"{name} x 2"] = {
            "step": ratio(clocks["twice"], clocks["once"]),
            "passes": ratio(clocks["twice, passes"], clocks["once, passes"]),
            "ratio": ratio(shares["twice"], shares["once"]),
        }
    worst = max(max(one["ratio"], 1 / one["ratio"]) for one in found.values())
    return [Row("cost growth, worst of four", "the growth of the passes", round(worst, 3), 1.10, details=found)]


def _ours(bench: Bench, reward: Mixture, size: Size) -> Callable[[], None]:
    values = {"num_candidates": size.candidates, "updates_per_rollout": 1, "num_draws": 1}
    method = bench.method("online", 24, values, reward, items=size.prompts, frames=size.frames, steps=size.steps)
    batch = bench.batch(jobs.prompts(8), size.prompts, method.context.sampling)

    def step() -> None:
        backward(method.step(batch))
        bench.forget()

    return step


def _bare(bench: Bench, reward: Mixture, size: Size) -> Callable[[], None]:
    sampling = bench.model.settings.changed(frames=size.frames, steps=size.steps)
    passes = bare_online(bench, reward, sampling, jobs.prompts(size.prompts).prompts, size.candidates)

    def step() -> None:
        passes(Clock())
        bench.forget()

    return step
