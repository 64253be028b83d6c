"""Text of the pages against its ground, by the stylesheet's own colours, in light and dark: WCAG 2.2, level AA."""

from __future__ import annotations

import re
from importlib import resources

import pytest

BASE, *REST = (
    resources.files(f"vpo_kit.{package}").joinpath(name).read_text(encoding="utf-8")
    for package, name in (("pages", "base.css"), ("pages", "page.css"), ("labelling.people", "page.html"))
)
ON_PAPER = ("ink", "soft", "link", "good", "bad", "moved")
GROUNDS = ("warn", "first", "second", "tie")
DRAWN = ("focus", *(f"c{i}" for i in range(6)))
"""What is no text needs 3:1; series of a legend are told by their marks."""


def colours(scheme: str) -> dict[str, str]:
    """The custom colours of a scheme: dark ones are laid over the light ones."""
    light, dark = re.findall(r":root \{(.*?)\}", BASE, re.DOTALL)
    found = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", light))
    return found | (dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", dark)) if scheme == "dark" else {})


def luminance(colour: str) -> float:
    """The relative luminance of ``#rrggbb``, 0 to 1 (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_itself() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str) -> None:
    found = colours(scheme)
    assert min(contrast(found[name], found["paper"]) for name in ON_PAPER) >= 4.5
    assert min(contrast(found[name], found["on"]) for name in GROUNDS) >= 4.5
    assert min(contrast(found[name], found["paper"]) for name in DRAWN) >= 3


def test_no_other_colour_is_used() -> None:
    """Whatever is coloured has a name that is held above, but for the black that videos lie on."""
    assert set(colours("light")) == {*ON_PAPER, *GROUNDS, *DRAWN, "paper", "on", "line"}
    rules = BASE[BASE.index("* { box-sizing") :] + "".join(sheet.split("</style>")[0] for sheet in REST)
    assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;, ])", rules)) <= {"#000", "#000c"}
    assert not set(re.findall(r"opacity: ([\d.]+)", rules)) - {"1"}
