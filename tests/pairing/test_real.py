"""Pairs without a judge: a real clip against what the model makes in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import known
from tests.support.offline_member import Member
from tests.support.offline_run import make_set
from vpo_kit import losses, models
from vpo_kit.library import pair as command
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import check, store
from vpo_kit.pairing.guided import GuidedMaker
from vpo_kit.pairing.job import Task
from vpo_kit.pairing.real import RealMaker, box_mask
from vpo_kit.pairing.settings import PairSettings
from vpo_kit.video import write_video


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for i in range(3):
        write_video(folder / f"{i}.mp4", torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(i)), 8)
        (folder / f"{i}.txt").write_text(f"clip number {i}")
    return folder


def task(model: VideoModel, **settings: Any) -> Task:
    return Task(
        model=model, sampling=model.settings, encode=PromptCache(model), settings=PairSettings(**settings), seed=0
    )


@pytest.mark.parametrize("strategy", ["real", "local"])
def test_the_clip_wins(tiny_wan: Path, clips: Path, tmp_path: Path, strategy: str) -> None:
    command.make_pairs(
        tmp_path / "set", strategy=strategy, videos=clips, model=str(tiny_wan), label="reward:vqa",
        sampling={"batch_size": 2}, quiet=True,
    )  # fmt: skip
    found = store.read(tmp_path / "set")
    assert [(p.strategy, p.label, set(p.labels or ()), p.labeller) for p in found.pairs] == [
        (strategy, 1, {1}, strategy)
    ] * 3
    assert not check.pairs(found).wrong
    known.check(f"pairs/{strategy}", known.of_pairs(found))
    for pair in found.pairs:
        latents = store.read_latents(found.path / pair.latents)
        apart = (latents["first"] - latents["second"]).abs().amax(0)
        if strategy == "real":
            assert float(apart.min()) > 0
            assert "mask" not in latents
            continue
        mask = latents["mask"]
        assert 0 < float(mask.mean()) < 1
        assert torch.equal(apart > 0, mask > 0), "outside the mask nothing has changed, inside everything"


def test_a_full_mask_makes_what_a_guided_pair_makes(model: VideoModel, clips: Path) -> None:
    """The same noise from the same level gives the same latents, when nothing is held."""
    from vpo_kit.clips import read_folder

    found = read_folder(clips, model.settings).clips[:2]
    level = {"eta_min": 0.7, "eta_max": 0.7}
    guided = GuidedMaker(task(model, guided=level), found)
    local = RealMaker(task(model, local={"level": 0.7, "least": 1.0, "most": 1.0}), found, local=True)
    source = model.encode(torch.stack([clip.read() for clip in found]))
    guided._seeds = lambda item: (local._seed(item), 1)  # type: ignore[method-assign]
    with torch.no_grad():
        made, masks = local._made([0, 1], source)
        expected = guided.members([0, 1], source)[:2]
    assert masks is not None
    assert float(masks.min()) == 1
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


def test_a_box_keeps_within_its_shares() -> None:
    sizes = [box_mask((5, 8, 8), 0.4, 0.8, seed).sum((1, 2)).bool().sum().item() for seed in range(40)]
    assert min(sizes) == 2
    assert max(sizes) == 4
    assert float(box_mask((1, 1, 1), 0.1, 0.2, 0).sum()) == 1


def test_errors_count_inside_the_mask_alone() -> None:
    output, target = torch.randn(2, 1, 3, 4, 6, 6).unbind(0)
    mask = box_mask((4, 6, 6), 0.5, 0.5, 3)[None]
    found = losses.frame_errors(output, target, losses.mask_weight(mask)).mean(1)
    plain = (output - target).pow(2).mean(1)[mask > 0].mean()
    assert found.item() == pytest.approx(float(plain), rel=1e-5)
    full = losses.frame_errors(output, target, losses.mask_weight(torch.ones(1, 4, 6, 6)))
    torch.testing.assert_close(full, losses.frame_errors(output, target))


@pytest.mark.parametrize("method", ["structural", "dense", "kto", "mapo"])
def test_a_set_with_full_masks_trains_as_one_without(model: VideoModel, tmp_path: Path, method: str) -> None:
    path = make_set(tmp_path / "set")
    losses_seen = []
    for masked in (False, True):
        if masked:
            for file in (path / "latents").iterdir():
                latents = store.read_latents(file)
                store.write_latents(file, {**latents, "mask": torch.ones(latents["first"].shape[1:])})
        member = Member(model)
        try:
            output = member.step(path, method, count=4)
            assert output.loss is not None
            losses_seen.append(output.loss.detach())
        finally:
            member.close()
    torch.testing.assert_close(*losses_seen)
