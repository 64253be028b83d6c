"""Checked settings, made of options, ``--set`` and a file: everything that can be said before weights are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from vpo_kit import config, defaults, formats
from vpo_kit.config import Run
from vpo_kit.errors import ConfigError
from vpo_kit.folders import prompts_of, resolve
from vpo_kit.inputs import Inputs
from vpo_kit.methods.base import Data, Method, MethodConfig
from vpo_kit.methods.editing import EditingConfig
from vpo_kit.models.attention import check_attention
from vpo_kit.models.group_offload import check_group_offload
from vpo_kit.models.quantising import check_quantise
from vpo_kit.models.small_linear import KINDS
from vpo_kit.pairing import store
from vpo_kit.prompts import read_inputs
from vpo_kit.registry import METHODS
from vpo_kit.rewards import loading as rewards
from vpo_kit.training import health, loras, optimisers
from vpo_kit.training.trackers import base as trackers

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run that has been checked as far as it can be without weights; `run` holds the resolved settings.

    `selection` is what decides how strong the LoRA is kept, on the prompts `validation`; `kept_out` are prompts that
    nothing may be trained on, because something is chosen or reported by them. `given` is what the user gave.
    """

    run: Run
    method: type[Method]
    method_config: MethodConfig
    reward: list[rewards.RewardPlan]
    judges: list[rewards.RewardPlan]
    data: Data
    prompts: list[Inputs]
    held_out: list[Inputs]
    selection: list[rewards.RewardPlan]
    validation: list[Inputs]
    kept_out: frozenset[str]
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scoring(self) -> list[rewards.RewardPlan]:
        """All that scores videos in this run: what it is trained on, what chooses a strength, and who looks on."""
        return [*self.reward, *self.selection, *(self.judges if self.held_out else [])]


def read(options: Mapping[str, Any], file: Path | None, assignments: Sequence[str]) -> Recipe:
    """The checked recipe of what `merged` gives. Raises `ConfigError`, `DataError` or `ModelError`."""
    return complete(merged(options, file, assignments))


def merged(options: Mapping[str, Any], file: Path | None, assignments: Sequence[str]) -> dict[str, Any]:
    """What the user gives: an option that is not None counts before ``--set``, that before the file. Raises
    `ConfigError`.
    """
    values = formats.recipe(config.read_file(file), file) if file else {}
    values = config.merge(values, config.read_assignments(assignments))
    return config.merge(values, {key: value for key, value in options.items() if value is not None})


def complete(given: Mapping[str, Any]) -> Recipe:
    """What the user gives, over the defaults of the method and of the model, and size and rate of the pair set that is
    learnt from. Raises as `read` does.
    """
    return replace(check(defaults.build(config.merge(of_pairs(given), given))), given=given)


def of_pairs(given: Mapping[str, Any]) -> dict[str, Any]:
    """The size and rate of the pair set, where one is there: its latents fit no other."""
    pairs = given.get("pairs")
    if not (pairs and isinstance(pairs, str | Path) and (Path(pairs) / "dataset.yaml").is_file()):
        return {}
    return {"sampling": store.sampling(Path(pairs))}


def check(run: Run) -> Recipe:
    """Load the classes that `run` names and let each check its own part."""
    method = METHODS.load(run.method_name)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ConfigError(f"{run.method_name} is not a method: it must be a subclass of vpo_kit.methods.base.Method")
    method_config = config.validate(method.Config, _rest(run.method), "method.")
    data = _data(run, method)
    rated = data == "videos" and method.needs.ratings  # people's ratings are the reward
    judged = method.needs.reward != "none" and not rated
    reward = rewards.plan(run.reward_name, _rest(run.reward), in_groups=True) if judged else []
    for part in reward:
        _check_reward(part, method, run.method_name)
    _fits_together(run)
    _fits_method(run, method, method_config, data)
    all_held_out = _prompts(run.model, run.evaluation.prompts, "heldout") if run.evaluation.num_prompts else []
    held_out = spread(all_held_out, run.evaluation.num_prompts)
    validation = _validation(run, held_out)
    resolved = run.model_copy(update={"method": {"name": run.method_name, **method_config.model_dump(mode="json")}})
    return Recipe(
        run=resolved,
        method=method,
        method_config=method_config,
        reward=reward,
        judges=_judges(run, reward),
        data=data,
        prompts=_prompts(run.model, run.prompts, "train") if data == "prompts" else [],
        held_out=held_out,
        selection=_selection(run, reward),
        validation=spread(validation, run.selection.num_prompts),
        kept_out=frozenset(item.prompt for item in (*held_out, *validation)),
    )


def usual(recipe: Recipe) -> dict[str, Any]:
    """The settings that a run of this model, method and reward has when nobody gives any, as plain values."""
    named = {"model": recipe.run.model, "method": recipe.run.method_name, "reward": recipe.run.reward_name}
    found = defaults.build(named)
    own = config.validate(recipe.method.Config, _rest(found.method), "method.")
    method = {"name": found.method_name, **own.model_dump(mode="json")}
    return found.model_dump(mode="json") | {"method": method, "model": Run().model}


def _fits_together(run: Run) -> None:
    """What no section can know of itself: the model's place, and settings that exclude each other or need more than
    is installed. Raises `ConfigError` or `ModelError`.
    """
    health.validate(run.health)
    resolve(run.model)
    if run.dtype == "float16":
        raise ConfigError(
            "dtype: float16 would lose most of the gradient, which is too small for it: train in bfloat16 or float32"
        )
    if run.compile and run.attention == "sage":  # it changes from pass to pass, which a compiled block cannot
        raise ConfigError("compile: attention sage cannot be compiled: leave one of the two out")
    check_attention(run.attention, run.dtype)
    if run.sampling.lora is not None:
        loras.weights_of(run.sampling.lora)
    if run.compile and run.sampling.lora is not None:
        raise ConfigError("compile: sampling.lora comes and goes, which a compiled block cannot: leave one of them out")
    if run.compile and run.quantise in KINDS:
        raise ConfigError(f"compile: not with quantise={run.quantise}: leave one of the two out")
    check_group_offload(run.group_offload, quantise=run.quantise)
    check_quantise(run.quantise)
    if run.group_offload and not run.gradient_checkpointing:
        raise ConfigError(
            "group_offload: without gradient_checkpointing=true the graph of a step keeps every block on the GPU: "
            "set it too"
        )
    if run.group_offload and run.compile:
        raise ConfigError("compile: blocks that come and go cannot be compiled: leave compile or group_offload out")
    optimisers.check(run.optimiser.name)
    trackers.check(run.tracking)


def _fits_method(run: Run, method: type[Method], method_config: MethodConfig, data: Data) -> None:
    """What a method's own settings and data do not go with. Raises `ConfigError`."""
    if run.compile and getattr(method_config, "rollout_cache", None) is not None:
        raise ConfigError("method.rollout_cache: a compiled block cannot be skipped: leave one of the two out")
    if data == "prompts" and isinstance(method_config, EditingConfig) and method_config.start == "clip":
        raise ConfigError(
            f"method.start=clip: {run.method_name} learns from prompts, which have no clip: leave it out, or take "
            "--method instruct"
        )
    if run.sampling.lora is not None and (method.retraces or method.needs.reward == "differentiable"):
        raise ConfigError(
            f"sampling.lora: method {run.method_name!r} learns through steps of the chain, which must be the policy's "
            "own: leave it out"
        )
    if run.data.buckets and data == "pairs":
        raise ConfigError("data.buckets: the pairs of a set have one shape: leave it out, or give clips or prompts")


def _selection(run: Run, reward: list[rewards.RewardPlan]) -> list[rewards.RewardPlan]:
    """What the strength is chosen by; nothing where it is not chosen. Raises `ConfigError` for a held-out judge."""
    if not run.selection.strengths:
        return []
    found = rewards.plan(run.selection.reward, {}) if run.selection.reward is not None else reward
    for part in found:
        if part.spec.in_groups:
            raise ConfigError(
                f"selection.reward: {part.spec.name!r} scores no video alone: give one that does, or "
                "selection.strengths=[] to keep the LoRA as it is trained"
            )
        if not part.spec.for_training:
            raise ConfigError(
                f"selection.reward: {part.spec.name!r} is a held-out judge: chosen by it, nothing is left to check with"
            )
    return found


def _validation(run: Run, held_out: Sequence[Inputs]) -> list[Inputs]:
    """Prompts to choose by, and not to train on: those that are given, or the model's own.

    Raises `ConfigError` where they are needed and there are none, or where they are among the reported ones.
    """
    path = run.selection.prompts or prompts_of(run.model, "validation")
    if path is None:
        if run.selection.strengths:
            raise ConfigError(f"selection: {run.model} ships no validation prompts: give --set selection.prompts=FILE")
        return []
    found, reported = read_inputs(path), {item.prompt for item in held_out}
    if not run.selection.strengths:
        return [item for item in found if item.prompt not in reported]
    if both := sorted(reported.intersection(item.prompt for item in found)):
        raise ConfigError(
            f"selection.prompts: {len(both)} of them are held-out prompts of the evaluation, {both[0]!r} for one: "
            "what is chosen by a prompt cannot be reported on it"
        )
    return found


def spread(prompts: Sequence[T], count: int) -> list[T]:
    """`count` of the prompts, spread evenly over the file: neighbours in a file are often alike."""
    if len(prompts) <= count:
        return list(prompts)
    return [prompts[i * len(prompts) // count] for i in range(count)]


def _data(run: Run, method: type[Method]) -> Data:
    """What the run learns from: of the kinds that the method can use, the one that was given."""
    given: dict[Data, Path | None] = {"prompts": run.prompts, "pairs": run.pairs, "videos": run.videos}
    for kind in ("pairs", "videos"):
        if given[kind] is not None and kind not in method.needs.data:
            raise ConfigError(f"method {run.method_name!r} learns from {' or '.join(method.needs.data)}, not --{kind}")
    chosen: list[Data] = [kind for kind in method.needs.data if given[kind] is not None]
    if not chosen and "prompts" in method.needs.data:
        return "prompts"
    if not chosen:
        options = " or ".join(f"--{kind} DIR" for kind in method.needs.data)
        made = ", made by vpo pair" if "pairs" in method.needs.data else ""
        raise ConfigError(
            f"method {run.method_name!r} learns from {' or '.join(method.needs.data)}: give {options}{made}"
        )
    return chosen[0]


def _judges(run: Run, reward: list[rewards.RewardPlan]) -> list[rewards.RewardPlan]:
    """The judges of the evaluation that are not the run's own reward already."""
    trained = [(part.kind, part.config) for part in reward]  # no set: settings may hold mappings
    plans = [plan for name in run.evaluation.judges for plan in rewards.plan(name, {})]
    return [plan for plan in plans if (plan.kind, plan.config) not in trained]


def _check_reward(part: rewards.RewardPlan, method: type[Method], name: str) -> None:
    spec = part.spec
    if not spec.for_training:
        raise ConfigError(f"reward {spec.name!r} is a held-out judge: training on it would leave nothing to check with")
    if method.needs.reward == "differentiable" and not spec.differentiable:
        raise ConfigError(f"method {name!r} needs a differentiable reward, and {spec.name!r} is not")


def _prompts(model: str, path: Path | None, split: str) -> list[Inputs]:
    found = path or prompts_of(model, split)
    if found is None:
        option = "--prompts" if split == "train" else "--set evaluation.prompts"
        wanted = "one prompt a line, or csv or jsonl, which may name images"
        raise ConfigError(f"model {model!r} ships no {split} prompts: give {option}=FILE, {wanted}")
    return read_inputs(found)


def _rest(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "name"}
