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
from vpo_kit import models
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.calling import Call
from vpo_kit.testing.families import FAMILIES, Family
from vpo_kit.testing.lora_checks import move, pair_loss, times_of, with_lora
from vpo_kit.testing.parity import PROMPTS, Case, open_case
from vpo_kit.testing.precision import exact

REHEARSED = ("wan2.1", "ltx", "cogvideox-5b", "hunyuan1.5", "modelscope")
"""What a rehearsal shows the way of, unless it is told which: the tests hold every family on a processor."""
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
    return dict.fromkeys(options.families or (REHEARSED if options.rehearse else FAMILIES), 60.0)


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
    side = family.size
    case = open_case(str(folder), frames=family.frames, height=side, width=side, attributes=family.attributes)
    noise = draw_noise(case.shape, [11, 12], device)
    found = {}
    for name, scale in (("pipeline", 1.0), ("pipeline, guided", 4.0)):
        ours, theirs = case.ours(noise, scale), case.theirs(noise, scale)
        found[name] = float((ours - theirs).abs().max())
    here = ours.cpu(), step(case)
    case.model.pipeline.to("cpu")
    there = case.ours(noise.cpu(), 4.0), step(case)
    return {**found, "processor": apart(here[0], there[0]), "gradient": apart(here[1], there[1])}


def bfloat16(family: Family, folder: Path) -> dict[str, float]:
    """The network's output beside that of float32, and the video beside that of the pipeline in bfloat16: not where its
    scheduler draws noise, which in bfloat16 is other noise.
    """
    model, exact = load(family, folder, dtype="bfloat16"), load(family, folder)
    case = of(model, model.pipeline, family)
    x = draw_noise(case.shape, [1, 2], model.device).bfloat16().float()  # the same noise for both
    t = model.schedule.network_time(times_of(model, 3))
    with torch.no_grad():
        rows = x[: len(t)]
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


def of(model: VideoModel, pipeline: Any, family: Family) -> Case:
    call = Call(frames=family.frames, height=family.size, width=family.size)
    return Case(Path(model.source), model, pipeline, call)


def draws(model: VideoModel) -> bool:
    """Whether the scheduler draws noise in every step."""
    return isinstance(model.pipeline.scheduler, CogVideoXDPMScheduler)


def step(case: Case) -> Tensor:
    """The gradient of a DPO step in the LoRA's weights, copied to the processor. Raises `ValueError` where it is not
    finite.
    """
    with with_lora(case.model) as policy:
        move(policy)
        pair_loss(case, policy).backward()  # type: ignore[no-untyped-call]
        found = torch.cat([p.grad.flatten().cpu() for p in policy.parameters if p.grad is not None])
    if not (found.isfinite().all() and found.any()):
        raise ValueError("the gradient of a DPO step is not finite, or nothing")
    return found


def apart(one: Tensor, other: Tensor) -> float:
    """The norm of the difference over that of `other`."""
    one, other = one.float(), other.float()
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


def _shown(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2g} (at most {LIMITS[name]:g})" for name, value in found.items())
