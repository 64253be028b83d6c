"""What is said of a run's data before it begins."""

from __future__ import annotations

from pathlib import Path

from vpo_kit import models
from vpo_kit.inputs import ImageFile, Inputs, Shade, as_image
from vpo_kit.library.sources import cropped, too_many


def test_clips_that_do_not_fit_memory(tiny_wan: Path) -> None:
    model = models.load(str(tiny_wan))
    settings = model.settings.changed(frames=9, height=32, width=32)
    one = 4 * 8 * 3 * 4 * 4
    assert too_many(10, model, settings, 10 * one) is None
    said = too_many(11, model, settings, 10 * one)
    assert said is not None
    assert said.startswith("the latents of 11 clips are 0.0 GB")
    assert "cache=DIR" in said
    assert too_many(5000, model, settings.changed(frames=81, height=480, width=832)) is not None


def test_pictures_that_lose_much(tiny_wan: Path, tmp_path: Path) -> None:
    settings = models.load(str(tiny_wan)).settings.changed(height=32, width=32)
    items = []
    for i, width in enumerate((32, 34, 48, 64)):
        as_image(Shade(i).read(32, width)).save(tmp_path / f"{i}.png")
        items.append(Inputs("a", ImageFile.open(tmp_path / f"{i}.png")))
    assert cropped(items[:2], settings) is None
    said = cropped([*items, items[3], Inputs("a", Shade())], settings)
    assert said is not None
    assert said.startswith("2 of 4 pictures lose more than 10% where they are cropped to 32 x 32; most, 50%")
    assert said.endswith("3.png")
