"""The closed-form reward: its measures in cases with a known answer, its bands, and what it prefers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vpo_kit.cli import main
from vpo_kit.config import validate
from vpo_kit.errors import ConfigError
from vpo_kit.rewards import degrade, technical
from vpo_kit.rewards.degrade.drawn import Drawn
from vpo_kit.rewards.flow import gaussian, lucas_kanade, warp
from vpo_kit.rewards.technical import Technical, TechnicalConfig, measure
from vpo_kit.sprites import world
from vpo_kit.sprites.judges import corpus

SEED, NUM_CLIPS = 41, 6
NAMES = technical.SPATIAL + technical.TEMPORAL


def of(video: Tensor, name: str) -> Tensor:
    """One measure of each frame of ``[F, 3, H, W]``."""
    return measure(video)[:, NAMES.index(name)]


def score(video: Tensor) -> Tensor:
    with torch.no_grad():
        return Technical()(video, fps=8).score


@pytest.fixture(scope="module")
def clips() -> list[Drawn]:
    families = ["sprite", "leaves"]
    return [corpus.clip(SEED, i, family=families[i % 2]) for i in range(NUM_CLIPS)]


def scenes(*flaws: world.Flaw) -> Tensor:
    found = world.scenes(held_out=True)[::8][:NUM_CLIPS]
    videos = [world.render(scene, np.random.default_rng([SEED, i]), flaws).video for i, scene in enumerate(found)]
    return torch.from_numpy(np.stack(videos))


def whole(clips: list[Drawn]) -> Tensor:
    return torch.stack([clip.video for clip in clips])


@pytest.fixture(scope="module")
def clip_scores(clips: list[Drawn]) -> Tensor:
    return score(whole(clips))


@pytest.fixture(scope="module")
def scene_scores() -> Tensor:
    return score(scenes())


# flow


def texture(height: int, width: int) -> Tensor:
    """A smooth random picture ``[1, 3, height, width]`` in [0, 1]."""
    raw = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(3))
    smooth = gaussian(raw, 1.5)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


@pytest.mark.parametrize("shift", [(1, 0), (0, -2), (3, 1), (-5, 2)])
def test_flow_finds_a_pan(shift: tuple[int, int]) -> None:
    big = texture(80, 96)
    across, down = shift
    first = big[..., 8:72, 8:88]
    second = big[..., 8 + down : 72 + down, 8 + across : 88 + across]  # content moves by (-across, -down)
    flow = lucas_kanade(first, second)
    inside = flow[..., 10:-10, 10:-10].mean((0, 2, 3))
    torch.testing.assert_close(inside, torch.tensor([-across, -down]).float(), atol=0.1, rtol=0)
    left = (warp(second, flow) - first)[..., 10:-10, 10:-10].abs().mean()
    assert left < 0.1 * (second - first).abs().mean()


def test_no_flow_where_there_is_no_motion() -> None:
    picture = texture(48, 64)
    assert lucas_kanade(picture, picture).abs().max() < 1e-4
    torch.testing.assert_close(warp(picture, torch.zeros(1, 2, 48, 64)), picture)
    brighter = lucas_kanade(picture, picture + 0.05)  # the same change everywhere is light, not motion
    assert brighter.abs().max() < 1e-3


# measures


def test_a_blur_keeps_the_precision_of_its_picture() -> None:
    picture = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = gaussian(picture, 1.3)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(gaussian(picture.float(), 1.3).double(), exact, atol=1e-6, rtol=0)
    assert gaussian(picture.bfloat16(), 1.3).dtype == torch.bfloat16


@pytest.mark.parametrize("width", [0.8, 1.5, 3.0])
def test_softness_of_a_gaussian_edge(width: float) -> None:
    """The squared gradient of an edge of width s blurred by 1 is s / sqrt(1 + s^2) of what it was, whatever its height.

    The weight of detail favours an edge's middle, more so for a faint one: a few hundredths.
    """
    x = torch.arange(64) - 31.5
    edge = 0.5 + 0.5 * torch.erf(x / (width * math.sqrt(2)))
    for height in (0.2, 0.9):
        video = (height * edge).expand(1, 3, 64, 64)
        # differences between pixels are means over one: they widen the edge by 1/12 in variance
        seen = math.sqrt(width**2 + 1 / 12)
        assert float(of(video, "softness")) == pytest.approx(seen / math.sqrt(1 + seen**2), abs=0.025)


def test_blocking_of_a_mosaic(clips: list[Drawn]) -> None:
    for size in (4, 8):
        cells = torch.rand(9, 3, 64 // size, 64 // size, generator=torch.Generator().manual_seed(size))
        mosaic = cells.repeat_interleave(size, 2).repeat_interleave(size, 3)
        torch.testing.assert_close(of(mosaic, "blocking"), torch.ones(9), atol=1e-3, rtol=0)
        assert of(mosaic.roll(3, dims=-1).roll(3, dims=-2), "blocking").max() < 0  # off the grid it is content
    leaves = torch.cat([of(clip.video, "blocking") for clip in clips if clip.family == "leaves"])
    assert leaves.max() < 0.05


@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_noise_in_its_own_unit(clips: list[Drawn], sigma: float) -> None:
    for clip in clips:
        grain = torch.randn(clip.video.shape, generator=torch.Generator().manual_seed(1)) * sigma
        found = of(clip.video * 0.5 + 0.25 + grain, "noise")  # away from 0 and 1, where it would be cut off
        # looking up between pixels averages some of the noise away
        assert 0.7 * sigma < float(found.mean()) < 1.25 * sigma


def test_flicker_in_its_own_unit(clips: list[Drawn]) -> None:
    light = torch.tensor([0.04, -0.04]).repeat(9)[:17, None, None, None]
    for clip in clips:
        assert float(of(clip.video, "flicker").mean()) < 0.01
        assert float(of(clip.video + light, "flicker").mean()) == pytest.approx(0.08, rel=0.2)


def test_motion_is_a_speed() -> None:
    big = texture(64, 96)
    for speed in (1, 2):
        video = torch.cat([big[..., speed * k : speed * k + 64] for k in range(9)])
        # a pan shows only along the gradient: half of its square in a texture without direction
        assert float(of(video, "motion").mean()) == pytest.approx(speed / math.sqrt(2), rel=0.25)
    assert of(video[:1].expand(9, -1, -1, -1), "motion").max() < 0.01


def test_noise_and_flicker_do_not_pass_for_motion(clips: list[Drawn]) -> None:
    still = clips[1].video[:1].expand(17, -1, -1, -1)
    grain = 0.05 * torch.randn(still.shape, generator=torch.Generator().manual_seed(2))
    light = torch.tensor([0.04, -0.04]).repeat(9)[:17, None, None, None]
    moving = of(clips[1].video, "motion").mean()
    for video in (still + grain, still + light):
        assert of(video, "motion").mean() < 0.35 * moving


# the reward


@pytest.mark.parametrize("kind", ["blur", "noise", "blocks", "flicker"])
def test_clean_sprites_score_above_flawed_ones(scene_scores: Tensor, kind: str) -> None:
    clean, flawed = scene_scores, score(scenes(world.Flaw(kind, 4, 13, 0.3)))
    assert (clean > flawed + 0.2).all()
    assert clean.min() > -0.5


@pytest.mark.parametrize("kind", ["blur", "downup", "noise", "grain", "blocks", "flicker"])
def test_worse_is_lower(clips: list[Drawn], clip_scores: Tensor, kind: str) -> None:
    spoil, chain = degrade.DEGRADATIONS[kind], [clip_scores]
    for severity in (3, 5):
        rngs = [np.random.default_rng([SEED, i]) for i in range(NUM_CLIPS)]
        spoilt = [spoil(clip, (0, 17), severity, rng) for clip, rng in zip(clips, rngs, strict=True)]
        chain.append(score(torch.stack(spoilt)))
    clean, middle, worst = chain
    assert (clean > middle).all()
    assert (middle > worst).float().mean() >= 0.8


def test_a_frozen_clip_never_wins(clips: list[Drawn], clip_scores: Tensor, scene_scores: Tensor) -> None:
    moving, scores = torch.cat([whole(clips), scenes()]), torch.cat([clip_scores, scene_scores])
    for k in (0, 8, 16):
        assert (score(moving[:, k : k + 1].expand_as(moving)) < scores - 1).all()


def test_segments_and_components(clips: list[Drawn]) -> None:
    video = scenes(world.Flaw("noise", 8, 13, 0.5))
    out = Technical()(video, fps=8, segments=[(0, 6), (8, 13), (0, 17), (16, 17)])
    assert out.segments is not None
    assert out.segments.shape == (NUM_CLIPS, 4)
    assert (out.segments[:, 1] < out.segments[:, 0]).all()
    torch.testing.assert_close(out.segments[:, 2], out.score)
    assert set(out.components) == set(NAMES)
    one = Technical()(video[2:3], fps=8)
    torch.testing.assert_close(one.score, out.score[2:3])
    for name, value in out.components.items():
        torch.testing.assert_close(value[2], of(video[2], name).mean())


def test_gradient_leads_back_into_the_bands(clips: list[Drawn]) -> None:
    for kind in ("blur", "noise", "blocks", "flicker"):
        spoilt = degrade.DEGRADATIONS[kind](clips[1], (0, 17), 3, np.random.default_rng(0))[None].requires_grad_()
        before = Technical()(spoilt, fps=8).score
        (slope,) = torch.autograd.grad(before.sum(), spoilt)
        assert torch.isfinite(slope).all()
        step = spoilt.detach() + 0.004 * slope / slope.abs().amax()
        assert score(step) > before, kind


@pytest.mark.parametrize("kind", ["blur", "noise", "blocks"])
def test_invisible_changes_do_not_mend_a_flaw(kind: str) -> None:
    """10 sign-gradient steps within 2/255 of every pixel win back less than half of what the flaw cost."""
    clean, flawed = score(scenes()[:2]), scenes(world.Flaw(kind, 4, 13, 0.3))[:2]
    video = flawed.clone()
    for _ in range(10):
        video = video.requires_grad_()
        (slope,) = torch.autograd.grad(Technical()(video, fps=8).score.sum(), video)
        moved = video.detach() + 0.8 / 255 * slope.sign()
        video = flawed + (moved - flawed).clamp(-2 / 255, 2 / 255)
    before = score(flawed)
    assert ((score(video) - before) < 0.5 * (clean - before)).all()


def test_saturated_pixels_have_a_gradient() -> None:
    video = (scenes(world.Flaw("flicker", 4, 13, 0.5))[:1] * 2).requires_grad_()
    Technical()(video, fps=8).score.sum().backward()
    assert video.grad is not None
    assert video.grad[video.detach() > 1].abs().sum() > 0


def test_inside_the_bands_there_is_nothing_to_gain() -> None:
    wide = dict.fromkeys(NAMES, (-1e6, 1e6))
    video = scenes()[:2].requires_grad_()
    out = Technical(TechnicalConfig(**wide))(video, fps=8)
    assert torch.equal(out.score, torch.zeros(2))
    (slope,) = torch.autograd.grad(out.score.sum(), video)
    assert not slope.any()
    with pytest.raises(ConfigError, match=r"reward\.noise: .*low below high"):
        validate(TechnicalConfig, {"noise": [0.2, 0.1]}, "reward.")


@pytest.mark.parametrize("shape", [(1, 1, 3, 32, 32), (2, 2, 3, 32, 32), (1, 3, 3, 34, 50), (1, 3, 3, 150, 200)])
def test_any_length_and_size(shape: tuple[int, ...]) -> None:
    video = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = Technical()(video, fps=24, segments=[(0, 1)])
    assert out.score.shape == shape[:1]
    out.score.sum().backward()
    assert video.grad is not None
    assert torch.isfinite(video.grad).all()


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_an_empty_picture_is_finite_and_bad(level: float) -> None:
    video = torch.full((1, 4, 3, 32, 32), level).requires_grad_()
    out = Technical()(video, fps=8)
    (slope,) = torch.autograd.grad(out.score.sum(), video)
    assert torch.isfinite(slope).all()
    assert out.score.item() < -1


def test_the_check_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reward", "check", "technical", "--clips", "4"])
    shown = capsys.readouterr()
    assert caught.value.code == 0, shown.err
    for row in ("licence", "frozen copy", "gradient", "batch of 1", "segments", "ms a video"):
        assert row in shown.out
    assert "FAILS" not in shown.out


def test_a_still_picture_costs_four() -> None:
    wide = (-1e9, 1e9)
    reward = Technical(TechnicalConfig(softness=wide, blocking=wide, flicker=wide, noise=wide))
    video = torch.rand(1, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).expand(-1, 5, -1, -1, -1)
    assert reward(video, fps=8).score.item() == pytest.approx(-4, abs=0.1)
