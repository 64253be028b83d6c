"""Options that save memory: the same gradient, the same video, and one line where a family cannot."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor

from tests.support.commands import main_ok
from tests.support.moved import moved
from tests.support.places import ROOT
from vpo_kit import models
from vpo_kit.config import Lora, Model, build
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.models import loading, memory
from vpo_kit.models.base import VideoModel
from vpo_kit.rewards.parts.weights import read_state
from vpo_kit.sampler import draw_noise, sample
from vpo_kit.testing.families import FAMILIES
from vpo_kit.training import recipe
from vpo_kit.training.lora import LoraPolicy

PROMPTS = ["a red circle moving right slowly", "a blue square circling quickly"]


def load(name: str, folder: Path, **options: str) -> VideoModel:
    torch.manual_seed(0)
    FAMILIES[name].build().save_pretrained(folder, safe_serialization=True)
    return models.load(str(folder), **options)


def inputs(model: VideoModel, name: str) -> tuple[Tensor, Tensor]:
    family = FAMILIES[name]
    shape = model.latent_shape(family.frames, family.size, family.size)
    times = model.time_sampler(None, model.settings, model.networks).draw([1, 2])
    return draw_noise(shape, [1, 2]), model.schedule.network_time(times)


def gradient(policy: LoraPolicy, name: str) -> tuple[list[Tensor], int]:
    """Of a loss with a policy pass and a reference pass, as in DPO; and the bytes that the graph keeps."""
    model, kept = policy.model, 0
    x, t = inputs(model, name)
    conditions = model.encode_prompts(PROMPTS)

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    for parameter in policy.parameters:
        parameter.grad = None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        own = model.predict(x, t, conditions)
        with torch.no_grad(), policy.reference():
            reference = model.predict(x, t, conditions)
        loss = ((own - reference).square().mean() + own.mean()).sigmoid()
    loss.backward()
    return [p.grad.clone() for p in policy.parameters if p.grad is not None], kept


@pytest.mark.parametrize("reference", ["bare", "moved"])
@pytest.mark.parametrize("name", ["wan2.1", "ltx", "animatediff"])
def test_checkpointing_gives_the_same_gradient(name: str, reference: str, tmp_path: Path) -> None:
    """With adapters, and with a pass of the reference between the policy's forward and backward pass."""
    model = load(name, tmp_path)
    policy = moved(LoraPolicy(model, Lora(rank=2, alpha=4), seed=0))
    if reference == "moved":
        policy.refresh_reference(0.0)
        moved(policy)
    plain, much = gradient(policy, name)
    memory.tune(model, gradient_checkpointing=True)
    found, less = gradient(policy, name)
    assert less < 0.6 * much
    assert len(found) == len(plain) == len(policy.parameters)
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    assert any(one.any() for one in found)


def test_checkpointing_inside_the_sampler(tiny_wan: Path) -> None:
    """The sampler checkpoints whole steps by itself: one inside the other."""
    model = models.load(str(tiny_wan))
    policy = moved(LoraPolicy(model, Lora(rank=2, alpha=4), seed=0))
    noise, conditions = draw_noise(model.latent_shape(9, 32, 32), [1]), model.encode_prompts(PROMPTS[:1])

    def grads() -> list[Tensor]:
        latents = sample(model, conditions, noise=noise, steps=3, grad_steps=2)
        return list(torch.autograd.grad(model.decode(latents).square().mean(), policy.parameters))

    plain = grads()
    memory.tune(model, gradient_checkpointing=True)
    for one, other in zip(grads(), plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


def test_a_run_is_the_same_with_less_memory(tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the settings reach the model: without them the runs would be the same too."""
    told: list[dict[str, Any]] = []
    tune = memory.tune

    def tuned(model: Any, **given: Any) -> None:
        told.append(given)
        tune(model, **given)

    monkeypatch.setattr(memory, "tune", tuned)
    sets = ["batch_size=1", "evaluation.num_prompts=0", "method.num_candidates=2", "method.updates_per_rollout=2"]
    flags = [part for text in sets for part in ("--set", text)]
    for name, more in (
        ("plain", []),
        ("less", ["--set", "gradient_checkpointing=true", "--set", "vae=[slicing, tiling]", "--set", "attention=sdpa"]),
    ):
        main_ok(["train", "--model", tiny_wan, "--output", tmp_path / name, "--steps", 2, *flags, *more])
    assert [one["gradient_checkpointing"] for one in told] == [False, True]
    assert [one["vae"] for one in told] == [[], ["slicing", "tiling"]]
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("plain", "less")]
    for one, other in zip(*logs, strict=True):
        assert json.loads(one) == pytest.approx(json.loads(other), rel=1e-3, abs=1e-4)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks are traced and differentiated as for the real compiler, whose kernels take minutes to build."""
    monkeypatch.setattr(memory, "BACKEND", "aot_eager")
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, while it traces
@pytest.mark.usefixtures("eager")
def test_compiled_blocks_follow_the_adapters(tiny_wan: Path) -> None:
    """Compiled before the LoRA is there, as `vpo train` does it; then a reference that is bare, and one that moved."""
    model = models.load(str(tiny_wan))
    memory.tune(model, compile=True, gradient_checkpointing=True)
    compiled = moved(LoraPolicy(model, Lora(rank=2, alpha=4), seed=0))
    other = models.load(str(tiny_wan))
    plain = moved(LoraPolicy(other, Lora(rank=2, alpha=4), seed=0))
    for _ in range(2):
        for one, two in zip(gradient(compiled, "wan2.1")[0], gradient(plain, "wan2.1")[0], strict=True):
            torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-5)
        for policy in (compiled, plain):
            policy.refresh_reference(0.0)
            moved(policy)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_slicing_is_the_same_video(tmp_path: Path) -> None:
    for name in ("wan2.1", "modelscope"):
        model = load(name, tmp_path / name)
        x, _ = inputs(model, name)
        videos = [model.decode(x)]
        memory.tune(model, vae=["slicing"])
        assert model.pipeline.vae.use_slicing
        videos.append(model.decode(x))
        torch.testing.assert_close(videos[1], videos[0], atol=1e-5, rtol=0)


def test_tiling_lets_the_gradient_through(tmp_path: Path) -> None:
    """Pieces of 32 pixels, which overlap by 8, of a picture of 64; away from seams and edges it is the same piece."""
    model = load("wan2.1", tmp_path)
    vae, noise = model.pipeline.vae, draw_noise((8, 2, 8, 8), [1])
    memory.tune(model, vae=["tiling"])
    vae.tile_sample_min_height = vae.tile_sample_min_width = 32
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = 24
    x = noise.clone().requires_grad_()
    video = model.decode_clip(x)
    assert video.shape == (1, 5, 3, 64, 64)
    (gradient,) = torch.autograd.grad(video.square().mean(), x)
    assert (gradient.flatten(3).abs().sum((0, 1, 2)) > 0).all()
    vae.use_tiling = False
    with torch.no_grad():
        corner = model.decode_clip(noise[..., :4, :4])
    torch.testing.assert_close(video[..., :24, :24], corner[..., :24, :24], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["wan2.1", "cogvideox-2b", "ltx", "hunyuan", "hunyuan1.5", "mochi"])
def test_tiles_of_a_size_of_their_own(name: str, tmp_path: Path) -> None:
    """Of four latents a side, which overlap by one, in a picture of eight: away from the seams each is what it is by
    itself, in its place; and all latents get a gradient.
    """
    model = load(name, tmp_path)
    unit = model.spatial_stride
    x = draw_noise((*model.latent_shape(FAMILIES[name].frames, 64, 64)[:2], 8, 8), [1])
    memory.tune(model, vae=["tiling"], vae_tile_size=4 * unit)
    x.requires_grad_()
    tiled = model.decode_clip(x)
    assert tiled.shape[-2:] == (8 * unit, 8 * unit)
    (gradient,) = torch.autograd.grad(tiled.square().mean(), x)
    assert (gradient.flatten(3).abs().sum((0, 1, 2)) > 0).all()
    model.pipeline.vae.use_tiling = False
    for begin, low, high in ((0, 0, 3), (3, 4, 6)):
        with torch.no_grad():
            alone = model.decode_clip(x[..., begin : begin + 4, begin : begin + 4])
        seen, inside = (slice(unit * low, unit * high), slice(unit * (low - begin), unit * (high - begin)))
        torch.testing.assert_close(tiled[..., seen, seen], alone[..., inside, inside], atol=1e-5, rtol=0)


def test_a_size_of_tiles_that_cannot_be(tmp_path: Path) -> None:
    model, unet = load("ltx", tmp_path / "ltx"), load("modelscope", tmp_path / "unet")
    with pytest.raises(ConfigError, match=r"^vae_tile_size is the size of tiles: set vae=\[tiling\]"):
        memory.tune(model, vae_tile_size=64)
    with pytest.raises(ConfigError, match=r"^vae_tile_size: AutoencoderKL has tiles of one size"):
        memory.tune(unet, vae=["tiling"], vae_tile_size=64)
    with pytest.raises(ConfigError, match=r"^vae_tile_size: tiles of .* have a multiple of \d+ pixels, not 72"):
        memory.tune(model, vae=["tiling"], vae_tile_size=72)


def test_what_a_family_cannot_do_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, timed = load("modelscope", tmp_path / "unet"), load("ltx0.9.1", tmp_path / "timed")
    with pytest.raises(ConfigError, match=r"^gradient_checkpointing: UNet3DConditionModel does not support it"):
        memory.tune(unet, gradient_checkpointing=True)
    with pytest.raises(ConfigError, match=r"^compile: UNet3DConditionModel names no repeated blocks"):
        memory.tune(unet, compile=True)
    with pytest.raises(ConfigError, match=r"^vae: AutoencoderKLLTXVideo of .* takes a time and cannot be sliced"):
        memory.tune(timed, vae=["slicing"])
    memory.tune(timed, vae=["tiling"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^compile: there is no C\+\+ compiler"):
        memory.tune(timed, compile=True)


def test_attention_backends_that_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("xformers", "flash", "sage"):
        with pytest.raises(ConfigError, match=f"^attention: {name} is not installed: pip install"):
            loading.check_attention(name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace())
    for name in ("xformers", "flash", "sage"):
        with pytest.raises(ConfigError, match=f"^attention: {name} needs a CUDA device"):
            loading.check_attention(name)
    monkeypatch.setattr(loading, "check_attention", lambda *_: None)  # as on a machine that has everything
    for name in ("cogvideox-2b", "modelscope", "mochi"):
        assert load(name, tmp_path / name, attention="sdpa").device.type == "cpu"
        with pytest.raises(ConfigError, match="has only sdpa in this version of diffusers"):
            models.load(str(tmp_path / name), attention="xformers")
        with pytest.raises(ConfigError, match="masks its tokens, which flash cannot"):
            models.load(str(tmp_path / name), attention="flash")
    for name in ("flash", "sage"):  # diffusers' own word, where a package is too old for it
        with pytest.raises(ConfigError, match=f"^attention: {name} cannot be used .*too old"):
            load("wan2.1", tmp_path / name, attention=name)


def test_flash_takes_no_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("flash", "sage"):
        with pytest.raises(ConfigError, match=f"^attention: {name} takes no float32"):
            loading.check_attention(name, "float32")
        loading.check_attention(name, "bfloat16")


def test_every_backend_is_a_row_of_the_pages() -> None:
    page = (ROOT / "docs/models.md").read_text()
    offered = {*get_args(Model.model_fields["attention"].annotation)} - {"auto"}
    said = set(re.findall(r"^\| `attention: (\w+)` \|", page, re.MULTILINE))
    assert said == offered
    assert not re.findall(rf"`?({'|'.join(offered)})`? is not offered", page)


def test_sage_only_samples(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With diffusers' registry, in which exact attention that counts its calls stands for sage's kernel: it runs in the
    sampler's steps without a graph, and never in a pass of a loss, recomputed or of the reference.
    """
    calls, registry = [0], attention_dispatch._AttentionBackendRegistry
    native = registry._backends[AttentionBackendName.NATIVE]

    def kernel(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        return native(*args, **kwargs)

    monkeypatch.setitem(registry._backends, AttentionBackendName.SAGE, kernel)
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_SAGE_ATTN", True)
    monkeypatch.setattr(loading, "check_attention", lambda *_: None)
    model = models.load(str(tiny_wan), attention="sage")
    assert registry.get_active_backend()[0] == AttentionBackendName.NATIVE  # of all modules without a choice
    plain = models.load(str(tiny_wan))
    noise, prompts = draw_noise(model.latent_shape(9, 32, 32), [1]), PROMPTS[:1]
    with torch.no_grad():
        videos = [sample(m, m.encode_prompts(prompts), noise=noise, steps=3) for m in (model, plain)]
    assert torch.equal(*videos)
    assert calls == [3 * 4]  # steps, and two attentions in each of two blocks
    policy = moved(LoraPolicy(model, Lora(rank=2, alpha=4), seed=0))
    memory.tune(model, gradient_checkpointing=True)
    gradient(policy, "wan2.1")
    with torch.no_grad(), policy.reference():
        model.predict(noise, torch.tensor([500.0]), model.encode_prompts(prompts))
    assert calls == [3 * 4]
    latents = sample(model, model.encode_prompts(prompts), noise=noise, steps=3, grad_steps=1)
    latents.square().mean().backward()  # type: ignore[no-untyped-call]
    assert calls == [5 * 4]
    with pytest.raises(ConfigError, match=r"^compile: attention sage cannot be compiled"):
        recipe.check(build({"attention": "sage", "compile": True, "dtype": "bfloat16"}))


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_weight_files_that_are_missing_or_damaged(part: str, tmp_path: Path) -> None:
    """Of a checkpoint in shards, in each part of a pipeline: one line with the file and what to do."""
    torch.manual_seed(0)
    FAMILIES["wan2.1"].build().save_pretrained(tmp_path, safe_serialization=True, max_shard_size="40KB")
    models.load(str(tmp_path))
    shards = sorted((tmp_path / part).glob("*-of-*.safetensors"))
    shard = shards[1]
    raw = shard.read_bytes()

    def problem() -> str:
        with pytest.raises(ModelError) as caught:
            models.load(str(tmp_path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    shard.unlink()
    lacks = f"{tmp_path / part} lacks {shard.name}, 1 of its {len(shards)} weight files: "
    assert problem() == lacks + "copy or download the model again"
    shard.write_bytes(raw[: len(raw) // 2])
    assert problem() == f"{shard} is damaged or cut short: copy or download the model again"
    shard.write_bytes(raw)
    (listing,) = (tmp_path / part).glob("*.index.json")
    text = listing.read_text()
    listing.write_text(text[: len(text) // 2])
    assert problem() == f"{listing} is damaged: copy or download the model again"
    listing.write_text(text)
    models.load(str(tmp_path))


def test_one_weight_file_that_is_cut_short(tmp_path: Path) -> None:
    load("wan2.1", tmp_path)
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match=f"^{re.escape(str(file))} is damaged or cut short: copy or download"):
        models.load(str(tmp_path))


def test_a_dtype_that_the_device_lacks(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it does is tried, with the operation that is missing where one is: a convolution over video."""
    for name in ("float32", "bfloat16", "float16"):
        loading.check_dtype(name, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"^dtype: cpu here cannot calculate in float8_e4m3fn: use float32"):
        loading.check_dtype("float8_e4m3fn", torch.device("cpu"))
    monkeypatch.setattr(torch, "bfloat16", torch.float8_e5m2)
    with pytest.raises(ConfigError, match=r"^dtype: cpu here cannot calculate in bfloat16: use float32"):
        models.load(str(tiny_wan), dtype="bfloat16")


def test_damaged_weights_of_a_judge_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    (tmp_path / "b.pt").write_bytes(b"nothing")
    torch.save({"x": SimpleNamespace()}, tmp_path / "c.pt")
    for name in ("a.safetensors", "b.pt", "c.pt"):
        with pytest.raises(ModelError) as caught:
            read_state(tmp_path / name)
        text = f"cannot read the weights {tmp_path / name}: it is damaged or holds more than tensors"
        assert str(caught.value) == text
    with pytest.raises(ModelError, match=r"cannot read the weights .*missing\.pt: No such file or directory"):
        read_state(tmp_path / "missing.pt")
