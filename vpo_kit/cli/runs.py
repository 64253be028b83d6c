"""`vpo runs`: a line for each run. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import app
from vpo_kit.errors import DataError


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="where they are, also in folders of their own")] = Path("runs"),
) -> None:
    """List runs: method, step, reward, gain, and whether they go on."""
    from vpo_kit.training.run_seen import is_run, look

    places = [path.parent for path in sorted(folder.rglob("config.yaml"))]
    found = [look(place) for place in places if is_run(place)]
    if not found:
        raise DataError(f"{folder} holds no runs: give the folder that they are in")
    names = [str(one.path.relative_to(folder)) for one in found]
    wide = max(10, min(36, max(map(len, names))))
    print(f"{'run':{wide}}  {'method':10} {'step':>9} {'reward':>8} {'gain':>7}  state")
    for name, one in zip(names, found, strict=True):
        print(
            f"{name:{wide}}  {one.method:10} {f'{one.step}/{one.steps}':>9} {_number(one.reward, '.3f'):>8} "
            f"{_number(one.gain, '+.3f'):>7}  {one.state}"
        )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
