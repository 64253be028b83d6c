"""The shipped judges: they load, rank, find the bad window, and do not prefer a frozen video."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vpo_kit.errors import ModelError
from vpo_kit.rewards import degrade
from vpo_kit.rewards.degrade.drawn import Drawn
from vpo_kit.rewards.frames import FramesReward, pool
from vpo_kit.rewards.gold2 import Gold2
from vpo_kit.rewards.soften import Softness, soften
from vpo_kit.rewards.vqa import VQA, GoldVQA
from vpo_kit.sprites import world
from vpo_kit.sprites.judges import corpus, judge_report, train_vqa

SEED, NUM_CLIPS = 90_002, 8  # neither trained on nor the seed of the shipped report

# Lowest share of right pairs at severity 4 that passes; vqa.json and gold.json hold the figures.
FLOORS = dict.fromkeys(degrade.DEGRADATIONS, 0.9) | {"slow": 0.8, "shuffle": 0.8, "saturate": 0.8}


@pytest.fixture(scope="module")
def judges() -> dict[str, FramesReward]:
    return {"vqa": VQA(), "gold": GoldVQA(), "gold2": Gold2()}


@pytest.fixture(scope="module")
def clips() -> list[Drawn]:
    return [corpus.clip(SEED, i) for i in range(NUM_CLIPS)]


def score(judge: FramesReward, video: Tensor) -> Tensor:
    with torch.no_grad():
        return judge(video, fps=8).score


def softened(video: Tensor, i: int) -> Tensor:
    rng = np.random.default_rng([SEED, i])
    return soften(video, Softness.draw(rng, 0.5), rng)


@pytest.fixture(scope="module")
def clean(judges: dict[str, FramesReward], clips: list[Drawn]) -> dict[str, Tensor]:
    video = torch.stack([softened(clip.video, i) for i, clip in enumerate(clips)])
    return {name: score(judge, video) for name, judge in judges.items()}


def test_no_softness_is_the_video_itself() -> None:
    video = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(soften(video, Softness(), np.random.default_rng(0)), video)


@pytest.mark.parametrize("kind", degrade.DEGRADATIONS)
def test_clean_scores_above_degraded(
    judges: dict[str, FramesReward], clips: list[Drawn], clean: dict[str, Tensor], kind: str
) -> None:
    spoil, rngs = degrade.DEGRADATIONS[kind], [np.random.default_rng([SEED, 1, i]) for i in range(NUM_CLIPS)]
    spoilt = [softened(spoil(clip, (4, 12), 4, rng), i) for i, (clip, rng) in enumerate(zip(clips, rngs, strict=True))]
    for name in ("vqa", "gold"):
        right = (clean[name] > score(judges[name], torch.stack(spoilt))).float().mean()
        assert right >= FLOORS[kind], name


@pytest.mark.parametrize("kind", degrade.UNTAUGHT)
def test_the_second_held_out_judge_knows_other_flaws(
    judges: dict[str, FramesReward], clips: list[Drawn], clean: dict[str, Tensor], kind: str
) -> None:
    """On a corpus that it was not trained on."""
    spoil, rngs = degrade.UNTAUGHT[kind], [np.random.default_rng([SEED, 3, i]) for i in range(NUM_CLIPS)]
    spoilt = [softened(spoil(clip, (4, 12), 4, rng), i) for i, (clip, rng) in enumerate(zip(clips, rngs, strict=True))]
    assert (clean["gold2"] > score(judges["gold2"], torch.stack(spoilt))).float().mean() >= 0.85


def test_frozen_clips_do_not_win(judges: dict[str, FramesReward], clips: list[Drawn]) -> None:
    moving = torch.stack([softened(clip.video, i) for i, clip in enumerate(clips)])
    for name, judge in judges.items():
        frozen = score(judge, moving[:, 8:9].expand_as(moving))
        assert (frozen >= score(judge, moving)).float().mean() < 0.5, name


@pytest.mark.parametrize("kind", ["blur", "noise", "flicker", "vanish", "blocks", "jitter"])
def test_segments_point_at_the_bad_window(judges: dict[str, FramesReward], clips: list[Drawn], kind: str) -> None:
    segments = [(0, 4), (4, 8), (8, 12), (12, 17)]
    spoil, rngs = degrade.DEGRADATIONS[kind], [np.random.default_rng([SEED, 2, i]) for i in range(NUM_CLIPS)]
    video = torch.stack([spoil(clip, (8, 12), 4, rng) for clip, rng in zip(clips, rngs, strict=True)])
    for judge in judges.values():
        with torch.no_grad():
            parts = judge(video, fps=8, segments=segments).segments
        assert (parts.argmin(1) == 2).float().mean() >= 0.7


def test_a_batch_scores_as_its_clips(judges: dict[str, FramesReward], clips: list[Drawn]) -> None:
    video = torch.stack([clip.video for clip in clips[:4]])
    for judge in judges.values():
        alone = torch.cat([score(judge, one[None]) for one in video])
        torch.testing.assert_close(score(judge, video), alone, atol=1e-5, rtol=1e-5)


def test_gradient_reaches_saturated_pixels(judges: dict[str, FramesReward], clips: list[Drawn]) -> None:
    for judge in judges.values():
        video = (clips[0].video * 3.0)[None].requires_grad_()
        judge(video, fps=8).score.sum().backward()
        assert video.grad is not None
        assert torch.isfinite(video.grad).all()
        assert video.grad[video.detach() > 1].abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 2, 3, 32, 32), (2, 5, 3, 48, 200), (1, 33, 3, 96, 64)])
def test_any_length_and_size(judges: dict[str, FramesReward], shape: tuple[int, ...]) -> None:
    video = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for judge in judges.values():
        out = judge(video, fps=24, segments=[(0, 1), (0, shape[1])])
        assert out.score.shape == shape[:1]
        assert out.segments is not None
        assert out.segments.shape == (shape[0], 2)
        assert torch.isfinite(out.score).all()
        torch.testing.assert_close(out.segments[:, 1], out.score)


def test_pool_is_a_soft_minimum_of_any_length() -> None:
    assert pool(torch.full((5,), 2.0)).item() == pytest.approx(2.0)
    assert pool(torch.full((50,), 2.0)).item() == pytest.approx(2.0, abs=1e-5)
    one_bad = torch.tensor([0.0, 0.0, 0.0, -8.0])
    assert -8.0 < pool(one_bad).item() < one_bad.mean().item()


def test_the_judges_differ(judges: dict[str, FramesReward], clips: list[Drawn]) -> None:
    assert judges["vqa"].spec.for_training
    assert not judges["gold"].spec.for_training
    assert not judges["gold2"].spec.for_training
    assert judges["vqa"].judge.state_dict().keys() != judges["gold"].judge.state_dict().keys()
    video = torch.stack([clip.video for clip in clips[:4]])
    assert not torch.allclose(score(judges["vqa"], video), score(judges["gold"], video), atol=1e-2)


def test_bad_weights_are_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors")
    foreign = Path(corpus.__file__).with_name("gold.safetensors")
    for weights in (tmp_path / "missing.safetensors", broken, foreign):
        with pytest.raises(ModelError) as caught:
            VQA(VQA.Config(weights=weights))
        assert "\n" not in str(caught.value)


def test_training_writes_weights_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_vqa, "measure", lambda judge, attack, exam: {"num_clips": exam.num_clips})
    train_vqa.train("vqa", tmp_path, steps=2)
    first = (tmp_path / "vqa.safetensors").read_bytes()
    train_vqa.train("vqa", tmp_path, steps=2)  # nothing left to do: the checkpoint is the last step's
    assert (tmp_path / "vqa.safetensors").read_bytes() == first
    assert [json.loads(line)["step"] for line in (tmp_path / "vqa.jsonl").read_text().splitlines()] == [0, 1]
    VQA(VQA.Config(weights=tmp_path / "vqa.safetensors"))


@pytest.mark.slow
def test_the_report_is_complete() -> None:
    measured = judge_report.measure(VQA().judge, train_vqa.attacked, judge_report.Exam(num_clips=2))
    assert measured["by_kind"].keys() == degrade.DEGRADATIONS.keys()
    assert measured["world_flaws"].keys() == set(world.FLAWS)
    json.dumps(measured, allow_nan=False)


def test_corpus_and_degradations_repeat() -> None:
    one, two = corpus.clip(3, 5), corpus.clip(3, 5)
    assert torch.equal(one.video, two.video)
    for spoil in (degrade.DEGRADATIONS | degrade.UNTAUGHT).values():
        first, second = (spoil(one, (4, 9), 3, np.random.default_rng(1)) for _ in range(2))
        assert torch.equal(first, second)
        assert first.min() >= 0
        assert first.max() <= 1
        assert not torch.equal(first, one.video)
