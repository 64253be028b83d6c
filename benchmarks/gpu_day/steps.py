"""Whole training steps of the real architectures with random weights: seconds, memory, share of the matrix rate.

The step is the method's own, with the production adapters, LoRA and optimiser, as `vpo plan` rehearses it, but for the
text encoder, which is not there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.gpu_day import bench, card
from benchmarks.gpu_day.cases import BY_NAME, CASES, ONE_LAYER, Case
from benchmarks.gpu_day.protocol import Options
from vpo_kit.errors import ConfigError
from vpo_kit.models import memory

LEFT = 2**28
"""Bytes that a case may leave behind on the card; with more, a fresh process goes on."""


def cases(options: Options) -> dict[str, float]:
    return chosen(options, extra=False)


def chosen(options: Options, *, extra: bool) -> dict[str, float]:
    return {case.name: case.seconds for case in CASES if case.extra == extra and options.cases in case.name}


def run(case: str, options: Options) -> dict[str, Any]:
    card.clean()
    device = card.device(options.rehearse)
    try:
        return measure(BY_NAME[case], device, rehearse=options.rehearse)
    except ConfigError as error:
        return {"left out": str(error)}
    except torch.OutOfMemoryError as error:
        return {"left out": f"out of memory: {str(error).splitlines()[0][:200]}", **card.peaks()}
    finally:
        torch.compiler.reset()


def spent() -> bool:
    """Whether this process holds so much of the card that another one must go on."""
    return card.clean() > LEFT


def measure(case: Case, device: torch.device, *, rehearse: bool) -> dict[str, Any]:
    """Seconds of a step (the median of the rounds), and bytes: of the model as it waits, and at the step's peak."""
    started = time.perf_counter()
    if rehearse:
        memory.BACKEND = "aot_eager"  # the real compiler's kernels for a processor take a minute to build
        made = bench.build(case.rehearsal(), device, ONE_LAYER[case.model])
    else:
        made = bench.build(case.subject(), device, {})
    card.synchronise()
    found: dict[str, Any] = {"build": round(time.perf_counter() - started, 1)}
    found["waiting"] = card.clean()
    if case.warm and not rehearse:
        found["first"] = round(card.seconds(made.step), 3)
    card.clean()
    phases = Phases(made)
    times = [card.seconds(made.step) for _ in range(1 if rehearse else case.rounds)]
    found |= {
        "seconds": round(median(times), 4),
        "rounds": [round(t, 4) for t in times],
        **card.peaks(),
        "finite": made.finite,
    }
    return found | phases.shown(sum(times))


class Phases:
    """What a step spends its time on, from the adapter's own calls: decoding, and what lies before it (a rollout)."""

    def __init__(self, made: bench.Bench) -> None:
        self._seconds = {"decoding": 0.0}
        model: Any = made.model
        model.decode = self._timed("decoding", model.decode)

    def shown(self, whole: float) -> dict[str, Any]:
        """Shares of all steps' seconds, where there were any."""
        return {f"share of {name}": round(took / whole, 3) for name, took in self._seconds.items() if took}

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            card.synchronise()
            started = time.perf_counter()
            found = call(*args, **kwargs)
            card.synchronise()
            self._seconds[name] += time.perf_counter() - started
            return found

        return run
