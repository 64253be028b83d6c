"""What only a card can show: the same results as on the processor, and what exists there alone.

``pytest -m gpu tests/project/test_on_gpu.py`` with ``CUDA_VISIBLE_DEVICES`` set. Float32 is float32 here: no TF32.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import PROMPTS
from tests.support.commands import main_ok
from tests.support.offline_run import make_set
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.models import memory
from vpo_kit.models.attention import PACKAGES
from vpo_kit.models.base import VideoModel
from vpo_kit.pairing import store
from vpo_kit.rewards import loading as rewards
from vpo_kit.sampler import draw_noise, sample
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.precision import exact
from vpo_kit.testing.rewards import stub
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.video import write_video

pytestmark = pytest.mark.gpu
SMALL = {"batch_size": 2, "evaluation.num_prompts": 2, "health.disable": "[motion_collapse]"}
DATA = {"online": (), "draft": (), "dense": ("pairs",), "dpo": ("pairs",), "sft": ("pairs",), "instruct": ("videos",)}


@pytest.fixture(autouse=True)
def precise() -> Iterator[None]:
    with exact():
        yield


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, there seems to be no card."""
    return lambda: monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


Brightness = stub("brightness", scale="0 to 1", per_segment=True)
"""Differentiable, and the same wherever it is calculated."""


def train(model: Path, output: Path, method: str, data: Path, steps: int, **sets: Any) -> list[dict[str, float]]:
    """Rows of the log of ``vpo train``."""
    where = [part for kind in DATA[method] for part in (f"--{kind}", data / kind)]
    settings = {**SMALL, **({"method.num_candidates": 2} if method == "online" else {}), **sets}
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    reward = [] if DATA[method] == ("pairs",) else ["--reward", "tests.project.test_on_gpu:Brightness"]
    main_ok(
        ["train", "--model", model, "--method", method, "--output", output, "--steps", steps, *where, *reward, *flags]
    )
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair set and a folder of clips for `tiny_wan`."""
    folder = tmp_path_factory.mktemp("data")
    make_set(folder / "pairs")
    for i in range(4):
        clip = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(i))
        write_video(folder / "videos" / f"{i}.mp4", clip, 8)
        (folder / "videos" / f"{i}.txt").write_text(PROMPTS[i % len(PROMPTS)])
    return folder


def close(one: list[dict[str, float]], other: list[dict[str, float]], tolerance: float) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("method", DATA)
def test_training_is_that_of_the_processor(
    tiny_wan: Path, data: Path, tmp_path: Path, method: str, processor: Callable[[], None]
) -> None:
    """Two whole steps of `vpo train`, measured before and after; losses and norms of gradients are in the log."""
    here = train(tiny_wan, tmp_path / "card", method, data, 2)
    assert torch.cuda.max_memory_allocated() > 0
    processor()
    close(here, train(tiny_wan, tmp_path / "processor", method, data, 2), 5e-3)


def test_labels_are_those_of_the_processor(data: Path, tmp_path: Path, processor: Callable[[], None]) -> None:
    def labels(name: str) -> list[Any]:
        shutil.copytree(data / "pairs", tmp_path / name)
        main_ok(["label", tmp_path / name, "--with", "reward:tests.project.test_on_gpu:Brightness"])
        return [pair.labels for pair in store.read(tmp_path / name).pairs]

    here = labels("card")
    processor()
    assert here == labels("processor")


def test_offload_changes_nothing(tiny_wan: Path, data: Path, tmp_path: Path) -> None:
    for method in ("online", "instruct"):
        rows = [train(tiny_wan, tmp_path / f"{method}-{w}", method, data, 2, offload=w) for w in ("false", "true")]
        close(*rows, 1e-4)


def test_bfloat16(tiny_wan: Path, data: Path, tmp_path: Path) -> None:
    """The output and gradient of float32 as far as bfloat16 goes, and a LoRA in float32."""
    other, exact = (gradient(models.load(str(tiny_wan), dtype=kind)) for kind in ("bfloat16", "float32"))
    assert all(apart(a, b) < 0.05 for a, b in zip(other, exact, strict=True))
    train(tiny_wan, tmp_path / "run", "dense", data, 2, dtype="bfloat16")
    lora = load_file(tmp_path / "run" / "lora" / "pytorch_lora_weights.safetensors")
    assert {tensor.dtype for tensor in lora.values()} == {torch.float32}


@pytest.mark.parametrize("method", ["online", "dense", "instruct"])
def test_a_resumed_run_is_the_undisturbed_one(
    tiny_wan: Path, data: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, where kernels that add in a fixed order are asked for."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    try:
        often = {"checkpoints.every": 2, "evaluation.num_prompts": 0, "validation.share": 0.0}
        whole = train(tiny_wan, tmp_path / "whole", method, data, 4, **often)
        train(tiny_wan, tmp_path / "halved", method, data, 2, **often)
        config = tmp_path / "halved" / "config.yaml"
        config.write_text(config.read_text().replace("steps: 2\n", "steps: 4\n", 1))
        main_ok(["train", "--output", tmp_path / "halved", "--resume"])
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(True)
        torch.use_deterministic_algorithms(False)
    rows = [json.loads(line) for line in (tmp_path / "halved" / "metrics.jsonl").read_text().splitlines()]
    assert rows == whole
    files = [tmp_path / name / "lora" / "pytorch_lora_weights.safetensors" for name in ("whole", "halved")]
    one, other = (load_file(file) for file in files)
    assert all(torch.equal(one[key], other[key]) for key in one)


def gradient(model: VideoModel) -> tuple[Tensor, Tensor]:
    """The network's output for two videos, and the gradient of its mean square in the LoRA's weights."""
    policy = LoraPolicy(model, Lora(rank=2, alpha=2), seed=0)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.02)
    family = FAMILIES["wan2.1"]
    x = draw_noise(model.latent_shape(family.frames, family.size, family.size), [1, 2], model.device)
    time = torch.tensor([300.0, 800.0], device=model.device)
    output = model.predict(x, time, model.encode_prompts([PROMPTS[0], PROMPTS[1]]))
    output.square().mean().backward()  # type: ignore[no-untyped-call]
    grads = [p.grad.flatten() for p in policy.parameters if p.grad is not None]
    return output.detach(), torch.cat(grads)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", ["sdpa", "xformers", "flash", "sage"])
def test_attention_backends(tiny_wan: Path, name: str) -> None:
    module = PACKAGES.get(name, ("torch",))[0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    exact, other = (models.load(str(tiny_wan), dtype="bfloat16", attention=kind) for kind in ("auto", name))
    assert all(apart(a, b) < 0.03 for a, b in zip(gradient(other), gradient(exact), strict=True))
    noise = draw_noise(exact.latent_shape(9, 32, 32), [1], exact.device)
    with torch.no_grad():
        latents = [sample(m, m.encode_prompts(PROMPTS[:1]), noise=noise, steps=3) for m in (other, exact)]
    assert apart(*latents) < 0.1


def test_checkpointing_is_the_same_gradient(tiny_wan: Path) -> None:
    plain, other = models.load(str(tiny_wan)), models.load(str(tiny_wan))
    memory.tune(other, gradient_checkpointing=True)
    assert all(apart(a, b) < 1e-5 for a, b in zip(gradient(other), gradient(plain), strict=True))


def test_compiled_blocks_are_the_same(tiny_wan: Path) -> None:
    plain, other = models.load(str(tiny_wan)), models.load(str(tiny_wan))
    memory.tune(other, compile=True)
    assert all(apart(a, b) < 1e-4 for a, b in zip(gradient(other), gradient(plain), strict=True))


@pytest.mark.parametrize("name", ["vqa", "gold", "technical"])
def test_judges_score_as_on_the_processor(name: str) -> None:
    """The same scores, and for those that have one the same gradient."""
    video = torch.rand(2, 17, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cuda", "cpu"):
        judge = rewards.load(rewards.plan(name, {}), torch.device(device)).parts[0]
        clip = video.to(device).requires_grad_()
        score = judge(clip, PROMPTS[:2], fps=8).score
        (grad,) = torch.autograd.grad(score.sum(), clip)
        found.append((score.detach().cpu(), grad.cpu()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-3)
    assert apart(found[0][1], found[1][1]) < 1e-2
