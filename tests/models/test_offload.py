"""Parts that are on the device only while they are used: the same result, the same gradient, and nothing left over.

There is one device here, so a copy stands for the move: it is other memory than the weights' own, as on a GPU.
"""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.support.commands import main_ok
from tests.support.offline_run import make_set
from vpo_kit import models
from vpo_kit.methods.base import Needs
from vpo_kit.models import offload
from vpo_kit.models.base import VideoModel
from vpo_kit.registry import METHODS
from vpo_kit.rewards import loading as rewards
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.families import FAMILIES

PROMPTS = ["a red circle moving right slowly", "a blue square circling quickly"]


class Moved:
    """Every copy that was made for the device and is still held."""

    def __init__(self) -> None:
        self._seen: list[weakref.ref[Tensor]] = []

    def __call__(self, tensor: Tensor, device: torch.device) -> Tensor:
        copy = tensor.detach().clone()
        made = nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
        self._seen.append(weakref.ref(made))
        return made

    def __len__(self) -> int:
        gc.collect()
        return sum(seen() is not None for seen in self._seen)

    @property
    def made(self) -> int:
        return len(self._seen)


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Moved:
    found = Moved()
    monkeypatch.setattr(offload, "_copy", found)
    return found


def pair(name: str, folder: Path) -> tuple[VideoModel, VideoModel]:
    torch.manual_seed(0)
    FAMILIES[name].build().save_pretrained(folder, safe_serialization=True)
    return models.load(str(folder)), models.load(str(folder), offload=True)


def weights(model: VideoModel) -> list[tuple[int, int]]:
    parts = [part for part in model.pipeline.components.values() if isinstance(part, nn.Module)]
    return [(id(t), t.data_ptr()) for part in parts for t in [*part.parameters(), *part.buffers()]]


@pytest.mark.parametrize("name", ["wan2.1", "ltx", "hunyuan", "modelscope"])
def test_everything_is_the_same(name: str, tmp_path: Path, moved: Moved) -> None:
    """Embeddings, latents and videos to the last bit; afterwards every weight is in its place and no copy is left."""
    plain, other = pair(name, tmp_path)
    family, before = FAMILIES[name], weights(other)
    noise = draw_noise(plain.latent_shape(family.frames, family.size, family.size), [1, 2])
    expected, found = (model.encode_prompts(PROMPTS).tensors for model in (plain, other))
    assert moved.made
    assert len(moved) == 0
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    with torch.no_grad():
        videos = [model.decode(noise) for model in (plain, other)]
        assert torch.equal(*videos)
        assert torch.equal(*(model.decode(noise, [0, 3]) for model in (plain, other)))
        assert torch.equal(*(model.encode(video) for model, video in zip((plain, other), videos, strict=True)))
    assert len(moved) == 0
    assert weights(other) == before


@pytest.mark.parametrize(("name", "eye"), [("wan2.1-i2v", "image_encoder"), ("hunyuan-i2v", "text_encoder")])
def test_what_looks_at_pictures(name: str, eye: str, tmp_path: Path, moved: Moved) -> None:
    """Its weights are copies while it looks, and what it sees is the same."""
    plain, other = pair(name, tmp_path)
    for model in (plain, other):
        model.settings = model.settings.changed(frames=9, height=32, width=32)
    home, places, items = weights(other), set[int](), [plain.example(prompt) for prompt in PROMPTS]
    seen = getattr(other.pipeline, eye)
    seen.register_forward_pre_hook(lambda part, _: places.update(p.data_ptr() for p in part.parameters()))
    expected, found = (model.encode_conditions(items).tensors for model in (plain, other))
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert places
    assert places.isdisjoint(p.data_ptr() for p in seen.parameters())
    assert len(moved) == 0
    assert weights(other) == home


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_the_gradient_of_the_decoder(again: bool, tiny_wan: Path, moved: Moved) -> None:
    """The graph holds the copies that its backward pass needs, and no longer; several graphs at once do not mix."""
    plain, other = models.load(str(tiny_wan)), models.load(str(tiny_wan), offload=True)

    def loss(model: VideoModel, x: Tensor) -> Tensor:
        video = checkpoint(model.decode_clip, x, use_reentrant=False) if again else model.decode_clip(x)
        return video.square().mean()

    noises = [draw_noise((8, 3, 4, 4), [seed]).requires_grad_() for seed in (1, 2)]
    expected = [torch.autograd.grad(loss(plain, x), x)[0] for x in noises]
    losses = [loss(other, x) for x in noises]
    assert (len(moved) == 0) == again
    found = [torch.autograd.grad(one, x)[0] for one, x in zip(losses, noises, strict=True)]
    del losses
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert len(moved) == 0


def test_an_error_inside_leaves_the_weights_in_their_places(tiny_wan: Path, moved: Moved) -> None:
    model = models.load(str(tiny_wan), offload=True)
    before = weights(model)
    with pytest.raises(RuntimeError):
        model.decode_clip(torch.zeros(1, 3, 1, 4, 4))
    assert moved.made
    assert weights(model) == before


def test_weights_of_two_names_are_copied_once(moved: Moved) -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)}).requires_grad_(False)
    module["b"].weight = module["a"].weight
    with offload.onloaded([module], torch.device("cpu")):
        assert module["a"].weight is module["b"].weight
        assert moved.made == 1


def test_rewards_one_after_the_other(moved: Moved) -> None:
    """Scores, segments and the gradient to the video; at no time are two rewards' weights on the device."""
    plans = rewards.plan("vqa+technical+gold", {})
    plain, other = (rewards.load(plans, torch.device("cpu"), offload=on) for on in (False, True))
    most = 0

    def look(module: nn.Module, *_: object) -> None:
        nonlocal most
        most = max(most, len(moved))

    sizes = [len([*part.parameters(), *part.buffers()]) for part in other.parts]
    for part in other.parts:
        for inner in part.children():
            inner.register_forward_hook(look)
    video = torch.rand(2, 17, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*(m(video, PROMPTS, fps=8, group=2).score for m in (plain, other)))
    assert 0 < most <= max(sizes)
    assert len(moved) == 0
    found = []
    for mixture in (plain, other):
        x = video.clone().requires_grad_()
        output = mixture.fixed(x, PROMPTS, fps=8, segments=[(0, 9), (9, 17)])
        assert output.segments is not None
        found += [output.segments.detach(), torch.autograd.grad(output.score.sum(), x)[0]]
        del output
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert found[1].any()
    assert len(moved) == 0


@pytest.mark.parametrize("method", ["online", "instruct"])
def test_a_run_is_the_same_with_offload(method: str, tiny_wan: Path, tmp_path: Path, moved: Moved) -> None:
    sets = ["batch_size=1", "evaluation.num_prompts=1", "sampling.steps=3", "checkpoints.every=5"]
    sets += {"online": ["method.num_candidates=2"], "instruct": [f"videos={clips(tmp_path / 'clips')}"]}[method]
    flags = [part for text in sets for part in ("--set", text)]
    for name, on in (("without", "false"), ("with", "true")):
        where = ["--model", tiny_wan, "--output", tmp_path / name, "--set", f"offload={on}"]
        main_ok(["train", "--method", method, "--steps", 1, *where, *flags])
    one, two = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("without", "with"))
    assert one == two
    assert moved.made
    assert len(moved) == 0


def clips(folder: Path) -> Path:
    from vpo_kit.video import write_video

    write_video(folder / "a.mp4", torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 8)
    (folder / "a.txt").write_text(PROMPTS[0])
    return folder


@pytest.mark.gpu
def test_on_a_gpu_only_the_network_stays(tiny_wan: Path) -> None:
    model, plain = models.load(str(tiny_wan), offload=True), models.load(str(tiny_wan))
    assert model.device.type == "cuda"
    assert {model.pipeline.vae.device.type, model.pipeline.text_encoder.device.type} == {"cpu"}
    held = torch.cuda.memory_allocated()
    x = draw_noise((8, 3, 4, 4), [1], "cuda").requires_grad_()
    expected, found = (torch.autograd.grad(m.decode(x).square().mean(), x)[0] for m in (plain, model))
    torch.testing.assert_close(found, expected)
    del expected, found
    embeds = [m.encode_prompts(PROMPTS).tensors["embeds"] for m in (plain, model)]
    torch.testing.assert_close(*embeds)
    del embeds, x
    assert torch.cuda.memory_allocated() <= held


def test_what_a_step_on_pairs_has_no_use_for_waits(
    tiny_wan: Path, tmp_path: Path, moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autoencoder and judges are copied to measure and in no step, as the latents are stored; the run is the same."""
    pairs = make_set(tmp_path / "pairs", model=str(tiny_wan))
    sets = ["batch_size=2", "evaluation.num_prompts=1", "lora.rank=2", "selection.strengths=[]"]
    flags = [part for text in sets for part in ("--set", text)]
    made = []
    for name in ("waits", "stays"):
        if name == "stays":
            monkeypatch.setattr(Needs, "decodes", lambda *_: True)
        where = ["--model", tiny_wan, "--output", tmp_path / name, "--pairs", pairs]
        main_ok(["train", "--method", "dpo", "--steps", 2, *where, *flags])
        made.append(moved.made)
    assert made[0] == made[1] > 0, "the second run has made none"
    assert len(moved) == 0
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("waits", "stays")]
    assert logs[0] == logs[1]
    tables = [json.loads((tmp_path / name / "summary.json").read_text())["after"] for name in ("waits", "stays")]
    assert tables[0] == tables[1]


def test_what_decodes_is_known() -> None:
    """By what a method needs: who is scored, or learns from clips, decodes or encodes in a step."""
    found = {name: METHODS.load(name).needs for name in ("dpo", "dense", "online", "sft", "instruct")}
    assert not found["dpo"].decodes("pairs")
    assert not found["dense"].decodes("pairs")
    assert found["online"].decodes("prompts")
    assert found["sft"].decodes("videos")
    assert found["instruct"].decodes("videos")
