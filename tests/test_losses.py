"""The identities of the loss core, and one loss worked out with a pencil."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vpo_kit import losses
from vpo_kit.links import named
from vpo_kit.losses import PairErrors, PreferenceConfig, preference_loss, weighted_mean
from vpo_kit.registry import LINKS

CONFIG = PreferenceConfig(beta=10.0)


def errors(pairs: int = 4, frames: int = 5, seed: int = 0) -> PairErrors:
    generator = torch.Generator().manual_seed(seed)
    return PairErrors(*(torch.rand(pairs, frames, generator=generator, dtype=torch.float64) for _ in range(4)))


def reduced(e: PairErrors, labels: Tensor, config: PreferenceConfig = CONFIG, granularity: str = "clip") -> Tensor:
    found = preference_loss(e, labels, config, granularity=granularity)  # type: ignore[arg-type]
    return weighted_mean(found.value, found.weight)


def test_worked_by_hand() -> None:
    # one pair of two frames: the winner's error fell from .5 to .3 on average, the loser's rose from .4 to .5:
    # Delta = (.3 - .5) - (.5 - .4) = -.3, logit = -.5 * 10 * -.3 = 1.5, loss = log(1 + exp(-1.5))
    e = PairErrors(
        first=torch.tensor([[0.2, 0.4]]), second=torch.tensor([[0.6, 0.4]]),
        first_ref=torch.tensor([[0.4, 0.6]]), second_ref=torch.tensor([[0.5, 0.3]]),
    )  # fmt: skip
    found = preference_loss(e, torch.tensor([1.0]), CONFIG)
    assert found.logit.item() == pytest.approx(1.5, abs=1e-6)
    assert found.value.item() == pytest.approx(math.log1p(math.exp(-1.5)), abs=1e-6)
    # frame by frame: Delta = (-.2 - .1, -.2 - .1), the second labelled a tie, so only the first counts
    dense = preference_loss(e, torch.tensor([[1.0, 0.0]]), CONFIG, granularity="frame")
    assert weighted_mean(dense.value, dense.weight).item() == pytest.approx(math.log1p(math.exp(-1.5)), abs=1e-6)


@pytest.mark.parametrize("granularity", ["clip", "frame", "mean"])
def test_policy_equal_to_reference_is_ln_2(granularity: str) -> None:
    e = errors()
    same = PairErrors(e.first, e.second, e.first, e.second)
    labels = torch.ones(4) if granularity == "clip" else torch.ones(4, 5)
    assert reduced(same, labels, granularity=granularity).item() == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("granularity", ["clip", "frame", "mean"])
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        *(CONFIG.model_copy(update=u) for u in ({"loser_weight": 0.3}, {"label_smoothing": 0.2}, {"sft_weight": 2.0})),
    ],
)
def test_swapping_videos_and_labels_changes_nothing(granularity: str, config: PreferenceConfig) -> None:
    e = errors()
    swapped = PairErrors(e.second, e.first, e.second_ref, e.first_ref)
    labels = torch.tensor([1.0, -1.0, 0.0, 1.0])
    if granularity != "clip":
        labels = labels[:, None] * torch.tensor([1.0, -1.0, 0.0, 1.0, 1.0])
    one, other = reduced(e, labels, config, granularity), reduced(swapped, -labels, config, granularity)
    assert one.item() == pytest.approx(other.item(), abs=1e-12)


@pytest.mark.parametrize("granularity", ["clip", "frame", "mean"])
def test_all_ties_give_zero_loss_and_gradient(granularity: str) -> None:
    e = errors()
    first = e.first.clone().requires_grad_()
    labels = torch.zeros(4) if granularity == "clip" else torch.zeros(4, 5)
    loss = reduced(replace(e, first=first), labels, granularity=granularity)
    loss.backward()
    assert loss.item() == 0
    assert first.grad is not None
    assert torch.equal(first.grad, torch.zeros_like(first))


def test_dense_with_one_label_and_equal_frame_errors_is_whole_clip() -> None:
    e = errors(frames=1)
    wide = PairErrors(*(x.expand(4, 5) for x in (e.first, e.second, e.first_ref, e.second_ref)))
    labels = torch.tensor([1.0, -1.0, 1.0, -1.0])
    dense = reduced(wide, labels[:, None].expand(4, 5), granularity="frame")
    assert dense.item() == pytest.approx(reduced(wide, labels).item(), abs=1e-12)


def test_one_sigmoid_round_the_mean_is_whole_clip_where_all_frames_agree() -> None:
    """At the same beta: the logit must not grow with the number of frames."""
    e, labels = errors(), torch.tensor([1.0, -1.0, 1.0, -1.0])
    mean = reduced(e, labels[:, None].expand(4, 5), CONFIG, "mean")
    assert mean.item() == pytest.approx(reduced(e, labels).item(), abs=1e-12)
    # frames without a label change nothing
    wide = PairErrors(*(torch.cat([x, x + 7], 1) for x in (e.first, e.second, e.first_ref, e.second_ref)))
    half = torch.cat([labels[:, None].expand(4, 5), torch.zeros(4, 5)], 1)
    assert reduced(wide, half, CONFIG, "mean").item() == pytest.approx(mean.item(), abs=1e-12)


def test_epsilon_loss_with_its_weight_is_the_flow_loss_with_squared_beta() -> None:
    # x_t = (1 - t) x + t eps: from a velocity v follows eps = x_t + (1 - t) v, so the error in eps is (1 - t) times
    # that in v; DPO on eps errors with constant beta is DPO on v errors with beta (1 - t)^2
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    e = errors()
    in_eps = PairErrors(*(x * ((1 - t) ** 2)[:, None] for x in (e.first, e.second, e.first_ref, e.second_ref)))
    labels = torch.ones(4)
    squared = CONFIG.model_copy(update={"beta_schedule": "squared"})
    flow = preference_loss(e, labels, squared, level=t).value
    epsilon = preference_loss(in_eps, labels, CONFIG).value
    torch.testing.assert_close(flow, epsilon)


def test_margin_cap_stops_the_gradient() -> None:
    e = errors()
    first = (e.first - 5).requires_grad_()  # a margin far above the cap
    capped = CONFIG.model_copy(update={"margin_cap": 2.0})
    reduced(replace(e, first=first), torch.ones(4), capped).backward()
    assert first.grad is not None
    assert float(first.grad.abs().max()) == 0


@pytest.mark.parametrize("link", list(LINKS.targets()))
def test_links_prefer_a_larger_margin(link: str) -> None:
    e = errors()
    better = replace(e, first=e.first - 0.01)
    config = PreferenceConfig(beta=1.0, link=link)
    assert reduced(better, torch.ones(4), config) < reduced(e, torch.ones(4), config)


@pytest.mark.parametrize("link", list(LINKS.targets()))
def test_a_links_slope_is_how_fast_its_loss_falls(link: str) -> None:
    config = PreferenceConfig(link=link)
    z, h = torch.linspace(-3, 3, 13, dtype=torch.float64) + 0.01, 1e-6  # off the corner of the hinge
    value = named(link).value
    torch.testing.assert_close(named(link).slope(z, config), (value(z - h, config) - value(z + h, config)) / (2 * h))


def test_where_links_start() -> None:
    """What health checks and the log compare with: policy and reference are the same."""
    starts = {name: PreferenceConfig(link=name).start for name in ("sigmoid", "ipo", "hinge")}
    assert starts["sigmoid"] == pytest.approx((math.log(2), 0.5))
    assert starts["ipo"] == pytest.approx((0.25, 1.0))
    assert starts["hinge"] == pytest.approx((1.0, 1.0))
    assert PreferenceConfig(sft_weight=0.1).start is None


def test_what_is_logged_as_left_of_the_gradient_is_the_links_own() -> None:
    """A hinge at logit 2 gives no gradient, and neither does a capped logit: both used to be logged as .119."""
    e = PairErrors(*(torch.full((1, 1), x) for x in (0.1, 0.5, 0.3, 0.3)))  # logit .5 * 10 * .4 = 2
    for changes, expected in (({}, 1 / (1 + math.exp(2))), ({"link": "hinge"}, 0.0), ({"margin_cap": 1.5}, 0.0)):
        found = preference_loss(e, torch.ones(1), PreferenceConfig(beta=10.0, **changes))  # type: ignore[arg-type]
        assert found.logit.item() == pytest.approx(2.0)
        assert found.slope.item() == pytest.approx(expected)


def test_an_option_that_the_link_does_not_read_is_refused() -> None:
    for link in ("hinge", "ipo"):
        with pytest.raises(ValueError, match=f"link {link} does not use label_smoothing"):
            PreferenceConfig(link=link, label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"unknown link 'sigmoyd' \(did you mean 'sigmoid'"):
        PreferenceConfig(link="sigmoyd")


def test_label_smoothing_is_the_expected_loss_under_flips() -> None:
    e = errors()
    smooth = CONFIG.model_copy(update={"label_smoothing": 0.2})
    expected = 0.8 * reduced(e, torch.ones(4)) + 0.2 * reduced(e, -torch.ones(4))
    assert reduced(e, torch.ones(4), smooth).item() == pytest.approx(expected.item(), abs=1e-12)


def test_frame_errors_do_not_depend_on_size() -> None:
    small = torch.full((2, 4, 3, 2, 2), 0.5)
    large = torch.full((2, 8, 3, 16, 16), 0.5)
    for x in (small, large):
        torch.testing.assert_close(losses.frame_errors(x, torch.zeros_like(x)), torch.full((2, 3), 0.25))


def test_global_mean_over_unequal_shares() -> None:
    # two processes with 1 and 3 kept items: with the global total their sum is the mean over all four
    value = torch.tensor([1.0, 2.0, 3.0, 4.0])
    total = torch.tensor(4)
    parts = [weighted_mean(value[:1], torch.ones(1), total), weighted_mean(value[1:], torch.ones(3), total)]
    assert sum(parts).item() == pytest.approx(2.5)  # type: ignore[union-attr]


def test_nan_in_a_tie_does_not_reach_the_loss() -> None:
    value = torch.tensor([1.0, math.nan])
    assert weighted_mean(value, torch.tensor([1.0, 0.0])).item() == 1.0


@pytest.mark.parametrize("shift", [0.0, -3.0, 5.0])
def test_rare_scores_weigh_more(shift: float) -> None:
    history = torch.cat([torch.zeros(90), torch.ones(10)]) + shift
    winners, losers = torch.tensor([1.0, 0.0]) + shift, torch.tensor([0.0, 0.0]) + shift
    weights = losses.pair_weights(winners, losers, history, alpha=1.0)
    assert weights[0].item() == pytest.approx(0.9 / math.sqrt(0.9 * 0.1))
    assert weights[1].item() == pytest.approx(1.0)


def test_one_good_and_one_bad_of_equal_gain_are_a_half_each() -> None:
    """Only of a gain that is not negative: the baseline is not below zero."""
    good = torch.tensor([True, False])
    for gain in (0.0, 0.3):
        g = torch.full((2,), gain, dtype=torch.float64)
        found = losses.unpaired_loss(g, good, g.mean().clamp_min(0), 50.0)
        torch.testing.assert_close(found, torch.full_like(g, 0.5))
    lost = torch.full((2,), -0.1, dtype=torch.float64)
    found = losses.unpaired_loss(lost, good, lost.mean().clamp_min(0), 50.0)
    # both errors have risen: the good one is blamed for it, the bad one is not; 1 / (1 + e^-5)
    expected = [1 / (1 + math.exp(-5)), 1 / (1 + math.exp(5))]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_margin_loss_worked_by_hand() -> None:
    # f(1) = .5 / (e^.5 - 1) = .77075, f(2) = 1 / (e - 1) = .58198; logit 10 (.77075 - .58198) = 1.8877
    value, logit = losses.margin_loss(torch.tensor([1.0]), torch.tensor([2.0]), beta=3.0, temperature=10.0, scale=0.5)
    assert logit.item() == pytest.approx(1.8877, abs=1e-3)
    assert value.item() == pytest.approx(1 + 3 * math.log1p(math.exp(-1.8877)), abs=1e-3)
    even, _ = losses.margin_loss(torch.zeros(1), torch.zeros(1), beta=1.0, temperature=10.0, scale=0.5)
    assert even.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("granularity", ["clip", "frame"])
@pytest.mark.parametrize("guarded", [True, False])
def test_the_safeguard_keeps_the_winners_error_from_rising(granularity: str, guarded: bool) -> None:
    """Where the output is itself the parameter, the same for both members: one small step down the gradient."""
    generator = torch.Generator().manual_seed(0)
    rose = []
    for _ in range(40):
        output = torch.randn(1, 2, 3, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
        share = torch.rand(2, 1, 1, 1, 1, generator=generator, dtype=torch.float64)
        noise = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
        targets = share * output.detach() + 0.3 * noise  # residuals that point much the same way
        residuals = output - targets
        m = residuals.pow(2).mean((1, 3, 4))
        e = PairErrors(m[:1], m[1:], m[:1].detach(), m[1:].detach())
        labels = torch.tensor([-1.0]) if granularity == "clip" else torch.tensor([[1.0, -1.0, -1.0]])
        inner = residuals.detach().prod(0, keepdim=True).mean((1, 3, 4))
        held, factor = losses.safeguard(e, inner, labels, 0.0)
        assert torch.equal(held.first, e.first)
        assert torch.equal(held.second, e.second)
        reduced(held if guarded else e, labels, granularity=granularity).backward()
        assert output.grad is not None
        after = (output.detach() - 1e-4 * output.grad - targets).pow(2).mean((1, 3, 4))
        change = after - m.detach()
        if granularity == "clip":
            rose.append(float(change[1].mean()))
        else:
            rose += [float(change[0, 0]), float(change[1, 1]), float(change[1, 2])]
        assert 0 <= float(factor.min()) <= float(factor.max()) <= 1
    assert (max(rose) > 1e-7) is not guarded, "without it some step does raise it"


def test_the_safeguards_factor_worked_by_hand() -> None:
    """(1 - .25) .3 / .5 = .45 of the second, which loses; a winner that is nearer to its target holds it back more."""
    e = PairErrors(*(torch.tensor([[x, x + 0.2]]) for x in (0.2, 0.6, 0.0, 0.0)))
    inner = torch.tensor([[0.4, 0.6]])
    assert losses.safeguard(e, inner, torch.tensor([1.0]), 0.25)[1].item() == pytest.approx(0.45)
    assert losses.safeguard(e, inner, torch.tensor([-1.0]), 0.5)[1].item() == pytest.approx(0.5 * 0.7 / 0.5)
    assert losses.safeguard(e, -inner, torch.tensor([1.0]), 0.25)[1].item() == 1


def test_links_of_label_noise_and_of_a_target() -> None:
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)
    config = PreferenceConfig(link="robust", noise_rate=0.2)
    # unbiased: its mean over labels of which a fifth is swapped is the sigmoid loss of the right ones
    right, swapped = (named("robust").value(value, config) for value in (z, -z))
    torch.testing.assert_close(0.8 * right + 0.2 * swapped, torch.nn.functional.softplus(-z))
    matched = PreferenceConfig(link="dmpo", target=0.8)
    least = torch.logit(torch.tensor([0.8], dtype=torch.float64))
    assert named("dmpo").value(least, matched).item() == pytest.approx(0, abs=1e-12)
    assert named("dmpo").slope(least, matched).item() == pytest.approx(0, abs=1e-12)
    assert (named("dmpo").slope(z[:4], matched) > 0).all()
    assert named("linear").start(CONFIG) == (0.0, 1.0)
    with pytest.raises(ValueError, match="link sigmoid does not use noise_rate"):
        PreferenceConfig(noise_rate=0.3)


def test_a_score_that_was_seen_once_has_its_own_share() -> None:
    history = torch.cat([torch.zeros(9), torch.ones(1)])
    weights = losses.pair_weights(torch.tensor([1.0]), torch.tensor([0.0]), history, alpha=1.0)
    assert weights.item() == pytest.approx(0.9 / math.sqrt(0.9 * 0.1))
