"""`vpo watch`: a run's steps as they are logged, until it ends. No torch here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli.options import app

POLL_S, ALIVE_S = 1.0, 10.0
"""Seconds between looks at the log, and at whether a process still holds the run."""
SHOWN = {"reward_mean": "reward", "implicit_accuracy": "accuracy", "motion": "motion", "loss": "loss"}


@app.command()
def watch(run: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Follow a run: a line for each step until it ends."""
    from vpo_kit.training.run_seen import look, rows_of

    one = look(run)
    print(f"{run}: {one.method}, {one.steps} steps, {one.state}", flush=True)
    shown, looked = 0, time.monotonic()
    while True:
        rows = list(rows_of(run))
        for row in rows[shown:]:
            numbers = "  ".join(f"{label} {row[key]:.3g}" for key, label in SHOWN.items() if key in row)
            print(f"step {int(row['step'])}/{one.steps}  {numbers}", flush=True)
        shown = len(rows)
        if one.state != "running":
            break
        time.sleep(POLL_S)
        if time.monotonic() - looked > ALIVE_S:
            one, looked = look(run), time.monotonic()
    gain = "" if one.gain is None else f", reward {one.gain:+.3f} on held-out prompts"
    print(f"{run}: {one.state} after step {one.step} of {one.steps}{gain}")
