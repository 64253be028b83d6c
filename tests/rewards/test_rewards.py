"""Writing, mixing and registering rewards."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch

from tests.support import known
from tests.support.material import of_judges
from vpo_kit import registry
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.registry import REWARDS, Registry
from vpo_kit.rewards.base import Mixture, parse
from vpo_kit.rewards.loading import load, plan
from vpo_kit.testing.rewards import stub

Mean = stub("mean", scale="0 to 1")
Thousand = stub("thousand", lambda video, _: -1000 * video.flatten(1).mean(1), scale="0 to -1000")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vqa", [("vqa", 1.0)]),
        ("vqa:0.7+hpsv2:0.3", [("vqa", 0.7), ("hpsv2", 0.3)]),
        ("a.b:C", [("a.b:C", 1.0)]),
        ("a.b:C:2 + vqa", [("a.b:C", 2.0), ("vqa", 1.0)]),
        ("remote:http://h:8000", [("remote:http://h:8000", 1.0)]),
        ("remote:http://h:8000:0.5+vqa:0.5", [("remote:http://h:8000", 0.5), ("vqa", 0.5)]),
        ("remote:http://h:8000:2", [("remote:http://h:8000", 2.0)]),
        ("remote:https://h/judge:2", [("remote:https://h/judge", 2.0)]),
        ("remote:http://h:0.5", [("remote:http://h", 0.5)]),
        ("remote:http://h/:2", [("remote:http://h/", 2.0)]),
        ("remote:http://[::1]:8000", [("remote:http://[::1]:8000", 1.0)]),
        ("remote:http://[::1]:8000:3", [("remote:http://[::1]:8000", 3.0)]),
        ("remote:http://[::1]", [("remote:http://[::1]", 1.0)]),
    ],
)
def test_parse(text: str, parts: list[tuple[str, float]]) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize("text", ["", "vqa+", "vqa:0", "vqa:-1", "vqa:nan", "vqa:inf", "vqa+vqa", ":2"])
def test_bad_mixtures(text: str) -> None:
    with pytest.raises(ConfigError, match="reward"):
        parse(text)


VIDEO = torch.rand(6, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_one_reward_keeps_its_scale() -> None:
    found = Mixture([(Thousand(), 1.0)])(VIDEO, ["p"] * 6, fps=8, group=3)
    torch.testing.assert_close(found.score, -1000 * VIDEO.flatten(1).mean(1))


def test_a_mixture_is_standardised_within_each_prompt() -> None:
    # the second is the first turned round and a thousand times as large: with equal weights they cancel
    balanced = Mixture([(Mean(), 1.0), (Thousand(), 1.0)])(VIDEO, ["p"] * 6, fps=8, group=3)
    torch.testing.assert_close(balanced.score, torch.zeros(6), atol=1e-4, rtol=0)
    leaning = Mixture([(Mean(), 2.0), (Thousand(), 1.0)])(VIDEO, ["p"] * 6, fps=8, group=3)
    order = VIDEO.flatten(1).mean(1).view(2, 3).argsort(1)
    assert torch.equal(leaning.score.view(2, 3).argsort(1), order)
    assert set(leaning.components) == {"mean", "thousand"}


def test_a_mixture_of_equal_videos_is_finite() -> None:
    found = Mixture([(Mean(), 1.0), (Thousand(), 1.0)])(VIDEO[:1].expand(4, -1, -1, -1, -1), ["p"] * 4, fps=8, group=4)
    torch.testing.assert_close(found.score, torch.zeros(4), atol=1e-3, rtol=0)


def test_what_is_not_finite_is_named() -> None:
    """The video where that is what is wrong, and else the reward."""
    with pytest.raises(DataError, match="the video of the prompt 'q' is not finite"):
        Mixture([(Mean(), 1.0)])(torch.full((2, 2, 3, 8, 8), torch.nan), ["q", "r"], fps=8, group=2)
    broken = stub("broken", lambda video, _: video.flatten(1).mean(1).sub(2).log())
    with pytest.raises(DataError, match="reward 'broken' is not finite for the prompt 'q'"):
        Mixture([(broken(), 1.0)])(VIDEO[:2], ["q", "r"], fps=8, group=2)


def test_plans_check_settings() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting reward\.weigths"):
        plan("vqa", {"weigths": "x"})
    with pytest.raises(ConfigError, match=r"write reward\.NAME\.setting"):
        plan("vqa+gold", {"weights": "x"})
    assert [p.weight for p in plan("vqa:2+gold", {})] == [2.0, 1.0]
    with pytest.raises(ConfigError, match="is not a reward"):
        plan("pathlib:Path", {})
    with pytest.raises(ConfigError, match="cannot be imported"):
        plan("no.such.module:Thing", {})
    with pytest.raises(ConfigError, match="'vqa' takes nothing but a weight behind its name, not 'best'"):
        plan("vqa:best", {})


class OtherMean(Mean):
    """A plugin that chose the name of another."""


def test_scores_are_kept_by_name_so_names_must_differ() -> None:
    both = [f"{__name__}:{name}" for name in ("Mean", "OtherMean")]
    with pytest.raises(ConfigError, match="two rewards are called 'mean'"):
        load(plan("+".join(both), {}), torch.device("cpu"))


def test_plugins_come_through_the_same_door(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("mean", "tests.rewards.test_rewards:Mean", "vpo_kit.rewards")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "vpo_kit.rewards" else [])
    assert REWARDS.load("mean") is Mean
    assert "mean" in REWARDS.targets()
    clash = Registry("reward", "vpo_kit.rewards", {"mean": "other:Mean"})
    with pytest.raises(ConfigError, match="two rewards are called 'mean'"):
        clash.targets()


def test_judges_and_closed_forms_say_what_they_said() -> None:
    """Else committed results are of other judges."""
    known.check("judges", of_judges(), relative=0.01, absolute=0.002)
