"""A run as it can be followed while it trains: trackers, samples now and then, and a page that is written anew."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vpo_kit import step_folders
from vpo_kit.evaluation import report, tables
from vpo_kit.evaluation.samples import Results, SamplePlan
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.pages.differing import differing
from vpo_kit.pages.templates import Head, command, today
from vpo_kit.training.loop import Report
from vpo_kit.training.recipe import Recipe, usual
from vpo_kit.training.run_folder import RunFolder
from vpo_kit.training.trackers.base import Trackers, opened

SHOWN = 4
"""Videos that a tracker gets of an evaluation."""
PAGE_S = 60.0
"""Seconds between two pages of a run: each is made of the whole log, which takes most of a second."""


Sample = Callable[[SamplePlan, str], Results | None]
"""A function that samples and measures a plan into a folder of ``samples/``, all processes together."""


@contextmanager
def followed(recipe: Recipe, folder: RunFolder, sample: Sample, *, is_main: bool) -> Iterator[Following]:
    """The run's following; the main process alone writes."""
    run = recipe.run
    with opened(run.tracking if is_main else [], folder.path, folder.path.name, run.model_dump(mode="json")) as found:
        yield Following(recipe, folder, found, sample, writes=is_main)


class Following:
    """What the main process tells of a run."""

    def __init__(self, recipe: Recipe, folder: RunFolder, trackers: Trackers, sample: Sample, writes: bool) -> None:
        self._recipe, self._folder, self._trackers, self._sample = recipe, folder, trackers, sample
        self._writes = writes
        self._before: Results | None = None
        self._samples: tuple[int, Results] | None = None
        self._written = -math.inf

    def began(self, before: Results | None) -> None:
        """The run begins, or goes on, from this measurement."""
        self._before = before
        self._show(0, "before", step_folders.name(0), before)
        self._write_page(0)

    def step(self, row: Report) -> None:
        """A step has been logged."""
        self._trackers.scalars(row)
        due = int(row["step"]) % self._recipe.run.validation.every == 0
        if due and time.monotonic() - self._written >= PAGE_S:
            self._write_page(int(row["step"]))

    def sampled(self, plan: SamplePlan, step: int) -> None:
        """Sample as the policy now stands. Called by all processes."""
        small = replace(plan, inputs=plan.inputs[: self._recipe.run.samples.num_prompts])
        found = self._sample(small, place(step))
        if found is not None:
            self._samples = (step, found)
            self._show(step, "samples", place(step), found)

    def ended(self, step: int, after: Results | None, changes: Mapping[str, Paired]) -> None:
        """The measurement after training, and its table."""
        self._show(step, "after", step_folders.name(step), after)
        if changes:
            rows = [(name, *tables.values(one), tables.span(one), tables.chance(one)) for name, one in changes.items()]
            self._trackers.table(step, "changes", [("metric", "before", "after", "change [95%]", "p"), *rows])

    def _show(self, step: int, name: str, where: str, found: Results | None) -> None:
        if found is not None:
            self._trackers.videos(step, name, clips(self._folder.path / "samples" / where, found))

    def _write_page(self, step: int) -> None:
        """Videos and curves so far; the last page, with the whole measurement, takes its place."""
        if self._before is None or not self._writes:
            return
        run = self._recipe.run
        shown, folders = [self._before], [f"samples/{step_folders.name(0)}"]
        if self._samples is not None:
            at, found = self._samples
            shown = [_part(self._before, found), replace(found, name=f"step {at}")]
            folders.append(f"samples/{place(at)}")
        page = report.Page(
            title=f"{run.method_name}, step {step} of {run.steps}",
            evaluations=shown,
            folders=folders,
            log=self._folder.log(),
            settings=run.model_dump(mode="json"),
            licences={part.spec.name: part.spec.licence for part in [*self._recipe.reward, *self._recipe.judges]},
            own=differing(run.model_dump(mode="json"), usual(self._recipe)),
            head=Head(said="The run goes on; this page is loaded again by itself.", date=today(), command=command()),
            live=True,
        )
        self._folder.write("report.html", report.render(page))
        self._written = time.monotonic()


def place(step: int) -> str:
    """The folder of the samples after a step, in ``samples/``."""
    return f"during-{step:06d}"


def clips(folder: Path, found: Results) -> dict[Path, str]:
    """The first few videos of an evaluation, each with its prompt."""
    rows = list(zip(found.files, found.groups, strict=True))[:SHOWN]
    return {folder / file: found.prompts[group] for file, group in rows}


def _part(whole: Results, small: Results) -> Results:
    """`whole` on the prompts of `small`, which are its first ones."""
    rows = [i for i, file in enumerate(whole.files) if file in set(small.files)]
    metrics = {name: [whole.metrics[name][i] for i in rows] for name in whole.metrics.keys() & small.metrics.keys()}
    return replace(
        whole,
        prompts=small.prompts,
        pictures=small.pictures,
        groups=[whole.groups[i] for i in rows],
        files=[whole.files[i] for i in rows],
        metrics=metrics,
    )
