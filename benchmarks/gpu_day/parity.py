"""Every family on the card: our sampler against the pipeline's own call, the card against the processor, bfloat16.

The pipelines are tiny and random, in the real layout, loaded by the production path. Everything is measured and nothing
stops at the first difference: a row says what was off, and by how much of what is allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler
from torch import Tensor

from benchmarks.gpu_day import card
from benchmarks.gpu_day.protocol import Options
from vpo_kit import losses, models
from vpo_kit.config import Lora
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.calling import Call
from vpo_kit.testing.families import FAMILIES, Family
from vpo_kit.testing.parity import PROMPTS, Case
from vpo_kit.testing.precision import exact
from vpo_kit.times import Times
from vpo_kit.training.lora import LoraPolicy

LIMITS = {
    "pipeline": 1e-4,
    "pipeline, guided": 1e-4,
    "processor": 1e-3,
    "gradient": 1e-2,
    "bfloat16": 0.05,
    "bfloat16, pipeline": 0.05,
}
"""The largest difference that each check allows: for `pipeline`, in float32, the largest of all pixels of videos in
[0, 1]; else the norm of the difference over that of the reference.
"""


def cases(options: Options) -> dict[str, float]:
    return dict.fromkeys(options.families or FAMILIES, 60.0)


def run(case: str, options: Options) -> dict[str, Any]:
    family, folder = FAMILIES[case], options.scratch / "families" / case
    torch.manual_seed(0)
    family.build().save_pretrained(folder, safe_serialization=True)
    device = card.device(options.rehearse)
    with exact():
        found = {**float32(family, folder, device), **bfloat16(family, folder)}
    too_far = {name: value for name, value in found.items() if not value <= LIMITS[name]}
    return {"differences": found, **({"error": f"too far apart: {_shown(too_far)}"} if too_far else {})}


def float32(family: Family, folder: Path, device: torch.device) -> dict[str, float]:
    model, plain = load(family, folder), pipeline_of(family, folder, device)
    noise = draw_noise(shape(model, family), [11, 12], device)
    found = {}
    case = of(model, plain, family)
    for name, scale in (("pipeline", 1.0), ("pipeline, guided", 4.0)):
        ours, theirs = case.ours(noise, scale), case.theirs(noise, scale)
        found[name] = float((ours - theirs).abs().max())
    here = ours.cpu(), step(model, family)
    model.pipeline.to("cpu")
    there = case.ours(noise.cpu(), 4.0), step(model, family)
    return {**found, "processor": apart(here[0], there[0]), "gradient": apart(here[1], there[1])}


def bfloat16(family: Family, folder: Path) -> dict[str, float]:
    """The network's output beside that of float32, and the video beside that of the pipeline in bfloat16: not where its
    scheduler draws noise, which in bfloat16 is other noise.
    """
    model, exact = load(family, folder, dtype="bfloat16"), load(family, folder)
    x = draw_noise(shape(model, family), [1, 2], model.device).bfloat16().float()  # the same noise for both
    t = times(model)
    with torch.no_grad():
        rows = x[: len(t)]
        case = of(model, model.pipeline, family)
        outputs = [m.predict(rows, t, case.conditions(PROMPTS[: len(t)], m)) for m in (model, exact)]
        found = {"bfloat16": apart(*outputs)}
        if not draws(model):
            found["bfloat16, pipeline"] = apart(case.ours(x, 1.0), case.theirs(x, 1.0))
    return found


def load(family: Family, folder: Path, dtype: str = "float32") -> VideoModel:
    model = models.load(str(folder), dtype=dtype)
    for key, value in family.attributes.items():
        setattr(model.pipeline, key, value)
    return model


def pipeline_of(family: Family, folder: Path, device: torch.device) -> Any:
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder).to(device)
    pipeline.set_progress_bar_config(disable=True)
    for key, value in family.attributes.items():
        setattr(pipeline, key, value)
    return pipeline


def shape(model: VideoModel, family: Family) -> tuple[int, int, int, int]:
    return model.latent_shape(family.frames, family.size, family.size)


def of(model: VideoModel, pipeline: Any, family: Family) -> Case:
    call = Call(frames=family.frames, height=family.size, width=family.size)
    return Case(Path(model.source), model, pipeline, call)


def draws(model: VideoModel) -> bool:
    """Whether the scheduler draws noise in every step."""
    return isinstance(model.pipeline.scheduler, CogVideoXDPMScheduler)


def times(model: VideoModel) -> Tensor:
    """A training time of each network, in the network's own units."""
    return model.schedule.network_time(drawn(model)).to(model.device)


def drawn(model: VideoModel) -> Tensor:
    """A training time of each network, in the schedule's units."""
    uniform = Times(name="uniform")
    return torch.cat([model.time_sampler(uniform, model.settings, [name]).draw([3]) for name in model.networks])


def step(model: VideoModel, family: Family) -> Tensor:
    """The gradient of a DPO step in the LoRA's weights, copied to the processor. Raises `ValueError` where it is not
    finite.
    """
    policy = LoraPolicy(model, Lora(rank=2, alpha=4), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.device))
    loss_of(policy, family).backward()  # type: ignore[no-untyped-call]
    found = torch.cat([parameter.grad.flatten().cpu() for parameter in policy.parameters if parameter.grad is not None])
    for network in policy.networks.values():
        network.delete_adapters(["default"])
    if not (found.isfinite().all() and found.any()):
        raise ValueError("the gradient of a DPO step is not finite, or nothing")
    return found


def loss_of(policy: LoraPolicy, family: Family) -> Tensor:
    """Of one pair for each network, as the pair methods build it."""
    model = policy.model
    schedule, device, count = model.schedule, model.device, len(model.networks)
    t = drawn(model).to(device).repeat(2)
    x = draw_noise(shape(model, family), range(2 * count), device)
    eps = draw_noise(shape(model, family), range(10, 10 + count), device).repeat(2, 1, 1, 1, 1)
    x_t, target, time = schedule.add_noise(x, eps, t), schedule.target(x, eps, t), schedule.network_time(t)
    conditions = of(model, model.pipeline, family).conditions(PROMPTS[:1]).expand(2 * count)

    def errors() -> tuple[Tensor, ...]:
        return losses.frame_errors(model.predict(x_t, time, conditions), target).chunk(2)

    with torch.no_grad(), policy.reference():
        reference = errors()
    found = losses.PairErrors(*errors(), *reference)
    labels = torch.ones(count, device=device)
    return losses.preference_loss(found, labels, losses.PreferenceConfig(beta=100)).value.mean()


def apart(one: Tensor, other: Tensor) -> float:
    """The norm of the difference over that of `other`."""
    one, other = one.float(), other.float()
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


def _shown(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2g} (at most {LIMITS[name]:g})" for name, value in found.items())
