"""`vpo eval`: the base model against runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vpo_kit import config, models
from vpo_kit.commands import loras
from vpo_kit.commands import recipe as recipes
from vpo_kit.commands.display import count_bar, print_changes
from vpo_kit.errors import ConfigError, OutputError
from vpo_kit.evaluation import report
from vpo_kit.evaluation.evaluate import Plan, compare, evaluate
from vpo_kit.models.loading import prompts_of
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.training.folder import RunFolder


def run(
    runs: Sequence[Path],
    output: Path,
    model_name: str | None,
    prompts: Path | None,
    num_prompts: int,
    videos_per_prompt: int,
    reward_names: Sequence[str],
    seed: int,
    assignments: Sequence[str],
) -> None:
    """Sample base and runs on the same prompts and seeds; write ``results.json``, ``report.html`` and the videos."""
    sampling = recipes.sampling_only(assignments)
    for path in runs:
        loras.weights_of(path)
    name = model_name or _model_of(runs[0])
    file = prompts or prompts_of(name, "heldout")
    if file is None:
        raise ConfigError(f"model {name!r} ships no held-out prompts: give --prompts FILE")
    texts = recipes.spread(read_prompts(file), num_prompts)
    plans = [plan for text in dict.fromkeys([*reward_names, "gold"]) for plan in rewards.plan(text, {})]
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{output} is not empty: give another --output")
    model, console = models.load(name), Console()
    settings = recipes.settings_of(model.settings, sampling)
    plan = Plan(texts, videos_per_prompt, settings, sampling.batch_size, seed)
    judges = rewards.load(plans, model.device).parts
    names = ["base", *_names(runs)]
    with count_bar(console, "base", len(plan.items), "videos") as tick:
        results = [evaluate(model, plan, judges, output / "videos" / "base", "base", tick)]
    for label, path in zip(names[1:], runs, strict=True):
        with count_bar(console, label, len(plan.items), "videos") as tick, loras.loaded(model, path):
            results.append(evaluate(model, plan, judges, output / "videos" / label, label, tick))
    changes = {result.name: compare(results[0], result) for result in results[1:]}
    folder = RunFolder(output)
    written = {label: report.rows(change) for label, change in changes.items()}
    facts = {"model": name, "seed": seed, "prompts": len(texts), "versions": report.versions(), "changes": written}
    folder.write("results.json", json.dumps(facts, indent=2) + "\n")
    page = report.Page(
        title=f"{name}: base against {', '.join(names[1:])}",
        evaluations=results,
        folders=[f"videos/{label}" for label in names],
        settings={"model": name, "seed": seed, "sampling": sampling.model_dump()},
        licences={plan.spec.name: plan.spec.licence for plan in plans},
    )
    folder.write("report.html", report.render(page))
    for label, change in changes.items():
        print_changes(console, change, "base", label)
    console.print(f"page: {output / 'report.html'}", soft_wrap=True)


def _model_of(run: Path) -> str:
    if (run / "config.yaml").is_file():
        return str(config.read_file(run / "config.yaml").get("model", "sprites"))
    return "sprites"


def _names(runs: Sequence[Path]) -> list[str]:
    """A short, unique name for each run: its folder's, with a number where two are alike."""
    names: list[str] = []
    for path in runs:
        name = path.resolve().name if path.is_dir() else path.resolve().parent.name
        names.append(name if name not in ("base", *names) else f"{name}-{len(names) + 1}")
    return names
