"""What other libraries' errors say becomes one line, also where they say nothing."""

from __future__ import annotations

import re

import pytest

from tests.support.places import ROOT
from vpo_kit.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  one \nand more"), "one"),
        (EOFError(), "EOFError"),
        (KeyError("key"), "'key'"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_one_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_no_error_is_cut_by_hand() -> None:
    """An error without words has no first line."""
    by_hand = re.compile(r"str\(error\)[.\w()]*\.splitlines\(\)\[0\]")
    assert [path.name for path in (ROOT / "vpo_kit").rglob("*.py") if by_hand.search(path.read_text())] == []
