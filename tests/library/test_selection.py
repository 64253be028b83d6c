"""The strength at which a LoRA is kept: how it is chosen, what is applied, and what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.commands import fails, main_ok
from vpo_kit import models
from vpo_kit.config import Lora, Selection
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.samples import Results
from vpo_kit.library.selection import choose
from vpo_kit.models.base import VideoModel
from vpo_kit.rewards import loading
from vpo_kit.rewards.base import Mixture
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.rewards import stub
from vpo_kit.training import initial, recipe
from vpo_kit.training.lora import WEIGHTS_NAME, LoraPolicy, Start

Judge = stub("judge", mean=0.5, std=2.0)
Other = stub("other")


def chosen(values: dict[float, tuple[float, float]], **settings: object) -> tuple[float, str]:
    """The strength for mean reward and motion by strength."""
    asked: list[float] = []

    def measure(strength: float) -> Results:
        asked.append(strength)
        reward, motion = values[strength]
        metrics = {"judge": [reward - 1, reward + 1], "motion": [motion, motion]}
        return Results(name="x", prompts=["a", "b"], groups=[0, 1], files=["000-0.mp4", "001-0.mp4"], metrics=metrics)

    asking = Selection.model_validate({"strengths": sorted(set(values) - {0.0}), **settings})
    found = choose(asking, Mixture([(Judge(), 1.0)]), measure)
    assert asked == sorted(values)
    assert [one.strength for one in found.measured] == sorted(values)
    return found.strength, found.reason


def test_the_best_reward_with_motion_kept() -> None:
    base = {0.0: (1.0, 0.10)}
    assert chosen({**base, 0.3: (1.1, 0.1), 0.6: (1.4, 0.102), 1.0: (1.2, 0.099)})[0] == 0.6
    strength, reason = chosen({**base, 0.3: (1.1, 0.1), 0.6: (1.4, 0.098), 1.0: (2.0, 0.08)})
    assert strength == 0.6  # the full one is better, and stands still
    assert reason == "reward +0.400 against the model before, motion -2.0%, 1 others change motion by more than 5%"
    assert chosen({**base, 0.6: (1.4, 0.098), 1.0: (2.0, 0.08)}, max_motion_change=0.3)[0] == 1.0


def test_where_nothing_keeps_motion_or_beats_the_base_it_is_said() -> None:
    strength, reason = chosen({0.0: (1.0, 0.1), 0.3: (1.2, 0.12), 1.0: (2.0, 0.15)})
    assert strength == 0.3
    assert reason == "no strength keeps motion within 5%: the one that changes it least (+20.0%)"
    strength, reason = chosen({0.0: (1.0, 0.1), 0.3: (0.9, 0.1), 1.0: (0.5, 0.1)})
    assert strength == 0.3
    assert reason.startswith("no strength beats the model before training (reward -0.100")


@pytest.mark.parametrize(
    ("full", "kept", "reason"),
    [
        ([0.15] * 15 + [-1.0], 1.0, "reward +0.078 against the model before, motion +0.0%, as good as 0.5 within one "
         "standard error"),  # .022 less in the mean, give or take .072
        ([0.2] * 16, 1.0, "reward +0.200 against the model before, motion +0.0%"),
        ([0.05] * 16, 0.5, "reward +0.100 against the model before, motion +0.0%"),  # less, and surely so
    ],
)  # fmt: skip
def test_of_strengths_that_cannot_be_told_apart_the_largest_is_kept(
    full: list[float], kept: float, reason: str
) -> None:
    gains = {0.0: [0.0] * 16, 0.5: [0.1] * 16, 1.0: full}

    def measure(strength: float) -> Results:
        metrics = {"judge": gains[strength], "motion": [0.1] * 16}
        names = [f"{number:03d}-0.mp4" for number in range(16)]
        return Results(name="x", prompts=names, groups=list(range(16)), files=names, metrics=metrics)

    found = choose(Selection(strengths=[0.5, 1.0]), Mixture([(Judge(), 1.0)]), measure)
    assert (found.strength, found.reason) == (kept, reason)


def test_a_mixture_is_added_on_its_fixed_scales() -> None:
    def measure(strength: float) -> Results:
        metrics = {"judge": [strength], "other": [-strength], "motion": [0.1]}
        return Results(name="x", prompts=["a"], groups=[0], files=["000-0.mp4"], metrics=metrics)

    found = choose(Selection(strengths=[1.0]), Mixture([(Judge(), 3.0), (Other(), 1.0)]), measure)
    assert found.measured[1].reward == pytest.approx(3 * (1.0 - 0.5) / 2 - 1.0)


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture
def policy(model: VideoModel) -> Iterator[LoraPolicy]:
    found = LoraPolicy(model, Lora(rank=3, alpha=6), seed=0)
    move(found, 1)
    yield found
    model.network.delete_adapters(["default", *(["reference"] if found.reference_state() else [])])


def clear(model: VideoModel) -> None:
    model.network.set_adapter("reference")
    model.network.delete_adapters(["default"])
    model.network.delete_adapters(["reference"])


def move(policy: LoraPolicy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def output(model: VideoModel) -> Tensor:
    x = draw_noise((8, 3, 4, 4), [1, 2])
    with torch.no_grad():
        return model.predict(x, torch.tensor([700.0, 300.0]), model.encode_prompts(["a", "b"]))


def changes(state: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """What a LoRA adds to each layer's weight."""
    names = {key.split(".lora_")[0] for key in state}
    return {n: scale * state[f"{n}.lora_B.weight"] @ state[f"{n}.lora_A.weight"] for n in names}


def exported(folder: Path) -> tuple[dict[str, Tensor], float, int]:
    """The file's factors, its alpha and its rank as diffusers reads them."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_NAME, "pt") as file:
        made = json.loads(file.metadata()["lora_adapter_metadata"])
    state = {k.removeprefix("transformer."): v for k, v in load_file(folder / WEIGHTS_NAME).items()}
    return state, made["transformer.lora_alpha"], made["transformer.r"]


def test_what_is_applied_is_what_is_written(model: VideoModel, policy: LoraPolicy, tmp_path: Path) -> None:
    """The strength is in the file's alpha: diffusers alone loads it at that strength."""
    state = policy.state()
    policy.keep(0.4)
    kept = output(model)
    policy.export(tmp_path)
    found, alpha, rank = exported(tmp_path)
    assert (alpha, rank) == (pytest.approx(2.4), 3)
    for name, change in changes(found, alpha / rank).items():
        torch.testing.assert_close(change, 0.4 * changes(state, 2.0)[name])
    policy.keep(0.0)
    with policy.reference():
        bare = output(model)
    torch.testing.assert_close(output(model), bare)
    plain = models.load(model.source)
    plain.pipeline.load_lora_weights(str(tmp_path))
    torch.testing.assert_close(output(plain), kept, atol=1e-5, rtol=1e-5)


def test_from_another_lora_strength_counts_from_that_one(model: VideoModel, tmp_path: Path) -> None:
    """Both side by side, at twice the rank: exactly the way from the one to the other."""
    first = LoraPolicy(model, Lora(rank=3, alpha=6), seed=5)
    move(first, 7)
    start = Start(first.state(), 3, 6.0, sorted(model.lora_targets))
    model.network.delete_adapters(["default"])
    second = LoraPolicy(model, Lora(rank=3, alpha=6), 0, start)
    try:
        began = output(model)
        move(second, 9)
        ended, state = output(model), second.state()
        for strength, expected in ((0.0, began), (1.0, ended)):
            second.keep(strength)
            torch.testing.assert_close(output(model), expected, atol=1e-5, rtol=1e-5)
        second.keep(0.3)
        kept = output(model)
        second.export(tmp_path)
    finally:
        clear(model)
    found, alpha, rank = exported(tmp_path)
    assert (alpha, rank) == (12.0, 6)
    for name, change in changes(found, alpha / rank).items():
        torch.testing.assert_close(change, 0.7 * changes(start.state, 2.0)[name] + 0.3 * changes(state, 2.0)[name])
    LoraPolicy(model, Lora(rank=6, alpha=12), 0, initial.read(model, tmp_path))
    try:
        torch.testing.assert_close(output(model), kept, atol=1e-5, rtol=1e-5)
    finally:
        clear(model)


class TestSettings:
    def test_a_held_out_judge_may_not_choose(self) -> None:
        with pytest.raises(ConfigError, match="'gold' is a held-out judge: chosen by it"):
            recipe.complete({"selection": {"strengths": [1.0], "reward": "gold"}})

    def test_a_method_without_a_reward_may_name_one(self) -> None:
        made = recipe.complete({
            "method": "dense", "pairs": "somewhere", "selection": {"strengths": [1.0], "reward": "technical"},
        })  # fmt: skip
        assert [part.spec.name for part in made.selection] == ["technical"]
        off = {"strengths": [1.0], "reward": None}
        made = recipe.complete({"method": "dense", "pairs": "somewhere", "selection": off})
        assert made.selection == []

    def test_a_model_without_validation_prompts_needs_some(self, tiny_wan: Path, tmp_path: Path) -> None:
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a\nb\n")
        given = {"model": str(tiny_wan), "prompts": prompts, "evaluation": {"prompts": prompts, "num_prompts": 1}}
        with pytest.raises(ConfigError, match=r"ships no validation prompts: give --set selection\.prompts=FILE"):
            recipe.complete({**given, "selection": {"strengths": [1.0]}})
        with pytest.raises(ConfigError, match="are held-out prompts of the evaluation, 'a' for one"):
            recipe.complete({**given, "selection": {"strengths": [1.0], "prompts": prompts}})

    def test_nothing_is_trained_on_what_is_chosen_or_reported_by(self) -> None:
        made = recipe.complete({"selection": {"strengths": [1.0]}})
        trained, chosen, reported = (
            {item.prompt for item in part} for part in (made.prompts, made.validation, made.held_out)
        )
        assert not chosen & reported
        assert chosen | reported <= made.kept_out
        assert trained
        assert not trained & made.kept_out


def test_a_whole_run(
    tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strength in summary, card and file; the after of the table is that of the exported LoRA. Its reward is read
    once.
    """
    read: list[list[str]] = []
    load = loading.load

    def counted(plans: list[loading.RewardPlan], *rest: Any, **more: Any) -> Any:
        read.append([plan.spec.name for plan in plans])
        return load(plans, *rest, **more)

    monkeypatch.setattr(loading, "load", counted)
    for name, text in (("train", "a\nb\nc\n"), ("validation", "d\ne\n"), ("heldout", "f\na\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    sets = [
        "batch_size=1", "method.num_candidates=2", f"evaluation.prompts={tmp_path}/heldout.txt", "evaluation.judges=[]",
        f"selection.prompts={tmp_path}/validation.txt", "selection.strengths=[0.5]", "selection.max_motion_change=9",
        "optimiser.lr=0.02", "optimiser.warmup_steps=0", "health.disable=[motion_collapse]", "lora.rank=2",
    ]  # fmt: skip
    flags = [part for text in sets for part in ("--set", text)]
    run = ["train", "--model", tiny_wan, "--prompts", tmp_path / "train.txt", "--steps", 2, "--output"]
    main_ok([*run, tmp_path / "run", *flags])
    shown = " ".join(capsys.readouterr().out.split())
    assert read == [["vqa"], []]
    assert "2 items to train on, none held out" in shown
    assert "left out: 1 of 3 prompts are of prompts that are held out, 'a' for one" in shown
    assert "strength 0.5: " in shown
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["selection"]["strength"] == 0.5
    assert [one["strength"] for one in summary["selection"]["measured"]] == [0.0, 0.5]
    assert exported(tmp_path / "run/lora")[1] == pytest.approx(1.0)  # alpha: half of the rank
    assert "0.5 of what was trained, chosen on validation prompts" in (tmp_path / "run/lora/README.md").read_text()
    main_ok(["eval", tmp_path / "run", "--output", tmp_path / "eval", "--best-of", 0, "--prompts",
             tmp_path / "heldout.txt", "--reward", "vqa"])  # fmt: skip
    found = json.loads((tmp_path / "eval/results.json").read_text())
    assert found["means"]["run"]["vqa"] == pytest.approx(summary["after"]["vqa"], abs=1e-3)
    main_ok(["train", "--output", tmp_path / "run", "--resume", "--steps", 3])
    longer = json.loads((tmp_path / "run/summary.json").read_text())["selection"]["measured"]
    first = summary["selection"]["measured"]
    assert (longer[0] == first[0], longer[1] == first[1]) == (True, False)  # the LoRA of a step more
    (tmp_path / "train.txt").write_text("f\na\n")
    code, error = fails(capsys, *run, tmp_path / "other", *flags)
    assert code == 1
    assert "nothing is left to train on" in error
