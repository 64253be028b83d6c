"""`vpo model`, to which a file for each of its commands adds itself."""

from __future__ import annotations

import typer

from vpo_kit.cli.options import app

model_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Check a model family's adapter.")
app.add_typer(model_app, name="model")
