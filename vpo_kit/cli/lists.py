"""`vpo methods`, `vpo rewards` and `vpo models`."""

from __future__ import annotations

from vpo_kit.cli.options import app


@app.command()
def methods() -> None:
    """List the training methods."""
    from vpo_kit.commands import lists

    lists.methods()


@app.command()
def rewards() -> None:
    """List the rewards, with their licences."""
    from vpo_kit.commands import lists

    lists.rewards()


@app.command()
def models() -> None:
    """List the embedded models and the supported pipeline classes."""
    from vpo_kit.commands import lists

    lists.models()
