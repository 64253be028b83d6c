"""Flaws planted in natural clips: the gates that the judge must pass, and more that it learns from.

A flaw is a function of (clip, rng, strength from 0 to 1) to a video ``[F, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from benchmarks.natural.clips import Clip, Rng, blobs
from vpo_kit.rewards.soften import blur

Flaw = Callable[[Clip, Rng, float], Tensor]


# ------------------------------------------------------------------------------------------------ the gates


def frozen(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """One frame for the whole clip."""
    video = clip.video
    return video[int(rng.integers(len(video)))].expand_as(video).clone()


def doubled(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """Each frame twice, or three times."""
    video, hold = clip.video, 2 if strength < 0.7 else 3
    return video[torch.arange(len(video)) // hold * hold]


def temporal_blur(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """Each frame the mean of two to five neighbours."""
    video, width = clip.video, 2 + int(3.99 * strength)
    before = width // 2
    padded = torch.cat([video[:1]] * before + [video] + [video[-1:]] * (width - 1 - before))
    return torch.stack([padded[i : i + width].mean(0) for i in range(len(video))])


def cross_fade(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """Only every few frames are kept, and between two of them one fades into the other."""
    video = clip.video
    step = 3 + int(strength * (len(video) - 4))
    keys = sorted({*range(0, len(video), step), len(video) - 1})
    times = torch.arange(len(video))
    after = torch.searchsorted(torch.tensor(keys), times, right=True).clamp(1, len(keys) - 1)
    low, high = torch.tensor(keys)[after - 1], torch.tensor(keys)[after]
    share = ((times - low) / (high - low)).clamp(0, 1)[:, None, None, None]
    return video[low] * (1 - share) + video[high] * share


def noise(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """Grain of deviation 3 to 12 of 255, new in each frame."""
    return grain(clip.video, rng, 3 + 9 * strength)


def unsharp(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """An unsharp mask of 50 to 200 percent and a radius of 0.7 to 2 pixels."""
    return masked(clip.video, rng, 0.5 + 1.5 * strength)


def slow_warp(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """A smooth displacement that swells and ebbs over 8 to 20 frames, 2 to 6 of 256 pixels."""
    frames, _, height, width = clip.fine.shape
    cells, period = int(rng.integers(4, 9)), rng.uniform(8, 20)
    bases = functional.interpolate(_normal(rng, 3, 2, cells, cells), (height, width), mode="bicubic")
    time = np.arange(frames)
    waves = [np.sin(2 * np.pi * time / (period * rng.uniform(0.7, 1.5)) + rng.uniform(0, 6)) for _ in range(3)]
    move = torch.einsum("kf,kchw->fchw", torch.from_numpy(np.stack(waves)).float(), bases)
    return _displaced(clip, move / move.square().mean().sqrt() * (2 + 4 * strength) * height / 256)


GATES: dict[str, Flaw] = {
    "frozen": frozen,
    "frames doubled": doubled,
    "temporal blur": temporal_blur,
    "cross-fade": cross_fade,
    "noise": noise,
    "unsharp mask": unsharp,
    "slow warp": slow_warp,
}
"""Beside these, a gradient step of 2/255 on the judge itself."""


# ------------------------------------------------------------------------------------------------- more


def jitter(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """The picture shakes."""
    frames, _, height, width = clip.fine.shape
    move = _normal(rng, frames, 2, 1, 1).expand(-1, -1, height, width)
    return _displaced(clip, move * (1 + 4 * strength) * height / 256)


def boil(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """A smooth displacement, new in each frame."""
    frames, _, height, width = clip.fine.shape
    raw = _normal(rng, frames, 2, height // 20, width // 20)
    move = functional.interpolate(raw, (height, width), mode="bicubic")
    return _displaced(clip, move * (1 + 3 * strength) * height / 256)


def redrawn(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """Fine texture that is drawn anew in each frame, while what is coarse stays."""
    frames, _, height, width = clip.fine.shape
    coarse = blur(clip.fine, 3.0)
    raw = _normal(rng, frames, 2, height // 16, width // 16)
    move = functional.interpolate(raw, (height, width), mode="bicubic") * (2 + 6 * strength) * height / 256
    return functional.avg_pool2d((coarse + _warped(clip.fine - coarse, move)).clamp(0, 1), 2)


def flicker(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """Brightness that jumps."""
    video = clip.video
    return (video * (1 + _normal(rng, len(video), 1, 1, 1) * (0.02 + 0.1 * strength))).clamp(0, 1)


def morph(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """A part of the picture slowly turns into another, and back."""
    video = clip.video
    frames, _, height, width = video.shape
    other = video.roll((int(rng.integers(height // 5, height // 2)), int(rng.integers(width // 5, width // 2))), (2, 3))
    phase = np.arange(frames) / rng.uniform(8, 24) + rng.random()
    share = torch.from_numpy(0.5 - 0.5 * np.cos(2 * np.pi * phase)).float()[:, None, None, None]
    return video + (other - video) * _part(rng, frames, height, width) * share * (0.3 + 0.7 * strength)


def pop(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """A part of the picture comes and goes from frame to frame."""
    video = clip.video
    frames, _, height, width = video.shape
    behind = blur(functional.interpolate(functional.avg_pool2d(video, 8), (height, width), mode="bilinear"), 4.0)
    gone = torch.from_numpy((rng.random(frames) < 0.5).astype(np.float32))
    gone[int(rng.integers(frames))] = 1
    share = gone[:, None, None, None] * (0.25 + 0.75 * strength)
    return video + (behind - video) * _part(rng, frames, height, width) * share


def ghost(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """A trail of an earlier frame."""
    video, lag = clip.video, int(rng.integers(2, 5))
    past = video[(torch.arange(len(video)) - lag).clamp(min=0)]
    return video + (past - video) * (0.15 + 0.35 * strength)


def shuffled(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """Frames out of order."""
    video = clip.video
    order = np.argsort(np.arange(len(video)) + rng.uniform(-1, 1, len(video)) * (0.8 + 3 * strength))
    if (order == np.arange(len(video))).all():
        order[:2] = 1, 0
    return video[order]


def jump(clip: Clip, rng: Rng, strength: float) -> Tensor:
    """Frames are missing: a jump, and the last frame held at the end."""
    video = clip.video
    at, times = int(rng.integers(2, len(video) - 2)), torch.arange(len(video))
    return video[torch.where(times >= at, (times + int(2 + 4 * strength)).clamp(max=len(video) - 1), times)]


MORE: dict[str, Flaw] = {
    "jitter": jitter, "boil": boil, "redrawn": redrawn, "flicker": flicker, "morph": morph, "pop": pop, "ghost": ghost,
    "shuffled": shuffled, "jump": jump,
}  # fmt: skip
WHOLE = frozenset({"frozen", "frames doubled", "cross-fade", "slow warp", "shuffled", "jump"})
"""Not confined to a window of time."""


def inside(name: str, clip: Clip, rng: Rng, strength: float, window: tuple[int, int] | None) -> Tensor:
    """The flaw in the frames of a window, or everywhere."""
    flawed = (GATES | MORE)[name](clip, rng, strength)
    if window is None:
        return flawed
    video = clip.video.clone()
    video[slice(*window)] = flawed[slice(*window)]
    return video


# -------------------------------------------------------------------------------- of pictures, by amount


def grain(video: Tensor, rng: Rng, deviation: float) -> Tensor:
    """Grain of a deviation in 255ths."""
    return (video + _normal(rng, *video.shape) * deviation / 255).clamp(0, 1)


def masked(video: Tensor, rng: Rng, amount: float) -> Tensor:
    """An unsharp mask of a random radius."""
    return (video + amount * (video - blur(video, rng.uniform(0.7, 2.0)))).clamp(0, 1)


def enlarged(video: Tensor, factor: float) -> Tensor:
    """From `factor` of the size."""
    size = [round(side * factor) for side in video.shape[-2:]]
    less = functional.interpolate(video, size, mode="bilinear", antialias=True)
    return functional.interpolate(less, video.shape[-2:], mode="bicubic").clamp(0, 1)


# ---------------------------------------------------------------------------- what a judge must not mind


Coding = list[tuple[str, float]]


def draw_coding(rng: Rng) -> Coding:
    """What files leave of a clip: softness, JPEG's blocks, a palette's dither, or two of them. All copies of a clip get
    the same, so none of it decides a pair; a published clip has been through some of it.
    """
    kinds = ["", "soft", "jpeg", "palette", "soft jpeg", "soft palette"]
    drawn = str(rng.choice(kinds, p=[0.3, 0.15, 0.15, 0.15, 0.15, 0.1]))
    amounts = {"soft": (0.3, 1.1), "jpeg": (35, 90), "palette": (0, 0)}
    return [(kind, float(rng.uniform(*amounts[kind]))) for kind in drawn.split()]


def coded(video: Tensor, coding: Coding) -> Tensor:
    for kind, amount in coding:
        video = blur(video, amount) if kind == "soft" else _through_files(video, kind, amount)
    return video


def _through_files(video: Tensor, kind: str, amount: float) -> Tensor:
    pixels = (video.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    middle = Image.fromarray(pixels[len(pixels) // 2]).resize((64, 64))  # its palette takes a second at full size
    palette = middle.quantize(256, method=Image.Quantize.MEDIANCUT)
    frames = []
    for frame in pixels:
        image = Image.fromarray(frame)
        if kind == "jpeg":
            file = io.BytesIO()
            image.save(file, "JPEG", quality=int(amount))
            image = Image.open(file)
        else:
            image = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")
        frames.append(np.asarray(image))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


# ------------------------------------------------------------------------------------------------- pieces


def _displaced(clip: Clip, move: Tensor) -> Tensor:
    """The fine clip looked up at displacements ``[F, 2, 2H, 2W]``, brought to its size."""
    return functional.avg_pool2d(_warped(clip.fine, move), 2)


def _warped(video: Tensor, move: Tensor) -> Tensor:
    height, width = video.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    grid = torch.stack([(x + move[:, 0]) * 2 / (width - 1) - 1, (y + move[:, 1]) * 2 / (height - 1) - 1], -1)
    return functional.grid_sample(video, grid, padding_mode="border", align_corners=True)


def _part(rng: Rng, frames: int, height: int, width: int) -> Tensor:
    """A soft mask that drifts."""
    side = min(height, width)
    drift = np.arange(frames)[:, None] * rng.normal(0, 0.01, 2) * height
    centres = rng.uniform(0.25, 0.75, 2) * np.array([width, height]) + drift
    radius = rng.uniform(0.15, 0.35) * side
    return blobs(rng, centres, radius, 0.0, (height, width), soft=0.25 * radius)


def _normal(rng: Rng, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
