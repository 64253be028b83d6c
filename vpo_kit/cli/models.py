"""`vpo models`: the embedded models, and the pipeline classes that have an adapter."""

from __future__ import annotations

from vpo_kit.cli.listing import show_plugins
from vpo_kit.cli.options import app


@app.command()
def models() -> None:
    """List the embedded models and the supported pipeline classes."""
    from vpo_kit.folders import EMBEDDED
    from vpo_kit.registry import MODELS

    for name in EMBEDDED:
        print(f"{name:24}  embedded model, ships with the package")
    for family in MODELS.builtins:
        print(f"{family:24}  a diffusers folder or hub id of this pipeline class")
    show_plugins(MODELS)
