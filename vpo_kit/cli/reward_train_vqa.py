"""`vpo reward train-vqa`: the built-in judges, trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.reward import reward_app


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
