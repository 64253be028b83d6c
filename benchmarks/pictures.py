"""The pictures in docs: ``python -m benchmarks.pictures sheet|duets|change|moving``.

`sheet` samples the embedded models on held-out prompts; `duets` draws clips of two sprites, clean and flawed; `change`
shows the demo run's videos before and after, frame by frame, and `moving` as videos.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imsave
from PIL import Image
from torch import Tensor

from vpo_kit import models
from vpo_kit.duets import world
from vpo_kit.evaluation.samples import Results, SamplePlan, videos
from vpo_kit.folders import EMBEDDED, prompts_of
from vpo_kit.prompts import read_prompts
from vpo_kit.video import read_video

DOCS = Path(__file__).parent.parent / "docs" / "images"
FRAMES = slice(0, 17, 2)


def strip(video: Tensor, gap: int = 2) -> np.ndarray:
    """Every second frame of one clip ``[F, 3, H, W]``, side by side."""
    frames = torch.nn.functional.pad(video[FRAMES], (gap, 0, gap, 0), value=1.0)
    return np.concatenate([frame.permute(1, 2, 0).numpy() for frame in frames], 1)


def sheet(count: int = 12) -> None:
    """`count` held-out prompts of each embedded model, seed 0, one row each."""
    for name in EMBEDDED:
        file = prompts_of(name, "heldout")
        assert file is not None
        prompts = read_prompts(file)
        chosen = [prompts[37 * i % len(prompts)] for i in range(count)]  # an even step would keep to one background
        model = models.load(name)
        plan = SamplePlan(inputs=chosen, videos_per_prompt=1, settings=model.settings, batch_size=count, seed=0)
        rows = [strip(clip) for _, batch in videos(model, plan) for clip in batch]
        imsave(DOCS / f"{name}_sheet.png", np.concatenate(rows).clip(0, 1))
        (DOCS / f"{name}_sheet.txt").write_text("\n".join(chosen) + "\n")


def duets(kinds: tuple[str, ...] = ("", "swap", "merge", "ringing", "tear", "hue")) -> None:
    """Held-out captions of the world of two sprites, as they are drawn: the first clean, the others with a flaw."""
    chosen = [world.captions("heldout")[29 * i % 144] for i in range(len(kinds))]
    rows, lines = [], []
    for i, (kind, duet) in enumerate(zip(kinds, chosen, strict=True)):
        flaws = (world.DuetFlaw(kind, 5, 12, 5),) if kind else ()
        rows.append(strip(torch.from_numpy(world.render(duet, np.random.default_rng(i), flaws).video)))
        lines.append(f"{duet.caption}: {f'{kind} in frames 5 to 11' if kind else 'clean'}\n")
    imsave(DOCS / "duets.png", np.concatenate(rows).clip(0, 1))
    (DOCS / "duets.txt").write_text("".join(lines))


def most_changed(run: Path, count: int) -> list[tuple[Tensor, Tensor]]:
    """The videos before and after ``[F, 3, H, W]`` of the prompts with the biggest rise of the reward."""
    folders = sorted((run / "samples").glob("step-*"))
    before, after = Results.load(folders[0]), Results.load(folders[-1])
    chosen = np.argsort(-np.subtract(after.metrics["vqa"], before.metrics["vqa"]))[:count]
    first, last = (
        [read_video(folder / before.files[i]).frames for i in chosen] for folder in (folders[0], folders[-1])
    )
    return list(zip(first, last, strict=True))


def change(run: Path = Path("runs/demo"), count: int = 6) -> None:
    """Before above, after below, every second frame."""
    rows = []
    for pair in most_changed(run, count):
        rows.append(np.pad(np.concatenate([strip(clip) for clip in pair]), ((0, 8), (0, 0), (0, 0)), constant_values=1))
    imsave(DOCS / "before_after.png", np.concatenate(rows).clip(0, 1))


def moving(run: Path = Path("runs/demo"), count: int = 6, times: int = 2, gap: int = 4) -> None:
    """A loop of the videos side by side, `times` as large: before above, after below."""
    columns = [
        torch.cat([torch.nn.functional.pad(clip, (gap, 0, gap, 0), value=1.0) for clip in pair], 2)
        for pair in most_changed(run, count)
    ]
    pixels = (torch.cat(columns, 3).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    pictures = [Image.fromarray(frame.repeat(times, 0).repeat(times, 1)) for frame in pixels]
    # one palette for all frames: with one each the still parts flicker
    palette = Image.fromarray(np.concatenate(pixels)).quantize(64, dither=Image.Dither.NONE)
    shown = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    shown[0].save(
        DOCS / "before_after.gif", save_all=True, append_images=shown[1:], duration=125, loop=0, optimize=True
    )


if __name__ == "__main__":
    DOCS.mkdir(parents=True, exist_ok=True)
    {"sheet": sheet, "duets": duets, "change": change, "moving": moving}[sys.argv[1]]()
