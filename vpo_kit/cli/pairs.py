"""`vpo pair` and what belongs to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.options import Columns, Config, Model, PairSet, Prompts, Seed, Separator, Set, Words, app, named
from vpo_kit.errors import ConfigError

pair_app = typer.Typer(
    rich_markup_mode=None, invoke_without_command=True, help="Make preference pairs, and look after sets of them."
)
app.add_typer(pair_app, name="pair")


@pair_app.callback()
def pair(
    context: typer.Context,
    strategy: Annotated[
        Literal["independent", "guided", "local", "real"],
        typer.Option(
            help="from prompts alone; from noised real clips; a clip against its copy made anew in part; "
            "a clip against a sample of its caption"
        ),
    ] = "independent",
    output: Annotated[Path | None, typer.Option(help="folder of the set; the same command goes on with it")] = None,
    prompts: Prompts = None,
    videos: Annotated[
        Path | None, typer.Option(help="real clips: a videofolder, or videos with a .txt beside each")
    ] = None,
    model: Model = None,
    label: Annotated[
        str, typer.Option(help="reward:NAME, vlm:MODEL, people, one's own, or none; local and real pairs need none")
    ] = "reward:vqa",
    lora: Annotated[Path | None, typer.Option(help="run, LoRA folder or file: pairs of the trained model")] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Make pairs of videos and label them."""
    if context.invoked_subcommand is not None:
        return
    from vpo_kit.config import read_assignments
    from vpo_kit.library.pair import make_pairs

    if output is None:
        raise ConfigError("vpo pair: give --output DIR for the set")
    make_pairs(
        output,
        strategy=strategy,
        prompts=prompts,
        videos=videos,
        model=model,
        lora=lora,
        label=label,
        seed=seed or 0,
        config=config,
        **read_assignments(set_ or []),
    )


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
    from vpo_kit.commands import pair_import as command
    from vpo_kit.judged.layouts import Reading

    reading = Reading(format_, named("--column", column), named("--word", word), separator)
    command.run(source, reading, output, least_difference, model, set_ or [])


@pair_app.command("inspect")
def pair_inspect(
    path: PairSet,
    page: Annotated[Path | None, typer.Option(help="the HTML page", show_default="SET/inspect.html")] = None,
    limit: Annotated[int, typer.Option(min=1, help="pairs on the page")] = 200,
) -> None:
    """Labels, margins, motion and duplicates in numbers, and a page with the videos."""
    from vpo_kit.commands import pair_tools as command

    command.inspect(path, page, limit)


@pair_app.command("signal")
def pair_signal(
    path: PairSet,
    model: Model = None,
    method: Annotated[
        str | None, typer.Option(help="dense, structural or dpo", show_default="that of the set's strategy")
    ] = None,
    config: Config = None,
    pairs: Annotated[int, typer.Option(min=8, help="at most so many pairs, four or five gradients each")] = 128,
    output: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
    seed: Seed = None,
    set_: Set = None,
) -> None:
    """Can these pairs teach anything, and how far would a recipe's steps go? Measured without training."""
    from vpo_kit.commands import pair_signal as command

    command.run(
        command.Request(
            path=path,
            model=model,
            method=method,
            config=config,
            assignments=set_ or [],
            pairs=pairs,
            seed=seed or 0,
            output=output,
        )
    )


@pair_app.command("check")
def pair_check(
    path: PairSet,
    decode: Annotated[bool, typer.Option("--decode", help="also decode every video and count its frames")] = False,
) -> None:
    """Name every pair that is wrong; exit code 1 when there is one."""
    from vpo_kit.commands import pair_tools as command

    command.check_set(path, decode)


@pair_app.command("export")
def pair_export(
    path: PairSet,
    output: Annotated[Path, typer.Option(help="file to write (trl, csv), or folder (hub)")],
    format_: Annotated[
        Literal["trl", "csv", "hub"],
        typer.Option("--format", help="prompt, chosen, rejected; two paths and a verdict; parquet, videos and a card"),
    ] = "trl",
    push_to_hub: Annotated[str | None, typer.Option(help="hub: the data set USER/NAME to put it in")] = None,
) -> None:
    """Write the pairs for another trainer or tool, or for the Hub; what is left out is counted."""
    from vpo_kit.commands import pair_tools as command

    command.export_set(path, output, format_, push_to_hub)


@pair_app.command("merge")
def pair_merge(
    sets: Annotated[list[Path], typer.Argument(help="pair sets of one model", metavar="SET...")],
    output: Annotated[Path, typer.Option(help="folder of the new set")],
) -> None:
    """Make one set of several; the old ones stay."""
    from vpo_kit.commands import pair_tools as command

    command.merge(sets, output)


@pair_app.command("split")
def pair_split(
    path: PairSet,
    output: Annotated[Path, typer.Option(help="folder for the sets train and heldout")],
    share: Annotated[float, typer.Option(help="about this share of the pairs is held out")] = 0.1,
    seed: Seed = None,
) -> None:
    """Split a set by prompt, so that no prompt is on both sides; the old set stays."""
    from vpo_kit.commands import pair_tools as command

    command.split(path, share, seed or 0, output)
