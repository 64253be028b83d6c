"""`vpo score`: a table of clips and their scores, and a file of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vpo_kit import plain
from vpo_kit.cli.options import Config, Set, app, of_reward
from vpo_kit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from vpo_kit.library.sample import Video
    from vpo_kit.library.score import Scored

KINDS = (".csv", ".jsonl", ".json")


@app.command()
def score(
    videos: Annotated[list[Path], typer.Argument(help="clips, or folders of clips")],
    reward: Annotated[str | None, typer.Option(help="reward or mixture", show_default="vqa")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="the clips' prompt", show_default="each clip's caption in its folder")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="also write a .csv, .jsonl or .json file")] = None,
    segments: Annotated[float | None, typer.Option(min=0.01, help="also score segments of so many seconds")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1", show_default="the GPU, if any")] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Score clips with a reward: higher is better."""
    from rich.table import Column, Table

    from vpo_kit import files
    from vpo_kit.library import score as scoring
    from vpo_kit.library.display import terminal
    from vpo_kit.rewards import loading

    if output is not None and output.suffix.lower() not in KINDS:
        raise ConfigError(f"--output {output}: give the name of a {', '.join(KINDS)} file")
    plans = scoring.plans(reward, config, of_reward(set_))
    clips = scoring.clips_of(videos, prompt)
    scoring.check_prompts([plan.spec for plan in plans], clips.values())
    judges = loading.load(plans, scoring.device_of(device))
    console, rows, wrong = terminal(), list[dict[str, Any]](), list[str]()
    table = Table(Column("file", overflow="fold"), *(judge.spec.name for judge in judges.parts), "motion")

    def leave_out(clip: Path | Video, text: str, error: DataError) -> None:
        wrong.append(str(error) if str(clip) in str(error) else f"{clip}: {error}")
        rows.append({"file": str(clip), "prompt": text, "error": wrong[-1]})

    for found in scoring.each(clips, judges, leave_out, segments):
        if found.notice:
            console.print(f"{found.name}: {found.notice}", soft_wrap=True)
        table.add_row(found.name, *(f"{value:.4f}" for value in found.scores.values()), f"{found.motion:.4f}")
        rows.append(_row(found))
    if table.row_count:
        console.print(table)
    if output is not None:
        files.write(output, _text(rows, output.suffix.lower()))
        console.print(f"written: {output}", soft_wrap=True, highlight=False)
    for line in wrong[:-1]:
        console.print(f"left out: {line}", soft_wrap=True)
    if wrong:
        raise DataError(f"{len(wrong)} of {len(clips)} clips left out: {wrong[-1]}")


def _row(found: Scored) -> dict[str, Any]:
    row = {"file": found.name, "prompt": found.prompt, **found.scores, "motion": found.motion}
    return row if found.segments is None else {**row, "segments": list(found.segments)}


def _text(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    if kind == ".json":
        return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    if kind == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return plain.csv_text(
        columns, ({key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows)
    )
