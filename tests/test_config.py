"""Recipes: precedence, short forms, and errors that name the right word."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from vpo_kit import config
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.losses import PreferenceConfig
from vpo_kit.pairing.settings import PairSettings
from vpo_kit.prompts import read_prompts
from vpo_kit.registry import LABELLERS, METHODS, REWARDS


def test_precedence_is_option_set_file_default(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("steps: 5\nseed: 5\nlora: {rank: 5}\nmethod: {name: online, beta: 5.0}\n")
    values = config.merge(config.read_file(file), config.read_assignments(["seed=6", "steps=6", "lora.alpha=6"]))
    run = config.build(config.merge(values, {"steps": 7}))
    assert (run.steps, run.seed, run.lora.rank, run.lora.alpha, run.batch_size) == (7, 6, 5, 6.0, 8)
    assert run.method == {"name": "online", "beta": 5.0}


def test_short_form_keeps_the_settings_of_the_same_method() -> None:
    merged = config.merge({"method": {"name": "online", "beta": 5.0}}, {"method": "online"})
    assert merged["method"] == {"name": "online", "beta": 5.0}
    assert config.merge({"method": {"name": "online", "beta": 5.0}}, {"method": "other"})["method"] == {"name": "other"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "unknown setting stepz (did you mean 'steps'?)"),
        ({"lora": {"rnk": 3}}, "unknown setting lora.rnk (did you mean 'rank'?)"),
        ({"method": "onlin"}, "unknown method 'onlin' (did you mean 'online'?)"),
        ({"steps": 0}, "steps: input should be greater than or equal to 1, not 0"),
        ({"sampling": {"guidance": 0.5}}, "sampling.guidance: input should be greater than or equal to 1, not 0.5"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(values)
    assert str(caught.value) == message


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    value: int = 0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    maybe: Inner | None = None
    by_name: dict[str, Inner] = {}
    several: list[Inner] = []


@pytest.mark.parametrize(
    "values", [{"maybe": {"valeu": 1}}, {"by_name": {"a": {"valeu": 1}}}, {"several": [{}, {"valeu": 1}]}]
)
def test_a_mistake_in_a_section_that_may_be_missing_is_named_too(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting .*\.valeu \(did you mean 'value'\?\)"):
        config.validate(Outer, values)


@pytest.mark.parametrize("text", ["a", "=3", "a..b=1", "a=[1"])
def test_bad_assignments(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        config.read_assignments([text])


@pytest.mark.parametrize("content", [b"[1, 2]", b"a: [", b"\xff\xfe", b"1: 2"])
def test_bad_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        config.read_file(tmp_path / "r.yaml")


def test_dump_reads_back(tmp_path: Path) -> None:
    run = config.build({"steps": 3, "output": "runs/x"})
    (tmp_path / "r.yaml").write_text(config.dump(run))
    assert config.build(config.read_file(tmp_path / "r.yaml")) == run


def test_prompt_files(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("# comment\n a  cat \n\na dog\na cat\n", encoding="utf-8")
    assert read_prompts(path) == ["a cat", "a dog"]
    for content in (b"", b"\n \n# only\n", b"\xff\xfe\x00", b"a\0b"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"p\.txt"):
            read_prompts(path)
    with pytest.raises(DataError, match="cannot read"):
        read_prompts(tmp_path / "none.txt")


def test_a_resolved_recipe_is_a_recipe() -> None:
    """A run's ``config.yaml`` can be given again, and a name inside a section stays one."""
    run = config.build({"method": "dense", "reward": "vqa", "selection": {"reward": "technical"}})
    assert run.selection.reward == "technical"
    assert config.build(run.model_dump(mode="json")) == run
    plain = config.build({"method": "online"})
    assert config.build(plain.model_dump(mode="json")) == plain


def settings_classes() -> list[type[BaseModel]]:
    """Every class of settings: of the sections of recipes, and of whatever is registered by a name."""
    found, queue = set[type[BaseModel]](), [config.Run, PairSettings, PreferenceConfig]
    queue += [registry.load(name).Config for registry in (METHODS, REWARDS, LABELLERS) for name in registry.targets()]
    while queue:
        kind = queue.pop()
        if kind not in found:
            found.add(kind)
            types = [field.annotation for field in kind.model_fields.values()]
            parts = [part for one in types for part in (one, *get_args(one))]
            queue += [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_no_settings_pass_over_a_key_that_they_do_not_know(kind: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"no_such_setting": 1})
    assert ("no_such_setting", "extra_forbidden") in [(e["loc"][-1], e["type"]) for e in caught.value.errors()]


def test_who_writes_none_is_told_how_no_value_is_written() -> None:
    with pytest.raises(ConfigError, match=r"evaluation.seed: .* not 'none' \(no value is null\)"):
        config.build(config.read_assignments(["evaluation.seed=none"]))
    assert config.build(config.read_assignments(["evaluation.seed=null"])).evaluation.seed is None
