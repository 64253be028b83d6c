"""`vpo reward`, to which a file for each of its commands adds itself."""

from __future__ import annotations

import typer

from vpo_kit.cli.options import app

reward_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Check rewards, train the built-in judges, serve over HTTP."
)
app.add_typer(reward_app, name="reward")
