"""What a step that goes through its work in parts holds, and what that costs: micro-batches, and a reward's gradient
that comes back one run of frames at a time.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.editing import Green
from benchmarks.speed import jobs
from benchmarks.speed.jobs import Bench
from benchmarks.speed.timing import Row, apart, in_turns, ratio, seconds
from vpo_kit.methods.base import Batch, Method
from vpo_kit.rewards.base import Mixture
from vpo_kit.training.loop import backward

PAIRS = 8
FRAMES, STEP = 129, 2
"""Of 33 latent frames; in this step those that are drawn each need a run of three, apart from the others."""
LOOKED_AT = (1, 4, 8)


def parts() -> list[Row]:
    return [*micro_batches(), *looks()]


def micro_batches() -> list[Row]:
    """A dense step of eight pairs, one pair's two videos with a graph at a time, against all at once."""
    bench = Bench.make()
    with tempfile.TemporaryDirectory() as folder:
        batch = bench.batch(jobs.pair_set(Path(folder), bench.model, PAIRS), PAIRS)
    sides: dict[str, Callable[[], object]] = {}
    for name, size in (("all", None), ("one", 2)):
        method = _dense(bench, size)
        sides[name] = lambda m=method: _step(bench, m, batch)  # type: ignore[misc]
    clocks = in_turns(sides, rounds=7)
    time = ratio(clocks["one"].processor, clocks["all"].processor)
    peaks = {name: float(apart("speed.parts", "dense", name)["peak"]) for name in sides}
    details = {
        "step, s": seconds(clocks["one"].processor),
        "other, s": seconds(clocks["all"].processor),
        "pairs": PAIRS,
    }
    against = "all pairs at once"
    return [
        Row("dense, a pair at a time: time", against, time, 1.6, details=details),
        Row("dense, a pair at a time: memory", against, round(peaks["one"] / peaks["all"], 3), 0.4, details=peaks),
    ]


def looks() -> list[Row]:
    """`instruct` with a reward of single frames: the memory of its step by the number of frames looked at."""
    peaks = {str(n): float(apart("speed.parts", "instruct", str(n))["peak"]) for n in LOOKED_AT}
    first, *_, last = peaks.values()
    what = f"instruct, memory of {LOOKED_AT[-1]} frames looked at"
    return [Row(what, f"{LOOKED_AT[0]} frame", round(last / first, 3), 1.05, details={**peaks, "frames": FRAMES})]


def _step(bench: Bench, method: Method, batch: Batch) -> None:
    backward(method.step(batch))
    bench.forget()


def _dense(bench: Bench, size: int | None) -> Method:
    method = bench.method("dense", 24, {}, items=PAIRS)
    method.context = replace(method.context, micro_batch_size=size)
    return method


def _instruct(bench: Bench, segments: int) -> tuple[Method, Batch]:
    values: dict[str, Any] = {"segments": segments, "chain_steps": 4}
    method = bench.method("instruct", 24, values, Mixture([(Green(), 1.0)]), frames=FRAMES)
    settings = method.context.sampling
    batch = bench.batch(jobs.prompts(1), 1, settings)
    clip = torch.randn(1, *bench.model.latent_shape(*settings.size), generator=torch.Generator().manual_seed(0))
    return method, replace(batch, step=STEP, tensors={"clip": clip})


def _alone(kind: str, which: str) -> dict[str, float]:
    """Peak memory of steps above that of the loaded model, in MB."""
    torch.set_num_threads(1)
    bench = Bench.make()
    if kind == "instruct":
        return {"peak": bench.peak(*_instruct(bench, int(which)))}
    with tempfile.TemporaryDirectory() as folder:
        batch = bench.batch(jobs.pair_set(Path(folder), bench.model, PAIRS), PAIRS)
    return {"peak": bench.peak(_dense(bench, None if which == "all" else 2), batch)}


if __name__ == "__main__":
    jobs.show(_alone(*sys.argv[1:3]))
