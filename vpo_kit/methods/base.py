"""What a training method is: a small class that says what it needs and turns a batch into a loss.

The loop owns everything else: it checks the needs before anything is loaded, draws the data, steps the optimiser,
logs, checks health and writes checkpoints. No method can override it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vpo_kit.config import Run
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.pairing.records import Pair
from vpo_kit.processes import Processes
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.times import Times, TimeSampler
from vpo_kit.truth import Truth, text_of

Data = Literal["prompts", "pairs", "videos"]
HELD_OUT_DRAWS = 4
"""Draws of (t, noise) for each held-out item, the same at every validation."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run must have for a method. `data` names what it can learn from, the preferred kind first; `reward` is
    ``none``, ``any`` or ``differentiable``; `strategy` is how its pairs should have been made. `validation` says that
    the method can use held-out items: then some of the data is kept from training. With `ratings` its videos have a
    rating or a verdict each.
    """

    data: Sequence[Data] = ("prompts",)
    reward: Literal["none", "any", "differentiable"] = "none"
    strategy: Literal["independent", "guided"] | None = None
    validation: bool = True
    ratings: bool = False

    def decodes(self, data: str) -> bool:
        """Whether a training step makes videos of latents or latents of videos, where it learns from `data`: a pair set
        holds the latents that it needs.
        """
        return self.reward != "none" or data != "pairs"


class Policy(Protocol):
    """The model with its LoRA, and the frozen reference that the same weights hold."""

    model: VideoModel

    @property
    def networks(self) -> Mapping[str, Any]:
        """The networks of the model that are trained."""

    def reference(self) -> AbstractContextManager[None]:
        """Inside, the model is the reference."""

    def beginning(self) -> AbstractContextManager[None]:
        """Inside, the model is what it was when the run began, wherever the reference has moved since."""

    def refresh_reference(self, decay: float) -> None:
        """Move the reference to ``decay * reference + (1 - decay) * policy``; 0 is a hard copy."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the loop hands to a method once, before the first step.

    `scores` ``[N, 2]`` holds both members' clip scores of a labelled pair set, NaN where there are none; `judges` are
    held-out rewards that validation reports and no loss sees, and `truth` is that of the made world whose captions all
    prompts are, which no loss sees either. `batch_size` counts the prompts, pairs or clips of a step in all processes;
    at most `micro_batch_size` videos go through the network with a graph at once, None is all of them, and
    `sampling_batch_size` without one.
    """

    policy: Policy
    reward: Mixture | None
    sampling: Settings
    negative: Conditions
    batch_size: int
    sampling_batch_size: int
    seed: int
    processes: Processes = field(default_factory=Processes)
    scores: Tensor | None = None
    judges: Sequence[Reward] = ()
    micro_batch_size: int | None = None
    truth: Truth | None = None

    def text(self, video: Tensor, prompts: Sequence[str]) -> Tensor | None:
        """The share of right words ``[B]`` of `video` ``[B, F, 3, H, W]``, where the model's world tells it."""
        return text_of(self.truth, video, prompts)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This process's part of one optimiser step's data, prompts already encoded; `step` counts from 0, and all videos
    of the global batch are of `settings`.

    `positions` are the items' places in the global batch and `visits` which pass over the data each belongs to, so
    that random draws depend on neither the number of processes nor where a run was resumed; `indices` name the items
    themselves. `tensors` are what the source has: latents ``[B, C, T, h, w]``, labels. A `filler` of validation only
    keeps step with the other processes: it is computed and not counted.
    """

    step: int
    settings: Settings
    prompts: Sequence[str]
    conditions: Conditions
    positions: Sequence[int]
    indices: Sequence[int]
    visits: Sequence[int]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    filler: bool = False

    def at(self, step: int) -> Batch:
        """The same data for another optimiser step."""
        return replace(self, step=step)

    def part(self, rows: slice) -> Batch:
        """Some of the items."""
        return replace(
            self,
            prompts=self.prompts[rows],
            conditions=self.conditions[rows],
            positions=self.positions[rows],
            indices=self.indices[rows],
            visits=self.visits[rows],
            tensors={name: value[rows] for name, value in self.tensors.items()},
        )


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What is optimised, and what is logged: the two never share a value.

    `loss` is this process's share of the global mean. Where `parts` is given, the loop runs backward on each of them
    in turn instead, and only one of their graphs is held at a time; a `loss` of None is their sum, and the report may
    then be filled while they are made. `by_label` is the part of the report that speaks of
    labels: of several processes each counts as much as it has, `num_labels`.
    """

    loss: Tensor | None
    report: dict[str, float] = field(default_factory=dict)
    parts: Iterable[Tensor] | None = None
    by_label: dict[str, float] = field(default_factory=dict)
    num_labels: int = 0


def runs(count: int, size: int | None) -> list[slice]:
    """`count` rows in runs of at most `size`, None for all in one."""
    step = size or max(count, 1)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def shared_runs(count: int, size: int | None, processes: Processes) -> list[slice]:
    """`runs`, of a sharded base as many as the process with the most has: those that are added are of the first row
    again, so that its results come once more, after those of the `count` rows. All processes must ask.
    """
    own = runs(count, size)
    return own + [slice(1)] * (processes.lockstep(len(own)) - len(own))


class MethodConfig(BaseModel):
    """Base of every method's own settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TimesConfig(MethodConfig):
    """Settings of a method that trains at times that it draws."""

    times: Times | None = Field(None, description="distribution of the training times; default: the model family's own")


class Method(ABC):
    """One training method. A new one is a file with `needs`, a `Config` and a `step`."""

    summary: ClassVar[str]
    needs: ClassVar[Needs]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    retraces: ClassVar[bool] = False
    """Whether the loss goes through steps of a rollout again, which the policy alone must then have made."""

    def __init__(self, config: Any, context: Context) -> None:
        self.check_model(config, context.policy.model)
        self.config = config
        self.context = context
        self._times_of: dict[Sequence[int] | None, TimeSampler] = {}
        if isinstance(config, TimesConfig):
            self.time_sampler()  # where no time is left, before the first step

    @classmethod  # noqa: B027 (most methods take any model)
    def check_model(cls, config: Any, model: VideoModel) -> None:
        """Raises `ConfigError` for settings that `model` has not the parts for. Weights need not be there: a run asks
        it before they are read.
        """

    def time_sampler(self, shape: Sequence[int] | None = None) -> TimeSampler:
        """The training times, to be drawn, that the settings ask for, for latents of `shape` ``(C, T, h, w)``; None is
        the shape of the run's own videos. Raises `ConfigError` where none is left.
        """
        policy, known = self.context.policy, self._times_of
        shape = None if shape is None else tuple(shape)
        if shape not in known:
            known[shape] = policy.model.time_sampler(self.config.times, self.context.sampling, policy.networks, shape)
        return known[shape]

    @property
    def start(self) -> tuple[float, float] | None:
        """The value and slope of a preference loss where policy and reference are the same."""
        return None

    @property
    def notes(self) -> list[str]:
        """A line for each thing that the user should know before the first step."""
        return []

    @property
    def updates_per_batch(self) -> int:
        """How many optimiser steps in a row get the same batch."""
        return self.updates(self.config)

    @classmethod
    def updates(cls, config: Any) -> int:
        """`updates_per_batch`, of a method that is not made yet."""
        return 1

    @classmethod
    def keeps(cls, config: Any, pair: Pair) -> bool:
        """Whether a pair of a set has anything to teach; the others are left out before batches are drawn."""
        return True

    @classmethod
    def moves_reference(cls, config: Any) -> bool:
        """Whether the reference ever leaves the place where the run began: it is then a second LoRA."""
        return False

    @classmethod
    def idle(cls, config: Any, run: Run) -> list[str]:
        """A line for each of the method's settings that can never act in `run`."""
        return []

    @abstractmethod
    def step(self, batch: Batch) -> StepOutput:
        """The loss of one optimiser step, with its graph."""

    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics on held-out data, at the same times and noises whenever it is called; nothing by default."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What an exact resume needs beside weights and optimiser; all randomness comes from seed and step.

        Called by all processes; what the first one returns is saved, and given to all of them on resume.
        """
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027  (most methods keep nothing)
        """Take back what `state` gave."""
