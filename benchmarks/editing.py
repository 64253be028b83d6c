"""What reward fine-tuning through the sampler costs: ``python -m benchmarks.editing``.

Each setting runs in a process of its own, so that peak memory is its own; times are medians of processor-bound steps
in it. On the embedded model, batch 4, a reward of single frames. Writes ``benchmarks/results/editing.json``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.evaluation.report import versions
from vpo_kit.methods.base import Batch, Context
from vpo_kit.methods.editing import EditingConfig
from vpo_kit.methods.instruct import Instruct
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.sprites import world
from vpo_kit.rewards.base import Mixture, Reward, RewardOutput, RewardSpec
from vpo_kit.training.lora import LoraPolicy

RESULTS = Path(__file__).parent / "results" / "editing.json"
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

    spec = RewardSpec("green", "none", "closed form", "0 to 1", True, True, False, per_frame=True)

    def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
        frames = video[:, :, 1].mean((2, 3))
        parts = torch.stack([frames[:, a:b].mean(1) for a, b in segments or ()], 1)
        return RewardOutput(frames.mean(1), parts)


def measure(settings: dict[str, Any]) -> dict[str, float]:
    """Median seconds of a step (forward and backward), and peak memory above that of the loaded model, in MB."""
    model = models.load("sprites")
    policy = LoraPolicy(model, Lora(), seed=0)
    clips = list(world.training_clips(4, seed=1))
    prompts = [clip.scene.caption for clip in clips]
    latents = model.encode(torch.stack([torch.from_numpy(clip.video) for clip in clips]))
    encode = PromptCache(model)
    context = Context(policy, Mixture([(Green(), 1.0)]), model.settings, encode([""]), 4, 0)
    method = Instruct(EditingConfig(**settings), context)
    base, took = _peak(), []
    for step in range(4):
        started = time.process_time()
        batch = Batch(step, prompts, encode(prompts), range(4), range(4), [0] * 4, {"clip": latents})
        method.step(batch).loss.backward()
        took.append((time.process_time() - started) / torch.get_num_threads())
    return {"seconds": round(median(took[1:]), 3), "peak MB": round(_peak() - base, 1)}


def decoding(frames: tuple[int, ...] = (2, 6, 9, 14)) -> dict[str, Any]:
    """The needed latent frames alone against the whole clip: time, and error by the left context."""
    model = models.load("sprites")
    clips = torch.stack([torch.from_numpy(clip.video) for clip in world.training_clips(16, seed=5)])
    latents = model.encode(clips)
    found: dict[str, Any] = {"default context": model.decode_context}
    with torch.no_grad():
        whole = model.decode(latents)
        found["autoencoder's own error"] = round(float((whole - clips).abs().mean()), 4)
        for one in ([0], [6], [16], list(frames)):
            for context in (1, 2, 3, 4):
                model.decode_context = context  # type: ignore[misc]
                cut = model.decode(latents, one)
                error = float((cut - whole[:, one]).abs().mean())
                seconds = [_timed(lambda one=one: model.decode(latents, one)) for _ in range(3)]  # type: ignore[misc]
                full = [_timed(lambda: model.decode(latents)) for _ in range(3)]
                found[f"frames {one}, context {context}"] = {
                    "error": round(error, 4), "time of the whole clip's": round(median(seconds) / median(full), 2)
                }  # fmt: skip
    return found


def _timed(call: Any) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    found: dict[str, Any] = {}
    for name, settings in SETTINGS.items():
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.editing", json.dumps(settings)],
            capture_output=True,
            text=True,
            check=True,
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, found[name])
    ratios = {
        f"{steps} steps: K = 1 against all": {
            key: round(found[f"K = 1 of {steps} steps"][key] / found[f"all of {steps} steps"][key], 3)
            for key in ("seconds", "peak MB")
        }
        for steps in (10, 20, 40)
    }
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    facts = {"commit": commit.strip(), "cores": os.cpu_count(), "versions": versions()}
    text = json.dumps({**facts, "steps": found, "ratios": ratios, "decoding": decoding()}, indent=2)
    RESULTS.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main()
