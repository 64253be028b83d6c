"""The world of the embedded model: one moving shape, a caption, and flaws put in on purpose.

Shapes: a clip is float32 ``[F, 3, H, W]`` in [0, 1]; positions are pixels, speeds pixels a frame.

The training clips imitate web-scale data: some are flawed, only in a window of time, and fast clips are flawed
more often than slow ones (`FLAW_RATE`). So clean samples are biased to low motion, which is the trap that
preference optimisation of videos has to avoid.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIZE, NUM_FRAMES, FPS = 64, 17, 8

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.92, 0.16, 0.14),
    "green": (0.16, 0.80, 0.26),
    "blue": (0.22, 0.45, 0.98),
    "yellow": (0.97, 0.88, 0.18),
    "purple": (0.74, 0.24, 0.88),
    "white": (0.96, 0.96, 0.96),
}
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "black": (0.03, 0.03, 0.04),
    "navy": (0.06, 0.08, 0.30),
    "gray": (0.42, 0.42, 0.44),
    "brown": (0.32, 0.19, 0.10),
}
SHAPES = ("circle", "square", "triangle", "cross")
MOTIONS: dict[str, tuple[float, float] | None] = {
    "moving right": (1.0, 0.0),
    "moving left": (-1.0, 0.0),
    "moving up": (0.0, -1.0),
    "moving down": (0.0, 1.0),
    "circling": None,
}
SPEEDS: dict[str, tuple[float, float]] = {"slowly": (0.6, 0.9), "quickly": (1.7, 2.2)}

FLAW_RATE = {"slowly": 0.30, "quickly": 0.60}
FLAWS = ("flicker", "blur", "jitter", "freeze", "drop", "fade", "blocks", "noise")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a caption says."""

    colour: str
    shape: str
    motion: str
    speed: str
    background: str

    @property
    def caption(self) -> str:
        return f"{self.figure} on a {self.background} background"

    @property
    def figure(self) -> str:
        """The caption without the background."""
        return f"a {self.colour} {self.shape} {self.motion} {self.speed}"

    @property
    def held_out(self) -> bool:
        """Whether this is a combination of colour, shape and motion that no training clip shows (18 of 120 are)."""
        return self._class == 0

    @property
    def split(self) -> str:
        """``heldout``, ``validation`` (16 combinations that the base model has seen and that runs keep out of their
        training, to choose by) or ``train``.
        """
        return {0: "heldout", 1: "validation"}.get(self._class, "train")

    @property
    def _class(self) -> int:
        i, j, k = list(COLOURS).index(self.colour), SHAPES.index(self.shape), list(MOTIONS).index(self.motion)
        return (i + 2 * j + 3 * k) % 7


@dataclass(frozen=True)
class Flaw:
    """A flaw of one kind in the frames ``start <= f < end``; strength in [0, 1]."""

    kind: str
    start: int
    end: int
    strength: float


@dataclass(frozen=True)
class WorldClip:
    video: Array
    scene: Scene
    flaws: tuple[Flaw, ...]

    @property
    def caption(self) -> str:
        return self.scene.caption


def scenes(*, held_out: bool) -> list[Scene]:
    """All scenes of one side of the split, in a fixed order."""
    every = (
        Scene(colour=colour, shape=shape, motion=motion, speed=speed, background=background)
        for colour, shape, motion, speed, background in itertools.product(COLOURS, SHAPES, MOTIONS, SPEEDS, BACKGROUNDS)
    )
    return [scene for scene in every if scene.held_out == held_out]


def parse(caption: str) -> Scene:
    """The scene that a caption of this world describes; `ValueError` for any other text."""
    found = _BY_CAPTION.get(" ".join(caption.lower().split()))
    if found is None:
        raise ValueError(f"not a caption of the sprite world: {caption!r}")
    return found


def draw_flaws(scene: Scene, rng: np.random.Generator) -> tuple[Flaw, ...]:
    """The flaws of one training clip: none, one, or (one flawed clip in five) two."""
    if rng.random() >= FLAW_RATE[scene.speed]:
        return ()
    kinds = rng.choice(FLAWS, size=2 if rng.random() < 0.2 else 1, replace=False)
    flaws = []
    for kind in kinds:
        length = int(rng.integers(4, 10))
        start = int(rng.integers(1, NUM_FRAMES - length + 1))
        flaws.append(Flaw(str(kind), start, start + length, float(rng.random())))
    return tuple(flaws)


def render(scene: Scene, rng: np.random.Generator, flaws: tuple[Flaw, ...] = ()) -> WorldClip:
    """Draw one clip: ``[NUM_FRAMES, 3, SIZE, SIZE]``, anti-aliased, with the given flaws."""
    radius = rng.uniform(7.0, 9.0)
    path = draw_path(scene, radius, rng)
    opacity = np.ones(NUM_FRAMES)
    for flaw in flaws:
        path, opacity = _disturb_path(path, opacity, flaw, rng)
    cover = coverage(scene.shape, path, radius) * opacity[:, None, None]
    level = rng.uniform(0.92, 1.06)
    fore = np.asarray(COLOURS[scene.colour])[None, :, None, None]
    back = np.asarray(BACKGROUNDS[scene.background])[None, :, None, None] * level
    video = back + (fore - back) * cover[:, None]
    for flaw in flaws:
        video = _disturb_pixels(video, flaw, rng)
    return WorldClip(np.clip(video, 0, 1).astype(np.float32), scene, flaws)


def training_clips(count: int, seed: int, first: int = 0) -> Iterator[WorldClip]:
    """`count` training clips from number `first` on; clip ``i`` depends on ``(seed, i)`` alone."""
    pool = scenes(held_out=False)
    for i in range(first, first + count):
        rng = np.random.default_rng([seed, i])
        scene = pool[int(rng.integers(len(pool)))]
        yield render(scene, rng, draw_flaws(scene, rng))


def draw_path(scene: Scene, radius: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres ``[F, 2]`` (x, y) of a path that stays inside the picture."""
    speed = rng.uniform(*SPEEDS[scene.speed])
    time = np.arange(NUM_FRAMES) - (NUM_FRAMES - 1) / 2
    direction = MOTIONS[scene.motion]
    if direction is None:
        turn = rng.uniform(8.0, 10.0)
        angle = rng.uniform(0, 2 * np.pi) + time * speed / turn * rng.choice([-1, 1])
        path = turn * np.stack([np.cos(angle), np.sin(angle)], 1)
    else:
        path = time[:, None] * speed * np.asarray(direction)
    margin = radius + 1.5
    low, high = margin - path.min(0), SIZE - 1 - margin - path.max(0)
    return np.asarray(path + rng.uniform(low, np.maximum(low, high)))


def coverage(shape: str, path: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Share of each pixel that the shape covers, ``[F, H, W]``, from its signed distance."""
    axis = np.arange(SIZE)
    x = axis[None, None, :] - path[:, 0, None, None]
    y = axis[None, :, None] - path[:, 1, None, None]
    if shape == "circle":
        distance = np.hypot(x, y) - radius
    elif shape == "square":
        distance = np.maximum(abs(x), abs(y)) - 0.88 * radius
    elif shape == "triangle":
        slope = np.hypot(1.0, 2.0)
        distance = np.maximum(y - 0.8 * radius, (2 * abs(x) - y - 1.1 * radius) / slope)
    else:
        arm, width = 1.05 * radius, 0.36 * radius
        upright = np.maximum(abs(x) - width, abs(y) - arm)
        level = np.maximum(abs(x) - arm, abs(y) - width)
        distance = np.minimum(upright, level)
    return np.asarray(np.clip(0.5 - distance, 0, 1))


def _disturb_path(
    path: NDArray[np.float64], opacity: NDArray[np.float64], flaw: Flaw, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    path, opacity, inside = path.copy(), opacity.copy(), slice(flaw.start, flaw.end)
    if flaw.kind == "jitter":
        size = flaw.end - flaw.start
        path[inside] += rng.choice([-1.0, 1.0], (size, 2)) * rng.uniform(1.6, 2.6 + flaw.strength, (size, 2))
    elif flaw.kind == "freeze":
        path[inside] = path[flaw.start - 1]
    elif flaw.kind == "drop":  # the missing frames are cut out: a jump, and the last frame is held
        gone = np.minimum(np.arange(NUM_FRAMES) + (flaw.end - flaw.start) // 2 + 1, NUM_FRAMES - 1)
        path[flaw.start :] = path[gone[flaw.start :]]
    elif flaw.kind == "fade":
        phase = np.sin(np.pi * (np.arange(flaw.end - flaw.start) + 1) / (flaw.end - flaw.start + 1))
        opacity[inside] *= 1 - (0.75 + 0.25 * flaw.strength) * phase**0.5
    return path, opacity


def _disturb_pixels(video: NDArray[np.float64], flaw: Flaw, rng: np.random.Generator) -> NDArray[np.float64]:
    inside = slice(flaw.start, flaw.end)
    window = video[inside]
    size = len(window)
    if flaw.kind == "flicker":
        sign = np.where(np.arange(size) % 2, 1.0, -1.0)[:, None, None, None]
        window = window * (1 + sign * (0.30 + 0.15 * flaw.strength))
    elif flaw.kind == "blur":
        window = blur(window, 2.2 + 1.3 * flaw.strength)
    elif flaw.kind == "blocks":
        coarse = window.reshape(size, 3, SIZE // 8, 8, SIZE // 8, 8).mean((3, 5))
        window = coarse.repeat(8, 2).repeat(8, 3)
    elif flaw.kind == "noise":  # coarse grain without colour: finer grain would not survive the autoencoder
        grain = rng.normal(0, 0.08 + 0.06 * flaw.strength, (size, 1, SIZE // 8, SIZE // 8))
        window = window + grain.repeat(8, 2).repeat(8, 3)
    else:
        return video
    video = video.copy()
    video[inside] = window
    return video


def blur(video: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    reach = int(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (2, 3):
        pad = [(0, 0)] * 4
        pad[axis] = (reach, reach)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(video, pad, mode="edge"), 2 * reach + 1, axis)
        video = np.asarray(windows @ kernel)
    return video


_BY_CAPTION = {s.caption: s for held in (False, True) for s in scenes(held_out=held)}
