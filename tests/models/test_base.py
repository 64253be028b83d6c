"""What the base of all adapters promises: parts that are frozen, and a batch whose rows know nothing of each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vpo_kit import models
from vpo_kit.models.base import Conditions, VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.wan import WanModel
from vpo_kit.sampler import Guidance, draw_noise, sample
from vpo_kit.testing.families import FAMILIES

PROMPTS = ["a red circle moving right", "a blue square", "a green star circling quickly on a black background"]


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


def test_parts_that_were_being_trained_are_frozen_and_drop_nothing() -> None:
    pipeline = FAMILIES["wan2.1"].build()
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    for part in parts:
        part.train().requires_grad_(True)
    WanModel(pipeline, None, "a pipeline at hand")
    assert not [module for part in parts for module in part.modules() if module.training]
    assert not [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]


def test_a_shift_of_the_settings_goes_with_them(model: VideoModel) -> None:
    """The scheduler that the pipeline came with is back, and one that somebody has put in its place stays."""
    own, found = model.settings, model.pipeline.scheduler
    shape, shifts = model.latent_shape(9, 32, 32), []
    for shift in (9.0, 4.0, None):
        model.use(own.changed(shift=shift))
        shifts.append(model.shift(shape))
    assert shifts == [9.0, 4.0, found.config.flow_shift]
    assert model.pipeline.scheduler is found
    try:
        for given in (9.0, None):
            model.use(own.changed(shift=given))
            model.pipeline.scheduler = type(found).from_config(found.config, flow_shift=3.0)
            for later in (own, own.changed(shift=9.0), own):
                model.use(later)
                assert model.shift(shape) == (later.shift or 3.0)
    finally:
        model.pipeline.scheduler = found


def test_rows_of_conditions() -> None:
    three = Conditions({"embeds": torch.arange(6.0).view(3, 2), "mask": torch.tensor([[1], [2], [3]])})
    assert len(three) == 3
    assert three[1:].tensors["mask"].flatten().tolist() == [2, 3]
    assert three[[2, 0]].tensors["embeds"].tolist() == [[4, 5], [0, 1]]
    assert three.repeat(2).tensors["mask"].flatten().tolist() == [1, 1, 2, 2, 3, 3]
    assert three[:1].expand(2).tensors["mask"].flatten().tolist() == [1, 1]
    assert Conditions.cat([three, three[:1]]).tensors["mask"].flatten().tolist() == [1, 2, 3, 1]
    other = three.replaced(1, three[2:])
    assert (other.tensors["mask"].flatten().tolist(), other.tensors["embeds"][1].tolist()) == ([1, 3, 3], [4, 5])
    assert three.tensors["mask"].flatten().tolist() == [1, 2, 3]
    assert three.with_guidance(3.0) is None
    scaled = Conditions({**three.tensors, "guidance": torch.ones(3)}).with_guidance(3.0)
    assert scaled is not None
    assert scaled.tensors["guidance"].tolist() == [3.0] * 3


@torch.no_grad()
def test_a_row_is_what_it_would_be_alone(model: VideoModel) -> None:
    """Its own prompt, time and noise, through one pass and through the chain; prompts of other lengths beside it."""
    x, t = draw_noise(model.latent_shape(9, 32, 32), [1, 2, 3]), torch.tensor([900.0, 500.0, 20.0])
    together = model.predict(x, t, PromptCache(model)(PROMPTS))
    negative = Guidance(4.0, model.encode_prompts([""]))
    videos = sample(model, model.encode_prompts(PROMPTS), noise=x, steps=3, guidance=negative)
    for row, prompt in enumerate(PROMPTS):
        own, rows = model.encode_prompts([prompt]), slice(row, row + 1)
        torch.testing.assert_close(together[rows], model.predict(x[rows], t[rows], own), atol=1e-5, rtol=1e-4)
        alone = sample(model, own, noise=x[rows], steps=3, guidance=negative)
        torch.testing.assert_close(videos[rows], alone, atol=1e-4, rtol=1e-4)
        for other in range(3):
            same = torch.allclose(
                together[rows], model.predict(x[rows], t[rows], model.encode_prompts([PROMPTS[other]])), atol=1e-5
            )
            assert same == (row == other)
