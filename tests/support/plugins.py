"""Packages with entry points, as Python sees them when they are installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest


def install(folder: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules and entry points of the project in `folder`, whose metadata goes into `site`."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    place = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    place.mkdir(parents=True)
    place.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in entries.items()))
    ]
    place.joinpath("entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in (folder, site):
        monkeypatch.syspath_prepend(str(path))
