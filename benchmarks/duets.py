"""How well the tracker of the world of two sprites reads it: ``python -m benchmarks.duets``.

Clean clips of the world's prompts as they are drawn, softened as by an autoencoder, and through the embedded model's
own; training clips; and each flaw by itself, beside how often the judges put the clean clip first, both equally soft.
Three minutes of one thread. Writes ``results/duets.json`` and the table of docs/duets.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import facts
from vpo_kit import models
from vpo_kit.duets import tracker, world
from vpo_kit.registry import REWARDS
from vpo_kit.rewards.base import Reward
from vpo_kit.rewards.soften import Softness, soften
from vpo_kit.sprites.world import Array

CLEAN, DECODED, TRAINING, EACH = 288, 96, 400, 24
PAGE = Path(__file__).parents[1] / "docs" / "duets.md"
JUDGES = ("vqa", "gold", "gold2")
KEYS = ("text_accuracy", *tracker.WORDS, "background", "flawed")


def main() -> None:
    found: dict[str, Any]
    rng = np.random.default_rng(11)
    pool = [*world.captions("train"), *world.captions("heldout")]
    duets = [pool[int(i)] for i in rng.choice(len(pool), CLEAN, replace=False)]
    drawn = [world.render(duet, rng).video for duet in duets]
    soft = [soften(torch.from_numpy(video), Softness.draw(rng, 1.0), rng).numpy() for video in drawn]
    training = list(world.training_clips(TRAINING, seed=99))
    found = {
        "clean clips": _means(zip(drawn, duets, strict=True)),
        "clean clips, softened": _means(zip(soft, duets, strict=True)),
        "clean clips, decoded": _means(zip(_decoded(drawn[:DECODED]), duets[:DECODED], strict=True)),
        "training clips": _means((clip.video, clip.duet) for clip in training),
        "training clips with a flaw": round(float(np.mean([bool(clip.flaws) for clip in training])), 3),
        "counts": {"clean": CLEAN, "decoded": DECODED, "training": TRAINING, "each flaw": EACH},
        "flaws": {},
    }
    judges = {name: REWARDS.load(name)().eval() for name in JUDGES}
    for kind in world.FLAWS:
        triples = list(_flawed(kind, pool, rng))
        pairs = [_softened(clean, flawed, rng) for clean, flawed, _ in triples]
        found["flaws"][kind] = {
            **_means((flawed, duet) for _, flawed, duet in triples),
            **{f"{name}: clean first": _first(judge, pairs) for name, judge in judges.items()},
        }
        print(kind, found["flaws"][kind], flush=True)
    facts.write("duets", found)
    facts.fill(PAGE, "<!-- duets: python -m benchmarks.duets -->\n", "<!-- end of duets -->", _table(found))


def _table(found: Mapping[str, Any]) -> str:
    """The figures of the page: a row for each kind of clip and each flaw."""
    kinds = [key for key in found if key.endswith(("clips", "softened", "decoded"))]
    rows = {**{key: found[key] for key in kinds}, **{f"`{kind}`": row for kind, row in found["flaws"].items()}}
    columns = ("text_accuracy", "direction", "flawed", *(f"{name}: clean first" for name in JUDGES))
    heads = ("clips", "words", "direction", "called flawed", *(f"clean first: `{name}`" for name in JUDGES))
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        cells = [f"{row[key]:g}" if key in row else "" for key in columns]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines) + "\n"


def _flawed(kind: str, pool: list[world.Duet], rng: np.random.Generator) -> Iterable[tuple[Array, Array, world.Duet]]:
    """A clean clip, the same with a flaw, and what they show."""
    for _ in range(EACH):
        duet, seed = pool[int(rng.integers(len(pool)))], int(rng.integers(2**31))
        flaw = world.draw_flaw(kind, rng)
        clean, flawed = (world.render(duet, np.random.default_rng(seed), flaws).video for flaws in ((), (flaw,)))
        yield clean, flawed, duet


def _softened(clean: Array, flawed: Array, rng: np.random.Generator) -> torch.Tensor:
    softness = Softness.draw(rng, 1.0)
    return torch.stack([soften(torch.from_numpy(video), softness, rng) for video in (clean, flawed)])


@torch.no_grad()
def _first(judge: Reward, pairs: Iterable[torch.Tensor]) -> float:
    """The share of pairs ``[2, F, 3, H, W]`` whose clean clip, the first, has the higher score."""
    scores = [judge(pair, None, fps=8).score for pair in pairs]
    return round(float(np.mean([float(score[0] > score[1]) for score in scores])), 3)


@torch.no_grad()
def _decoded(videos: list[Array]) -> list[Array]:
    model = models.load("sprites")
    parts = torch.split(torch.stack([torch.from_numpy(video) for video in videos]), 12)
    return [clip.numpy() for part in parts for clip in model.decode(model.encode(part))]


def _means(clips: Iterable[tuple[Array, world.Duet]]) -> dict[str, float]:
    rows = [tracker.judge(video, duet) for video, duet in clips]
    return {key: round(float(np.mean([row[key] for row in rows])), 3) for key in KEYS}


if __name__ == "__main__":
    main()
