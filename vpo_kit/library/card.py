"""The model card beside a LoRA: what it was trained on, for how long, with what, and what that changed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import yaml

from vpo_kit.evaluation import report, tables
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.folders import EMBEDDED
from vpo_kit.models.base import VideoModel
from vpo_kit.models.loading import pipeline_class
from vpo_kit.rewards.base import RewardSpec
from vpo_kit.training.lora import file_name
from vpo_kit.training.recipe import Recipe

SHOWN = 5
"""Held-out prompts on the card."""


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What a run came to: its optimiser steps, the paired changes (empty without an evaluation), its health, and how
    much of what was trained is kept; of two experts, how many of the steps changed each.
    """

    steps: int
    changes: Mapping[str, Paired]
    health: str
    strength: float = 1.0
    updates: Mapping[str, int] = field(default_factory=dict)


def render(recipe: Recipe, model: VideoModel, outcome: RunOutcome) -> str:
    """The card as Markdown with the header that the Hugging Face hub reads. Paths of this machine stay out of it."""
    parts = [
        _header(recipe, model),
        f"# {escape(recipe.run.method_name)} LoRA for {escape(_name(recipe.run.model))}",
        _summary(recipe, model),
        "## Use",
        _use(recipe.run.model, model),
        "## Training",
        _table(("setting", "value"), _settings(recipe, outcome)),
        *_licences("Reward", [plan.spec for plan in recipe.reward]),
        "## Before and after",
        _results(recipe, outcome.changes),
        *_licences("Judges that only looked on", [plan.spec for plan in recipe.judges] if outcome.changes else []),
        f"Health checks: {escape(outcome.health)}.",
        "Versions: " + ", ".join(f"{escape(name)} {escape(value)}" for name, value in report.versions().items()) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """`text` as Markdown shows it letter by letter, on one line and inside one."""
    return re.sub(r"([\\`*_{}\[\]<>|~&$^])", r"\\\1", " ".join(text.split()))


def _item(text: str) -> str:
    """`text` as an item of a list: what would begin a heading or another list there is escaped too."""
    return "- " + re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", escape(text))


def _header(recipe: Recipe, model: VideoModel) -> str:
    values: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-video"}
    if _on_hub(recipe.run.model):
        values["base_model"] = recipe.run.model
    values["tags"] = ["text-to-video", "lora", "diffusers", "vpo-kit", recipe.run.method_name]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _summary(recipe: Recipe, model: VideoModel) -> str:
    run = recipe.run
    names = [
        plan.spec.name if len(recipe.reward) == 1 else f"{plan.weight:g} {plan.spec.name}" for plan in recipe.reward
    ]
    reward = f" with the reward {escape(' + '.join(names))}" if names else ""
    start = f" It starts from the LoRA {escape(_name(str(run.lora.init)))}." if run.lora.init else ""
    family = type(model.pipeline).__name__
    return (
        f"A LoRA for {escape(_name(run.model))} ({escape(family)}), trained by vpo-kit with the method "
        f"{escape(run.method_name)}{reward}.{start}"
    )


def _use(name: str, model: VideoModel) -> str:
    """How diffusers alone loads the LoRA: some of its classes lack a method, and then the network's own is used."""
    family, network = type(model.pipeline).__name__, model.network_name
    pipeline = pipeline_class(family)
    lines = [f"from {pipeline.__module__ if model.pipeline_class else 'diffusers'} import {family}"]
    if name in EMBEDDED:
        lines += ["from vpo_kit.models.loading import EMBEDDED"]
    load = _load(model)
    kind = type(next(iter(model.networks.values())))
    if not hasattr(getattr(diffusers, kind.__name__, kind), "load_lora_adapter"):
        lines += ["from diffusers.loaders import PeftAdapterMixin", "from vpo_kit.models.base import add_methods"]
        load = f"add_methods(pipe.{network}, PeftAdapterMixin)\n{load}"
    elif not hasattr(pipeline, "load_lora_weights"):
        file = '"path/to/this/folder", weight_name="pytorch_lora_weights.safetensors"'
        load = f"pipe.{network}.load_lora_adapter({file})"
    source = f"EMBEDDED[{json.dumps(name)}]" if name in EMBEDDED else json.dumps(_name(name), ensure_ascii=False)
    lines += ["", f"pipe = {family}.from_pretrained({source})", load]
    return "```python\n" + "\n".join(lines) + "\n```"


def _load(model: VideoModel) -> str:
    """The line that loads the LoRA, or one for each expert that has one."""
    if not model.experts:
        return 'pipe.load_lora_weights("path/to/this/folder")'
    trained = [name for name, network in model.networks.items() if getattr(network, "peft_config", None)]
    arguments = [{"weight_name": file_name(model, name), **model.lora_options(name)} for name in trained]
    texts = [", ".join(f"{key}={value!r}" for key, value in values.items()) for values in arguments]
    return "\n".join(f'pipe.load_lora_weights("path/to/this/folder", {text})' for text in texts)


def _settings(recipe: Recipe, outcome: RunOutcome) -> list[tuple[str, str]]:
    run = recipe.run
    rows = [("method", run.method_name)]
    rows += [(f"method.{key}", str(value)) for key, value in run.method.items() if key != "name" and value is not None]
    rows += [("data", _data(recipe)), ("optimiser steps", str(outcome.steps))]
    rows += [(f"steps that changed {expert}", str(number)) for expert, number in outcome.updates.items()]
    rows += [("batch size", str(run.batch_size))]
    rows += [("learning rate", _rate(run.optimiser.lr)), ("LoRA rank", str(run.lora.rank))]
    rows += [
        ("LoRA alpha", f"{run.lora.scale * run.lora.rank:g}"),
        ("dtype of the model", run.dtype),
        ("seed", str(run.seed)),
    ]
    rows += [("revision of the model", run.revision)] if run.revision else []
    sampling = {key: value for key, value in run.sampling.model_dump().items() if value is not None}
    if run.sampling.lora is not None:
        sampling["lora"] = _name(str(run.sampling.lora))
    rows += [(f"sampling.{key}", str(value)) for key, value in sampling.items()]
    return rows + ([] if outcome.strength == 1 else [("strength", _strength(recipe, outcome.strength))])


def _strength(recipe: Recipe, strength: float) -> str:
    if recipe.run.lora.init is None:
        return f"{strength:g} of what was trained, chosen on validation prompts; it is part of the file's alpha"
    return (
        f"{strength:g} of the way from the LoRA that the run started from, chosen on validation prompts: "
        "the file holds both side by side, at twice the rank"
    )


def _rate(rate: float | Mapping[Any, float]) -> str:
    return f"{rate:g}" if isinstance(rate, float) else ", ".join(f"{name} {value:g}" for name, value in rate.items())


def _data(recipe: Recipe) -> str:
    path: Path | None = getattr(recipe.run, recipe.data)
    source = f"{recipe.data} {_name(str(path))}" if path else "the model's own prompts"
    return f"{source}, {len(recipe.prompts)} prompts" if recipe.prompts else source


def _results(recipe: Recipe, changes: Mapping[str, Paired]) -> str:
    if not changes:
        return "The run was not evaluated."
    prompts = [item.prompt for item in recipe.held_out]
    before = "the LoRA that the run started from" if recipe.run.lora.init else "the bare model"
    rows = [(name, *tables.values(change), tables.span(change)) for name, change in changes.items()]
    shown = "\n".join(_item(prompt) for prompt in prompts[:SHOWN])
    return (
        f"{len(prompts)} held-out prompts, {next(iter(changes.values())).count} videos, the same seeds before and "
        f"after; 95% intervals of the change. Before is {before}.\n\n"
        f"{_table(('metric', 'before', 'after', 'change'), rows)}\n\n"
        f"{'Among the prompts' if len(prompts) > SHOWN else 'The prompts'}:\n\n{shown}"
    )


def _licences(title: str, specs: Sequence[RewardSpec]) -> list[str]:
    if not specs:
        return []
    rows = [(spec.name, spec.licence, spec.source, spec.scale) for spec in specs]
    return [f"{title}:", _table(("name", "licence of the weights", "source", "scale"), rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows)])


def _on_hub(name: str) -> bool:
    return name not in EMBEDDED and not Path(name).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def _name(source: str) -> str:
    """A hub id as it is, of a path the last part."""
    return source if _on_hub(source) else Path(source).name
