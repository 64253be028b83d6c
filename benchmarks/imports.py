"""How long `vpo pair import` takes without latents, and how much memory: ``python -m benchmarks.imports``.

Ten thousand rows of twenty thousand videos, no two alike: a few clips are coded, and each file is one of them with a
box of its own behind it (ISO 14496-12's ``free``), so that nothing is found by its content. A tenth of the rows for
comparison.
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import facts
from vpo_kit.video import write_video

ROWS = (1_000, 10_000)
FRAMES, SIZE, FPS = 16, 128, 8


def build(folder: Path, rows: int) -> Path:
    """A table in the plain layout, with its videos."""
    generator = torch.Generator().manual_seed(0)
    (folder / "videos").mkdir(parents=True)
    contents = []
    for i in range(16):
        write_video(folder / f"{i}.mp4", 0.5 + 0.1 * torch.rand(FRAMES, 3, SIZE, SIZE, generator=generator), FPS)
        contents.append((folder / f"{i}.mp4").read_bytes())
        (folder / f"{i}.mp4").unlink()
    for i in range(2 * rows):
        box = (16).to_bytes(4, "big") + b"free" + i.to_bytes(8, "big")
        (folder / "videos" / f"{i:06d}.mp4").write_bytes(contents[i % 16] + box)
    table = folder / "set.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "first", "second", "verdict"])
        for i in range(rows):
            names = [f"videos/{2 * i + k:06d}.mp4" for k in range(2)]
            writer.writerow([f"prompt {i // 4}", *names, ("first", "second", "tie")[i % 3]])
    return table


def measure(rows: int) -> dict[str, Any]:
    """Of one import in a process of its own: seconds, the peak of its memory, and that the same again is faster."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = build(folder / "in", rows)
        environment = {**os.environ, "VPO_CACHE": str(folder / "cache")}
        took = []
        for turn in range(2):
            arguments = ["pair", "import", str(table), "--output", str(folder / f"{turn}")]
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "vpo_kit", *arguments], check=True, env=environment, capture_output=True
            )
            took.append(round(time.perf_counter() - began, 1))
        lines = (folder / "0" / "metadata.jsonl").read_text().splitlines()
        assert len(lines) == rows, len(lines)
    # of all children so far: rows are measured from few to many
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"rows": rows, "videos": 2 * rows, "seconds": took[0], "seconds_again": took[1], "peak_bytes": peak}


if __name__ == "__main__":
    facts.write("imports", {"frames": FRAMES, "size": SIZE, "imports": [measure(rows) for rows in ROWS]})
