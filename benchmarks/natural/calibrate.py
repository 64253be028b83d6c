"""Units of the terms of the judge for natural video that are not learned, for weights that are there:
``python -m benchmarks.natural.calibrate --packages DIR --debian DIR --weights FILE``.

Clean contents get mean 0 and deviation 1, by clips of the split that choices are made on, and `VETO` more, as what
they measure counts late.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.natural import flaws, sources
from benchmarks.natural.clips import from_footage, from_photos
from vpo_kit.rewards.natural import PAIR_SIDE, VETO, brought_to, over_pairs, pair_facts

CLIPS, FRAMES = 24, 16


@torch.no_grad()
def pair_units(material: sources.Material) -> Tensor:
    """Units ``[2, 2]`` of how rigid and how alive clean clips are, half of them footage, coded as files are."""
    scores = []
    for i in range(CLIPS):
        rng = np.random.default_rng([78, i])
        clip = (from_footage if i % 2 else from_photos)(material, rng, FRAMES, (128, 128))
        small = brought_to(flaws.coded(clip.video, flaws.draw_coding(rng)), PAIR_SIDE)
        scores.append(over_pairs(pair_facts(small[:-1], small[1:])))
    found = torch.stack(scores)
    return torch.stack([with_veto(unit) for unit in torch.stack([found.mean(0), found.std(0)], 1)])


def with_veto(unit: Tensor) -> Tensor:
    """The unit of a term that counts late."""
    return torch.stack([unit[0] - VETO * unit[1], unit[1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("packages", "debian", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    state = load_file(given.weights)
    units = state["units"].float()
    if len(units) == 3:  # of before these terms, when likeness counted at once
        units = torch.cat([units[:2], with_veto(units[2])[None], torch.zeros(2, 2)])
    units[3:] = pair_units(sources.load("check", given.packages, given.debian))
    save_file({**state, "units": units.half()}, given.weights)
    print(units.tolist())


if __name__ == "__main__":
    main()
