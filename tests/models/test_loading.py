"""A pipeline class, and a network class, that are another package's."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.plugins import install
from vpo_kit import models
from vpo_kit.errors import ModelError
from vpo_kit.library import card
from vpo_kit.models.loading import pipeline_class
from vpo_kit.planning import skeleton
from vpo_kit.sampler import draw_noise
from vpo_kit.testing import adapter
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.parity import open_case

MODULE = """
import diffusers
from diffusers import ModelMixin  # by this name diffusers knows how to load the class below
from vpo_kit.models.wan import WanModel


class OwnTransformer(diffusers.WanTransformer3DModel):
    def forward(self, *given, **named):
        return (-super().forward(*given, **named)[0],)


class OwnPipeline(diffusers.WanPipeline):
    pass


class OwnModel(WanModel):
    pipeline_class = OwnPipeline


class Lost(WanModel):
    pass
"""
PROJECT = """
[project]
name = "vpo-own"
version = "1"

[project.entry-points."vpo_kit.models"]
OwnPipeline = "vpo_own:OwnModel"
LostPipeline = "vpo_own:Lost"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a pipeline whose class and whose network's class are in an installed package."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "vpo_own.py").write_text(MODULE)
    (package / "pyproject.toml").write_text(PROJECT)
    install(package, tmp_path / "site", monkeypatch)
    module = importlib.import_module("vpo_own")
    torch.manual_seed(0)
    parts = FAMILIES["wan2.1"].build().components
    parts["transformer"] = module.OwnTransformer.from_config(parts["transformer"].config)
    module.OwnPipeline(**parts).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_classes_of_another_package(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded, planned, checked against the pipeline itself, and named on the card."""
    case = open_case(str(own))
    kinds = type(case.plain).__module__, type(case.model.network).__module__
    assert kinds == ("vpo_own", "vpo_own")
    for check in ("video", "LoRA file"):
        found = list(adapter.run(check, case))
        assert all(one.passed for one in found), [one.line() for one in found]
    planned = skeleton.build(str(own), FakeTensorMode(allow_non_fake_inputs=True))
    assert type(planned.network) is type(case.model.network)
    assert planned.latent_shape(9, 32, 32) == case.model.latent_shape(9, 32, 32)
    code = card._use(str(own), case.model)
    assert "from vpo_own import OwnPipeline\n" in code
    plain = models.load(str(own))
    x, time = draw_noise(case.shape, [1]), torch.tensor([500.0])
    with torch.no_grad():
        ours = plain.predict(x, time, plain.encode_prompts(["a"]))
        wan = super(type(plain.network), plain.network).forward(
            x, timestep=time, encoder_hidden_states=plain.encode_prompts(["a"]).tensors["embeds"], return_dict=False
        )[0]
    torch.testing.assert_close(ours, -wan)


def test_a_class_that_is_nowhere(own: Path) -> None:
    with pytest.raises(ModelError, match=r"has no LostPipeline: its adapter vpo_own:Lost must say where it is"):
        pipeline_class("LostPipeline")
