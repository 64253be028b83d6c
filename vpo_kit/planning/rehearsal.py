"""One run rehearsed on a model without weights: prompts, measuring, preparing data, and a cycle of training steps."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import T5EncoderModel, UMT5EncoderModel

from vpo_kit.config import Lora, Run
from vpo_kit.evaluation.samples import SamplePlan, videos
from vpo_kit.methods.base import Batch, Method
from vpo_kit.models import memory, rerun
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoders import EYES, TEXTS
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.group_offload import check_family
from vpo_kit.models.offload import onloaded
from vpo_kit.models.settings import Settings
from vpo_kit.models.small_linear import check_shrinks
from vpo_kit.planning import elsewhere, scoring, skeleton
from vpo_kit.planning.counting import PARTS, MemoryTracker, Op
from vpo_kit.planning.estimate import Estimate, Subject
from vpo_kit.planning.fakes import make_fake
from vpo_kit.planning.placed import PlacedWeights
from vpo_kit.planning.repeats import Known, Repeats
from vpo_kit.planning.stacks import fold, watch
from vpo_kit.planning.stand_ins import PROMPT, StandIns
from vpo_kit.rewards.base import Reward
from vpo_kit.rewards.frames import FrameScorer
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.run import Assembly, use

DRAWS = 3
"""Steps of a method that draws what it looks at (frames, the gradient's length): the largest of them counts."""
FREE = ("gradient_checkpointing", "micro_batch_size", "batch_size", "optimiser")
"""Settings of a run that change how many videos go into a pass without a graph, but not what that costs."""
UNCOUNTED = {
    "rollout_cache": "how many blocks it skips depends on the videos",
    "rollout_dtype": "passes are planned in the model's own precision",
}
"""Settings of a method that change what a pass takes, and that a plan leaves out, with the reason."""


def rehearse(subject: Subject, known: Known | None = None, draws: int = DRAWS) -> Estimate:
    """Build the model without weights and go through the run once, through `draws` steps where it draws what it looks
    at. What passes without a graph cost is put into `known`, and taken from it where it is there from the same run with
    other settings.

    Raises `VpoError` for what would fail in the run.
    """
    run, fake = subject.run, FakeTensorMode(allow_non_fake_inputs=True)
    model = skeleton.build(run.model, fake, revision=run.revision, dtype=run.dtype)
    memory.tune(model, gradient_checkpointing=run.gradient_checkpointing, **run.pieces)
    check_family(run.group_offload, model)
    check_shrinks(model, run.quantise)
    settings = use(model, run.sampling)
    blocks = _folded(model, run.lora)
    policy = LoraPolicy(model, run.lora, run.seed)
    if run.lora.init is not None or subject.method.moves_reference(subject.method_config):
        policy.refresh_reference(0.0)  # sooner or later there is a second LoRA
    reward = scoring.build(subject.reward) if subject.reward else None
    judges = [*(reward.parts if reward else []), *scoring.build(subject.judges).parts]
    for module in (*model.networks.values(), *judges):
        make_fake(module, fake)
    with warnings.catch_warnings():  # torch looks at the gradient of every tensor that it makes a fake of
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        return _Rehearsal(
            subject, model, settings, policy, judges, MemoryTracker(fake), blocks, {} if known is None else known
        ).run(reward, draws)


def _folded(model: VideoModel, lora: Lora) -> dict[nn.Module, int]:
    """The blocks that stand for several; none where the LoRA is only in some of them."""
    found: dict[nn.Module, int] = {}
    if not any(letter.isdigit() for target in lora.targets or () for letter in target):
        for network in model.networks.values():
            found |= fold(network)
    for part in model.pipeline.components.values():
        if isinstance(part, T5EncoderModel | UMT5EncoderModel):
            found |= fold(part.encoder)
    return found


def _about(run: Run) -> str:
    """All of a run that the cost of a pass without a graph may depend on, beside what goes into it."""
    return run.model_dump_json(exclude={**dict.fromkeys(FREE, True), "sampling": {"batch_size"}})


class _Rehearsal:
    """The parts of one rehearsal; what it changes in them is never used again."""

    def __init__(
        self,
        subject: Subject,
        model: VideoModel,
        settings: Settings,
        policy: LoraPolicy,
        judges: Sequence[Reward],
        tracker: MemoryTracker,
        blocks: dict[nn.Module, int],
        known: Known,
    ) -> None:
        self.subject, self.model, self.settings = subject, model, settings
        self.policy, self.judges, self.tracker = policy, judges, tracker
        self.repeats = Repeats(tracker, policy, known, _about(subject.run))
        self.notes: list[str] = []
        self.phases: dict[str, dict[str, int]] = {}
        self.ops: dict[str, Counter[Op]] = {}
        self._blocks = blocks
        self._weights = PlacedWeights(subject, model, policy, judges, tracker, blocks)
        self._data = StandIns(subject, model, settings, tracker.fake, self.notes)
        self._watch()

    def run(self, reward: Any, draws: int) -> Estimate:
        run = self.subject.run
        with self.tracker, rerun.by(self.repeats.again):
            encode = PromptCache(self.model)
            self._phase("prompts", lambda: self._data.encode(encode))
            self._weights.arrive()
            if self.subject.most_measured:
                self._phase("measure", lambda: self._measure(encode))
            parts = Assembly(run=run, policy=self.policy, settings=self.settings, encode=encode)
            context = parts.context(reward, judges=self.judges, scores=torch.rand(64, 2))
            method = self.subject.method(self._method_config(), context)
            count = method.updates_per_batch * (draws if method.needs.reward == "differentiable" else 1)
            batch = self._phase("data", lambda: self._data.batch(encode))
            optimiser = torch.optim.AdamW(self.policy.parameters)
            self._begin(optimiser)
            self.repeats.rows = 0
            self._phase("step", lambda: self._steps(count, method, batch, optimiser))
        passes = self.repeats.rows / count
        return Estimate(
            settings=self.settings,
            parameters=self._weights.parameters,
            phases=self.phases,
            ops=self.ops,
            passes=passes,
            steps=count,
            notes=self.notes,
            judging=scoring.costs(self.subject, self.settings, method),
        )

    def _watch(self) -> None:
        """Put what the model and the judges make into their parts, and let equal passes run once."""
        model: Any = self.model
        watch(self._blocks, self.tracker)
        if self._weights.waiting:
            elsewhere.swap(model, self._weights.waiting, self.tracker)
        components = model.pipeline.components
        texts, eyes = (
            [part for name, part in components.items() if name.startswith(begin) and part is not None]
            for begin in (TEXTS, EYES)
        )
        model.predict = self.repeats.predict(model.predict)
        autoencoder = components["vae"]
        for name in ("_encode", "_decode"):
            if hasattr(autoencoder, name):  # slices are alike
                setattr(autoencoder, name, self.repeats.once(f"vae{name}", getattr(autoencoder, name)))
        for name in ("encoder", "decoder"):
            if hasattr(autoencoder, name):  # of a causal one many calls are alike, and all tiles but those at edges
                self.repeats.remembering(f"vae.{name}", getattr(autoencoder, name))
        vae = [autoencoder] if self._weights.decoder_comes else []
        model.decode_clip = self._loaded(vae, model.decode_clip)
        model.decode = self._inside("autoencoder", self.repeats.once("decode", model.decode))
        model.look = self._inside("autoencoder", self.repeats.once("look", model.look))
        model.encode = self._inside("autoencoder", self._loaded(vae, model.encode))
        model.encode_prompts = self._inside(
            "text", self.repeats.once("prompts", self._loaded(texts, model.encode_prompts), always=True)
        )
        model.encode_images = self._inside("text", self._loaded(eyes, model.encode_images))
        for number, judge in enumerate(self.judges):
            if judge.spec.in_groups:  # its cost is counted in comparisons
                judge.among = scoring.compared  # type: ignore[method-assign]
                continue
            for name, part in judge.named_children():
                if isinstance(part, FrameScorer):  # which sees one video at a time on processors
                    part.forward = self.repeats.once(f"judge {number} {name}", part.forward)  # type: ignore[method-assign]
            loaded = self._loaded([judge] if self._weights.decoder_comes else [], judge.forward)
            forward = self.repeats.once(f"judge {number}", loaded)
            judge.forward = self._inside("reward", scoring.tried(judge, forward, self.notes))  # type: ignore[method-assign]

    def _loaded(self, parts: list[nn.Module], call: Callable[..., Any]) -> Callable[..., Any]:
        """Run `call`, with the weights of `parts`, which wait elsewhere, on the device for it, as in a real run."""
        if not parts:
            return call

        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            with onloaded(parts, self.model.device, lambda tensor, _: self._weights.arrived(tensor)):
                return call(*args, **kwargs)

        return run

    def _inside(self, part: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.tracker.scope(part):
                return call(*args, **kwargs)

        return run

    def _phase(self, name: str, run: Callable[[], Any]) -> Any:
        with self.tracker.phase() as peak:
            result, self.ops[name] = self.tracker.counted(run)
        self.phases[name] = {part: peak[part] for part in PARTS}
        return result

    def _measure(self, encode: PromptCache) -> None:
        """One batch of the evaluation before training, or of the selection's."""
        run = self.subject.run
        texts = [self.model.example(PROMPT)] * self.subject.most_measured
        plan = SamplePlan(
            inputs=texts, videos_per_prompt=1, settings=self.settings, batch_size=run.sampling.batch_size, seed=0
        )
        with self.policy.reference():
            for items, video in videos(self.model, plan, plan.batches[:1], encode):
                with torch.no_grad():
                    for judge in (one for one in self.judges if not one.spec.in_groups):
                        judge(video, [PROMPT] * len(items), fps=self.settings.fps)

    def _method_config(self) -> Any:
        """The method's settings, but for what goes by the data of a pass, which is not there."""
        found = self.subject.method_config
        given = [name for name in UNCOUNTED if getattr(found, name, None) is not None]
        self.notes += [f"method.{name} is not counted: {UNCOUNTED[name]}" for name in given]
        return found.model_copy(update=dict.fromkeys(given))

    def _begin(self, optimiser: torch.optim.Optimizer) -> None:
        """The optimiser's own tensors, which it makes in its first step, are there from now on."""
        with self.tracker.scope("lora"):
            for parameter in self.policy.parameters:
                parameter.grad = torch.zeros_like(parameter)
            optimiser.step()
        optimiser.zero_grad()
        eight = self.subject.run.optimiser.name == "adamw_8bit"
        for parameter in self.policy.parameters:
            for value in optimiser.state[parameter].values():
                self._weights.adopt_of(parameter, [value], 0.25 if eight and value.numel() >= 4096 else 1.0)

    def _steps(self, count: int, method: Method, batch: Batch, optimiser: torch.optim.Optimizer) -> None:
        for step in range(count):
            self._update(method, batch.at(step), optimiser)

    def _update(self, method: Method, batch: Batch, optimiser: torch.optim.Optimizer) -> None:
        with elsewhere.kept_nowhere() if self.subject.run.activation_offload else nullcontext():
            output = method.step(batch)
            if output.parts is None:
                assert output.loss is not None
                output.loss.backward()  # type: ignore[no-untyped-call]
            else:
                self.repeats.backward(iter(output.parts))
        del output
        with self.tracker.scope("lora"):
            torch.nn.utils.clip_grad_norm_(self.policy.parameters, 1.0)
            optimiser.step()
        optimiser.zero_grad()
