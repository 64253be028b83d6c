"""A run's settings: read from YAML, options and ``--set``, and checked. No torch here.

The parts that belong to a method or a reward (`method.*`, `reward.*`) are kept as they are; that class's own `Config`
checks them once the registry has loaded it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, field_validator

from vpo_kit import catalogue, fields
from vpo_kit.errors import ConfigError
from vpo_kit.registry import METHODS, METRICS, nearest

T = TypeVar("T", bound=BaseModel)
Share = Annotated[float, Field(ge=0, lt=1)]
FORMAT: Literal[2] = 2
"""Of recipes, runs, pair sets and boards: `vpo_kit.formats` says what changed."""


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


EXPERTS = ("high_noise", "low_noise")
"""What the networks of a model with two are called; the files of their LoRAs have it in their names."""
Expert = Literal["high_noise", "low_noise"]


class Sampling(Section):
    """How videos are sampled; what is not given is the model's own default."""

    frames: int | None = Field(None, ge=1, description="of a video")
    height: int | None = Field(None, ge=8, description="in pixels")
    width: int | None = Field(None, ge=8, description="in pixels")
    steps: int | None = Field(None, ge=1, description="denoising steps")
    guidance: float | dict[Expert, float] | None = Field(
        None, description="classifier-free guidance scale, 1 is off; of a model with two experts also one for each"
    )
    guidance_interval: tuple[float, float] | None = Field(
        None,
        description="noise levels (0 clean, 1 noise) of the steps that are guided, the others cost one pass; "
        "default: all",
    )
    negative_prompt: str | None = Field(None, description="what guidance leads away from")
    shift: float | None = Field(None, gt=0, description="of the chain towards noise (Wan: 3 at 480p, 5 at 720p)")
    fps: float | None = Field(None, gt=0, description="frames a second of what is made and of the clips that are read")
    embedded_guidance: float | None = Field(
        None, ge=0, description="the scale that a training pass sees where the network takes it as an input; default: 1"
    )
    batch_size: int = Field(24, ge=1, description="videos sampled at once")

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 1:
            raise ValueError("give a lower and a higher noise level, from 0 to 1")
        return value

    @field_validator("guidance")
    @classmethod
    def _scales(cls, value: float | dict[Expert, float] | None) -> float | dict[Expert, float] | None:
        if isinstance(value, dict) and set(value) != set(EXPERTS):
            raise ValueError(f"guidance by expert needs both, {' and '.join(EXPERTS)}")
        if not all(scale >= 1 for scale in (value.values() if isinstance(value, dict) else [value or 1.0])):
            raise ValueError("input should be greater than or equal to 1")
        return value


class Lora(Section):
    rank: int = Field(64, ge=1, description="of the factors")
    alpha: float | None = Field(None, gt=0, description="the LoRA is applied at alpha / rank; default: the rank")
    targets: list[str] | None = Field(None, description="linear layers by name; default: the model family's")
    experts: Literal["both", "high_noise", "low_noise"] | None = Field(
        None, description="of a model with two (Wan 2.2 A14B): which are trained; default: both"
    )
    init: Path | None = Field(
        None, description="run, LoRA folder or file to start from, which is then the reference; sets rank and alpha"
    )

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Optimiser(Section):
    """AdamW with a linear warm-up, then a constant rate or one that falls to zero at the run's end."""

    name: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit keeps its two averages in eight bits; needs the extra quantised"
    )
    lr: PositiveFloat | dict[Expert, PositiveFloat] = Field(
        1e-5, description="highest rate; of a model with two experts also one for each"
    )
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="AdamW's")
    eps: float = Field(1e-8, gt=0, description="AdamW's")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's")
    warmup_steps: int = Field(5, ge=0, description="over which the rate rises from zero")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="how the rate falls to zero over the last decay_share of the run"
    )
    decay_share: float = Field(0.6, gt=0, le=1, description="share of the run over which the rate falls")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are shortened to this")
    ema: float = Field(
        0.0, ge=0, lt=1,
        description="decay of an average of the LoRA's factors, kept in place of the last ones; 0 is off",
    )  # fmt: skip


class Evaluation(Section):
    """Before and after training: held-out prompts, the same seeds."""

    prompts: Path | None = Field(None, description="text file; default: the model's own held-out prompts")
    num_prompts: int = Field(48, ge=0, description="at most so many of them; 0 turns evaluation off")
    videos_per_prompt: int = Field(1, ge=1, description="each with a noise of its own")
    seed: int | None = Field(None, ge=0, description="of the videos' noise; default: the run's seed")
    judges: list[str] = Field(["vqa", "gold"], description="rewards that look on, beside the one that is trained on")
    best_of: int = Field(
        8, ge=0, description="of comparisons: the base's best of so many samples, and of 2, 4, ..., as rows; 0 is off"
    )
    temporal: bool = Field(False, description="also flicker, warp error, smoothness and the rest of vpo eval's forms")
    metrics: list[str] = Field(
        [], description="what else is measured beside judges and motion: names of vpo metrics, or package.module:Class"
    )

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            METRICS.check(name)
        return value

    @property
    def measured(self) -> list[str]:
        """Names of all measures beside the judges; motion always is one."""
        return list(dict.fromkeys([*(["temporal"] if self.temporal else []), *self.metrics]))


class Selection(Section):
    """How much of the trained LoRA is kept: the best of a few strengths on prompts neither trained on nor reported."""

    strengths: list[Annotated[float, Field(gt=0, le=4)]] = Field(
        [], description="strengths that are measured after training, 1 is the LoRA as trained; empty is off"
    )
    reward: str | None = Field(None, description="what decides; default: the run's own reward")
    prompts: Path | None = Field(None, description="text file; default: the model's own validation prompts")
    num_prompts: int = Field(48, ge=1, description="at most so many of them, one video each for every strength")
    max_motion_change: float = Field(0.05, gt=0, description="share by which motion may change")


class Checkpoints(Section):
    every: int = Field(10, ge=1, description="optimiser steps")
    keep: int = Field(2, ge=1, description="so many of the newest stay")


class Data(Section):
    """Which of a set's labels or ratings are learnt from."""

    labeller: str | None = Field(None, description="whose labels (people, vqa, ...); default: all that are there")

    dimension: str | None = Field(
        None, description="what people judged or rated (VQ, MQ, Overall, ...); default: the set's label"
    )
    vote_weights: bool = Field(False, description="a pair counts by how far its votes are from a draw")


class Health(Section):
    """When to stop a run that has gone wrong."""

    disable: list[str] = Field([], description="names of checks to turn off")
    window: int = Field(10, ge=1, description="optimiser steps that a check looks back over")


class Validation(Section):
    """The method's own loss on items that training never sees: whole prompts, the same times and noises each time."""

    share: float = Field(0.1, ge=0, lt=1, description="of the data, whole prompts; 0 turns validation off")
    every: int = Field(10, ge=1, description="optimiser steps")
    max_items: int = Field(64, ge=1, description="at most so many held-out items are looked at")


class EarlyStopping(Section):
    """Stop when a validation metric gets no better, and keep the best LoRA instead of the last."""

    patience: int = Field(0, ge=0, description="validations in a row without a better value; 0 is off")
    metric: str = Field("heldout_loss", description="a field of metrics.jsonl")
    greater_is_better: bool = Field(False, description="of the metric")


class Model(Section):
    """Which model is sampled, how it is held in memory, and what its videos are like: the same in all commands."""

    model: str = Field("sprites", description="sprites, a diffusers pipeline folder or a hub id")
    revision: str | None = Field(None, description="of a model on the hub: branch, tag or commit")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the model's weights; the LoRA's are float32"
    )
    attention: Literal["auto", "sdpa", "xformers", "flash", "sage"] = Field(
        "auto", description="xformers is an extra, flash and sage are packages; for CUDA only; sage samples, no more"
    )
    vae: list[Literal["slicing", "tiling"]] = Field(
        [], description="the autoencoder takes one video at a time, or pieces of the picture: less memory, slower"
    )
    offload: bool = Field(
        False, description="text encoder, autoencoder and rewards are on the GPU only while they are used"
    )
    quantise: Literal["none", "int8"] = Field("none", description="the frozen network's weights; extra: quantised")
    sampling: Sampling = Sampling()


class Run(Model):
    """Everything that `vpo train` needs to know."""

    format: Literal[2] = Field(FORMAT, description="of these settings; files of vpo 0.1.0 have none")
    method: dict[str, Any] = Field({"name": "online"}, description="its name, and its own settings (vpo methods NAME)")
    reward: dict[str, Any] = Field(
        {"name": "vqa"}, description="its name or a mixture, and its own settings (vpo rewards NAME)"
    )
    gradient_checkpointing: bool = Field(False, description="less memory: blocks run again in the backward pass")
    compile: bool = Field(False, description="torch.compile of the network's repeated blocks: minutes at the start")
    cache: Path | None = Field(
        None, description="folder for prompts' embeddings and clips' latents, for all runs; default: in memory only"
    )
    prompts: Path | None = Field(None, description="one prompt a line; default: the model's own training prompts")
    pairs: Path | None = Field(None, description="a pair set, for methods that learn from pairs")
    videos: Path | None = Field(None, description="a folder of clips, for methods that learn from clips")
    output: Path | None = Field(None, description="run folder; default: runs/METHOD-DATE")
    seed: int = Field(0, ge=0, description="of everything that is drawn")
    steps: int = Field(40, ge=1, description="optimiser steps")
    max_passes: int | None = Field(None, ge=1, description="stop when so many videos have gone through the network")
    max_seconds: float | None = Field(
        None, gt=0, description="stop after so many seconds of training, the evaluation not counted"
    )
    batch_size: int = Field(8, ge=1, description="prompts, pairs or clips of one optimiser step, over all processes")
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="videos that go through the network with a graph at once; default: all of a step; auto: as "
        "many as fit the GPU by vpo plan's estimate",
    )  # fmt: skip
    data: Data = Data()
    lora: Lora = Lora()
    optimiser: Optimiser = Optimiser()
    validation: Validation = Validation()
    early_stopping: EarlyStopping = EarlyStopping()
    evaluation: Evaluation = Evaluation()
    selection: Selection = Selection()
    checkpoints: Checkpoints = Checkpoints()
    health: Health = Health()

    @field_validator("method", "reward", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        """``method: online`` is short for ``method: {name: online}``."""
        return {"name": value} if isinstance(value, str) else value

    @property
    def num_at_once(self) -> int | None:
        """`micro_batch_size` once it is a number: whoever starts a run or a plan has settled ``auto``."""
        assert self.micro_batch_size != "auto"
        return self.micro_batch_size

    @property
    def method_name(self) -> str:
        return str(self.method["name"])

    @property
    def reward_name(self) -> str:
        return str(self.reward["name"])


def read_file(path: Path) -> dict[str, Any]:
    """A recipe as nested dictionaries. Raises `ConfigError`."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: a recipe is a mapping of names to values")
    return values


def parse_yaml(text: str) -> Any:
    """Plain data from YAML. Raises `ValueError` for everything else, also for a value that holds itself, and for text
    that cannot be a path or written as UTF-8.
    """
    try:
        found = yaml.safe_load(text)
        plain = json.dumps(found, ensure_ascii=False, default=str)
        plain.encode()
    except (yaml.YAMLError, KeyError, AttributeError, TypeError) as error:  # the last three of tags that do not fit
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if r"\u0000" in plain:
        raise ValueError("it holds a zero byte")
    return found


def read_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["a.b=1"]`` to ``{"a": {"b": 1}}``, values as YAML. Raises `ConfigError`."""
    tree: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"--set {text!r}: write it as section.field=value")
        try:
            leaf = parse_yaml(value)
        except ValueError as error:
            raise ConfigError(f"--set {text!r}: {' '.join(str(error).split())}") from error
        for part in reversed(parts):
            leaf = {part: leaf}
        tree = merge(tree, leaf)
    return tree


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` overlaid with `high`, section by section; the short form of a part takes its settings along."""
    low, high = dict(low), dict(high)
    for key in {"method", "reward"} & high.keys():  # of the recipe itself: `selection.reward` is a name and no section
        low[key], high[key] = _named(low.get(key)), _named(high[key])
    return _overlaid(low, high)


OF_A_KIND = {"method", "reward", "times"}
"""Sections whose settings belong to what has their name: those of one method do not fit another."""


def _overlaid(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(low)
    for key, value in high.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            other = key in OF_A_KIND and "name" in value and old.get("name") not in (None, value["name"])
            value = _overlaid({} if other else old, value)
        result[key] = value
    return result


def _named(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return dict(value) if isinstance(value, dict) else {"name": value}


def build(values: Mapping[str, Any]) -> Run:
    """A checked `Run`. Raises `ConfigError` that names the field and, for an unknown one, the nearest right name."""
    defaults = {"method": {"name": "online"}, "reward": {"name": "vqa"}}
    run = validate(Run, merge(defaults, values))
    METHODS.check(run.method_name)
    return run


_KIND = re.compile(r"\[|^(float|int|str|constrained-.*|function-.*|literal.*)$")
"""What pydantic adds to the place of an error to say which of several types it tried."""


def validate(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """`kind` from `values`, with pydantic's first complaint as one line. Raises `ConfigError`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not _KIND.search(str(part)))
        if first["type"] == "extra_forbidden":
            wanted = str(first["loc"][-1])
            hint = _elsewhere(kind, wanted) or nearest(wanted, _fields_at(kind, first["loc"][:-1]))
            raise ConfigError(f"unknown setting {prefix}{where}{hint}") from error
        message = first["msg"].lower().removeprefix("value error, ")
        raise ConfigError(f"{prefix}{where}: {message}, not {first['input']!r}") from error


def _elsewhere(kind: type[BaseModel], name: str) -> str:
    """Where a recipe has a field of this name in another section; nothing where it has none."""
    settings = list(fields.of(kind))
    if issubclass(kind, Run):
        settings += [one for method in catalogue.methods().values() for one in method.settings]
    found = dict.fromkeys(one.name for one in settings if one.name.rpartition(".")[2] == name)
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""


def _fields_at(kind: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        inner = kind.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        kind = inner
    return list(kind.model_fields)


def dump(config: BaseModel) -> str:
    """The resolved settings as YAML, in the order of the fields."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
