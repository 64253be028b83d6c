"""A real architecture with random weights on the card, and what a training step of it needs, as `vpo train` has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from benchmarks.gpu_day.cases import TEXT
from vpo_kit.methods.base import Batch, Method
from vpo_kit.models import memory
from vpo_kit.models.attention import check_attention, check_family, set_attention
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.offload import lend_autoencoder
from vpo_kit.models.settings import Settings
from vpo_kit.planning.estimate import Subject
from vpo_kit.planning.published import PUBLISHED
from vpo_kit.planning.skeleton import cast
from vpo_kit.registry import MODELS
from vpo_kit.rewards.base import Mixture
from vpo_kit.training import optimisers
from vpo_kit.training.loop import backward
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.run import Assembly, use

PROMPT = "a red circle moving right slowly"
Smaller = Mapping[str, Mapping[str, Any]]
"""What of the configuration of some components is to be another, in a rehearsal; else nothing."""


@dataclass
class Bench:
    """One configuration, ready to step."""

    model: VideoModel
    policy: LoraPolicy
    method: Method
    batch: Batch
    optimiser: torch.optim.Optimizer

    finite: bool = True
    """Whether all losses and gradients so far were: random weights need not give such, and are timed all the same."""

    def step(self) -> None:
        """A whole optimiser step."""
        loss = backward(self.method.step(self.batch))
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.finite &= bool(norm.isfinite() and loss.isfinite())


def build(subject: Subject, device: torch.device, smaller: Smaller) -> Bench:
    """Raises `ConfigError` for what cannot run here."""
    run = subject.run
    check_attention(run.attention, run.dtype)
    model = network_of(run.model, device, getattr(torch, run.dtype), smaller)
    check_family(run.attention, type(model.pipeline).__name__)
    if run.attention != "auto":
        set_attention(model, run.attention)
    memory.tune(model, gradient_checkpointing=run.gradient_checkpointing, compile=run.compile, vae=run.vae)
    if not subject.method.needs.decodes(subject.data):
        lend_autoencoder(model)
    settings = use(model, run.sampling)
    policy = LoraPolicy(model, run.lora, run.seed)
    if getattr(subject.method_config, "reference_update", "never") != "never":
        policy.refresh_reference(0.0)  # as the plan has it: sooner or later there is a second LoRA
    reward = judges_of(subject, device) if subject.reward else None
    text = text_of(run.model, model, run.batch_size)
    parts = Assembly(run=run, policy=policy, settings=settings, encode=lambda prompts: text[: len(prompts)])
    method = subject.method(subject.method_config, parts.context(reward))
    optimiser = optimisers.build(run.optimiser.model_copy(update={"lr": 1e-5}), policy.groups)
    return Bench(model, policy, method, batch_of(model, settings, text, subject.data), optimiser)


def network_of(name: str, device: torch.device, dtype: torch.dtype, smaller: Smaller) -> VideoModel:
    """The production adapter over a pipeline of random weights, made where they stay, without a text encoder."""
    family, makers = PUBLISHED[name]()
    parts: dict[str, Any] = {"text_encoder": None}
    for key, make in makers.items():
        if key in ("transformer", "vae"):
            parts[key] = _made(make, device, smaller.get(key))
            cast(parts[key], dtype)
        elif key != "text_encoder":
            parts[key] = make()
    adapter: Callable[..., VideoModel] = MODELS.load(family)
    return adapter(getattr(diffusers, family)(**parts), None, name)


def _made(make: Callable[[], nn.Module], device: torch.device, changes: Mapping[str, Any] | None) -> nn.Module:
    if changes is None:
        with device:
            return make()
    with torch.device("meta"):
        whole: Any = make()
    config = {key: value for key, value in whole.config.items() if not key.startswith("_")}
    with device:
        small: nn.Module = type(whole)(**config | changes)
    return small


def judges_of(subject: Subject, device: torch.device) -> Mixture:
    """The rewards; weights that are known by their shapes alone get random numbers."""
    parts = [(plan.kind(plan.config), plan.weight) for plan in subject.reward]
    for module in (inner for part, _ in parts for inner in part.modules()):
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None and tensor.is_meta:
                    table[name] = _random(tensor, device)  # type: ignore[assignment]
    return Mixture(parts).requires_grad_(False).eval().to(device)


def _random(tensor: Tensor, device: torch.device) -> Tensor:
    made = torch.zeros_like(tensor, device=device)
    made = made.normal_(0, 0.02) if made.is_floating_point() and tensor.ndim > 1 else made
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def text_of(name: str, model: VideoModel, count: int) -> Conditions:
    """Random numbers as `count` encoded prompts; a mask that is full."""

    def made(key: str, shape: tuple[int, ...]) -> Tensor:
        if "mask" in key:
            return torch.ones(count, *shape, device=model.device)
        return torch.randn(count, *shape, device=model.device, dtype=model.dtype)

    return Conditions({key: made(key, shape) for key, shape in TEXT[name].items()})


def batch_of(model: VideoModel, settings: Settings, text: Conditions, data: str) -> Batch:
    """Random latents of whatever the method learns from."""
    count, shape = len(text), model.latent_shape(settings.frames, settings.height, settings.width)
    names = {"pairs": ("first", "second"), "videos": ("clip",)}.get(data, ())
    tensors = {name: torch.randn(count, *shape, device=model.device) for name in names}
    if data == "pairs":
        tensors |= {"labels": torch.ones(count, shape[1], device=model.device)}
        tensors |= {"label": torch.ones(count, device=model.device)}
    numbers = list(range(count))
    return Batch(
        step=0,
        settings=settings,
        prompts=[PROMPT] * count,
        conditions=text,
        positions=numbers,
        indices=numbers,
        visits=[0] * count,
        tensors=tensors,
    )
