"""What reading the next batch's clips meanwhile saves: ``python -m benchmarks.ahead``.

A pass over 1,000 clips (`benchmarks.clips` makes the files) in batches of four, each encoded by the embedded model's
autoencoder, and between two batches a pause, in which a GPU would make its step and the processor has nothing to do.
The same pass with and without reading ahead, by turns of 25 batches. Writes ``results/ahead.json``.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import fmean

import torch

from benchmarks import facts
from benchmarks.clips import SHAPE, make, spread
from vpo_kit import models
from vpo_kit.clips import read_folder
from vpo_kit.training.data import ClipSource, Encoder

COUNT, BATCH, TURN = 1000, 4, 25
PAUSES = (0.5,)


def passes(source: ClipSource, pause: float) -> dict[str, float]:
    """Seconds a batch, the pause not counted, where the next one is read in it and where it is not."""
    took: dict[bool, list[float]] = {False: [], True: []}
    batches = [list(range(first, first + BATCH)) for first in range(0, COUNT, BATCH)]
    for number, batch in enumerate(batches):
        ahead = bool(number // TURN % 2)
        began = time.perf_counter()
        source.tensors(batch)
        if number % TURN:  # the first one of a turn was told, or not, by the other way
            took[ahead].append(time.perf_counter() - began)
        if ahead and number + 1 < len(batches):
            source.ahead(batches[number + 1])
        time.sleep(pause)
    return {"without_s": round(fmean(took[False]), 4), "ahead_s": round(fmean(took[True]), 4)}


def main() -> None:
    torch.set_num_threads(1)
    model = models.load("sprites")
    with tempfile.TemporaryDirectory(prefix="vpo-ahead-") as name:
        place = Path(name)
        os.environ["VPO_CACHE"] = str(place / "cache")
        (place / "files").mkdir()
        spread(make(place / "files"), place / "clips", COUNT)
        settings = model.settings.changed(frames=9)  # the clips last two seconds
        clips = read_folder(place / "clips", settings, max_windows=1).clips[:COUNT]
        assert len(clips) == COUNT
        found = {str(pause): passes(ClipSource(clips, Encoder(model), most_bytes=0), pause) for pause in PAUSES}
    facts.write(
        "ahead",
        {"command": "python -m benchmarks.ahead", "clips": COUNT, "batch": BATCH, "shape": SHAPE, "pauses": found},
    )
    print(found)


if __name__ == "__main__":
    main()
