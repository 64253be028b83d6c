"""Is a reward fit to train on? Direction, frozen copies, gradient, batches, segments and speed, on the sprite world.

Each probe gives one or more findings: what was looked at, the figure, and whether it is as it must be. A finding
without a verdict is for the reader: the sprites are no photographs, and a reward of single frames cannot see motion.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vpo_kit.rewards.base import Reward, RewardOutput
from vpo_kit.sprites import world

PICTURE_FLAWS = ("blur", "noise", "blocks", "flicker")
"""Those that every judge of quality should see; the world's other flaws are in the motion."""
WINDOW, STRENGTH = (4, 13), 0.8
ENOUGH = 0.75
"""Share of pairs that must be in the right order."""
REPEATS = 3


@dataclass(frozen=True)
class JudgeFinding:
    """`passed` is None where the figure is for the reader alone."""

    what: str
    figure: str
    passed: bool | None


@dataclass(frozen=True)
class FlawedClips:
    """Clean clips ``[B, F, 3, H, W]``, their captions, and their copies with each flaw in frames 4 to 12."""

    video: Tensor
    captions: list[str]
    flawed: dict[str, Tensor]

    @staticmethod
    def draw(count: int, seed: int, device: torch.device) -> FlawedClips:
        """Scenes of the side of the world that no training clip shows; clip ``i`` depends on ``(seed, i)`` alone."""
        rng = np.random.default_rng(seed)
        pool = world.scenes(held_out=True)
        scenes = [pool[int(i)] for i in rng.choice(len(pool), count, replace=count > len(pool))]

        def render(*flaws: world.Flaw) -> Tensor:
            rngs = [np.random.default_rng([seed, i]) for i in range(count)]
            drawn = [world.render(scene, rng, flaws).video for scene, rng in zip(scenes, rngs, strict=True)]
            return torch.from_numpy(np.stack(drawn)).to(device)

        flawed = {kind: render(world.Flaw(kind, *WINDOW, STRENGTH)) for kind in world.FLAWS}
        return FlawedClips(render(), [scene.caption for scene in scenes], flawed)


Probe = Callable[[Reward, FlawedClips, Tensor], Iterator[JudgeFinding]]
"""A reward, clips, and what the reward says of the clean ones, ``[B]``; nothing where a probe does not apply."""


def check(reward: Reward, clips: FlawedClips) -> list[JudgeFinding]:
    """All findings about `reward`, which must be frozen and on the clips' device."""
    probes: list[Probe] = [scale, direction, prompts, static_clone, gradient, batches, segments, speed]
    clean = _score(reward, clips.video, clips.captions)
    return [finding for probe in probes for finding in probe(reward, clips, clean)]


def scale(reward: Reward, clips: FlawedClips, clean: Tensor) -> Iterator[JudgeFinding]:
    """Must be finite."""
    spread = f"{float(clean.mean()):.4g} +- {float(clean.std()):.2g}"
    figure = f"{spread}, {float(clean.min()):.4g} to {float(clean.max()):.4g}"
    yield JudgeFinding("clean clips", figure, bool(torch.isfinite(clean).all()))


def direction(reward: Reward, clips: FlawedClips, clean: Tensor) -> Iterator[JudgeFinding]:
    """Clean above flawed; a must, over the flaws of the picture, for a judge that needs no prompt."""
    shares = {}
    for kind, video in clips.flawed.items():
        drop = clean - _score(reward, video, clips.captions)
        shares[kind] = float((drop > 0).float().mean())
        yield JudgeFinding(
            f"clean above {kind}", f"{shares[kind]:.0%} of pairs, {float(drop.mean()):+.3g} on average", None
        )
    share = float(np.mean([shares[kind] for kind in PICTURE_FLAWS]))
    passed = share >= ENOUGH if not reward.spec.needs_prompt else None
    yield JudgeFinding("clean above flaws of the picture", f"{share:.0%} of pairs", passed)


def prompts(reward: Reward, clips: FlawedClips, clean: Tensor) -> Iterator[JudgeFinding]:
    """The clip's own caption above another clip's, for a reward that reads it."""
    if not reward.spec.needs_prompt:
        return
    others = [next(t for t in clips.captions[i:] + clips.captions if t != own) for i, own in enumerate(clips.captions)]
    gain = clean - _score(reward, clips.video, others)
    share = float((gain > 0).float().mean())
    yield JudgeFinding("own caption above another", f"{share:.0%} of pairs, {float(gain.mean()):+.3g}", share >= ENOUGH)


def static_clone(reward: Reward, clips: FlawedClips, clean: Tensor) -> Iterator[JudgeFinding]:
    """The share of clips whose copy, frozen at one frame, scores as high or higher.

    A reward of single frames lies near one half, as one frame is above the mean as often as below it.
    """
    length = clips.video.shape[1]
    chosen = [(7 * i + 3) % length for i in range(len(clips.video))]
    frozen = torch.stack([clip[k : k + 1].expand_as(clip) for clip, k in zip(clips.video, chosen, strict=True)])
    share = float((_score(reward, frozen, clips.captions) >= clean).float().mean())
    yield JudgeFinding("frozen copy preferred", f"{share:.0%} of clips", share <= ENOUGH)


def gradient(reward: Reward, clips: FlawedClips, clean: Tensor) -> Iterator[JudgeFinding]:
    """The gradient with respect to the pixels of flawed clips; at a clean clip a reward may be at its best, with no
    gradient.
    """
    if not reward.spec.differentiable:
        return
    video = torch.stack([clips.flawed[kind][0] for kind in PICTURE_FLAWS]).requires_grad_()
    score = reward(video, clips.captions[:1] * len(video), fps=world.FPS).score
    if not score.requires_grad:
        yield JudgeFinding("gradient", "none: the score is cut off from the pixels", False)
        return
    (found,) = torch.autograd.grad(score.sum(), video)
    sizes = found.flatten(1).norm(dim=1)
    passed = bool(torch.isfinite(found).all()) and bool((sizes > 0).all())
    yield JudgeFinding("gradient", f"norm {float(sizes.min()):.2g} to {float(sizes.max()):.2g}", passed)


def batches(reward: Reward, clips: FlawedClips, clean: Tensor) -> Iterator[JudgeFinding]:
    """A batch scores as its clips one by one do."""
    pairs = zip(clips.video, clips.captions, strict=True)
    alone = torch.cat([_score(reward, video[None], [caption]) for video, caption in pairs])
    difference = (clean - alone).abs()
    passed = bool((difference <= 1e-4 + 1e-4 * alone.abs()).all())
    yield JudgeFinding("batch of 1 and of n", f"differ by {float(difference.max()):.1g} at most", passed)


def segments(reward: Reward, clips: FlawedClips, clean: Tensor) -> Iterator[JudgeFinding]:
    """Shape, and how often the lowest of three segments is the noisy one."""
    if not reward.spec.per_segment:
        return
    parts = [(0, WINDOW[0]), WINDOW, (WINDOW[1], clips.video.shape[1])]
    with torch.no_grad():
        found = reward(clips.flawed["noise"], clips.captions, fps=world.FPS, segments=parts).segments
    passed = found is not None and found.shape == (len(clips.video), 3) and bool(torch.isfinite(found).all())
    share = float((found.argmin(1) == 1).float().mean()) if passed and found is not None else 0.0
    yield JudgeFinding("segments", f"the noisy one is lowest in {share:.0%} of clips", passed)


def speed(reward: Reward, clips: FlawedClips, clean: Tensor) -> Iterator[JudgeFinding]:
    """Milliseconds a clip, alone, without gradient: the median of some runs."""
    took = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        float(_score(reward, clips.video[:1], clips.captions[:1]))  # float() waits for the device
        took.append(time.perf_counter() - start)
    frames, _, height, width = clips.video.shape[1:]
    size = f"{frames} frames of {height} x {width} on {clips.video.device.type}"
    yield JudgeFinding("time", f"{1000 * float(np.median(took)):.0f} ms a video ({size})", None)


@torch.no_grad()
def _score(reward: Reward, video: Tensor, captions: list[str]) -> Tensor:
    found: RewardOutput = reward(video, captions, fps=world.FPS)
    return found.score.float().cpu()
