"""What the numbers are: for each metric its direction, unit and meaning, and in which part of a table it stands.

A metric without a direction is about motion or speed: more is not better and less is not worse, but a gain of quality
beside a loss of motion is no gain. So motion stands right below the judges in every table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vpo_kit.evaluation.statistics import Paired

Direction = Literal["higher", "lower", "neutral"]
Group = Literal["judges", "motion", "over time", "pictures", "sets", "truth", "VBench"]
GROUPS: tuple[Group, ...] = ("judges", "motion", "over time", "pictures", "sets", "truth", "VBench")


@dataclass(frozen=True)
class Metric:
    """Facts about one metric; `direction` says what is better."""

    name: str
    group: Group
    direction: Direction
    unit: str
    about: str


CATALOGUE = {
    metric.name: metric
    for metric in (
        Metric("motion", "motion", "neutral", "0 to 1", "mean change between frames, median over time"),
        Metric("flow_speed", "motion", "neutral", "px", "fastest 5% of the picture, 1/8 s, shorter side 256 px"),
        Metric("dynamic_degree", "motion", "neutral", "share", "clips that move, by VBench's rule"),
        Metric("flicker", "over time", "higher", "0 to 1", "1 less the mean change between frames (VBench)"),
        Metric("warp_error", "over time", "lower", "of 255", "mean change between frames that motion leaves"),
        Metric("smoothness", "over time", "higher", "0 to 1", "1 less the error of frames guessed from neighbours"),
        Metric("subject_consistency", "over time", "higher", "cosine", "DINO features against first and last frame"),
        Metric("background_consistency", "over time", "higher", "cosine", "the same with CLIP features"),
        Metric("sharpness", "pictures", "higher", "0 to 1", "share of the gradient that a small blur takes away"),
        Metric("diversity", "sets", "higher", "feature", "mean distance between videos of one prompt"),
        Metric("frechet", "sets", "lower", "feature^2", "Frechet distance to the reference clips"),
        Metric("kernel", "sets", "lower", "kernel", "squared kernel distance to the reference clips"),
        Metric("text_accuracy", "truth", "higher", "share", "right words of colour, shape, direction and speed"),
        Metric("flawed", "truth", "lower", "share", "clips with a flaw"),
        Metric("speed", "truth", "neutral", "px a frame", "the shape's speed"),
        Metric("colour", "truth", "higher", "share", "clips with the right colour"),
        Metric("shape", "truth", "higher", "share", "clips with the right shape"),
        Metric("direction", "truth", "higher", "share", "clips with the right direction"),
        Metric("speed_class", "truth", "higher", "share", "clips with the right word for the speed"),
        Metric("background", "truth", "higher", "share", "clips with the right background"),
    )
}


def about(name: str) -> Metric:
    """The facts of any metric: of the catalogue, of VBench (``vbench_*``), or a reward, where higher is better."""
    if name.startswith("vbench_"):
        direction: Direction = "neutral" if name == "vbench_dynamic_degree" else "higher"
        return Metric(name, "VBench", direction, "0 to 1", f"VBench's {name.removeprefix('vbench_').replace('_', ' ')}")
    return CATALOGUE.get(name) or Metric(name, "judges", "higher", "score", "a reward as a judge")


def ordered(names: Iterable[str]) -> list[str]:
    """By group, in the catalogue's order inside a group: motion comes right after the judges."""
    places = {name: place for place, name in enumerate(CATALOGUE)}
    return sorted(names, key=lambda name: (GROUPS.index(about(name).group), places.get(name, 0)))


def verdict(name: str, change: Paired) -> Literal["better", "worse", "changed", "unclear"]:
    """What a change means, told only where its corrected p is small; "changed" for a metric without direction."""
    direction = about(name).direction
    if not change.sign:
        return "unclear"
    if direction == "neutral":
        return "changed"
    return "better" if (change.sign > 0) == (direction == "higher") else "worse"
