"""The closed-form metrics on clips of known flaws: ``python -m benchmarks.degradations``; table of docs/evaluation.md.

12 quick clips of the embedded world, each as it is, frozen, and with one flaw of the world at half strength in 9 of its
17 frames. Also the processor time of the metrics for one clip, at 64 px and enlarged to 256 px. Writes
``benchmarks/results/degradations.json``.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import facts
from vpo_kit.evaluation.temporal import closed_forms
from vpo_kit.sprites import world

PAGE = Path(__file__).parent.parent / "docs" / "evaluation.md"
BEGIN, END = "<!-- table: python -m benchmarks.degradations -->", "<!-- end of table -->"
METRICS = {"flow_speed": ".1f", "flicker": ".4f", "warp_error": ".2f", "smoothness": ".4f", "sharpness": ".3f"}
"""With the digits that the page shows."""
NAMES = {"drop": "dropped frames", "freeze": "stop in the middle"}
COUNT, WINDOW, STRENGTH = 12, (4, 13), 0.5


def clips(speed: str, *flaws: world.Flaw) -> Tensor:
    """``[COUNT, 17, 3, 64, 64]`` of one speed, of scenes spread over all; clip ``i`` is drawn from seed ``i``."""
    pool = [scene for scene in world.scenes(held_out=False) if scene.speed == speed]
    scenes = [pool[i * len(pool) // COUNT] for i in range(COUNT)]
    made = [world.render(scene, np.random.default_rng(i), flaws).video for i, scene in enumerate(scenes)]
    return torch.from_numpy(np.stack(made))


def measured(video: Tensor) -> dict[str, float]:
    return {key: round(mean(values), 5) for key, values in closed_forms(video, world.FPS).items()}


def seconds(video: Tensor, rounds: int) -> float:
    """Median processor time of the metrics of one clip ``[1, F, 3, H, W]``."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        closed_forms(video, world.FPS)
        found.append(time.process_time() - began)
    return round(median(found), 3)


def main() -> None:
    torch.set_num_threads(1)
    clean = clips("quickly")
    rows: dict[str, dict[str, float]] = {"clean": measured(clean), "frozen": measured(clean[:, :1].expand_as(clean))}
    for kind in world.FLAWS:
        rows[NAMES.get(kind, kind)] = measured(clips("quickly", world.Flaw(kind, *WINDOW, STRENGTH)))
    large = functional.interpolate(clean[0], size=(256, 256), mode="bilinear")[None]
    found: dict[str, Any] = {
        "command": "python -m benchmarks.degradations",
        "clips": {"count": COUNT, "frames": world.NUM_FRAMES, "flawed frames": WINDOW, "strength": STRENGTH},
        "metrics": rows,
        "slow clean clips": measured(clips("slowly")),
        "processor seconds of a clip": {"64 px": seconds(clean[:1], 5), "256 px": seconds(large, 3)},
    }
    facts.write("degradations", found)
    lines = [f"| | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{row[key]:{digits}}' for key, digits in METRICS.items())} |")
    facts.fill(PAGE, BEGIN, END, "\n".join(["", *lines, ""]))


if __name__ == "__main__":
    main()
