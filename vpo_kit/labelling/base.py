"""What labels a set: the base of every labeller, and how one is found by its name.

A new one is a class and a line: an entry point of `vpo_kit.labellers`, or ``package.module:Class`` in place of a name.
One that scores or judges the two clips of a pair starts from `vpo_kit.labelling.by_scores.ByScores`, which does all
the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vpo_kit.config import validate
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.labelling.comparing import Comparer
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import cut, default_seconds
from vpo_kit.pairing.settings import Cutting
from vpo_kit.pairing.store import PairSet
from vpo_kit.processes import Processes
from vpo_kit.registry import LABELLERS
from vpo_kit.rewards.base import Mixture


@dataclass(frozen=True)
class Surroundings:
    """The place where a labeller works, and how it is heard."""

    processes: Processes
    say: Callable[[str], None]
    """A function that shows one line, in the main process alone."""
    bar: Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
    """A bar by its name and total; what the block gets is called with how many more are done."""


class Labeller(ABC):
    """One way to label a finished set. Making one checks all that can be checked before anything costs time."""

    Config: ClassVar[type[Cutting]] = Cutting
    argument: ClassVar[str | None] = None
    """The setting that may be written behind the name, as in ``reward:vqa``."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def label(self, found: PairSet, around: Surroundings) -> PairSet:
        """Label all pairs of a set on disk, go on where that was stopped, and give the set as it is then.

        The old labels are in force until the new ones are whole. Raises `VpoError`.
        """

    def locate(self) -> None:
        """See that what must be loaded is there, before pairs are made. Raises `ModelError`."""
        return

    def doubts(self, model: str) -> list[str]:
        """A line for what speaks against this labeller for the videos of a model."""
        return []

    def judge(self, device: torch.device, *, offload: bool = False) -> Mixture | None:
        """What chooses among more than two candidates of a prompt while pairs are made; None where nothing can."""
        return None

    @property
    def chooses(self) -> bool:
        """Whether `judge` gives one, which nothing is loaded to know."""
        return type(self).judge is not Labeller.judge

    def comparer(self, device: torch.device) -> Comparer | None:
        """What says which of two clips at hand is better (``--reward pairwise:NAME``); None where nothing can."""
        return None

    @property
    def compares(self) -> bool:
        """Whether `comparer` gives one, which nothing is loaded to know."""
        return type(self).comparer is not Labeller.comparer

    def requests(self, frames: int, fps: float) -> int:
        """Requests to a server for one comparison of two clips of `frames` frames, without retries; 0 for none."""
        return 0


def plan(text: str, settings: Mapping[str, Any], prefix: str = "") -> Labeller:
    """The labeller ``NAME`` or ``NAME:ARGUMENT`` with checked `settings`, which errors call by `prefix`.

    Raises `ConfigError`.
    """
    name, argument = _split(text)
    kind = LABELLERS.load(name)
    if not (isinstance(kind, type) and issubclass(kind, Labeller)):
        raise ConfigError(f"{name} is not a labeller: it must be a subclass of vpo_kit.labelling.base.Labeller")
    own = dict(settings)
    if argument:
        if kind.argument is None:
            raise ConfigError(f"labeller {name!r} takes nothing behind its name, not {argument!r}")
        if kind.argument in own:
            raise ConfigError(f"labeller {name!r}: its {kind.argument} is given twice")
        own[kind.argument] = argument
    return kind(validate(kind.Config, own, prefix))


def recut(pair: Pair, seconds: float | None) -> Pair:
    """The pair with segments of `seconds` (default: those of `default_seconds`) and without labels; an imported one
    stays whole.
    """
    update = dict.fromkeys(("labels", "label", "scores", "motion"))
    if pair.strategy == "imported":
        return pair.model_copy(update=update)
    parts = cut(pair.frames, pair.fps, seconds or default_seconds(pair.frames, pair.fps))
    return pair.model_copy(update={"segments": parts, **update})


def all_read(found: PairSet) -> None:
    """Raises `DataError` for a set with a line that is no pair: labelling would lose it."""
    if found.broken:
        raise DataError(f"{found.path}: {found.broken[0]}: mend or delete that line first, labelling writes all anew")


def alone(around: Surroundings, name: str, instead: str) -> None:
    """Raises `ConfigError` where there are several processes; `instead` says what to do."""
    if around.processes.count > 1:
        raise ConfigError(f"labeller {name} is one process: {instead}")


def _split(text: str) -> tuple[str, str]:
    """A registered name and what is written behind it; ``package.module:Class`` is a name as it stands."""
    name, _, argument = text.partition(":")
    return (name, argument) if name in LABELLERS.targets() else (text, "")
