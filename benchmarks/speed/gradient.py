"""InstructVideo's step (part of the chain, a gradient through its last step, a few frames decoded) against the gradient
through every step of the whole chain, both branches of guidance and every frame; and its memory by the chain's length.
"""

from __future__ import annotations

import sys
import tempfile
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

CHAIN, CLIPS, LENGTHS = 20, 2, (10, 20, 40)
ALL: dict[str, Any] = {
    "chain_steps": CHAIN, "grad_steps": CHAIN, "tau": 1.0, "guidance_gradient": True, "segments": 0,
}  # fmt: skip


def one_step_of_all() -> list[Row]:
    """Both with the same reward of single frames, closed in form, so that its own cost does not count."""
    bench = Bench.make()
    batch = _batch(bench)
    methods = {name: _method(bench, values) for name, values in (("one", {"chain_steps": CHAIN}), ("all", ALL))}

    def step(method: Method) -> None:
        backward(method.step(batch))
        bench.forget()

    clocks = in_turns({name: lambda m=m: step(m) for name, m in methods.items()}, rounds=5)  # type: ignore[misc]
    one, every = clocks["one"], clocks["all"]
    details = {
        "step, s": seconds(one.processor), "other, s": seconds(every.processor), "chain": CHAIN,
        "ratio on the wall": ratio(one.wall, every.wall), "clips": CLIPS,
    }  # fmt: skip
    row = Row(
        f"instruct, 1 of {CHAIN} steps",
        "a gradient through all steps",
        ratio(one.processor, every.processor),
        0.25,
        details=details,
    )
    peaks = {str(n): float(apart("speed.gradient", str(n))["peak"]) for n in LENGTHS}
    first, *_, last = peaks.values()
    against = f"{LENGTHS[0]} steps"
    return [row, Row(f"instruct, memory of {LENGTHS[-1]} steps", against, round(last / first, 3), 1.05, details=peaks)]


def _batch(bench: Bench) -> Batch:
    with tempfile.TemporaryDirectory() as folder:
        return bench.batch(jobs.pair_set(Path(folder), bench.model, CLIPS), CLIPS)


def _method(bench: Bench, values: dict[str, Any]) -> Method:
    return bench.method("instruct", 24, values, Mixture([(Green(), 1.0)]), items=CLIPS)


def _alone(steps: int) -> dict[str, float]:
    """Peak memory of steps above that of the loaded model, in MB."""
    torch.set_num_threads(1)
    bench = Bench.make()
    batch = _batch(bench)
    return {"peak": bench.peak(_method(bench, {"chain_steps": steps}), batch)}


if __name__ == "__main__":
    jobs.show(_alone(int(sys.argv[1])))
