"""All methods on one board: ``python -m benchmarks.learning.board --work FOLDER [--passes 36000] [--smoke]``.

Three stages, each by `vpo` in processes of its own, each going on where it was stopped (``--until`` ends after one):

- `data`: 480 clips of the world, guided and independent pairs of them and of their captions, labelled by `vqa`; local
  and real pairs, which need no label. What is there already is taken by ``--clips``, ``--guided``, ``--independent``.
- `tune`: the same number of trials for each method, `GRIDS`, one seed, a third of the passes. Half of the validation
  captions choose a run's strength, `vqa` on the other half chooses the trial; no trial is trained on
  these captions, and none of them is reported. ``learning/tuned.json`` holds them.
- `board`: `vpo compare` with what was found, equal passes, three seeds, the reported captions. ``learning/board.json``
  holds the board; ``board.md`` and ``board.png`` show it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import facts
from benchmarks.claims.sets import vpo
from vpo_kit import files
from vpo_kit.folders import prompts_of
from vpo_kit.prompts import read_prompts

STAGES = ("data", "tune", "board")
LR = "optimiser.lr"
GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "online": {LR: (5e-4, 1e-3), "method.beta": (50.0, 100.0)},
    "nft": {LR: (5e-4, 2e-3), "method.mixture": (0.1, 1.0)},
    "grpo": {LR: (5e-4, 2e-3), "method.clip": (1e-3, 1e-2)},
    "rwr": {LR: (3e-4, 1e-3), "method.temperature": (0.3, 1.0)},
    "draft": {LR: (3e-4, 1e-3), "method.grad_steps": (1, 2)},
    "instruct": {LR: (3e-4, 1e-3), "method.grad_steps": (1, 2)},
    "dense": {LR: (3e-4, 1e-3), "method.beta": (100.0, 500.0)},
    "structural": {LR: (3e-4, 1e-3), "method.beta": (100.0, 500.0)},
    "dpo": {LR: (3e-4, 1e-3), "method.beta": (100.0, 500.0)},
    "kto": {LR: (3e-4, 1e-3), "method.beta": (100.0, 500.0)},
    "mapo": {LR: (3e-4, 1e-3), "method.beta": (0.3, 3.0)},
    "sft": {LR: (1e-4, 1e-3), "method.caption_dropout": (0.0, 0.1)},
}
"""What is tried for each method: two rates, and two values of what its strength hangs on."""
SOURCES = ("independent", "local", "real")
"""The pairs of `dpo`, a row each; it is tuned on the first."""
INDEPENDENT = ("dpo", "kto", "mapo")
TRIAL_SEED, TRIAL_SHARE = 100, 3
SHOWN = ("gold", "vqa", "flawed", "motion")


class Extent:
    """How much is made, tried and measured."""

    def __init__(self, passes: int, *, smoke: bool) -> None:
        self.clips, self.seeds, self.passes = (6, 1, 40) if smoke else (480, 3, passes)
        self.reported, self.tuned_on = (2, 2) if smoke else (48, 48)
        self.settings = ["batch_size=2", "lora.rank=2"] if smoke else []
        self.strengths = "[1.0]" if smoke else "[0.3,0.6,1.0]"
        self.values = 1 if smoke else 2

    def grid(self, method: str) -> dict[str, Sequence[float]]:
        """What is tried of each setting."""
        return {field: values[: self.values] for field, values in GRIDS[method].items()}


def trials(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """The settings of each trial, in the order of the board's rows."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def data(work: Path, extent: Extent, given: Mapping[str, Path | None]) -> None:
    """Everything that is learnt from, under names that no result betrays a place by."""
    work.mkdir(parents=True, exist_ok=True)
    for name, path in given.items():
        if path is not None and not (work / name).exists():
            (work / name).symlink_to(path.resolve(), target_is_directory=True)
    if not (work / "clips" / "metadata.jsonl").is_file():
        vpo(work, "clips", "--output", "clips", "--count", str(extent.clips))
    lines = (work / "clips" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    _write(work / "captions.txt", list(dict.fromkeys(json.loads(line)["text"] for line in lines)))
    _write(work / "train.txt", _own("train"))
    for half, name in enumerate(("choosing.txt", "tuning.txt")):
        _write(work / name, _own("validation")[half::2])
    for name, source in {"guided": ("--videos", "clips"), "independent": ("--prompts", "captions.txt"),
                         "local": ("--videos", "clips"), "real": ("--videos", "clips")}.items():  # fmt: skip
        if not (work / name).is_symlink():
            vpo(work, "pair", "--strategy", name, *source, "--output", name)


def compare(work: Path, name: str, methods: Sequence[str], extent: Extent, own: Sequence[str]) -> list[str]:
    """A comparison on the shared data; returns its arguments."""
    shared = ["selection.reward=vqa", "selection.prompts=choosing.txt", f"selection.strengths={extent.strengths}",
              "selection.num_prompts=32", *extent.settings]  # fmt: skip
    sources = [f"{method}:pairs=independent" for method in ("kto", "mapo") if method in methods]
    arguments = [
        "compare", "--methods", ",".join(methods), "--reward", "vqa", "--prompts", "train.txt", "--pairs", "guided",
        "--independent-pairs", "independent", "--videos", "clips",
        *(part for one in [*shared, *sources] for part in ("--set", one)), *own,
    ]  # fmt: skip
    vpo(work, *arguments, "--output", name)
    return arguments


def tune(work: Path, methods: Sequence[str], extent: Extent) -> list[str]:
    """All trials as one comparison on the tuning captions; returns its arguments."""
    vary = [
        part for method in methods for field, values in extent.grid(method).items()
        for part in ("--vary", f"{method}:{field}={','.join(map(str, values))}")
    ]  # fmt: skip
    return compare(work, "trials", methods, extent, [
        *vary, "--budget", f"network_passes={extent.passes // TRIAL_SHARE}", "--seeds", "1", "--set",
        f"seed={TRIAL_SEED}", "--set", "evaluation.prompts=tuning.txt", "--set",
        f"evaluation.num_prompts={extent.tuned_on}", "--set", "evaluation.best_of=0",
    ])  # fmt: skip


def chosen(work: Path, methods: Sequence[str], extent: Extent) -> dict[str, dict[str, Any]]:
    """For each method all its trials with what they gave, and the settings of the best by `vqa`."""
    rows = {row["name"]: row for row in json.loads((work / "trials" / "results.json").read_text())["rows"]}
    found = {}
    for method in methods:
        made = [
            {"settings": one, "changes": rows[" ".join([method, *(f"{k}={v}" for k, v in one.items())])]["changes"]}
            for one in trials(extent.grid(method))
        ]
        best = max(made, key=lambda one: one["changes"].get("vqa", {"difference": -1e9})["difference"])
        shown = [{**one, "changes": {key: one["changes"].get(key) for key in SHOWN}} for one in made]
        found[method] = {"chosen": best["settings"], "trials": shown}
    return found


def board(work: Path, methods: Sequence[str], extent: Extent, tuned: Mapping[str, Any]) -> list[str]:
    """The comparison that is reported; returns its arguments."""
    own = [
        part for method in methods for field, value in tuned[method]["chosen"].items()
        for part in ("--set", f"{method}:{field}={value}")
    ]  # fmt: skip
    sources = ["--vary", f"dpo:pairs={','.join(SOURCES)}"] if "dpo" in methods else []
    return compare(work, "board", methods, extent, [
        *own, *sources, "--budget", f"network_passes={extent.passes}", "--seeds", str(extent.seeds), "--set",
        f"evaluation.num_prompts={extent.reported}",
    ])  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As Markdown, the best first."""
    lines = ["| method | " + " | ".join(SHOWN) + " | passes | seconds |", "|---" * (len(SHOWN) + 3) + "|"]
    for row in rows:
        spans = [row["changes"].get(key) for key in SHOWN]
        cells = [f"{c['difference']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" if c else "" for c in spans]
        cost = [f"{row['passes'] or 0:,.0f}", f"{row['machine']['seconds'] or 0:,.0f}"]
        lines.append(f"| {row['name']} | " + " | ".join([*cells, *cost]) + " |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Gain by the held-out judge against the seconds of a run, and motion beside it, row by row."""
    shown = [row for row in rows if row["machine"]["seconds"] and "gold" in row["changes"]]
    figure = Figure(figsize=(10, 0.3 * len(shown) + 2.6), layout="constrained")
    gain, motion = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, row in enumerate(shown):
        one, other = row["changes"]["gold"], row["changes"]["motion"]
        gain.plot([row["machine"]["seconds"]] * 2, [one["low"], one["high"]], color=f"C{place % 10}", linewidth=1.4)
        gain.plot([row["machine"]["seconds"]], [one["difference"]], "o", color=f"C{place % 10}", markersize=5)
        gain.annotate(row["name"], (row["machine"]["seconds"], one["difference"]), (4, 4),
                      textcoords="offset points", fontsize=7)  # fmt: skip
        motion.plot([other["low"], other["high"]], [place, place], color=f"C{place % 10}", linewidth=1.4)
        motion.plot([other["difference"]], [place], "o", color=f"C{place % 10}", markersize=5)
    gain.axhline(0, color="#888888", linewidth=0.8)
    motion.axvline(0, color="#888888", linewidth=0.8)
    gain.set_xlabel("seconds of a run")
    gain.set_title("held-out judge, against the base", fontsize=9)
    motion.set_title("motion, against the base", fontsize=9)
    motion.set_yticks(range(len(shown)), [row["name"] for row in shown], fontsize=7)
    motion.invert_yaxis()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _own(split: str) -> list[str]:
    path = prompts_of("sprites", split)
    assert path is not None
    return read_prompts(path)


def _write(path: Path, lines: Sequence[str]) -> None:
    """Not anew where it is the same: a comparison knows its data by the files."""
    text = "\n".join(lines) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        files.write(path, text)


def tuning(work: Path, path: Path, methods: Sequence[str], extent: Extent) -> Mapping[str, Any]:
    """What the trials found, from the result at `path` where it is of the same passes and trials: they take an hour,
    and the board can be made elsewhere.
    """
    asked = {"passes": extent.passes // TRIAL_SHARE, "seed": TRIAL_SEED, "grids": {m: extent.grid(m) for m in methods}}
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if {key: kept[key] for key in asked} == json.loads(json.dumps(asked)):
            return dict(kept["methods"])
    command, found = shlex.join(["vpo", *tune(work, methods, extent)]), chosen(work, methods, extent)
    files.write(path, json.dumps({**facts.facts(), "command": command, **asked, "methods": found}, indent=2) + "\n")
    return found


def report(work: Path, target: Path, arguments: Sequence[str]) -> None:
    """The board as JSON, Markdown and a picture."""
    found = json.loads((work / "board" / "results.json").read_text(encoding="utf-8"))
    result = {"command": shlex.join(["vpo", *arguments]), "board": found}
    files.write(target / "board.json", json.dumps({**facts.facts(), **result}, indent=2) + "\n")
    trained = [row for row in found["rows"] if row["passes"]]
    files.write(target / "board.md", table(trained))
    picture(trained, target / "board.png")
    print(table(trained))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(GRIDS), help="some of them, joined by commas")
    parser.add_argument("--passes", type=int, default=36_000, help="of each run of the board")
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1])
    parser.add_argument("--smoke", action="store_true", help="a few passes on six clips, written into the work folder")
    for name in ("clips", "guided", "independent"):
        parser.add_argument(f"--{name}", type=Path, help="one that is there")
    given = parser.parse_args()
    work, methods = given.work.resolve(), given.methods.split(",")
    extent, wanted = Extent(given.passes, smoke=given.smoke), STAGES.index(given.until)
    target = work if given.smoke else facts.RESULTS / "learning"
    data(work, extent, {name: getattr(given, name) for name in ("clips", "guided", "independent")})
    if wanted >= STAGES.index("tune"):
        tuned = tuning(work, target / "tuned.json", methods, extent)
        if wanted >= STAGES.index("board"):
            report(work, target, board(work, methods, extent, tuned))


if __name__ == "__main__":
    main()
