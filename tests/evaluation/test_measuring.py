"""A good and a bad clip, or set of clips, for every metric there is: which of them a table calls better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vpo_kit.evaluation import distances
from vpo_kit.evaluation.consistency import consistency
from vpo_kit.evaluation.features import diversity
from vpo_kit.evaluation.measuring import load, measure
from vpo_kit.evaluation.metrics import about, known, verdict
from vpo_kit.evaluation.pictured import agreement
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.inputs import Inputs
from vpo_kit.sprites import world
from vpo_kit.sprites.truth import SpriteTruth
from vpo_kit.testing.rewards import Brightness

SCENE = world.Scene(colour="red", shape="circle", motion="moving right", speed="quickly", background="navy")


def shown(*flaws: str, scene: world.Scene = SCENE) -> Tensor:
    """A clip ``[1, 17, 3, 64, 64]`` of the scene."""
    put = [world.Flaw(kind, 4, 13, 0.6) for kind in flaws]
    return torch.from_numpy(world.render(scene, np.random.default_rng(0), put).video)[None]


def by_pixels(name: str, flaw: str, scene: world.Scene = SCENE) -> Callable[[], tuple[float, float]]:
    """The metric of the clip as it is and with a flaw in it."""

    def find() -> tuple[float, float]:
        good, bad = (
            measure(clip, [SCENE.caption], [], 8, load(["temporal"]))[name][0]
            for clip in (shown(scene=scene), shown(flaw, scene=scene))
        )
        return good, bad

    return find


def by_truth(name: str, **changes: str) -> Callable[[], tuple[float, float]]:
    """The metric of a clip under its caption, and of one that shows something else."""

    def find() -> tuple[float, float]:
        wrong = replace(SCENE, **changes)
        good, bad = (
            measure(shown(scene=scene), [SCENE.caption], [], 8, truth=SpriteTruth())[name][0]
            for scene in (SCENE, wrong)
        )
        return good, bad

    return find


def seen(name: str, *flaws: str) -> float:
    """What the trackers see of a clip of the caption."""
    return measure(shown(*flaws), [SCENE.caption], [], 8, truth=SpriteTruth())[name][0]


@dataclass(frozen=True)
class Frame:
    """A frame of the clip as the picture that a video was made from."""

    number: int
    key: str = ""

    def read(self, height: int, width: int) -> Tensor:
        return shown()[0, self.number]


def by_pictures(name: str) -> tuple[float, float]:
    """Of a clip that begins and ends with its pictures, and of another one."""
    given = [Inputs(SCENE.caption, Frame(0), Frame(-1))]
    good, bad = (agreement(clip, given)[name][0] for clip in (shown(), shown(scene=replace(SCENE, background="gray"))))
    return good, bad


def by_features(name: str) -> tuple[float, float]:
    """Of clips and sets of clips as networks see them: rows of features."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 4, generator=generator)
    if name == "diversity":
        return diversity(rows[:4], [0] * 4)[0], diversity(0.1 * rows[:4], [0] * 4)[0]
    if name in distances.DISTANCES:
        near, far, reference = (np.asarray(part, np.float64) for part in (rows[:20], rows[:20] + 2, rows[20:]))
        return tuple(distances.DISTANCES[name](part, reference) for part in (near, far))  # type: ignore[return-value]
    still, changing = rows[:1].expand(5, 4), rows[:5]
    return float(consistency(still[None])), float(consistency(changing[None]))


CLIPS: dict[str, Callable[[], tuple[float, float]]] = {
    "flicker": by_pixels("flicker", "flicker"),
    "warp_error": by_pixels("warp_error", "noise"),
    "smoothness": by_pixels("smoothness", "jitter"),
    "sharpness": by_pixels("sharpness", "blur"),
    "flawed": lambda: (seen("flawed"), seen("flawed", "flicker")),
    "first_frame": lambda: by_pictures("first_frame"),
    "last_frame": lambda: by_pictures("last_frame"),
    "text_accuracy": by_truth("text_accuracy", colour="green", shape="square"),
    "colour": by_truth("colour", colour="green"),
    "shape": by_truth("shape", shape="square"),
    "direction": by_truth("direction", motion="moving left"),
    "speed_class": by_truth("speed_class", speed="slowly"),
    "background": by_truth("background", background="black"),
    **{
        name: lambda name=name: by_features(name)  # type: ignore[misc]
        for name in ("diversity", "frechet", "kernel", "subject_consistency", "background_consistency")
    },
}
MOVES = ("motion", "flow_speed", "dynamic_degree", "speed")
"""More of these is not better, and less of them not worse."""


def change(before: float, after: float) -> Paired:
    return Paired(before=before, after=after, difference=after - before, low=0, high=1, win_rate=None, count=9, p=0.01)


def test_every_metric_is_here() -> None:
    assert set(known()) == {*CLIPS, *MOVES}


@pytest.mark.parametrize("name", CLIPS)
def test_the_better_clip_is_called_better(name: str) -> None:
    good, bad = CLIPS[name]()
    assert good != bad
    assert verdict(name, change(bad, good)) == "better"
    assert verdict(name, change(good, bad)) == "worse"


def test_more_motion_is_more_and_neither_better_nor_worse() -> None:
    slow, quick = (
        measure(shown(scene=scene), [scene.caption], [], 8, load(["temporal"]), SpriteTruth())
        for scene in (replace(SCENE, speed="slowly"), SCENE)
    )
    for name in MOVES:
        assert slow[name][0] < quick[name][0]
        assert verdict(name, change(slow[name][0], quick[name][0])) == "changed"
    assert about("vbench_dynamic_degree").direction == "neutral"


def test_of_a_judge_and_of_vbench_more_is_better() -> None:
    bright, dark = (
        measure(clip, ["p"], [Brightness()], 8)["brightness"][0] for clip in (shown() * 0 + 0.9, shown() * 0)
    )
    assert verdict("brightness", change(dark, bright)) == "better"
    assert verdict("vbench_subject_consistency", change(0.1, 0.2)) == "better"
