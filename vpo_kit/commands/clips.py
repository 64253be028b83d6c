"""`vpo clips`: clips of the embedded model's world."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from vpo_kit import files
from vpo_kit.errors import OutputError
from vpo_kit.sprites import world
from vpo_kit.video import write_video


def run(output: Path, count: int, seed: int) -> None:
    """Write `count` training clips with their captions and, as truth, the windows that are flawed."""
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{output} is not empty: give another --output")
    lines = []
    for i, clip in enumerate(world.training_clips(count, seed)):
        name = f"{i:05d}.mp4"
        write_video(output / name, torch.from_numpy(clip.video), world.FPS)
        flaws = [asdict(flaw) for flaw in clip.flaws]
        lines.append(json.dumps({"file_name": name, "text": clip.scene.caption, "flaws": flaws}))
    files.write(output / "metadata.jsonl", "\n".join(lines) + "\n")
    Console().print(f"{output}: {count} clips", soft_wrap=True)
