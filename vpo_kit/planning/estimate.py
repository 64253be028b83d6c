"""What is planned, and what comes out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vpo_kit.config import Run
from vpo_kit.methods.base import Method, MethodConfig
from vpo_kit.models.settings import Settings
from vpo_kit.planning.counting import Op
from vpo_kit.rewards import loading as rewards


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is planned: a checked run, with the classes that it names."""

    run: Run
    method: type[Method]
    method_config: MethodConfig
    reward: list[rewards.RewardPlan]
    judges: list[rewards.RewardPlan]
    data: str
    measured: int = 0
    """Videos of one measurement, before or after training."""
    selected: int = 0
    """Videos of each measurement of the selection: of the model before training, and of every strength."""
    processes: int = 1

    @property
    def most_measured(self) -> int:
        """Videos of the largest measurement."""
        return max(self.measured, self.selected)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run needs, for each process. Bytes at the peak of each phase, by part; operators of each phase.

    `parameters` are numbers of weights; `passes` are videos through the network in one step, `steps` how many steps
    the phase "step" holds.
    """

    settings: Settings
    parameters: dict[str, int]
    phases: dict[str, dict[str, int]]
    ops: dict[str, Counter[Op]]
    passes: float
    steps: int
    notes: list[str] = field(default_factory=list)
    judging: list[tuple[str, int, int]] = field(default_factory=list)
    """What rewards cost beside arithmetic: its name, how many of it in a rollout of all processes, and in the run."""

    @property
    def worst(self) -> str:
        """The phase with the highest peak."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def peak(self) -> int:
        """The bytes of the phase that needs most."""
        return sum(self.phases[self.worst].values())

    @property
    def flops(self) -> float:
        """Floating point operations of one training step."""
        return sum(op.flops * count for op, count in self.ops["step"].items()) / self.steps
