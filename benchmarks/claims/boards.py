"""Where the boards of the design are, how large they are, and what `vpo compare` is given for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.claims import sets
from benchmarks.claims.design import Design
from benchmarks.claims.scores import Scores
from vpo_kit.comparison.layout import Layout

TENTH, BRIEF_STEPS, BRIEF_PROMPTS = 10, 12, 16


@dataclass(frozen=True, kw_only=True)
class Boards:
    """Where boards and the sets of their pairs are, and their size. Brief ones have a tenth of the steps and of the
    clips, few prompts and half the seeds: they show that all of it runs, and are no results.
    """

    work: Path
    design: Design
    brief: bool = False

    def size(self, board: str) -> Layout:
        planned = self.design.layout(board)
        # the matrix has the most rows, and three seeds: with two of them its brief board would have 24 runs
        return Layout(prompts=BRIEF_PROMPTS, noises=1, seeds=planned.seeds // 2) if self.brief else planned

    def folder(self, board: str) -> Path:
        return self.work / "boards" / board

    def make_sets(self, names: Sequence[str]) -> None:
        """The sets that are not there yet."""
        sets.make(self.work, names, sets.CLIPS // TENTH if self.brief else sets.CLIPS)

    def arguments(self, board: str) -> list[str]:
        """Of `vpo compare`, beside ``--output``."""
        size, planned = self.size(board), self.design.boards[board]
        own = ["--model", planned.model, *planned.arguments]
        if self.brief:
            own = _briefly(own)
        # the base's candidates are measured once for all boards (`judges`)
        measured = (f"num_prompts={size.prompts}", f"videos_per_prompt={size.noises}", "seed=0", "best_of=0")
        settings = [word for value in measured for word in ("--set", f"evaluation.{value}")]
        return ["compare", *own, "--seeds", str(size.seeds), *settings]

    def scores(self, board: str) -> Scores:
        """What was kept of a board, wherever it was run, and of a brief one what is in its folder. Raises
        `WaitingError`.
        """
        return Scores.measured(self.folder(board)) if self.brief else Scores.kept(board)


def _briefly(arguments: Sequence[str]) -> list[str]:
    """A tenth of the budget, or twelve steps where the recipes say how many."""
    if "--budget" not in arguments:
        return [*arguments, "--budget", f"optimiser_steps={BRIEF_STEPS}"]
    place = list(arguments).index("--budget") + 1
    name, _, value = arguments[place].partition("=")
    return [*arguments[:place], f"{name}={max(1, int(value) // TENTH)}", *arguments[place + 1 :]]
