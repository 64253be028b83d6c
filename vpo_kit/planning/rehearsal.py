"""One run rehearsed on a model without weights: prompts, measuring, preparing data, and a cycle of training steps."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import T5EncoderModel, UMT5EncoderModel

from vpo_kit.config import Lora, Run
from vpo_kit.evaluation.samples import SamplePlan, videos
from vpo_kit.methods.base import Batch, Method
from vpo_kit.models import memory, rerun
from vpo_kit.models.base import Settings, VideoModel, stacks
from vpo_kit.models.buckets import parse
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.encoders import EYES, TEXTS
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.group_offload import check_family
from vpo_kit.models.offload import onloaded
from vpo_kit.models.small_linear import BYTES, check_shrinks
from vpo_kit.planning import elsewhere, scoring, skeleton
from vpo_kit.planning.counting import PARTS, MemoryTracker, Op
from vpo_kit.planning.estimate import Estimate, Subject
from vpo_kit.planning.fakes import make_fake
from vpo_kit.planning.repeats import Known, Repeats
from vpo_kit.planning.stacks import fold, watch
from vpo_kit.rewards.base import Reward
from vpo_kit.rewards.frames import FrameScorer
from vpo_kit.training import sampling_lora
from vpo_kit.training.lora import POLICY, REFERENCE, LoraPolicy
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
STAND_IN = "a red circle moving right slowly"


def rehearse(subject: Subject, known: Known | None = None, draws: int = DRAWS) -> Estimate:
    """Build the model without weights and go through the run once, through `draws` steps where it draws what it looks
    at. What passes without a graph cost is put into `known`, and taken from it where it is there from the same run with
    other settings.

    Raises `VpoError` for what would fail in the run.
    """
    run, fake = subject.run, FakeTensorMode(allow_non_fake_inputs=True)
    model = skeleton.build(run.model, fake, revision=run.revision, dtype=run.dtype)
    memory.tune(model, gradient_checkpointing=run.gradient_checkpointing, vae=run.vae)
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
        self._times = {id(tensor): count for block, count in blocks.items() for tensor in _tensors(block)}
        self._comes = subject.run.offload or not subject.method.needs.decodes(subject.data)
        self._waiting = elsewhere.waiting(model) if subject.run.group_offload else set[int]()
        self._coming: list[tuple[Tensor, str, float]] = []
        self.parameters = self._adopt()
        self._watch()

    def run(self, reward: Any, draws: int) -> Estimate:
        run = self.subject.run
        with self.tracker, rerun.by(self.repeats.again):
            encode = PromptCache(self.model)
            self._phase("prompts", lambda: self._encode(encode))
            self._arrive()
            if self.subject.measured:
                self._phase("measure", lambda: self._measure(encode))
            parts = Assembly(run=run, policy=self.policy, settings=self.settings, encode=encode)
            context = parts.context(reward, judges=self.judges, scores=torch.rand(64, 2))
            method = self.subject.method(self._method_config(), context)
            count = method.updates_per_batch * (draws if method.needs.reward == "differentiable" else 1)
            batch = self._phase("data", lambda: self._batch(encode))
            optimiser = torch.optim.AdamW(self.policy.parameters)
            self._begin(optimiser)
            self.repeats.rows = 0
            self._phase("step", lambda: self._steps(count, method, batch, optimiser))
        passes = self.repeats.rows / count
        return Estimate(
            settings=self.settings,
            parameters=self.parameters,
            phases=self.phases,
            ops=self.ops,
            passes=passes,
            steps=count,
            notes=self.notes,
            judging=scoring.costs(self.subject, self.settings, method),
        )

    def _adopt(self) -> dict[str, int]:
        """Hand all weights to their parts, and count them; those that are offloaded take nothing while they wait, nor
        do encoders, which leave, and the networks, LoRA and judges, which come when they have left (`_arrive`).
        """
        run, counts = self.subject.run, Counter[str]()
        for name, part in self.model.pipeline.components.items():
            if not isinstance(part, nn.Module):
                continue
            kind = "weights" if name in self.model.networks else "autoencoder" if name == "vae" else "text"
            small = _linear(part, run.quantise) if kind == "weights" else set[int]()
            for key, tensor in (*part.named_parameters(), *part.named_buffers()):
                own = "lora" if f".{POLICY}." in key else "reference" if f".{REFERENCE}." in key else kind
                times = self._times.get(id(tensor), 1)
                size = BYTES[run.quantise] / tensor.element_size() if id(tensor) in small else 1.0
                share = times * size
                stays = kind == "autoencoder" and not self._comes
                self.tracker.adopt([tensor], own, share if stays else 0.0)  # type: ignore[arg-type]
                there = kind == "weights" and id(tensor) not in self._waiting
                self._coming += [(tensor, own, share)] if there else []
                counts[own] += tensor.numel() * times
        if self.model.preview is not None:
            decoder = list(self.model.preview.parameters())
            self.tracker.adopt(decoder, "autoencoder")
            counts["autoencoder"] += sum(tensor.numel() for tensor in decoder)
        if run.sampling.lora is not None:
            with self.tracker.fake:
                sampler = torch.empty(sampling_lora.size(run.sampling.lora), dtype=getattr(torch, run.dtype))
            self._coming.append((sampler, "weights", 1.0))
        for judge in self.judges:
            tensors = [*judge.parameters(), *judge.buffers()]
            self.tracker.adopt(tensors, "reward", 0.0)
            self._coming += [] if self._comes else [(tensor, "reward", 1.0) for tensor in tensors]
            counts["reward"] += sum(tensor.numel() for tensor in tensors)
        for parameter in self.policy.parameters:
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda p: self._adopt_of(p, [p.grad] if p.grad is not None else [])
            )
        return {part: counts[part] for part in PARTS if counts[part]}

    def _adopt_of(self, parameter: Tensor, tensors: Sequence[Tensor], share: float = 1.0) -> None:
        """What training keeps of a LoRA's parameter: as often as its block stands for."""
        self.tracker.adopt(tensors, "lora", share * self._times.get(id(parameter), 1))

    def _arrive(self) -> None:
        """What waited for the encoders to leave is there from now on."""
        for tensor, part, share in self._coming:
            self.tracker.adopt([tensor], part, share)  # type: ignore[arg-type]

    def _watch(self) -> None:
        """Put what the model and the judges make into their parts, and let equal passes run once."""
        model: Any = self.model
        watch(self._blocks, self.tracker)
        if self._waiting:
            elsewhere.swap(model, self._waiting, self.tracker)
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
        vae = [autoencoder] if self._comes else []
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
            loaded = self._loaded([judge] if self._comes else [], judge.forward)
            forward = self.repeats.once(f"judge {number}", loaded)
            judge.forward = self._inside("reward", scoring.tried(judge, forward, self.notes))  # type: ignore[method-assign]

    def _loaded(self, parts: list[nn.Module], call: Callable[..., Any]) -> Callable[..., Any]:
        """Run `call`, with the weights of `parts`, which wait elsewhere, on the device for it, as in a real run."""
        if not parts:
            return call

        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            with onloaded(parts, self.model.device, lambda tensor, _: self._arrived(tensor)):
                return call(*args, **kwargs)

        return run

    def _arrived(self, tensor: Tensor) -> Tensor:
        """A copy, which is as large as those of all blocks that its own stands for."""
        copy = elsewhere.copied(tensor)
        self.tracker.adopt([copy], None, self._times.get(id(tensor), 1))
        return copy

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

    def _encode(self, encode: PromptCache) -> Conditions:
        """What the batch is made from, after all that is encoded beside it."""
        encode([self.settings.negative_prompt])
        if self.subject.measured:
            encode([self.model.example(STAND_IN)])
        return encode([self.model.example(prompt) for prompt in self._prompts], self._largest)

    @property
    def _prompts(self) -> list[str]:
        return [f"{STAND_IN} {i}" for i in range(-(-self.subject.run.batch_size // self.subject.processes))]

    def _measure(self, encode: PromptCache) -> None:
        """One batch of the evaluation before training."""
        run = self.subject.run
        texts = [self.model.example(STAND_IN)] * self.subject.measured
        plan = SamplePlan(
            inputs=texts, videos_per_prompt=1, settings=self.settings, batch_size=run.sampling.batch_size, seed=0
        )
        with self.policy.reference():
            for items, video in videos(self.model, plan, plan.batches[:1], encode):
                with torch.no_grad():
                    for judge in (one for one in self.judges if not one.spec.in_groups):
                        judge(video, [STAND_IN] * len(items), fps=self.settings.fps)

    def _batch(self, encode: PromptCache) -> Batch:
        """A full batch of whatever the method learns from."""
        s, prompts, conditions = self._largest, self._prompts, self._encode(encode)
        size, shape = len(prompts), self.model.latent_shape(*s.size)
        numbers, tensors = list(range(size)), dict[str, Tensor]()
        if self.subject.data == "videos":
            with self.tracker.fake:
                clip = torch.empty(1, s.frames, 3, s.height, s.width)
            self.model.encode(clip)
        if self.subject.data != "prompts":
            tensors = {name: torch.zeros(size, *shape) for name in ("first", "second", "clip")}
            tensors |= {"labels": torch.ones(size, shape[1]), "label": torch.ones(size), "motion": torch.ones(size, 2)}
        if self.subject.data == "videos" and self.subject.method.needs.ratings:
            tensors |= {name: torch.ones(size) for name in ("rating", "standing", "middle")}
        return Batch(
            step=0,
            settings=s,
            prompts=prompts,
            conditions=conditions,
            positions=numbers,
            indices=numbers,
            visits=[0] * size,
            tensors=tensors,
        )

    def _method_config(self) -> Any:
        """The method's settings, but for what goes by the data of a pass, which is not there."""
        found = self.subject.method_config
        given = [name for name in UNCOUNTED if getattr(found, name, None) is not None]
        self.notes += [f"method.{name} is not counted: {UNCOUNTED[name]}" for name in given]
        return found.model_copy(update=dict.fromkeys(given))

    @cached_property
    def _largest(self) -> Settings:
        """The settings of a batch of the largest bucket, which is what has to fit."""
        buckets = [parse(words) for words in self.subject.run.data.buckets]
        if not buckets:
            return self.settings
        found = max(buckets, key=math.prod)
        self.notes.append(f"planned for the largest of {len(buckets)} buckets, {found}")
        return self.settings.sized(found)

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
                self._adopt_of(parameter, [value], 0.25 if eight and value.numel() >= 4096 else 1.0)

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


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _linear(network: nn.Module, kind: str) -> set[int]:
    """The weights that quantisation of this kind makes small, by their ids: int8 those of all linear layers, fp8 and
    nf4 those in the stacks.
    """
    if kind == "none":
        return set()
    parts = [network] if kind == "int8" else stacks(network).values()
    named = [one for part in parts for one in part.named_modules() if "lora_" not in one[0]]
    return {id(layer.weight) for _, layer in named if isinstance(layer, nn.Linear)}
