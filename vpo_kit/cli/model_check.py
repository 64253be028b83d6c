"""`vpo model check`: an adapter held against its pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer

from vpo_kit.cli.listing import WIDTH
from vpo_kit.cli.model import model_app
from vpo_kit.cli.options import named
from vpo_kit.errors import ConfigError, OutputError, VpoError

AUTO = "small"


@model_app.command("check")
def check_model(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="diffusers pipeline folder, hub id, embedded model")],
    frames: Annotated[int | None, typer.Option(min=1, help="of each video", show_default=AUTO)] = None,
    height: Annotated[int | None, typer.Option(min=1, help="in pixels", show_default=AUTO)] = None,
    width: Annotated[int | None, typer.Option(min=1, help="in pixels", show_default=AUTO)] = None,
    steps: Annotated[int, typer.Option(min=1, help="of the sampler's chain")] = 3,
    call: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="a further argument of the pipeline's call")
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the findings as JSON, too")] = None,
) -> None:
    """Hold a model family's adapter against diffusers' own pipeline; exit code 1 where a check fails."""
    more = {key: _value(key, text) for key, text in named("--call", call).items()}

    from vpo_kit.library import model_check

    case = model_check.open_model(name, frames=frames, height=height, width=width, steps=steps, more=more)
    facts = model_check.facts(case, [])
    print(f"{facts['pipeline']}, adapter {facts['adapter']} ({facts['package']})")
    time, tall, wide = case.model.multiples
    chosen = f"; chosen small: frames go by {time}, heights by {tall}, widths by {wide}"
    size = f"{case.call.frames} frames of {case.call.width} x {case.call.height}, {steps} steps, float32"
    print(fill(size + (chosen if None in (frames, height, width) else ""), WIDTH), flush=True)
    found = []
    for one in model_check.check(case):
        print(fill(one.line(), WIDTH, subsequent_indent=" " * 6), flush=True)
        found.append(one)
    if json_ is not None:
        _write(json_, model_check.facts(case, found))
    if wrong := [one.what for one in found if one.passed is False]:
        raise VpoError(f"{len(wrong)} of {len(found)} checks fail: {'; '.join(wrong)}")


def _value(name: str, text: str) -> Any:
    from vpo_kit.config import parse_yaml

    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"--call {name}={text}: {' '.join(str(error).split())}") from error


def _write(path: Path, facts: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
