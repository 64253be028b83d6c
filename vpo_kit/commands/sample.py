"""`vpo sample`: videos from prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from vpo_kit.errors import ConfigError
from vpo_kit.library.sample import each
from vpo_kit.prompts import read_prompts


def run(
    output: Path,
    texts: Sequence[str],
    file: Path | None,
    model: str | None,
    lora: Path | None,
    seed: int,
    config: Path | None,
    settings: Mapping[str, Any],
) -> None:
    """Write ``000-0.mp4``, ``001-0.mp4`` and so on into `output`, one for each prompt, and name them."""
    prompts = [*texts, *(read_prompts(file) if file else [])]
    if not prompts:
        raise ConfigError("give --prompt TEXT or --prompts FILE")
    console = Console()
    for video in each(prompts, model=model, lora=lora, output=output, seed=seed, config=config, **settings):
        console.print(f"{video.path}  {video.prompt}", soft_wrap=True, markup=False, highlight=False)
