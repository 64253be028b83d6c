"""How far the ratio of an update that has not happened is from one: ``python -m benchmarks.ratio``.

`grpo`'s first update after a rollout is by the very model that sampled it, so that each step's ratio is 1 but for
rounding: the rollout goes through the network in batches of one size, the update in others, and bfloat16 rounds both.
What is clipped at 1e-3 must be far above this noise. Writes ``results/ratio.json``.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import facts
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.folders import prompts_of
from vpo_kit.methods.base import Batch
from vpo_kit.models.encoding import PromptCache
from vpo_kit.prompts import read_prompts
from vpo_kit.registry import METHODS
from vpo_kit.rewards.vqa import VQA
from vpo_kit.testing.steps import context_of
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.recipe import spread

PROMPTS, CANDIDATES, SAMPLED = 4, 8, 32


def noise(dtype: str, micro_batch_size: int) -> dict[str, Any]:
    """The mean distance of the ratios from 1, and the share that is clipped, of the first update."""
    model = models.load("sprites", dtype=dtype)
    policy = LoraPolicy(model, Lora(rank=16), seed=0)
    path = prompts_of("sprites", "train")
    assert path is not None
    prompts = spread(read_prompts(path), PROMPTS)
    kind = METHODS.load("grpo")
    context = context_of(
        policy, VQA(), batch_size=PROMPTS, sampling_batch_size=SAMPLED, micro_batch_size=micro_batch_size
    )
    method = kind(kind.Config(num_candidates=CANDIDATES, rollout_steps=8, updates_per_rollout=2), context)
    numbers = list(range(PROMPTS))
    batch = Batch(
        step=0,
        settings=context.sampling,
        prompts=prompts,
        conditions=PromptCache(model)(prompts),
        positions=numbers,
        indices=numbers,
        visits=[0] * PROMPTS,
    )
    output = method.step(batch)
    for part in output.parts or ():
        part.detach()
    return {key: output.report[key] for key in ("ratio_off", "ratio_clipped")}


def main() -> None:
    torch.set_num_threads(1)
    found = {f"{dtype}, {size} at once": noise(dtype, size) for dtype in ("float32", "bfloat16") for size in (32, 8, 1)}
    facts.write("ratio", {"command": "python -m benchmarks.ratio", "clip": 1e-3, "sampled at once": SAMPLED, **found})
    for name, row in found.items():
        print(name, row)


if __name__ == "__main__":
    main()
