"""A short run of the real loop on a model that is at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vpo_kit import config
from vpo_kit.methods.base import Method
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.registry import METHODS
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.training.data import Prompts, Source
from vpo_kit.training.loop import OnStep, Report, train
from vpo_kit.training.lora import BEGINNING, POLICY, REFERENCE, LoraPolicy, Start
from vpo_kit.training.run import Assembly, use
from vpo_kit.training.run_folder import RunFolder


def train_briefly(
    model: VideoModel,
    data: Source | Sequence[str],
    folder: Path,
    reward: Mixture | Reward | None = None,
    *,
    kind: type[Method] | None = None,
    start: Start | None = None,
    before: Callable[[LoraPolicy], None] = lambda _: None,
    on_step: OnStep = lambda *_: None,
    on_notice: Callable[[str], None] = lambda _: None,
    **values: Any,
) -> list[Report]:
    """The log of a run with the settings `values` of a recipe, on prompts or another source, from wherever `folder`
    stands; the model is left as it was found.

    `kind` stands in for the class that the recipe's method names, `start` is a LoRA to start from, and `before` is
    called with the policy before the first step; `on_step` and `on_notice` get what a bar would show.
    """
    run = config.build(values)
    policy = LoraPolicy(model, run.lora, run.seed, start)
    own = model.settings
    try:
        before(policy)
        settings = use(model, run.sampling)
        parts = Assembly(run=run, policy=policy, settings=settings, encode=PromptCache(model))
        source: Source = Prompts(data) if isinstance(data, Sequence) else data
        mixture = Mixture([(reward, 1.0)]) if isinstance(reward, Reward) else reward
        method = kind or METHODS.load(run.method_name)
        chosen = method.Config(**{key: value for key, value in run.method.items() if key != "name"})
        job = parts.job(
            method(chosen, parts.context(mixture, source=source)),
            source,
            RunFolder(folder),
            on_step=on_step,
            on_notice=on_notice,
        )
        return train(job).history
    finally:
        model.use(own)
        for network in policy.networks.values():
            network.delete_adapters([name for name in (BEGINNING, REFERENCE, POLICY) if name in network.peft_config])
