"""`vpo reward` and what belongs to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.options import Columns, Separator, Set, Words, app, named

reward_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Check rewards, train the built-in judges, serve over HTTP."
)
app.add_typer(reward_app, name="reward")


@reward_app.command("train-vqa")
def train_vqa(
    output: Annotated[Path, typer.Option(help="folder for the weights and the report")],
    kind: Annotated[Literal["vqa", "gold"], typer.Option(help="gold is the held-out judge")] = "vqa",
    steps: Annotated[int, typer.Option(min=1)] = 1250,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    attacks: Annotated[bool, typer.Option(help="train against gradient attacks, too")] = True,
) -> None:
    """Train the built-in video quality judge on procedural clips."""
    from vpo_kit.sprites.judges import train_vqa as command

    command.train(kind, output, steps, seed, attacks=attacks)


@reward_app.command("check")
def check_reward(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="rewards (vpo rewards), or package.module:Class", show_default="all that need no download"),
    ] = None,
    clips: Annotated[int, typer.Option(min=2, help="sprite clips to look at")] = 12,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    output: Annotated[Path | None, typer.Option(help="write the findings as JSON, too")] = None,
    set_: Set = None,
) -> None:
    """Look at rewards before training on them: direction, frozen copies, gradient, batches, time, licence."""
    from vpo_kit.commands import check_reward as command

    command.run(names or [], clips, seed, set_ or [], output)


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
    from vpo_kit.commands import bench_reward as command
    from vpo_kit.judged.layouts import Reading

    reading = Reading(layout, named("--column", column), named("--word", word), separator)
    command.run(sets, reward or ["vqa"], output, set_ or [], reading, dimension or [])


@reward_app.command("serve")
def serve_reward(
    name: Annotated[str, typer.Argument(help="a reward (vpo rewards), or package.module:Class")],
    host: Annotated[str, typer.Option(help="address to listen on; traffic is not encrypted")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="VPO_REWARD_TOKEN", help="what clients must send", show_default="a new one")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="let every user of this machine in")] = False,
    max_body_mb: Annotated[int, typer.Option(min=1, help="largest request")] = 256,
    set_: Set = None,
) -> None:
    """Serve a reward to runs elsewhere: vpo train --reward remote:http://HOST:PORT."""
    from vpo_kit.commands import serve_reward as command

    command.run(name, host, port, token, set_ or [], open_to_all=no_token, max_body_mb=max_body_mb)
