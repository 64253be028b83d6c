"""Training times: the distributions in closed form, the sampler's own chain, strata, and who may set them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vpo_kit.errors import ConfigError
from vpo_kit.registry import MODELS
from vpo_kit.sampler import draw_noise
from vpo_kit.schedule import DDPMSchedule, FlowSchedule, Schedule
from vpo_kit.times import Strata, Times, TimeSampler
from vpo_kit.training import recipe


def everywhere(time: Tensor) -> Tensor:
    return torch.ones_like(time, dtype=torch.bool)


def sampler(times: Times, schedule: Schedule | None = None, chain: Tensor | None = None) -> TimeSampler:
    chain = torch.tensor([1.0, 0.5]) if chain is None else chain
    return TimeSampler(times, schedule or FlowSchedule(), chain=chain, shift=3.0, experts={"": everywhere})


def drawn(times: Times, count: int = 2000) -> Tensor:
    return sampler(times).draw(range(count)).double()


def normal_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


class TestDistributions:
    def check(self, times: Times, cdf: Callable[[Tensor], Tensor]) -> None:
        """Kolmogorov and Smirnov's test at 1%."""
        found = drawn(times).sort().values
        steps = torch.arange(1, len(found) + 1).double() / len(found)
        assert float((cdf(found) - steps).abs().max()) < 1.63 / math.sqrt(len(found))

    def test_logit_normal(self) -> None:
        for mean, std in ((0.0, 1.0), (0.3, 0.5)):
            times = Times(name="logit_normal", logit_mean=mean, logit_std=std)
            self.check(times, lambda t, m=mean, s=std: normal_cdf((torch.logit(t) - m) / s))  # type: ignore[misc]

    def test_uniform_with_a_shift(self) -> None:
        """A shift s sends t to s t / (1 + (s - 1) t): the share below t is t / (s - (s - 1) t)."""
        for shift in (1.0, 5.0):
            self.check(Times(name="uniform", shift=shift), lambda t, s=shift: t / (s - (s - 1) * t))  # type: ignore[misc]
        self.check(Times(name="uniform", shift="sampler"), lambda t: t / (3 - 2 * t))

    def test_shift_of_a_logit_normal_moves_its_mean(self) -> None:
        """logit(s t / (1 + (s - 1) t)) = logit(t) + log s."""
        one = drawn(Times(name="logit_normal", shift=7.0))
        other = drawn(Times(name="logit_normal", logit_mean=math.log(7.0)))
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)

    def test_mode_is_sd3s(self) -> None:
        """f(u) = 1 - u - s (cos^2(pi u / 2) - 1 + u); at scale 0 it is uniform."""
        self.check(Times(name="mode", mode_scale=0.0), lambda t: t)
        u = torch.linspace(1, 0, 100_001).double()
        quantiles = 1 - u - 1.29 * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
        self.check(Times(name="mode"), lambda t: torch.searchsorted(quantiles, t) / 100_000)

    def test_chain_is_what_the_sampler_visits(self) -> None:
        chain = torch.tensor([1.0, 0.8, 0.5, 0.1])
        found = sampler(Times(name="chain"), chain=chain).draw(range(4000))
        counts = {round(float(t), 2): int((found == t).sum()) for t in found.unique()}
        assert set(counts) == {1.0, 0.8, 0.5, 0.1}
        assert all(abs(count - 1000) < 4 * math.sqrt(750) for count in counts.values())

    def test_a_range_is_the_distribution_restricted(self) -> None:
        low, high = (normal_cdf(torch.logit(torch.tensor(edge))) for edge in (0.6, 0.9))
        times = Times(name="logit_normal", low=0.6, high=0.9)
        assert drawn(times).min() >= 0.6
        assert drawn(times).max() <= 0.9
        self.check(times, lambda t: (normal_cdf(torch.logit(t)) - low) / (high - low))

    def test_ddpm_draws_indices(self) -> None:
        schedule = DDPMSchedule(torch.linspace(0.999, 0.001, 50))
        found = sampler(Times(name="uniform"), schedule).draw(range(3000))
        assert found.dtype == torch.long
        assert set(found.tolist()) == set(range(50))
        assert sampler(Times(name="uniform", low=0.5), schedule).draw(range(500)).min() >= 24

    def test_a_draw_depends_on_its_own_seed(self) -> None:
        times = sampler(Times(name="logit_normal"))
        assert torch.equal(times.draw([5, 9, 7]), torch.cat([times.draw([seed]) for seed in (5, 9, 7)]))

    def test_a_time_says_nothing_of_the_noise_of_the_same_seed(self) -> None:
        """One generator for both would tie them: correlations over 1000 draws are within four standard errors."""
        share = torch.tensor(sampler(Times(name="uniform")).draw(range(1000)).tolist())
        noise = draw_noise((32,), range(1000))
        for values in (noise, noise.abs()):
            together = torch.corrcoef(torch.cat([share[:, None], values], 1).T)[0, 1:]
            assert float(together.abs().max()) < 4 / math.sqrt(1000)


class TestStrata:
    def test_every_piece_of_the_distribution_is_drawn_once(self) -> None:
        times = sampler(Times(name="uniform"))
        found = times.draw(range(16), strata=Strata(list(range(16)), 16, seed=3))
        assert sorted((found * 16).long().tolist()) == list(range(16))
        again = times.draw(range(16), strata=Strata(list(range(16)), 16, seed=4))
        assert (found * 16).long().tolist() != (again * 16).long().tolist()

    def test_parts_of_a_batch_are_those_of_the_whole(self) -> None:
        """So that several processes, or micro-batches, draw what one would."""
        times = sampler(Times(name="logit_normal"))
        whole = times.draw(range(8), strata=Strata(list(range(8)), 8, seed=1))
        for part in ([0, 2, 4, 6], [1, 3, 5, 7]):
            assert torch.equal(times.draw(part, strata=Strata(part, 8, seed=1)), whole[part])

    def test_the_spread_of_a_mean_falls(self) -> None:
        times = sampler(Times(name="logit_normal"))
        free = [float(times.draw(range(16 * i, 16 * i + 16)).mean()) for i in range(200)]
        spread = [
            float(times.draw(range(16 * i, 16 * i + 16), strata=Strata(list(range(16)), 16, i)).mean())
            for i in range(200)
        ]
        assert torch.tensor(spread).std() < 0.4 * torch.tensor(free).std()
        assert abs(sum(spread) / 200 - 0.5) < 0.01


@pytest.mark.parametrize("values", [
    {"name": "uniform", "logit_std": 2.0}, {"name": "chain", "shift": 3.0}, {"name": "logit_normal", "steps": 4},
    {"name": "uniform", "low": 0.9, "high": 0.1}, {"name": "cosmap"}, {"name": "uniform", "experts": {"high_noise": 0}},
])  # fmt: skip
def test_what_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not use|below high|Input should|all zero"):
        Times.model_validate(values)


@pytest.mark.parametrize("experts", [{"high_noise": 0.3, "low_noise": 0.7}, {"high_noise": 0.0, "low_noise": 0.2}])
def test_shares_of_experts_are_any_numbers_that_are_not_all_zero(experts: dict[str, float]) -> None:
    assert Times(name="uniform", experts=experts).experts == experts
    with pytest.raises(ValueError, match="all zero"):
        Times(name="uniform", experts={**experts, "low_noise": -0.1})


def test_in_words() -> None:
    said = {
        "logit-normal(0, 1)": {"name": "logit_normal"},
        "logit-normal(0.5, 2), shift 3": {"name": "logit_normal", "logit_mean": 0.5, "logit_std": 2.0, "shift": 3.0},
        "uniform": {"name": "uniform"},
        "mode(1.29), the sampler's shift": {"name": "mode", "shift": "sampler"},
        "the sampler's own": {"name": "chain"},
    }
    assert [Times.model_validate(values).describe() for values in said.values()] == list(said)


def test_the_short_form() -> None:
    assert Times.model_validate("uniform") == Times(name="uniform")


PAIRS = {"pairs": Path("somewhere")}


@pytest.mark.parametrize("method", ["online", "dense", "structural", "dpo", "sft"])
def test_every_method_that_draws_times_takes_the_setting(method: str) -> None:
    given = {"method": {"name": method, "times": {"name": "chain", "high": 0.8}}}
    made = recipe.complete(given if method == "online" else {**given, **PAIRS})
    assert made.method_config.times == Times(name="chain", high=0.8)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["instruct", "draft", "vader", "alignprop"])
def test_methods_that_draw_none_refuse_it(method: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting method\.times"):
        recipe.complete({"method": {"name": method, "times": "uniform"}, "videos": "somewhere"} if method == "instruct"
                        else {"method": {"name": method, "times": "uniform"}})  # fmt: skip


def test_the_default_of_each_family_is_its_own() -> None:
    """As each was trained, with the source (docs/models.md)."""
    found = {name: MODELS.load(name).times for name in MODELS.targets()}
    assert found["WanPipeline"] == Times(name="uniform", shift=5.0)
    assert found["HunyuanVideoPipeline"] == found["LTXPipeline"] == Times(name="logit_normal", shift="sampler")
    assert found["CogVideoXPipeline"] == Times(name="uniform", stratified=True)
    assert found["MochiPipeline"] == Times(name="chain")
    for name in ("TextToVideoSDPipeline", "AnimateDiffPipeline"):
        assert found[name] == Times(name="uniform")
