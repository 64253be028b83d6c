"""`vpo clips`: clips of the embedded model's world."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import Seed, app
from vpo_kit.errors import OutputError


@app.command()
def clips(
    output: Annotated[Path, typer.Option(help="folder for the videos and metadata.jsonl")],
    count: Annotated[int, typer.Option(min=1, help="how many")] = 64,
    seed: Seed = None,
) -> None:
    """Write real clips of the embedded model's world as a videofolder, flawed ones among them."""
    import torch

    from vpo_kit import files
    from vpo_kit.library.display import terminal
    from vpo_kit.sprites import world
    from vpo_kit.video import write_video

    if not files.bare(output):
        raise OutputError(f"{output} is not empty: give another --output")
    lines = []
    for i, clip in enumerate(world.training_clips(count, seed or 0)):
        name = f"{i:05d}.mp4"
        write_video(output / name, torch.from_numpy(clip.video), world.FPS)
        flaws = [asdict(flaw) for flaw in clip.flaws]
        lines.append(json.dumps({"file_name": name, "text": clip.scene.caption, "flaws": flaws}))
    files.write(output / "metadata.jsonl", "\n".join(lines) + "\n")
    terminal().print(f"{output}: {count} clips", soft_wrap=True)
