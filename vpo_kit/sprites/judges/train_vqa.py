"""Train the embedded judges by ranking: clean above slightly degraded above badly degraded, frame by frame.

Legend: ``G`` contents, ``V`` variants of each (clean, two severities of one degradation, one of another),
``F`` frames. No human label is used: the order within a chain is known by construction. Parts of the loss:

- pairs: logistic loss on clip scores along each chain;
- frames: inside a degraded window below the same frames of the clean clip, outside about equal to them;
- slow copies: less motion of a clean clip costs a fixed small amount, never as much as a flaw;
- spread: clean clips of all contents near one score;
- attacks: sign-gradient steps within 2/255 must neither lift a degraded clip over the clean one nor move
  scores far.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vpo_kit.rewards import degrade
from vpo_kit.rewards.degrade.drawn import Rng
from vpo_kit.rewards.frames import FrameScorer, pool
from vpo_kit.rewards.soften import Softness, soften
from vpo_kit.rewards.vqa import VQA, GoldVQA
from vpo_kit.sprites.judges import corpus
from vpo_kit.sprites.judges.judge_report import Exam, Measured, measure

Kind = Literal["vqa", "gold"]

# What an earlier judge could not see, and its policy therefore did: they fill the second place of a chain.
_OBJECTS = ("fade", "vanish", "pop", "dull", "blur")
_MOTION = ("slow", "slow", "static", "static", "collapse", "freeze", "drop")
FOCUS = _OBJECTS + _MOTION


@dataclass(frozen=True, kw_only=True)
class JudgeRecipe:
    """`first` and `second` name the flaws of a content's two chains."""

    build: Callable[[], FrameScorer]
    corpus_seed: int
    rate: float
    families: Mapping[str, float] = field(default_factory=lambda: corpus.FAMILIES)
    flaws: Mapping[str, degrade.Degradation] = field(default_factory=lambda: degrade.DEGRADATIONS)
    first: Sequence[str] = tuple(degrade.DEGRADATIONS)
    second: Sequence[str] = FOCUS
    num_contents: int = 6
    average: float = 0.995
    attack_every: int = 4  # steps; 0 trains without attacks
    warmup: int = 60


RECIPES: dict[str, JudgeRecipe] = {
    "vqa": JudgeRecipe(build=VQA.build, corpus_seed=11, rate=3e-3),
    "gold": JudgeRecipe(build=GoldVQA.build, corpus_seed=29, rate=2e-3),
}
ATTACK = 2 / 255
LOG_EVERY, SAVE_EVERY = 25, 100
SLOW_COST = 0.35  # score that one step of severity of a slow copy costs, in the network's raw units


@dataclass(frozen=True)
class JudgeBatch:
    """`video` ``[G, V, F, 3, H, W]``; `inside`, `outside` ``[G, V, F]`` (or no label); `slow` ``[G, V]``."""

    video: Tensor
    inside: Tensor
    outside: Tensor
    slow: Tensor


def draw_window(num_frames: int, rng: Rng) -> degrade.Window:
    """A window of a fifth to two thirds of the clip, or (one in four) all of it."""
    if rng.random() < 0.25:
        return 0, num_frames
    length = int(rng.integers(max(3, num_frames // 5), 2 * num_frames // 3 + 1))
    start = int(rng.integers(0, num_frames - length + 1))
    return start, start + length


def draw_batch(recipe: JudgeRecipe, step: int) -> JudgeBatch:
    """The batch of one step; it depends on the recipe and the step alone."""
    num_frames = int(np.random.default_rng([recipe.corpus_seed, 1, step]).choice([9, 13, 17]))
    drawn = [variants(recipe, step * recipe.num_contents + g, num_frames) for g in range(recipe.num_contents)]
    return JudgeBatch(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


def variants(recipe: JudgeRecipe, index: int, num_frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Content number `index`: four videos, the first of them clean, and a `JudgeBatch`'s labels for them."""
    rng = np.random.default_rng([recipe.corpus_seed, 2, index])
    clean = corpus.clip(recipe.corpus_seed, index, num_frames, families=recipe.families)
    first = str(rng.choice(list(recipe.first)))
    second = str(rng.choice(list(recipe.second)))
    low, high = sorted(int(s) for s in rng.choice(degrade.SEVERITIES, 2, replace=False))
    windows = [draw_window(num_frames, rng), draw_window(num_frames, rng)]
    plan = [
        (first, windows[0], low),
        (first, windows[0], high),
        (second, windows[1], int(rng.integers(1, 6))),
    ]
    videos, inside, outside = [clean.video], torch.zeros(4, num_frames), torch.zeros(4, num_frames)
    slow, chain_seed = torch.zeros(4), int(rng.integers(2**31))
    for v, (kind, window, severity) in enumerate(plan, start=1):
        videos.append(recipe.flaws[kind](clean, window, severity, np.random.default_rng(chain_seed)))
        if kind in degrade.MILD:
            slow[v] = severity
        if kind not in degrade.WHOLE:
            inside[v, slice(*window)] = 1
            outside[v, : max(0, window[0] - 1)] = 1  # frames beside the window see it in their differences
            outside[v, window[1] + 1 :] = 1
    strength = float(rng.uniform(0, 1.4 if clean.family == "sprite" else 0.7)) * (rng.random() < 0.85)
    softness = Softness.draw(rng, strength)
    soft = [soften(video, softness, rng) for video in videos]
    for v, (kind, _, _) in enumerate(plan, start=1):
        if kind == "static" and rng.random() < 0.6:  # frozen with its traces of decoding
            soft[v] = soft[0][int(rng.integers(num_frames))].expand_as(soft[0])
    return torch.stack(soft), inside, outside, slow


def losses(frames: Tensor, batch: JudgeBatch) -> dict[str, Tensor]:
    """The named parts of the loss for frame scores ``[G, V, F]``."""
    score = pool(frames)
    upper, lower = score[:, [0, 1, 0, 0]], score[:, [1, 2, 2, 3]]
    severity = batch.slow[:, [1, 2, 2, 3]] - batch.slow[:, [0, 1, 0, 0]]
    gap = upper - lower
    slow = functional.smooth_l1_loss(gap, SLOW_COST * severity, reduction="none")
    pairs = torch.where(severity > 0, slow, functional.softplus(-gap))
    fall = frames[:, :1] - frames
    inside = (functional.softplus(-fall) * batch.inside).sum() / batch.inside.sum().clamp(min=1)
    outside = functional.smooth_l1_loss(fall, torch.zeros_like(fall), reduction="none") * batch.outside
    clean = score[:, 0]
    return {
        "pairs": pairs.mean(),
        "inside": 0.5 * inside,
        "outside": 0.5 * outside.sum() / batch.outside.sum().clamp(min=1),
        "spread": 0.03 * clean.var() + 0.01 * clean.mean().square(),
    }


def attacked(judge: FrameScorer, video: Tensor, steps: int, size: float = ATTACK) -> Tensor:
    """`video` ``[B, F, 3, H, W]`` after sign-gradient steps that raise its score, within `size` a pixel."""
    change = torch.zeros_like(video)
    for _ in range(steps):
        change.requires_grad_(True)
        (slope,) = torch.autograd.grad(pool(judge(video + change)).sum(), change)
        change = (change.detach() + 2.0 * size / steps * slope.sign()).clamp(-size, size)
        change = (video + change).clamp(0, 1) - video
    return (video + change).detach()


def attack_loss(judge: FrameScorer, batch: JudgeBatch, scores: Tensor) -> Tensor:
    """The clean clip and one degraded variant of each content under attack; `scores` are ``[G, V]``."""
    chosen = batch.video[:, [0, 2]]
    raised = pool(judge(attacked(judge, chosen.flatten(0, 1), steps=2)).unflatten(0, chosen.shape[:2]))
    rise = raised - scores[:, [0, 2]]
    over = functional.softplus(raised[:, 1] - scores[:, 0])
    return 0.5 * over.mean() + 0.15 * functional.smooth_l1_loss(rise, torch.zeros_like(rise))


def train(
    kind: Kind, out: Path, steps: int = 1250, seed: int = 0, num_measured: int = 60, *, attacks: bool = True
) -> Measured:
    """Train a judge into `out` (``<kind>.safetensors``, ``.json``, ``.jsonl``); resumable.

    Without `attacks` the network sees clean and degraded clips alone: what training against attacks is worth.
    """
    recipe = RECIPES[kind] if attacks else replace(RECIPES[kind], attack_every=0)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1_000 * seed + recipe.corpus_seed)
    judge = recipe.build().to(memory_format=torch.channels_last)
    average = AveragedModel(
        judge,
        multi_avg_fn=get_ema_multi_avg_fn(recipe.average),  # type: ignore[no-untyped-call]
    )
    optimiser = torch.optim.AdamW(judge.parameters(), lr=recipe.rate, weight_decay=0.02, betas=(0.9, 0.98))
    parts: dict[str, Any] = {"judge": judge, "average": average, "optimiser": optimiser}
    checkpoint, begun = out / f"{kind}.pt", time.monotonic()
    for step in range(_resume(checkpoint, parts), steps):
        report = _step(judge, optimiser, recipe, step, steps)
        average.update_parameters(judge)
        if step % LOG_EVERY == 0 or step == steps - 1:
            line = {"step": step, "seconds": round(time.monotonic() - begun, 1)} | report
            with (out / f"{kind}.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
        if (step + 1) % SAVE_EVERY == 0 or step == steps - 1:
            _checkpoint(checkpoint, parts, step + 1)
    final = cast(FrameScorer, average.module)
    facts: dict[str, Any] = {
        "kind": kind,
        "steps": steps,
        "seed": seed,
        "corpus_seed": recipe.corpus_seed,
        "attack_every": recipe.attack_every,
        "torch": torch.__version__,
    }
    facts |= {"python": platform.python_version()}
    return finish(final, out / f"{kind}.safetensors", facts, recipe, num_measured)


def finish(
    judge: FrameScorer, weights: Path, facts: dict[str, Any], recipe: JudgeRecipe, num_clips: int = 60
) -> Measured:
    """Calibrate, measure on held-out clips, and write the weights and, beside them, the report."""
    exam = Exam(recipe.flaws, recipe.families, num_clips)
    measured = measure(judge.eval().requires_grad_(False), attacked, exam)
    part = weights.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in judge.state_dict().items()}, part)
    part.chmod(0o644)  # safetensors writes for the owner alone
    part.replace(weights)
    report = facts | {"parameters": sum(p.numel() for p in judge.parameters())} | measured
    weights.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return measured


def _step(
    judge: FrameScorer, optimiser: torch.optim.Optimizer, recipe: JudgeRecipe, step: int, steps: int
) -> dict[str, Any]:
    """One update; returns the parts of the loss."""
    # Constant until the last third: a longer run can go on from a checkpoint before the fall.
    pace = min(1.0, (step + 1) / recipe.warmup, 3 * (steps - step) / steps)
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate * pace
    batch = draw_batch(recipe, step)
    with torch.autocast("cpu", torch.bfloat16):
        frames = judge(batch.video.flatten(0, 1)).float().unflatten(0, batch.video.shape[:2])
        named = losses(frames, batch)
        if recipe.attack_every and step >= 3 * recipe.warmup and step % recipe.attack_every == 0:
            named["attack"] = attack_loss(judge, batch, pool(frames))
    optimiser.zero_grad()
    total = torch.stack(list(named.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
    optimiser.step()
    right = (pool(frames)[:, [0, 1, 0]] > pool(frames)[:, [1, 2, 3]]).float().mean()
    return {name: round(float(value.detach()), 4) for name, value in (named | {"accuracy": right}).items()}


def _checkpoint(path: Path, parts: dict[str, Any], step: int) -> None:
    torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _resume(path: Path, parts: dict[str, Any]) -> int:
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])
