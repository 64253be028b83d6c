"""How much memory large data take: ``python -m benchmarks.reliability.sizes``; a table of docs/reliability.md.

100, 1,000 and 10,000 clips are scored by a closed form, as ``vpo score`` goes over them; pairs are looked over as at
the start of a run, again as at the next start, and all their tensors asked for; clips are trained on for a pass, with
latents of 1 MB of which 128 MB are kept. Each in a process of its own, whose growth is what counts. Files are hard
links of a few, so the disk is not measured. Writes ``benchmarks/results/reliability/sizes.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import facts
from benchmarks.speed.timing import ROOT, apart, memory

COMMAND = "python -m benchmarks.reliability.sizes"
COUNTS = (100, 1000, 10_000)
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- sizes -->\n", "<!-- end -->"
VIDEO, FPS = (9, 3, 64, 64), 8
LATENTS = (16, 5, 16, 16)
KEPT_MB = 128


def scores(place: Path, count: int) -> None:
    """Clips in a folder, judged one after the other."""
    from vpo_kit.library.score import clips_of, each
    from vpo_kit.rewards.base import Mixture
    from vpo_kit.testing.rewards import Brightness
    from vpo_kit.video import write_video

    write_video(place / "clip.mp4", torch.rand(VIDEO), FPS)
    (place / "clips").mkdir()
    for i in range(count):
        os.link(place / "clip.mp4", place / "clips" / f"{i:06d}.mp4")
    judges = Mixture([(Brightness(), 1.0)])
    (first, *_) = clips_of([place / "clip.mp4"], None)
    list(each({first: None}, judges, _stop))  # what the first clip loads is no growth
    _said(count, "score", lambda: sum(1 for _ in each(clips_of([place / "clips"], None), judges, _stop)))


def pairs(place: Path, count: int) -> None:
    """A pair set: its start, the start after it, and a pass over its tensors."""
    from tests.support.offline_run import make_set
    from vpo_kit.pairing import store
    from vpo_kit.pairing.usable import usable
    from vpo_kit.training.paired import Pairs

    made = store.read(make_set(place / "set", LATENTS, 1))
    (one,) = made.pairs
    (place / "many").mkdir()
    names = [f"latents/{i}.safetensors" for i in range(count)]
    rows = [one.model_copy(update={"id": f"p{i}", "latents": name}) for i, name in enumerate(names)]
    store.write(place / "many", made.facts, rows)
    (place / "many" / "latents").mkdir()
    for name in names:
        os.link(place / "set" / str(one.latents), place / "many" / name)

    def start() -> Any:
        return usable(store.read(place / "many"), LATENTS, lambda pair: True, print)

    def over() -> int:
        source = Pairs(place / "many", start(), [(0, 1), (1, 3), (3, 5), (5, 7), (7, 9)])
        return sum(len(source.tensors([i])["first"]) for i in range(count))

    _said(count, "pairs", lambda: len(start()), again=lambda: len(start()), over=over)


def clips(place: Path, count: int) -> None:
    """Real clips in training: a pass over their latents, which a stand-in for the autoencoder gives."""
    from vpo_kit.clips import Clip
    from vpo_kit.training.data import ClipSource
    from vpo_kit.video import Window

    window = Window(0.0, 9, 8.0)
    listed = [
        Clip(path=place, prompt=f"clip {i}", window=window, height=64, width=64, name=str(i), sha256=f"{i:064x}")
        for i in range(count)
    ]

    def encode(clip: Clip, video: object = None) -> torch.Tensor:
        return torch.full((2**18,), float(clip.name))

    source = ClipSource(listed, encode, most_bytes=KEPT_MB * 2**20)  # type: ignore[arg-type]
    _said(count, "clips", lambda: sum(len(source.tensors([i])["clip"]) for i in range(count)))


JOBS: dict[str, Callable[[Path, int], None]] = {"scores": scores, "pairs": pairs, "clips": clips}


def _said(count: int, name: str, work: Callable[[], int], **more: Callable[[], int]) -> None:
    found: dict[str, Any] = {}
    before = memory(reset=True)
    for part, act in {name: work, **more}.items():
        began = time.perf_counter()
        assert act() == count
        found[part] = {"wall_s": round(time.perf_counter() - began, 2), "memory_mb": round(memory() - before, 1)}
    print(json.dumps(found))


def _stop(clip: object, prompt: str, error: Exception) -> None:
    raise error


def table(rows: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(rows.values())))
    words = {
        "score": "`vpo score`", "pairs": "first start on pairs", "again": "next start",
        "over": "start and a pass over pairs", "clips": f"a pass over clips, `{KEPT_MB}` MB kept",
    }  # fmt: skip
    lines = ["| items | " + " | ".join(words[name] for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for count, row in rows.items():
        cells = (f"{row[name]['memory_mb']:.1f} MB, {row[name]['wall_s']:.2f} s" for name in names)
        lines.append(f"| {int(count):,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.sizes", description=__doc__)
    parser.add_argument("--job", choices=JOBS, help="one job, in this process")
    parser.add_argument("--count", type=int, default=COUNTS[0])
    given = parser.parse_args()
    if given.job:
        with tempfile.TemporaryDirectory(prefix="vpo-sizes-") as place:
            os.environ["VPO_CACHE"] = f"{place}/cache"
            JOBS[given.job](Path(place), given.count)
        return
    rows: dict[str, dict[str, Any]] = {}
    for count in COUNTS:
        parts = (apart("reliability.sizes", "--job", job, "--count", str(count)) for job in JOBS)
        rows[str(count)] = {name: row for part in parts for name, row in part.items()}
        print(count, rows[str(count)], flush=True)
        facts.write("reliability/sizes", {"command": COMMAND, "kept_mb": KEPT_MB, "sizes": rows})
        facts.fill(PAGE, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
