"""`vpo pair` and `vpo label`: make a set, label it, label it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vpo_kit import config, models
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.report import versions
from vpo_kit.folders import prompts_of, resolve
from vpo_kit.labelling import by_reward
from vpo_kit.library.display import count_bar
from vpo_kit.library.sources import find_clips
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import make, store
from vpo_kit.pairing.guided import Guided
from vpo_kit.pairing.independent import Independent
from vpo_kit.pairing.make import Folder, Job, Task
from vpo_kit.pairing.real import Real
from vpo_kit.pairing.settings import Labelling, PairSettings
from vpo_kit.processes import Processes
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.training.run import use


def run(
    strategy: str,
    output: Path,
    prompts: Path | None,
    videos: Path | None,
    model_name: str,
    label: str,
    seed: int,
    assignments: Sequence[str],
) -> None:
    """Make the pairs that are missing in `output`, then the labels. Raises `VpoError`."""
    settings = config.validate(PairSettings, config.read_assignments(assignments))
    label = "none" if strategy in ("local", "real") else label  # a real clip wins over what stands in its place
    reward_name = _reward_of(label)
    plans = rewards.plan(reward_name, {}) if reward_name else []
    data = _data(strategy, prompts, videos, model_name)
    if strategy == "independent" and not plans and (
        settings.independent.num_candidates > 2 or settings.independent.pairs != "best"
    ):  # fmt: skip
        raise ConfigError(
            "--label none makes one pair of two candidates: choosing among more needs --label reward:NAME"
        )
    resolve(model_name)
    processes, folder = Processes(), Folder(output)
    facts = {
        "format": config.FORMAT, "strategy": strategy, "model": model_name, "data": str(data), "seed": seed,
        "label": label, "settings": settings.model_dump(mode="json"), "versions": versions(), "skipped": [],
    }  # fmt: skip
    console = Console(quiet=not processes.is_main)
    folder.check(facts)
    processes.wait()  # all have looked before the first one writes
    if not folder.finished:
        _make(folder, strategy, data, facts, settings, plans, processes, console)
    found = store.read(output)
    if reward_name and not any(pair.labels for pair in found.pairs):
        found = _label(found, reward_name, settings.labelling, processes, console)
    _summary(found, console)


def relabel(path: Path, labeller: str, assignments: Sequence[str]) -> None:
    """Label a finished set anew. Raises `VpoError`."""
    reward_name = _reward_of(labeller)
    if reward_name is None:
        raise ConfigError("--with none: give reward:NAME")
    settings = config.validate(Labelling, config.read_assignments(assignments))
    processes = Processes()
    console = Console(quiet=not processes.is_main)
    _summary(_label(store.read(path), reward_name, settings, processes, console), console)


def _make(
    folder: Folder,
    strategy: str,
    data: Path,
    facts: dict[str, Any],
    settings: PairSettings,
    plans: list[rewards.Plan],
    processes: Processes,
    console: Console,
) -> None:
    model = models.load(str(facts["model"]))
    sampling = use(model, settings.sampling)
    task = Task(model, sampling, PromptCache(model), settings, int(facts["seed"]))
    if strategy != "independent":
        clips = find_clips(data, sampling, processes, console, settings.guided.max_windows)
        facts["skipped"] = clips.skipped
        maker = (
            Guided(task, clips.clips) if strategy == "guided" else Real(task, clips.clips, local=strategy == "local")
        )
        job: Job = maker.job()
    else:
        judge = rewards.load(plans, model.device) if plans else None
        job = Independent(task, read_prompts(data), judge).job()
    if processes.is_main:
        folder.start({**facts, "sampling": asdict(sampling)})
    processes.wait()
    total = sum(len(batch) for batch in processes.share(job.batches))
    with count_bar(console, "pairs", total) as tick:
        make.run(folder, job, task, {**facts, "sampling": asdict(sampling)}, processes, tick)


def _label(
    found: store.PairSet, reward_name: str, settings: Labelling, processes: Processes, console: Console
) -> store.PairSet:
    plans = rewards.plan(reward_name, {})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scorer = by_reward.RewardScorer(reward_name, rewards.load(plans, device))
    facts = {"licences": {plan.spec.name: plan.spec.licence for plan in plans}}
    with count_bar(console, "labels", len(processes.share(found.pairs))) as tick:
        return by_reward.label(found, scorer, settings, processes, lambda: tick(1), facts)


def _reward_of(label: str) -> str | None:
    """The reward's name in ``reward:NAME``; None for ``none``."""
    if label == "none":
        return None
    kind, colon, name = label.partition(":")
    if kind != "reward" or not colon or not name:
        raise ConfigError(f"labels come from reward:NAME (vpo rewards lists them) or none, not from {label!r}")
    return name


def _data(strategy: str, prompts: Path | None, videos: Path | None, model_name: str) -> Path:
    if strategy != "independent":
        if videos is None:
            raise ConfigError(f"--strategy {strategy} starts from real clips: give --videos DIR")
        return videos
    if videos is not None:
        raise ConfigError("--strategy independent takes prompts, not --videos")
    found = prompts or prompts_of(model_name, "train")
    if found is None:
        raise ConfigError(f"model {model_name!r} ships no prompts: give --prompts FILE, one prompt a line")
    return found


def _summary(found: store.PairSet, console: Console) -> None:
    labels: list[int] = [value for pair in found.pairs for value in pair.labels or ()]
    skipped: Sequence[str] = found.facts.get("skipped", [])
    left_out = f", {len(skipped)} left out (dataset.yaml says why)" if skipped else ""
    console.print(f"{found.path}: {len(found.pairs)} pairs{left_out}", soft_wrap=True)
    if labels:
        facts: Mapping[str, Any] = found.facts.get("labels", {})
        counts = {name: labels.count(value) for name, value in (("first", 1), ("second", -1), ("tie", 0))}
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        console.print(f"segments: {shown}   margin {facts.get('tie_margin', 0):.3g}", soft_wrap=True)
