"""A run's settings: read from YAML, options and ``--set``, and checked. No torch here.

The parts that belong to a method or a reward (`method.*`, `reward.*`) are kept as they are; that class's own `Config`
checks them once the registry has loaded it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from vpo_kit import catalogue, fields
from vpo_kit.errors import ConfigError
from vpo_kit.registry import METHODS, nearest
from vpo_kit.run_sections import (
    EXPERTS,
    Checkpoints,
    Data,
    EarlyStopping,
    Evaluation,
    Expert,
    Health,
    Lora,
    Model,
    Optimiser,
    Samples,
    Sampling,
    Section,
    Selection,
    Validation,
)

__all__ = [
    "EXPERTS",
    "FORMAT",
    "Checkpoints",
    "Data",
    "EarlyStopping",
    "Evaluation",
    "Expert",
    "Health",
    "Lora",
    "Model",
    "Optimiser",
    "Run",
    "Samples",
    "Sampling",
    "Section",
    "Selection",
    "Validation",
    "build",
    "dump",
    "merge",
    "parse_yaml",
    "read_assignments",
    "read_file",
    "validate",
]

T = TypeVar("T", bound=BaseModel)
FORMAT: Literal[2] = 2
"""The number of the format of recipes, runs, pair sets and boards: `vpo_kit.formats` says what changed."""


class Run(Model):
    """Everything that `vpo train` needs to know."""

    format: Literal[2] = Field(FORMAT, description="of these settings; files of vpo 0.1.0 have none")
    method: dict[str, Any] = Field({"name": "online"}, description="its name, and its own settings (vpo methods NAME)")
    reward: dict[str, Any] = Field(
        {"name": "vqa"}, description="its name or a mixture, and its own settings (vpo rewards NAME)"
    )
    gradient_checkpointing: bool = Field(
        False,
        description="less memory: blocks, and the decoder under a reward's gradient, run again for the backward pass",
    )
    activation_offload: bool = Field(
        False, description="less memory: what the graph keeps waits in the machine's memory, the same gradient"
    )
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
        None,
        description="videos that go through the network with a graph at once; default: all of a step; auto: as "
        "many as fit the GPU by vpo plan's estimate",
    )
    data: Data = Data()
    lora: Lora = Lora()
    optimiser: Optimiser = Optimiser()
    validation: Validation = Validation()
    early_stopping: EarlyStopping = EarlyStopping()
    evaluation: Evaluation = Evaluation()
    selection: Selection = Selection()
    samples: Samples = Samples()
    tracking: list[str] = Field(
        [], description="where the run can also be followed: tensorboard, wandb (offline); each is an extra"
    )
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
        hint = " (no value is null)" if str(first["input"]).lower() == "none" else ""
        raise ConfigError(f"{prefix}{where}: {message}, not {first['input']!r}{hint}") from error


def _elsewhere(kind: type[BaseModel], name: str) -> str:
    """The section in which a recipe has a field of this name beside this one; nothing where it has none."""
    settings = list(fields.of(kind))
    if issubclass(kind, Run):
        settings += [one for method in catalogue.methods().values() for one in method.settings]
    found = dict.fromkeys(one.name for one in settings if one.name.rpartition(".")[2] == name)
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""


def _fields_at(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The fields of the section that `path` leads to in a type, also through optional ones, mappings and lists."""
    for part in path:
        inner = [one.model_fields[str(part)].annotation for one in _sections(kind) if str(part) in one.model_fields]
        kind = inner[0] if inner else kind  # else the key of a mapping, a place in a list, or the name of a type
    return [name for one in _sections(kind) for name in one.model_fields]


def _sections(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [one for inner in get_args(kind) for one in _sections(inner)]


def dump(config: BaseModel) -> str:
    """The resolved settings as YAML, in the order of the fields."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
