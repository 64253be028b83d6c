"""What a run measures: evaluations in its folder, and the strengths that its selection looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from vpo_kit.evaluation import measuring
from vpo_kit.evaluation.samples import Results, SamplePlan, evaluate, finished
from vpo_kit.library.display import count_bar
from vpo_kit.library.equipment import Equipment
from vpo_kit.library.selection import Selected, choose
from vpo_kit.measures import Measure
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.processes import Processes
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward
from vpo_kit.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Measurer:
    """What evaluates the model as it is, all processes together, or takes what a killed run has already measured."""

    model: VideoModel
    run: Path
    console: Console
    processes: Processes
    encode: PromptCache

    def measure(
        self, plan: SamplePlan, judges: Sequence[Reward], measures: Sequence[Measure], place: str, name: str
    ) -> Results | None:
        """The evaluation in ``samples/PLACE``; None where nothing is to be measured."""
        if not plan.prompts:
            return None
        where = self.run / "samples" / place
        if found := self.processes.agree(finished(where, plan)):
            return found
        with count_bar(self.console, name, len(plan.items), "videos") as tick:
            return evaluate(self.model, plan, judges, where, name, tick, measures, self.processes, self.encode)


def select(
    recipe: Recipe, own: Equipment, measurer: Measurer, step: int, notice: Callable[[str], None]
) -> Selected | None:
    """Leave the policy, as it is after `step`, at the strength that is chosen; None where none is."""
    run = recipe.run
    if not run.selection.strengths:
        return None
    if not recipe.selection:
        notice("selection: the method has no reward, so nothing can choose a strength: give selection.reward")
        return None
    plan = SamplePlan(
        inputs=recipe.validation,
        videos_per_prompt=1,
        settings=own.settings,
        batch_size=run.sampling.batch_size,
        seed=run.seed,
    )
    # the run's own is there already; another one is on the GPU only while it scores: training's parts are still there
    reward = own.reward if recipe.selection == recipe.reward else None
    reward = reward or rewards.load(recipe.selection, measurer.model.device, offload=True)

    def measure(strength: float) -> Results:
        own.policy.keep(strength)
        # a run that goes on with more steps has another LoRA at the same strengths
        place = f"strength-{strength:g}" + (f"-{step:06d}" if strength else "")
        found = measurer.measure(plan, reward.parts, measuring.ALWAYS, place, f"x{strength:g}")
        assert found is not None
        return found

    choice = choose(run.selection, reward, measure)
    own.policy.keep(choice.strength)
    notice(f"strength {choice.strength:g}: {choice.reason}")
    return choice
