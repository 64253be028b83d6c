"""The second embedded model: what ships, how it was measured, and that it follows its world's captions."""

from __future__ import annotations

import json
from pathlib import Path

from vpo_kit import models
from vpo_kit.duets import build, world
from vpo_kit.duets.truth import DuetTruth
from vpo_kit.folders import EMBEDDED
from vpo_kit.prompts import read_prompts
from vpo_kit.sprites.build import measure

FOLDER = EMBEDDED["duets"]


def test_what_ships_is_small_and_safe() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20
    assert {path.suffix for path in files} == {".json", ".safetensors", ".txt", ".yaml"}


def test_nothing_that_ships_names_the_place_where_it_was_built() -> None:
    """diffusers writes where a part was loaded from into its configuration."""
    configs = [path for model in EMBEDDED.values() for path in model.rglob("*.json")]
    assert not [path for path in configs if "_name_or_path" in path.read_text(encoding="utf-8")]


def test_its_recipe_is_the_sprites_as_it_is_now(tmp_path: Path) -> None:
    build.write_recipe(tmp_path)
    assert (tmp_path / "recipe.yaml").read_text(encoding="utf-8") == (FOLDER / "recipe.yaml").read_text(
        encoding="utf-8"
    )


def test_prompts_are_the_worlds_split() -> None:
    for split in ("train", "validation", "heldout"):
        prompts = read_prompts(FOLDER / "prompts" / f"{split}.txt")
        assert prompts == [duet.caption for duet in world.captions(split)]


def test_measured_quality_is_far_from_chance_and_from_perfect() -> None:
    """Chance is one in six colours, four shapes, five motions and two speeds; the world is here because there is
    something left to gain in words.
    """
    found = json.loads((FOLDER.parent / "quality.json").read_text(encoding="utf-8"))["held_out"]
    for key, bar in {"colour": 0.8, "direction": 0.5, "shape": 0.6, "speed_class": 0.75}.items():
        assert bar <= found[key], key
    assert min(found[key] for key in ("direction", "shape")) < 0.95


def test_quality_holds_on_a_few_prompts() -> None:
    """24 prompts, so the floors are lower than the bars: this finds a broken file, not a worse model."""
    model = models.load("duets")
    captions = [duet.caption for duet in world.captions("heldout")[::6]]
    found = measure.means(DuetTruth(), measure.sampled(model, captions, 1, 24), captions)
    assert found["colour"] >= 0.7
    assert found["shape"] >= 0.45
    assert found["direction"] >= 0.3
    assert found["background"] == 1.0
