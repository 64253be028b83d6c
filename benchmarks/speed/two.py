"""Two processes against one with the same global batch: a dense run, each process on its own core, with one thread.

Both are timed in one launch, in turns: for a while the first process trains alone and the second one waits, then both
train. On the wall, for waiting counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.timing import ROOT, Row, ratio, seconds

PAIRS, STEPS, BLOCKS = 16, 4, 5


def two_processes() -> list[Row]:
    """Raises `RuntimeError` where there are no two cores, or where the two do not compute the same losses."""
    if len(os.sched_getaffinity(0)) < 2:
        raise RuntimeError("2 processes: this machine has one core")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
                   "benchmarks.speed.two", folder]  # fmt: skip
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
        if done.returncode:
            raise RuntimeError(f"2 processes: {done.stderr[-2000:]}")
        found = json.loads((Path(folder) / "found.json").read_text())
    alone, both = found["alone"], found["both"]
    details = {
        "1 process, s": seconds(alone), "2 processes, s": seconds(both), "pairs": PAIRS, "loss apart": found["apart"],
        "by the first process's work alone": ratio(found["alone, work"], found["both, work"]),
    }  # fmt: skip
    return [Row("2 processes", "1 process, same global batch", ratio(alone, both), 1.7, at_most=False, details=details)]


def _rank(folder: Path) -> None:
    """One of the two processes."""
    rank = int(os.environ["RANK"])
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})  # before torch starts its threads

    import torch

    from benchmarks.speed import jobs
    from vpo_kit.processes import Processes
    from vpo_kit.training.loop import Report, train

    class Alone(Processes):
        """One process among several, which asks the others for nothing."""

        def __init__(self) -> None:
            self.rank, self.count, self.sharded = 0, 1, False

        def wait(self) -> None:
            pass

    torch.set_num_threads(1)
    bench, together = jobs.Bench.make(), Processes()
    source = jobs.pair_set(folder / f"set{rank}", bench.model, PAIRS)
    start = bench.policy.state()
    spent: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {"alone": [], "both": []}

    def block(name: str, processes: Processes, number: int) -> None:
        times: list[tuple[float, float]] = []

        def on_step(row: Report, _: float) -> None:
            times.append((time.perf_counter(), time.process_time()))
            losses[name].append(row["loss"])

        bench.policy.load_state(start, None)
        method = bench.method("dense", 24, {}, processes=processes, items=PAIRS)
        train(bench.job(method, source, PAIRS, STEPS, folder / f"{name}{number}", on_step))
        for kind, clock in (("", 0), (", work", 1)):
            took = (times[-1][clock] - times[0][clock]) / (len(times) - 1)
            spent.setdefault(f"{name}{kind}", []).append(took)

    for number in range(BLOCKS + 1):
        together.wait()
        if rank == 0:
            block("alone", Alone(), number)
        together.wait()
        block("both", together, number)
    if rank == 0:
        apart = max(abs(a - b) for a, b in zip(losses["alone"], losses["both"], strict=True))
        if apart > 1e-4:
            raise RuntimeError(f"the losses differ by {apart}")
        found = {name: values[1:] for name, values in spent.items()}  # the first round warms up
        (folder / "found.json").write_text(json.dumps({**found, "apart": apart}))
    together.wait()


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
