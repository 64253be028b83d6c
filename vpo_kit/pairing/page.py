"""The page of a pair set: both videos of each pair in step, the labelled segments under them. Opens from disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from vpo_kit.pages import templates
from vpo_kit.pages.differing import Differing, differing
from vpo_kit.pages.templates import Head
from vpo_kit.pairing.inspect import Summary, margins
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.set_tables import grids, part
from vpo_kit.pairing.settings import Labelling, PairSettings
from vpo_kit.pairing.store import PairSet

KINDS = {1: "first", -1: "second", 0: "tie", None: "none"}
VERDICTS = {1: "first is better", -1: "second is better", 0: "tie", None: "no label"}


def render(found: PairSet, summary: Summary, page: Path, limit: int | None = None, head: Head | None = None) -> str:
    """The whole page for the place `page`; prompts and all other text are escaped. It shows a few pairs at a time.

    Of a set of more than `limit` pairs it holds that many, evenly spread over the set.
    """
    total = len(found.pairs)
    count = min(limit or total, total)
    shown = [found.pairs[i * total // count] for i in range(count)]
    address = _addresses(found.path, page)
    return (
        templates.environment("vpo_kit.pairing")
        .get_template("page.html.j2")
        .render(
            title=f"{found.path.resolve().name}: {total:,} pairs",
            head=replace(head or Head(), said=said(summary)),
            grids=grids(found, summary),
            data={"pairs": [_row(pair, address) for pair in shown]},
            total=total,
            own=_own(found),
            settings=[("how the set was made", yaml.safe_dump(dict(found.facts), sort_keys=False, allow_unicode=True))],
        )
    )


def said(summary: Summary) -> str:
    """What a set's numbers say, in one sentence."""
    labels = summary.segments
    decided = labels.first + labels.second
    if not summary.labelled:
        return f"{summary.pairs:,} pairs of {summary.prompts:,} prompts, without labels yet."
    told = f"{part(decided, labels.count)} of {labels.count:,} segments are decided"
    first = f", {labels.first / decided:.0%} of these for the first" if decided else ""
    motion = f"; winners move {summary.motion.ratio:.2f} times as much as losers" if summary.motion else ""
    return f"{summary.pairs:,} pairs of {summary.prompts:,} prompts: {told}{first}{motion}."


def _own(found: PairSet) -> Differing:
    """How the set was made, and what of its settings is not as it would be by itself."""
    usual = {**PairSettings().model_dump(mode="json"), "labelling": Labelling().model_dump(mode="json")}
    named: dict[str, Any] = {name: found.facts[name] for name in ("strategy", "label", "seed") if name in found.facts}
    settings = found.facts.get("settings")
    own = differing(settings, usual) if isinstance(settings, Mapping) else ()
    return [*differing(named, {"seed": 0}), *own]


def _row(pair: Pair, address: Callable[[str], str]) -> dict[str, Any]:
    """One pair as the page's script takes it; times are in seconds."""
    scores = (pair.scores.first_clip, pair.scores.second_clip) if pair.scores else None
    found = margins(pair)
    margin = sum(found) / len(found) if found else 0.0
    about = {"eta": pair.eta is not None and f"{pair.eta:.3f}", "from": pair.source}
    about["margin"] = pair.scores is not None and f"{margin:.3g}"
    return {
        "id": pair.id,
        "title": pair.prompt,
        "videos": [address(name) for name in (pair.first_file_name, pair.second_file_name)],
        "fps": pair.fps,
        "seconds": pair.shown[-1][1] / pair.fps,
        "segments": [_segment(pair, i) for i in range(len(pair.segments))],
        "better": {1: "first", -1: "second"}.get(pair.label or 0, ""),
        "note": f"whole clip: {_verdict(pair.label, scores)}",
        "about": "  ".join([pair.id, *(f"{name} {value}" for name, value in about.items() if value)]),
        "margin": margin,
        "decided": sum(label != 0 for label in pair.labels or ()),
    }


def _segment(pair: Pair, index: int) -> dict[str, Any]:
    """One piece of the timeline; `share` is its part of the clip's length, in percent."""
    start, end = pair.shown[index]
    label = pair.labels[index] if pair.labels else None
    scores = None
    if pair.scores and index < min(len(pair.scores.first), len(pair.scores.second)):
        scores = pair.scores.first[index], pair.scores.second[index]
    return {
        "start": start / pair.fps,
        "end": end / pair.fps,
        "share": 100 * (end - start) / pair.shown[-1][1],
        "kind": KINDS[label],
        "note": f"{start / pair.fps:.2f} to {end / pair.fps:.2f} s: {_verdict(label, scores)}",
    }


def _verdict(label: int | None, scores: tuple[float, float] | None) -> str:
    """The verdict in words: ``second is better (first -0.12, second 0.34)``."""
    return VERDICTS[label] + (f" (first {scores[0]:.3g}, second {scores[1]:.3g})" if scores else "")


def _addresses(root: Path, page: Path) -> Callable[[str], str]:
    """A function from a video's name in the set `root` to its address relative to the page's folder; folders are
    resolved first, so that `..` steps are right, and each once: a set may have ten thousand videos in one.
    """
    here = page.parent.resolve()

    @cache
    def folder(path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), here)).as_posix()

    def address(name: str) -> str:
        video = root / name
        return quote((Path(folder(video.parent)) / video.name).as_posix())

    return address
