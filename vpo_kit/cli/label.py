"""`vpo label`: labels for a set that is there, and how far labels agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpo_kit.cli import agreement as agreement_tables
from vpo_kit.cli.options import Set, app, leave_out, of_call
from vpo_kit.errors import ConfigError


@app.command(name="label")
def label_set(
    path: Annotated[Path, typer.Argument(help="a pair set", metavar="SET")],
    with_: Annotated[
        str | None,
        typer.Option(
            "--with", help="reward:NAME, vlm:MODEL, people, or a labeller of one's own", show_default="reward:vqa"
        ),
    ] = None,
    set_: Set = None,
    base_url: Annotated[str | None, typer.Option(help="vlm: chat endpoint, http://HOST:PORT/v1")] = None,
    model: Annotated[str | None, typer.Option(help="vlm: the model's name on that server")] = None,
    judge_against: Annotated[Path | None, typer.Option(help="a set to compare labels with; labels stay")] = None,
    gold: Annotated[Path | None, typer.Option(help="people: JSON lines of id, segment, label: known answers")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="people: of order and sides", show_default="0")] = None,
    host: Annotated[
        str | None, typer.Option(help="people: address of the page, not encrypted", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="people: 0 takes a free one", show_default="8001")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=1, help="people: so many for each pair", show_default="all who come")
    ] = None,
    instructions: Annotated[Path | None, typer.Option(help="people: a text for the page", show_default="ours")] = None,
    finish: Annotated[bool, typer.Option("--finish", help="people: write the labels, ask nobody")] = False,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="how well people agree; without --finish labels stay")
    ] = False,
) -> None:
    """Label a pair set anew; its videos stay."""
    of_page = {"gold": gold, "host": host, "port": port, "overlap": overlap, "instructions": instructions}
    of_people = {**of_page, "seed": seed, "finish": finish or None}
    of_vlm = {"base_url": base_url, "model": model}
    others = {**of_people, **of_vlm, "set": set_ or None}
    if judge_against is not None:
        asked = {"with": with_, **others, "agreement": agreement or None}
        leave_out("vpo label: --judge-against compares labels that are there", asked)
        agreement_tables.of_sets(path, judge_against)
        return
    if agreement and not finish:
        asked = {"with": None if with_ == "people" else with_, **others}
        leave_out("vpo label: --agreement shows what people have said, and labels stay", asked)
        agreement_tables.of_people(path)
        return
    by = with_ or "reward:vqa"
    kind = by.partition(":")[0]
    if kind != "people" and any(value is not None for value in of_people.values()):
        raise ConfigError(
            "vpo label: --gold, --seed, --host, --port, --overlap, --instructions and --finish go with --with people"
        )
    if kind != "vlm" and any(value is not None for value in of_vlm.values()):
        raise ConfigError("vpo label: --base-url and --model go with --with vlm")
    if finish:
        leave_out("vpo label: --finish asks nobody", of_page)
    from vpo_kit.library.pair import label

    given = {name: value for name, value in {**of_people, **of_vlm}.items() if value is not None}
    label(path, by, **{**of_call(set_, label), **given})
    if agreement:
        agreement_tables.of_people(path)
