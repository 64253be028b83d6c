"""`vpo eval`: the base model against runs. The same command goes on where it was stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vpo_kit import files
from vpo_kit.errors import DataError
from vpo_kit.evaluation import best_of, people, report, set_metrics, tables, vbench
from vpo_kit.evaluation.best_of import Equal
from vpo_kit.evaluation.samples import Results, compare
from vpo_kit.evaluation.statistics import Paired, corrected
from vpo_kit.library.bench import BASE, CANDIDATES, Bench, EvaluateRequest, EvaluateSettings
from vpo_kit.library.display import count_bar, print_changes
from vpo_kit.library.heartbeat import clock
from vpo_kit.library.leaderboard import show_people
from vpo_kit.pages.differing import Differing, differing
from vpo_kit.pages.templates import Head, command, today


def evaluate(
    runs: Path | str | Sequence[Path | str], output: Path | str, *, reward: str | Sequence[str] = (), **options: Any
) -> dict[str, Any]:
    """The base model against `runs` (run folders, LoRA folders or files of one model): the same held-out prompts and
    seeds, paired intervals. Returns what ``results.json`` in `output` holds.

    `options` are the other fields of `EvaluateRequest`; what is none of them is a setting of the model section or of
    `reward`. The first run's own model, precision and sampling are the defaults. Raises `VpoError`.
    """
    known = {one.name for one in fields(EvaluateRequest)} - {"settings"}
    return run(
        EvaluateRequest(
            runs=[Path(one) for one in ([runs] if isinstance(runs, str | Path) else runs)],
            output=Path(output),
            rewards=[reward] if isinstance(reward, str) else list(reward),
            settings={key: value for key, value in options.items() if key not in known},
            **{key: value for key, value in options.items() if key in known},
        )
    )


def run(request: EvaluateRequest) -> dict[str, Any]:
    """Write ``results.json``, ``results.md``, ``report.html`` and the videos, and print the changes."""
    began, bench = time.monotonic(), Bench(request)
    with files.claimed(request.output, "evaluation"):
        return _run(request, bench, began)


def _run(request: EvaluateRequest, bench: Bench, began: float) -> dict[str, Any]:
    results = [bench.evaluation(label) for label in bench.labels]
    if request.vbench_export is not None:
        videos = [bench.folder.videos(label) for label in bench.labels]
        bench.console.print("in VBench's own environment:")
        for command in vbench.export(request.vbench_export, results, videos):
            bench.console.print(f"  {command}", soft_wrap=True, highlight=False)
    if request.vbench_results:
        results = vbench.read(request.vbench_results, results)
    results = _with_diversity(bench, results)
    changes, baseline = _changes(bench, results), _best_of(bench, results)
    facts = _write(bench, results, changes, baseline, began)
    for label, change in changes.items():
        print_changes(bench.console, change, BASE, label)
    show_people(bench.console, people.read(request.output), bench.loras)
    for line in baseline.lines():
        bench.console.print(line, soft_wrap=True, highlight=False)
    bench.console.print(f"page: {request.output / 'report.html'}", soft_wrap=True)
    return facts


def _with_diversity(bench: Bench, results: list[Results]) -> list[Results]:
    if bench.request.videos_per_prompt < 2:
        return results
    store, found = bench.store(bench.diversity_kind), []
    for result in results:
        with count_bar(bench.console, f"{result.name}, diversity", len(result.files), "videos") as tick:
            seen = store.of_videos(result, bench.folder.videos(result.name), tick)
        found.append(set_metrics.with_diversity(result, seen))
    return found


def _changes(bench: Bench, results: Sequence[Results]) -> dict[str, dict[str, Paired]]:
    """Every model's changes against the base, corrected together; with distances where there is a reference."""
    changes = {result.name: compare(results[0], result) for result in results[1:]}
    if bench.request.reference is None:
        return changes
    if len(results[0].files) < 2:
        raise DataError("--reference: a distance between sets needs two videos of each model: raise --num-prompts")
    store, seen = bench.store(bench.distance_kind), []
    files = set_metrics.reference_files(bench.request.reference)
    with count_bar(bench.console, "reference", len(files), "clips") as tick:
        reference = store.of_reference(bench.request.reference, bench.plan.settings, tick)
    for result in results:
        with count_bar(bench.console, f"{result.name}, features", len(result.files), "videos") as tick:
            seen.append(store.of_videos(result, bench.folder.videos(result.name), tick))
    if len(reference) < len(files):
        bench.console.print(f"reference: {len(reference)} of {len(files)} clips are long enough and can be read")
    for result, after in zip(results[1:], seen[1:], strict=True):
        found = set_metrics.distance_changes(seen[0], after, reference, result.groups)
        changes[result.name] = corrected(changes[result.name] | found)
    return changes


@dataclass(frozen=True)
class Baseline:
    """The base's best of n by a reward against one sample, and how many samples each run's gain equals."""

    reward: str = ""
    judge: str = ""
    changes: Mapping[str, Mapping[str, Paired]] = field(default_factory=dict)
    equals: Mapping[str, Equal] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What the terminal shows."""
        rows = [f"{name} of the base: {self.judge} {tables.span(c[self.judge])}" for name, c in self.changes.items()]
        return rows + [f"{label} equals the base's best of {n} by {self.reward}" for label, n in self.equals.items()]


def _best_of(bench: Bench, results: Sequence[Results]) -> Baseline:
    """The base's best of n by the first reward that is asked for, judged by one that is held out where there is one."""
    plan = bench.candidates_plan
    if plan is None:
        return Baseline()
    candidates, names = bench.evaluation(CANDIDATES, plan), [part.spec for part in bench.plans]
    reward = names[0].name
    judge = next((spec.name for spec in names if not spec.for_training), reward)
    scores = candidates.metrics[reward]
    counts = best_of.counts(plan.videos_per_prompt)
    picked = [best_of.picked(results[0], candidates, scores, n, f"best of {n} by {reward}") for n in counts]
    expected = best_of.curve(candidates, scores, judge)
    equals = {one.name: best_of.equal(expected, best_of.by_prompt([one], judge)) for one in results[1:]}
    return Baseline(reward, judge, {one.name: compare(results[0], one) for one in picked}, equals)


def _write(
    bench: Bench,
    results: Sequence[Results],
    changes: Mapping[str, Mapping[str, Paired]],
    baseline: Baseline,
    began: float,
) -> dict[str, Any]:
    request, output = bench.request, bench.request.output
    said = people.read(output)
    licences = {plan.spec.name: plan.spec.licence for plan in bench.plans}
    if request.dino is not None:
        licences["dino"] = f"that of {request.dino}"
    facts: dict[str, Any] = {
        "model": bench.name,
        "seed": request.seed,
        "prompts": len(bench.items),
        "videos_per_prompt": request.videos_per_prompt,
        "sampling": asdict(bench.plan.settings),
        "features": {"diversity": bench.diversity_kind, "distances": bench.distance_kind},
        "licences": licences,
        "versions": report.versions(),
        "means": {result.name: result.table() for result in results},
        "changes": {label: report.rows(change) for label, change in changes.items()},
        "best_of": {name: report.rows(change) for name, change in baseline.changes.items()},
        "equals_best_of": {label: found.facts() for label, found in baseline.equals.items()},
        **({"people": _plain(said, bench.loras)} if said else {}),
    }
    shown = {**changes, **baseline.changes}
    files.write(output / "results.json", json.dumps(facts, indent=2) + "\n")
    files.write(output / "results.md", tables.markdown(BASE, shown) + _lines(people.markdown(said, bench.loras)))
    if request.latex:
        files.write(output / "results.tex", tables.latex(BASE, shown) + _lines(people.latex(said, bench.loras), "% "))
    page = report.Page(
        title=f"{bench.name}: {BASE} against {', '.join(bench.loras)}",
        evaluations=results,
        folders=[f"videos/{label}" for label in bench.labels],
        own=_own(bench),
        people=people.cells(said, bench.loras),
        head=Head(date=today(), duration=clock(time.monotonic() - began), command=command()),
        settings={key: facts[key] for key in ("model", "seed", "prompts", "videos_per_prompt", "sampling", "features")},
        licences=licences,
        changes=shown,
        runs={label: _facts_of(path) for label, path in zip(bench.loras, request.runs, strict=True)},
    )
    files.write(output / "report.html", report.render(page))
    return facts


def _plain(said: people.ByRow, rows: Collection[str]) -> dict[str, Any]:
    """What people said of each row, empty where they did not judge it."""
    return {row: {name: asdict(one) for name, one in said.get(row, {}).items()} for row in rows}


def _lines(table: Sequence[str], comment: str = "") -> str:
    """A table of what people said with its caption, below the one of the judges; nothing where they were not asked."""
    return "\n".join(["", *table, f"{comment}{people.CAPTION}", ""]) if table else ""


def _own(bench: Bench) -> Differing:
    """What of the request and its settings is not as it would be by itself."""
    left = ("runs", "output", "model", "settings", "latex", "quiet")  # said elsewhere, or of no weight
    usual = {one.name: one.default for one in fields(EvaluateRequest) if one.name not in left}
    here = {name: getattr(bench.request, name) for name in usual}
    default = EvaluateSettings().model_dump(mode="json")
    return [*differing(here, usual), *differing(bench.wanted.model_dump(mode="json"), default)]


def _facts_of(run: Path) -> report.RunFacts:
    """What a run folder says of itself; nothing where only a LoRA was given, or where it cannot be read."""
    found: dict[str, str] = {}
    for name in ("config.yaml", "metrics.jsonl"):
        try:
            found[name] = (run / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            found[name] = ""
    try:
        return report.RunFacts(found["config.yaml"], [json.loads(line) for line in found["metrics.jsonl"].splitlines()])
    except ValueError:
        return report.RunFacts(found["config.yaml"])
