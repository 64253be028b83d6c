"""`vpo score`: clips judged by a reward."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table

from vpo_kit import config, files
from vpo_kit.clips.captions import captions
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.pairing.segments import cut
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward, score_segments
from vpo_kit.video import SUFFIXES, motion, read_video

KINDS = (".csv", ".jsonl", ".json")


def run(
    paths: Sequence[Path],
    reward_name: str,
    prompt: str | None,
    assignments: Sequence[str],
    output: Path | None = None,
    segment_seconds: float | None = None,
) -> None:
    """Print a table: file, each reward's score, motion; one clip is in memory at a time. `output` gets the same, and
    each segment's scores, as csv, json lines or json.

    A clip's prompt is `prompt`, or its caption in its folder. What cannot be read or judged is named and left out.
    Raises `DataError` at the end where there is such a clip.
    """
    if output is not None and output.suffix.lower() not in KINDS:
        raise ConfigError(f"--output {output}: give the name of a {', '.join(KINDS)} file")
    settings = config.read_assignments(assignments).get("reward", {})
    plans = rewards.plan(reward_name, settings)
    needy = [p.spec.name for p in plans if p.spec.needs_prompt]
    clips = _clips(paths, prompt)
    if needy and all(text is None for text in clips.values()):
        raise ConfigError(f"reward {needy[0]!r} judges a video by its prompt: give --prompt, or captions in the folder")
    judges = rewards.load(plans, torch.device("cpu")).parts
    console = Console()
    table = Table(Column("file", overflow="fold"), *(judge.spec.name for judge in judges), "motion")
    rows, wrong = [], []
    for path, text in clips.items():
        try:
            if needy and text is None:
                raise DataError(f"{path} has no caption, and reward {needy[0]!r} judges by it")
            row = _row(path, judges, text or "", segment_seconds, console)
            rows.append(row)
            table.add_row(str(path), *(f"{row[judge.spec.name]:.4f}" for judge in judges), f"{row['motion']:.4f}")
        except DataError as error:
            wrong.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            rows.append({"file": str(path), "prompt": text or "", "error": wrong[-1]})
    if table.row_count:
        console.print(table)
    if output is not None:
        files.write(output, _text(rows, output.suffix.lower()))
        console.print(f"written: {output}", soft_wrap=True, markup=False, highlight=False)
    for line in wrong[:-1]:
        console.print(f"left out: {line}", soft_wrap=True, markup=False)
    if wrong:
        raise DataError(f"{len(wrong)} of {len(clips)} clips left out: {wrong[-1]}")


def _row(
    path: Path, judges: Sequence[Reward], prompt: str, segment_seconds: float | None, console: Console
) -> dict[str, Any]:
    footage = read_video(path)
    if footage.notice:
        console.print(f"{path}: {footage.notice}", soft_wrap=True, markup=False)
    video = footage.frames[None]
    parts = None if segment_seconds is None else cut(video.shape[1], footage.fps, segment_seconds)
    with torch.no_grad():
        found = {
            judge.spec.name: score_segments(judge, video, [prompt], fps=footage.fps, segments=parts) for judge in judges
        }
    row: dict[str, Any] = {"file": str(path), "prompt": prompt, **{name: float(f.score) for name, f in found.items()}}
    row["motion"] = float(motion(video))
    if parts is not None:
        scores = {name: f.segments[0].tolist() for name, f in found.items() if f.segments is not None}
        row["segments"] = [
            {"start": start / footage.fps, "end": end / footage.fps, **{name: of[i] for name, of in scores.items()}}
            for i, (start, end) in enumerate(parts)
        ]
    return row


def _text(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    if kind == ".json":
        return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    if kind == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows)
    return text.getvalue()


def _clips(paths: Sequence[Path], prompt: str | None) -> dict[Path, str | None]:
    """Every clip with its prompt, or None where it has none."""
    found: dict[Path, str | None] = {}
    for path in paths:
        if path.is_dir():
            own = _captions(path)
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            named = [p for p in own if p.is_file() and p.suffix.lower() in SUFFIXES and p not in inside]
            found |= {clip: prompt if prompt is not None else own.get(clip) for clip in [*inside, *named]}
        elif path.is_file():
            found[path] = prompt
        else:
            raise DataError(f"there is no {path}")
    if not found:
        raise DataError(f"no clips in {', '.join(map(str, paths))}: {', '.join(sorted(SUFFIXES))} are read")
    return found


def _captions(folder: Path) -> dict[Path, str]:
    """Captions by file; a listing of another kind (a pair set's) has none."""
    root = folder.resolve()
    try:
        return {
            folder / name: text.strip() for name, text in captions(folder)
            if isinstance(text, str) and text.strip() and (folder / name).resolve().is_relative_to(root)
        }  # fmt: skip
    except (DataError, OSError, ValueError):
        return {}
