"""Where settings come from, what is said of them, and settings that can never act."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpo_kit import config, defaults
from vpo_kit.errors import ConfigError
from vpo_kit.folders import EMBEDDED
from vpo_kit.registry import METHODS
from vpo_kit.training import idle, recipe

DATA = {"pairs": "somewhere", "videos": "somewhere"}


def complete(method: str, **values: object) -> recipe.Recipe:
    kind = METHODS.load(method)
    data = {} if "prompts" in kind.needs.data else {kind.needs.data[0]: "somewhere"}
    return recipe.complete({"method": method, **data, **values})


@pytest.mark.parametrize("method", sorted(METHODS.targets()))
def test_the_shipped_files_fit_every_method(method: str, tmp_path: Path) -> None:
    """Every setting of them is known to its method, for the embedded model and for others."""
    complete(method)
    model = other(tmp_path)
    evaluation = {"num_prompts": 0}
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a\n")
    complete(method, model=str(model), evaluation=evaluation, prompts=str(prompts)) if "prompts" in METHODS.load(
        method
    ).needs.data else complete(method, model=str(model), evaluation=evaluation)


def other(folder: Path) -> Path:
    """A model folder that brings nothing along."""
    path = folder / "model"
    path.mkdir()
    (path / "model_index.json").write_text("{}")
    return path


def test_published_settings_for_models_of_ones_own(tmp_path: Path) -> None:
    model = str(other(tmp_path))
    run = complete("dense", model=model, evaluation={"num_prompts": 0}).run
    assert (run.optimiser.lr, run.optimiser.warmup_steps, run.lora.rank, run.steps) == (1e-5, 250, 128, 1000)
    assert run.selection.strengths == []  # costs, and is asked for


def test_the_embedded_model_has_its_own(tmp_path: Path) -> None:
    run = complete("online").run
    assert run.optimiser.schedule != "constant"
    assert run.optimiser.lr > 1e-4
    assert (EMBEDDED["sprites"] / "recipe.yaml").is_file()


def test_layers_are_in_order(tmp_path: Path) -> None:
    model = other(tmp_path)
    (model / "recipe.yaml").write_text(
        "all: {source: ours, values: {batch_size: 3, optimiser: {lr: 0.1}}}\n"
        "methods: {dense: {source: ours for dense, values: {optimiser: {lr: 0.2}, method: {beta: 7.0}}}}\n"
    )
    given = {"model": str(model), "method": "dense", "pairs": "x", "evaluation": {"num_prompts": 0}}
    run = recipe.complete(given).run
    assert (run.batch_size, run.optimiser.lr, run.method["beta"], run.lora.rank) == (3, 0.2, 7.0, 128)
    assert recipe.complete({**given, "optimiser": {"lr": 0.3}}).run.optimiser.lr == 0.3
    lines = defaults.provenance(recipe.complete({**given, "batch_size": 5}).run, {**given, "batch_size": 5})
    said = dict(line.split(": ", 1) for line in lines)
    assert said["given"] == "batch_size 5"
    assert "optimiser.lr 0.2" in said["ours for dense (model/recipe.yaml)"]
    assert "lora.rank 128" in said["DenseDPO (arXiv 2506.03517)"]
    assert "method.num_draws 1" in said[defaults.OURS]
    numbers = [word for line in lines for word in line.split(": ", 1)[1].split(", ")]
    assert len(numbers) == len(set(numbers))


def test_a_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    model = other(tmp_path)
    (model / "recipe.yaml").write_text("all: {values: {}}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: all\.source"):
        recipe.complete({"model": str(model), "method": "dense", "pairs": "x", "evaluation": {"num_prompts": 0}})


def test_alpha_follows_the_rank_unless_it_is_given(tmp_path: Path) -> None:
    """Also over a layer that has another rank with its own alpha."""
    assert config.Lora(rank=128).scale == 1
    assert config.Lora(rank=128, alpha=16).scale == 1 / 8
    model = str(other(tmp_path))
    given = {"model": model, "evaluation": {"num_prompts": 0}, "prompts": str(tmp_path / "p.txt")}
    (tmp_path / "p.txt").write_text("a\n")
    assert recipe.complete(given).run.lora.alpha == 128  # of rank 64, as published
    assert recipe.complete({**given, "lora": {"rank": 4}}).run.lora.scale == 1


@pytest.mark.parametrize(("method", "values", "said"), [
    ("online", {"method": {"name": "online", "reference_update": "hard", "reference_every": 200}, "steps": 40},
     "method.reference_every 200: the reference does not move in 40 steps"),
    ("dense", {"steps": 40, "optimiser": {"warmup_steps": 250}}, "the full rate is not reached in 40 steps"),
    ("dense", {"steps": 5, "validation": {"every": 10}}, "in 5 steps there is one validation, at the end"),
    ("online", {"early_stopping": {"patience": 2}}, "nothing is held out for validation, so it has nothing to watch"),
    ("dense", {"steps": 20, "early_stopping": {"patience": 3}}, "do not fit into 20 steps"),
    ("dense", {"steps": 5, "health": {"window": 10}}, "no check looks at a run of 5 steps"),
])  # fmt: skip
def test_what_can_never_act_is_said(method: str, values: dict[str, object], said: str) -> None:
    quiet = {"steps": 1000, "optimiser": {"warmup_steps": 5}}
    made = recipe.complete({"method": method, **({} if method == "online" else {"pairs": "x"}), **quiet, **values})

    def lines(found: recipe.Recipe) -> list[str]:
        validates = found.method.needs.validation
        return idle.settings(found.run, found.method, found.method_config, validates=validates)

    assert sum(said in line for line in lines(made)) == 1, lines(made)
    calm = recipe.complete({"method": method, **({} if method == "online" else {"pairs": "x"}), **quiet})
    assert lines(calm) == []


def test_float16_would_lose_the_gradient() -> None:
    with pytest.raises(ConfigError, match="float16 would lose most of the gradient"):
        recipe.complete({"dtype": "float16"})
