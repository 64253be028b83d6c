"""Rewards of single frames: tiny random networks in the published layouts, read by the production path.

Each score is compared with the same network asked plainly: open_clip's or transformers' own functions, and pictures
prepared with PIL or torchvision.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from vpo_kit.cli import main
from vpo_kit.config import validate
from vpo_kit.errors import ConfigError, ModelError, VpoError
from vpo_kit.registry import REWARDS
from vpo_kit.rewards.aesthetic import Aesthetic, AestheticConfig
from vpo_kit.rewards.base import Reward, RewardSpec
from vpo_kit.rewards.clip import ClipConfig, ClipScore, HPSConfig, HPSv2, HPSv21
from vpo_kit.rewards.images import CLIP_MEAN, CLIP_STD, ImageReward, ImageRewardConfig, fit, spread
from vpo_kit.rewards.parts.hub import HubFile
from vpo_kit.rewards.pickscore import PickScore, PickScoreConfig

open_clip = pytest.importorskip("open_clip")

SIDE, WIDTH, TINY = 32, 32, "tiny-clip-for-tests"
PROMPTS = ["a red circle moving right", "a dog, running; \u00fcber-fast!"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


VIDEO = torch.rand(2, 5, 3, SIDE, SIDE, generator=generator())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint ``{"state_dict": open_clip keys}`` of an architecture that open_clip is told about."""
    folder = tmp_path_factory.mktemp("open_clip")
    layout = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (folder / f"{TINY}.json").write_text(json.dumps(layout))
    deeper = layout | {"vision_cfg": {**layout["vision_cfg"], "layers": 3}}  # type: ignore[dict-item]
    (folder / f"{TINY}-deeper.json").write_text(json.dumps(deeper))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    network = open_clip.create_model(TINY)
    with torch.no_grad():
        for parameter in network.parameters():  # at initialisation all pictures look alike to it
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(1)))
    path = folder / "tiny.pt"
    torch.save({"epoch": 3, "name": "tiny", "state_dict": network.state_dict()}, path)
    return path


def plain(path: Path) -> Any:
    """The network as open_clip loads it."""
    network = open_clip.create_model(TINY, str(path))
    return network.eval()


@torch.no_grad()
def cosine(network: Any, pixels: Tensor, prompt: str) -> Tensor:
    """Of prepared pictures ``[N, 3, side, side]`` with one prompt."""
    image = network.encode_image(pixels)
    text = network.encode_text(open_clip.get_tokenizer(TINY)([prompt]))
    return (image @ text.T)[:, 0] / (image.norm(dim=1) * text.norm(dim=1))


def normalised(pixels: Tensor) -> Tensor:
    return tv.normalize(pixels, list(CLIP_MEAN), list(CLIP_STD))


# how frames are chosen and pooled


class Brightness(ImageReward):
    """The mean of each frame, plus a hundred where its prompt begins with b."""

    spec = RewardSpec(
        name="brightness",
        licence="none",
        source="closed form",
        scale="0 to 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
    )

    def score_frames(self, frames: Tensor, prompts: Sequence[str] | None) -> Tensor:
        assert prompts is not None
        assert len(prompts) == len(frames) <= 3
        return frames.mean((1, 2, 3)) + torch.tensor([100.0 * p.startswith("b") for p in prompts])


def test_spread() -> None:
    assert spread(17, 0) == spread(17, 17) == spread(17, 40) == list(range(17))
    assert spread(16, 4) == [2, 6, 10, 14]
    assert spread(17, 1) == [8]
    for count in range(1, 40):
        for most in range(1, count + 1):
            assert len(set(spread(count, most))) == most


def test_scores_are_means_over_the_frames_used() -> None:
    video = torch.rand(2, 16, 3, 4, 4, generator=generator())
    each = video.mean((2, 3, 4)) + torch.tensor([[0.0], [100.0]])
    out = Brightness(ImageRewardConfig(frames=4, chunk=3))(
        video, ["a", "b"], fps=8, segments=[(0, 8), (3, 5), (6, 7), (0, 16)]
    )
    torch.testing.assert_close(out.score, each[:, [2, 6, 10, 14]].mean(1))
    assert out.segments is not None
    wanted = [each[:, [2, 6]].mean(1), each[:, 4], each[:, 6], out.score]  # (3, 5) holds no used frame: its middle
    torch.testing.assert_close(out.segments, torch.stack(wanted, 1))
    every = Brightness(ImageRewardConfig(frames=0, chunk=3))(video, ["a", "b"], fps=8)
    torch.testing.assert_close(every.score, each.mean(1))
    torch.testing.assert_close(Brightness()(video[:, :1], ["a", "b"], fps=1).score, each[:, 0])
    with pytest.raises(ConfigError, match="give prompts"):
        Brightness()(video, None, fps=8)


# how frames are brought to size


def photograph(height: int, width: int) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def padded_by_pil(picture: Image.Image, side: int) -> Image.Image:
    """HPSv2's way: the longer side fits, black around."""
    scale = side / max(picture.size)
    width, height = (round(n * scale) for n in picture.size)
    small = picture.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side))
    square.paste(small, ((side - width) // 2, (side - height) // 2))
    return square


@pytest.mark.parametrize(("height", "width"), [(96, 160), (70, 45), (20, 20), (64, 64), (32, 32)])
def test_padding_is_what_pil_does(height: int, width: int) -> None:
    picture = photograph(height, width)
    found = fit(tv.to_image(picture).float()[None] / 255, (SIDE, SIDE), "pad")
    expected = tv.to_image(padded_by_pil(picture, SIDE)).float() / 255
    difference = (found[0] - expected).abs()  # PIL rounds and clips to bytes after each of two passes
    assert difference.mean() < 0.4 / 255
    assert difference.max() < 4 / 255


@pytest.mark.parametrize(("height", "width"), [(96, 160), (71, 45), (20, 26), (64, 64)])
def test_cropping_and_squashing_are_what_torchvision_does(height: int, width: int) -> None:
    picture = tv.to_image(photograph(height, width)).float()[None] / 255
    bicubic = InterpolationMode.BICUBIC
    squashed = tv.resize(picture, [SIDE, SIDE], bicubic, antialias=True).clamp(0, 1)
    torch.testing.assert_close(fit(picture, (SIDE, SIDE), "squash"), squashed, atol=1e-5, rtol=0)
    small = tv.resize(picture, [SIDE], bicubic, antialias=True).clamp(0, 1)
    top, left = ((n - SIDE) // 2 for n in small.shape[-2:])
    cropped = small[..., top : top + SIDE, left : left + SIDE]
    torch.testing.assert_close(fit(picture, (SIDE, SIDE), "crop"), cropped, atol=1e-5, rtol=0)


@pytest.mark.parametrize("resize", ["pad", "squash", "crop"])
def test_resizing_has_the_right_gradient(resize: Any) -> None:
    frames = (0.3 + 0.4 * torch.rand(1, 3, 10, 7, generator=generator(), dtype=torch.float64)).requires_grad_()
    torch.autograd.gradcheck(lambda x: fit(x, (6, 6), resize), (frames,))


# HPSv2


@pytest.mark.parametrize("kind", [HPSv2, HPSv21])
def test_hpsv2_is_the_cosine_that_open_clip_finds(tiny: Path, kind: type[HPSv2]) -> None:
    reward = kind(HPSConfig(weights=tiny, model=TINY))
    with torch.no_grad():
        out = reward(VIDEO, PROMPTS, fps=8, segments=[(0, 2), (2, 5)])
    pairs = zip(VIDEO, PROMPTS, strict=True)
    expected = torch.stack([cosine(plain(tiny), normalised(video), prompt) for video, prompt in pairs])
    torch.testing.assert_close(out.score, expected.mean(1), atol=1e-6, rtol=1e-5)
    assert out.segments is not None
    torch.testing.assert_close(out.segments[:, 0], expected[:, :2].mean(1), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(expected[0], expected[0, 0].expand(5), atol=1e-3)  # frames do differ


def test_the_default_architecture_has_the_published_tensors() -> None:
    with torch.device("meta"):
        network = open_clip.CLIP(**open_clip.get_model_config(HPSConfig().model))
    assert len(network.state_dict()) == 686
    assert network.visual.image_size == (224, 224)


def test_hpsv2_of_a_picture_file(tiny: Path) -> None:
    picture = photograph(48, 80)
    reward = HPSv2(HPSConfig(weights=tiny, model=TINY))
    found = reward(tv.to_image(picture).float()[None, None] / 255, PROMPTS[:1], fps=8).score
    pixels = normalised(tv.to_image(padded_by_pil(picture, SIDE)).float()[None] / 255)
    torch.testing.assert_close(found, cosine(plain(tiny), pixels, PROMPTS[0]), atol=5e-3, rtol=0)
    other = HPSv2(HPSConfig(weights=tiny, model=TINY, resize="squash"))
    assert not torch.allclose(found, other(tv.to_image(picture).float()[None, None] / 255, PROMPTS[:1], fps=8).score)


def test_batches_and_chunks_do_not_matter(tiny: Path) -> None:
    whole = HPSv2(HPSConfig(weights=tiny, model=TINY))(VIDEO, PROMPTS, fps=8).score
    for chunk in (1, 3):
        reward = HPSv2(HPSConfig(weights=tiny, model=TINY, chunk=chunk))
        alone = torch.cat([reward(v[None], [p], fps=8).score for v, p in zip(VIDEO, PROMPTS, strict=True)])
        torch.testing.assert_close(alone, whole, atol=1e-6, rtol=1e-5)


def test_a_prompt_is_encoded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = HPSv2(HPSConfig(weights=tiny, model=TINY, chunk=2))
    encoded: list[str] = []
    original = reward.network.embed_texts

    def counted(texts: Sequence[str]) -> Tensor:
        encoded.extend(texts)
        return original(texts)

    monkeypatch.setattr(reward.network, "embed_texts", counted)
    for _ in range(2):
        reward(VIDEO, PROMPTS, fps=8)
    reward(VIDEO, [PROMPTS[1], "another"], fps=8)
    assert encoded == [*PROMPTS, "another"]


def test_the_gradient_reaches_every_frame_used_and_saturated_pixels(tiny: Path) -> None:
    video = (VIDEO * 3 - 1).requires_grad_()
    reward = HPSv2(HPSConfig(weights=tiny, model=TINY, frames=2))
    reward(video, PROMPTS, fps=8).score.sum().backward()
    assert video.grad is not None
    assert torch.isfinite(video.grad).all()
    sizes = video.grad.abs().sum((2, 3, 4))
    assert (sizes[:, spread(5, 2)] > 0).all()
    assert int((sizes > 0).sum()) == 4
    assert video.grad[video.detach() > 1].abs().sum() > 0
    assert not any(p.requires_grad for p in reward.parameters())


def test_the_gradient_is_that_of_the_score(tiny: Path) -> None:
    reward = HPSv2(HPSConfig(weights=tiny, model=TINY)).double()
    video = (0.25 + 0.5 * VIDEO[:1, :2, :, :24, :20].double()).requires_grad_()
    direction = torch.randn(video.shape, generator=generator(), dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        return reward.score_frames(x.flatten(0, 1), PROMPTS[:1] * 2).sum()

    (slope,) = torch.autograd.grad(value(video), video)
    step = 1e-5
    measured = (value(video + step * direction) - value(video - step * direction)) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), measured.detach(), rtol=1e-6, atol=0)


# what is wrong with weights


class Trap:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def refused(kind: type[Reward], config: Any) -> str:
    with pytest.raises(VpoError) as caught:
        kind(config)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def test_bad_hpsv2_files_are_one_line(tiny: Path, tmp_path: Path) -> None:
    state = torch.load(tiny, weights_only=True)["state_dict"]

    def message(content: Any, **settings: Any) -> str:
        path = tmp_path / "hps.pt"
        torch.save(content, path)
        return refused(HPSv2, HPSConfig(weights=path, **{"model": TINY, **settings}))

    lacking = {key: value for key, value in state.items() if key != "visual.proj"}
    assert "the tensor visual.proj is missing" in message({"state_dict": lacking})
    assert "set reward.model" in message({"state_dict": state}, model="ViT-S-32-alt")
    deeper = message({"state_dict": state}, model=f"{TINY}-deeper")
    assert "visual.transformer.resblocks.2" in deeper
    assert "a pickled object" in message(nn.Linear(2, 2))
    assert "a pickled object" in message({"state_dict": state, "extra": Trap(tmp_path / "opened")})
    assert not (tmp_path / "opened").exists()
    assert "no checkpoint" in message([1, 2, 3])
    (tmp_path / "hps.pt").write_bytes(b"\x00" * 64)
    assert "no checkpoint" in refused(HPSv2, HPSConfig(weights=tmp_path / "hps.pt", model=TINY))
    assert "there is no" in refused(HPSv2, HPSConfig(weights=tmp_path / "none.pt", model=TINY))
    assert "did you mean 'ViT-H-14'" in refused(HPSv2, HPSConfig(weights=tiny, model="ViT-H14"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (HPSv2, ["'hpsv2'", "HPS_v2_compressed.pt", "xswu/HPSv2", "2 GB", "Apache-2.0", "reward.weights=PATH"]),
        (HPSv21, ["'hpsv2.1'", "HPS_v2.1_compressed.pt", "xswu/HPSv2", "2 GB", "Apache-2.0", "reward.weights=PATH"]),
        (
            ClipScore,
            ["'clip'", "open_clip_model.safetensors", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "0.6 GB", "MIT"],
        ),
        (Aesthetic, ["'aesthetic'", "aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth", "4 MB", "Apache-2.0"]),
        (PickScore, ["'pickscore'", "model.safetensors", "yuvalkirstain/PickScore_v1", "3.9 GB", "MIT", "folder"]),
    ],
)
def test_missing_weights_say_what_is_needed(hub: Path, kind: type[Reward], parts: list[str]) -> None:
    text = refused(kind, None)
    for part in parts:
        assert part in text


def test_weights_are_found_in_the_cache_of_the_hub(tiny: Path, hub: Path) -> None:
    repository = hub / "models--xswu--HPSv2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "HPS_v2.1_compressed.pt").write_bytes(tiny.read_bytes())
    found = HPSv21(HPSConfig(model=TINY))(VIDEO, PROMPTS, fps=8).score
    torch.testing.assert_close(found, HPSv2(HPSConfig(model=TINY, weights=tiny))(VIDEO, PROMPTS, fps=8).score)
    assert "HPS_v2_compressed.pt" in refused(HPSv2, HPSConfig(model=TINY))


# CLIP


def test_clip_of_any_open_clip_model(tiny: Path) -> None:
    reward = ClipScore(ClipConfig(weights=tiny, model=TINY, resize="squash"))
    found = reward(VIDEO, PROMPTS, fps=8).score
    pairs = zip(VIDEO, PROMPTS, strict=True)
    expected = torch.stack([cosine(plain(tiny), normalised(v), p).mean() for v, p in pairs])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_clip_prepares_its_input_as_the_tag_says(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bilinear"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: cfg if tag == "half" else {})
    reward = ClipScore(ClipConfig(weights=tiny, model=TINY, pretrained="half"))
    found = reward(VIDEO[:1], PROMPTS[:1], fps=8).score
    torch.testing.assert_close(found, cosine(plain(tiny), (VIDEO[0] - 0.5) / 0.25, PROMPTS[0]).mean()[None])


def test_unknown_names_of_open_clip(tiny: Path) -> None:
    assert "did you mean 'ViT-B-32'" in refused(ClipScore, ClipConfig(model="ViT-B32"))
    assert "did you mean 'laion2b_s34b_b79k'" in refused(ClipScore, ClipConfig(pretrained="laion2b_s34b_b79"))
    assert f"{TINY} has no weights" in refused(ClipScore, ClipConfig(model=TINY))
    with pytest.raises(ConfigError, match="did you mean 'pretrained'"):
        validate(ClipConfig, {"pretraind": "x"}, "reward.")


# aesthetic


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LAION's layout: bare tensors, layers numbered with gaps."""
    widths = {"0": (WIDTH, 1024), "2": (1024, 128), "4": (128, 64), "6": (64, 16), "7": (16, 1)}
    state = {}
    for name, (a, b) in widths.items():
        state[f"layers.{name}.weight"] = torch.randn(b, a, generator=generator(int(name))) / a**0.5
        state[f"layers.{name}.bias"] = torch.randn(b, generator=generator(int(name) + 1))
    path = tmp_path_factory.mktemp("aesthetic") / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(state, path)
    return path


def test_aesthetic_is_linear_layers_on_normalised_features(tiny: Path, head: Path) -> None:
    reward = Aesthetic(AestheticConfig(weights=head, clip_weights=tiny, model=TINY))
    out = reward(VIDEO, None, fps=8)
    state = torch.load(head, weights_only=True)
    with torch.no_grad():
        x = functional.normalize(plain(tiny).encode_image(normalised(VIDEO.flatten(0, 1))), dim=1)
        for k in ("0", "2", "4", "6", "7"):
            x = x @ state[f"layers.{k}.weight"].T + state[f"layers.{k}.bias"]
    torch.testing.assert_close(out.score, x.view(2, 5).mean(1), atol=1e-5, rtol=1e-4)
    assert "openai" in refused(Aesthetic, AestheticConfig(weights=head, model=TINY))


def test_bad_aesthetic_heads(tiny: Path, head: Path, tmp_path: Path) -> None:
    state = torch.load(head, weights_only=True)
    path = tmp_path / "head.pth"
    for wrong, word in (
        ({k: v for k, v in state.items() if k != "layers.4.bias"}, "layers.4.bias"),
        ({k.replace("layers", "mlp"): v for k, v in state.items()}, "layers.0.weight"),
        (state | {"layers.2.weight": torch.zeros(64, 1024)}, "layers.2.weight"),
        (nn.Linear(2, 2), "cannot read"),
    ):
        torch.save(wrong, path)
        assert word in refused(Aesthetic, AestheticConfig(weights=path, clip_weights=tiny, model=TINY))


# PickScore


@pytest.fixture(scope="module")
def picker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes a `CLIPModel`."""
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 49408, "max_position_embeddings": 77},
        vision_config={**sizes, "image_size": SIDE, "patch_size": 8},
        projection_dim=24,
    )
    torch.manual_seed(1)
    network = CLIPModel(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(2)))
    folder = tmp_path_factory.mktemp("pickscore") / "tiny"
    network.save_pretrained(folder)
    return folder


def reference_tokens(texts: list[str]) -> Any:
    """By transformers' own tokenizer, made from the vocabulary that ships with open_clip."""
    from transformers import CLIPTokenizer

    own = open_clip.SimpleTokenizer()
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    vocabulary = {
        {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}.get(token, token): index
        for token, index in own.encoder.items()
    }
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token="<|endoftext|>")
    return tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")


def test_pickscore_is_what_transformers_finds(picker: Path) -> None:
    from transformers import CLIPModel

    network = CLIPModel.from_pretrained(picker).eval()
    reward = PickScore(PickScoreConfig(weights=picker))
    found = reward(VIDEO, PROMPTS, fps=8).score
    tokens = reference_tokens(PROMPTS)
    with torch.no_grad():
        logits = network(pixel_values=normalised(VIDEO.flatten(0, 1)), **tokens).logits_per_image.view(2, 5, 2)
    expected = torch.stack([logits[0, :, 0].mean(), logits[1, :, 1].mean()])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert expected.abs().min() > 0.01


def test_pickscore_has_a_gradient(picker: Path) -> None:
    video = VIDEO.clone().requires_grad_()
    PickScore(PickScoreConfig(weights=picker))(video, PROMPTS, fps=8).score.sum().backward()
    assert video.grad is not None
    assert (video.grad.flatten(2).norm(dim=2) > 0).all()


def test_bad_pickscore_folders(picker: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig

    def folder(name: str) -> Path:
        target = tmp_path / name
        target.mkdir()
        (target / "config.json").write_bytes((picker / "config.json").read_bytes())
        return target

    state = load_file(picker / "model.safetensors")
    lacking = folder("lacking")
    rest = {key: value for key, value in state.items() if key != "visual_projection.weight"}
    save_file(rest, lacking / "model.safetensors", {"format": "pt"})
    assert "lacks the tensor visual_projection.weight" in refused(PickScore, PickScoreConfig(weights=lacking))
    misshapen = folder("misshapen")
    state["visual_projection.weight"] = torch.zeros(5, 5)
    save_file(state, misshapen / "model.safetensors", {"format": "pt"})
    assert "cannot load" in refused(PickScore, PickScoreConfig(weights=misshapen))
    assert "cannot load" in refused(PickScore, PickScoreConfig(weights=folder("empty")))
    BertConfig().save_pretrained(tmp_path / "bert")
    assert "is a bert model" in refused(PickScore, PickScoreConfig(weights=tmp_path / "bert"))
    assert "neither a folder nor" in refused(PickScore, PickScoreConfig(weights=tmp_path / "none"))


# commands


@pytest.mark.parametrize("name", ["hpsv2", "hpsv2.1", "pickscore", "clip", "aesthetic", "technical"])
def test_registered_with_its_facts(name: str) -> None:
    kind = REWARDS.load(name)
    assert kind.spec.name == name
    assert kind.spec.differentiable
    assert kind.spec.std > 0
    assert "weights" in kind.Config.model_fields or name == "technical"


def test_the_check_command_fails_a_random_network(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [f"reward.weights={tiny}", f"reward.model={TINY}", "reward.frames=2"]
    with pytest.raises(SystemExit) as caught:
        main(["reward", "check", "hpsv2", "--clips", "2", *(x for s in sets for x in ("--set", s))])
    shown = capsys.readouterr()
    assert "own caption above another" in shown.out
    assert "[/]" not in shown.out
    assert "Apache-2.0" in shown.out
    failed = "FAILS" in shown.out
    assert caught.value.code == (1 if failed else 0)
    assert ("vpo: not as it must be: hpsv2: " in shown.err) == failed


def test_the_check_command_refuses_what_it_cannot_check(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["vqa:0.5+gold:0.5"], "is a mixture"),
        (["vqa", "--set", "steps=3"], "only reward.*"),
        (["hpsv2"], "reward 'hpsv2' needs weights"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["reward", "check", *arguments])
        assert caught.value.code in (1, 2)
        assert message in capsys.readouterr().err


SHIPPED = ["vqa", "gold", "gold2", "technical", "natural", "text"]


@pytest.mark.parametrize("names", [["vqa", "technical"], pytest.param([], marks=pytest.mark.slow)])
def test_the_check_command_without_a_name_takes_all_that_ship(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str]
) -> None:
    assert [name for name in REWARDS.targets() if REWARDS.load(name).spec.self_contained] == SHIPPED
    with pytest.raises(SystemExit):
        main(["reward", "check", *names, "--clips", "2", "--output", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["rewards"]
    assert list(found) == (names or SHIPPED)
    assert "frozen copy preferred" in [finding["what"] for finding in found["technical"]]
    assert "FAILS" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["reward", "check", "--set", "reward.frames=2"])
    assert "name the one reward that it is for" in capsys.readouterr().err


def test_hub_errors_are_ours(hub: Path) -> None:
    with pytest.raises(ModelError):
        ClipScore(ClipConfig(model="ViT-B-16-SigLIP", pretrained="webli"))


def test_weights_in_the_folder_for_weights_need_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges that look on have no settings. A name that many files have is looked for by its repository."""
    monkeypatch.setenv("VPO_WEIGHTS", str(tmp_path))
    file, common = (
        HPSv2.file,
        HubFile(
            reward="x", repository="someone/clip-b", names=("open_clip_model.safetensors",), size="1 GB", licence="MIT"
        ),
    )
    for name in (*file.names, *common.names):
        (tmp_path / name).touch()
    assert HPSv2.locate(HPSv2.Config()) == [tmp_path / file.names[0]]
    with pytest.raises(ModelError, match="into a folder that VPO_WEIGHTS names"):
        common.look(None)
    (tmp_path / "clip-b").mkdir()
    (tmp_path / "clip-b" / common.names[0]).touch()
    assert common.find(None) == tmp_path / "clip-b" / common.names[0]
    with pytest.raises(ModelError, match="there is no"):
        file.look(tmp_path / "elsewhere.pt")
