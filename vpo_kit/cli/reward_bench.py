"""`vpo reward bench`: judges against people, on sets in other people's layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vpo_kit.cli.options import Columns, Separator, Set, Words, named, of_reward
from vpo_kit.cli.reward import reward_app
from vpo_kit.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_LEFT_OUT = 10


@reward_app.command("bench")
def bench_reward(
    sets: Annotated[list[Path], typer.Argument(help="tables (csv, jsonl, json, parquet) or folders with one")],
    output: Annotated[Path, typer.Option(help="a .json file; a Markdown file and the scores go beside it")],
    reward: Annotated[list[str] | None, typer.Option(help="judges; given several times", show_default="vqa")] = None,
    layout: Annotated[str | None, typer.Option(help="of the tables", show_default="what their columns say")] = None,
    column: Columns = None,
    word: Words = None,
    separator: Separator = None,
    dimension: Annotated[list[str] | None, typer.Option(help="what people judged", show_default="all")] = None,
    set_: Set = None,
) -> None:
    """Set judges against people's verdicts and ratings, beside judges that know nothing."""
    from vpo_kit.judged.layouts import Reading
    from vpo_kit.library.display import terminal
    from vpo_kit.library.judge_bench import JudgeBench

    reading = Reading(layout, named("--column", column), named("--word", word), separator)
    if output.suffix != ".json":
        raise ConfigError(f"--output {output}: give the name of a .json file")
    bench, console = JudgeBench(sets, reward or ["vqa"], of_reward(set_), reading, dimension or []), terminal()
    for facts in bench.each(output, console):
        _show(console, facts)
    beside = ", ".join(path.name for path in bench.write(output))
    console.print(f"written: {output}, {beside}", soft_wrap=True, highlight=False)


def _show(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what was read of a set, a table for each dimension and measure, and what the probes found."""
    from rich.table import Table
    from rich.text import Text

    from vpo_kit.library import judge_tables

    console.print(f"{facts['name']}: {judge_tables.size(facts)}", highlight=False)
    for line in facts["left_out"][:SHOWN_LEFT_OUT]:
        console.print(f"left out: {line}", soft_wrap=True, highlight=False)
    if len(facts["left_out"]) > SHOWN_LEFT_OUT:
        console.print(f"and {len(facts['left_out']) - SHOWN_LEFT_OUT} more: all are in the file", highlight=False)
    for dimension, rows in facts["dimensions"].items():
        for key in judge_tables.columns(rows):
            table = Table(title=f"{dimension}: {key} [95%]", title_justify="left", show_edge=False)
            table.add_column("judge", overflow="fold")
            table.add_column(key, justify="right", no_wrap=True)
            for name, row in rows.items():
                if key in row:
                    table.add_row(Text(name), judge_tables.cell(row, key))
            console.print(table, "")
    for name, probe in facts["probes"].items():
        shown = (
            f"{probe['prefers a frozen clip']:.0%} of clips are better frozen, {probe['seconds a video']:g} s a video"
        )
        console.print(f"{name}: {shown}", highlight=False)
