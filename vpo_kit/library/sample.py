"""`vpo sample`: videos from prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from vpo_kit import models
from vpo_kit.errors import ConfigError, OutputError
from vpo_kit.evaluation.evaluate import Plan, videos
from vpo_kit.prompts import read_prompts
from vpo_kit.training import loras
from vpo_kit.training import recipe as recipes
from vpo_kit.training.run import use
from vpo_kit.video import write_video


def run(
    output: Path,
    texts: Sequence[str],
    file: Path | None,
    model_name: str,
    lora: Path | None,
    seed: int,
    assignments: Sequence[str],
) -> None:
    """Write ``000-0.mp4``, ``001-0.mp4`` and so on into `output`, one for each prompt."""
    sampling = recipes.sampling_only(assignments)
    prompts = [*texts, *(read_prompts(file) if file else [])]
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise ConfigError("give --prompt TEXT or --prompts FILE")
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{output} is not empty: give another --output")
    if lora is not None:
        loras.weights_of(lora)
    model = models.load(model_name)
    settings = use(model, sampling)
    plan = Plan(prompts, 1, settings, sampling.batch_size, seed)
    console = Console()
    with loras.loaded(model, lora) if lora else nullcontext():
        for items, batch in videos(model, plan):
            for (i, k), video in zip(items, batch, strict=True):
                path = output / f"{i:03d}-{k}.mp4"
                write_video(path, video, settings.fps)
                console.print(f"{path}  {prompts[i]}", soft_wrap=True, markup=False, highlight=False)
