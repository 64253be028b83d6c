"""`vpo pair export`: the pairs of a set for another trainer or tool, or for the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.options import PairSet
from vpo_kit.cli.pair import pair_app
from vpo_kit.cli.pair_sets import readable
from vpo_kit.errors import ConfigError, DataError, OutputError


@pair_app.command("export")
def pair_export(
    path: PairSet,
    output: Annotated[Path, typer.Option(help="file to write (trl, csv), or folder (hub)")],
    format_: Annotated[
        Literal["trl", "csv", "hub"],
        typer.Option("--format", help="prompt, chosen, rejected; two paths and a verdict; parquet, videos and a card"),
    ] = "trl",
    push_to_hub: Annotated[str | None, typer.Option(help="hub: the data set USER/NAME to put it in")] = None,
) -> None:
    """Write the pairs for another trainer or tool, or for the Hub; what is left out is counted."""
    from vpo_kit import files, plain
    from vpo_kit.library.display import terminal
    from vpo_kit.net.push import check_name, push
    from vpo_kit.pairing import export

    if push_to_hub is not None and format_ != "hub":
        raise ConfigError("--push-to-hub goes with --format hub")
    if push_to_hub is not None:
        check_name(push_to_hub)
    found = readable(path)
    if output.exists():
        raise OutputError(f"{output} exists: give another --output")
    console, winners = terminal(), format_ == "trl"
    made = export.trl(found) if winners else export.table(found, output.parent)
    for line in [*found.broken, *made.missing]:
        console.print(f"left out: {line}", soft_wrap=True, highlight=False)
    if not made.rows and winners:
        raise DataError(
            f"{path}: no pair has a whole-clip winner ({made.ties} ties, {made.unlabelled} without a label)"
        )
    if not made.rows:
        raise DataError(f"{path}: none of its {len(found.pairs)} pairs has a label")
    if format_ == "hub":
        export.hub(found, output)
    else:
        files.write(output, _json_lines(made.rows) if winners else plain.csv_text(list(made.rows[0]), made.rows))
    ties = f"{made.ties} ties and " if winners else ""
    left_out = f"{ties}{made.unlabelled} pairs without a label left out"
    console.print(f"{output}: {len(made.rows)} pairs; {left_out}", soft_wrap=True)
    if push_to_hub is not None:
        console.print(f"pushed: {push(output, push_to_hub, 'dataset')}", soft_wrap=True, highlight=False)


def _json_lines(rows: Sequence[Mapping[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
