"""What reward fine-tuning through the sampler costs: ``python -m benchmarks.editing``.

Each setting runs in two processes of its own, one for the time, one for the memory; times are medians of processor
seconds. On the embedded model, batch 4, a reward of single frames. Writes ``benchmarks/results/editing.json``.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

import torch

from benchmarks import facts
from benchmarks.speed.timing import apart, memory
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.methods.base import Batch
from vpo_kit.methods.editing import EditingConfig
from vpo_kit.methods.instruct import Instruct
from vpo_kit.models.encoding import PromptCache
from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec
from vpo_kit.sprites import world
from vpo_kit.testing.steps import context_of
from vpo_kit.training.loop import backward
from vpo_kit.training.lora import LoraPolicy

LENGTHS = (17, 65)
SETTINGS: dict[str, dict[str, Any]] = {
    "K = 1 of 10 steps": {"chain_steps": 10, "tau": 1.0},
    "K = 1 of 20 steps": {"chain_steps": 20, "tau": 1.0},
    "K = 1 of 40 steps": {"chain_steps": 40, "tau": 1.0},
    "all of 10 steps": {"chain_steps": 10, "tau": 1.0, "grad_steps": 10, "guidance_gradient": True},
    "all of 20 steps": {"chain_steps": 20, "tau": 1.0, "grad_steps": 20, "guidance_gradient": True},
    "all of 40 steps": {"chain_steps": 40, "tau": 1.0, "grad_steps": 40, "guidance_gradient": True},
}


class Green(Reward):
    """A reward of single frames that costs nothing itself."""

    spec = RewardSpec(
        name="green",
        licence="none",
        source="closed form",
        scale="0 to 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        per_frame=True,
    )

    def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
        frames = video[:, :, 1].mean((2, 3))
        parts = torch.stack([frames[:, a:b].mean(1) for a, b in segments or ()], 1)
        return RewardOutput(frames.mean(1), parts)


def measure(settings: dict[str, Any]) -> dict[str, float]:
    """Median seconds of a step (forward and backward), and peak memory above that of the loaded model, in MB."""
    model = models.load("sprites")
    policy = LoraPolicy(model, Lora(rank=16), seed=0)
    clips = list(world.training_clips(4, seed=1))
    prompts = [clip.caption for clip in clips]
    latents = model.encode(torch.stack([torch.from_numpy(clip.video) for clip in clips]))
    encode = PromptCache(model)
    context = context_of(policy, Green(), batch_size=4)
    method = Instruct(EditingConfig(**settings), context)
    base, took = memory(reset=True), []
    for step in range(4):
        started = time.process_time()
        batch = Batch(
            step=step,
            settings=context.sampling,
            prompts=prompts,
            conditions=encode(prompts),
            positions=range(4),
            indices=range(4),
            visits=[0] * 4,
            tensors={"clip": latents},
        )
        backward(method.step(batch))
        took.append((time.process_time() - started) / torch.get_num_threads())
    return {"seconds": round(median(took[1:]), 3), "peak MB": round(memory() - base, 1)}


def decode(frames: int, few: bool) -> dict[str, float]:
    """Decode four clips with a gradient, whole or four frames of each (as four segments need them): median seconds with
    the backward pass, and peak memory above that of the loaded model, in MB.
    """
    model = models.load("sprites")
    latents = model.encode(_long(4, frames)).requires_grad_()
    base, took = memory(reset=True), []
    for _ in range(4):
        started = time.process_time()
        model.decode(latents, _looked_at(frames) if few else None).sum().backward()
        took.append((time.process_time() - started) / torch.get_num_threads())
    return {"seconds": round(median(took[1:]), 3), "peak MB": round(memory() - base, 1)}


@torch.no_grad()
def errors(frames: int) -> dict[str, Any]:
    """Mean absolute difference from the whole clip's decoding, by the left context; beside it the autoencoder's own."""
    model = models.load("sprites")
    clips = _long(16, frames)
    latents = model.encode(clips)
    whole = model.decode(latents)
    found: dict[str, Any] = {"autoencoder": round(float((whole - clips).abs().mean()), 4)}
    for context in (1, 2, 3, 4):
        model.decode_context = context  # type: ignore[misc]
        looked = _looked_at(frames)
        found[f"context {context}"] = round(float((model.decode(latents, looked) - whole[:, looked]).abs().mean()), 4)
    return found


def _long(count: int, frames: int) -> torch.Tensor:
    """Clips of the world played to and fro until they are `frames` long, which the world itself never draws."""
    clips = torch.stack([torch.from_numpy(clip.video) for clip in world.training_clips(count, seed=5)])
    last = clips.shape[1] - 1
    return clips[:, [last - abs(last - i % (2 * last)) for i in range(frames)]]


def _looked_at(frames: int) -> list[int]:
    """The middle of each of four segments."""
    return [frames * (2 * i + 1) // 8 for i in range(4)]


def _apart(name: str, **settings: Any) -> dict[str, float]:
    """`measure` or `decode`: seconds of one process, memory of another."""
    found = {}
    for key, thrifty in (("seconds", False), ("peak MB", True)):
        found[key] = float(apart("editing", name, json.dumps(settings), thrifty=thrifty)[key])
    print(name, settings, found, flush=True)
    return found


def _ratios(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {key: round(one[key] / other[key], 3) for key in one}


def main() -> None:
    steps = {name: _apart("step", settings=settings) for name, settings in SETTINGS.items()}
    decodes = {
        f"{what} of {frames} frames": _apart("decode", frames=frames, few=few)
        for frames in LENGTHS
        for what, few in (("all", False), ("four", True))
    }
    found = {
        "steps": steps,
        "one step with gradient against all": {
            str(n): _ratios(steps[f"K = 1 of {n} steps"], steps[f"all of {n} steps"]) for n in (10, 20, 40)
        },
        "decoding": decodes,
        "four frames against all": {
            str(n): _ratios(decodes[f"four of {n} frames"], decodes[f"all of {n} frames"]) for n in LENGTHS
        },
        "default context": models.load("sprites").decode_context,
        "error": {str(n): errors(n) for n in LENGTHS},
    }
    print(json.dumps(found, indent=2))
    facts.write("editing", found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps({"step": measure, "decode": decode}[sys.argv[1]](**json.loads(sys.argv[2]))))
    else:
        main()
