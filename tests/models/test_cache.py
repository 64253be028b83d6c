"""What is found on disk is what would have been computed, and then nothing is computed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.commands import main_ok
from tests.support.forks import Fork
from tests.support.kept_videos import write_once
from vpo_kit import models
from vpo_kit.clips import read_folder
from vpo_kit.errors import OutputError
from vpo_kit.inputs import Inputs, Shade
from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache, latent_facts, text_facts, weights_hash
from vpo_kit.models.encoding import PromptCache
from vpo_kit.testing.families import FAMILIES
from vpo_kit.training.data import ClipSource, Encoder

PROMPTS = ["a red circle moving right slowly", "a blue square circling quickly", ""]


def cache(folder: Path) -> tuple[DiskCache, list[str]]:
    notices: list[str] = []
    return DiskCache(folder, notices.append), notices


@contextmanager
def counted(owner: object, name: str) -> Iterator[list[int]]:
    """How often the method `name` is called inside, on whatever object of its class."""
    kind, calls = type(owner), [0]
    original = getattr(kind, name)

    def call(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        return original(*args, **kwargs)

    setattr(kind, name, call)
    try:
        yield calls
    finally:
        setattr(kind, name, original)


@pytest.mark.parametrize("name", ["wan2.1", "ltx", "hunyuan"])
def test_embeddings_from_disk_are_those_that_are_computed(name: str, tmp_path: Path) -> None:
    """To the last bit, in any company; several tensors (masks, pooled embeddings) and dtypes included."""
    torch.manual_seed(0)
    FAMILIES[name].build().save_pretrained(tmp_path / "model", safe_serialization=True)
    model = models.load(str(tmp_path / "model"), dtype="bfloat16")
    plain = PromptCache(model)(PROMPTS)
    disk, notices = cache(tmp_path / "cache")
    first = PromptCache(model, disk)(PROMPTS)
    again = models.load(str(tmp_path / "model"), dtype="bfloat16")
    with counted(again.pipeline.text_encoder, "forward") as calls:
        found = PromptCache(again, disk)(list(reversed(PROMPTS)))
    assert calls == [0]
    assert set(found.tensors) == set(plain.tensors)
    for key, value in plain.tensors.items():
        assert value.dtype == found.tensors[key].dtype
        assert torch.equal(value, first.tensors[key])
        assert torch.equal(value, found.tensors[key].flip(0))
    assert not notices


def test_a_text_encoder_that_sees_pictures(tmp_path: Path) -> None:
    """One prompt with two pictures is two embeddings, each found again without a pass; without one it is a third."""
    torch.manual_seed(0)
    FAMILIES["hunyuan-i2v"].build().save_pretrained(tmp_path / "model", safe_serialization=True)
    model = models.load(str(tmp_path / "model"))
    model.settings = model.settings.changed(frames=9, height=32, width=32)
    disk, _ = cache(tmp_path / "cache")
    items = [Inputs(PROMPTS[0], Shade(1)), Inputs(PROMPTS[0], Shade(2))]
    found = PromptCache(model, disk)(items)
    assert not torch.equal(*found.tensors["embeds"])
    for i, item in enumerate(items):
        alone = model.encode_conditions([item])
        assert all(torch.equal(alone.tensors[key][0], value[i]) for key, value in found.tensors.items())
    with counted(model.pipeline.text_encoder, "forward") as calls:
        again = PromptCache(model, disk)(items)
        assert calls == [0]
        black = PromptCache(model, disk)(PROMPTS[:1])
        assert calls == [1]
    assert all(torch.equal(again.tensors[key], value) for key, value in found.tensors.items())
    assert black.tensors["embeds"].shape[1:] == found.tensors["embeds"].shape[1:]
    before = text_facts(model)
    model.pipeline.image_processor.image_mean = [0.0, 0.0, 0.0]
    assert text_facts(model) != before


def test_other_weights_and_settings_are_other_embeddings(tiny_wan: Path) -> None:
    """A change of one bit of the text encoder, of a tokenizer's length, of the dtype: nothing is taken for another."""
    model = models.load(str(tiny_wan))
    facts = text_facts(model)
    assert facts == text_facts(models.load(str(tiny_wan)))
    assert facts != text_facts(models.load(str(tiny_wan), dtype="bfloat16"))
    model.pipeline.tokenizer.model_max_length += 1
    assert facts != text_facts(model)
    model.pipeline.tokenizer.model_max_length -= 1
    assert facts == text_facts(model)
    # embeddings are kept in the network's dtype, whatever the text encoder's own
    model.network.to(torch.bfloat16)
    assert facts != text_facts(model)
    model.network.to(torch.float32)
    assert facts == text_facts(model)
    next(model.pipeline.text_encoder.parameters()).view(-1).view(torch.int32)[-1] ^= 1
    assert facts != text_facts(model)


def test_weights_hash_is_of_every_bit_and_of_nothing_else() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict({"odd": nn.Linear(3, 5), "small": nn.Linear(7, 1).half(), "long": nn.Linear(1100, 2000)})
    before = weights_hash(module)
    strided = nn.Linear(3, 5)
    strided.weight = nn.Parameter(module["odd"].weight.detach().t().contiguous().t())
    strided.bias = module["odd"].bias
    assert weights_hash(nn.ModuleDict({**module, "odd": strided})) == before
    for parameter in module.parameters():
        raw = parameter.detach().view(-1).view(torch.uint8)
        for place in (0, len(raw) // 2, len(raw) - 1):
            raw[place] ^= 128
            assert weights_hash(module) != before
            raw[place] ^= 128
    weight = module["long"].weight.detach()
    weight[[0, 1]] = weight[[1, 0]]
    assert weights_hash(module) != before
    # the same bits, which mean something else
    half, brain = (nn.Linear(3, 5).to(dtype) for dtype in (torch.float16, torch.bfloat16))
    for one, other in zip(half.parameters(), brain.parameters(), strict=True):
        other.data.view(torch.int16).copy_(one.data.view(torch.int16))
    assert weights_hash(half) != weights_hash(brain)
    assert weights_hash(nn.ModuleDict({"other": module["odd"]})) != weights_hash(nn.ModuleDict({"odd": module["odd"]}))


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "foreign"])
def test_a_damaged_file_is_made_anew(damage: str, tmp_path: Path) -> None:
    disk, notices = cache(tmp_path)
    value = {"x": torch.arange(6.0).view(2, 3)}
    assert disk.get("prompts", {"a": 1}, lambda: value)["x"].equal(value["x"])
    (file,) = tmp_path.rglob("*.safetensors")
    raw = file.read_bytes()
    file.write_bytes({"cut": raw[:-4], "empty": b"", "changed": raw[:-1] + b"\x7f", "foreign": b"\x00" * 200}[damage])
    assert disk.get("prompts", {"a": 1}, lambda: value)["x"].equal(value["x"])
    assert notices == [f"cache: {file} is damaged: it is made anew"]
    assert file.read_bytes() == raw
    disk.get("prompts", {"a": 1}, lambda: pytest.fail("it is there"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"^cache: cannot make the folder .*file"):
        cache(tmp_path / "file")
    disk, notices = cache(tmp_path / "cache")
    (tmp_path / "cache" / "prompts").write_text("in the way")
    for number in range(2):
        assert disk.get("prompts", {"a": number}, lambda: {"x": torch.ones(1)})["x"].equal(torch.ones(1))
    assert len(notices) == 1
    assert "from here on nothing is added" in notices[0]


def race(folder: Path) -> None:
    disk = DiskCache(folder, lambda line: sys.exit(line))
    for visit in range(3):
        for i in range(40):
            made = {"x": torch.full((20000,), float(i))}
            got = disk.get("prompts", {"i": i, "visit": visit}, lambda made=made: made)  # type: ignore[misc]
            assert got["x"].eq(i).all()


def test_processes_share_a_folder(tmp_path: Path) -> None:
    running = [Fork(race, tmp_path) for _ in range(2)]
    assert [(process.wait(), process.errors) for process in running] == [(0, "")] * 2
    names = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(names) == 120
    assert all(name.endswith(".safetensors") for name in names)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    generator = torch.Generator().manual_seed(0)
    for i in range(3):
        write_once(folder / f"{i}.mp4", torch.rand(9, 3, 32, 32, generator=generator), 8)
        (folder / f"{i}.txt").write_text(f"a red circle number {i}")
    return folder


def clips(model: VideoModel, folder: Path, disk: DiskCache | None, **sizes: int) -> ClipSource:
    settings = model.settings.changed(**sizes)
    return ClipSource(read_folder(folder, settings).clips, Encoder(model, disk))


def test_latents_from_disk_are_those_that_are_computed(tiny_wan: Path, videos: Path, tmp_path: Path) -> None:
    model = models.load(str(tiny_wan))
    plain = clips(model, videos, None).tensors([0, 1, 2])["clip"]
    disk, notices = cache(tmp_path / "cache")
    assert torch.equal(clips(model, videos, disk).tensors([2, 0, 1])["clip"], plain[[2, 0, 1]])
    with counted(model.pipeline.vae, "encode") as calls:
        assert torch.equal(clips(model, videos, disk).tensors([0, 1, 2])["clip"], plain)
        assert calls == [0]
        clips(model, videos, disk, height=48, width=48).tensors([0])
        assert calls == [1]
        model.pipeline.vae.enable_tiling()
        clips(model, videos, disk).tensors([0])
        assert calls == [2]
        model.pipeline.vae.disable_tiling()
        (videos / "0.mp4").write_bytes((videos / "1.mp4").read_bytes())  # another content under the same name
        assert torch.equal(clips(model, videos, disk).tensors([0, 1])["clip"], plain[[1, 1]])
        assert calls == [2]
    assert not notices


@pytest.mark.parametrize("method", ["sft", "online"])
def test_a_second_run_encodes_nothing(method: str, tiny_wan: Path, videos: Path, tmp_path: Path) -> None:
    """Neither prompts, those of the evaluation included, nor clips; and its log is that of a run without a cache."""
    sets = ["batch_size=2", "evaluation.num_prompts=1", "evaluation.judges=[]", "sampling.steps=2"]
    sets += ["method.num_candidates=2"] if method == "online" else [f"videos={videos}"]
    model = models.load(str(tiny_wan))

    def train(name: str, *more: str) -> list[int]:
        flags = [part for text in [*sets, *more] for part in ("--set", text)]
        with (
            counted(model.pipeline.text_encoder, "forward") as texts,
            counted(model.pipeline.vae, "encode") as encoded,
        ):
            main_ok(
                ["train", "--method", method, "--model", tiny_wan, "--output", tmp_path / name, "--steps", 1, *flags]
            )
        return [*texts, *encoded]

    without = train("without")
    assert train("first", f"cache={tmp_path / 'cache'}") == without
    assert without[0] > 2
    assert (without[1] > 0) == (method == "sft")
    assert train("second", f"cache={tmp_path / 'cache'}") == [0, 0]
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("without", "first", "second")]
    assert logs[0] == logs[1] == logs[2]


def test_what_is_a_part_of_the_latent_is_a_part_of_its_key(tiny_wan: Path) -> None:
    """CogVideoX 1.5 repeats a frame in front, 1.0 has the same autoencoder and does not."""
    model = models.load(str(tiny_wan))
    plain = latent_facts(model)
    assert "padding" not in plain  # keys of before stay
    model.padding = 1
    assert latent_facts(model) != plain


def test_pixels_are_scaled_before_they_are_rounded(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the pipelines do: near one, bfloat16 has half as many steps below one as it has of what is scaled."""
    model = models.load(str(tiny_wan), dtype="bfloat16")
    seen: list[torch.Tensor] = []
    encode = model.pipeline.vae.encode
    monkeypatch.setattr(model.pipeline.vae, "encode", lambda x: (seen.append(x), encode(x))[1])
    video = torch.rand(1, 9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.encode(video)
    assert torch.equal(seen[0], (video * 2 - 1).bfloat16().transpose(1, 2))
