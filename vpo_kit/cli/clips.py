"""`vpo clips`: clips of the worlds that the embedded models were made on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.options import Seed, app
from vpo_kit.errors import OutputError


@app.command()
def clips(
    output: Annotated[Path, typer.Option(help="folder for the videos and metadata.jsonl")],
    count: Annotated[int, typer.Option(min=1, help="how many")] = 64,
    model: Annotated[
        Literal["sprites", "duets"], typer.Option(help="the embedded model whose world it is")
    ] = "sprites",
    seed: Seed = None,
) -> None:
    """Write real clips of an embedded model's world as a videofolder, flawed ones among them."""
    import torch

    from vpo_kit import files
    from vpo_kit.duets import world as duets
    from vpo_kit.library.display import terminal
    from vpo_kit.sprites import world as sprites
    from vpo_kit.video import write_video

    if not files.bare(output):
        raise OutputError(f"{output} is not empty: give another --output")
    worlds: dict[str, Callable[[int, int], Iterator[sprites.WorldClip | duets.DuetClip]]] = {
        "sprites": sprites.training_clips,
        "duets": duets.training_clips,
    }
    lines = []
    for i, clip in enumerate(worlds[model](count, seed or 0)):
        name = f"{i:05d}.mp4"
        write_video(output / name, torch.from_numpy(clip.video), sprites.FPS)
        flaws = [asdict(flaw) for flaw in clip.flaws]
        lines.append(json.dumps({"file_name": name, "text": clip.caption, "flaws": flaws}))
    files.write(output / "metadata.jsonl", "\n".join(lines) + "\n")
    terminal().print(f"{output}: {count} clips", soft_wrap=True)
