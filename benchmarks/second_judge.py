"""Train `gold2`, the second held-out judge of the embedded world: ``python -m benchmarks.second_judge --work DIR``.

Its filters are fixed, so what they give for a content is kept on disk, by shards, and the network that reads them is
trained on that alone: 25 minutes of one thread for the contents, two for a fit. Then rounds against itself: contents
under sign-gradient steps within 2/255 that raise the score, which must not. What is there is kept; a run that was
stopped goes on. Writes ``gold2.safetensors`` and ``gold2.json`` into DIR: copied to vpo_kit/rewards, they ship.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit.rewards import degrade
from vpo_kit.rewards.frames import pool
from vpo_kit.rewards.gold2 import FilterJudge, energies
from vpo_kit.sprites.judges import corpus
from vpo_kit.sprites.judges.train_vqa import JudgeBatch, JudgeRecipe, attacked, finish, losses, variants

BASICS = ("blur", "noise", "fade", "freeze", "drop", "collapse", "slow", "slow", "static", "static")
"""What it is taught of the others' flaws: without them it would not be a judge of quality, or like still clips."""
RECIPE = JudgeRecipe(
    build=FilterJudge,
    corpus_seed=53,
    rate=4e-3,
    families=corpus.OTHER_FAMILIES,
    flaws=degrade.DEGRADATIONS | degrade.UNTAUGHT,
    first=tuple(degrade.UNTAUGHT),
    second=BASICS,
)
SHARDS, CONTENTS, LENGTHS = 75, 40, (9, 13, 17)
STEPS, ROWS, WARMUP, DECAY = 1500, 24, 60, 0.02
ROUNDS, ATTACKED, ATTACK_STEPS = 2, 120, 4
FIRST_ATTACKED = 1_000_000
"""Numbers of the contents that are attacked: none of them is in a shard."""


def collect(folder: Path) -> list[JudgeBatch]:
    """The shards; `video` of each `JudgeBatch` are the `energies` ``[G, 4, F, K]``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for shard in range(SHARDS):
        path = folder / f"{shard:03d}.pt"
        if not path.exists():
            length = LENGTHS[shard % len(LENGTHS)]
            drawn = [variants(RECIPE, shard * CONTENTS + g, length) for g in range(CONTENTS)]
            parts = [torch.stack(part) for part in zip(*drawn, strict=True)]
            _write([torch.stack([energies(content) for content in parts[0]]).half(), *parts[1:]], path)
            print("contents", (shard + 1) * CONTENTS, flush=True)
        found.append(JudgeBatch(*(part.float() for part in torch.load(path, weights_only=True))))
    return found


def _write(parts: list[Tensor], path: Path) -> None:
    torch.save(parts, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def attack(judge: FilterJudge, folder: Path, number: int) -> tuple[Tensor, Tensor]:
    """Energies ``[N, 2, F, K]`` of contents, clean and flawed, before and after the steps."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"attack-{number}.pt"
    if not path.exists():
        before, after = [], []
        for n in range(ATTACKED):
            video = variants(RECIPE, FIRST_ATTACKED * (number + 1) + n, 13)[0][[0, 2]]
            before.append(energies(video))
            after.append(energies(attacked(judge, video, ATTACK_STEPS)))
        _write([torch.stack(before), torch.stack(after)], path)
    before, after = torch.load(path, weights_only=True)
    return before, after


def fit(judge: FilterJudge, shards: list[JudgeBatch], attacks: list[tuple[Tensor, Tensor]], seed: int) -> float:
    """Train from new weights; returns the share of right pairs over the last hundred steps."""
    torch.manual_seed(seed)
    for layer in judge.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    judge.train().requires_grad_(True)
    rng, right = np.random.default_rng(seed), []
    optimiser = torch.optim.AdamW(judge.parameters(), lr=RECIPE.rate, weight_decay=DECAY, betas=(0.9, 0.98))
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RECIPE.rate * min(1.0, (step + 1) / WARMUP, 3 * (STEPS - step) / STEPS)
        shard = shards[int(rng.integers(len(shards)))]
        rows = torch.from_numpy(rng.permutation(len(shard.video))[:ROWS])
        batch = JudgeBatch(shard.video[rows], shard.inside[rows], shard.outside[rows], shard.slow[rows])
        frames = judge.judged(batch.video.flatten(0, 1)).unflatten(0, batch.video.shape[:2])
        total = torch.stack(list(losses(frames, batch).values())).sum()
        for before, after in attacks:
            chosen = torch.from_numpy(rng.permutation(len(before))[: ROWS // 2])
            total = total + attack_loss(*(_scores(judge, part[chosen]) for part in (before, after)))
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        scores = pool(frames.detach())
        right.append(float((scores[:, [0, 1, 0]] > scores[:, [1, 2, 3]]).float().mean()))
    judge.eval().requires_grad_(False)
    return float(np.mean(right[-100:]))


def _scores(judge: FilterJudge, found: Tensor) -> Tensor:
    return pool(judge.judged(found.flatten(0, 1))).unflatten(0, found.shape[:2])


def attack_loss(before: Tensor, after: Tensor) -> Tensor:
    """Of scores ``[N, 2]``, clean and flawed: none may rise, and no flawed clip above the clean one."""
    over = functional.softplus(after[:, 1] - before[:, 0])
    rise = (after - before).clamp(min=0)
    return over.mean() + functional.smooth_l1_loss(rise, torch.zeros_like(rise))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    torch.set_num_threads(1)
    shards, attacks, judge = collect(work / "contents"), list[tuple[Tensor, Tensor]](), FilterJudge()
    for number in range(ROUNDS + 1):
        right = fit(judge, shards, attacks, seed=number)
        print(f"round {number}: {right:.3f} of pairs right in training", flush=True)
        if number < ROUNDS:
            attacks.append(attack(judge, work, number))
    facts = {
        "kind": "gold2",
        "contents": SHARDS * CONTENTS,
        "steps": STEPS,
        "rounds against itself": ROUNDS,
        "corpus_seed": RECIPE.corpus_seed,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    # on the others' corpus, of which it has seen the sprites alone
    finish(judge, work / "gold2.safetensors", facts, replace(RECIPE, families=corpus.FAMILIES))


if __name__ == "__main__":
    main()
