"""The encoders of texts and pictures leave when everything is encoded; a warm cache never reads their weights."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.commands import main_ok
from vpo_kit import models
from vpo_kit.inputs import Inputs, Shade
from vpo_kit.models.base import VideoModel
from vpo_kit.models.cache import DiskCache, _late_facts
from vpo_kit.models.encoders import Encoders
from vpo_kit.models.encoding import PromptCache
from vpo_kit.testing.families import FAMILIES

PROMPTS = ["a red circle moving right slowly", "a blue square circling quickly", ""]

FAST = ("wan2.1-i2v",)


def saved(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    FAMILIES[name].build().save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


def without_meaning(path: Path) -> None:
    """Other weights in a file that looks the same from outside: whoever reads it sees something else."""
    stat, content = path.stat(), path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:header] + bytes(stat.st_size - header))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def own_items(model: VideoModel) -> list[Inputs]:
    return [model.example(prompt) for prompt in PROMPTS[:2]]


def ahead(model: VideoModel, disk: DiskCache | None = None) -> PromptCache:
    encode = PromptCache(model, disk)
    encode.ahead([(item, model.settings) for item in own_items(model)])
    return encode


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_every_family_sees_the_same_and_its_encoders_leave(name: str, offload: bool, tmp_path: Path) -> None:
    """To the last bit, and nothing holds on to a weight of theirs; what comes later loads them again."""
    folder = saved(name, tmp_path)
    plain = models.load(str(folder), offload=offload)
    late = models.load(str(folder), offload=offload, late_encoders=True)
    for model in (plain, late):
        model.settings = model.settings.changed(frames=9, height=32, width=32)
    assert late.encoders is not None
    weights: list[weakref.ref[nn.Parameter]] = []
    come = late.encoders.come

    def seen(beginning: str) -> None:
        come(beginning)
        parts = [getattr(late.pipeline, one) for one in late.encoders.names if late.encoders]
        weights.extend(weakref.ref(weight) for part in parts if part is not None for weight in part.parameters())

    late.encoders.come = seen  # type: ignore[method-assign]
    found = ahead(late)
    gc.collect()
    assert weights
    assert all(weight() is None for weight in weights)
    expected, given = PromptCache(plain)(own_items(plain)), found(own_items(late))
    assert set(given.tensors) == set(expected.tensors)
    assert all(torch.equal(value, given.tensors[key]) for key, value in expected.tensors.items())
    again = late.encode_conditions(own_items(late)[:1])
    assert all(torch.equal(value[:1], again.tensors[key]) for key, value in expected.tensors.items())


@pytest.mark.parametrize("name", ["wan2.1", "wan2.1-i2v"])
def test_a_warm_cache_never_reads_their_weights(name: str, tmp_path: Path) -> None:
    """Not even for the key under which an embedding lies; a file that has changed is another encoder."""
    folder = saved(name, tmp_path)
    found = []
    for _ in range(2):
        model = models.load(str(folder), late_encoders=True)
        model.settings = model.settings.changed(frames=9, height=32, width=32)
        found.append(ahead(model, DiskCache(tmp_path / "cache", print))(own_items(model)))
        for path in folder.glob("*_encoder/*.safetensors"):
            without_meaning(path)
    assert all(torch.equal(value, found[1].tensors[key]) for key, value in found[0].tensors.items())
    other = models.load(str(folder), late_encoders=True)
    assert other.encoders is not None
    other.encoders.variant = "fp16"  # its files lie in the same folder
    asked: list[Any] = []
    disk = SimpleNamespace(known=lambda _, facts, make: asked.append(facts))
    for one in (model, other):
        _late_facts(one, "text_encoder", disk)  # type: ignore[arg-type]
    assert asked[0] != asked[1]
    os.utime(folder / "text_encoder" / "model.safetensors")
    model = models.load(str(folder), late_encoders=True)
    model.settings = model.settings.changed(frames=9, height=32, width=32)
    changed = ahead(model, DiskCache(tmp_path / "cache", print))(own_items(model))
    assert not torch.equal(changed.tensors["embeds"], found[0].tensors["embeds"])


def test_more_than_memory_keeps_them_there(tiny_wan: Path, tmp_path: Path) -> None:
    """Then they would be loaded again and again; on disk there is room."""
    for disk, stays in ((None, True), (DiskCache(tmp_path / "cache", print), False)):
        model, notices = models.load(str(tiny_wan), late_encoders=True), list[str]()
        encode = PromptCache(model, disk, most_bytes=1)
        encode.ahead([(prompt, model.settings) for prompt in PROMPTS], notices.append)
        assert (model.pipeline.text_encoder is not None) == stays
        assert len(notices) == stays
        assert all("cache=DIR" in line for line in notices)


def test_networks_make_room_on_a_gpu(tiny_wan: Path) -> None:
    """They wait in the machine's memory while an encoder is there, and what is asked for is made on the device."""

    class Network(nn.Module):
        device = torch.device("cuda")
        dtype = torch.float32

        def to(self, place: object) -> Network:  # type: ignore[override]
            moves.append((str(place), model.device.type))
            return self

    moves: list[tuple[str, str]] = []
    model = models.load(str(tiny_wan))
    model.pipeline.transformer = Network()
    read: list[str] = []

    def loaded(names: object) -> dict[str, nn.Module]:
        read.append(model.device.type)
        return {"text_encoder": nn.Linear(1, 1)}

    model.pipeline.register_modules(text_encoder=None)
    encoders = Encoders(model, ["text_encoder"], loaded, lambda _: None, waits=True)
    with encoders.first():
        encoders.come("text_encoder")
        encoders.come("text_encoder")
    assert moves == [("cpu", "cuda"), ("cuda", "cuda")]
    assert read == ["cuda"]
    assert model.home is None


@pytest.mark.slow
def test_a_run_is_the_same(tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, of one whose encoders are always there; and no encoder is left in it."""
    left, load, leave = list[bool](), models.load, Encoders.leave

    def leaving(self: Encoders) -> None:
        leave(self)
        left.append(True)

    monkeypatch.setattr(Encoders, "leave", leaving)
    (tmp_path / "prompts.txt").write_text("\n".join(f"{text} {i}" for i in range(3) for text in PROMPTS[:2]))
    sets = ["batch_size=2", "evaluation.num_prompts=2", "sampling.steps=2", "method.num_candidates=2"]
    flags = [word for text in sets for word in ("--set", text)]
    found = []
    for late in (True, False):
        monkeypatch.setattr(models, "load", lambda *a, late=late, **k: load(*a, **{**k, "late_encoders": late}))
        run = tmp_path / f"late-{late}"
        where = ["--model", tiny_wan, "--prompts", tmp_path / "prompts.txt", "--output", run, "--reward", "technical"]
        main_ok(["train", "--method", "online", "--steps", 2, *where, *flags])
        found.append([(run / name).read_bytes() for name in ("metrics.jsonl", "lora/pytorch_lora_weights.safetensors")])
    assert found[0] == found[1]
    assert left


def test_pictures_ahead(tmp_path: Path) -> None:
    """A picture's encoder leaves as well, and one that sees nothing is never loaded."""
    model = models.load(str(saved("wan2.1-i2v", tmp_path)), late_encoders=True)
    model.settings = model.settings.changed(frames=9, height=32, width=32)
    assert model.pipeline.image_encoder is None
    model.encode_images([Inputs(PROMPTS[0], Shade(1))])
    assert model.pipeline.image_encoder is not None
    assert model.pipeline.text_encoder is None
