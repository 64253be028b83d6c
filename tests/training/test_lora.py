"""The policy's own promises: its first weights follow from the seed, and the reference moves as it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.support.power import Cuts
from tests.support.rollout_member import forget
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.models.base import VideoModel
from vpo_kit.training.lora import LoraPolicy


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@contextmanager
def policy(model: VideoModel, seed: int) -> Iterator[LoraPolicy]:
    try:
        yield LoraPolicy(model, Lora(rank=4, alpha=8), seed)
    finally:
        forget(model)


def test_the_first_weights_follow_from_the_seed_alone(model: VideoModel) -> None:
    found = []
    for seed, others in ((0, 5), (0, 6), (1, 5)):
        torch.manual_seed(others)
        before = torch.get_rng_state()
        with policy(model, seed) as one:
            found.append(one.state())
        assert torch.equal(torch.get_rng_state(), before), "whoever draws numbers beside the run gets the same ones"
    first, same, other = ([value for key, value in sorted(state.items()) if ".lora_A." in key] for state in found)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_nothing_is_dropped_in_policy_or_reference(model: VideoModel) -> None:
    x, t = torch.randn(1, *model.latent_shape(9, 32, 32)), torch.tensor([500.0])
    conditions = model.encode_prompts(["a red circle"])
    with policy(model, 0) as one, torch.no_grad():
        one.refresh_reference(0.0)
        for network in one.networks.values():
            assert not [
                name for name, part in network.named_modules() if part.training and "Dropout" in str(type(part))
            ]
        for parameter in one.parameters:
            parameter.add_(0.05)
        again = [model.predict(x, t, conditions) for _ in range(2)]
        assert torch.equal(*again)
        with one.reference():
            assert torch.equal(*(model.predict(x, t, conditions) for _ in range(2)))


def test_the_reference_moves_by_the_share_that_it_is_told(model: VideoModel) -> None:
    """From where it is: the bare model at first, then what the last move left."""
    with policy(model, 0) as one, torch.no_grad():
        for parameter in one.parameters:
            parameter.fill_(0.8)
        one.refresh_reference(0.75)
        first = one.reference_state()
        for parameter in one.parameters:
            parameter.fill_(0.4)
        one.refresh_reference(0.5)
        second = one.reference_state()
        assert first is not None
        assert second is not None
        for key in first:
            if ".lora_B." in key:  # a quarter of the way from 0 to .8, and half of that from there to .4
                torch.testing.assert_close(first[key], torch.full_like(first[key], 0.2))
                torch.testing.assert_close(second[key], torch.full_like(first[key], 0.3))
        one.refresh_reference(0.0)
        copied, own = one.reference_state(), one.state()
        assert copied is not None
        assert all(torch.equal(copied[key], own[key]) for key in own)


def test_an_export_has_its_name_when_it_is_on_the_disk(model: VideoModel, tmp_path: Path) -> None:
    """A board takes a run for done by its summary, which comes later: the LoRA must outlive a power cut."""
    cuts = Cuts(tmp_path / "run", tmp_path / "cuts")
    with policy(model, 0) as made, cuts.watched():
        made.export(tmp_path / "run")
    whole = (tmp_path / "run" / "pytorch_lora_weights.safetensors").read_bytes()
    there = [path.read_bytes() for state in cuts.states for path in state.glob("pytorch_lora_weights.safetensors")]
    assert there
    assert set(there) == {whole}
