"""Learning rates, averages of weights, and what a recipe's steps can reach."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.offline_run import make_set, run
from vpo_kit import config, models
from vpo_kit.config import Optimiser
from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel
from vpo_kit.processes import Processes
from vpo_kit.training import optimisers
from vpo_kit.training.average import Average
from vpo_kit.training.budget import Spending
from vpo_kit.training.rates import factor, set_rates
from vpo_kit.training.reach import line, reach


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "pairs")


class TestFactor:
    def rates(self, steps: int, **settings: object) -> list[float]:
        optimiser = Optimiser.model_validate({"warmup_steps": 0, **settings})
        return [factor(optimiser, step, step / steps) for step in range(steps)]

    def test_constant(self) -> None:
        assert self.rates(5) == [1.0] * 5

    def test_warm_up_is_linear(self) -> None:
        assert self.rates(6, warmup_steps=3) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])

    def test_linear_over_the_last_share(self) -> None:
        assert self.rates(10, schedule="linear", decay_share=0.5) == pytest.approx([1] * 6 + [0.8, 0.6, 0.4, 0.2])

    def test_cosine_ends_at_zero_and_is_half_in_the_middle(self) -> None:
        found = self.rates(100, schedule="cosine", decay_share=1.0)
        assert found[0] == pytest.approx(1)
        assert found[50] == pytest.approx(0.5)
        assert found[99] == pytest.approx(0, abs=1e-3)
        assert found == sorted(found, reverse=True)

    def test_the_budget_that_is_nearest_its_end_counts(self) -> None:
        run = config.build({"steps": 100, "max_passes": 40})
        budget = Spending(run, Processes())
        assert budget.progress(10, [{"passes": 20.0}]) == pytest.approx(0.5)
        assert budget.progress(60, [{"passes": 20.0}]) == pytest.approx(0.6)
        assert budget.progress(10, [{"passes": 80.0}]) == 1.0
        timed = Spending(config.build({"steps": 100, "max_seconds": 10}), Processes())
        timed.resume(5.0)
        assert timed.progress(1, []) == pytest.approx(0.5, abs=0.05)


def test_each_expert_has_its_rate() -> None:
    groups = {name: [torch.nn.Parameter(torch.zeros(2))] for name in ("high_noise", "low_noise")}
    settings = Optimiser.model_validate(
        {"lr": {"high_noise": 1e-3, "low_noise": 1e-4}, "betas": [0.8, 0.9], "eps": 1e-6}
    )
    optimiser = optimisers.build(settings, groups)
    set_rates(optimiser, 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([5e-4, 5e-5])
    assert all(group["betas"] == (0.8, 0.9) and group["eps"] == 1e-6 for group in optimiser.param_groups)
    with pytest.raises(ConfigError, match="no rate for transformer"):
        optimisers.build(settings, {"transformer": groups["high_noise"]})


@pytest.mark.parametrize("settings", [{"schedule": "linear", "decay_share": 0.8}, {"schedule": "cosine", "ema": 0.9}])
def test_a_resumed_run_has_the_rates_of_a_whole_one(
    model: VideoModel, pairs: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    """Also where passes are the budget, and with an average of the weights."""
    values = {"optimiser": {"lr": 1e-2, "warmup_steps": 1, **settings}, "validation": {"share": 0}}
    for name, limit in (("steps", {}), ("passes", {"max_passes": 160})):
        whole = run(model, pairs, tmp_path / name / "whole", 5, **limit, **values)
        run(model, pairs, tmp_path / name / "parts", 5, **limit, **values)
        for folder in (tmp_path / name / "parts/checkpoints").glob("step-*"):
            if folder.name > "step-000002":  # as if the run had been killed after its second step
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()
        parts = run(model, pairs, tmp_path / name / "parts", 5, **limit, **values)
        assert parts == whole
        last = [max((tmp_path / name / n / "checkpoints").glob("step-*")) for n in ("whole", "parts")]
        for file in ("lora", "average"):
            one, other = (load_file(folder / f"{file}.safetensors") for folder in last)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
        assert bool(load_file(last[0] / "average.safetensors")) == ("ema" in settings)


def test_the_average_follows_its_definition() -> None:
    """a_n = d_n a_{n-1} + (1 - d_n) p_n with d_n = min(d, (1 + n) / (10 + n)), and a_0 = p_1."""
    average, expected = Average(0.5), None
    for n in range(1, 30):
        value = torch.tensor([float(n)])
        average.update({"w": value})
        decay = min(0.5, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        torch.testing.assert_close(average.state["w"], expected)
    again = Average(0.5)
    again.load_state(average.state, 29)
    for one in (average, again):
        one.update({"w": torch.tensor([7.0])})
    assert torch.equal(average.state["w"], again.state["w"])


class TestReach:
    def of(self, **values: object) -> str:
        return reach(config.build(values)).verdict

    def test_published_settings_are_enough(self) -> None:
        """DenseDPO: rank 128, rate 1e-5 after a warm-up of 250, 1,000 steps."""
        optimiser = {"lr": 1e-5, "warmup_steps": 250}
        found = reach(config.build({"steps": 1000, "lora": {"rank": 128}, "optimiser": optimiser}))
        assert found.rates == pytest.approx(1e-5 * 875, rel=1e-2)
        assert found.reach == pytest.approx(found.rates * math.sqrt(128))
        assert found.verdict == "enough"

    def test_one_epoch_of_8000_pairs_at_5e_6_cannot_be_seen(self) -> None:
        """A public report: batch 48, one epoch, and the trained model cannot be told from the base."""
        optimiser = {"lr": 5e-6, "warmup_steps": 0}
        assert self.of(steps=8000 // 48, lora={"rank": 64}, optimiser=optimiser) == "cannot be seen in the videos"

    def test_ten_times_too_much(self) -> None:
        optimiser = {"lr": 1e-2, "warmup_steps": 0}
        assert self.of(steps=40, lora={"rank": 16}, optimiser=optimiser) == "will overshoot"
        assert "lower optimiser.lr" in line(config.build({"steps": 40, "optimiser": optimiser}))
        assert "raise optimiser.lr or steps" in line(config.build({"steps": 4}))

    def test_what_the_scale_of_the_lora_does(self) -> None:
        """Alpha at twice the rank doubles it."""
        one, two = (reach(config.build({"lora": {"rank": 16, "alpha": alpha}})).reach for alpha in (16, 32))
        assert two == pytest.approx(2 * one)

    def test_a_budget_decides_how_many_steps_there_are(self) -> None:
        """The steps of such a run are a limit far away, of which a reach would say that it overshoots."""
        said = line(config.build({"steps": 24_000, "max_passes": 24_000, "optimiser": {"lr": 1e-3}}))
        assert "overshoot:" not in said
        found = re.search(r"is: (\S+) can be seen, more than (\S+) will overshoot", said)
        assert found is not None
        for steps, verdict in ((found[1], "enough"), (found[2], "will overshoot")):
            assert self.of(steps=int(steps.replace(",", "")) + 9, optimiser={"lr": 1e-3}) == verdict
