"""Gates of the judge for natural video: ``python -m benchmarks.natural.gates``.

Photographs of the tests, which it has not seen, under a camera, each flaw once, and one sign-gradient step within 2/255
on the judge itself. Writes how often the untouched clip is preferred, and how far the score and each term fall.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import facts
from benchmarks.natural import clips, flaws, sources
from vpo_kit.rewards.natural import Natural

PHOTOGRAPHS = Path(__file__).parents[2] / "tests" / "data" / "photographs"
COUNT, FRAMES, SIZE, STEP = 12, 13, (128, 128), 2 / 255


def scores(judge: Natural, video: Tensor) -> dict[str, float]:
    """The score and each term of one clip ``[F, 3, H, W]``."""
    with torch.no_grad():
        found = judge(video[None], fps=8)
    return {"score": float(found.score), **{name: float(value) for name, value in found.components.items()}}


def stepped(judge: Natural, video: Tensor) -> Tensor:
    """`video` after one step that raises its score, if anything does."""
    leaf = video.clone().requires_grad_(True)
    judge(leaf[None], fps=8).score.sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return (video + STEP * leaf.grad.sign()).clamp(0, 1)


def main() -> None:
    torch.set_num_threads(1)
    judge = Natural()
    material = sources.Material([sources.photo(path) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))], [])
    falls: dict[str, list[dict[str, float]]] = {}
    for i in range(COUNT):
        scene = clips.from_photos(material, np.random.default_rng([31, i]), FRAMES, SIZE)
        flawed = {"gradient step": stepped(judge, scene.video)}
        for name, flaw in flaws.GATES.items():
            rng = np.random.default_rng([32, i])
            flawed[name] = flaw(scene, rng, float(rng.random()))
        clean = scores(judge, scene.video)
        for name, video in flawed.items():
            own = scores(judge, video)
            falls.setdefault(name, []).append({term: clean[term] - own[term] for term in clean})
    gates: dict[str, Any] = {
        name: {
            "untouched preferred": sum(row["score"] > 0 for row in rows),
            "mean fall": {term: round(float(np.mean([row[term] for row in rows])), 3) for term in rows[0]},
        }
        for name, rows in falls.items()
    }
    facts.write("natural_gates", {"scenes": COUNT, "frames": FRAMES, "size": SIZE, "gates": gates})


if __name__ == "__main__":
    main()
