"""The one place that puts a run together: model, policy, data, a method and its context, the loop's job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vpo_kit import models
from vpo_kit.config import Model, Run, Sampling
from vpo_kit.inputs import Inputs
from vpo_kit.methods.base import Context, Method
from vpo_kit.models import memory
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import Encode
from vpo_kit.models.settings import Settings
from vpo_kit.processes import Processes
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.training import sampling_lora
from vpo_kit.training.data import Source
from vpo_kit.training.loop import OnStep, RunParts
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.recipe import Recipe
from vpo_kit.training.run_folder import RunFolder
from vpo_kit.training.stream import Stream, split
from vpo_kit.truth import truth_of


def load_model(run: Model, *, late_encoders: bool = True) -> VideoModel:
    """The base model with everything that the settings say of its memory and speed, and the LoRA that samples; its
    encoders of texts and pictures are there while something is encoded, or with `late_encoders` False always. Raises as
    `models.load`.
    """
    sampling_lora.check(run.sampling)
    model = models.load(
        run.model,
        revision=run.revision,
        variant=run.variant,
        dtype=run.dtype,
        attention=run.attention,
        offload=run.offload,
        quantise=run.quantise,
        group_offload=run.group_offload,
        late_encoders=late_encoders,
    )
    if isinstance(run, Run):
        memory.tune(model, gradient_checkpointing=run.gradient_checkpointing, compile=run.compile, **run.pieces)
    else:
        memory.tune(model, **run.pieces)
    sampling_lora.attach(model, run.sampling)
    return model


def use(model: VideoModel, sampling: Sampling) -> Settings:
    """The model's own sampling settings with the recipe's changes; the model has them from here on."""
    return model.use(settings_of(model.settings, sampling))


def settings_of(own: Settings, sampling: Sampling) -> Settings:
    """A model's `own` sampling settings with the recipe's changes."""
    return own.changed(**sampling.model_dump(exclude={"batch_size", "lora", "lora_strength"}))


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """What everything in one run shares: its checked settings, the policy, the sizes that it samples at, the encoder
    of its prompts, and the processes that it runs in.
    """

    run: Run
    policy: LoraPolicy
    settings: Settings
    encode: Encode
    processes: Processes = field(default_factory=Processes)

    def context(
        self,
        reward: Mixture | None = None,
        *,
        judges: Sequence[Reward] = (),
        source: Source | None = None,
        scores: Tensor | None = None,
    ) -> Context:
        """What a method of this run is given: `judges` that may not be trained on are looked at in validation; the
        clip scores ``[N, 2]`` are those of a labelled pair set, or `scores`.
        """
        run = self.run
        return Context(
            policy=self.policy,
            reward=reward,
            sampling=self.settings,
            negative=self.encode([self.settings.negative_prompt]),
            batch_size=run.batch_size,
            sampling_batch_size=run.sampling.batch_size,
            micro_batch_size=run.num_at_once,
            seed=run.seed,
            processes=self.processes,
            scores=getattr(source, "scores", None) if scores is None else scores,
            judges=[judge for judge in judges if not judge.spec.for_training],
            truth=truth_of(self.policy.model, self.settings, source.prompts) if source else None,
        )

    def job(
        self,
        method: Method,
        source: Source,
        folder: RunFolder,
        *,
        on_step: OnStep = lambda *_: None,
        on_notice: Callable[[str], None] = lambda _: None,
        on_sample: Callable[[int], None] = lambda _: None,
    ) -> RunParts:
        """The loop's job: `method` on the items of `source`, a share of them held out where the method has a use for
        them.
        """
        run = self.run
        parts = split(source, _share(run, method), run.seed)
        on_notice(parts.said)
        return RunParts(
            run=run,
            method=method,
            policy=self.policy,
            stream=self._stream(source, parts.items, on_notice),
            held_out=self._stream(source, parts.held[: run.validation.max_items], on_notice) if parts.held else None,
            folder=folder,
            processes=self.processes,
            on_step=on_step,
            on_notice=on_notice,
            on_sample=on_sample,
        )

    def _stream(self, source: Source, items: Sequence[int], on_notice: Callable[[str], None]) -> Stream:
        return _stream(self.run, source, items, self.settings, self.encode, self.processes, on_notice)


def wanted(
    recipe: Recipe, source: Source, settings: Settings, encode: Encode, processes: Processes
) -> list[tuple[str | Inputs, Settings]]:
    """All that a run with videos of `settings` encodes of its data: the items of its batches, if each were trained on
    once, and those that are held out.
    """
    run, method = recipe.run, recipe.method
    parts = split(source, _share(run, method), run.seed)
    stream = _stream(run, source, parts.items, settings, encode, processes)
    held = parts.held[: run.validation.max_items]
    own = _stream(run, source, held, settings, encode, processes).wanted(len(held)) if held else []
    return [*stream.wanted(-(-run.steps // method.updates(recipe.method_config))), *own]


def _share(run: Run, method: type[Method] | Method) -> float:
    """The share of the items that is held out."""
    return run.validation.share if method.needs.validation else 0.0


def _stream(
    run: Run,
    source: Source,
    items: Sequence[int],
    settings: Settings,
    encode: Encode,
    processes: Processes,
    on_notice: Callable[[str], None] = lambda _: None,
) -> Stream:
    return Stream(source, items, run.batch_size, run.seed, encode, processes, settings, on_notice=on_notice)
