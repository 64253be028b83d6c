"""`vpo pair import`: other people's videos and verdicts as a set of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vpo_kit.config import FORMAT, Model, read_assignments
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.report import versions
from vpo_kit.folders import resolve
from vpo_kit.judged import reader as foreign
from vpo_kit.judged.layouts import Reading
from vpo_kit.library import sources
from vpo_kit.library.display import look_through_bar
from vpo_kit.pairing import imported, store
from vpo_kit.pairing.imported import Imported
from vpo_kit.processes import Processes
from vpo_kit.training import run as assembly
from vpo_kit.training import sections

SHOWN = 10
"""Rows that are named on the terminal; all are in ``dataset.yaml``."""


def run(
    source: Path,
    reading: Reading,
    output: Path,
    least: float | None,
    model: str | None,
    assignments: Sequence[str],
) -> None:
    """Read, look through, link; with `model` also encode, all processes together. Raises `VpoError`."""
    given = read_assignments(assignments)
    wanted = sections.read(Model, given if model is None else {**given, "model": model})
    if assignments and model is None:
        raise ConfigError("--set: it says how videos are encoded, so it goes with --model")
    if model is not None:
        resolve(model)
    processes = Processes()
    console = Console(quiet=not processes.is_main)
    if processes.is_main and not _is_there(output, source, model):
        found = foreign.read(source, reading)
        facts = {
            "format": FORMAT,
            "strategy": "imported",
            "source": str(source),
            "layout": reading.layout or "detected",
            "versions": versions(),
        }
        with look_through_bar(console) as progress:
            written = imported.write(found, output, facts, least, progress)
        _show(console, output, written)
    processes.wait()
    if model is None:
        return
    loaded = assembly.load_model(wanted)
    settings = assembly.use(loaded, wanted.sampling)
    pairs = store.read(output)
    kept, _ = sources.encode_pairs(pairs, loaded, settings, console, processes)
    console.print(f"{output}: {len(kept)} of {len(pairs.pairs)} pairs are encoded for {model}", soft_wrap=True)


def _is_there(output: Path, source: Path, model: str | None) -> bool:
    """Whether the set was imported before, and only its encoding is to go on."""
    if model is None or not (output / "dataset.yaml").is_file():
        return False
    return store.read(output).facts.get("source") == str(source)


def _show(console: Console, output: Path, written: Imported) -> None:
    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    for line in written.left_out[:SHOWN]:
        say(f"left out: {line}")
    if len(written.left_out) > SHOWN:
        say(f"left out: {len(written.left_out) - SHOWN} more (dataset.yaml names them all)")
    what = f"{written.clips} rated clips" if written.rated else f"{written.count} pairs of {written.clips} clips"
    say(f"{output}: {what}, {len(written.left_out)} rows left out{_reasons(written.left_out)}")
    say(f"judged: {', '.join(written.dimensions)}")
    if written.rated:
        say(f"pairs of one prompt: vpo pair import {output} --least-difference X --output SET")
    elif written.label is None:
        say("none of them is the overall verdict, so the pairs have no label: train with --set data.dimension=NAME")
    if written.unequal:
        say(
            f"members of {written.unequal} of {written.count} pairs differ in length or rate: each is judged whole; "
            "training cuts both to the same frames"
        )


def _reasons(lines: Sequence[str]) -> str:
    """How often each kind of reason was given."""
    kinds = (
        ("are missing", "is missing"),
        ("cannot be decoded", "cannot be "),
        ("lie outside", "lies outside"),
        ("have no verdict or score", "no verdict"),
        ("have no verdict or score", "no score"),
        ("have an unknown word", "which is none of"),
        ("are repeated", "the same as row"),
        ("are repeated", "the same clip as row"),
        ("have one video twice", "both videos are"),
        ("are discarded by the set", "discards it"),
    )
    counts = Counter(next((kind for kind, mark in kinds if mark in line), "have other reasons") for line in lines)
    return f" ({', '.join(f'{count} {kind}' for kind, count in counts.most_common())})" if counts else ""
