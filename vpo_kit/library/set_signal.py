"""Whether a pair set can teach anything, and how far a recipe's steps would go: measured without training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vpo_kit import config
from vpo_kit.catalogue import preferring
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.evaluation.report import versions
from vpo_kit.inputs import Inputs
from vpo_kit.library import sources
from vpo_kit.library.display import count_bar, terminal
from vpo_kit.methods.base import Context, Method
from vpo_kit.methods.offline import OfflinePairs
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.processes import Processes
from vpo_kit.times import Times
from vpo_kit.training import initial, signal
from vpo_kit.training import recipe as recipes
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.paired import Pairs
from vpo_kit.training.reach import Reach, reach
from vpo_kit.training.recipe import Recipe
from vpo_kit.training.run import Assembly, load_model, use
from vpo_kit.training.signal import Gradients, Signal
from vpo_kit.training.stream import Stream


@dataclass(frozen=True, kw_only=True)
class SignalRequest:
    """What is to be measured: the set at `path`, at most so many of its `pairs`, and the recipe, as for training."""

    path: Path
    model: str | None = None
    method: str | None = None
    config: Path | None = None
    assignments: Sequence[str] = ()
    pairs: int = 128
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class SetSignal:
    """What was measured: the signal of a set, and how far the recipe's steps move the weights."""

    request: SignalRequest
    recipe: Recipe
    signal: Signal
    count: int
    """How many pairs of the set have something to teach."""
    move: Reach

    @property
    def logit(self) -> float:
        """How far the mean logit moves over the whole run, to first order."""
        return self.signal.logit_per_rate * self.move.rates

    def facts(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "set": str(self.request.path),
            "model": self.recipe.run.model,
            "method": self.recipe.run.method_name,
            "pairs_in_set": self.count,
            "signal": _plain(asdict(self.signal)),
            "reach": asdict(self.move),
            "verdict": self.move.verdict,
            "logit": _plain(self.logit),
            "seed": self.recipe.run.seed,
            "versions": versions(),
        }


def measure(request: SignalRequest) -> SetSignal:
    """Take the gradients of the set's pairs. Raises `VpoError` for whatever a user can mend."""
    recipe = _recipe(request)
    found, count = _measure(recipe, request)
    return SetSignal(request=request, recipe=recipe, signal=found, count=count, move=reach(recipe.run))


def _recipe(request: SignalRequest) -> Recipe:
    """The recipe as for `vpo train`, but nothing is measured on held-out prompts; where no method is named it is that
    of the set's strategy.
    """
    strategies = {pair.strategy for pair in store.read(request.path).pairs}
    options: dict[str, Any] = {
        "pairs": request.path,
        "model": request.model,
        "method": request.method,
        "seed": request.seed,
        "evaluation": {"num_prompts": 0},
        "selection": {"strengths": []},
    }
    usual = {"method": {"name": "dense" if strategies == {"guided"} else "dpo"}}
    given = recipes.merged(options, request.config, request.assignments)
    recipe = initial.resolve(recipes.complete(config.merge(usual, given)))
    if not issubclass(recipe.method, OfflinePairs):
        name = recipe.run.method_name
        raise ConfigError(f"method {name!r} learns no preference from pairs: give --method {preferring()}")
    return recipe


def _measure(recipe: Recipe, request: SignalRequest) -> tuple[Signal, int]:
    """The signal, and how many pairs of the set have something to teach."""
    run, console = recipe.run, terminal()
    model = load_model(run.model_copy(update={"compile": False}))  # each pair goes through alone: it would not pay
    settings = use(model, run.sampling)
    source = sources.build(recipe, model, settings, console, Processes())
    assert isinstance(source, Pairs)
    encode = PromptCache(model)
    shown: list[str | Inputs] = [settings.negative_prompt, *source.inputs]
    encode.ahead([(item, settings) for item in shown], console.print)
    policy = LoraPolicy(model, run.lora, run.seed, initial.start(model, run.lora))
    single = run.model_copy(update={"batch_size": 1})
    parts = Assembly(run=single, policy=policy, settings=settings, encode=encode)
    methods = _by_band(recipe, parts.context(source=source))
    count = len(source.prompts)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(run.seed))[: request.pairs].tolist()
    if len(chosen) < 8:
        raise DataError(f"{request.path}: {len(chosen)} pairs have something to teach, and at least 8 are needed")
    stream = Stream(source, range(count), 1, run.seed, encode, Processes(), settings)
    gradients = Gradients(policy, run.seed)
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


def _plain(value: Any) -> Any:
    """The value as JSON can hold it, which knows no infinity."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
