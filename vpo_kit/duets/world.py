"""A second made world, harder than the sprites': two shapes of two colours at once, the first before the second.

Shapes: a clip is float32 ``[F, 3, H, W]`` in [0, 1]; positions are pixels, speeds pixels a frame.

Its training clips are flawed as the sprites' are, in windows of time and the quick ones more often, but by other flaws:
none is among those that `vqa` and `gold` were taught (`degrade.UNTAUGHT`), and some are of two shapes alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpo_kit.rewards import degrade
from vpo_kit.rewards.degrade.drawn import Drawn
from vpo_kit.sprites.world import (
    BACKGROUNDS,
    COLOURS,
    FLAW_RATE,
    MOTIONS,
    NUM_FRAMES,
    SHAPES,
    SIZE,
    SPEEDS,
    Array,
    Scene,
    coverage,
    draw_path,
)

Floats = NDArray[np.float64]

OWN_FLAWS = ("swap", "merge", "vanish")
"""The two exchange their colours; they meet in one place and one colour; one of them is not there."""
FLAWS = (*degrade.UNTAUGHT, *OWN_FLAWS)
REDRAWN = ("teleport", "comb")
"""Flaws that draw the clip again, and would undo one that came before them."""
SEVERITIES = (2, 3, 4, 5)
LEAST_APART = 11
"""Frames in which the shapes do not touch: so many tell what each is and how it moves."""
RADII = (7.0, 8.5)
PER_COMBINATION = 8
"""Captions of a split for each combination of colour, shape and motion."""


@dataclass(frozen=True)
class Duet:
    """What a caption says: two scenes of one background and different colours, the first before the second."""

    first: Scene
    second: Scene

    @property
    def figures(self) -> tuple[Scene, Scene]:
        return self.first, self.second

    @property
    def caption(self) -> str:
        return f"{self.first.figure} and {self.second.figure} on a {self.first.background} background"

    @property
    def split(self) -> str:
        """``heldout`` where one of them is a combination that no training clip of either world shows, ``validation``
        where one is of those that runs keep out of their training, else ``train``.
        """
        return min((figure.split for figure in self.figures), key=("heldout", "validation", "train").index)


@dataclass(frozen=True)
class DuetFlaw:
    """A flaw of one kind in the frames ``start <= f < end``; severity 2 to 5."""

    kind: str
    start: int
    end: int
    severity: int

    @property
    def window(self) -> tuple[int, int]:
        return self.start, self.end


@dataclass(frozen=True)
class DuetClip:
    video: Array
    duet: Duet
    flaws: tuple[DuetFlaw, ...]

    @property
    def caption(self) -> str:
        return self.duet.caption


def parse(caption: str) -> Duet:
    """The duet that a caption of this world describes; `ValueError` for any other text."""
    words = " ".join(caption.lower().split())
    figures, _, rest = words.partition(" on a ")
    first, _, second = figures.partition(" and ")
    found = [_by_caption().get(f"{figure} on a {rest}") for figure in (first, second)]
    if found[0] is None or found[1] is None or found[0].colour == found[1].colour:
        raise ValueError(f"not a caption of the world of two sprites: {caption!r}")
    return Duet(found[0], found[1])


@functools.cache
def captions(split: str) -> tuple[Duet, ...]:
    """The duets whose captions are the prompts of a split, chosen evenly: each combination that makes a split what it
    is has `PER_COMBINATION` of them, first and second, slow and quick as often, beside partners in turn.
    """
    keys = [combo for combo in _combinations() if _scene(*combo).split == split]
    others = [combo for combo in _combinations() if _scene(*combo).split == "train"]
    order = np.random.default_rng(17).permutation(len(others))
    partners = itertools.cycle([others[i] for i in order])
    speeds, backgrounds, chosen = list(SPEEDS), list(BACKGROUNDS), dict[str, Duet]()
    for turn, (number, key) in itertools.product(range(PER_COMBINATION), enumerate(keys)):
        background = backgrounds[(turn + number) % len(backgrounds)]
        own = _scene(*key, speed=speeds[turn // 2 % 2], background=background)
        for other in partners:
            beside = _scene(*other, speed=speeds[(turn // 4 + number) % 2], background=background)
            duet = Duet(own, beside) if turn % 2 else Duet(beside, own)
            if other[0] != own.colour and duet.caption not in chosen:
                break
        chosen[duet.caption] = duet
    return tuple(chosen.values())


def draw_flaws(duet: Duet, rng: np.random.Generator) -> tuple[DuetFlaw, ...]:
    """The flaws of one training clip: none, one, or (one flawed clip in five) two."""
    if rng.random() >= np.mean([FLAW_RATE[figure.speed] for figure in duet.figures]):
        return ()
    kinds = rng.choice(FLAWS, size=2 if rng.random() < 0.2 else 1, replace=False)
    flaws = [draw_flaw(str(kind), rng) for kind in kinds]
    return tuple(sorted(flaws, key=lambda flaw: flaw.kind not in REDRAWN))


def draw_flaw(kind: str, rng: np.random.Generator) -> DuetFlaw:
    """A flaw of 4 to 9 frames; of a swap fewer than half of the clip, or the caption would be wrong instead."""
    length = int(rng.integers(4, 9 if kind == "swap" else 10))
    start = int(rng.integers(1, NUM_FRAMES - length + 1))
    return DuetFlaw(kind, start, start + length, int(rng.choice(SEVERITIES)))


def render(duet: Duet, rng: np.random.Generator, flaws: tuple[DuetFlaw, ...] = ()) -> DuetClip:
    """Draw one clip: ``[NUM_FRAMES, 3, SIZE, SIZE]``, anti-aliased, with the given flaws."""
    redraw = functools.partial(_draw, _Parts.drawn(duet, rng, [flaw for flaw in flaws if flaw.kind in OWN_FLAWS]))
    video = redraw(np.arange(NUM_FRAMES, dtype=np.float64))
    for flaw in flaws:
        if flaw.kind not in OWN_FLAWS:
            clip = Drawn(video, redraw, "duet")
            video = degrade.UNTAUGHT[flaw.kind](clip, flaw.window, flaw.severity, rng)
    return DuetClip(video.clamp(0, 1).numpy(), duet, flaws)


def training_clips(count: int, seed: int, first: int = 0) -> Iterator[DuetClip]:
    """`count` training clips from number `first` on; clip ``i`` depends on ``(seed, i)`` alone."""
    pool = [scene for scene in _by_caption().values() if not scene.held_out]
    for i in range(first, first + count):
        rng = np.random.default_rng([seed, i])
        front = pool[int(rng.integers(len(pool)))]
        while True:
            second = pool[int(rng.integers(len(pool)))]
            if second.colour != front.colour and second.background == front.background:
                break
        duet = Duet(front, second)
        yield render(duet, rng, draw_flaws(duet, rng))


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What one clip is drawn from: for each shape its radius, its path ``[F, 2]``, and each frame's colour ``[F, 3]``
    and opacity ``[F]``; the background's colour ``[3]``, and which shape's flaws of place and opacity are.
    """

    duet: Duet
    radii: tuple[float, float]
    paths: tuple[Floats, Floats]
    colours: tuple[Floats, Floats]
    opacities: tuple[Floats, Floats]
    background: Floats
    main: int

    @staticmethod
    def drawn(duet: Duet, rng: np.random.Generator, flaws: Sequence[DuetFlaw]) -> _Parts:
        radii = float(rng.uniform(*RADII)), float(rng.uniform(*RADII))
        first, second = draw_paths(duet, radii, rng)
        main, level = int(rng.integers(2)), rng.uniform(0.92, 1.06)
        colours = [np.tile(COLOURS[figure.colour], (NUM_FRAMES, 1)) for figure in duet.figures]
        opacities = np.ones(NUM_FRAMES), np.ones(NUM_FRAMES)
        for flaw in flaws:
            inside = slice(*flaw.window)
            if flaw.kind == "swap":
                colours[0][inside], colours[1][inside] = colours[1][inside].copy(), colours[0][inside].copy()
            elif flaw.kind == "vanish":
                opacities[main][inside] = 0.0
            else:
                # pulled together and apart again, of one colour while they are together
                pull = np.sin(np.pi * (np.arange(flaw.end - flaw.start) + 0.5) / (flaw.end - flaw.start)) ** 0.5
                gap = 0.5 * pull[:, None] * (second[inside] - first[inside])
                first[inside], second[inside] = first[inside] + gap, second[inside] - gap
                blend = 0.5 * pull[:, None] * (colours[1][inside] - colours[0][inside])
                colours[0][inside], colours[1][inside] = colours[0][inside] + blend, colours[1][inside] - blend
        return _Parts(
            duet=duet,
            radii=radii,
            paths=(first, second),
            colours=(colours[0], colours[1]),
            opacities=opacities,
            background=np.asarray(BACKGROUNDS[duet.first.background]) * level,
            main=main,
        )


def draw_paths(duet: Duet, radii: tuple[float, float], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Centres ``[F, 2]`` (x, y) of both shapes, which are apart in at least `LEAST_APART` frames, wherever that can be
    drawn in a hundred tries; else those that are apart for longest.
    """
    best: tuple[int, Floats, Floats] | None = None
    for _ in range(100):
        first, second = (draw_path(figure, radius, rng) for figure, radius in zip(duet.figures, radii, strict=True))
        apart = int((np.linalg.norm(first - second, axis=1) > 1.15 * sum(radii) + 1.0).sum())
        if best is None or apart > best[0]:
            best = apart, first, second
        if apart >= LEAST_APART:
            break
    assert best is not None
    return best[1], best[2]


def _draw(parts: _Parts, time: Floats, opacity: Floats | None = None, shift: Floats | None = None) -> Tensor:
    """The clip ``[F, 3, H, W]`` at the times ``[F]``; opacity and shift are the main shape's."""
    frames = np.arange(NUM_FRAMES)
    video = np.tile(parts.background[None, :, None, None], (len(time), 1, SIZE, SIZE))
    for k in (1, 0):  # the first is before the second
        path = np.stack([np.interp(time, frames, parts.paths[k][:, axis]) for axis in (0, 1)], 1)
        shown = parts.opacities[k]
        if k == parts.main:
            path = path if shift is None else path + shift
            shown = shown if opacity is None else shown * opacity
        cover = (coverage(parts.duet.figures[k].shape, path, parts.radii[k]) * shown[:, None, None])[:, None]
        video = video + (parts.colours[k][:, :, None, None] - video) * cover
    return torch.from_numpy(video.astype(np.float32)).clamp(0, 1)


def _combinations() -> list[tuple[str, str, str]]:
    return list(itertools.product(COLOURS, SHAPES, MOTIONS))


def _scene(colour: str, shape: str, motion: str, *, speed: str = "slowly", background: str = "black") -> Scene:
    return Scene(colour=colour, shape=shape, motion=motion, speed=speed, background=background)


@functools.cache
def _by_caption() -> dict[str, Scene]:
    every = (
        _scene(*combo, speed=speed, background=background)
        for combo, speed, background in itertools.product(_combinations(), SPEEDS, BACKGROUNDS)
    )
    return {scene.caption: scene for scene in every}
