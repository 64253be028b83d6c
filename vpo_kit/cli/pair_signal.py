"""`vpo pair signal`: whether a set can teach anything, and how far a recipe's steps would go."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpo_kit.catalogue import preferring
from vpo_kit.cli.options import Config, Model, PairSet, Seed, Set
from vpo_kit.cli.pair import pair_app

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vpo_kit.library.set_signal import SetSignal
    from vpo_kit.training.signal import Direction

LITTLE, MUCH = 0.05, 10.0
"""Mean logits that a recipe's steps reach: below the first nothing is learned, above the second everything is."""


@pair_app.command("signal")
def pair_signal(
    path: PairSet,
    model: Model = None,
    method: Annotated[str | None, typer.Option(help=preferring(), show_default="that of the set's strategy")] = None,
    config: Config = None,
    pairs: Annotated[int, typer.Option(min=8, help="at most so many pairs, four or five gradients each")] = 128,
    output: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
    seed: Seed = None,
    set_: Set = None,
) -> None:
    """Can these pairs teach anything, and how far would a recipe's steps go? Measured without training."""
    from vpo_kit import files
    from vpo_kit.library import set_signal
    from vpo_kit.library.display import terminal

    found = set_signal.measure(
        set_signal.SignalRequest(
            path=path,
            model=model,
            method=method,
            config=config,
            assignments=set_ or [],
            pairs=pairs,
            seed=seed,
        )
    )
    console = terminal()
    _show(console, found)
    _show_tables(console, found)
    for line in _verdict(found):
        console.print(line, soft_wrap=True)
    if output is not None:
        files.write(output, json.dumps(found.facts(), indent=2) + "\n")


def _show(console: Console, measured: SetSignal) -> None:
    """Print how sure the pairs' common direction is, and what it takes to know it well."""
    run, found, whole = measured.recipe.run, measured.signal, measured.signal.whole
    console.print(
        f"{run.pairs}, {run.method_name} on {run.model}: {found.pairs} of {measured.count} pairs, "
        f"{found.draws} gradients",
        soft_wrap=True,
    )
    if whole.found:
        console.print(f"direction: found (p {whole.p:.3f} of random labels); cosine of two halves {whole.cosine}")
        console.print(
            f"at a cosine of .71 with the true one after {whole.pairs} pairs, or {found.draws_needed:,.0f} draws of "
            "(t, noise), each of another pair",
            soft_wrap=True,
        )
    else:
        console.print(
            f"direction: not found with {found.draws} draws (p {whole.p:.2f} of random labels): more pairs (--pairs), "
            "or labels that agree more",
            soft_wrap=True,
        )


def _show_tables(console: Console, measured: SetSignal) -> None:
    """Print where in time, and in which kinds of layers, the direction lies."""
    table = _table("where", "p", "cosine of halves", "pairs for .71")
    for name, band in measured.signal.bands.items():
        table.add_row(f"{name} times", *_cells(band))
    console.print(table)
    layers = _table("layers", "share of the direction", "p")
    for kind, (share, p) in sorted(measured.signal.kinds.items(), key=lambda item: -item[1][0]):
        layers.add_row(kind, f"{share:.0%}" if math.isfinite(share) else "", f"{p:.3f}")
    console.print(layers)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=True)
    return table


def _cells(one: Direction) -> tuple[str, str, str]:
    return f"{one.p:.3f}", str(one.cosine), str(one.pairs) if one.found else "not found"


def _verdict(measured: SetSignal) -> list[str]:
    """What the recipe's steps can do, in words."""
    lines = [f"recipe: {measured.move}"]
    logit = measured.logit
    if measured.signal.whole.found and math.isfinite(logit):
        words = "nothing is learned" if logit < LITTLE else "the pairs are used up" if logit > MUCH else "enough"
        lines.append(f"the mean logit of these pairs would move by about {logit:.2g}: {words}")
    return lines
