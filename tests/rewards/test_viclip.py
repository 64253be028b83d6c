"""ViCLIP on a tiny random checkpoint in the published layout, against a second, plain forward pass."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.rewards import loading
from vpo_kit.rewards.viclip import ViCLIP, spread

PROMPTS = ["a photo of a cat", "a very long prompt " * 20]
SIDE = 56


def tower(name: str, width: int, **extra: tuple[int, ...]) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(len(name))
    shapes: dict[str, tuple[int, ...]] = dict(extra)
    for j in range(2):
        own = f"transformer.resblocks.{j}."
        shapes |= {own + "attn.in_proj_weight": (3 * width, width), own + "attn.in_proj_bias": (3 * width,)}
        shapes |= {own + "attn.out_proj.weight": (width, width), own + "attn.out_proj.bias": (width,)}
        shapes |= {own + "mlp.c_fc.weight": (4 * width, width), own + "mlp.c_fc.bias": (4 * width,)}
        shapes |= {own + "mlp.c_proj.weight": (width, 4 * width), own + "mlp.c_proj.bias": (width,)}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{own}{norm}.weight": (width,), f"{own}{norm}.bias": (width,)}
    state = {key: torch.randn(shape, generator=draw) for key, shape in shapes.items()}
    matrices = ("in_proj_weight", "out_proj.weight", "c_fc.weight", "c_proj.weight", "conv1.weight")
    for key, value in state.items():
        value *= math.prod(value.shape[1:]) ** -0.5 if key.endswith(matrices) else 0.3
        if "ln_" in key and key.endswith("weight"):
            value += 1
    return {f"{name}.{key}": value for key, value in state.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    width, outputs = 128, 24
    norms = {f"{name}.{part}": (width,) for name in ("ln_pre", "ln_post") for part in ("weight", "bias")}
    state = tower(
        "vision_encoder", width, **{"conv1.weight": (width, 3, 1, 14, 14)}, class_embedding=(width,),
        positional_embedding=(17, width), temporal_positional_embedding=(1, 8, width), proj=(width, outputs), **norms,
    )  # fmt: skip
    width = 64
    state |= tower(
        "text_encoder", width, **{"token_embedding.weight": (49408, width)}, positional_embedding=(32, width),
        text_projection=(width, outputs), **{"ln_final.weight": (width,), "ln_final.bias": (width,)},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("viclip") / "ViClip-InternVid-10M-FLT.pth"
    torch.save({"model": state | {"temp": torch.tensor(0.01)}}, path)
    return path


def clips(frames: int, batch: int = 2) -> Tensor:
    coarse = torch.rand(batch, 3, 4, 5, 6, generator=torch.Generator().manual_seed(frames))
    return functional.interpolate(coarse, (frames, 40, 70), mode="trilinear").transpose(1, 2).contiguous()


def plain_blocks(state: dict[str, Tensor], name: str, x: Tensor, causal: bool) -> Tensor:
    """``[N, C]`` through the blocks of one tower, head by head."""
    for j in range(2):
        own = f"{name}.transformer.resblocks.{j}."
        y = functional.layer_norm(x, x.shape[1:], state[own + "ln_1.weight"], state[own + "ln_1.bias"])
        q, k, v = (y @ state[own + "attn.in_proj_weight"].T + state[own + "attn.in_proj_bias"]).chunk(3, 1)
        heads = []
        for part in range(0, x.shape[1], 64):
            logits = q[:, part : part + 64] @ k[:, part : part + 64].T / 8
            if causal:
                logits = logits.masked_fill(torch.arange(len(x))[None] > torch.arange(len(x))[:, None], -math.inf)
            heads.append(logits.softmax(1) @ v[:, part : part + 64])
        x = x + torch.cat(heads, 1) @ state[own + "attn.out_proj.weight"].T + state[own + "attn.out_proj.bias"]
        y = functional.layer_norm(x, x.shape[1:], state[own + "ln_2.weight"], state[own + "ln_2.bias"])
        y = y @ state[own + "mlp.c_fc.weight"].T + state[own + "mlp.c_fc.bias"]
        y = y * torch.sigmoid(1.702 * y)
        x = x + y @ state[own + "mlp.c_proj.weight"].T + state[own + "mlp.c_proj.bias"]
    return x


def plain_score(state: dict[str, Tensor], clip: Tensor, tokens: list[int]) -> Tensor:
    """Cosine for 8 frames ``[8, 3, 40, 70]``."""
    see = {key.removeprefix("vision_encoder."): value for key, value in state.items()}
    small = functional.interpolate(clip, (SIDE, SIDE), mode="bilinear", antialias=False)
    small = (small - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    rows = [see["class_embedding"] + see["positional_embedding"][0]]
    for place in range(16):
        y, x = place // 4 * 14, place % 4 * 14
        for frame in range(8):
            patch = small[frame, :, y : y + 14, x : x + 14].flatten()
            token = see["conv1.weight"].flatten(1) @ patch
            rows.append(token + see["positional_embedding"][1 + place] + see["temporal_positional_embedding"][0, frame])
    x = torch.stack(rows)
    x = functional.layer_norm(x, x.shape[1:], see["ln_pre.weight"], see["ln_pre.bias"])
    x = plain_blocks(state, "vision_encoder", x, causal=False)[0]
    seen = functional.layer_norm(x, x.shape, see["ln_post.weight"], see["ln_post.bias"]) @ see["proj"]
    read = {key.removeprefix("text_encoder."): value for key, value in state.items()}
    y = read["token_embedding.weight"][tokens] + read["positional_embedding"][: len(tokens)]
    y = plain_blocks(state, "text_encoder", y, causal=True)[-1]
    said = functional.layer_norm(y, y.shape, read["ln_final.weight"], read["ln_final.bias"]) @ read["text_projection"]
    return seen @ said / seen.norm() / said.norm()


@torch.no_grad()
def test_the_plain_score(weights: Path) -> None:
    state, video = torch.load(weights, weights_only=True)["model"], clips(20)
    cat = [49406, 320, 1125, 539, 320, 2368, 49407]  # start, a, photo, of, a, cat, end: the numbers in CLIP's own docs
    chosen = video[0, [0, 2, 5, 7, 10, 12, 15, 17]]
    reward = ViCLIP(ViCLIP.Config(weights=weights))
    found = reward(video, PROMPTS, fps=8).score
    torch.testing.assert_close(found[0], plain_score(state, chosen, cat), atol=1e-5, rtol=1e-4)
    long = reward.tokenize(PROMPTS[1:])[0].tolist()
    assert len(long) == 32
    assert long[-1] == 49407
    chosen = video[1, [0, 2, 5, 7, 10, 12, 15, 17]]
    torch.testing.assert_close(found[1], plain_score(state, chosen, long), atol=1e-5, rtol=1e-4)


def test_the_gradient_reaches_the_frames(weights: Path) -> None:
    video = clips(8).mul_(1.4).sub_(0.2).requires_grad_()
    ViCLIP(ViCLIP.Config(weights=weights)).requires_grad_(False)(video, PROMPTS, fps=8).score.sum().backward()
    assert video.grad is not None
    assert torch.isfinite(video.grad).all()
    assert (video.grad.abs().amax((2, 3, 4)) > 0).all()
    assert (video.grad[video < 0] != 0).any()


@torch.no_grad()
def test_segments_and_batches(weights: Path) -> None:
    reward, video = ViCLIP(ViCLIP.Config(weights=weights, batch_size=2)), clips(24, batch=3)
    prompts = [*PROMPTS, "b"]
    found = reward(video, prompts, fps=8, segments=[(0, 24), (8, 20), (20, 22)])
    assert found.segments is not None
    assert found.segments.shape == (3, 3)
    assert torch.equal(found.segments[:, 0], found.score)
    torch.testing.assert_close(found.segments[:, 1], reward(video[:, 8:20], prompts, fps=8).score)
    torch.testing.assert_close(found.segments[:, 2], reward(video[:, 16:24], prompts, fps=8).score)  # 8 frames round it
    torch.testing.assert_close(found.score[2:], reward(video[2:], prompts[2:], fps=8).score)
    assert spread(3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    still = reward(video[:, :1].expand(-1, 8, -1, -1, -1), prompts, fps=8).score
    torch.testing.assert_close(reward(video[:, :1], prompts, fps=1).score, still)


def test_errors_are_one_line(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="judges a video by its prompt"):
        ViCLIP(ViCLIP.Config(weights=weights))(clips(8), None, fps=8)
    state = torch.load(weights, weights_only=True)["model"]
    state.pop("text_encoder.ln_final.bias")
    torch.save({"model": state}, tmp_path / "part.pth")
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    for settings, part in [
        ({}, "--set reward.weights=PATH"),
        ({"weights": str(tmp_path / "none.pth")}, "there is no file"),
        ({"weights": str(tmp_path / "part.pth")}, "ln_final.bias"),
        ({"weights": str(tmp_path / "bad.pth")}, "cannot read the weights"),
    ]:
        with pytest.raises(ModelError) as caught:
            loading.load(loading.plan("viclip", settings), torch.device("cpu"))
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)
