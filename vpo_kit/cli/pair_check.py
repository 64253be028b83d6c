"""`vpo pair check`: what is wrong with a set."""

from __future__ import annotations

from typing import Annotated

import typer

from vpo_kit.cli.options import PairSet
from vpo_kit.cli.pair import pair_app
from vpo_kit.cli.pair_sets import checking
from vpo_kit.errors import DataError


@pair_app.command("check")
def pair_check(
    path: PairSet,
    decode: Annotated[bool, typer.Option("--decode", help="also decode every video and count its frames")] = False,
) -> None:
    """Name every pair that is wrong; exit code 1 when there is one."""
    from vpo_kit.library.display import terminal
    from vpo_kit.pairing import check, store

    found = store.read(path)
    console = terminal()
    with checking(console, [found]) as tick:
        checked = check.pairs(found, decode=decode, tick=tick)
    strays = check.strays(found)
    for line in [*checked.wrong, *strays]:
        console.print(" ".join(line.split()), soft_wrap=True, highlight=False)
    total = len(found.pairs) + len(found.broken)
    if not total:
        raise DataError(f"{path} holds no pairs")
    if checked.wrong or strays:
        raise DataError(
            f"{path}: {len(checked.wrong)} of {total} pairs are wrong, files that belong to no pair: {len(strays)}"
        )
    console.print(
        f"{path}: {len(found.pairs)} pairs, nothing wrong; latents {check.shape_text(checked.shape)}", soft_wrap=True
    )
