"""`vpo eval`: the base model against runs. The same command goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vpo_kit import config, models
from vpo_kit.commands import loras
from vpo_kit.commands import recipe as recipes
from vpo_kit.commands.display import count_bar, print_changes
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.evaluation import features, report, sets, tables, vbench
from vpo_kit.evaluation.consistency import Consistency, Dino
from vpo_kit.evaluation.evaluate import Evaluation, Measure, Plan, compare, evaluate
from vpo_kit.evaluation.folder import EvalFolder
from vpo_kit.evaluation.statistics import Paired, corrected
from vpo_kit.evaluation.temporal import closed_forms
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.loading import prompts_of
from vpo_kit.pairing.store import replace
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward, parse

BASE, GOLD = "base", "gold"


@dataclass(frozen=True)
class Request:
    """The options of the command line."""

    runs: Sequence[Path]
    output: Path
    model: str | None = None
    prompts: Path | None = None
    num_prompts: int = 48
    videos_per_prompt: int = 1
    rewards: Sequence[str] = ("vqa",)
    seed: int = 0
    assignments: Sequence[str] = ()
    dino: str | None = None
    features: str | None = None
    reference: Path | None = None
    latex: bool = False
    vbench_export: Path | None = None
    vbench_results: Sequence[Path] = ()


class Bench:
    """What a request asks for, checked; model, judges and networks are loaded when they are first needed."""

    def __init__(self, request: Request) -> None:
        self.request, self.console = request, Console()
        self.loras = dict(zip(_names(request.runs), map(loras.weights_of, request.runs), strict=True))
        self.name = request.model or _model_of(request.runs[0])
        file = request.prompts or prompts_of(self.name, "heldout")
        if file is None:
            raise ConfigError(f"model {self.name!r} ships no held-out prompts: give --prompts FILE")
        self.texts = recipes.spread(read_prompts(file), request.num_prompts)
        self.sampling, self.plans = _checked(request)
        for kind in (self.diversity_kind, self.distance_kind):
            features.check(kind, has_dino=request.dino is not None)
        if request.reference is not None:
            sets.reference_files(request.reference)
        self.folder = EvalFolder(request.output)
        self.facts = {
            "model": self.name, "prompts": self.texts, "videos_per_prompt": request.videos_per_prompt,
            "seed": request.seed, "sampling": self.sampling.model_dump(), "dino": request.dino,
            "rewards": [[p.kind.__name__, p.config.model_dump(mode="json")] for p in self.plans],
            "versions": report.versions(),
        }  # fmt: skip
        self._begun = self.folder.begun(self.facts)
        for label, lora in self.loras.items():
            self.folder.check_source(label, lora)

    @property
    def labels(self) -> list[str]:
        return [BASE, *self.loras]

    @property
    def diversity_kind(self) -> str:
        """A judge of quality sees flaws and hardly content, so it is not what two seeds are told apart with."""
        return self.request.features or "pixels"

    @property
    def distance_kind(self) -> str:
        return self.request.features or "judge"

    @cached_property
    def model(self) -> VideoModel:
        return models.load(self.name)

    @cached_property
    def plan(self) -> Plan:
        """Raises `ConfigError` where the model's own settings are no longer those that the folder was begun with."""
        old = self._begun["settings"] if self._begun else None
        settings = Settings(**old) if old else recipes.settings_of(self.model.settings, self.sampling)
        if not old:
            self.folder.begin(self.facts | {"settings": asdict(settings)})
        return Plan(self.texts, self.request.videos_per_prompt, settings, self.sampling.batch_size, self.request.seed)

    @cached_property
    def judges(self) -> list[Reward]:
        return rewards.load(self.plans, self.model.device).parts

    @cached_property
    def dino(self) -> Dino | None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return None if self.request.dino is None else Dino(self.request.dino).to(device)

    def evaluation(self, label: str) -> Evaluation:
        """Of one model: from its folder, or sampled and measured."""
        done, lora = self.folder.finished(label, self.plan), self.loras.get(label)
        if done is not None:
            return done
        if recipes.settings_of(self.model.settings, self.sampling) != self.plan.settings:
            raise ConfigError(f"the sampling settings of {self.name} have changed: give another --output")
        judges, where = self.judges, self.folder.videos(label)
        extra: list[Measure] = [closed_forms, Consistency(self.dino, judges)]
        self.folder.claim(label, lora)
        with count_bar(self.console, label, len(self.plan.items), "videos") as tick:
            if lora is None:
                return evaluate(self.model, self.plan, judges, where, label, tick, extra)
            with loras.loaded(self.model, lora):
                return evaluate(self.model, self.plan, judges, where, label, tick, extra)

    def store(self, kind: str) -> sets.FeatureFolder:
        def get() -> features.ClipFeatures:
            if kind not in extractors:
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                extractors[kind] = features.load(kind, self.dino, device)
            return extractors[kind]

        extractors: dict[str, features.ClipFeatures] = {}
        return sets.FeatureFolder(self.folder.path / "features", kind, get)


def run(request: Request) -> None:
    """Write ``results.json``, ``results.md``, ``report.html`` and the videos, and print the changes."""
    bench = Bench(request)
    results = [bench.evaluation(label) for label in bench.labels]
    if request.vbench_export is not None:
        videos = [bench.folder.videos(label) for label in bench.labels]
        bench.console.print("in VBench's own environment:")
        for command in vbench.export(request.vbench_export, results, videos):
            bench.console.print(f"  {command}", soft_wrap=True, markup=False, highlight=False)
    if request.vbench_results:
        results = vbench.read(request.vbench_results, results)
    results = _with_diversity(bench, results)
    changes = _changes(bench, results)
    _write(bench, results, changes)
    for label, change in changes.items():
        print_changes(bench.console, change, BASE, label)
    bench.console.print(f"page: {request.output / 'report.html'}", soft_wrap=True)


def _with_diversity(bench: Bench, results: list[Evaluation]) -> list[Evaluation]:
    if bench.request.videos_per_prompt < 2:
        return results
    store, found = bench.store(bench.diversity_kind), []
    for result in results:
        with count_bar(bench.console, f"{result.name}, diversity", len(result.files), "videos") as tick:
            seen = store.of_videos(result, bench.folder.videos(result.name), tick)
        found.append(sets.with_diversity(result, seen))
    return found


def _changes(bench: Bench, results: Sequence[Evaluation]) -> dict[str, dict[str, Paired]]:
    """Every model's changes against the base, corrected together; with distances where there is a reference."""
    changes = {result.name: compare(results[0], result) for result in results[1:]}
    if bench.request.reference is None:
        return changes
    if len(results[0].files) < 2:
        raise DataError("--reference: a distance between sets needs two videos of each model: raise --num-prompts")
    store, seen = bench.store(bench.distance_kind), []
    files = sets.reference_files(bench.request.reference)
    with count_bar(bench.console, "reference", len(files), "clips") as tick:
        reference = store.of_reference(bench.request.reference, bench.plan.settings, tick)
    for result in results:
        with count_bar(bench.console, f"{result.name}, features", len(result.files), "videos") as tick:
            seen.append(store.of_videos(result, bench.folder.videos(result.name), tick))
    if len(reference) < len(files):
        bench.console.print(f"reference: {len(reference)} of {len(files)} clips are long enough and can be read")
    for result, after in zip(results[1:], seen[1:], strict=True):
        found = sets.distance_changes(seen[0], after, reference, result.groups)
        changes[result.name] = corrected(changes[result.name] | found)
    return changes


def _write(bench: Bench, results: Sequence[Evaluation], changes: Mapping[str, Mapping[str, Paired]]) -> None:
    request, output = bench.request, bench.request.output
    licences = {plan.spec.name: plan.spec.licence for plan in bench.plans}
    if request.dino is not None:
        licences["dino"] = f"that of {request.dino}"
    facts: dict[str, Any] = {
        "model": bench.name, "seed": request.seed, "prompts": len(bench.texts),
        "videos_per_prompt": request.videos_per_prompt, "sampling": asdict(bench.plan.settings),
        "features": {"diversity": bench.diversity_kind, "distances": bench.distance_kind},
        "licences": licences, "versions": report.versions(),
        "means": {result.name: result.table() for result in results},
        "changes": {label: report.rows(change) for label, change in changes.items()},
    }  # fmt: skip
    replace(output / "results.json", json.dumps(facts, indent=2) + "\n")
    replace(output / "results.md", tables.markdown(BASE, changes))
    if request.latex:
        replace(output / "results.tex", tables.latex(BASE, changes))
    page = report.Page(
        title=f"{bench.name}: {BASE} against {', '.join(bench.loras)}",
        evaluations=results,
        folders=[f"videos/{label}" for label in bench.labels],
        settings={key: facts[key] for key in ("model", "seed", "prompts", "videos_per_prompt", "sampling", "features")},
        licences=licences,
        changes=changes,
        runs={label: _facts_of(path) for label, path in zip(bench.loras, request.runs, strict=True)},
    )
    replace(output / "report.html", report.render(page))


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


def _checked(request: Request) -> tuple[config.Sampling, list[rewards.Plan]]:
    """``--set`` and ``--reward``: `sampling.*`, and `reward.*` as in a recipe (of several rewards, by name)."""
    values = config.read_assignments(request.assignments)
    if set(values) - {"sampling", "reward"}:
        raise ConfigError("--set: only sampling.* and reward.* can be set here")
    sampling = config.validate(config.Sampling, values.get("sampling", {}), "sampling.")
    text = "+".join(dict.fromkeys(request.rewards))
    plans = rewards.plan(text, values.get("reward", {}))
    return sampling, plans if GOLD in [name for name, _ in parse(text)] else [*plans, *rewards.plan(GOLD, {})]


def _model_of(run: Path) -> str:
    if (run / "config.yaml").is_file():
        return str(config.read_file(run / "config.yaml").get("model", "sprites"))
    return "sprites"


def _names(runs: Sequence[Path]) -> list[str]:
    """A short, unique name for each run: its folder's, with a number where two are alike."""
    names: list[str] = []
    for path in runs:
        name = path.resolve().name if path.is_dir() else path.resolve().parent.name
        names.append(name if name not in (BASE, *names) else f"{name}-{len(names) + 1}")
    return names
