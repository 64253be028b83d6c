"""`vpo sample`: videos from prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import Config, Model, Seed, Set, app, of_call
from vpo_kit.errors import ConfigError


@app.command()
def sample(
    output: Annotated[Path, typer.Option(help="folder for the videos")],
    prompt: Annotated[list[str] | None, typer.Option(help="a prompt; may be given several times")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="text file, one prompt a line, or csv or jsonl, which may name pictures")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="the first frame of the videos of --prompt")] = None,
    last_image: Annotated[Path | None, typer.Option(help="their last frame")] = None,
    model: Model = None,
    lora: Annotated[Path | None, typer.Option(help="LoRA folder, or a run folder, whose settings are taken")] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Make videos, one for each prompt."""
    from functools import partial

    from vpo_kit.inputs import ImageFile, Inputs
    from vpo_kit.library.display import terminal
    from vpo_kit.library.sample import each
    from vpo_kit.prompts import read_inputs

    if (image or last_image) and not prompt:
        raise ConfigError("--image and --last-image are for --prompt: give it too, or name pictures in the file")
    first, last = (ImageFile.open(path) if path else None for path in (image, last_image))
    texts = [Inputs(text, first, last) for text in prompt or []] + (read_inputs(prompts) if prompts else [])
    if not texts:
        raise ConfigError("give --prompt TEXT or --prompts FILE")
    settings, console = of_call(set_, each), terminal()
    say = partial(console.print, soft_wrap=True, highlight=False)
    own = {**settings, "on_notice": say}
    for video in each(texts, model=model, lora=lora, output=output, seed=seed or 0, config=config, **own):
        say(f"{video.path}  {video.prompt}")
