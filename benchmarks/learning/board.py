"""All methods on one board: ``python -m benchmarks.learning.board --work FOLDER [--methods online,dpo] [--smoke]``.

Data: 480 clips of the world, guided and independent pairs of them and of their captions, labelled by `vqa`; local and
real pairs, which need no label. Then, for each method on its own, each by `vpo` in processes of its own that go on
where they were stopped:

- trials: by the same rule for each, with two rates, which add up to the same reach in all methods (`REACHES`), and
  lower ones while nothing is gained; one seed, half of the passes. Half of the validation captions choose a run's
  strength, `vqa` on the other half chooses the trial; no trial is trained on these captions, and none of them is
  reported.
- the board: `vpo compare` with the rate that was found, equal passes, three seeds, the reported captions.

``learning/board/METHOD.json`` holds both; what is there is not made again, so a board may take several days and
machines. ``learning/board.md`` and ``board.png`` show all that are there, and what each method costs in code;
``--show`` makes them anew.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks import facts
from benchmarks.claims.sets import vpo
from benchmarks.learning import code
from vpo_kit import files
from vpo_kit.comparison.outcome import ENDED
from vpo_kit.folders import prompts_of
from vpo_kit.prompts import read_prompts

PASSES_A_STEP = {
    "online": 640, "nft": 448, "grpo": 768, "rwr": 320, "draft": 136, "instruct": 72, "dense": 64, "structural": 64,
    "dpo": 64, "kto": 64, "mapo": 32, "sft": 8,
}  # fmt: skip
"""Of each method with the embedded model's settings, as `vpo compare --dry-run` tells it."""
REACHES = (0.12, 0.4)
"""What the two rates of a method's trials add up to on the board (`vpo_kit.training.reach`): the shipped recipes lie
in between."""
RANK, FALL = 16, 0.7
"""Of the LoRA, and the mean of the falling rate."""
DATA = ("clips", "guided", "independent", "local", "real", "train.txt", "choosing.txt", "tuning.txt")
SOURCES = ("independent", "local", "real")
"""The pairs of `dpo`, a row each; it is tuned on the first."""
INDEPENDENT = ("kto", "mapo")
TRIAL_SEED, TRIAL_SHARE, MOST_TRIALS = 100, 2, 4
FIELD = "optimiser.lr"
SHOWN = ("gold", "vqa", "flawed", "motion", "text_accuracy")


class Extent:
    """How much is made, tried and measured."""

    def __init__(self, passes: int, *, smoke: bool) -> None:
        self.clips, self.seeds, self.passes = (6, 1, 40) if smoke else (480, 3, passes)
        self.reported, self.tuned_on, self.chosen_on = (2, 2, 1) if smoke else (48, 48, 16)
        self.settings = ["batch_size=2", "lora.rank=2"] if smoke else []
        self.strengths = "[1.0]" if smoke else "[0.3,0.6,1.0]"

    def rates(self, method: str) -> list[float]:
        """The rates that are tried, to two digits."""
        steps = max(1, self.passes // PASSES_A_STEP[method])
        return [float(f"{reach / (math.sqrt(RANK) * FALL * steps):.1e}") for reach in REACHES]


def data(work: Path, extent: Extent) -> None:
    """Everything that is learnt from; what is there, a link to another folder for one, is taken as it is."""
    work.mkdir(parents=True, exist_ok=True)
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


def compare(work: Path, name: str, method: str, extent: Extent, own: Sequence[str]) -> str:
    """A comparison on the shared data, in the method's own folder; returns its command."""
    folder = work / method
    folder.mkdir(exist_ok=True)
    for shared in DATA:
        if not (folder / shared).is_symlink():
            (folder / shared).symlink_to(Path("..") / shared)
    settings = ["selection.reward=vqa", "selection.prompts=choosing.txt", f"selection.strengths={extent.strengths}",
                "evaluation.best_of=0", *extent.settings]  # fmt: skip
    if method in INDEPENDENT:
        settings.append(f"{method}:pairs=independent")
    arguments = [
        "compare", "--methods", method, "--reward", "vqa", "--prompts", "train.txt", "--pairs", "guided",
        "--independent-pairs", "independent", "--videos", "clips",
        *(part for one in settings for part in ("--set", one)), *own,
    ]  # fmt: skip
    vpo(folder, *arguments, "--output", name)
    return shlex.join(["vpo", *arguments])


def tune(work: Path, method: str, extent: Extent) -> dict[str, Any]:
    """The trials of a method: what each gave, and the rate of the best by `vqa`. While none gains anything, a third of
    the lowest rate is tried too, up to `MOST_TRIALS` in all.
    """
    trials, commands = [], []
    rates = extent.rates(method)
    while rates:
        name = f"trials-{len(trials) + 1}" if trials else "trials"
        commands.append(compare(work, name, method, extent, _trial(rates, extent)))
        rows = {row["name"]: row for row in _rows(work / method / name)}
        trials += [{"rate": rate, "changes": rows[f"{method} {FIELD}={rate}"]["changes"]} for rate in rates]
        best = max(trials, key=_gain)
        lower = float(f"{min(one['rate'] for one in trials) / 3:.1e}")
        rates = [lower] if _gain(best) <= 0 and len(trials) < MOST_TRIALS else []
    shown = [{**one, "changes": {key: one["changes"].get(key) for key in SHOWN}} for one in trials]
    return {"commands": commands, "seed": TRIAL_SEED, "rate": best["rate"], "trials": shown}


def _trial(rates: Sequence[float], extent: Extent) -> list[str]:
    return [
        "--vary", f"{FIELD}={','.join(map(str, rates))}", "--budget", f"network_passes={extent.passes // TRIAL_SHARE}",
        "--seeds", "1", "--set", f"seed={TRIAL_SEED}", "--set", "evaluation.prompts=tuning.txt", "--set",
        f"evaluation.num_prompts={extent.tuned_on}", "--set", f"selection.num_prompts={extent.chosen_on}",
    ]  # fmt: skip


def _gain(trial: Mapping[str, Any]) -> float:
    found: float = trial["changes"].get("vqa", {"difference": -math.inf})["difference"]
    return found


def board(work: Path, method: str, extent: Extent, rate: float) -> dict[str, Any]:
    """The rows of a method that are reported."""
    sources = ["--vary", f"pairs={','.join(SOURCES)}"] if method == "dpo" else []
    command = compare(work, "board", method, extent, [
        "--set", f"optimiser.lr={rate}", *sources, "--budget", f"network_passes={extent.passes}", "--seeds",
        str(extent.seeds), "--set", f"evaluation.num_prompts={extent.reported}", "--set",
        f"selection.num_prompts={2 * extent.chosen_on}",
    ])  # fmt: skip
    rows = [row for row in _rows(work / method / "board") if row["passes"]]
    return {"command": command, "rows": rows}


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a comparison. Raises `SystemExit` where a run failed: the same command tries it again, and what is
    written is not made again.
    """
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    for row in found:
        for run in row["runs"]:
            if run["status"] not in ENDED:
                raise SystemExit(f"{folder}: {row['name']}, seed {run['seed']}, {run['status']}: {run['reason']}")
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As Markdown, the best first."""
    lines = ["| method | " + " | ".join(SHOWN) + " | passes | seconds |", "|---" * (len(SHOWN) + 3) + "|"]
    for row in rows:
        cells = [cell(key, row["changes"].get(key)) for key in SHOWN]
        cost = [f"{row['passes'] or 0:,.0f}", f"{row['machine']['seconds'] or 0:,.0f}"]
        lines.append(f"| {row['name']} | " + " | ".join([*cells, *cost]) + " |")
    return "\n".join(lines) + "\n"


def cell(key: str, change: Mapping[str, float] | None) -> str:
    """A change with its interval; that of motion as a share of what it is set against."""
    if change is None:
        return ""
    if key == "motion":
        return "{:+.1%} [{:+.1%}, {:+.1%}]".format(*shares(change))
    return f"{change['difference']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"


def shares(change: Mapping[str, float]) -> list[float]:
    """A change and the ends of its interval as shares of what it is set against."""
    return [change[key] / change["before"] for key in ("difference", "low", "high")]


def picture(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Gain by the held-out judge against the seconds of a run, by numbers, and motion beside it, which names them."""
    shown = [row for row in rows if row["machine"]["seconds"] and "gold" in row["changes"]]
    figure = Figure(figsize=(10, 0.3 * len(shown) + 2.6), layout="constrained")
    gain, motion = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, row in enumerate(shown):
        one, (moved, low, high) = row["changes"]["gold"], shares(row["changes"]["motion"])
        gain.plot([row["machine"]["seconds"]] * 2, [one["low"], one["high"]], color=f"C{place % 10}", linewidth=1.4)
        gain.plot([row["machine"]["seconds"]], [one["difference"]], "o", color=f"C{place % 10}", markersize=5)
        gain.annotate(str(place + 1), (row["machine"]["seconds"], one["difference"]), (5, 3),
                      textcoords="offset points", fontsize=8, color=f"C{place % 10}")  # fmt: skip
        motion.plot([low, high], [place, place], color=f"C{place % 10}", linewidth=1.4)
        motion.plot([moved], [place], "o", color=f"C{place % 10}", markersize=5)
    gain.axhline(0, color="#888888", linewidth=0.8)
    motion.axvline(0, color="#888888", linewidth=0.8)
    gain.set_xlim(0, 1.15 * max(row["machine"]["seconds"] for row in shown))
    gain.set_xlabel("seconds of a run")
    gain.set_title("held-out judge, against the base", fontsize=9)
    motion.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    motion.set_title("motion, against the base", fontsize=9)
    motion.set_yticks(range(len(shown)), [f"{place} {row['name']}" for place, row in enumerate(shown, 1)], fontsize=8)
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


def run(work: Path, target: Path, method: str, extent: Extent) -> None:
    """The result of a method, where it is not there yet. One of other passes is refused, as they stand on one board."""
    path = target / "board" / f"{method}.json"
    if path.is_file():
        if (made := json.loads(path.read_text(encoding="utf-8"))["passes"]) != extent.passes:
            raise SystemExit(f"{path} is of {made} passes: delete it, or give --passes {made}")
        return
    trials = tune(work, method, extent)
    found = {"passes": extent.passes, "tuned": trials, **board(work, method, extent, trials["rate"])}
    files.write(path, json.dumps({**facts.facts(), **found}, indent=2) + "\n")


def show(target: Path) -> None:
    """All results that are there, as a table and a picture."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((target / "board").glob("*.json"))]
    rows = [row for one in results for row in one["rows"]]
    rows.sort(key=lambda row: -row["changes"].get("gold", {"difference": -math.inf})["difference"])
    told = f"{table(rows)}\nLines of code:\n\n{code.table(list(PASSES_A_STEP))}"
    files.write(target / "board.md", told)
    picture(rows, target / "board.png")
    print(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--methods", default=",".join(PASSES_A_STEP), help="some of them, joined by commas")
    parser.add_argument("--passes", type=int, default=24_000, help="of each run of the board")
    parser.add_argument("--show", action="store_true", help="nothing is run")
    parser.add_argument("--smoke", action="store_true", help="a few passes on six clips, written into the work folder")
    given = parser.parse_args()
    target = given.work if given.smoke else facts.RESULTS / "learning"
    if not given.show:
        if given.work is None:
            parser.error("--work says where runs go")
        work, extent = given.work.resolve(), Extent(given.passes, smoke=given.smoke)
        data(work, extent)
        for method in given.methods.split(","):
            run(work, target, method, extent)
    show(target)


if __name__ == "__main__":
    main()
