"""What `vpo eval` works with: a request that is checked before anything is loaded, and its parts on demand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from vpo_kit.config import Model, Run
from vpo_kit.errors import ConfigError, VpoError
from vpo_kit.evaluation import features, measuring, report, set_metrics
from vpo_kit.evaluation.consistency import Dino
from vpo_kit.evaluation.eval_folder import GROWING, EvalFolder
from vpo_kit.evaluation.samples import Results, SamplePlan, evaluate
from vpo_kit.folders import is_embedded, prompts_of
from vpo_kit.library import left_out
from vpo_kit.library.display import count_bar, terminal
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.settings import Settings
from vpo_kit.models.tokens import cut_short
from vpo_kit.prompts import read_inputs
from vpo_kit.registry import METRICS
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Reward, parse
from vpo_kit.training import loras, sections
from vpo_kit.training import recipe as recipes
from vpo_kit.training.run import load_model, settings_of

BASE, GOLD, CANDIDATES = "base", "gold", "base-candidates"
IN_0_2 = ("motion", "temporal", "consistency")
"""Metrics of vpo 0.2.0, which did not write them down."""
OF_THE_WEIGHTS = set(Model.model_fields) - {"model", "sampling"}


class EvaluateSettings(Model):
    """What `vpo eval` can be set to beside its options: the model section, and the rewards' own settings."""

    reward: dict[str, Any] = Field({}, description="name and settings; of several rewards, settings by name")


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """What is to be compared, and how; the options of the command line. `settings` are those of `EvaluateSettings`."""

    runs: Sequence[Path]
    output: Path
    model: str | None = None
    prompts: Path | None = None
    num_prompts: int = 48
    videos_per_prompt: int = 1
    rewards: Sequence[str] = ()
    seed: int = 0
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    dino: str | None = None
    features: str | None = None
    reference: Path | None = None
    latex: bool = False
    vbench_export: Path | None = None
    vbench_results: Sequence[Path] = ()
    best_of: int = 8
    quiet: bool = False


class Bench:
    """What a request asks for, checked; model, judges and networks are loaded when they are first needed."""

    def __init__(self, request: EvaluateRequest) -> None:
        self.request, self.console = request, terminal(quiet=request.quiet)
        self.loras = dict(zip(_names(request.runs), request.runs, strict=True))
        self._files = {label: list(loras.weights_of(path).values()) for label, path in self.loras.items()}
        self.wanted, self.plans = _checked(request)
        self.name, self.sampling = self.wanted.model, self.wanted.sampling
        first = sections.run_of(request.runs[0])
        file = request.prompts or (first and first.evaluation.prompts) or prompts_of(self.name, "heldout")
        if file is None:
            raise ConfigError(f"model {self.name!r} ships no held-out prompts: give --prompts FILE")
        self.items = recipes.spread(read_inputs(file), request.num_prompts)
        for kind in (self.diversity_kind, self.distance_kind):
            features.check(kind, has_dino=request.dino is not None)
        if request.reference is not None:
            set_metrics.reference_files(request.reference)
        rewards.locate(self.plans)
        rewards.check_prompts(self.plans, [item.prompt for item in self.items])
        for line in [*rewards.foreign(self.plans, self.name), *self._learned()]:
            self.console.print(line, soft_wrap=True)
        self.folder = EvalFolder(request.output)
        self.facts: dict[str, Any] = {
            "model": self.name,
            # a picture belongs to its prompt: it is known by what is in it
            "prompts": [" ".join([item.prompt, *item.keys]) for item in self.items],
            "videos_per_prompt": request.videos_per_prompt,
            "seed": request.seed,
            "sampling": self._sampled(),
            "dino": request.dino,
            "weights": self.wanted.model_dump(mode="json", include=OF_THE_WEIGHTS, exclude_defaults=True) or None,
            "rewards": [[p.kind.__name__, p.config.model_dump(mode="json")] for p in self.plans],
            "metrics": list(METRICS.targets()),
            "versions": report.versions(),
        }
        self._begun = self.folder.begun(self.facts)
        if self._begun:
            self._keep_metrics(self._begun.get("metrics", IN_0_2))
        for label, files in self._files.items():
            self.folder.check_source(label, files)

    def _learned(self) -> Iterator[str]:
        """A line for each run that was trained on some of the prompts: a run keeps its own held-out ones out, which may
        be fewer, or others.
        """
        prompts = [item.prompt for item in self.items]
        for label, path in self.loras.items():
            try:
                run = sections.run_of(path)
                found = left_out.trained_on(run, prompts) if run else []
            except VpoError as error:
                yield f"not known whether {label} was trained on some of these prompts: {error}"
                continue
            if found:
                yield (
                    f"warning: {label} was trained on {len(found)} of {len(prompts)} prompts, {found[0]!r} for one: "
                    "they are not held out, give other --prompts, or no more of them than the run had"
                )

    def _sampled(self) -> dict[str, Any]:
        """The sampling section, as folders have it that were begun before there was a LoRA in it."""
        found = self.sampling.model_dump(mode="json")
        return found if self.sampling.lora else {k: v for k, v in found.items() if not k.startswith("lora")}

    def _keep_metrics(self, names: Sequence[str]) -> None:
        """The metrics are those that the folder was begun with: each model of a table is measured alike."""
        newer = [name for name in self.facts["metrics"] if name not in names]
        if newer:
            line = f"not measured, as {self.folder.path} was begun without: {', '.join(newer)}"
            self.console.print(line, soft_wrap=True)
        for name in names:
            METRICS.check(name)
        self.facts["metrics"] = list(names)

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
        return load_model(self.wanted)

    @cached_property
    def encode(self) -> PromptCache:
        """What all models of the evaluation see of its prompts."""
        return PromptCache(self.model)

    @cached_property
    def plan(self) -> SamplePlan:
        """The plan, with the sampling settings that the folder was begun with; a new folder is begun here. Raises
        `DataError` for items that the model does not take.
        """
        old = self._begun["settings"] if self._begun else None
        settings = Settings(**old) if old else settings_of(self.model.settings, self.sampling)
        if not old or (self._begun and any(self._begun.get(key) != self.facts[key] for key in GROWING)):
            self.model.check_inputs(self.items)
            if line := cut_short(self.model, self.items):
                self.console.print(line, soft_wrap=True)
            self.folder.begin(self.facts | {"settings": asdict(settings)})
        return SamplePlan(
            inputs=self.items,
            videos_per_prompt=self.request.videos_per_prompt,
            settings=settings,
            batch_size=self.sampling.batch_size,
            seed=self.request.seed,
        )

    @property
    def candidates_plan(self) -> SamplePlan | None:
        """The base's candidates, from which the best of n is taken; None where that is off."""
        count = max(self.request.best_of, self.request.videos_per_prompt)
        return replace(self.plan, videos_per_prompt=count) if self.request.best_of > 1 else None

    @cached_property
    def judges(self) -> list[Reward]:
        return rewards.load(self.plans, self.model.device, offload=self.wanted.offload).parts

    @cached_property
    def dino(self) -> Dino | None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return None if self.request.dino is None else Dino(self.request.dino).to(device)

    def evaluation(self, label: str, plan: SamplePlan | None = None) -> Results:
        """The results of one model: from its folder, or sampled and measured. Raises `ConfigError` where the model has
        changed.
        """
        plan = plan or self.plan
        done, lora = self.folder.finished(label, plan), self.loras.get(label)
        if done is not None:
            return done
        if settings_of(self.model.settings, self.sampling) != self.plan.settings:
            raise ConfigError(f"the sampling settings of {self.name} have changed: give another --output")
        self.model.use(self.plan.settings)
        judges, where = self.judges, self.folder.videos(label)
        measures = measuring.load(self.facts["metrics"], self.dino, judges)
        self.folder.claim(label, self._files.get(label, []))
        with count_bar(self.console, label, len(plan.items), "videos") as tick:
            if lora is None:
                return evaluate(self.model, plan, judges, where, label, tick, measures, encode=self.encode)
            with loras.loaded(self.model, lora):
                return evaluate(self.model, plan, judges, where, label, tick, measures, encode=self.encode)

    def store(self, kind: str) -> set_metrics.FeatureFolder:
        def get() -> features.ClipFeatures:
            if kind not in extractors:
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                extractors[kind] = features.load(kind, self.dino, device)
            return extractors[kind]

        extractors: dict[str, features.ClipFeatures] = {}
        return set_metrics.FeatureFolder(self.folder.path / "features", kind, get)


def _checked(request: EvaluateRequest) -> tuple[Model, list[rewards.RewardPlan]]:
    """The model section over that of the first run, and the rewards (of several, settings by name), the held-out judge
    among them; where none is asked for, those of a run on a published model. Raises `ConfigError`.
    """
    given = dict(request.settings) if request.model is None else {**request.settings, "model": request.model}
    wanted = sections.read(EvaluateSettings, given, request.config, request.runs[0])
    own = dict(wanted.reward)
    run = sections.run_of(request.runs[0])
    if run and not request.rewards and not own and (found := _judges_of(run)):
        return wanted, found
    named = own.pop("name", "vqa")
    text = "+".join(dict.fromkeys(request.rewards or [str(named)]))
    plans = rewards.plan(text, own)
    return wanted, plans if GOLD in [name for name, _ in parse(text)] else [*plans, *rewards.plan(GOLD, {})]


def _judges_of(run: Run) -> list[rewards.RewardPlan]:
    """The reward of a run on a published model and its judges, those of the embedded model's world and those that only
    compare left out; of other runs none. Raises `ConfigError`.
    """
    if is_embedded(run.model):
        return []
    trained = {key: value for key, value in run.reward.items() if key != "name"}
    found: dict[str, rewards.RewardPlan] = {}
    for name, settings in ((run.reward_name, trained), *((name, {}) for name in run.evaluation.judges)):
        for plan in rewards.plan(name, settings, in_groups=True):
            if not (plan.spec.embedded_only or plan.spec.in_groups):
                found.setdefault(plan.spec.name, plan)
    return list(found.values())


def _names(runs: Sequence[Path]) -> list[str]:
    """A short, unique name for each run: its folder's, with a number where another has it."""
    names: list[str] = []
    for path in runs:
        own = path.resolve().name if path.is_dir() else path.resolve().parent.name
        numbered = (f"{own}-{number}" for number in itertools.count(len(names) + 1))
        taken = {BASE, CANDIDATES, *names}
        names.append(next(name for name in itertools.chain([own], numbered) if name not in taken))
    return names
