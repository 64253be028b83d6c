"""Peak memory of one step against frames and sampling steps: online DPO, and reward gradients through the sampler.

OnlineVPO's argument: its memory does not grow with the number of sampling steps, that of reward back-propagation does.
Our sampler runs each pass again in the backward pass; `kept` is what other code holds that keeps the passes' graphs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from benchmarks import facts
from benchmarks.claims import page, plots
from benchmarks.claims.boards import Boards
from benchmarks.claims.design import outcome
from benchmarks.speed import jobs
from benchmarks.speed.jobs import Bench
from benchmarks.speed.timing import apart
from vpo_kit import sampler

FRAMES, STEPS, PROMPTS, CANDIDATES = (17, 33, 65), (5, 10, 20), 2, 4
DEFAULT = {"frames": FRAMES[0], "steps": STEPS[1]}
ALL = {"grad_steps": -1, "guidance_gradient": True}
CLAIMED = "online, 4 candidates"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    CLAIMED: ("online", {"num_candidates": CANDIDATES, "num_draws": 1}),
    "reward gradient, last step": ("draft", {"grad_steps": 1}),
    "reward gradient, all steps": ("draft", ALL),
    "reward gradient, all steps, kept": ("draft", ALL),
}


def run(boards: Boards) -> None:
    """Writes ``results/claims/memory.json`` and ``.png``; briefly, of the claim's own method, it only prints."""
    found = {
        name: {
            "frames": {str(n): _apart(name, {**DEFAULT, "frames": n}) for n in (() if boards.brief else FRAMES)},
            "sampling steps": {str(n): _apart(name, {**DEFAULT, "steps": n}) for n in STEPS},
        }
        for name in ([CLAIMED] if boards.brief else METHODS)
    }
    few, *_, many = found[CLAIMED]["sampling steps"].values()
    share = many / few - 1
    # one measurement of each, which is the same to about a hundredth when it is taken again: no interval
    claims = {claim.name: outcome(claim, (share, share, share), claim.effect) for claim in boards.design.of("memory")}
    page.say(claims)
    if boards.brief:
        return
    facts.write("claims/memory", {
        "design": boards.design.commit, "unit": "MB above the loaded model", "prompts": PROMPTS, **DEFAULT,
        "peaks": found, "claims": claims,
    })  # fmt: skip
    columns = [(axis, str(n)) for axis, values in (("frames", FRAMES), ("sampling steps", STEPS)) for n in values]
    head = ["MB", *(f"{n} {axis}" for axis, n in columns)]
    rows = [[name, *(f"{peaks[axis][n]:.0f}" for axis, n in columns)] for name, peaks in found.items()]
    page.fill("memory", "\n".join(page.table(head, rows)))
    for axis in ("frames", "sampling steps"):
        series = {name: [(float(n), mb) for n, mb in peaks[axis].items()] for name, peaks in found.items()}
        plots.lines(series, (axis, "peak memory, MB"), facts.RESULTS / "claims" / f"memory-{axis.split()[0]}.png")


def _apart(name: str, sampling: dict[str, int]) -> float:
    peak = float(apart("claims.memory", name, json.dumps(sampling))["peak"])
    print(f"{name:34} {sampling}: {peak:.0f} MB", flush=True)
    return peak


def _alone(name: str, sampling: dict[str, int]) -> dict[str, float]:
    torch.set_num_threads(1)
    kind, values = METHODS[name]
    if kind == "draft":
        chain = sampling["steps"]
        values = {**values, "chain_steps": chain, "grad_steps": chain if values["grad_steps"] < 0 else 1}
    if name.endswith("kept"):
        sampler.checkpoint = lambda function, *arguments, use_reentrant: function(*arguments)
    bench = Bench.make()
    method = bench.method(kind, PROMPTS * CANDIDATES, values, jobs.judge(), items=PROMPTS, **sampling)
    batch = bench.batch(jobs.prompts(8), PROMPTS, method.context.sampling)  # a batch says how long its videos are
    return {"peak": bench.peak(method, batch)}


if __name__ == "__main__":
    jobs.show(_alone(sys.argv[1], json.loads(sys.argv[2])))
