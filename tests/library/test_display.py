"""What the terminal shows: names and prompts as they are, whatever signs they hold."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from vpo_kit.library.display import count_bar, terminal, working

NAMES = ["[/b] a cat", "Title [dQw4w9WgXcQ].mp4", "a :cat: [red]sleeps", "{a} {0}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console, table = terminal(), Table(name, title=name)
    table.add_row(name)
    console.print(name)
    console.print(table)
    assert capsys.readouterr().out.count(name) == 4


@pytest.mark.parametrize("name", NAMES)
def test_nor_is_it_beside_a_bar(name: str) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with count_bar(console, name, 3, "clips") as tick:
        tick(3)
    counted = shown.getvalue().count(name)
    assert counted
    with working(console, name):
        pass
    assert shown.getvalue().count(name) > counted
