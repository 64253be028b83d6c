"""`vpo pair split`: a training and a held-out set with no prompt in common."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import PairSet, Seed
from vpo_kit.cli.pair import pair_app
from vpo_kit.cli.pair_sets import checking, readable


@pair_app.command("split")
def pair_split(
    path: PairSet,
    output: Annotated[Path, typer.Option(help="folder for the sets train and heldout")],
    share: Annotated[float, typer.Option(help="about this share of the pairs is held out")] = 0.1,
    seed: Seed = None,
) -> None:
    """Split a set by prompt, so that no prompt is on both sides; the old set stays."""
    from vpo_kit.library.display import terminal
    from vpo_kit.pairing import arrange

    found = readable(path)
    console = terminal()
    with checking(console, [found]) as tick:
        sides = arrange.split(found, share, seed or 0, output, tick, partial(console.print, soft_wrap=True))
    for side in sides:
        prompts = len({pair.prompt for pair in side.pairs})
        console.print(f"{side.path}: {len(side.pairs)} pairs of {prompts} prompts", soft_wrap=True)
