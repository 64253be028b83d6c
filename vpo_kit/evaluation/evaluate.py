"""Sample held-out prompts with fixed seeds, keep the videos, and measure them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from vpo_kit.errors import DataError
from vpo_kit.evaluation.statistics import Paired, paired
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.sprites import tracker, world
from vpo_kit.rewards.base import Reward
from vpo_kit.sampler import Guidance, derive_seed, draw_noise, sample
from vpo_kit.video import motion, write_video


@dataclass(frozen=True)
class Plan:
    """What is sampled: every prompt with `videos_per_prompt` seeds. The seeds do not depend on the model."""

    prompts: Sequence[str]
    videos_per_prompt: int
    settings: Settings
    batch_size: int
    seed: int

    @property
    def items(self) -> list[tuple[int, int]]:
        """``(prompt's index, video's number)`` of every video, in order."""
        return [(i, k) for i in range(len(self.prompts)) for k in range(self.videos_per_prompt)]


@dataclass(frozen=True)
class Evaluation:
    """One model's results: for each video its prompt's index, file (relative to the folder) and metrics."""

    name: str
    prompts: list[str]
    groups: list[int]
    files: list[str]
    metrics: dict[str, list[float]]

    def table(self) -> dict[str, float]:
        """Each metric's mean."""
        return {key: sum(values) / len(values) for key, values in self.metrics.items()}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / ".metrics.json.part"
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(folder / "metrics.json")

    @staticmethod
    def load(folder: Path) -> Evaluation:
        """Raises `DataError`."""
        try:
            return Evaluation(**json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{folder / 'metrics.json'} cannot be read: {error}") from error


def videos(model: VideoModel, plan: Plan) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Batches of items with their videos ``[B, F, 3, H, W]``; a video's noise depends on its own seed alone."""
    settings = plan.settings
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    conditions = model.encode_prompts(list(plan.prompts))
    guidance = Guidance(settings.guidance, model.encode_prompts([settings.negative_prompt]))
    for start in range(0, len(plan.items), plan.batch_size):
        items = plan.items[start : start + plan.batch_size]
        seeds = [derive_seed(plan.seed, "evaluation", plan.prompts[i], k) for i, k in items]
        part = conditions[[i for i, _ in items]]
        with torch.no_grad():
            noise = draw_noise(shape, seeds, model.device)
            latents = sample(model, part, noise=noise, steps=settings.steps, guidance=guidance)
            yield items, model.decode(latents)


def evaluate(
    model: VideoModel, plan: Plan, judges: Sequence[Reward], folder: Path, name: str, tick: Callable[[int], None]
) -> Evaluation:
    """Sample, write the videos and ``metrics.json`` into `folder`, and measure; `tick` gets the number just done."""
    result = Evaluation(name, list(plan.prompts), [i for i, _ in plan.items], [], {})
    for items, video in videos(model, plan):
        texts = [plan.prompts[i] for i, _ in items]
        for key, values in measure(video, texts, judges, plan.settings.fps).items():
            result.metrics.setdefault(key, []).extend(values)
        for (i, k), clip in zip(items, video, strict=True):
            result.files.append(f"{i:03d}-{k}.mp4")
            write_video(folder / result.files[-1], clip, plan.settings.fps)
        tick(len(items))
    result.save(folder)
    return result


@torch.no_grad()
def measure(video: Tensor, prompts: Sequence[str], judges: Sequence[Reward], fps: float) -> dict[str, list[float]]:
    """All metrics of `video` ``[B, F, 3, H, W]``: every judge, motion, and the closed-form truth of a sprite world."""
    found = {judge.spec.name: judge(video, prompts, fps=fps).score.float().tolist() for judge in judges}
    found["motion"] = motion(video).tolist()
    try:
        known = [world.parse(prompt) for prompt in prompts]
    except ValueError:
        return found
    pixels = video.float().cpu().numpy()
    truth = [tracker.judge(clip, scene) for clip, scene in zip(pixels, known, strict=True)]
    return found | {key: [row[key] for row in truth] for key in truth[0]}


LOWER_IS_BETTER = frozenset({"flawed"})


def compare(before: Evaluation, after: Evaluation) -> dict[str, Paired]:
    """Paired change of every metric. Raises `DataError` when the two did not see the same prompts and seeds."""
    if before.prompts != after.prompts or before.files != after.files:
        raise DataError(f"{before.name} and {after.name} were not evaluated on the same prompts and seeds")
    shared = [key for key in before.metrics if key in after.metrics]
    return {key: paired(before.metrics[key], after.metrics[key], before.groups) for key in shared}
