"""VBench's own judges, run in VBench's own environment: its input written, its results read. Nothing is imported.

VBench pins numpy below 2 and transformers 4.33, and needs a GPU. What is used of it (repository Vchitect/VBench,
version 0.1.5, `README.md` and `vbench/__init__.py`):

- ``--mode=custom_input`` takes a folder of ``.mp4`` files and, in ``--prompt_file``, a JSON object of file name to prompt;
  without one the prompt is the file's name less ``-NUMBER``. Six dimensions are documented for it (`DIMENSIONS`).
- It writes ``OUTPUT/results_TIME_eval_results.json``: dimension to ``[mean, [{"video_path": ..., "video_results": ...}]]``.
  `dynamic_degree` is true or false for a video; `imaging_quality` is from 0 to 100 for a video and from 0 to 1 in the mean.
"""  # noqa: E501

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from vpo_kit import files
from vpo_kit.errors import DataError, OutputError
from vpo_kit.evaluation.samples import Results

DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
LONGEST = 150
"""Bytes of a prompt that go into a file name; file systems take 255."""
PER_CENT = {"imaging_quality"}


def names(evaluation: Results) -> list[str]:
    """What each video is called for VBench: ``PROMPT-NUMBER.mp4``, less what file systems refuse, and no two alike."""
    stems: dict[str, int] = {}
    found = []
    for group, file in zip(evaluation.groups, evaluation.files, strict=True):
        text = re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", evaluation.prompts[group]).strip(". ")
        stem = text.encode()[:LONGEST].decode(errors="ignore") or "prompt"
        if stems.setdefault(stem.casefold(), group) != group:  # as a Mac sees them, two names of one file
            stem = f"{stem} ({group})"
        found.append(f"{stem}-{Path(file).stem.rpartition('-')[2]}.mp4")
    return found


def export(folder: Path, evaluations: Sequence[Results], videos: Sequence[Path]) -> list[str]:
    """Copy the videos of each model into ``FOLDER/NAME``, with ``FOLDER/NAME.json`` for their prompts.

    Returns the commands to be run in VBench's environment. Raises `OutputError` for a folder of other things.
    """
    if not files.bare(folder) and not (folder / f"{evaluations[0].name}.json").is_file():
        raise OutputError(f"{folder} is not empty and holds no input for VBench: give another --vbench-export")
    commands = []
    for evaluation, source in zip(evaluations, videos, strict=True):
        target, prompts = folder / evaluation.name, {}
        try:
            files.remove(target)
            target.mkdir(parents=True)
            for name, file, group in zip(names(evaluation), evaluation.files, evaluation.groups, strict=True):
                shutil.copyfile(source / file, target / name)
                prompts[name] = evaluation.prompts[group]
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
        listing = folder / f"{evaluation.name}.json"
        files.write(listing, json.dumps(prompts, indent=1, ensure_ascii=False) + "\n")
        commands.append(_command(target, listing, folder / "results" / evaluation.name))
    return commands


def _command(videos: Path, prompts: Path, output: Path) -> str:
    # `vbench evaluate` hands --dimension on to a shell unquoted, so all of them go as one argument
    parts = ["vbench", "evaluate", "--videos_path", str(videos), "--dimension", " ".join(DIMENSIONS)]
    parts += ["--mode=custom_input", "--prompt_file", str(prompts), "--output_path", str(output)]
    return shlex.join(parts)


def read(paths: Sequence[Path], evaluations: Sequence[Results]) -> list[Results]:
    """The evaluations with VBench's results as metrics ``vbench_DIMENSION``, one number for each video.

    A video is known by its file name and its folder, which `export` names after the model. Raises `DataError` for what
    is no results file, belongs to another evaluation or is not there for every video of every model.
    """
    found: dict[str, dict[str, dict[str, float]]] = {evaluation.name: {} for evaluation in evaluations}
    for path in paths:
        for dimension, entries in _parse(path).items():
            for video, value in entries.items():
                model = PurePosixPath(video).parent.name
                if model not in found:
                    raise DataError(f"{path} has results of {video}: the folder must be one of {', '.join(found)}")
                scale = 100 if dimension in PER_CENT else 1
                found[model].setdefault(dimension, {})[PurePosixPath(video).name] = value / scale
    dimensions = list(dict.fromkeys(dimension for results in found.values() for dimension in results))
    return [_joined(evaluation, found[evaluation.name], dimensions) for evaluation in evaluations]


def _joined(evaluation: Results, results: Mapping[str, Mapping[str, float]], dimensions: Sequence[str]) -> Results:
    metrics = dict(evaluation.metrics)
    for dimension in dimensions:
        values = results.get(dimension, {})
        missing = [name for name in names(evaluation) if name not in values]
        if missing:
            raise DataError(
                f"VBench's results lack {dimension} of {evaluation.name}/{missing[0]}: run it on that whole folder, "
                "and give its file with one more --vbench-results"
            )
        metrics[f"vbench_{dimension}"] = [values[name] for name in names(evaluation)]
    return replace(evaluation, metrics=metrics)


def _parse(path: Path) -> dict[str, dict[str, float]]:
    """Dimension to a number for each video's path."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(dimension): {str(entry["video_path"]): float(entry["video_results"]) for entry in result[1]}
            for dimension, result in content.items()
        }
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise DataError(f"{path} is no results file of VBench: give its *_eval_results.json") from error
