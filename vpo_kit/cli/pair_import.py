"""`vpo pair import`: other people's videos and verdicts as a set of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vpo_kit.cli.options import Columns, Separator, Set, Words, named
from vpo_kit.cli.pair import pair_app
from vpo_kit.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from vpo_kit.pairing.imported import Imported

SHOWN = 10
"""Rows that are named on the terminal; all are in ``dataset.yaml``."""


@pair_app.command("import")
def pair_import(
    source: Annotated[Path, typer.Argument(help="a table (csv, jsonl, json, parquet) or a folder with one")],
    output: Annotated[Path, typer.Option(help="folder of the set")],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="its layout, or folder for columns by option", show_default="detected"),
    ] = None,
    column: Columns = None,
    word: Words = None,
    separator: Separator = None,
    least_difference: Annotated[
        float | None, typer.Option(min=0, help="form pairs of ratings, a tie where they differ by so much or less")
    ] = None,
    model: Annotated[str | None, typer.Option(help="also encode the videos for it, which training would do")] = None,
    set_: Set = None,
) -> None:
    """Make a set of other people's videos and verdicts, or ratings; no model is needed."""
    from vpo_kit.config import FORMAT, Model, read_assignments
    from vpo_kit.evaluation.report import versions
    from vpo_kit.folders import resolve
    from vpo_kit.judged import reader as foreign
    from vpo_kit.judged.layouts import Reading
    from vpo_kit.library import pair_source
    from vpo_kit.library.display import look_through_bar, terminal
    from vpo_kit.pairing import imported, store
    from vpo_kit.processes import Processes
    from vpo_kit.training import run as assembly
    from vpo_kit.training import sections

    reading = Reading(format_, named("--column", column), named("--word", word), separator)
    given = read_assignments(set_ or [])
    wanted = sections.read(Model, given if model is None else {**given, "model": model})
    if set_ and model is None:
        raise ConfigError("--set: it says how videos are encoded, so it goes with --model")
    if model is not None:
        resolve(model)
    processes = Processes()
    console = terminal(quiet=not processes.is_main)
    options = {"format": format_, "column": column, "word": word, "separator": separator,
               "least-difference": least_difference}  # fmt: skip
    # a set that was imported before only goes on with its encoding; all look, so that all end where it is another one
    there = model is not None and _imported(output, source, options)
    if processes.is_main and not there:
        found = foreign.read(source, reading)
        facts = {
            "format": FORMAT,
            "strategy": "imported",
            "source": str(source),
            "layout": reading.layout or "detected",
            "options": options,
            "versions": versions(),
        }
        with look_through_bar(console) as progress:
            written = imported.write(found, output, facts, least_difference, progress)
        _show(console, output, written)
    processes.wait()
    if model is None:
        return
    loaded = assembly.load_model(wanted)
    settings = assembly.use(loaded, wanted.sampling)
    pairs = store.read(output)
    kept, _ = pair_source.encode_pairs(pairs, loaded, settings, console, processes)
    console.print(f"{output}: {len(kept)} of {len(pairs.pairs)} pairs are encoded for {model}", soft_wrap=True)


def _imported(output: Path, source: Path, options: Mapping[str, Any]) -> bool:
    """Whether `output` is a set of `source`. Raises `ConfigError` for one that was read with other options, where some
    are given.
    """
    from vpo_kit.pairing import store

    if not (output / "dataset.yaml").is_file() or (facts := store.read(output).facts).get("source") != str(source):
        return False
    known = facts.get("options", options)  # older sets do not say
    if changed := [name for name, value in options.items() if value is not None and value != known.get(name)]:
        raise ConfigError(
            f"{output} was imported with another --{' and --'.join(changed)}: give the same, or another --output"
        )
    return True


def _show(console: Console, output: Path, written: Imported) -> None:
    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False)

    for line in written.passed_over:
        say(line)
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
