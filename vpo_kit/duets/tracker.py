"""What a clip of two sprites shows, read from its pixels alone: each shape's words, the background, and flaws.

Shapes: a video is ``[F, 3, H, W]`` in [0, 1], F >= 6. The two colours that most pixels have, of those that the world
knows, are found first; each pixel is then so much of either over the background. With one taken off, the other is a
clip of one sprite, which `sprites.tracker` reads; frames in which they touch tell nothing of shape and place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vpo_kit.duets.world import Duet
from vpo_kit.sprites import tracker as sprites
from vpo_kit.sprites.tracker import Array, Bools, Floats, Track
from vpo_kit.sprites.world import COLOURS, Scene

LIKE = 0.24  # RGB distance within which a pixel is of one of the world's colours
LEAST_PIXELS, LEAST_FRAMES = 25, 4  # fewer are no second shape
SOLID, TOUCH, NEAR = 0.3, 3, 2  # coverage of a shape's own pixels; how many of them may lie within how many pixels
EXCHANGED = 8.0  # pixels by which two colours move less where they change places than where each stays
STRANGE = 40  # pixels of a colour that neither shape has
WORDS = ("colour", "shape", "direction", "speed_class")


@dataclass(frozen=True)
class SeenDuet:
    """The reading of one clip; of one shape, or none, where no other is seen."""

    tracks: tuple[Track, ...]
    background: str
    flaws: tuple[str, ...]


def track(video: Array) -> SeenDuet:
    """Read a clip ``[F, 3, H, W]``; `ValueError` for another array shape or fewer than 6 frames."""
    video = sprites.readable(video)
    back = np.median(video[:, :, ::2, ::2].reshape(len(video), 3, -1), 2)
    found, counts = _colours(video, back)
    if len(found) < 2:
        whole = sprites.track(video)
        return SeenDuet((whole,) if found else (), whole.background, (*whole.flaws, "alone"))
    contrasts = np.stack(found) - np.median(back, 0)
    covers = np.clip(_shares(video - back[:, :, None, None], contrasts), 0, 1)
    touching = _touching(covers)
    swapped = _swapped(covers, touching)
    tracks = []
    for other in (1, 0):
        rest = video - covers[:, other, None] * contrasts[other][None, :, None, None].astype(np.float32)
        tracks.append(sprites.track(rest, hidden=touching | swapped))
    own = {"swap": swapped.sum() >= 2, "strange": (counts > STRANGE).sum() >= 2}
    flaws = [*(flaw for one in tracks for flaw in one.flaws), *(name for name, fired in own.items() if fired)]
    return SeenDuet(tuple(tracks), tracks[0].background, tuple(dict.fromkeys(flaws)))


def judge(video: Array, duet: Duet) -> dict[str, float]:
    """How well a clip ``[F, 3, H, W]`` fits its duet: the share of right words, each shape against the figure of the
    caption that it fits best, and the flaws.
    """
    seen = track(video)
    orders = ((0, 1), (1, 0))
    read = [_words(seen, duet, order) for order in orders]
    words = max(read, key=lambda found: (sum(map(sum, found.values())), sum(found["colour"])))
    shares = {name: sum(values) / 2 for name, values in words.items()}
    speed = float(np.mean([one.speed for one in seen.tracks])) if seen.tracks else 0.0
    rest = {"text_accuracy": sum(shares.values()) / len(WORDS), "flawed": float(bool(seen.flaws)), "speed": speed}
    return shares | {"background": float(seen.background == duet.first.background)} | rest


def _words(seen: SeenDuet, duet: Duet, order: tuple[int, int]) -> dict[str, list[float]]:
    """Right words of both figures, by kind, where track ``order[k]`` is that of figure ``k``."""
    rows = [
        _right(seen.tracks[k] if k < len(seen.tracks) else None, figure)
        for k, figure in zip(order, duet.figures, strict=True)
    ]
    return {name: [row[i] for row in rows] for i, name in enumerate(WORDS)}


def _right(one: Track | None, figure: Scene) -> tuple[float, ...]:
    if one is None:
        return (0.0,) * len(WORDS)
    pairs = (
        (one.colour, figure.colour),
        (one.shape, figure.shape),
        (one.motion, figure.motion),
        (one.pace, figure.speed),
    )
    return tuple(float(seen == said) for seen, said in pairs)


def _colours(video: Array, back: Array) -> tuple[list[Floats], Floats]:
    """The colours ``[3]`` of up to two shapes as they are in this clip, those that most pixels have first; and in each
    frame ``[F]`` the pixels that have a third.
    """
    palette = np.asarray(list(COLOURS.values()), np.float32)
    pixels = video.transpose(0, 2, 3, 1).reshape(len(video), -1, 3)
    far = ((pixels - back[:, None]) ** 2).sum(2)
    distance = (pixels**2).sum(2)[..., None] - 2 * pixels @ palette.T + (palette**2).sum(1)
    nearest, least = distance.argmin(2), distance.min(2)
    label = np.where((least < LIKE**2) & (least < far), nearest, -1)
    counts = np.stack([(label == k).sum(1) for k in range(len(palette))], 1)  # [F, colours]
    order = np.argsort(-counts.clip(max=200).sum(0))
    enough = [int(k) for k in order[:2] if (counts[:, k] >= LEAST_PIXELS).sum() >= LEAST_FRAMES]
    found = [np.median(pixels[label == k], 0).astype(np.float64) for k in enough]
    return found, counts[:, order[2]].astype(np.float64)


def _shares(excess: Array, contrasts: Floats) -> Array:
    """How much ``[F, 2, H, W]`` of each of two contrasts ``[2, 3]`` the difference to the background is made of."""
    shares = np.linalg.pinv(contrasts.T).astype(np.float32)
    return np.asarray(np.einsum("kc,fchw->fkhw", shares, excess), np.float32)


def _touching(covers: Array) -> Bools:
    """The frames ``[F]`` in which two shapes, ``[F, 2, H, W]``, are within `NEAR` pixels of each other."""
    first, second = covers[:, 0] > SOLID, covers[:, 1] > SOLID
    wide = first.copy()
    for axis in (1, 2):
        near = [np.roll(wide, shift, axis) for shift in range(-NEAR, NEAR + 1)]
        wide = np.any(near, 0)
    return np.asarray((wide & second).sum((1, 2)) > TOUCH)


def _swapped(covers: Array, touching: Bools) -> Bools:
    """The frames ``[F]`` in which two shapes ``[F, 2, H, W]`` have each other's colour: of the two ways, the rarer."""
    solid = np.where(covers > SOLID, covers, 0).astype(np.float64)
    mass = solid.sum((2, 3))
    places = [(solid * axis).sum((2, 3)) / np.maximum(mass, 1) for axis in np.indices(solid.shape[2:])]
    centre = np.stack(places, 2)  # [F, 2, 2]
    known = ~touching & (mass > LEAST_PIXELS).all(1)

    def moved(order: slice) -> Floats:
        return np.asarray(np.linalg.norm(centre[1:] - centre[:-1, order], axis=2).sum(1))

    turned = known[1:] & known[:-1] & (moved(slice(None)) - moved(slice(None, None, -1)) > EXCHANGED)
    state = np.concatenate([[False], np.cumsum(turned) % 2 == 1])
    return np.asarray(state if state.mean() <= 0.5 else ~state)
