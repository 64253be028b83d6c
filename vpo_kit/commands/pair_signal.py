"""`vpo pair signal`: whether a pair set can teach anything, and how far a recipe's steps would go, without training."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from vpo_kit import files
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.evaluation.report import versions
from vpo_kit.library import sources
from vpo_kit.library.display import count_bar
from vpo_kit.methods.base import Context, Method
from vpo_kit.methods.offline import OfflinePairs
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.processes import Processes
from vpo_kit.times import Times
from vpo_kit.training import initial, reach, signal
from vpo_kit.training import recipe as recipes
from vpo_kit.training.data import Pairs
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.reach import Reach
from vpo_kit.training.recipe import Recipe
from vpo_kit.training.run import Assembly, load_model, use
from vpo_kit.training.signal import BANDS, Direction, Gradients, Signal
from vpo_kit.training.stream import Stream

LITTLE, MUCH = 0.05, 10.0
"""Mean logits that a recipe's steps reach: below the first nothing is learned, above the second everything is."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of the command line."""

    path: Path
    model: str | None
    method: str | None
    config: Path | None
    assignments: Sequence[str]
    pairs: int
    seed: int
    output: Path | None


def run(request: Request) -> None:
    """Measure, print, and write ``--output``. Raises `VpoError` for whatever a user can mend."""
    recipe = _recipe(request)
    found, count = _measure(recipe, request)
    move = reach.reach(recipe.run)
    _show(Console(), recipe, found, move, count)
    if request.output is not None:
        facts = {
            "set": str(request.path),
            "model": recipe.run.model,
            "method": recipe.run.method_name,
            "pairs_in_set": count,
            "signal": _plain(asdict(found)),
            "reach": asdict(move),
            "verdict": move.verdict,
            "logit": _plain(_logit(found, move)),
            "seed": request.seed,
            "versions": versions(),
        }
        files.write(request.output, json.dumps(facts, indent=2) + "\n")


def _recipe(request: Request) -> Recipe:
    """As for `vpo train`, but nothing is measured on held-out prompts; the method is that of the set's strategy."""
    strategies = {pair.strategy for pair in store.read(request.path).pairs}
    method = request.method or ("dense" if strategies == {"guided"} else "dpo")
    options: dict[str, Any] = {
        "pairs": request.path,
        "model": request.model,
        "method": method,
        "seed": request.seed,
        "evaluation": {"num_prompts": 0},
        "selection": {"strengths": []},
    }
    recipe = initial.resolve(recipes.read(options, request.config, request.assignments))
    if not issubclass(recipe.method, OfflinePairs):
        raise ConfigError(f"method {method!r} learns no preference from pairs: give --method dense, structural or dpo")
    return recipe


def _measure(recipe: Recipe, request: Request) -> tuple[Signal, int]:
    """The signal, and how many pairs of the set have something to teach."""
    run, console = recipe.run, Console()
    model = load_model(run.model_copy(update={"compile": False}))  # each pair goes through alone: it would not pay
    settings = use(model, run.sampling)
    source = sources.build(recipe, model, settings, console, Processes())
    assert isinstance(source, Pairs)
    policy, encode = LoraPolicy(model, run.lora, run.seed, initial.start(model, run.lora)), PromptCache(model)
    single = run.model_copy(update={"batch_size": 1})
    parts = Assembly(run=single, policy=policy, settings=settings, encode=encode)
    methods = _by_band(recipe, parts.context(source=source))
    count = len(source.prompts)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(run.seed))[: request.pairs].tolist()
    if len(chosen) < 8:
        raise DataError(f"{request.path}: {len(chosen)} pairs have something to teach, and at least 8 are needed")
    stream, gradients = Stream(source, range(count), 1, run.seed, encode, Processes()), Gradients(policy, run.seed)
    second = len(chosen) // 4
    with count_bar(console, "signal", (len(chosen) + second) * len(methods), "gradients") as tick:

        def rows(items: Sequence[int], draw: int) -> list[torch.Tensor]:
            found = []
            for place, item in enumerate(items):
                batch = stream.item(item, draw)
                parts = []
                for method in methods:
                    parts.append(gradients.take(method, batch, place % 2))
                    tick(1)
                found.append(torch.stack(parts))
            return found

        first, again = torch.stack(rows(chosen, 0)), torch.stack(rows(chosen[:second], 1))
    start = methods[0].start
    slope = start[1] if start else math.nan
    return signal.measure(first, again, gradients.kinds, gradients.loss_per_rate(), slope, run.seed), count


def _by_band(recipe: Recipe, context: Context) -> list[Method]:
    """The method with its training times kept to each third of their distribution."""
    config: Any = recipe.method_config
    model = context.policy.model
    times: Times = config.times or model.times
    whole = model.time_sampler(times, context.sampling, context.policy.networks)
    edges = [times.low, *whole.places([1 / 3, 2 / 3]), times.high]
    found = []
    for low, high in itertools.pairwise(edges):
        own = config.model_copy(update={"times": times.model_copy(update={"low": low, "high": high})})
        found.append(recipe.method(own, context))
    return found


def _logit(found: Signal, move: Reach) -> float:
    """How far the mean logit moves over the whole run, to first order."""
    return found.logit_per_rate * move.rates


def _show(console: Console, recipe: Recipe, found: Signal, move: Reach, count: int) -> None:
    run, whole = recipe.run, found.whole
    console.print(
        f"{run.pairs}, {run.method_name} on {run.model}: {found.pairs} of {count} pairs, {found.draws} gradients",
        soft_wrap=True,
        markup=False,
    )
    if whole.found:
        console.print(f"direction: found (p {whole.p:.3f} of random labels); cosine of two halves {whole.cosine}")
        console.print(
            f"at a cosine of .71 with the true one after {whole.pairs} pairs, or {found.draws_needed:,.0f} draws of "
            "(t, noise), each of another pair",
            soft_wrap=True,
        )
    else:
        console.print(
            f"direction: not found with {found.draws} draws (p {whole.p:.2f} of random labels): more pairs (--pairs), "
            "or labels that agree more",
            soft_wrap=True,
        )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    for column in ("where", "p", "cosine of halves", "pairs for .71"):
        table.add_column(column, justify="left" if column == "where" else "right", no_wrap=True)
    for name in BANDS:
        table.add_row(f"{name} times", *_cells(found.bands[name]))
    console.print(table)
    layers = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    for column in ("layers", "share of the direction", "p"):
        layers.add_column(column, justify="left" if column == "layers" else "right", no_wrap=True)
    for kind, (share, p) in sorted(found.kinds.items(), key=lambda item: -item[1][0]):
        layers.add_row(kind, f"{share:.0%}" if math.isfinite(share) else "", f"{p:.3f}")
    console.print(layers)
    for line in _verdict(found, move):
        console.print(line, soft_wrap=True, markup=False)


def _cells(one: Direction) -> tuple[str, str, str]:
    return f"{one.p:.3f}", str(one.cosine), str(one.pairs) if one.found else "not found"


def _verdict(found: Signal, move: Reach) -> list[str]:
    """What the recipe's steps can do, in words."""
    lines = [f"recipe: {move}"]
    logit = _logit(found, move)
    if found.whole.found and math.isfinite(logit):
        words = "nothing is learned" if logit < LITTLE else "the pairs are used up" if logit > MUCH else "enough"
        lines.append(f"the mean logit of these pairs would move by about {logit:.2g}: {words}")
    return lines


def _plain(value: Any) -> Any:
    """As JSON, which knows no infinity."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
