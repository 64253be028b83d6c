"""Whether an adapter can be trained, and its LoRA used: gradients, and the file in `vpo` and in diffusers alone."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor, nn

from vpo_kit import losses
from vpo_kit.config import Lora
from vpo_kit.models.base import VideoModel, add_methods
from vpo_kit.sampler import Guidance, PartialStart, draw_noise, sample
from vpo_kit.testing.finding import AdapterFinding
from vpo_kit.testing.parity import NEGATIVE, PROMPTS, Case
from vpo_kit.times import Times
from vpo_kit.training.lora import LoraPolicy, file_name
from vpo_kit.training.loras import loaded

CLOSE = 1e-5
"""How far the outputs of one LoRA may be apart, relative to one more than their size."""


@contextmanager
def with_lora(model: VideoModel) -> Iterator[LoraPolicy]:
    """`model` with a LoRA that changes nothing yet, which is taken off again."""
    policy = LoraPolicy(model, Lora(rank=2, alpha=4), seed=0)
    try:
        yield policy
    finally:
        take_off(policy)


def take_off(policy: LoraPolicy) -> None:
    """Leave the bare networks."""
    for network in policy.networks.values():
        if getattr(network, "peft_config", {}):
            network.delete_adapters(["default"])


def times_of(model: VideoModel, seed: int) -> Tensor:
    """A training time of each network, in the schedule's units."""
    uniform = Times(name="uniform")
    drawn = [model.time_sampler(uniform, model.settings, [name]).draw([seed]) for name in model.networks]
    return torch.cat(drawn).to(model.device)


def dpo_step(case: Case) -> Iterator[AdapterFinding]:
    """A pair at a time of each network, in one batch: the loss begins at ln 2, its gradient reaches every layer of the
    LoRA and nothing else, and a step along it makes the loss smaller.
    """
    with with_lora(case.model) as policy:
        value = pair_loss(case, policy)
        first = float(value.detach())
        yield AdapterFinding(
            what="DPO loss of an untrained LoRA, less ln 2", figure=abs(first - math.log(2)), bound=1e-6
        )
        value.backward()  # type: ignore[no-untyped-call]
        yield from _reached("a DPO step", policy, case.model.networks, ".lora_B.")
        with torch.no_grad():
            for parameter in policy.parameters:
                if parameter.grad is not None:
                    parameter.sub_(0.01 * parameter.grad / parameter.grad.norm().clamp_min(1e-12))
        for parameter in policy.parameters:
            parameter.grad = None
        after = pair_loss(case, policy)
        second = float(after.detach())
        note = f"{first:.6f} to {second:.6f}"
        yield AdapterFinding(
            what="DPO loss that one step takes off", figure=first - second, bound=1e-7, least=True, note=note
        )
        after.backward()  # type: ignore[no-untyped-call]
        yield from _reached("the step after it", policy, case.model.networks, ".lora_")
        lora = {id(parameter) for parameter in policy.parameters}
        parts = [part for part in case.model.pipeline.components.values() if isinstance(part, nn.Module)]
        others = [p for part in parts for p in part.parameters() if id(p) not in lora]
        frozen = sum(parameter.grad is not None for parameter in others)
        yield AdapterFinding(
            what="frozen weights that got a gradient", figure=frozen, bound=0, note=f"of {len(others)}"
        )


def pair_loss(case: Case, policy: LoraPolicy) -> Tensor:
    """The DPO loss of a pair at a time of each network, in one batch, of the model that has the LoRA `policy`."""
    model, schedule, count = case.model, case.model.schedule, len(case.model.networks)
    x = draw_noise(case.shape, range(2 * count), model.device)
    t = times_of(model, 3).repeat(2)
    eps = draw_noise(case.shape, range(10, 10 + count), model.device).repeat(2, 1, 1, 1, 1)
    x_t, target, time = schedule.add_noise(x, eps, t), schedule.target(x, eps, t), schedule.network_time(t)
    conditions = case.conditions(PROMPTS[:1]).expand(2 * count)
    with torch.no_grad(), policy.reference():
        reference = losses.frame_errors(model.predict(x_t, time, conditions), target)
    own = losses.frame_errors(model.predict(x_t, time, conditions), target)
    errors = losses.PairErrors(*own.chunk(2), *reference.chunk(2))
    labels = torch.ones(count, device=model.device)
    return losses.preference_loss(errors, labels, losses.PreferenceConfig(beta=100)).value.mean()


def _reached(by: str, policy: LoraPolicy, names: Collection[str], part: str) -> Iterator[AdapterFinding]:
    """The weights of the LoRA, those with `part` in their name, that got no finite gradient in the networks `names`, or
    any in the others.
    """
    wrong, count = [], 0
    for name, network in policy.networks.items():
        for key, parameter in network.named_parameters():
            if part not in key or ".default." not in key:
                continue
            count += 1
            gradient = parameter.grad
            reached = gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())
            wrong += [f"{name}.{key}"] if reached != (name in names) else []
    note = f"of {count}" + (f", {wrong[0]} for one" if wrong else "")
    figure = len(wrong) if count else math.inf
    yield AdapterFinding(what=f"LoRA weights that {by} does not reach", figure=figure, bound=0, note=note)


def sampled_gradient(case: Case) -> Iterator[AdapterFinding]:
    """A gradient flows from one decoded frame through the last step of the chain, from noise and from a clip's latent
    that the chain is entered with, to every layer of the network of that step.
    """
    model, steps = case.model, case.call.steps + 1
    last = model.new_scheduler(steps, case.shape).timesteps[-1:]
    of_last = [name for name in model.networks if model.belongs(last, name).all()]
    noise, x = (draw_noise(case.shape, [seed], model.device) for seed in (6, 7))
    for by, start in (("the last step", None), ("a chain entered midway", PartialStart(x, steps // 2))):
        with with_lora(model) as policy:
            latents = sample(
                model, case.conditions(PROMPTS[:1]), noise=noise, steps=steps, grad_steps=1, start=start,
                guidance=Guidance(4.0, model.encode_prompts([NEGATIVE])),
            )  # fmt: skip
            video = model.decode(latents, frames=[case.call.frames - 1])
            video.square().mean().backward()  # type: ignore[no-untyped-call]
            yield from _reached(by, policy, of_last, ".lora_B.")


@torch.no_grad()
def lora_file(case: Case) -> Iterator[AdapterFinding]:
    """A LoRA that is written gives the same output when it is loaded again, by `vpo` and by diffusers alone."""
    model = case.model
    if not hasattr(model.pipeline, "save_lora_weights"):
        note = f"{type(model.pipeline).__name__} has no save_lora_weights: models.base.add_methods gives it a loader's"
        yield AdapterFinding(what="LoRA file", figure=math.inf, bound=CLOSE, note=note)
        return
    x = draw_noise(case.shape, [8, 9], model.device)
    conditions = case.conditions()
    time = model.schedule.network_time(torch.cat([times_of(model, 1), times_of(model, 2)])[:2])
    base = model.predict(x, time, conditions)
    with tempfile.TemporaryDirectory() as name:
        with with_lora(model) as policy:
            move(policy)
            ours = model.predict(x, time, conditions)
            policy.export(Path(name))
        changed = float((ours - base).abs().flatten(1).amax(1).min())
        yield AdapterFinding(what="what a LoRA changes", figure=changed, bound=CLOSE, least=True)
        with loaded(model, Path(name)):
            yield _close("LoRA file in vpo", model.predict(x, time, conditions), ours)
        yield _close("network when the LoRA is off again", model.predict(x, time, conditions), base)
        pipeline, way = in_diffusers_alone(case, Path(name))
        if pipeline is None:
            yield AdapterFinding(what=way, figure=None, bound=CLOSE)
            return
        theirs = type(model)(pipeline, model.settings, "diffusers")
        yield _close(f"LoRA file in diffusers, {way}", theirs.predict(x, time, conditions), ours)


@torch.no_grad()
def move(policy: LoraPolicy) -> None:
    """Change every weight of the LoRA a little, always in the same way."""
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.parameters:
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter))


def _close(what: str, one: Tensor, other: Tensor) -> AdapterFinding:
    figure = float(((one - other).abs() / (1 + other.abs())).max())
    return AdapterFinding(what=what, figure=figure, bound=CLOSE)


def in_diffusers_alone(case: Case, folder: Path) -> tuple[Any, str]:
    """A pipeline of diffusers with the LoRA of `folder`, and how it was loaded: by the pipeline, by its network where
    the pipeline's class cannot, or by the pipeline after its network was given the methods (ModelScope). None where
    neither can.
    """
    model, plain = case.model, case.plain
    shared = {name: part for name, part in plain.components.items() if name not in model.networks}
    pipeline = type(plain).from_pretrained(case.folder, **shared).to(model.device)
    network, name = pipeline.components[model.network_name], model.network_name
    if not hasattr(pipeline, "load_lora_weights"):
        if not hasattr(network, "load_lora_adapter"):
            return None, "LoRA file in diffusers: its classes load none"
        network.load_lora_adapter(str(folder), weight_name=file_name(model, name))
        return pipeline, f"pipe.{name}.load_lora_adapter"
    way = "pipe.load_lora_weights"
    if not hasattr(network, "load_lora_adapter"):
        add_methods(network, PeftAdapterMixin)
        way += " after add_methods"
    for each in model.networks:
        pipeline.load_lora_weights(str(folder), weight_name=file_name(model, each), **model.lora_options(each))
    return pipeline, way
