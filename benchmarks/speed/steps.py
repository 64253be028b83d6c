"""Whole steps of the production loop (data, method, backward pass, optimiser, log) against the bare passes that they
must make, in turns: the bare passes run between the steps of one real run.

Bare are the calls of the network, autoencoder and reward with tensors that are ready, and the backward passes, with as
few passes as will do: where checkpointing runs one again, that is counted against us.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed import jobs
from benchmarks.speed.jobs import Bench
from benchmarks.speed.timing import Clock, Row, ratio, seconds
from vpo_kit import losses
from vpo_kit.methods.editing import EditingConfig
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.rewards.base import Mixture
from vpo_kit.sampler import chain_levels, draw_noise, nearest_step
from vpo_kit.training.data import Source
from vpo_kit.training.loop import train

PAIRS, PROMPTS, CANDIDATES, CLIPS = 8, 2, 4, 4


def offline() -> list[Row]:
    """Dense and dpo: each pair's two videos through the reference, and forward and backward through the policy."""
    bench = Bench.make()
    with tempfile.TemporaryDirectory() as folder:
        source = jobs.pair_set(Path(folder), bench.model, 2 * PAIRS)
        noise, conditions, time_in = _inputs(bench, source.prompts[:PAIRS], 2)
        rows = []
        for name in ("dense", "dpo"):

            def bare(clock: Clock) -> None:
                watch = Watch(clock)
                with bench.policy.reference(), torch.no_grad():
                    watch(lambda: bench.model.predict(noise, time_in, conditions))
                watch(lambda: _error(bench.model.predict(noise, time_in, conditions)).backward())
                watch.stop()

            rows.append(_row(f"{name} step", bench, name, {}, source, PAIRS, bare, 1.03, rounds=10))
    return rows


def online() -> list[Row]:
    """A fresh rollout in every step, and one draw: nothing is saved by using pairs again."""
    bench, reward, source = Bench.make(), jobs.judge(), jobs.prompts(8)
    bare = bare_online(bench, reward, bench.model.settings, source.prompts[:PROMPTS], CANDIDATES)
    values = {"num_candidates": CANDIDATES, "updates_per_rollout": 1, "num_draws": 1}
    return [_row("online step", bench, "online", values, source, PROMPTS, bare, 1.03, rounds=5, reward=reward)]


def bare_online(
    bench: Bench, reward: Mixture, settings: Settings, prompts: Sequence[str], candidates: int
) -> Callable[[Clock], None]:
    """The passes of an online step: every candidate's chain with guidance, decoding and judging, then the pairs."""
    noise, conditions, time_in = _inputs(bench, prompts, candidates, settings)
    pairs = slice(0, 2 * len(prompts))
    paired, negative = conditions[pairs], bench.encode([""]).expand(len(noise))

    def bare(clock: Clock) -> None:
        watch = Watch(clock)
        with torch.no_grad():
            for _ in range(settings.steps):
                watch(lambda: bench.model.predict(noise, time_in, conditions))
                watch(lambda: bench.model.predict(noise, time_in, negative))
            video = watch(lambda: bench.model.decode(noise))
            watch(lambda: reward.parts[0](video, None, fps=settings.fps))
            with bench.policy.reference():
                watch(lambda: bench.model.predict(noise[pairs], time_in[pairs], paired))
        watch(lambda: _error(bench.model.predict(noise[pairs], time_in[pairs], paired)).backward())
        watch.stop()

    return bare


def instruct() -> list[Row]:
    """The paper's step with the embedded judge, which looks at whole clips: all frames are decoded."""
    bench, reward = Bench.make(), jobs.judge()
    settings = bench.model.settings
    with tempfile.TemporaryDirectory() as folder:
        source = jobs.pair_set(Path(folder), bench.model, CLIPS)
        noise, conditions, time_in = _inputs(bench, source.prompts[:CLIPS], 1)
        negative = bench.encode([""]).expand(CLIPS)
        levels = chain_levels(bench.model, settings.steps, noise.shape[1:])
        steps = settings.steps - nearest_step(levels, EditingConfig().tau)

        def bare(clock: Clock) -> None:
            watch = Watch(clock)
            with torch.no_grad():
                for _ in range(steps - 1):
                    watch(lambda: bench.model.predict(noise, time_in, conditions))
                    watch(lambda: bench.model.predict(noise, time_in, negative))
                watch(lambda: bench.model.predict(noise, time_in, negative))
            latents = watch(lambda: bench.model.predict(noise, time_in, conditions))
            video = watch(lambda: bench.model.decode(latents))
            watch(lambda: reward.parts[0](video, None, fps=settings.fps).score.sum().backward())
            watch.stop()

        return [_row("instruct step", bench, "instruct", {}, source, CLIPS, bare, 1.03, rounds=6, reward=reward)]


class Watch:
    """Adds up the time of several calls: what is done between them does not count."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent = [0.0, 0.0]

    def __call__(self, work: Callable[[], Any]) -> Any:
        started = time.process_time(), time.perf_counter()
        found = work()
        self._spent[0] += time.process_time() - started[0]
        self._spent[1] += time.perf_counter() - started[1]
        return found

    def stop(self) -> None:
        self._clock.add(*self._spent)


def _row(
    what: str, bench: Bench, method: str, values: dict[str, Any], source: Source, size: int,
    bare: Callable[[Clock], None], aim: float, *, rounds: int, reward: Any = None,
) -> Row:  # fmt: skip
    ours, other = timed(bench, method, values, source, size, bare, rounds=rounds, reward=reward)
    details = {
        "step, s": seconds(ours.processor), "passes, s": seconds(other.processor),
        "ratio on the wall": ratio(ours.wall, other.wall), "batch": size, "rounds": len(ours.wall),
    }  # fmt: skip
    return Row(what, "the bare passes", ratio(ours.processor, other.processor), aim, details=details)


def timed(
    bench: Bench, method: str, values: dict[str, Any], source: Source, size: int, bare: Callable[[Clock], None],
    *, rounds: int, reward: Any = None, **sampling: Any,
) -> tuple[Clock, Clock]:  # fmt: skip
    """The loop's steps and the bare passes between them; the first step warms up, and is not among them."""
    ours, other = Clock(), Clock()
    spent: list[tuple[float, float]] = []

    def on_step(*_: object) -> None:
        now = time.process_time(), time.perf_counter()
        if spent:
            ours.add(now[0] - spent[-1][0], now[1] - spent[-1][1])
        bare(other)
        bench.forget()
        spent.append((time.process_time(), time.perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        found = bench.method(method, 24, values, reward, items=size, **sampling)
        train(bench.job(found, source, size, rounds + 1, Path(folder), on_step))
    # a step and the passes before it, then the same step and the passes after it: neither side comes first
    paired = Clock(), Clock()
    for i, (processor, wall) in enumerate(zip(ours.processor, ours.wall, strict=True)):
        for k in (i, i + 1):
            paired[0].add(processor, wall)
            paired[1].add(other.processor[k], other.wall[k])
    return paired


def _inputs(
    bench: Bench, prompts: Sequence[str], each: int, settings: Settings | None = None
) -> tuple[Tensor, Conditions, Tensor]:
    """Latents, conditions and times for `each` videos of every prompt."""
    settings = settings or bench.model.settings
    shape = bench.model.latent_shape(settings.frames, settings.height, settings.width)
    count = len(prompts) * each
    return draw_noise(shape, range(count)), bench.encode(prompts).repeat(each), torch.full((count,), 500.0)


def _error(output: Tensor) -> Tensor:
    return losses.frame_errors(output, torch.zeros_like(output)).mean()
