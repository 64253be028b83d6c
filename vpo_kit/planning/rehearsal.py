"""One run rehearsed on a model without weights: measuring, preparing data, and a cycle of training steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vpo_kit.config import Run
from vpo_kit.evaluation.evaluate import Plan as Measurement
from vpo_kit.evaluation.evaluate import videos
from vpo_kit.methods.base import Batch, Context, Method, MethodConfig
from vpo_kit.models import memory
from vpo_kit.models.base import Conditions, Settings, VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.offload import OFFLOADED, onloaded
from vpo_kit.planning import skeleton
from vpo_kit.planning.tracker import PARTS, Op, Tracker, make_fake
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.training.lora import POLICY, REFERENCE, LoraPolicy

STAND_IN = "a red circle moving right slowly"


@dataclass(frozen=True)
class Subject:
    """What is planned: a checked run, with the classes that it names."""

    run: Run
    method: type[Method]
    method_config: MethodConfig
    reward: list[rewards.Plan]
    judges: list[rewards.Plan]
    data: str
    measured: int = 0
    """Videos of one measurement, before or after training."""
    processes: int = 1


@dataclass(frozen=True)
class Estimate:
    """What a run needs, for each process. Bytes at the peak of each phase, by part; operators of each phase.

    `parameters` are numbers of weights; `passes` are videos through the network in one step, `cycle` how many steps
    the phase "step" holds.
    """

    settings: Settings
    parameters: dict[str, int]
    phases: dict[str, dict[str, int]]
    ops: dict[str, Counter[Op]]
    passes: float
    cycle: int
    notes: list[str] = field(default_factory=list)

    @property
    def worst(self) -> str:
        """The phase with the highest peak."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def peak(self) -> int:
        """Bytes."""
        return sum(self.phases[self.worst].values())

    @property
    def flops(self) -> float:
        """Floating point operations of one training step."""
        return sum(op.flops * count for op, count in self.ops["step"].items()) / self.cycle


def rehearse(subject: Subject) -> Estimate:
    """Build the model without weights and go through the run once. Raises `VpoError` for what would fail in it."""
    run, fake = subject.run, FakeTensorMode(allow_non_fake_inputs=True)
    model = skeleton.build(run.model, fake, revision=run.revision, dtype=run.dtype)
    memory.tune(model, gradient_checkpointing=run.gradient_checkpointing, vae=run.vae)
    settings = model.settings.changed(**run.sampling.model_dump(exclude={"batch_size"}))
    model.latent_shape(settings.frames, settings.height, settings.width)
    policy = LoraPolicy(model, run.lora, run.seed)
    if run.lora.init is not None or getattr(subject.method_config, "reference_update", "never") != "never":
        policy.refresh_reference(0.0)  # sooner or later there is a second LoRA
    reward = _judges(subject.reward) if subject.reward else None
    judges = [*(reward.parts if reward else []), *_judges(subject.judges).parts]
    for module in (*model.networks.values(), *judges):
        make_fake(module, fake)
    return _Rehearsal(subject, model, settings, policy, judges, Tracker(fake)).run(reward)


def _judges(plans: Sequence[rewards.Plan]) -> Mixture:
    return Mixture([(plan.kind(plan.config), plan.weight) for plan in plans]).requires_grad_(False).eval()


class _Rehearsal:
    """The parts of one rehearsal; what it changes in them is never used again."""

    def __init__(
        self,
        subject: Subject,
        model: VideoModel,
        settings: Settings,
        policy: LoraPolicy,
        judges: Sequence[Reward],
        tracker: Tracker,
    ) -> None:
        self.subject, self.model, self.settings = subject, model, settings
        self.policy, self.judges, self.tracker = policy, judges, tracker
        self.rows = 0
        self._skims = False
        self.phases: dict[str, dict[str, int]] = {}
        self.ops: dict[str, Counter[Op]] = {}
        self._passes: dict[Any, tuple[Counter[str], Counter[Op], Any]] = {}
        self.parameters = self._adopt()
        self._watch()

    def run(self, reward: Any) -> Estimate:
        run, cycle = self.subject.run, 1
        with self.tracker:
            if self.subject.measured:
                self._phase("measure", self._measure)
            encode = PromptCache(self.model)
            negative = encode([self.settings.negative_prompt])
            context = Context(
                self.policy, reward, self.settings, negative, run.sampling.batch_size, run.seed,
                scores=torch.rand(64, 2),
                judges=[judge for judge in self.judges if not judge.spec.for_training],
            )  # fmt: skip
            method = self.subject.method(self.subject.method_config, context)
            cycle = method.updates_per_batch
            batch = self._phase("data", lambda: self._batch(encode))
            optimiser = torch.optim.AdamW(self.policy.parameters, lr=run.optimiser.lr)
            self._begin(optimiser)
            self.rows = 0
            self._phase("step", lambda: self._cycle(method, batch, optimiser))
        return Estimate(self.settings, self.parameters, self.phases, self.ops, self.rows / cycle, cycle)

    def _adopt(self) -> dict[str, int]:
        """Hand all weights to their parts, and count them; those that are offloaded take nothing while they wait."""
        run, counts = self.subject.run, Counter[str]()
        for name, part in self.model.pipeline.components.items():
            if not isinstance(part, nn.Module):
                continue
            kind = "weights" if name in self.model.networks else "autoencoder" if name == "vae" else "text"
            small = _linear(part) if kind == "weights" and run.quantise == "int8" else set()
            for key, tensor in (*part.named_parameters(), *part.named_buffers()):
                own = "lora" if f".{POLICY}." in key else "reference" if f".{REFERENCE}." in key else kind
                share = 1 / tensor.element_size() if id(tensor) in small else 1.0
                away = run.offload and name.startswith(OFFLOADED)
                self.tracker.adopt([tensor], own, 0.0 if away else share)  # type: ignore[arg-type]
                counts[own] += tensor.numel()
        for judge in self.judges:
            tensors = [*judge.parameters(), *judge.buffers()]
            self.tracker.adopt(tensors, "reward", 0.0 if run.offload else 1.0)
            counts["reward"] += sum(tensor.numel() for tensor in tensors)
        for parameter in self.policy.parameters:
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda p: self.tracker.adopt([p.grad] if p.grad is not None else [], "lora")
            )
        return {part: counts[part] for part in PARTS if counts[part]}

    def _watch(self) -> None:
        """Put what the model and the judges make into their parts, and let equal passes run once."""
        model: Any = self.model
        components = model.pipeline.components
        texts = [part for name, part in components.items() if name.startswith("text_encoder") and part is not None]
        model.predict = self._once(model.predict)
        model.decode_clip = self._loaded([components["vae"]], model.decode_clip)
        model.decode = self._inside("autoencoder", self._once(model.decode))
        model.encode = self._inside("autoencoder", self._loaded([components["vae"]], model.encode))
        model.encode_prompts = self._inside("text", self._once(self._loaded(texts, model.encode_prompts), always=True))
        for judge in self.judges:
            forward = self._once(self._loaded([judge], judge.forward))
            judge.forward = self._inside("reward", forward)  # type: ignore[method-assign]

    def _loaded(self, parts: list[nn.Module], call: Callable[..., Any]) -> Callable[..., Any]:
        """With `offload`, the weights of `parts` are copied to the device for `call`, as in a real run."""
        if not self.subject.run.offload:
            return call

        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            with onloaded(parts, self.model.device, lambda tensor, _: _copied(tensor)):
                return call(*args, **kwargs)

        return run

    def _inside(self, part: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.tracker.scope(part):
                return call(*args, **kwargs)

        return run

    def _once(self, call: Callable[..., Any], always: bool = False) -> Callable[..., Any]:
        """`call`, but where no graph is built (or `always`), one with shapes that were seen before is only accounted
        for.
        """
        predicts = call.__name__ == "predict"

        def run(*args: Any, **kwargs: Any) -> Any:
            if predicts:
                self.rows += len(args[0])
            if torch.is_grad_enabled() and not always:
                return self._stand_in(args[0]) if self._skims and predicts else call(*args, **kwargs)
            key = (call, self._state(args[1]) if predicts else None, *(_shape(a) for a in (*args, *kwargs.values())))
            if key not in self._passes:
                before = Counter(self.tracker.live)
                with self.tracker.phase() as peak:
                    result, ops = self.tracker.counted(lambda: call(*args, **kwargs))
                growth = Counter(peak)
                growth.subtract(before)
                self._passes[key] = growth, ops, _outline(result)
                return result
            growth, ops, known = self._passes[key]
            self.tracker.replay(growth, ops)
            return _made(known, self.tracker.fake)

        return run

    def _stand_in(self, like: Tensor) -> Tensor:
        """As `like`, with a graph that is as good as empty."""
        return torch.empty_like(like) * self.policy.parameters[0].flatten()[0]

    def _state(self, time: Tensor) -> Any:
        """Which network runs for how many rows, and with which adapter."""
        found: list[Any] = []
        for name, network in self.model.networks.items():
            layer = next((m for m in network.modules() if isinstance(m, BaseTunerLayer)), None)
            adapter = None if layer is None else (layer.disable_adapters, tuple(layer.active_adapters))
            found.append((int(self.model.belongs(time, name).sum()), adapter))
        return tuple(found)

    def _phase(self, name: str, run: Callable[[], Any]) -> Any:
        with self.tracker.phase() as peak:
            result, self.ops[name] = self.tracker.counted(run)
        self.phases[name] = {part: peak[part] for part in PARTS}
        return result

    def _measure(self) -> None:
        """One batch of the evaluation before training."""
        run = self.subject.run
        plan = Measurement([STAND_IN] * self.subject.measured, 1, self.settings, run.sampling.batch_size, 0)
        with self.policy.reference():
            for items, video in videos(self.model, plan, plan.batches[:1]):
                with torch.no_grad():
                    for judge in self.judges:
                        judge(video, [STAND_IN] * len(items), fps=self.settings.fps)

    def _batch(self, encode: PromptCache) -> Batch:
        """A full batch of whatever the method learns from."""
        size = -(-self.subject.run.batch_size // self.subject.processes)
        shape = self.model.latent_shape(self.settings.frames, self.settings.height, self.settings.width)
        prompts = [f"{STAND_IN} {i}" for i in range(size)]
        conditions: Conditions = encode(prompts)
        numbers, tensors = list(range(size)), dict[str, Tensor]()
        if self.subject.data == "videos":
            s = self.settings
            with self.tracker.fake:
                clip = torch.empty(1, s.frames, 3, s.height, s.width)
            self.model.encode(clip)
        if self.subject.data != "prompts":
            tensors = {name: torch.zeros(size, *shape) for name in ("first", "second", "clip")}
            tensors |= {"labels": torch.ones(size, shape[1]), "label": torch.ones(size)}
        return Batch(0, prompts, conditions, numbers, numbers, [0] * size, tensors)

    def _begin(self, optimiser: torch.optim.Optimizer) -> None:
        """The optimiser's own tensors, which it makes in its first step, are there from now on."""
        with self.tracker.scope("lora"):
            for parameter in self.policy.parameters:
                parameter.grad = torch.zeros_like(parameter)
            optimiser.step()
        optimiser.zero_grad()
        if self.subject.run.optimiser.name == "adamw_8bit":
            averages = [value for state in optimiser.state.values() for value in state.values()]
            self.tracker.adopt([value for value in averages if value.numel() >= 4096], "lora", 0.25)

    def _cycle(self, method: Method, batch: Batch, optimiser: torch.optim.Optimizer) -> None:
        for step in range(method.updates_per_batch):
            self._update(method, batch.at(step), optimiser)

    def _update(self, method: Method, batch: Batch, optimiser: torch.optim.Optimizer) -> None:
        output = method.step(batch)
        if output.parts is None:
            output.loss.backward()  # type: ignore[no-untyped-call]
        else:
            self._backward(iter(output.parts))
        del output
        with self.tracker.scope("lora"):
            torch.nn.utils.clip_grad_norm_(self.policy.parameters, 1.0)
            optimiser.step()
        optimiser.zero_grad()

    def _backward(self, parts: Iterator[Tensor]) -> None:
        """One part after the other. They are alike: the first two are run, and the others accounted for like them."""

        def one() -> bool:
            part = next(parts, None)
            if part is not None:
                part.backward()  # type: ignore[no-untyped-call]
            return part is not None

        number, known = 0, Counter[Op]()
        while True:
            self._skims = number >= 2
            more, ops = self.tracker.counted(one)
            if not more:
                break
            if self._skims:
                self.tracker.ops.update(known)
            number, known = number + 1, known if self._skims else ops
        self._skims = False


def _linear(network: nn.Module) -> set[int]:
    """The weights that int8 keeps as integers, by their ids."""
    layers = [
        module for name, module in network.named_modules() if isinstance(module, nn.Linear) and "lora_" not in name
    ]
    return {id(layer.weight) for layer in layers}


def _copied(tensor: Tensor) -> Tensor:
    copy = torch.empty_like(tensor, requires_grad=False)
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy


def _outline(result: Any) -> Any:
    """What `_made` makes another one of; nothing of a result is kept alive, but for the few numbers of a reward."""
    if isinstance(result, Conditions):
        return {name: _outline(tensor) for name, tensor in result.tensors.items()}
    return (result.shape, result.dtype) if isinstance(result, FakeTensor) else result


def _made(outline: Any, fake: FakeTensorMode) -> Any:
    if isinstance(outline, dict):
        return Conditions({name: _made(part, fake) for name, part in outline.items()})
    if not isinstance(outline, tuple):
        return outline.clone() if isinstance(outline, Tensor) else outline
    with fake:
        return torch.empty(outline[0], dtype=outline[1])


def _shape(value: Any) -> Any:
    """What the cost of a pass depends on: shapes, and numbers of words."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, Conditions):
        return tuple((name, tuple(tensor.shape)) for name, tensor in value.tensors.items())
    if isinstance(value, str):
        return len(value.split())
    return tuple(map(_shape, value)) if isinstance(value, Sequence) else value
