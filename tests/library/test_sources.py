"""What is said of a run's data before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpo_kit import models
from vpo_kit.clips import Clip
from vpo_kit.errors import DataError
from vpo_kit.inputs import ImageFile, Inputs, Shade, as_image
from vpo_kit.library.sources import in_buckets, loss, of_prompts, too_many
from vpo_kit.models.settings import Settings, Size
from vpo_kit.video import Window


def clip(settings: Settings) -> Clip:
    window = Window(0.0, settings.frames, settings.fps)
    return Clip(
        path=Path("a.mp4"), prompt="a", window=window, height=settings.height, width=settings.width, name="a", sha256=""
    )


def test_clips_that_do_not_fit_memory(tiny_wan: Path) -> None:
    model = models.load(str(tiny_wan))
    settings = model.settings.changed(frames=9, height=32, width=32)
    one = 4 * 8 * 3 * 4 * 4
    assert too_many([clip(settings)] * 10, model, 10 * one) is None
    said = too_many([clip(settings)] * 11, model, 10 * one)
    assert said is not None
    assert said.startswith("the latents of 11 clips are 0.0 GB")
    assert "cache=DIR" in said
    assert too_many([clip(settings.changed(frames=81, height=480, width=832))] * 5000, model) is not None


def test_files_that_lose_much() -> None:
    assert loss({"a": 0.0, "b": 0.1}, "files") is None
    said = loss({"a": 0.0, "b": 0.3, "c": 0.5, "d": 0.05}, "files")
    assert said == "2 of 4 files lose more than 10% of their area where they are cropped; most, 50%, c"


def pictured(folder: Path, *widths: int) -> list[Inputs]:
    for width in widths:
        as_image(Shade(width).read(32, width)).save(folder / f"{width}.png")
    return [Inputs(f"prompt {width}", ImageFile.open(folder / f"{width}.png")) for width in widths]


def test_pictures_choose_their_bucket(tiny_wan: Path, tmp_path: Path) -> None:
    settings, lines = models.load(str(tiny_wan)).settings.changed(height=32, width=32), list[str]()
    items = pictured(tmp_path, 32, 34, 48, 64)
    plain = of_prompts(items, settings, [], lines.append)
    assert plain.sizes is None
    (line,) = lines
    assert line.startswith("2 of 4 pictures lose more than 10% of their area where they are cropped; most, 50%")
    assert line.endswith("64.png")
    lines.clear()
    square, wide = Size(9, 32, 32), Size(5, 32, 64)
    found = of_prompts(items[:2] + items[3:], settings, [square, wide], lines.append)
    assert found.sizes == [square, square, wide]
    assert not lines
    with pytest.raises(DataError, match=r"data\.buckets: the prompt 'a' has no image"):
        of_prompts([*items, Inputs("a")], settings, [square, wide], lines.append)


def test_buckets_are_counted() -> None:
    square, wide = Size(9, 32, 32), Size(5, 32, 64)
    assert in_buckets([square, wide], [wide, square, wide]) == (
        "buckets: 2 of 5 frames of 64 x 32, 1 of 9 frames of 32 x 32"
    )
    assert in_buckets([wide, square, wide], [wide, wide]) == (
        "buckets: 2 of 5 frames of 64 x 32, 0 of 9 frames of 32 x 32"
    )
