"""What a run has in memory before it begins: model, data, prompts, LoRA, reward and judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from vpo_kit.evaluation.samples import SamplePlan
from vpo_kit.library import sources
from vpo_kit.library.display import working
from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.offload import lend_autoencoder
from vpo_kit.models.settings import Settings
from vpo_kit.processes import Processes
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.training import initial
from vpo_kit.training import run as assembly
from vpo_kit.training.data import Source
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """All that a run needs in memory before its first measurement; `encode` has every prompt that is known by now."""

    model: VideoModel
    settings: Settings
    source: Source
    encode: PromptCache
    plan: SamplePlan
    policy: LoraPolicy
    reward: Mixture | None
    judges: Sequence[Reward]


def equip(recipe: Recipe, console: Console, processes: Processes, notice: Callable[[str], None]) -> Equipment:
    """Load it. Prompts are encoded before anything large is added: the text encoder may leave again."""
    run = recipe.run
    with working(console, f"loading {run.model}"):
        model = assembly.load_model(run)
    idle_parts = not recipe.method.needs.decodes(recipe.data)  # the autoencoder and the judges, until they measure
    if idle_parts and not run.offload:
        lend_autoencoder(model)
    settings = assembly.use(model, run.sampling)
    disk = DiskCache(run.cache, notice) if run.cache else None
    source = sources.build(recipe, model, settings, console, processes, disk)
    plan = SamplePlan(
        inputs=recipe.held_out,
        videos_per_prompt=run.evaluation.videos_per_prompt,
        settings=settings,
        batch_size=run.sampling.batch_size,
        seed=run.seed if run.evaluation.seed is None else run.evaluation.seed,
    )
    encode = PromptCache(model, disk)
    with working(console, "encoding prompts"):
        looked_at = [settings.negative_prompt, *plan.inputs, *(recipe.validation if run.selection.strengths else [])]
        trained_on = assembly.wanted(recipe, source, settings, encode, processes)
        encode.ahead([*((item, settings) for item in looked_at), *trained_on], notice)
    policy = LoraPolicy(model, run.lora, run.seed, initial.start(model, run.lora))
    with working(console, "loading the rewards"):
        waits = run.offload or idle_parts
        reward = rewards.load(recipe.reward, model.device, offload=waits) if recipe.reward else None
        judges = [
            *(part for part in (reward.parts if reward else []) if not part.spec.in_groups),
            *rewards.load(recipe.judges, model.device, offload=waits).parts,
        ]
    return Equipment(
        model=model,
        settings=settings,
        source=source,
        encode=encode,
        plan=plan,
        policy=policy,
        reward=reward,
        judges=judges,
    )
