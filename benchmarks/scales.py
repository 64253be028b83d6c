"""Mean and deviation of the rewards that need no download: ``python -m benchmarks.scales``.

On 48 training clips of the embedded world, flawed ones among them, and on the clean ones alone; rounded, the first are
the fixed scales in the rewards' specs. Writes ``benchmarks/results/scales.json``.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import facts
from vpo_kit.rewards.base import Reward
from vpo_kit.rewards.technical import Technical
from vpo_kit.rewards.vqa import VQA, GoldVQA
from vpo_kit.sprites import world

COUNT, SEED = 48, 0


@torch.no_grad()
def scale(reward: Reward, clips: list[world.WorldClip]) -> dict[str, Any]:
    video = torch.stack([torch.from_numpy(clip.video) for clip in clips])
    scores = reward(video, [clip.caption for clip in clips], fps=world.FPS).score
    clean = scores[[not clip.flaws for clip in clips]]

    def of(some: torch.Tensor) -> dict[str, float]:
        return {"mean": round(float(some.mean()), 3), "deviation": round(float(some.std()), 3)}

    return {
        "in the spec": {"mean": reward.spec.mean, "deviation": reward.spec.std},
        "all": of(scores),
        "clean": of(clean),
    }


def main() -> None:
    torch.set_num_threads(1)
    clips = list(world.training_clips(COUNT, SEED))
    rewards: list[Reward] = [VQA(), GoldVQA(), Technical()]
    facts.write("scales", {
        "command": "python -m benchmarks.scales",
        "clips": COUNT,
        "seed": SEED,
        "flawed": sum(bool(clip.flaws) for clip in clips),
        "rewards": {reward.spec.name: scale(reward, clips) for reward in rewards},
    })  # fmt: skip


if __name__ == "__main__":
    main()
