"""A page for each family with a recipe, whose tables are those of the recipes and their plans."""

from __future__ import annotations

import re

import pytest

from benchmarks import families
from tests.support.places import ROOT
from vpo_kit.recipes.shelf import Ready, ready


def test_the_pages_are_up_to_date() -> None:
    for path, text in families.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: make plans"


def test_every_family_has_a_page_in_the_menu() -> None:
    wanted = {one.family for one in ready()}
    assert {path.stem for path in (ROOT / "docs" / "families").glob("*.md")} == wanted
    menu = (ROOT / "mkdocs.yml").read_text()
    assert set(re.findall(r"families/(.+)\.md$", menu, re.MULTILINE)) == wanted
    for one in ready():
        assert f"\nvpo init {one}\n" in families.page(one.family).read_text()


def test_recipes_of_a_method_have_the_same_source() -> None:
    """So it stands on the page that all families share, and once."""
    text = families.SHARED.read_text()
    for method in {one.method for one in ready()}:
        assert len(re.findall(rf"^\| `{method}` \|", text, re.MULTILINE)) == 1, method


def test_comments_of_a_recipe() -> None:
    one = Ready("cogvideox-5b", "dpo", 40)
    assert families.comment(one, families.SIZES) == "Sizes, steps and guidance: the model's own (docs/models.md)."
    assert families.comment(one, families.NUMBERS).endswith("which had a batch of 256.")
    assert families.comment(one, families.HOUR).endswith("both get worse: a lower rate.")
    with pytest.raises(ValueError, match="cogvideox-5b --method dpo --memory 40GB: no comment begins with Colour"):
        families.comment(one, "Colour")
