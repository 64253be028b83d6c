"""FAST-VQA and DOVER on tiny random checkpoints in the published layout, against a second, plain forward pass."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from vpo_kit.errors import ModelError
from vpo_kit.rewards import loading
from vpo_kit.rewards.dover import Dover
from vpo_kit.rewards.fastvqa import VARIANTS, FastVQA
from vpo_kit.rewards.parts.fragments import FragmentSampling, cut_fragments, judged, widened

State = dict[str, Tensor]
SHIFTED = {"fastervqa": 0.14759505, "fastvqa": -0.110198185, "fastvqa-m": 0.023889644}  # so that no sigmoid saturates


def swin_state(window: tuple[int, int, int], patch: int, depths: tuple[int, ...], gated: bool) -> State:
    """A random Video Swin under the published names; the last stage has no fragment table, as published."""
    draw, width, heads = torch.Generator().manual_seed(0), 8, 2
    rows = math.prod(2 * n - 1 for n in window)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw) * (0.7 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5)

    def norm(name: str, size: int) -> State:
        return {f"{name}.weight": 1 + 0.3 * random(size), f"{name}.bias": 0.3 * random(size)}

    def layer(name: str, outputs: int, inputs: int) -> State:
        return {f"{name}.weight": random(outputs, inputs), f"{name}.bias": 0.3 * random(outputs)}

    state = {"patch_embed.proj.weight": random(width, 3, 2, patch, patch), "patch_embed.proj.bias": random(width)}
    state |= norm("patch_embed.norm", width)
    for i, depth in enumerate(depths):
        for j in range(depth):
            own = f"layers.{i}.blocks.{j}."
            state |= norm(own + "norm1", width) | norm(own + "norm2", width)
            state[own + "attn.relative_position_bias_table"] = torch.randn(rows, heads, generator=draw)
            if gated and i + 1 < len(depths):
                state[own + "attn.fragment_position_bias_table"] = torch.randn(rows, heads, generator=draw)
            size = math.prod(window)
            state[own + "attn.relative_position_index"] = torch.zeros(size, size, dtype=torch.long)
            state |= layer(own + "attn.qkv", 3 * width, width) | layer(own + "attn.proj", width, width)
            state |= layer(own + "mlp.fc1", 4 * width, width) | layer(own + "mlp.fc2", width, 4 * width)
        if i + 1 < len(depths):
            state |= norm(f"layers.{i}.downsample.norm", 4 * width)
            state[f"layers.{i}.downsample.reduction.weight"] = random(2 * width, 4 * width)
            width *= 2
    return state | norm("norm", width)


def head_state(width: int, offset: float) -> State:
    """A head whose answers stay within a deviation or so of `offset`."""
    draw = torch.Generator().manual_seed(1)
    return {
        "fc_hid.weight": torch.randn(6, width, 1, 1, 1, generator=draw) * width**-0.5,
        "fc_hid.bias": torch.randn(6, generator=draw),
        "fc_last.weight": torch.randn(1, 6, 1, 1, 1, generator=draw) * 0.02,
        "fc_last.bias": torch.full((1,), offset),
    }


def prefixed(name: str, state: State) -> State:
    return {f"{name}.{key}": value for key, value in state.items()}


def plain_swin(state: State, clip: Tensor, window: tuple[int, int, int], depths: tuple[int, ...]) -> Tensor:
    """One clip ``[3, F, H, W]`` to features ``[T, h, w, C]``, window by window and pair by pair."""

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], state[name + ".weight"], state[name + ".bias"])

    def layer(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, state[name + ".weight"], state.get(name + ".bias"))

    kernel = state["patch_embed.proj.weight"]
    x = functional.conv3d(clip[None], kernel, state["patch_embed.proj.bias"], kernel.shape[2:])[0].permute(1, 2, 3, 0)
    x = norm("patch_embed.norm", x)
    offsets = torch.tensor(list(itertools.product(*map(range, window))))
    apart = offsets[:, None] - offsets[None] + torch.tensor(window) - 1
    rows = (apart[..., 0] * (2 * window[1] - 1) + apart[..., 1]) * (2 * window[2] - 1) + apart[..., 2]
    for i, depth in enumerate(depths):
        size = torch.tensor(x.shape[:3])
        for j in range(depth):
            own = f"layers.{i}.blocks.{j}."
            shift = torch.tensor([n // 2 if j % 2 and s > n else 0 for s, n in zip(size, window, strict=True)])
            y, new = norm(own + "norm1", x), torch.zeros_like(x)
            for corner in itertools.product(*(range(0, int(s), n) for s, n in zip(size, window, strict=True))):
                moved = torch.tensor(corner) + offsets + shift
                place = tuple((moved % size).T)
                fragment = (moved % size)[:, 1:] * torch.tensor(window[1:]) // size[1:]
                gate = (fragment[:, None] - fragment[None]).abs().sum(-1)[..., None]
                bias = state[own + "attn.relative_position_bias_table"][rows]
                if own + "attn.fragment_position_bias_table" in state:
                    bias = gate * bias + (1 - gate) * state[own + "attn.fragment_position_bias_table"][rows]
                wrapped = moved >= size
                bias = bias.masked_fill((wrapped[:, None] != wrapped[None]).any(-1)[..., None], -math.inf)
                q, k, v = layer(own + "attn.qkv", y[place]).view(len(offsets), 3, bias.shape[-1], -1).unbind(1)
                logits = torch.einsum("ihc,jhc->ijh", q, k) * q.shape[-1] ** -0.5 + bias
                mixed = torch.einsum("ijh,jhc->ihc", logits.softmax(1), v)
                new[place] = layer(own + "attn.proj", mixed.flatten(1))
            x = x + new
            x = x + layer(own + "mlp.fc2", functional.gelu(layer(own + "mlp.fc1", norm(own + "norm2", x))))
        if i + 1 < len(depths):
            x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
            x = layer(f"layers.{i}.downsample.reduction", norm(f"layers.{i}.downsample.norm", x))
    return norm("norm", x)


def plain_convnext(state: State, clip: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """One clip ``[3, F, H, W]`` to features ``[T, h, w, C]``."""

    def norm(name: str, x: Tensor) -> Tensor:  # over the channels, which come first here
        centred = x - x.mean(0)
        y = centred / (centred.square().mean(0) + 1e-6).sqrt()
        return y * state[name + ".weight"].view(-1, 1, 1, 1) + state[name + ".bias"].view(-1, 1, 1, 1)

    def convolve(name: str, x: Tensor, **kind: Any) -> Tensor:
        return functional.conv3d(x[None], state[name + ".weight"], state[name + ".bias"], **kind)[0]

    x = clip
    for i, count in enumerate(blocks):
        step = f"downsample_layers.{i}."
        if i:
            x = convolve(step + "1", norm(step + "0", x), stride=(1, 2, 2))
        else:
            x = norm(step + "1", convolve(step + "0", x, stride=(2, 4, 4)))
        for j in range(count):
            own = f"stages.{i}.{j}."
            reach = state[own + "dwconv.weight"].shape[2]
            y = norm(own + "norm", convolve(own + "dwconv", x, padding=(reach // 2, 3, 3), groups=len(x)))
            y = torch.einsum("oc,cthw->othw", state[own + "pwconv1.weight"], y)
            y = functional.gelu(y + state[own + "pwconv1.bias"].view(-1, 1, 1, 1))
            y = torch.einsum("oc,cthw->othw", state[own + "pwconv2.weight"], y)
            x = x + state[own + "gamma"].view(-1, 1, 1, 1) * (y + state[own + "pwconv2.bias"].view(-1, 1, 1, 1))
    return norm("norm", x).permute(1, 2, 3, 0)


def plain_head(state: State, features: Tensor) -> Tensor:
    hidden = functional.gelu(features @ state["fc_hid.weight"].flatten(1).T + state["fc_hid.bias"])
    return (hidden @ state["fc_last.weight"].flatten(1).T + state["fc_last.bias"])[..., 0]


def plain_frames(count: int, parts: int, length: int, draw: torch.Generator) -> list[int]:
    room = count // parts - 2 * length
    late = torch.randint(room, (parts,), generator=draw).tolist() if room > 0 else [0] * parts
    return [(count * i // parts + late[i] + 2 * k) % count for i in range(parts) for k in range(length)]


def plain_fragments(video: Tensor, frames: list[int], grid: int, aligned: int, draw: torch.Generator) -> Tensor:
    found = torch.zeros(len(frames), 3, 32 * grid, 32 * grid)
    high, wide = video.shape[-2] // grid, video.shape[-1] // grid
    shape = (grid, grid, len(frames) // aligned)
    down = torch.randint(max(1, high - 32), shape, generator=draw)
    across = torch.randint(max(1, wide - 32), shape, generator=draw)
    for t, i, j in itertools.product(range(len(frames)), range(grid), range(grid)):
        y = high * i + int(down[i, j, t // aligned])
        x = wide * j + int(across[i, j, t // aligned])
        found[t, :, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32] = video[frames[t], :, y : y + 32, x : x + 32]
    return found


def plain_normal(frames: Tensor) -> Tensor:
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    return (255 * frames - mean) / torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


SHAPES: dict[str, tuple[int, tuple[int, ...]]] = {
    "fastervqa": (16, (2, 2)),
    "fastvqa": (16, (2, 1)),
    "fastvqa-m": (8, (2, 2)),
}


def fastvqa_file(folder: Path, variant: str, patch: int, depths: tuple[int, ...]) -> tuple[Path, State]:
    window = VARIANTS[variant].window
    swin = swin_state(window, patch, depths, gated=variant != "fastvqa-m")
    head = head_state(8 * 2 ** (len(depths) - 1), SHIFTED[variant])
    state = prefixed("fragments_backbone", swin) | prefixed("vqa_head", head)
    path = folder / VARIANTS[variant].file
    torch.save({"state_dict": state}, path)
    return path, state


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> FastVQA:
    path, _ = fastvqa_file(tmp_path_factory.mktemp("m"), "fastvqa-m", *SHAPES["fastvqa-m"])
    return FastVQA(FastVQA.Config(weights=path, variant="fastvqa-m"))


@pytest.fixture(scope="module")
def dover_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = prefixed("technical_backbone", swin_state((8, 7, 7), 16, (2, 2), gated=True))
    state |= prefixed("technical_head", head_state(16, 0.1107)) | prefixed("aesthetic_head", head_state(8, -0.08285))
    state |= prefixed("aesthetic_backbone", convnext_state())
    path = tmp_path_factory.mktemp("dover") / "DOVER.pth"
    torch.save(state, path)
    return path


BLOCKS, WIDTHS = (1, 3, 1, 1), (4, 6, 6, 8)


def convnext_state() -> State:
    draw, state, before = torch.Generator().manual_seed(2), {}, 3

    def layer(name: str, *shape: int) -> None:
        state[name + ".weight"] = torch.randn(shape, generator=draw) * math.prod(shape[1:]) ** -0.5
        state[name + ".bias"] = torch.randn(shape[0], generator=draw) * 0.3

    def norm(name: str, size: int) -> None:
        state[name + ".weight"] = 1 + 0.3 * torch.randn(size, generator=draw)
        state[name + ".bias"] = 0.3 * torch.randn(size, generator=draw)

    for i, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
        layer(f"downsample_layers.{i}.{1 if i else 0}", width, before, *((1, 2, 2) if i else (2, 4, 4)))
        norm(f"downsample_layers.{i}.{0 if i else 1}", before if i else width)
        for j in range(count):
            layer(f"stages.{i}.{j}.dwconv", width, 1, (1, 3, 1)[j % 3], 7, 7)
            norm(f"stages.{i}.{j}.norm", width)
            layer(f"stages.{i}.{j}.pwconv1", 4 * width, width)
            layer(f"stages.{i}.{j}.pwconv2", width, 4 * width)
            state[f"stages.{i}.{j}.gamma"] = torch.randn(width, generator=draw)
        before = width
    norm("norm", before)
    return state


def clip(frames: int, height: int, width: int, batch: int = 1) -> Tensor:
    """Noise that changes slowly in time, so that scores differ between places and times."""
    draw = torch.Generator().manual_seed(frames)
    coarse = torch.rand(batch, 3, 4, 5, 6, generator=draw)
    return functional.interpolate(coarse, (frames, height, width), mode="trilinear").transpose(1, 2).contiguous()


@pytest.mark.parametrize(
    ("variant", "patch", "depths"),
    [("fastervqa", 4, (1, 1, 2, 2)), ("fastvqa", *SHAPES["fastvqa"]), ("fastvqa-m", *SHAPES["fastvqa-m"])],
)
@torch.no_grad()
def test_fastvqa_gives_the_plain_score(tmp_path: Path, variant: str, patch: int, depths: tuple[int, ...]) -> None:
    path, state = fastvqa_file(tmp_path, variant, patch, depths)
    kind = VARIANTS[variant]
    video = clip(150 if variant == "fastervqa" else 70, 240, 300)
    draw = torch.Generator().manual_seed(7)
    frames = plain_frames(video.shape[1], kind.sampling.parts, kind.sampling.length, draw)
    seen = plain_normal(plain_fragments(video[0], frames, kind.grid, kind.aligned, draw))
    clips = seen.split(16 if variant == "fastvqa-m" else 32)
    swin = {key.removeprefix("fragments_backbone."): value for key, value in state.items()}
    head = {key.removeprefix("vqa_head."): value for key, value in state.items()}
    features = torch.stack([plain_swin(swin, one.transpose(0, 1), kind.window, depths) for one in clips])
    reward = FastVQA(FastVQA.Config(weights=path, variant=variant, seed=7))
    torch.testing.assert_close(reward.backbone(torch.stack(clips).transpose(1, 2)), features, atol=1e-4, rtol=1e-4)
    raw = plain_head(head, features).mean()
    found = reward(video, fps=24)
    torch.testing.assert_close(found.components["raw"][0], raw, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(found.score[0], torch.sigmoid((raw - kind.mean) / kind.deviation), atol=1e-4, rtol=0)
    assert 0.01 < found.score < 0.99, "a saturated score would hide differences"


@torch.no_grad()
def test_dover_gives_the_plain_score(dover_file: Path) -> None:
    state, video = torch.load(dover_file, weights_only=True), clip(150, 240, 300)
    part = {
        name: {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(name)}
        for name in ("technical_backbone", "technical_head", "aesthetic_backbone", "aesthetic_head")
    }
    draw = torch.Generator().manual_seed(0)
    seen = plain_normal(plain_fragments(video[0], plain_frames(150, 3, 32, draw), 7, 32, draw))
    maps = [plain_swin(part["technical_backbone"], one.transpose(0, 1), (8, 7, 7), (2, 2)) for one in seen.split(32)]
    technical = plain_head(part["technical_head"], torch.stack(maps)).mean()
    frames = video[0][plain_frames(150, 32, 1, torch.Generator().manual_seed(0))]
    whole = plain_normal(functional.interpolate(frames, (224, 224), mode="bilinear", antialias=False))
    features = plain_convnext(part["aesthetic_backbone"], whole.transpose(0, 1), BLOCKS)
    aesthetic = plain_head(part["aesthetic_head"], features).mean()
    reward = Dover(Dover.Config(weights=dover_file))
    torch.testing.assert_close(reward.aesthetic(whole.transpose(0, 1)[None])[0], features, atol=1e-4, rtol=1e-4)
    found = reward(video, fps=24)
    torch.testing.assert_close(found.components["technical"][0], technical, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(found.components["aesthetic"][0], aesthetic, atol=2e-6, rtol=1e-5)
    logit = 0.6104 * (technical - 0.1107) / 0.07355 + 0.3896 * (aesthetic + 0.08285) / 0.03774
    torch.testing.assert_close(found.score[0], torch.sigmoid(logit), atol=1e-4, rtol=0)


def test_dover_says_that_it_is_not_for_commerce(dover_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "NON-COMMERCIAL" in Dover.spec.licence
    reward = Dover(Dover.Config(weights=dover_file))
    assert capfd.readouterr().err.count("NON-COMMERCIAL") == 1
    reward(clip(8, 32, 32), fps=8)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("name", ["fastvqa", "dover"])
def test_the_gradient_reaches_every_kind_of_pixel(name: str, small: FastVQA, dover_file: Path) -> None:
    reward = small if name == "fastvqa" else Dover(Dover.Config(weights=dover_file))
    video = clip(12, 40, 48).mul_(1.4).sub_(0.2).requires_grad_()  # some pixels beyond [0, 1]
    reward.requires_grad_(False)(video, fps=8).score.sum().backward()
    grad = video.grad
    assert grad is not None
    assert torch.isfinite(grad).all()
    assert (grad.abs().amax((0, 2, 3, 4)) > 0).all(), "a frame without gradient"
    assert (grad[video < 0] != 0).any()


@torch.no_grad()
def test_a_video_scores_alike_in_any_batch(small: FastVQA, dover_file: Path) -> None:
    for reward, count in ((small, 3), (Dover(Dover.Config(weights=dover_file)), 2)):
        video = clip(20, 64, 80, batch=count)
        together = reward(video, fps=8, segments=[(0, 10), (10, 20)])
        last = reward(video[-1:], fps=8, segments=[(0, 10), (10, 20)])
        assert together.segments is not None
        assert last.segments is not None
        assert together.segments.shape == (count, 2)
        torch.testing.assert_close(together.score[-1:], last.score)
        torch.testing.assert_close(together.segments[-1:], last.segments)
        assert together.score.unique().numel() == count


def test_a_single_frame_is_judged_as_a_still_clip(small: FastVQA, dover_file: Path) -> None:
    for reward in (small, Dover(Dover.Config(weights=dover_file))):
        one = clip(1, 64, 80)
        torch.testing.assert_close(reward(one, fps=1).score, reward(one.expand(-1, 40, -1, -1, -1), fps=8).score)


def test_the_whole_clip_as_a_segment_is_the_clip(small: FastVQA, dover_file: Path) -> None:
    for reward in (small, Dover(Dover.Config(weights=dover_file))):
        found = reward(clip(20, 64, 80), fps=8, segments=[(0, 20), (0, 7)])
        assert found.segments is not None
        assert torch.equal(found.segments[:, 0], found.score)
        assert not torch.equal(found.segments[:, 1], found.score)


def test_a_segment_sees_its_context_and_nothing_beyond(small: FastVQA) -> None:
    video, segment = clip(120, 32, 32), [(40, 48)]  # M looks at 32 frames: 28 to 59
    before = small(video, fps=24, segments=segment).segments
    far, near = video.clone(), video.clone()
    far[:, :28] = far[:, 60:] = 0.5
    near[:, 44] = 0.5
    assert torch.equal(small(far, fps=24, segments=segment).segments, before)
    assert not torch.equal(small(near, fps=24, segments=segment).segments, before)


def test_a_segment_reads_its_own_part_of_the_map() -> None:
    def brightness(video: Tensor, frames: Tensor, generator: torch.Generator) -> Tensor:
        return video[frames].view(-1, 2, 3).mean((1, 2))

    ramp = torch.arange(80.0).view(80, 1, 1, 1).expand(80, 3, 1, 1)
    for sampling in (FragmentSampling(4, 16, 2, 16), FragmentSampling(8, 4, 2, 32), FragmentSampling(32, 1, 2, 32)):
        found = judged(ramp, [(a, a + 8) for a in range(0, 80, 8)], sampling, brightness, 0)
        assert ((found - torch.arange(3.5, 80, 8)).abs() < 3).all()


def test_the_seed_alone_decides_the_fragments(small: FastVQA, tmp_path: Path) -> None:
    path, _ = fastvqa_file(tmp_path, "fastvqa-m", *SHAPES["fastvqa-m"])
    video = clip(40, 200, 220)
    again, other = (FastVQA(FastVQA.Config(weights=path, variant="fastvqa-m", seed=seed)) for seed in (0, 1))
    assert torch.equal(small(video, fps=8).score, small(video, fps=30).score)
    assert torch.equal(small(video, fps=8).score, again(video, fps=8).score)
    assert not torch.equal(small(video, fps=8).score, other(video, fps=8).score)


def test_frames_are_spread_over_the_clip() -> None:
    draw = torch.Generator()
    # a stretch of 8 frames and a run of 4, every second frame: no room to move
    assert FragmentSampling(8, 4, 2, 32).frames(64, draw).tolist() == list(range(0, 64, 2))
    # 16 frames asked of 10: counted on from the first
    assert FragmentSampling(2, 8, 2, 8).frames(10, draw).tolist() == [0, 2, 4, 6, 8, 0, 2, 4, 5, 7, 9, 1, 3, 5, 7, 9]
    # fewer frames than stretches: still to the end
    assert FragmentSampling(32, 1, 2, 32).frames(16, draw).tolist() == sorted([*range(16)] * 2)
    for _ in range(20):
        found = FragmentSampling(4, 32, 2, 32).frames(300, draw).view(4, 32)
        assert ((found[:, 0] >= torch.arange(0, 300, 75)) & (found[:, -1] < torch.arange(75, 301, 75))).all()


def test_fragments_lie_where_the_offsets_say() -> None:
    video, frames = torch.rand(20, 3, 250, 301), list(range(0, 16))
    found, plain = (torch.Generator().manual_seed(3) for _ in range(2))
    cut = cut_fragments(video, torch.tensor(frames), grid=7, aligned=8, generator=found)
    assert torch.equal(cut, plain_fragments(video, frames, 7, 8, plain))


def test_fragments_of_a_frame_that_just_fits_are_the_frame() -> None:
    video = torch.rand(8, 3, 224, 224)
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(cut_fragments(video, torch.arange(8), grid=7, aligned=4, generator=draw), video)


def test_fragments_of_a_small_frame_show_all_of_it() -> None:
    """The published code lays the cells out by the size before the enlargement, and would never see the right half."""
    video = torch.zeros(1, 3, 64, 64)
    video[..., 32:] = 1
    seen = cut_fragments(video, torch.zeros(1, dtype=torch.long), grid=4, aligned=1, generator=torch.Generator())
    assert seen.shape == (1, 3, 128, 128)
    assert 0.4 < seen.mean() < 0.6


@pytest.mark.parametrize(
    ("segment", "least", "count", "expected"),
    [
        ((10, 12), 8, 40, (7, 15)), ((0, 2), 8, 40, (0, 8)), ((38, 40), 8, 40, (32, 40)), ((3, 30), 8, 40, (3, 30)),
        ((1, 2), 8, 5, (0, 5)),
    ],
)  # fmt: skip
def test_context(segment: tuple[int, int], least: int, count: int, expected: tuple[int, int]) -> None:
    assert widened(segment, least, count) == expected


def problem(name: str, **settings: Any) -> str:
    """The one line that a user reads."""
    with pytest.raises(ModelError) as caught:
        loading.load(loading.plan(name, settings), torch.device("cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_wrong_files_are_one_line(tmp_path: Path, dover_file: Path) -> None:
    missing = problem("fastvqa")
    for part in ("FAST_VQA_3D_1_1.pth", "0.1 GB", "MIT", "TimothyHTimothy/FAST-VQA", "--set reward.weights=PATH"):
        assert part in missing
    assert "FAST_VQA_M_1_4.pth" in problem("fastvqa", variant="fastvqa-m")
    assert "there is no file" in problem("fastvqa", weights=str(tmp_path / "none.pth"))
    assert all(part in problem("dover") for part in ("DOVER.pth", "NON-COMMERCIAL", "--set reward.weights=PATH"))
    assert "fragments" not in (wrong := problem("fastvqa", weights=str(dover_file)))
    assert "does not hold the weights of fastervqa" in wrong
    path, state = fastvqa_file(tmp_path, "fastvqa-m", *SHAPES["fastvqa-m"])
    assert "set reward.variant" in problem("fastvqa", weights=str(path))
    state.pop("fragments_backbone.norm.bias")
    save_file(state, tmp_path / "part.safetensors")
    assert "norm.bias" in problem("fastvqa", weights=str(tmp_path / "part.safetensors"), variant="fastvqa-m")


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path, state = fastvqa_file(tmp_path, "fastvqa-m", *SHAPES["fastvqa-m"])
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"no weights at all"):
        path.write_bytes(damage)
        assert "cannot read the weights" in problem("fastvqa", weights=str(path), variant="fastvqa-m")
    torch.save({"state_dict": list(state)}, path)
    assert "does not hold weights" in problem("fastvqa", weights=str(path), variant="fastvqa-m")
    torch.save({"state_dict": state, "code": Path}, path)  # more than data: never unpickled
    assert "cannot read the weights" in problem("fastvqa", weights=str(path), variant="fastvqa-m")
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 40)
    assert "cannot read the weights" in problem("dover", weights=str(tmp_path / "bad.safetensors"))


def test_safetensors_do_as_well(tmp_path: Path, small: FastVQA) -> None:
    _, state = fastvqa_file(tmp_path, "fastvqa-m", *SHAPES["fastvqa-m"])
    save_file(state, tmp_path / "m.safetensors")
    settings = {"weights": str(tmp_path / "m.safetensors"), "variant": "fastvqa-m"}
    reward = loading.load(loading.plan("fastvqa", settings), torch.device("cpu")).parts[0]
    video = clip(20, 64, 80)
    assert torch.equal(reward(video, fps=8).score, small(video, fps=8).score)
