"""How FAST-VQA and DOVER look at a clip: which frames, which fragments of them, and how a map becomes scores.

Sources: Wu et al., FAST-VQA (arXiv 2207.02595), FasterVQA (arXiv 2210.05357), DOVER (arXiv 2211.04894) and the settings
files of their repositories. The published code draws every offset anew; here a seed fixes them, so that a score
depends on the video alone and the candidates of a prompt are seen through the same fragments.

Legend: ``F`` frames of the clip, ``T`` sampled frames, ``n`` positions in time of the quality map, each of
2 sampled frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 32
"""Pixels of a fragment's side."""


@dataclass(frozen=True)
class FragmentSampling:
    """`parts` runs of `length` frames, each frame `interval` after the last; `clip` of them are one clip of the net."""

    parts: int
    length: int
    interval: int
    clip: int

    @property
    def span(self) -> int:
        """Frames of video that one clip of the network covers; a shorter segment is judged inside so many."""
        return self.clip * self.interval

    def frames(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices ``[T]`` into a clip of `count` frames.

        Run i starts in the i-th of `parts` equal stretches of the clip, at a random place where the stretch is longer
        than the run; beyond the last frame the count starts again at the first, as in the published code. That
        code cuts the stretches' length to whole frames before it lays them out, which loses the end of short clips.
        """
        starts = torch.arange(self.parts) * count // self.parts
        room = count // self.parts - self.length * self.interval
        if room > 0:
            starts = starts + torch.randint(room, (self.parts,), generator=generator)
        return (starts[:, None] + torch.arange(self.length) * self.interval).flatten() % count


def normalised(video: Tensor) -> Tensor:
    """``[..., 3, H, W]`` in [0, 1], less ImageNet's mean (123.675 116.28 103.53), over its deviation, of 255."""
    mean = video.new_tensor([123.675, 116.28, 103.53]).view(3, 1, 1) / 255
    deviation = video.new_tensor([58.395, 57.12, 57.375]).view(3, 1, 1) / 255
    return (video - mean) / deviation


def cut_fragments(video: Tensor, frames: Tensor, *, grid: int, aligned: int, generator: torch.Generator) -> Tensor:
    """Fragments of the chosen frames, side by side: ``[F, 3, H, W]`` to ``[T, 3, 32 grid, 32 grid]``.

    Each frame is divided into `grid` x `grid` cells, and 32 x 32 pixels at a random place of each are kept at their own
    resolution; `aligned` frames in a row share the places. A frame smaller than the fragments together is enlarged
    first. (The published code then lays the cells out by the old size and sees only a corner; this does not.)
    """
    video = _enlarged(video, grid * SIDE)
    cell = [n // grid for n in video.shape[-2:]]
    chunks = torch.split(frames, aligned)
    down, across = (_offsets(n - SIDE, (grid, grid, len(chunks)), generator) for n in cell)
    found = []
    for t, chunk in enumerate(chunks):
        rows = []
        for i in range(grid):
            tops = [cell[0] * i + down[i][j][t] for j in range(grid)]
            lefts = [cell[1] * j + across[i][j][t] for j in range(grid)]
            places = zip(tops, lefts, strict=True)
            rows.append(torch.cat([video[chunk, :, y : y + SIDE, x : x + SIDE] for y, x in places], -1))
        found.append(torch.cat(rows, -2))
    return torch.cat(found)


def widened(segment: tuple[int, int], least: int, count: int) -> tuple[int, int]:
    """The segment with context on both sides, so that it has `least` frames, or all `count` of the clip."""
    start, end = segment
    assert 0 <= start < end <= count, f"segment {segment} is not inside a clip of {count} frames"
    size = max(end - start, min(least, count))
    low = min(max(0, (start + end - size) // 2), count - size)
    return low, low + size


def judged(
    video: Tensor,
    segments: Sequence[tuple[int, int]],
    sampling: FragmentSampling,
    look: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    seed: int,
) -> Tensor:
    """A raw score for each segment of a clip ``[F, 3, H, W]``: ``[S]``. The whole clip is the segment ``(0, F)``.

    `look` takes a stretch of the clip, the indices of its sampled frames ``[T]`` and a generator for the fragments, and
    gives the quality ``[n]``. A segment is looked at with its context (`widened` to `Sampling.span`), and only the
    positions whose frames belong to it are averaged. Segments with the same context share one look.
    """
    looks: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    scores = []
    for start, end in segments:
        low, high = widened((start, end), sampling.span, len(video))
        if (low, high) not in looks:
            generator = torch.Generator().manual_seed(seed)
            frames = sampling.frames(high - low, generator)
            looks[low, high] = look(video[low:high], frames, generator), low + frames.view(-1, 2)
        quality, times = looks[low, high]
        # A sampled frame stands for the frames up to the next one.
        inside = ((times < end) & (times + sampling.interval > start)).any(1)
        if not inside.any():  # the sampler passed over a short segment: the nearest position speaks for it
            inside = (times - (start + end) // 2).abs().amin(1).argmin() == torch.arange(len(times))
        scores.append(quality[inside.to(quality.device)].mean())
    return torch.stack(scores)


def _offsets(room: int, shape: tuple[int, ...], generator: torch.Generator) -> list[list[list[int]]]:
    found: list[list[list[int]]] = torch.randint(max(1, room), shape, generator=generator).tolist()
    return found


def _enlarged(video: Tensor, least: int) -> Tensor:
    """Both sides at least `least`, bilinear, proportions kept."""
    height, width = video.shape[-2:]
    scale = least / min(height, width)
    if scale <= 1:
        return video
    size = [max(least, round(n * scale)) for n in (height, width)]
    return functional.interpolate(video, size, mode="bilinear")
